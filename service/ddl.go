package service

import (
	"fmt"
	"io"

	bigquerysink "github.com/millstream/millstream/sinks/bigquery"

	"github.com/millstream/millstream/query"
)

// DDL prints, for each sink that is a table, the statement that makes one which takes the rows of q. It
// connects to nothing.
func DDL(s *Settings, q *query.Query, out io.Writer) error {
	printed := false
	for _, raw := range s.Sinks {
		l, err := parseLocation("--sink", raw)
		if err != nil {
			return err
		}
		if l.scheme != "bigquery" {
			continue
		}
		name, err := l.tableName()
		if err != nil {
			return err
		}
		columns, functions := q.Columns(), q.Functions()
		if len(columns) == 0 {
			return settingf("--select", "is missing: without --window and --select a row is the record, whose columns only you know")
		}
		made := make([]bigquerysink.Column, len(columns))
		for i := range columns {
			made[i] = bigquerysink.Column{Name: columns[i], Type: bigquerysink.TypeOf(functions[i]), Key: q.Windowed() && functions[i] == ""}
			if q.Windowed() && i < 2 {
				made[i].Type = "TIMESTAMP"
			}
		}
		if _, err := io.WriteString(out, bigquerysink.DDL(name, made)); err != nil {
			return fmt.Errorf("print: %w", err)
		}
		printed = true
	}
	if !printed {
		return settingf("--ddl", "needs a table: --sink bigquery://PROJECT/DATASET/TABLE")
	}
	return nil
}
