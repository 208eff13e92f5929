package mysql

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/millstream/millstream/enrich"
)

// shape tells the statements apart: how many keys, and for how many milliseconds the server may work.
type shape struct {
	keys    int
	timeout int64
}

// maxTimeout is the most milliseconds that the server is told; with more it has no limit.
const maxTimeout = 1 << 20

// shapeOf rounds up, so that few statements serve all calls.
func shapeOf(ctx context.Context, keys int) shape {
	s := shape{keys: 1}
	for s.keys < keys {
		s.keys *= 2
	}
	s.keys = min(s.keys, maxKeys)
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline).Milliseconds()
		for s.timeout = 128; s.timeout < left; {
			s.timeout *= 2
		}
		if s.timeout > maxTimeout {
			s.timeout = 0
		}
	}
	return s
}

// query is the statement of a shape.
func (t *Table) query(s shape) string {
	places := strings.Repeat(", "+t.key.place, s.keys)[2:]
	before, hint := "", ""
	switch {
	case s.timeout > 0 && t.maria:
		before = fmt.Sprintf("SET STATEMENT max_statement_time = %d.%03d FOR ", s.timeout/1000, s.timeout%1000)
	case s.timeout > 0:
		hint = fmt.Sprintf("/*+ MAX_EXECUTION_TIME(%d) */ ", s.timeout)
	}
	return before + "SELECT " + hint + t.list + " FROM " + t.from + " AS t WHERE t." + t.quoted + " IN (" + places + ")"
}

// statement prepares a query once.
func (t *Table) statement(ctx context.Context, s shape) (*sql.Stmt, error) {
	t.mu.Lock()
	prepared := t.statements[s]
	t.mu.Unlock()
	if prepared != nil {
		return prepared, nil
	}
	prepared, err := t.db.PrepareContext(ctx, t.query(s))
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if first := t.statements[s]; first != nil {
		_ = prepared.Close()
		return first, nil
	}
	t.statements[s] = prepared
	return prepared, nil
}

// ask sends the query and gives its rows to c.
func (t *Table) ask(ctx context.Context, c *enrich.Collector) error {
	s := shapeOf(ctx, len(c.Values()))
	params := make([]any, s.keys)
	for i := range params {
		params[i] = t.key.param(c.Values()[min(i, len(c.Values())-1)])
	}
	return t.run(ctx, s, params, c)
}

