//go:build integration

package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millstream/millstream/enrich"
	"github.com/millstream/millstream/enrich/enrichtest"
)

const readerPassword = "r34d-only"

var tables atomic.Int64

// server is a database for one test, in a schema of its own.
type server struct {
	admin   *pgxpool.Pool
	schema  string
	options Options
}

var createReader sync.Once

// connect returns a server, nil when there is none and none is demanded. The variable is a URL of a user who
// may create roles, postgres://USER:PASSWORD@HOST:PORT/DATABASE.
func connect(t *testing.T) *server {
	t.Helper()
	address := os.Getenv("MILLSTREAM_TEST_POSTGRES")
	if address == "" {
		if os.Getenv("MILLSTREAM_INTEGRATION") == "1" {
			t.Fatal("MILLSTREAM_TEST_POSTGRES is not set")
		}
		t.Log("not run: MILLSTREAM_TEST_POSTGRES is not set")
		return nil
	}
	admin, err := pgxpool.New(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{admin: admin, schema: fmt.Sprintf("Sch.%d %d", time.Now().UnixNano(), tables.Add(1))}
	createReader.Do(func() {
		s.exec(t, `DO $$ BEGIN CREATE ROLE millstream_reader LOGIN PASSWORD '`+readerPassword+`'; EXCEPTION WHEN duplicate_object THEN END $$`)
	})
	s.exec(t, `CREATE SCHEMA `+quote(s.schema))
	s.exec(t, `GRANT USAGE ON SCHEMA `+quote(s.schema)+` TO millstream_reader`)
	s.exec(t, `ALTER DEFAULT PRIVILEGES IN SCHEMA `+quote(s.schema)+` GRANT SELECT ON TABLES TO millstream_reader`)
	t.Cleanup(func() {
		_, _ = admin.Exec(context.WithoutCancel(t.Context()), `DROP SCHEMA `+quote(s.schema)+` CASCADE`)
	})
	s.options = Options{
		Address: u.Host, Database: strings.TrimPrefix(u.Path, "/"), User: "millstream_reader", Password: readerPassword,
		Table: `"` + s.schema + `".users`, Key: "id", Logger: slog.New(slog.DiscardHandler),
	}
	return s
}

func (s *server) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := s.admin.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// create makes a relation; %s is its quoted name.
func (s *server) create(t *testing.T, name, sql string) Options {
	t.Helper()
	s.exec(t, fmt.Sprintf(sql, quote(s.schema)+"."+quote(name)))
	o := s.options
	o.Table = `"` + s.schema + `".` + name
	return o
}

func open(t *testing.T, o Options) *Table {
	t.Helper()
	table, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = table.Close() })
	return table
}

