package mysql

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
)

// fakeColumn is a column of the fake's table, as SHOW FULL COLUMNS and as an answer describe it.
type fakeColumn struct {
	name, columnType, collation, key string
	answered                         string
}

// fake is a driver with one table, that knows no SQL: it tells the queries apart by what is in them, and
// remembers what it was sent. The wire protocol is the real driver's, and tested with a real server.
type fake struct {
	mu      sync.Mutex
	version string
	columns []fakeColumn
	checks  []string
	rows    map[any][]driver.Value
	more    [][]driver.Value // rows besides, sent whatever was asked
	fail    error
	refused map[string]error // settings that it does not take
	down    bool
	hang    chan struct{} // closed when a query arrives that will not be answered

	executed []string
	prepared []string
	params   [][]any // of each query
}

func newFake() *fake {
	return &fake{
		version: "8.4.6",
		rows:    map[any][]driver.Value{},
		columns: []fakeColumn{
			{"id", "varchar(80)", "utf8mb4_0900_ai_ci", "PRI", "VARCHAR"}, {"tier", "varchar(20)", "utf8mb4_0900_ai_ci", "", "VARCHAR"},
			{"n", "double", "", "", "DOUBLE"}, {"nested", "json", "", "", "JSON"},
		},
	}
}

func (f *fake) options() Options {
	return Options{Address: "fake", Database: "app", User: "reader", Password: "s3cret-enough", Table: "users", Key: "id"}
}

func (f *fake) Driver() driver.Driver { return nil }

func (f *fake) Connect(context.Context) (driver.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, errors.New("connection refused")
	}
	return &fakeConn{f}, nil
}

type fakeConn struct{ *fake }

func (c *fakeConn) Begin() (driver.Tx, error) { return nil, errors.ErrUnsupported }
func (c *fakeConn) Close() error              { return nil }

func (c *fakeConn) ExecContext(_ context.Context, query string, _ []driver.NamedValue) (driver.Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.executed = append(c.executed, query)
	if err := c.refused[query]; err != nil {
		return nil, err
	}
	return driver.ResultNoRows, nil
}

func (c *fakeConn) Prepare(query string) (driver.Stmt, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		return nil, driver.ErrBadConn
	}
	c.prepared = append(c.prepared, query)
	return &fakeStmt{c.fake, query}, nil
}

type fakeStmt struct {
	*fake
	text string
}

func (s *fakeStmt) Close() error                               { return nil }
func (s *fakeStmt) NumInput() int                              { return strings.Count(s.text, "?") }
func (s *fakeStmt) Exec([]driver.Value) (driver.Result, error) { return nil, errors.ErrUnsupported }
func (s *fakeStmt) Query([]driver.Value) (driver.Rows, error)  { return nil, errors.ErrUnsupported }
func (s *fakeStmt) CheckNamedValue(*driver.NamedValue) error   { return nil } // as the real one takes uint64

func (s *fakeStmt) QueryContext(ctx context.Context, params []driver.NamedValue) (driver.Rows, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rows := &fakeRows{}
	switch {
	case s.down:
		return nil, driver.ErrBadConn
	case s.text == "SELECT VERSION()":
		rows.columns, rows.rows = make([]fakeColumn, 1), [][]driver.Value{{s.version}}
	case strings.HasPrefix(s.text, "SHOW FULL COLUMNS"):
		rows.columns = make([]fakeColumn, 9)
		for _, c := range s.columns {
			rows.rows = append(rows.rows, []driver.Value{c.name, c.columnType, c.collation, "YES", c.key, nil, "", "select", ""})
		}
	case strings.HasPrefix(s.text, "SELECT CHECK_CLAUSE"):
		rows.columns = make([]fakeColumn, 1)
		for _, c := range s.checks {
			rows.rows = append(rows.rows, []driver.Value{c})
		}
	default:
		return s.find(ctx, params)
	}
	return rows, nil
}

// find answers the table's own query.
func (s *fakeStmt) find(ctx context.Context, params []driver.NamedValue) (driver.Rows, error) {
	keys := make([]any, len(params))
	for i, p := range params {
		keys[i] = p.Value
	}
	s.params = append(s.params, keys)
	verified := keys[0] != nil
	if s.fail != nil && verified {
		return nil, s.fail
	}
	if s.hang != nil && verified {
		close(s.hang)
		s.hang = nil
		s.mu.Unlock()
		<-ctx.Done()
		s.mu.Lock()
		return nil, ctx.Err()
	}
	list, _, _ := strings.Cut(s.text[strings.Index(s.text, "t.`"):], " FROM ")
	rows := &fakeRows{}
	var places []int
	for _, item := range strings.Split(list, ", ") {
		for i, c := range s.columns {
			if item == "t.*" || item == "t."+quote(c.name) {
				rows.columns, places = append(rows.columns, c), append(places, i)
			}
		}
	}
	pick := func(row []driver.Value) {
		picked := make([]driver.Value, len(places))
		for i, p := range places {
			picked[i] = row[p]
		}
		rows.rows = append(rows.rows, picked)
	}
	for i, key := range keys {
		if raw, ok := key.([]byte); ok {
			key = string(raw)
		}
		if row, ok := s.rows[key]; ok && !slices.Contains(keys[:i], keys[i]) {
			pick(row)
		}
	}
	for _, row := range s.more {
		if verified {
			pick(row)
		}
	}
	return rows, nil
}

type fakeRows struct {
	columns []fakeColumn
	rows    [][]driver.Value
}

func (r *fakeRows) Close() error { return nil }

func (r *fakeRows) Columns() []string {
	names := make([]string, len(r.columns))
	for i, c := range r.columns {
		names[i] = c.name
	}
	return names
}

func (r *fakeRows) ColumnTypeDatabaseTypeName(i int) string { return r.columns[i].answered }

func (r *fakeRows) Next(values []driver.Value) error {
	if len(r.rows) == 0 {
		return io.EOF
	}
	copy(values, r.rows[0])
	r.rows = r.rows[1:]
	return nil
}