func (t *Table) run(ctx context.Context, s shape, params []any, c *enrich.Collector) (err error) {
	statement, err := t.statement(ctx, s)
	if err != nil {
		return err
	}
	rows, err := statement.QueryContext(ctx, params...)
	if err != nil {
		return err
	}
	defer func() {
		if closed := rows.Close(); err == nil {
			err = closed
		}
	}()
	types, err := rows.ColumnTypes()
	if err != nil {
		return err
	}
	columns := make([]column, len(types))
	values := make([]sql.RawBytes, len(types))
	pointers := make([]any, len(types))
	for i, ct := range types {
		columns[i] = column{name: ct.Name(), kind: kindOf(ct.DatabaseTypeName())}
		if t.json[ct.Name()] {
			columns[i].kind = kindJSON
		}
		pointers[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(pointers...); err != nil {
			return err
		}
		if values[0] == nil || c == nil {
			continue
		}
		value := t.key.read(string(values[0]))
		if !c.Wants(value) {
			continue
		}
		row, err := t.row(columns, values)
		if err == nil && row.JSON == nil {
			continue
		}
		if err := c.Add(value, row, err); err != nil {
			return err
		}
	}
	return rows.Err()
}

// row is the row of the query's values: JSON, and when it is valid. One that never is has no JSON.
func (t *Table) row(columns []column, values []sql.RawBytes) (row enrich.Row, err error) {
	if t.since > 0 {
		if row.From, err = parseTime(values[t.since]); err != nil {
			return row, fmt.Errorf("%w: %s: %w", enrich.ErrMalformed, columns[t.since].name, err)
		}
	}
	if t.until > 0 {
		if row.To, err = parseTime(values[t.until]); err != nil {
			return row, fmt.Errorf("%w: %s: %w", enrich.ErrMalformed, columns[t.until].name, err)
		}
	}
	if !row.To.IsZero() && row.From.Equal(row.To) {
		return row, nil
	}
	out := bytes.NewBuffer(make([]byte, 0, 256))
	out.WriteByte('{')
	first, nested := 1+t.asOf, false
	for i := first; i < len(values); i++ {
		nested = nested || columns[i].kind == kindJSON
		if i > first {
			out.WriteByte(',')
		}
		appendString(out, columns[i].name)
		out.WriteByte(':')
		if err := columns[i].kind.append(out, values[i]); err != nil {
			return row, fmt.Errorf("%w: column %s: %w", enrich.ErrMalformed, columns[i].name, err)
		}
	}
	out.WriteByte('}')
	row.JSON = out.Bytes()
	if nested {
		row.JSON, err = t.keep.Object(row.JSON)
	}
	return row, err
}

// verify reads what the server knows of the table, and runs the query once, with no key.
func (t *Table) verify(ctx context.Context, o Options, database, table string) error {
	var version string
	if err := t.db.QueryRowContext(ctx, "SELECT VERSION()").Scan(&version); err != nil {
		return err
	}
	t.maria = strings.Contains(version, "MariaDB")
	found, err := t.describe(ctx)
	var refused *mysql.MySQLError
	switch {
	case errors.As(err, &refused) && (refused.Number == 1142 || refused.Number == 1143):
		return fmt.Errorf("user %s may not read it: GRANT SELECT ON %s TO %s: %w", o.User, t.from, o.User, err)
	case err != nil:
		return err
	}
	if t.maria {
		if err := t.checkedJSON(ctx, database, table); err != nil {
			return err
		}
	}
	names := make([]string, len(found))
	for i, c := range found {
		names[i] = c.name
	}
	column := func(name string) (described, error) {
		if i := slices.Index(names, name); i >= 0 {
			return found[i], nil
		}
		return described{}, fmt.Errorf("it has no column %q, but %s", name, strings.Join(names, ", "))
	}
	key, err := column(o.Key)
	if err != nil {
		return err
	}
	if t.key, err = keyTypeOf(key); err != nil {
		return fmt.Errorf("column %q: %w", o.Key, err)
	}
	if !key.indexed && !slices.ContainsFunc(found, func(c described) bool { return c.indexed }) {
		o.Logger = nil // a view: nobody can tell
	}
	if !key.indexed && o.Logger != nil {
		o.Logger.Warn("no index begins with the key: every call reads the whole table", slog.String("table", o.Table), slog.String("key", o.Key))
	}
	t.list = "t." + quote(o.Key)
	for _, v := range []struct {
		name  string
		place *int
	}{{o.ValidFrom, &t.since}, {o.ValidTo, &t.until}} {
		if v.name == "" {
			continue
		}
		c, err := column(v.name)
		if err != nil {
			return err
		}
		if c.base != "date" && c.base != "datetime" && c.base != "timestamp" {
			return fmt.Errorf("column %q says when a row is valid, and is no timestamp, datetime or date", v.name)
		}
		t.asOf++
		*v.place = t.asOf
		t.list += ", t." + quote(v.name)
	}
	read, keep, narrow, err := enrich.SelectColumns(o.Select, names)
	if err != nil {
		return err
	}
	t.keep = keep
	for _, name := range narrow {
		if c, _ := column(name); c.base != "json" && !t.json[name] {
			return fmt.Errorf("column %q has no fields: it is no JSON", name)
		}
	}
	for _, name := range read {
		t.list += ", t." + quote(name)
	}
	if len(read) == 0 {
		t.list += ", t.*"
	}
	err = t.run(ctx, shape{keys: 1}, []any{nil}, nil)
	if errors.As(err, &refused) && (refused.Number == 1142 || refused.Number == 1143) {
		return fmt.Errorf("user %s may not read it: GRANT SELECT ON %s TO %s: %w", o.User, t.from, o.User, err)
	}
	return err
}

// describe returns the columns of the table.
func (t *Table) describe(ctx context.Context) (found []described, err error) {
	rows, err := t.db.QueryContext(ctx, "SHOW FULL COLUMNS FROM "+t.from)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var name, columnType, collation, null, key, fallback, extra, privileges, comment sql.NullString
		if err := rows.Scan(&name, &columnType, &collation, &null, &key, &fallback, &extra, &privileges, &comment); err != nil {
			return nil, err
		}
		found = append(found, describedAs(name.String, columnType.String, collation.String, key.String != ""))
	}
	return found, rows.Err()
}

// checkedJSON finds MariaDB's JSON columns, which are texts with a constraint.
func (t *Table) checkedJSON(ctx context.Context, database, table string) error {
	rows, err := t.db.QueryContext(ctx, "SELECT CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = ? AND TABLE_NAME = ?", database, table)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var clause string
		if err := rows.Scan(&clause); err != nil {
			return err
		}
		if name, ok := strings.CutPrefix(clause, "json_valid(`"); ok && strings.HasSuffix(name, "`)") {
			t.json[strings.ReplaceAll(strings.TrimSuffix(name, "`)"), "``", "`")] = true
		}
	}
	return rows.Err()
}

// splitTable reads "table" or "database.table".
func splitTable(name string) (database, table string, err error) {
	var parts []string
	for rest, more := name, true; more; {
		part, after := "", ""
		if strings.HasPrefix(rest, "`") {
			end := strings.IndexByte(rest[1:], '`')
			if end < 0 {
				return "", "", fmt.Errorf("mysql: table %q: a backtick is not closed", name)
			}
			part, after = rest[1:1+end], rest[2+end:]
			if after, more = strings.CutPrefix(after, "."); !more && after != "" {
				return "", "", fmt.Errorf("mysql: table %q: %q comes after a backtick", name, after)
			}
		} else {
			part, after, more = strings.Cut(rest, ".")
		}
		if part == "" || strings.ContainsAny(part, "\x00`") || len(parts) == 2 {
			return "", "", fmt.Errorf("mysql: %q is not a table: table or database.table is", name)
		}
		parts, rest = append(parts, part), after
	}
	if len(parts) == 2 {
		return parts[0], parts[1], nil
	}
	return "", parts[0], nil
}

func quote(identifier string) string {
	return "`" + strings.ReplaceAll(identifier, "`", "``") + "`"
}