func lookup(t *testing.T, table *Table, keys ...string) map[string][]enrich.Row {
	t.Helper()
	found, err := table.Lookup(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestIntegrationSuite holds columns of every kind of key to the contract.
func TestIntegrationSuite(t *testing.T) {
	integers := []string{"7", "-1", "0", "2147483647", "-2147483648"}
	uuids := []string{"ffffffff-ffff-ffff-ffff-ffffffffffff", "FFFFFFFF-ffff-ffff-ffff-fffffffffff0", "00000000-0000-0000-0000-000000000000"}
	for _, c := range []struct {
		column string
		keys   []string
		number func(i int) string
	}{
		{"text", nil, nil},
		{"character varying(80)", nil, nil},
		{"character(80)", nil, nil},
		{`text COLLATE "C"`, nil, nil},
		{"integer", integers, nil},
		{"bigint", append(integers, "9223372036854775807"), nil},
		{"smallint", integers[:3], nil},
		{"numeric(30,5)", append(integers, "0.5", "-12345678901234567890.12345"), nil},
		{"uuid", uuids, func(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", i) }},
	} {
		t.Run(c.column, func(t *testing.T) {
			server := connect(t)
			if server == nil {
				return
			}
			enrichtest.Run(t, func(t *testing.T) *enrichtest.Harness {
				server := connect(t)
				return server.harness(t, c.column, c.keys, c.number)
			})
		})
	}
}

func (s *server) harness(t *testing.T, column string, keys []string, number func(i int) string) *enrichtest.Harness {
	o := s.create(t, "users", `CREATE TABLE %s (id `+column+` PRIMARY KEY, tier text, n double precision, nested jsonb)`)
	relay := enrichtest.NewRelay(t, o.Address)
	o.Address = relay.Address
	name, cast := quote(s.schema)+".users", "$1::text::"+strings.TrimSuffix(column, ` COLLATE "C"`)
	return &enrichtest.Harness{
		Table: open(t, o), KeyField: "id", Keys: keys, Number: number, Down: relay.Down,
		Put: func(ctx context.Context, key string, row map[string]any) error {
			nested, err := json.Marshal(row["nested"])
			if err != nil {
				return err
			}
			_, err = s.admin.Exec(ctx, `INSERT INTO `+name+` VALUES (`+cast+`, $2, $3, $4) ON CONFLICT (id) DO UPDATE
 SET tier = excluded.tier, n = excluded.n, nested = excluded.nested`, key, row["tier"], row["n"], string(nested))
			return err
		},
		Delete: func(ctx context.Context, key string) error {
			tag, err := s.admin.Exec(ctx, `DELETE FROM `+name+` WHERE id = `+cast, key)
			if err == nil && tag.RowsAffected() != 1 {
				err = errors.New("no such row")
			}
			return err
		},
		Select: func(fields ...string) (enrich.Table, error) {
			o := o
			o.Select = fields
			if _, err := New(t.Context(), o); err == nil || !strings.Contains(err.Error(), `no column "absent"`) {
				t.Errorf("a column that is not there: %v", err)
			}
			o.Select = fields[:1]
			return New(t.Context(), o)
		},
	}
}

// TestIntegrationIndex reads the server's plan: the key is compared as it is stored. The control, a parameter
// of another type, reads the whole table.
func TestIntegrationIndex(t *testing.T) {
	for _, c := range []struct{ column, value, key, other string }{
		{"text", "'k' || i", "k77", ""},
		{"character varying(20)", "'k' || i", "k77", ""},
		{"character(20)", "'k' || i", "k77", "text[]"},
		{"integer", "i", "77", "numeric[]"},
		{"bigint", "i", "77", "numeric[]"},
		{"numeric", "i", "77", "float8[]"},
		{"uuid", "lpad(i::text, 32, '0')::uuid", "00000000-0000-0000-0000-000000000077", ""},
	} {
		t.Run(c.column, func(t *testing.T) {
			server := connect(t)
			if server == nil {
				return
			}
			o := server.create(t, "users", `CREATE TABLE %s (id `+c.column+` PRIMARY KEY, v integer)`)
			server.exec(t, `INSERT INTO `+quote(server.schema)+`.users SELECT `+c.value+`, i FROM generate_series(1, 20000) AS i`)
			server.exec(t, `ANALYZE `+quote(server.schema)+`.users`)
			table := open(t, o)
			if got := lookup(t, table, c.key)[c.key]; len(got) != 1 || !strings.Contains(string(got[0].JSON), `"v":77}`) {
				t.Errorf("got %s", got)
			}
			plan := server.plan(t, table, c.key, fmt.Sprint(table.key.array))
			if !strings.Contains(plan, "Index") || strings.Contains(plan, "Seq Scan") {
				t.Errorf("the index is not used:\n%s", plan)
			}
			if c.other == "" {
				return
			}
			if plan := server.plan(t, table, c.key, "'"+c.other+"'::regtype::oid"); !strings.Contains(plan, "Seq Scan") {
				t.Errorf("this control would find no difference:\n%s", plan)
			}
		})
	}
}

// plan is that of the table's own query with a parameter of a type.
func (s *server) plan(t *testing.T, table *Table, key, oid string) string {
	t.Helper()
	conn, err := s.admin.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	var number uint32
	if err := conn.QueryRow(t.Context(), "SELECT "+oid+"::oid").Scan(&number); err != nil {
		t.Fatal(err)
	}
	result := conn.Conn().PgConn().ExecParams(t.Context(), "EXPLAIN "+table.query, [][]byte{appendArray(nil, []string{key})}, []uint32{number}, nil, nil).Read()
	if result.Err != nil {
		t.Fatal(result.Err)
	}
	lines := ""
	for _, row := range result.Rows {
		lines += string(row[0]) + "\n"
	}
	return lines
}

func TestIntegrationValues(t *testing.T) {
	server := connect(t)
	if server == nil {
		return
	}
	server.exec(t, `CREATE DOMAIN `+quote(server.schema)+`.score AS integer`)
	server.exec(t, `CREATE TYPE `+quote(server.schema)+`.mood AS ENUM ('sad', 'it''s "ok"')`)
	o := server.create(t, "users", `CREATE TABLE %s (id integer, "the ""column""" text)`)
	name := quote(server.schema) + ".users"
	columns := []struct{ column, value, json string }{
		{"bigint", "9007199254740993", "9007199254740993"},
		{"numeric", "12345678901234567890.0123456789000", "12345678901234567890.0123456789000"},
		{"numeric", "'NaN'", "null"},
		{"double precision", "1e300", "1e+300"},
		{"double precision", "0.30000000000000004", "0.30000000000000004"},
		{"double precision", "'-Infinity'", "null"},
		{"real", "16777216", "1.6777216e+07"},
		{"boolean", "true", "true"},
		{"boolean", "false", "false"},
		{"text", "NULL", "null"},
		{"text", `E'a"b\\c\nd\u2028é💥'`, `"a\"b\\c\nd\u2028é💥"`},
		{"character(3)", "'a'", `"a  "`},
		{"jsonb", `'{"n": 9007199254740993, "a": [1, "x"]}'`, `{"a":[1,"x"],"n":9007199254740993}`},
		{"json", "'{ \"z\" : 1.50,\n \"a\":null }'", `{"z":1.50,"a":null}`},
		{"jsonb", "'null'", "null"},
		{"bytea", `'\x00ff10'`, `"AP8Q"`},
		{"timestamptz", "'2026-03-01 12:00:00.123456+05:30'", `"2026-03-01T06:30:00.123456Z"`},
		{"timestamp", "'2026-03-01 12:00:00'", `"2026-03-01T12:00:00Z"`},
		{"timestamptz", "'infinity'", "null"},
		{"date", "'2026-03-01'", `"2026-03-01"`},
		{"date", "'0044-03-15 BC'", `"0044-03-15 BC"`},
		{"time", "'12:34:56.7'", `"12:34:56.7"`},
		{"interval", "'1 day 02:03:04.5'", `"P1DT2H3M4.5S"`},
		{"uuid", "'FFFFFFFF-ffff-ffff-ffff-ffffffffffff'", `"ffffffff-ffff-ffff-ffff-ffffffffffff"`},
		{"integer[]", "'{1,NULL,3}'", "[1,null,3]"},
		{"integer[]", "'{{1,2},{3,4}}'", "[[1,2],[3,4]]"},
		{"integer[]", "'[0:1]={7,8}'", "[7,8]"},
		{"text[]", `ARRAY['a,b', NULL, 'NULL', '', '"\', '{}', ' ']`, `["a,b",null,"NULL","","\"\\","{}"," "]`},
		{"text[]", "'{}'", "[]"},
		{"timestamptz[]", "'{2026-03-01 12:00:00+00,infinity}'", `["2026-03-01T12:00:00Z",null]`},
		{"bytea[]", `'{"\\x00ff"}'`, `["AP8="]`},
		{"jsonb[]", `ARRAY['{"a": 1}'::jsonb]`, `[{"a":1}]`},
		{"box[]", "'{(1,1),(0,0);(2,2),(1,1)}'", `["(1,1),(0,0)","(2,2),(1,1)"]`},
		{quote(server.schema) + ".score", "5", "5"},
		{quote(server.schema) + ".score[]", "'{5,6}'", "[5,6]"},
		{quote(server.schema) + ".mood", `'it''s "ok"'`, `"it's \"ok\""`},
		{quote(server.schema) + ".mood[]", `'{sad}'`, `["sad"]`},
		{"int2vector", "'1 2 3'", `"1 2 3"`},
		{"int4range", "'[1,5)'", `"[1,5)"`},
		{"inet", "'10.0.0.1'", `"10.0.0.1"`},
	}
	want, values := `{"id":1,"the \"column\"":"x"`, ""
	for i, c := range columns {
		server.exec(t, fmt.Sprintf("ALTER TABLE %s ADD c%d %s", name, i, c.column))
		want += fmt.Sprintf(`,"c%d":%s`, i, c.json)
		values += ", " + c.value
	}
	want += "}"
	// Whatever the database's own settings are. Those connections of the test that come later have them too.
	for setting, value := range map[string]string{"DateStyle": "German", "TimeZone": "Asia/Tokyo", "IntervalStyle": "postgres", "bytea_output": "escape", "extra_float_digits": "0"} {
		server.exec(t, `ALTER DATABASE `+quote(o.Database)+` SET `+setting+` = '`+value+`'`)
	}
	t.Cleanup(func() {
		_, _ = server.admin.Exec(context.WithoutCancel(t.Context()), `ALTER DATABASE `+quote(o.Database)+` RESET ALL`)
	})
	server.exec(t, "INSERT INTO "+name+" VALUES (1, 'x'"+values+")")
	table := open(t, o)
	var plain string
	if err := table.pool.QueryRow(t.Context(), `SELECT c19::text FROM `+name).Scan(&plain); err != nil || plain != "01.03.2026" {
		t.Errorf("this control would find no difference: %s, %v", plain, err)
	}
	if got := string(lookup(t, table, "1")["1"][0].JSON); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}

	// A column of a type that did not exist when the table was opened.
	server.exec(t, `CREATE DOMAIN `+quote(server.schema)+`.tags AS integer[]`)
	server.exec(t, `ALTER TABLE `+name+` ADD later `+quote(server.schema)+`.tags DEFAULT '{1,2}'`)
	server.exec(t, `CREATE DOMAIN `+quote(server.schema)+`.rank AS bigint`)
	server.exec(t, `ALTER TABLE `+name+` ADD ranks `+quote(server.schema)+`.rank[] DEFAULT '{1}'`)
	if got := string(lookup(t, table, "1")["1"][0].JSON); !strings.HasSuffix(got, `,"later":[1,2],"ranks":[1]}`) {
		t.Errorf("got %s", got)
	}
}

func TestIntegrationKeys(t *testing.T) {
	server := connect(t)
	if server == nil {
		return
	}
	server.exec(t, `CREATE COLLATION `+quote(server.schema)+`.nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`)
	for _, c := range []struct{ column, insert, ask, want string }{
		{"integer", "7", "7|007|7.0|+7| 7|07|x|9999999999999|0x7|7", "7"},
		{"numeric(10,2)", "7.50|3.00", "7.50|7.5|3|3.0|3.00|03|1e3|NaN|-0|.5|5.|-", "7.5|3"},
		{"uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
			"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11|a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11|a0eebc999c0b4ef8bb6d6bb9bd380a11|{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}|g0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11|a0eebc99-9c0b-4ef8-bb6d6-bb9bd380a11",
			"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11|a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
		{"character(4)", "a|b", "a|a |a   |A|b|abcdef|", "a|b"},
		{"character varying(4)", "a|ab", "a|a |A|abcdef|ab|\xff|\x00a", "a|ab"},
		{"text COLLATE " + quote(server.schema) + ".nocase", "a|ß", "a|A|ß|SS", "a|ß"},
	} {
		name := fmt.Sprintf("t%d", tables.Add(1))
		o := server.create(t, name, `CREATE TABLE %s (id `+c.column+` PRIMARY KEY)`)
		for _, key := range strings.Split(c.insert, "|") {
			server.exec(t, `INSERT INTO `+quote(server.schema)+"."+name+` VALUES ('`+key+`')`)
		}
		found := lookup(t, open(t, o), strings.Split(c.ask, "|")...)
		for _, key := range strings.Split(c.want, "|") {
			if len(found[key]) != 1 {
				t.Errorf("%s: %q was not found", c.column, key)
			}
			delete(found, key)
		}
		for key := range found {
			t.Errorf("%s: %q was found", c.column, key)
		}
	}
}

func TestIntegrationAsOf(t *testing.T) {
	server := connect(t)
	if server == nil {
		return
	}
	for _, column := range []string{"timestamptz", "timestamp", "date"} {
		o := server.create(t, "v_"+column, `CREATE TABLE %s (id text, since `+column+`, until `+column+`, tier text)`)
		server.exec(t, `CREATE INDEX ON `+quote(server.schema)+".v_"+column+` (id)`)
		server.exec(t, `INSERT INTO `+quote(server.schema)+".v_"+column+` VALUES
 ('a', '2026-02-01', '2026-03-01', 'silver'), ('a', NULL, '2026-02-01', 'free'), ('a', '2026-03-01', NULL, 'gold'), ('a', '2026-02-01', '2026-02-01', 'never'),
 ('b', '-infinity', 'infinity', 'all'), ('b', 'infinity', NULL, 'never'),
 ('overlap', '2026-02-01', '2026-03-01', 'x'), ('overlap', '2026-02-28', NULL, 'y'),
 ('backwards', '2026-03-01', '2026-02-01', 'x'), ('open', NULL, NULL, 'x'), ('open', '2026-03-01', NULL, 'y')`)
		o.ValidFrom, o.ValidTo, o.Select = "since", "until", []string{"tier"}
		table := open(t, o)
		found, err := table.Lookup(t.Context(), []string{"a", "b", "c", "overlap", "backwards", "open"})
		var failed *enrich.Failed[string]
		if !errors.As(err, &failed) || len(failed.Keys) != 3 || !errors.Is(failed.Keys["overlap"], enrich.ErrMalformed) ||
			!errors.Is(failed.Keys["backwards"], enrich.ErrMalformed) || !errors.Is(failed.Keys["open"], enrich.ErrMalformed) {
			t.Errorf("%s: %v", column, err)
		}
		got := ""
		for _, key := range []string{"a", "b", "c"} {
			for _, r := range found[key] {
				got += fmt.Sprintf("%s %s %s %s\n", key, r.From.Format(time.RFC3339), r.To.Format(time.RFC3339), r.JSON)
			}
		}
		want := `a 0001-01-01T00:00:00Z 2026-02-01T00:00:00Z {"tier":"free"}
a 2026-02-01T00:00:00Z 2026-03-01T00:00:00Z {"tier":"silver"}
a 2026-03-01T00:00:00Z 0001-01-01T00:00:00Z {"tier":"gold"}
b 0001-01-01T00:00:00Z 0001-01-01T00:00:00Z {"tier":"all"}
`
		if got != want {
			t.Errorf("%s: got\n%swant\n%s", column, got, want)
		}
	}
	o := server.create(t, "v_text", `CREATE TABLE %s (id text, since text)`)
	o.ValidFrom = "since"
	if _, err := New(t.Context(), o); err == nil || !strings.Contains(err.Error(), "no timestamptz, timestamp or date") {
		t.Error(err)
	}
}

// TestIntegrationMalformed: more than one row, or too large a one, is that key's failure alone.
func TestIntegrationMalformed(t *testing.T) {
	server := connect(t)
	if server == nil {
		return
	}
	o := server.create(t, "users", `CREATE TABLE %s (id text, v text)`)
	server.exec(t, `INSERT INTO `+quote(server.schema)+`.users VALUES ('a', '1'), ('twice', '1'), ('twice', '2'), ('large', repeat('x', 1048576)), (NULL, '9'), ('fits', repeat('x', 1000000))`)
	found, err := open(t, o).Lookup(t.Context(), []string{"a", "twice", "large", "absent", "fits"})
	var failed *enrich.Failed[string]
	if !errors.As(err, &failed) || len(failed.Keys) != 2 || !errors.Is(failed.Keys["twice"], enrich.ErrMalformed) || !errors.Is(failed.Keys["large"], enrich.ErrMalformed) {
		t.Fatalf("%v", err)
	}
	if len(found) != 2 || len(found["a"]) != 1 || len(found["fits"]) != 1 {
		t.Errorf("got %d rows", len(found))
	}
}

// TestIntegrationReadOnly: a table that is a view with a function that writes is stopped by the server.
func TestIntegrationReadOnly(t *testing.T) {
	server := connect(t)
	if server == nil {
		return
	}
	server.exec(t, `CREATE TABLE `+quote(server.schema)+`.log (v text)`)
	server.exec(t, `CREATE FUNCTION `+quote(server.schema)+`.note() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS
 $$ BEGIN INSERT INTO `+quote(server.schema)+`.log VALUES ('x'); RETURN 'x'; END $$`)
	o := server.create(t, "users", `CREATE VIEW %s AS SELECT id, `+quote(server.schema)+`.note() AS v FROM (VALUES ('a'), ('b')) AS x (id)`)
	table := open(t, o)
	if _, err := table.Lookup(t.Context(), []string{"a"}); err == nil || !strings.Contains(err.Error(), "25006") {
		t.Errorf("a call that writes: %v", err)
	}
	var rows int
	// The control: the same query writes where nothing forbids it.
	if _, err := server.admin.Exec(t.Context(), table.query, []string{"a"}); err != nil {
		t.Fatal(err)
	}
	if err := server.admin.QueryRow(t.Context(), `SELECT count(*) FROM `+quote(server.schema)+`.log`).Scan(&rows); err != nil || rows != 1 {
		t.Errorf("%d rows were written, %v", rows, err)
	}
}

// TestIntegrationTimeout: the server itself ends a query when its caller's time is over.
func TestIntegrationTimeout(t *testing.T) {
	server := connect(t)
	if server == nil {
		return
	}
	o := server.create(t, "users", `CREATE VIEW %s AS SELECT id, pg_sleep(60)::text AS v FROM (VALUES ('a')) AS x (id)`)
	table := open(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	found, err := table.Lookup(ctx, []string{"a"})
	if err == nil || time.Since(began) > 5*time.Second || errors.As(err, new(*enrich.Failed[string])) {
		t.Errorf("%v, %v after %s", found, err, time.Since(began))
	}
	for running := 1; running > 0; {
		err := server.admin.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE query LIKE $1 AND state = 'active' AND pid <> pg_backend_pid()`,
			"%"+server.schema+"%").Scan(&running)
		if err != nil || time.Since(began) > 20*time.Second {
			t.Fatalf("%d queries are still running, %v", running, err)
		}
	}
	// A cancel request did not do that: this context has a deadline, and is never done.
	ctx = promise{t.Context(), time.Now().Add(300 * time.Millisecond)}
	var ended *pgconn.PgError
	if _, err := table.Lookup(ctx, []string{"a"}); !errors.As(err, &ended) || ended.Code != "57014" {
		t.Errorf("%v", err)
	}
	// Close ends what is under way.
	done := make(chan error)
	go func() {
		_, err := table.Lookup(t.Context(), []string{"a"})
		done <- err
	}()
	for running := 0; running == 0; {
		if err := server.admin.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE query LIKE $1 AND state = 'active' AND pid <> pg_backend_pid()`,
			"%"+server.schema+"%").Scan(&running); err != nil {
			t.Fatal(err)
		}
	}
	_ = table.Close()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("a lookup that was under way: %v", err)
	}
	if _, err := table.Lookup(t.Context(), []string{"a"}); err == nil {
		t.Error("a closed table answered")
	}
}

// promise is a context that says when it will be done.
type promise struct {
	context.Context
	at time.Time
}

func (p promise) Deadline() (time.Time, bool) { return p.at, true }

// TestIntegrationNew: each error says what is wrong, and none the password.
func TestIntegrationNew(t *testing.T) {
	server := connect(t)
	if server == nil {
		return
	}
	o := server.create(t, "users", `CREATE TABLE %s (id integer, v text, f double precision)`)
	for _, c := range []struct {
		name   string
		change func(o *Options)
		want   string
	}{
		{"table", func(o *Options) { o.Table = "nobody.nothing" }, "does not exist for this user"},
		{"case", func(o *Options) { o.Table = strings.Replace(o.Table, "users", "Users", 1) }, "upper and lower case"},
		{"key", func(o *Options) { o.Key = "ID" }, `no column "ID", but id, v, f`},
		{"float", func(o *Options) { o.Key = "f" }, "type float8 cannot be a key"},
		{"field", func(o *Options) { o.Select = []string{"v.x"} }, "has no fields"},
		{"valid", func(o *Options) { o.ValidTo = "w" }, `no column "w"`},
		{"password", func(o *Options) { o.Password = "wr0ng-one" }, "28P01"},
		{"user", func(o *Options) { o.User = "nobody" }, "nobody"},
		{"database", func(o *Options) { o.Database = "nowhere" }, "3D000"},
		{"address", func(o *Options) { o.Address = "127.0.0.1:1" }, "127.0.0.1:1"},
		{"tls", func(o *Options) { o.TLS = "require" }, "TLS"},
	} {
		o := o
		c.change(&o)
		_, err := New(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err != nil && (strings.Contains(err.Error(), readerPassword) || strings.Contains(err.Error(), "wr0ng-one")) {
			t.Errorf("%s: the password is told", c.name)
		}
	}
	server.exec(t, `REVOKE SELECT ON `+quote(server.schema)+`.users FROM millstream_reader`)
	if _, err := New(t.Context(), o); err == nil || !strings.Contains(err.Error(), "GRANT SELECT ON") {
		t.Errorf("without the right to read: %v", err)
	}
}
