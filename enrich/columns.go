package enrich

import (
	"fmt"
	"slices"
	"strings"
)

// SelectColumns is SelectFields for tables of named columns: it returns the columns to read, and the Fields to
// keep of the rows that they make. Of the name a.b, column a is read, unless there is a column a.b itself.
// Narrow are the columns of which only some fields are kept, which therefore must hold JSON; without any, rows
// need not be parsed. No names: no columns, for the caller to read all of them.
func SelectColumns(names, columns []string) (read []string, keep Fields, narrow []string, err error) {
	var whole []string
	for _, name := range names {
		column, _, path := strings.Cut(name, ".")
		if slices.Contains(columns, name) {
			column, path = name, false
		}
		switch {
		case !slices.Contains(columns, column):
			return nil, keep, nil, fmt.Errorf("it has no column %q, but %s", column, strings.Join(columns, ", "))
		case path && !slices.Contains(narrow, column):
			narrow = append(narrow, column)
		case !path:
			whole = append(whole, column)
		}
		if !slices.Contains(read, column) {
			read = append(read, column)
		}
	}
	narrow = slices.DeleteFunc(narrow, func(column string) bool { return slices.Contains(whole, column) })
	if len(narrow) == 0 {
		return read, keep, nil, nil
	}
	if dotted := slices.IndexFunc(read, func(column string) bool { return strings.Contains(column, ".") }); dotted >= 0 {
		return nil, keep, nil, fmt.Errorf("column %q cannot be selected beside fields of others", read[dotted])
	}
	keep, err = SelectFields(names)
	return read, keep, narrow, err
}
