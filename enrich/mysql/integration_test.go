//go:build integration

package mysql

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/millstream/millstream/enrich"
	"github.com/millstream/millstream/enrich/enrichtest"
)

const readerPassword = "r34d-only"

var databases atomic.Int64

// server is a database of one test.
type server struct {
	admin   *sql.DB
	name    string
	maria   bool
	options Options
}

// connect returns a server, nil when there is none and none is demanded. The variable is a URL of a user who
// may create databases and users, mysql://USER:PASSWORD@HOST:PORT.
func connect(t *testing.T) *server {
	t.Helper()
	address := os.Getenv("MILLSTREAM_TEST_MYSQL")
	if address == "" {
		if os.Getenv("MILLSTREAM_INTEGRATION") == "1" {
			t.Fatal("MILLSTREAM_TEST_MYSQL is not set")
		}
		t.Log("not run: MILLSTREAM_TEST_MYSQL is not set")
		return nil
	}
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	config := mysql.NewConfig()
	config.User, config.Net, config.Addr = u.User.Username(), "tcp", u.Host
	config.Passwd, _ = u.User.Password()
	config.Params = map[string]string{"time_zone": "'+09:00'"}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{admin: sql.OpenDB(connector), name: fmt.Sprintf("Db.%d %d", time.Now().UnixNano(), databases.Add(1))}
	t.Cleanup(func() { _ = s.admin.Close() })
	var version string
	if err := s.admin.QueryRow("SELECT VERSION()").Scan(&version); err != nil {
		t.Fatal(err)
	}
	s.maria = strings.Contains(version, "MariaDB")
	s.exec(t, `CREATE USER IF NOT EXISTS millstream_reader IDENTIFIED BY '`+readerPassword+`'`)
	s.exec(t, `CREATE DATABASE `+quote(s.name)+` CHARACTER SET utf8mb4`)
	s.exec(t, `GRANT SELECT ON `+quote(s.name)+`.* TO millstream_reader`)
	t.Cleanup(func() {
		_, _ = s.admin.Exec(`DROP DATABASE ` + quote(s.name))
		_, _ = s.admin.Exec(`REVOKE SELECT ON ` + quote(s.name) + `.* FROM millstream_reader`)
	})
	s.options = Options{Address: u.Host, Database: s.name, User: "millstream_reader", Password: readerPassword, Table: "users", Key: "id"}
	return s
}

