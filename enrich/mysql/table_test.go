package mysql

import (
	"bytes"
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/millstream/millstream/enrich"
	"github.com/millstream/millstream/enrich/enrichtest"
)

func openFake(t *testing.T, f *fake, o Options) *Table {
	t.Helper()
	table, err := open(t.Context(), o, f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = table.Close() })
	return table
}

func TestSuite(t *testing.T) {
	enrichtest.Run(t, func(t *testing.T) *enrichtest.Harness {
		f := newFake()
		return &enrichtest.Harness{
			Table: openFake(t, f, f.options()), KeyField: "id",
			Put: func(_ context.Context, key string, row map[string]any) error {
				nested, err := json.Marshal(row["nested"])
				f.mu.Lock()
				defer f.mu.Unlock()
				f.rows[key] = []driver.Value{key, row["tier"], row["n"], nested}
				return err
			},
			Delete: func(_ context.Context, key string) error {
				f.mu.Lock()
				defer f.mu.Unlock()
				delete(f.rows, key)
				return nil
			},
			Select: func(fields ...string) (enrich.Table, error) {
				o := f.options()
				o.Select = fields[:1] // a table has all the columns that it is asked for, or New fails
				return open(t.Context(), o, f)
			},
			Down: func() {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.down = true
			},
		}
	})
}

// TestOneQuery: a call is one prepared query, with each key once, as a value of the column's type, and the
// caller's time as the server's; and the next call of about as many keys has the same statement.
func TestOneQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.columns[0].columnType = "bigint(20) unsigned"
		f.rows[uint64(7)] = []driver.Value{int64(7), "gold", 1.0, []byte("null")}
		o := f.options()
		o.Select = []string{"tier"}
		table := openFake(t, f, o)
		if !slices.Equal(f.executed, settings) {
			t.Errorf("the session was told %q", f.executed)
		}
		f.prepared, f.params = nil, nil
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		found, err := table.Lookup(ctx, []string{"7", "8", "7", "x", "007", "18446744073709551615", "-1", ""})
		if err != nil || len(found) != 1 || string(found["7"][0].JSON) != `{"tier":"gold"}` {
			t.Fatalf("%s, %v", found, err)
		}
		want := "SELECT /*+ MAX_EXECUTION_TIME(65536) */ t.`id`, t.`tier` FROM `app`.`users` AS t WHERE t.`id` IN (?, ?, ?, ?)"
		if len(f.prepared) != 1 || f.prepared[0] != want {
			t.Errorf("%q, want %q", f.prepared, want)
		}
		most := uint64(18446744073709551615)
		if !slices.Equal(f.params[0], []any{uint64(7), uint64(8), most, most}) {
			t.Errorf("parameters %v", f.params)
		}
		time.Sleep(time.Second) //nolint:forbidigo // virtual time
		if _, err := table.Lookup(ctx, []string{"1", "2", "3", "4"}); err != nil || len(f.prepared) != 1 {
			t.Errorf("%v, %q", err, f.prepared)
		}
		if found, err := table.Lookup(ctx, []string{"x", "y"}); err != nil || found == nil || len(found) != 0 || len(f.params) != 2 {
			t.Errorf("texts that are no key: %v, %v", found, err)
		}
		_ = table.Close()
	})
}

// TestShapes: few statements serve all calls, and no call has less time than its caller.
func TestShapes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shapes := map[shape]bool{}
		for keys := 1; keys <= maxKeys; keys++ {
			s := shapeOf(t.Context(), keys)
			if s.keys < keys || s.keys > maxKeys || s.timeout != 0 {
				t.Fatalf("%d keys: %v", keys, s)
			}
			shapes[s] = true
		}
		if len(shapes) != 11 {
			t.Errorf("%d shapes", len(shapes))
		}
		for left, want := range map[time.Duration]int64{
			time.Nanosecond: 128, 128 * time.Millisecond: 128, 129 * time.Millisecond: 256, 5 * time.Second: 8192, time.Hour: 0, -time.Second: 128,
		} {
			ctx, cancel := context.WithTimeout(t.Context(), left)
			if s := shapeOf(ctx, 1); s.timeout != want {
				t.Errorf("%s: %d ms, want %d", left, s.timeout, want)
			}
			cancel()
		}
	})
	maria := &Table{maria: true, list: "t.`id`", from: "`u`", quoted: "`id`", key: keyType{place: "?"}}
	if got := maria.query(shape{keys: 2, timeout: 8192}); got != "SET STATEMENT max_statement_time = 8.192 FOR SELECT t.`id` FROM `u` AS t WHERE t.`id` IN (?, ?)" {
		t.Error(got)
	}
}

