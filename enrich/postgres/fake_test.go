package postgres

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgtype"
)

const fakePassword = "s3cret-enough"

// fakeColumn is a column of the fake's table, and how its catalogue knows its type.
type fakeColumn struct {
	name string
	oid  uint32
}

// fake is a server with one table, that speaks the wire protocol and knows no SQL: it tells the queries apart
// by what is in them, and remembers what it was sent.
type fake struct {
	listener net.Listener
	tls      *tls.Config

	mu      sync.Mutex
	conns   []net.Conn
	columns []fakeColumn
	types   [][]string          // rows of the catalogue
	rows    map[string][]string // values by key; "\x00" is NULL
	more    [][]string          // rows besides, sent whatever was asked
	fail    *pgproto3.ErrorResponse
	hang    chan struct{} // closed when a query arrives that will not be answered

	queries  []string
	arrays   []uint32 // the types of the keys' parameter
	settings []string // the time-outs that came with set_config
}

func newFake(t *testing.T, config *tls.Config) *fake {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{
		listener: listener, tls: config, rows: map[string][]string{},
		columns: []fakeColumn{{"id", pgtype.TextOID}, {"tier", pgtype.TextOID}, {"n", pgtype.Float8OID}, {"nested", pgtype.JSONBOID}},
		types: [][]string{
			{"25", "0", "0", "1009", "text", "S", ","}, {"701", "0", "0", "1022", "float8", "N", ","},
			{"3802", "0", "0", "3807", "jsonb", "U", ","}, {"1184", "0", "0", "1185", "timestamptz", "D", ","},
			{"20", "0", "0", "1016", "int8", "N", ","}, {"17", "0", "0", "1001", "bytea", "U", ","}, {"1007", "0", "23", "0", "_int4", "A", ","}, {"23", "0", "0", "1007", "int4", "N", ","},
		},
	}
	t.Cleanup(f.down)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns = append(f.conns, conn)
			f.mu.Unlock()
			go f.serve(conn)
		}
	}()
	return f
}

// down drops every connection and takes no more.
func (f *fake) down() {
	_ = f.listener.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		_ = c.Close()
	}
}

func (f *fake) options() Options {
	return Options{Address: f.listener.Addr().String(), User: "reader", Password: fakePassword, Table: "app.users", Key: "id"}
}

func (f *fake) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	b := pgproto3.NewBackend(conn, conn)
	startup, err := b.ReceiveStartupMessage()
	if _, ok := startup.(*pgproto3.CancelRequest); ok {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, c := range f.conns {
			_ = c.Close() // a server would end the query, and then the connection has nothing to wait for
		}
		return
	}
	if _, ok := startup.(*pgproto3.SSLRequest); ok && err == nil {
		if f.tls == nil {
			_, _ = conn.Write([]byte("N"))
			return
		}
		_, _ = conn.Write([]byte("S"))
		conn = tls.Server(conn, f.tls)
		b = pgproto3.NewBackend(conn, conn)
		_, err = b.ReceiveStartupMessage()
	}
	if err != nil {
		return
	}
	b.Send(&pgproto3.AuthenticationCleartextPassword{})
	_ = b.SetAuthType(pgproto3.AuthTypeCleartextPassword)
	if b.Flush() != nil {
		return
	}
	if m, err := b.Receive(); err != nil {
		return
	} else if p, ok := m.(*pgproto3.PasswordMessage); !ok || p.Password != fakePassword {
		b.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "28P01", Message: "password authentication failed"})
		_ = b.Flush()
		return
	}
	b.Send(&pgproto3.AuthenticationOk{})
	b.Send(&pgproto3.ParameterStatus{Name: "server_encoding", Value: "UTF8"})
	b.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}})
	b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	var parse pgproto3.Parse
	var bind pgproto3.Bind
	for failed := false; b.Flush() == nil; {
		message, err := b.Receive()
		if err != nil {
			return
		}
		switch m := message.(type) {
		case *pgproto3.Sync:
			failed = false
			b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		case *pgproto3.Parse:
			parse = pgproto3.Parse{Query: m.Query, ParameterOIDs: slices.Clone(m.ParameterOIDs)}
		case *pgproto3.Bind:
			bind = pgproto3.Bind{}
			for _, p := range m.Parameters {
				bind.Parameters = append(bind.Parameters, slices.Clone(p))
			}
		case *pgproto3.Execute:
			if failed {
				continue
			}
			if f.hangs(parse) {
				_, _ = io.Copy(io.Discard, conn)
				return
			}
			if problem := f.execute(b, parse, bind); problem != nil {
				failed = true
				b.Send(problem)
			}
		case *pgproto3.Terminate:
			return
		}
	}
}