func (s *server) exec(t *testing.T, statement string, args ...any) {
	t.Helper()
	if _, err := s.admin.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// create makes a relation; %s is its quoted name.
func (s *server) create(t *testing.T, name, statement string) Options {
	t.Helper()
	s.exec(t, fmt.Sprintf(statement, s.table(name)))
	o := s.options
	o.Table = name
	return o
}

func (s *server) table(name string) string { return quote(s.name) + "." + quote(name) }

func mustOpen(t *testing.T, o Options) *Table {
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
	numbered := func(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", i) }
	type kind struct {
		column string
		keys   []string
		number func(i int) string
	}
	kinds := []kind{
		{"varchar(80)", nil, nil},
		{"char(80)", nil, nil},
		{"varchar(80) COLLATE utf8mb4_bin", nil, nil},
		{"varbinary(80)", nil, nil},
		{"varchar(80) CHARACTER SET latin1", []string{"a", "B", "0", "7", "007", "ä", "it's", `back\slash`, "?"}, nil},
		{"int", integers, nil},
		{"bigint", append(integers, "9223372036854775807"), nil},
		{"bigint unsigned", []string{"7", "0", "1", "18446744073709551615", "9223372036854775808"}, nil},
		{"smallint", integers[:3], nil},
		{"decimal(30,5)", append(integers, "0.5", "-1234567890123456789012345.12345"), nil},
		{"char(36)", uuids, numbered},
		{"binary(16)", uuids, numbered},
	}
	for i, c := range append(kinds, kind{"uuid", uuids, numbered}) {
		t.Run(c.column, func(t *testing.T) {
			server := connect(t)
			if server == nil || i == len(kinds) && !server.maria {
				return
			}
			enrichtest.Run(t, func(t *testing.T) *enrichtest.Harness {
				return connect(t).harness(t, c.column, c.keys, c.number)
			})
		})
	}
}

func (s *server) harness(t *testing.T, column string, keys []string, number func(i int) string) *enrichtest.Harness {
	if keys == nil && !strings.Contains(column, "_bin") && column != "varbinary(80)" {
		keys = []string{"a", "B", "0", "7", "-1", "007", "1e3", "a b", "ö", "日本", "it's", `"quoted"`, `back\slash`, "a/b", "a|b", "💥", "null", "$1", "?", "``", "%s"}
	}
	o := s.create(t, "users", `CREATE TABLE %s (id `+column+` PRIMARY KEY, tier varchar(20), n double, nested json)`)
	relay := enrichtest.NewRelay(t, o.Address)
	o.Address = relay.Address
	place := "?"
	if column == "binary(16)" {
		place = "UNHEX(REPLACE(?, '-', ''))"
	}
	return &enrichtest.Harness{
		Table: mustOpen(t, o), KeyField: "id", Keys: keys, Number: number, Down: relay.Down,
		Put: func(ctx context.Context, key string, row map[string]any) error {
			nested, err := json.Marshal(row["nested"])
			if err != nil {
				return err
			}
			_, err = s.admin.ExecContext(ctx, `REPLACE INTO `+s.table("users")+` VALUES (`+place+`, ?, ?, ?)`, key, row["tier"], row["n"], string(nested))
			return err
		},
		Delete: func(ctx context.Context, key string) error {
			result, err := s.admin.ExecContext(ctx, `DELETE FROM `+s.table("users")+` WHERE id = `+place, key)
			if err == nil {
				if n, _ := result.RowsAffected(); n != 1 {
					err = errors.New("no such row")
				}
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
// that is not, reads the whole table.
func TestIntegrationIndex(t *testing.T) {
	for _, c := range []struct{ column, value, key, control string }{
		{"varchar(20)", "CONCAT('k', seq)", "k77", ""},
		{"varchar(20) COLLATE utf8mb4_bin", "CONCAT('k', seq)", "k77", ""},
		{"char(20)", "CONCAT('k', seq)", "k77", ""},
		{"varchar(20) CHARACTER SET latin1 COLLATE latin1_german1_ci", "CONCAT('k', seq)", "k77", "CONVERT(? USING utf8mb4) COLLATE utf8mb4_bin"},
		{"varchar(20) CHARACTER SET utf8mb3", "CONCAT('k', seq)", "k77", "CONVERT(? USING utf8mb4) COLLATE utf8mb4_bin"},
		{"varbinary(20)", "CONCAT('k', seq)", "k77", ""},
		{"int", "seq", "77", ""},
		{"bigint unsigned", "seq", "77", ""},
		{"decimal(20,5)", "seq", "77", ""},
		{"uuid", "LPAD(seq, 32, '0')", "00000000-0000-0000-0000-000000000077", ""},
		{"binary(16)", "UNHEX(LPAD(seq, 32, '0'))", "00000000-0000-0000-0000-000000000077", ""},
	} {
		t.Run(c.column, func(t *testing.T) {
			server := connect(t)
			if server == nil || c.column == "uuid" && !server.maria {
				return
			}
			o := server.create(t, "users", `CREATE TABLE %s (id `+c.column+` PRIMARY KEY, v int)`)
			digits := `(SELECT 0 AS d` + strings.Join([]string{"", "1", "2", "3", "4", "5", "6", "7", "8", "9"}, ` UNION ALL SELECT `) + `)`
			server.exec(t, `INSERT INTO `+server.table("users")+` SELECT `+c.value+`, seq FROM (SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d AS seq
 FROM `+digits+` AS a, `+digits+` AS b, `+digits+` AS c, `+digits+` AS e) AS numbers`)
			server.exec(t, `ANALYZE TABLE `+server.table("users"))
			table := mustOpen(t, o)
			if got := lookup(t, table, c.key)[c.key]; len(got) != 1 || !strings.Contains(string(got[0].JSON), `"v":77}`) {
				t.Errorf("got %s", got)
			}
			for _, keys := range []int{1, 64, maxKeys} {
				if plan := server.plan(t, table, table.query(shape{keys: keys}), c.key, keys); !slices.Contains([]string{"range PRIMARY", "const PRIMARY", "eq_ref PRIMARY"}, plan) {
					t.Errorf("%d keys: the index is not used: %s", keys, plan)
				}
			}
			if c.control != "" {
				table.key.place = c.control
				if plan := server.plan(t, table, table.query(shape{keys: 2}), c.key, 2); !strings.HasPrefix(plan, "ALL") {
					t.Errorf("this control would find no difference: %s", plan)
				}
			}
		})
	}
}

// plan is how the server finds the rows of a query, and with which index.
func (s *server) plan(t *testing.T, table *Table, query, key string, keys int) string {
	t.Helper()
	params := make([]any, keys)
	for i := range params {
		params[i] = table.key.param(key)
	}
	rows, err := s.admin.QueryContext(t.Context(), "EXPLAIN "+query, params...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	values, plan := make([]sql.NullString, len(names)), map[string]string{} // of the table, which is t in the query
	pointers := make([]any, len(names))
	for i := range values {
		pointers[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(pointers...); err != nil {
			t.Fatal(err)
		}
		if values[slices.Index(names, "table")].String == "t" {
			for i, name := range names {
				plan[name] = values[i].String
			}
		}
	}
	return plan["type"] + " " + plan["key"]
}

func TestIntegrationValues(t *testing.T) {
	server := connect(t)
	if server == nil {
		return
	}
	server.exec(t, "CREATE TABLE "+server.table("users")+" (id int, `the \"column\" ``é` text)")
	columns := []struct{ column, value, json string }{
		{"bigint", "9007199254740993", "9007199254740993"},
		{"bigint unsigned", "18446744073709551615", "18446744073709551615"},
		{"bigint", "-9223372036854775808", "-9223372036854775808"},
		{"int(6) unsigned zerofill", "42", "42"},
		{"decimal(10,2) unsigned zerofill", "7.5", "7.50"},
		{"decimal(40,10)", "-123456789012345678901234567890.0123456789", "-123456789012345678901234567890.0123456789"},
		{"double", "1e300", "1e+300"},
		{"double", "0.1", "0.1"},
		{"double", "1000000", "1e+06"},
		{"float", "0.1", "0.1"},
		{"boolean", "true", "1"},
		{"bit(1)", "b'1'", "1"},
		{"bit(64)", "0xFFFFFFFFFFFFFFFF", "18446744073709551615"},
		{"year", "2026", "2026"},
		{"text", "NULL", "null"},
		{"text", `'a"b\\c\nd💥'`, `"a\"b\\c\nd💥"`},
		{"varchar(10) CHARACTER SET latin1", "'Zürich'", `"Zürich"`},
		{"char(5)", "'a'", `"a"`},
		{"enum('x','it''s')", "'it''s'", `"it's"`},
		{"set('x','y')", "'x,y'", `"x,y"`},
		{"json", `'{"n": 9007199254740993, "a": [1, "x"]}'`, ""},
		{"blob", "x'00ff10'", `"AP8Q"`},
		{"binary(2)", "x'00ff'", `"AP8="`},
		{"varbinary(2)", "''", `""`},
		{"timestamp(6) NULL", "'2026-03-01 12:00:00.123456'", `"2026-03-01T03:00:00.123456Z"`}, // the session's zone is +09:00
		{"datetime", "'2026-03-01 12:00:00'", `"2026-03-01T12:00:00Z"`},
		{"date", "'2026-03-01'", `"2026-03-01"`},
		{"time(3)", "'-100:01:02.5'", `"-100:01:02.500"`},
		{"geometry", "NULL", "null"},
	}
	want, values := `{"id":1,"the \"column\" `+"`é"+`":"x"`, ""
	for i, c := range columns {
		server.exec(t, fmt.Sprintf("ALTER TABLE %s ADD c%d %s", server.table("users"), i, c.column))
		values += ", " + c.value
		switch {
		case c.json != "":
		case server.maria:
			c.json = `{"n":9007199254740993,"a":[1,"x"]}` // as it was written
		default:
			c.json = `{"a":[1,"x"],"n":9007199254740993}`
		}
		want += fmt.Sprintf(`,"c%d":%s`, i, c.json)
	}
	want += "}"
	table := mustOpen(t, server.options)
	server.exec(t, "INSERT INTO "+server.table("users")+" VALUES (1, 'x'"+values+")")
	if got := string(lookup(t, table, "1")["1"][0].JSON); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	server.exec(t, `ALTER TABLE `+server.table("users")+` ADD later int DEFAULT 5, DROP c0`)
	if got := string(lookup(t, table, "1")["1"][0].JSON); !strings.HasSuffix(got, `,"later":5}`) || strings.Contains(got, `"c0"`) {
		t.Errorf("after the table was changed: %s", got)
	}
}

// TestIntegrationDefaults: whatever the server's own settings are, texts are UTF-8, times in UTC, and a call sees what was
// committed before it.
func TestIntegrationDefaults(t *testing.T) {
	server := connect(t)
	if server == nil {
		return
	}
	server.admin.SetMaxOpenConns(1) // a session that was there before
	o := server.create(t, "users", `CREATE TABLE %s (id varchar(20) PRIMARY KEY, at timestamp NULL)`)
	for _, setting := range []string{"time_zone = '+05:00'", "autocommit = 0", "init_connect = 'SET NAMES latin1'"} {
		server.exec(t, `SET GLOBAL `+setting)
	}
	t.Cleanup(func() {
		_, _ = server.admin.Exec(`SET GLOBAL time_zone = 'SYSTEM'`)
		_, _ = server.admin.Exec(`SET GLOBAL autocommit = 1, init_connect = ''`)
	})
	o.MaxConns = 1
	table := mustOpen(t, o)
	for day := range 2 {
		server.exec(t, `REPLACE INTO `+server.table("users")+` VALUES ('é💥', ?)`, fmt.Sprintf("2026-03-0%d 12:00:00", day+1)) // in +09:00
		got, want := lookup(t, table, "é💥")["é💥"], fmt.Sprintf(`{"id":"é💥","at":"2026-03-0%dT03:00:00Z"}`, day+1)
		if len(got) != 1 || string(got[0].JSON) != want {
			t.Errorf("got %v, want %s", got, want)
		}
	}
}

func TestIntegrationZeroDates(t *testing.T) {
	server := connect(t)
	if server == nil {
		return
	}
	server.create(t, "users", `CREATE TABLE %s (id int PRIMARY KEY, d date, t datetime, p date)`)
	conn, err := server.admin.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, statement := range []string{"SET SESSION sql_mode = ''", "INSERT INTO " + server.table("users") + " VALUES (1, '0000-00-00', '0000-00-00 00:00:00', '2026-03-00')"} {
		if _, err := conn.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	if got := string(lookup(t, mustOpen(t, server.options), "1")["1"][0].JSON); got != `{"id":1,"d":null,"t":null,"p":"2026-03-00"}` {
		t.Error(got)
	}
}

func TestIntegrationKeys(t *testing.T) {
	server := connect(t)
	if server == nil {
		return
	}
	for i, c := range []struct{ column, insert, ask, want string }{
		{"int", "7", "7|007|7.0|+7| 7|07|x|9999999999999|0x7|7x|", "7"},
		{"tinyint unsigned", "7|255", "7|255|256|-1|18446744073709551616", "7|255"},
		{"decimal(10,2)", "7.50|3.00|99999999.99", "7.50|7.5|3|3.0|3.00|03|1e3|7.501|7.499|123456789012|99999999.99|-", "7.5|3|99999999.99"},
		{"char(36)", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11|a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
		{"varchar(9)", "a|ß|É", "a|A|a |á|ß|ss|É|é|e|\xff|abcdefghijklmnop", "a|ß|É"},
		{"varchar(9) CHARACTER SET latin1", "a|?|é", "a|?|日|日本|💥|é|É", "a|?|é"},
		{"varchar(9) CHARACTER SET utf8mb3", "a|?|日", "a|?|日|💥", "a|?|日"},
		{"varchar(9) CHARACTER SET ascii", "a|?", "a|?|é", "a|?"},
		{"char(4)", "a|b", "a|a |a   |A|b|abcdef", "a|b"},
		{"varbinary(4)", "a|A|b ", "a|A|b|b |\xff", "a|A|b "},
	} {
		name := fmt.Sprintf("t%d", i)
		o := server.create(t, name, `CREATE TABLE %s (id `+c.column+` PRIMARY KEY)`)
		for _, key := range strings.Split(c.insert, "|") {
			server.exec(t, `INSERT INTO `+server.table(name)+` VALUES (?)`, key)
		}
		table := mustOpen(t, o)
		found := lookup(t, table, strings.Split(c.ask, "|")...)
		for _, key := range strings.Split(c.want, "|") {
			if len(found[key]) != 1 {
				t.Errorf("%s: %q was not found", c.column, key)
			}
			delete(found, key)
		}
		for key := range found {
			t.Errorf("%s: %q was found", c.column, key)
		}
		if strings.Contains(c.column, "CHARACTER SET") {
			table.key.place = "?"
			clear(table.statements)
			if _, err := table.Lookup(t.Context(), []string{"💥"}); err == nil {
				t.Errorf("%s: this control would find no difference", c.column)
			}
		}
	}
}

func TestIntegrationAsOf(t *testing.T) {
	server := connect(t)
	if server == nil {
		return
	}
	for _, column := range []string{"timestamp", "datetime(6)", "date"} {
		name := "v " + column
		o := server.create(t, name, `CREATE TABLE %s (id varchar(20), since `+column+` NULL, until `+column+` NULL, tier text, INDEX (id))`)
		conn, err := server.admin.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, statement := range []string{"SET SESSION time_zone = '+00:00'", `INSERT INTO ` + server.table(name) + ` VALUES
 ('a', '2026-02-01', '2026-03-01', 'silver'), ('a', NULL, '2026-02-01', 'free'), ('a', '2026-03-01', NULL, 'gold'), ('a', '2026-02-01', '2026-02-01', 'never'),
 ('overlap', '2026-02-01', '2026-03-01', 'x'), ('overlap', '2026-02-28', NULL, 'y'), ('A', NULL, NULL, 'another key for whoever compares bytes'),
 ('backwards', '2026-03-01', '2026-02-01', 'x'), ('open', NULL, NULL, 'x'), ('open', '2026-03-01', NULL, 'y')`} {
			if _, err := conn.ExecContext(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		_ = conn.Close()
		o.ValidFrom, o.ValidTo, o.Select = "since", "until", []string{"tier"}
		found, err := mustOpen(t, o).Lookup(t.Context(), []string{"a", "c", "overlap", "backwards", "open"})
		var failed *enrich.Failed[string]
		if !errors.As(err, &failed) || len(failed.Keys) != 3 || !errors.Is(failed.Keys["overlap"], enrich.ErrMalformed) ||
			!errors.Is(failed.Keys["backwards"], enrich.ErrMalformed) || !errors.Is(failed.Keys["open"], enrich.ErrMalformed) {
			t.Errorf("%s: %v", column, err)
		}
		got := ""
		for _, r := range found["a"] {
			got += fmt.Sprintf("%s %s %s\n", r.From.Format(time.RFC3339), r.To.Format(time.RFC3339), r.JSON)
		}
		want := `0001-01-01T00:00:00Z 2026-02-01T00:00:00Z {"tier":"free"}
2026-02-01T00:00:00Z 2026-03-01T00:00:00Z {"tier":"silver"}
2026-03-01T00:00:00Z 0001-01-01T00:00:00Z {"tier":"gold"}
`
		if got != want || len(found) != 1 {
			t.Errorf("%s: got\n%swant\n%s", column, got, want)
		}
	}
}

// TestIntegrationMalformed: more than one row, or too large a one, is that key's failure alone.
func TestIntegrationMalformed(t *testing.T) {
	server := connect(t)
	if server == nil {
		return
	}
	o := server.create(t, "users", `CREATE TABLE %s (id varchar(20), v longtext, INDEX (id))`)
	server.exec(t, `INSERT INTO `+server.table("users")+` VALUES ('a', '1'), ('A', '2'), ('twice', '1'), ('twice', '2'), ('large', repeat('x', 1048576)), (NULL, '9'), ('fits', repeat('x', 1000000))`)
	found, err := mustOpen(t, o).Lookup(t.Context(), []string{"a", "A", "twice", "large", "absent", "fits"})
	var failed *enrich.Failed[string]
	if !errors.As(err, &failed) || len(failed.Keys) != 2 || !errors.Is(failed.Keys["twice"], enrich.ErrMalformed) || !errors.Is(failed.Keys["large"], enrich.ErrMalformed) {
		t.Fatalf("%v", err)
	}
	if len(found) != 3 || !strings.Contains(string(found["a"][0].JSON), `"v":"1"`) || !strings.Contains(string(found["A"][0].JSON), `"v":"2"`) {
		t.Errorf("got %d rows", len(found))
	}
}

// TestIntegrationReadOnly: a table that is a view with a function that writes is stopped by the server.
func TestIntegrationReadOnly(t *testing.T) {
	server := connect(t)
	if server == nil {
		return
	}
	server.create(t, "log", `CREATE TABLE %s (v text)`)
	server.exec(t, `CREATE FUNCTION `+server.table("note")+`() RETURNS int NOT DETERMINISTIC SQL SECURITY DEFINER MODIFIES SQL DATA
 BEGIN INSERT INTO `+server.table("log")+` VALUES ('x'); RETURN 1; END`)
	server.create(t, "base", `CREATE TABLE %s (id varchar(20) PRIMARY KEY)`)
	server.exec(t, `INSERT INTO `+server.table("base")+` VALUES ('a')`)
	o := server.create(t, "users", `CREATE VIEW %s AS SELECT id, `+server.table("note")+`() AS v FROM `+server.table("base"))
	table, err := New(t.Context(), o)
	if err == nil {
		_, err = table.Lookup(t.Context(), []string{"a"})
	}
	var refused *mysql.MySQLError
	if !errors.As(err, &refused) || refused.Number != 1792 {
		t.Errorf("a call that writes: %v", err)
	}
	var rows int
	// The control: the same query writes where nothing forbids it.
	server.exec(t, `DO (SELECT v FROM `+server.table("users")+`)`)
	if err := server.admin.QueryRow(`SELECT COUNT(*) FROM ` + server.table("log")).Scan(&rows); err != nil || rows != 1 {
		t.Errorf("%d rows were written, %v", rows, err)
	}
}

// TestIntegrationTimeout: the server itself ends a query when its caller's time is over.
func TestIntegrationTimeout(t *testing.T) {
	server := connect(t)
	if server == nil {
		return
	}
	server.create(t, "base", `CREATE TABLE %s (id varchar(20) PRIMARY KEY)`)
	server.exec(t, `INSERT INTO `+server.table("base")+` VALUES ('a')`)
	o := server.create(t, "users", `CREATE VIEW %s AS SELECT id, SLEEP(60) AS v FROM `+server.table("base"))
	table := mustOpen(t, o)
	running := func() (n int) {
		err := server.admin.QueryRow(`SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = ? AND COMMAND <> 'Sleep'`, server.name).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	found, err := table.Lookup(ctx, []string{"a"})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 5*time.Second {
		t.Errorf("%v, %v after %s", found, err, time.Since(began))
	}
	for running() > 0 {
		if time.Since(began) > 20*time.Second {
			t.Fatal("the query is still running")
		}
	}
	// Close ends what is under way.
	done := make(chan error)
	ctx, cancel = context.WithTimeout(t.Context(), time.Second) // or the server waits for itself
	defer cancel()
	go func() {
		_, err := table.Lookup(ctx, []string{"a"})
		done <- err
	}()
	for running() == 0 {
	}
	_ = table.Close()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("a lookup that was under way: %v", err)
	}
	if _, err := table.Lookup(t.Context(), []string{"a"}); err == nil {
		t.Error("a closed table answered")
	}
}

// TestIntegrationNew: each error says what is wrong, and none the password.
func TestIntegrationNew(t *testing.T) {
	server := connect(t)
	if server == nil {
		return
	}
	o := server.create(t, "users", `CREATE TABLE %s (id int, v text, f double)`)
	for _, c := range []struct {
		name   string
		change func(o *Options)
		want   string
	}{
		{"table", func(o *Options) { o.Table = "nothing" }, "1146"},
		{"database", func(o *Options) { o.Database = "nowhere" }, "1044"},
		{"other database", func(o *Options) { o.Table = "mysql.user" }, "GRANT SELECT"},
		{"key", func(o *Options) { o.Key = "ident" }, `no column "ident", but id, v, f`},
		{"float", func(o *Options) { o.Key = "f" }, "type double cannot be a key"},
		{"field", func(o *Options) { o.Select = []string{"v.x"} }, "has no fields"},
		{"valid", func(o *Options) { o.ValidTo = "w" }, `no column "w"`},
		{"valid type", func(o *Options) { o.ValidTo = "v" }, `no timestamp`},
		{"password", func(o *Options) { o.Password = "wr0ng-one" }, "1045"},
		{"user", func(o *Options) { o.User = "nobody" }, "nobody"},
		{"address", func(o *Options) { o.Address = "127.0.0.1:1" }, "127.0.0.1:1"},
		{"tls", func(o *Options) { o.TLS = "verify-full" }, "certificate"},
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
	o.TLS = "require"
	mustOpen(t, o)
}