// TestSpellings: what the server finds equal is not the same key, unless it is a uuid.
func TestSpellings(t *testing.T) {
	f := newFake()
	f.more = [][]driver.Value{{"a", "x", 1.0, nil}, {nil, "x", 1.0, nil}}
	found, err := openFake(t, f, f.options()).Lookup(t.Context(), []string{"A", "a", "a "})
	if err != nil || len(found) != 1 || len(found["a"]) != 1 {
		t.Errorf("%v, %v", found, err)
	}
	f.columns[0].columnType, f.columns[0].collation = "binary(16)", ""
	raw := string([]byte{0xa0, 0xee, 0xbc, 0x99, 0x9c, 0x0b, 0x4e, 0xf8, 0xbb, 0x6d, 0x6b, 0xb9, 0xbd, 0x38, 0x0a, 0x11})
	f.more, f.rows[raw] = nil, []driver.Value{[]byte(raw), "gold", 1.0, nil}
	lower := "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
	found, err = openFake(t, f, f.options()).Lookup(t.Context(), []string{strings.ToUpper(lower), lower})
	if err != nil || len(found) != 2 || len(found[lower]) != 1 || len(found[strings.ToUpper(lower)]) != 1 {
		t.Errorf("%v, %v", found, err)
	}
}

// TestSelectPaths: of a JSON column only the fields that are wanted are kept.
func TestSelectPaths(t *testing.T) {
	f := newFake()
	f.rows["a"] = []driver.Value{"a", "gold", 1.0, []byte(`{"city": "Zürich", "zip": 8000}`)}
	o := f.options()
	o.Select = []string{"n", "nested.zip"}
	found, err := openFake(t, f, o).Lookup(t.Context(), []string{"a"})
	if err != nil || string(found["a"][0].JSON) != `{"n":1,"nested":{"zip":8000}}` {
		t.Errorf("%s, %v", found, err)
	}
}

// TestMalformed: what cannot be read is its own key's failure.
func TestMalformed(t *testing.T) {
	f := newFake()
	f.columns = append(f.columns, fakeColumn{"flags", "bit(64)", "", "", "BIT"})
	good := func(key string) []driver.Value {
		return []driver.Value{key, "x", 1.5, []byte("[1]"), []byte{1, 0}}
	}
	with := func(key string, place int, value driver.Value) []driver.Value {
		row := good(key)
		row[place] = value
		return row
	}
	f.more = [][]driver.Value{
		good("good"), good("twice"), good("twice"), good("GOOD"), with("large", 1, strings.Repeat("x", enrich.MaxRow)),
		with("nested", 3, "{"), with("bits", 4, make([]byte, 9)),
	}
	keys := []string{"good", "twice", "large", "nested", "bits", "absent"}
	found, err := openFake(t, f, f.options()).Lookup(t.Context(), keys)
	var failed *enrich.Failed[string]
	if !errors.As(err, &failed) || len(failed.Keys) != 4 {
		t.Fatalf("%v", err)
	}
	for _, key := range keys[1:5] {
		if !errors.Is(failed.Keys[key], enrich.ErrMalformed) {
			t.Errorf("%s: %v", key, failed.Keys[key])
		}
	}
	if len(found) != 1 || string(found["good"][0].JSON) != `{"id":"good","tier":"x","n":1.5,"nested":[1],"flags":256}` {
		t.Errorf("%s", found)
	}
}