// hangs reports whether this query will not be answered.
func (f *fake) hangs(parse pgproto3.Parse) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hang == nil || !strings.Contains(parse.Query, "ANY($1)") {
		return false
	}
	close(f.hang)
	f.hang = nil
	return true
}

// execute answers one query whole, its description included.
func (f *fake) execute(b *pgproto3.Backend, parse pgproto3.Parse, bind pgproto3.Bind) *pgproto3.ErrorResponse {
	f.mu.Lock()
	defer f.mu.Unlock()
	b.Send(&pgproto3.ParseComplete{})
	b.Send(&pgproto3.BindComplete{})
	send := func(columns []fakeColumn, rows ...[]string) *pgproto3.ErrorResponse {
		description := &pgproto3.RowDescription{}
		for _, c := range columns {
			description.Fields = append(description.Fields, pgproto3.FieldDescription{Name: []byte(c.name), DataTypeOID: c.oid})
		}
		b.Send(description)
		for _, row := range rows {
			values := make([][]byte, len(row))
			for i, v := range row {
				if v != "\x00" {
					values[i] = []byte(v)
				}
			}
			b.Send(&pgproto3.DataRow{Values: values})
		}
		b.Send(&pgproto3.CommandComplete{CommandTag: fmt.Appendf(nil, "SELECT %d", len(rows))})
		return nil
	}
	switch {
	case strings.Contains(parse.Query, "set_config"):
		f.settings = append(f.settings, string(bind.Parameters[0]))
		return send(make([]fakeColumn, 7), make([]string, 7))
	case strings.Contains(parse.Query, "pg_attribute"):
		var rows [][]string
		for _, c := range f.columns {
			rows = append(rows, []string{c.name, strconv.Itoa(int(c.oid)), "f", "t"})
		}
		return send(make([]fakeColumn, 4), rows...)
	case strings.Contains(parse.Query, "pg_type"):
		return send(make([]fakeColumn, 7), f.types...)
	}
	f.queries = append(f.queries, parse.Query)
	f.arrays = append(f.arrays, parse.ParameterOIDs...)
	keys := readArray(string(bind.Parameters[0]))
	if f.fail != nil && len(keys) > 0 {
		return f.fail
	}
	list, _, _ := strings.Cut(strings.TrimPrefix(parse.Query, "SELECT "), " FROM ")
	var columns []fakeColumn
	var places []int
	for _, item := range strings.Split(list, ", ") {
		for i, c := range f.columns {
			if item == "t.*" || item == "t."+quote(c.name) {
				columns, places = append(columns, c), append(places, i)
			}
		}
	}
	var rows [][]string
	pick := func(row []string) {
		picked := make([]string, len(places))
		for i, p := range places {
			picked[i] = row[p]
		}
		rows = append(rows, picked)
	}
	for _, key := range keys {
		if row, ok := f.rows[key]; ok {
			pick(row)
		}
	}
	for _, row := range f.more {
		pick(row)
	}
	return send(columns, rows...)
}

// readArray reads what appendArray has written, in another way.
func readArray(text string) []string {
	var elements []string
	if json.Unmarshal([]byte("["+strings.Trim(text, "{}")+"]"), &elements) == nil {
		return elements // an element is quoted as JSON quotes it, for all that the tests send
	}
	return nil
}