func TestVersions(t *testing.T) {
	f := newFake()
	f.columns = []fakeColumn{{"id", "varchar(80)", "utf8mb4_bin", "MUL", "VARCHAR"}, {"since", "datetime", "", "", "DATETIME"}, {"until", "datetime", "", "", "DATETIME"}, {"tier", "text", "utf8mb4_bin", "", "TEXT"}}
	f.more = [][]driver.Value{
		{"a", "2026-03-01 00:00:00", nil, "gold"}, {"a", "0000-00-00 00:00:00", "2026-02-01 00:00:00", "free"},
		{"a", "2026-02-01 00:00:00.5", "2026-03-01 00:00:00", "silver"}, {"a", "2026-02-01 00:00:00", "2026-02-01 00:00:00", "never"},
		{"overlap", nil, nil, "x"}, {"overlap", "2026-02-01 00:00:00", nil, "y"}, {"what", "2026-02-00 00:00:00", nil, "y"}, {"until", nil, "soon", "y"},
	}
	o := f.options()
	o.ValidFrom, o.ValidTo, o.Select = "since", "until", []string{"tier"}
	found, err := openFake(t, f, o).Lookup(t.Context(), []string{"a", "overlap", "what", "until"})
	var failed *enrich.Failed[string]
	if !errors.As(err, &failed) || len(failed.Keys) != 3 || len(found) != 1 {
		t.Fatalf("%v", err)
	}
	for key, err := range failed.Keys {
		if !errors.Is(err, enrich.ErrMalformed) {
			t.Errorf("%s: %v", key, err)
		}
	}
	got := ""
	for _, r := range found["a"] {
		got += fmt.Sprintf("%s %s %s\n", r.From.Format(time.RFC3339Nano), r.To.Format(time.RFC3339Nano), r.JSON)
	}
	if want := `0001-01-01T00:00:00Z 2026-02-01T00:00:00Z {"tier":"free"}
2026-02-01T00:00:00.5Z 2026-03-01T00:00:00Z {"tier":"silver"}
2026-03-01T00:00:00Z 0001-01-01T00:00:00Z {"tier":"gold"}
`; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestMariaJSON: MariaDB's JSON columns are texts, and only those that it checks are JSON.
func TestMariaJSON(t *testing.T) {
	f := newFake()
	f.version, f.checks = "11.4.5-MariaDB", []string{"json_valid(`nested`)", "json_valid(`tier`) or 1", "`n` > 0"}
	f.columns[3].answered = "LONGTEXT"
	f.rows["a"] = []driver.Value{"a", "{}", 1.0, []byte(`{"x": 1}`)}
	found, err := openFake(t, f, f.options()).Lookup(t.Context(), []string{"a"})
	if err != nil || string(found["a"][0].JSON) != `{"id":"a","tier":"{}","n":1,"nested":{"x":1}}` {
		t.Errorf("%s, %v", found, err)
	}
}

// TestSettings: a session that does not take a setting is not used, unless it knows no read-only sessions.
func TestSettings(t *testing.T) {
	for _, statement := range settings {
		for _, number := range []uint16{notSupported, 1193} {
			f := newFake()
			f.refused = map[string]error{statement: &mysql.MySQLError{Number: number}}
			table, err := open(t.Context(), f.options(), f)
			if (err == nil) != (statement == readOnly && number == notSupported) || err != nil && !strings.Contains(err.Error(), statement) {
				t.Errorf("%s, %d: %v", statement, number, err)
			}
			if err == nil {
				_ = table.Close()
			}
		}
	}
}

// TestRefused: an error of the server is the call's, with its number.
func TestRefused(t *testing.T) {
	f := newFake()
	table := openFake(t, f, f.options())
	f.fail = &mysql.MySQLError{Number: 3024, Message: "Query execution was interrupted, maximum statement execution time exceeded"}
	found, err := table.Lookup(t.Context(), []string{"a"})
	var server *mysql.MySQLError
	if found != nil || !errors.As(err, &server) || server.Number != 3024 || !strings.Contains(err.Error(), "users") {
		t.Errorf("%v, %v", found, err)
	}
}

// TestHangs: a server that does not answer holds a call until its time is over, or the table is closed.
func TestHangs(t *testing.T) {
	for _, end := range []string{"cancel", "close"} {
		f := newFake()
		table := openFake(t, f, f.options())
		hung := make(chan struct{})
		f.hang = hung
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := table.Lookup(ctx, []string{"a"})
			done <- err
		}()
		<-hung
		if end == "cancel" {
			cancel()
		} else if err := table.Close(); err != nil {
			t.Error(err)
		}
		err := <-done
		cancel()
		if err == nil || end == "cancel" && !errors.Is(err, context.Canceled) || end == "close" && !strings.Contains(err.Error(), "closed") {
			t.Errorf("%s: %v", end, err)
		}
	}
}

func TestNew(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(o *Options, f *fake)
		want   string
	}{
		{"table", func(o *Options, _ *fake) { o.Table = "a.b.c" }, "database.table"},
		{"backticks", func(o *Options, _ *fake) { o.Table = "`a" }, "not closed"},
		{"key", func(o *Options, _ *fake) { o.Key = "Id" }, `no column "Id", but id, tier, n, nested`},
		{"key type", func(o *Options, _ *fake) { o.Key = "nested" }, "json cannot be a key"},
		{"binary", func(_ *Options, f *fake) { f.columns[0].columnType = "binary(4)" }, "only binary(16)"},
		{"collation", func(_ *Options, f *fake) { f.columns[0].collation = "latin1_x; DROP" }, "its collation"},
		{"select", func(o *Options, _ *fake) { o.Select = []string{"x"} }, `no column "x"`},
		{"field", func(o *Options, _ *fake) { o.Select = []string{"tier.x"} }, "has no fields"},
		{"valid", func(o *Options, _ *fake) { o.ValidTo = "n" }, "no timestamp"},
		{"absent valid", func(o *Options, _ *fake) { o.ValidFrom = "m" }, `no column "m"`},
		{"down", func(_ *Options, f *fake) { f.down = true }, "connection refused"},
	} {
		f := newFake()
		o := f.options()
		c.change(&o, f)
		if _, err := open(t.Context(), o, f); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), o.Password) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for _, c := range []struct {
		name string
		key  string
		want bool
	}{{"no index", "tier", true}, {"indexed", "id", false}} {
		f := newFake()
		o := f.options()
		var logged bytes.Buffer
		o.Key, o.Logger = c.key, slog.New(slog.NewTextHandler(&logged, nil))
		openFake(t, f, o)
		if strings.Contains(logged.String(), "no index begins with the key") != c.want {
			t.Errorf("%s: %q", c.name, logged.String())
		}
	}
}

func TestConfig(t *testing.T) {
	for address, want := range map[string]string{
		"db.example.com": "tcp db.example.com:3306 true", "10.0.0.7:3307": "tcp 10.0.0.7:3307 true", "localhost": "tcp localhost:3306 false",
		"127.0.0.1:1": "tcp 127.0.0.1:1 false", "[::1]": "tcp [::1]:3306 false", "::1": "tcp [::1]:3306 false", "/run/mysqld.sock": "unix /run/mysqld.sock false",
	} {
		o := newFake().options()
		o.Address = address
		config, err := o.config()
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		if got := fmt.Sprint(config.Net, " ", config.Addr, " ", config.TLS != nil && !config.TLS.InsecureSkipVerify); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
	for name, change := range map[string]func(o *Options){
		"address": func(o *Options) { o.Address = "" }, "port": func(o *Options) { o.Address = "h:0" }, "host": func(o *Options) { o.Address = "a:b:c" },
		"tls": func(o *Options) { o.TLS = "prefer" }, "authorities": func(o *Options) { o.CAFile = "/nowhere" }, "none": func(o *Options) { o.CAFile = "table_test.go" },
		"connections": func(o *Options) { o.MaxConns = -1 },
	} {
		o := newFake().options()
		change(&o)
		if _, err := New(t.Context(), o); err == nil || strings.Contains(err.Error(), o.Password) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSplitTable(t *testing.T) {
	for name, want := range map[string][2]string{
		"users": {"", "users"}, "app.users": {"app", "users"}, "`a.b`.users": {"a.b", "users"}, "a.`b.c`": {"a", "b.c"}, "x; DROP TABLE x": {"", "x; DROP TABLE x"},
	} {
		if database, table, err := splitTable(name); err != nil || database != want[0] || table != want[1] {
			t.Errorf("%s: %q, %q, %v", name, database, table, err)
		}
	}
	for _, name := range []string{"", ".", "a.", ".a", "a.b.c", "`a", "`a`b", "a`b", "a\x00", "``"} {
		if database, table, err := splitTable(name); err == nil {
			t.Errorf("%q: %q, %q", name, database, table)
		}
	}
}
