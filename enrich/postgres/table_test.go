package postgres

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millstream/millstream/enrich"
	"github.com/millstream/millstream/enrich/enrichtest"
)

func mustOpen(t *testing.T, o Options) *Table {
	t.Helper()
	table, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = table.Close() })
	return table
}

func TestSuite(t *testing.T) {
	enrichtest.Run(t, func(t *testing.T) *enrichtest.Harness {
		f := newFake(t, nil)
		return &enrichtest.Harness{
			Table: mustOpen(t, f.options()), KeyField: "id", Down: f.down,
			Put: func(_ context.Context, key string, row map[string]any) error {
				nested, err := json.Marshal(row["nested"])
				f.mu.Lock()
				defer f.mu.Unlock()
				f.rows[key] = []string{key, row["tier"].(string), strconv.FormatFloat(row["n"].(float64), 'g', -1, 64), string(nested)}
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
				return New(t.Context(), o)
			},
		}
	})
}

// TestOneQuery: a call is one query, with the keys as an array of the column's type, each once, and the
// caller's time as the server's.
func TestOneQuery(t *testing.T) {
	f := newFake(t, nil)
	f.columns[0].oid = pgtype.Int8OID
	f.rows["7"] = []string{"7", "gold", "1", "null"}
	o := f.options()
	o.Select = []string{"tier"}
	table := mustOpen(t, o)
	f.mu.Lock()
	f.queries, f.arrays, f.settings = nil, nil, nil
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	found, err := table.Lookup(ctx, []string{"7", "8", "7", "x", "007", "9223372036854775808", ""})
	if err != nil || len(found) != 1 || string(found["7"][0].JSON) != `{"tier":"gold"}` {
		t.Fatalf("%s, %v", found, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	want := `SELECT t."id", t."tier" FROM "app"."users" AS t WHERE t."id" = ANY($1)`
	if len(f.queries) != 1 || f.queries[0] != want || f.arrays[0] != 1016 {
		t.Errorf("%q with %d, want %q with 1016", f.queries, f.arrays, want)
	}
	if n, _ := strconv.Atoi(f.settings[0]); n < 50_000 || n > 60_000 {
		t.Errorf("the server has %s ms", f.settings[0])
	}
	if found, err := table.Lookup(t.Context(), []string{"x", "y"}); err != nil || found == nil || len(found) != 0 || len(f.queries) != 1 {
		t.Errorf("texts that are no key: %v, %v, %q", found, err, f.queries)
	}
}

// TestSpellings: two texts of one value are both answered, and their slices are two.
func TestSpellings(t *testing.T) {
	f := newFake(t, nil)
	f.columns[0].oid = pgtype.UUIDOID
	f.types = append(f.types, []string{"2950", "0", "0", "2951", "uuid", "U", ","})
	lower := "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
	f.rows[lower] = []string{lower, "gold", "NaN", "{}"}
	found, err := mustOpen(t, f.options()).Lookup(t.Context(), []string{strings.ToUpper(lower), lower})
	if err != nil || len(found) != 2 || &found[lower][0] == &found[strings.ToUpper(lower)][0] {
		t.Fatalf("%v, %v", found, err)
	}
	if got := string(found[lower][0].JSON); got != `{"id":"`+lower+`","tier":"gold","n":null,"nested":{}}` {
		t.Error(got)
	}
}

// TestSelectPaths: of a JSON column only the fields that are wanted are kept.
func TestSelectPaths(t *testing.T) {
	f := newFake(t, nil)
	f.rows["a"] = []string{"a", "gold", "1", `{"city": "Zürich", "zip": 8000}`}
	o := f.options()
	o.Select = []string{"n", "nested.zip"}
	found, err := mustOpen(t, o).Lookup(t.Context(), []string{"a"})
	if err != nil || string(found["a"][0].JSON) != `{"n":1,"nested":{"zip":8000}}` {
		t.Errorf("%s, %v", found, err)
	}
}

// TestMalformed: what cannot be read is its own key's failure, and rows of no key that was asked nobody's.
func TestMalformed(t *testing.T) {
	f := newFake(t, nil)
	f.columns = append(f.columns, fakeColumn{"raw", pgtype.ByteaOID}, fakeColumn{"list", 1007})
	good := func(key string) []string { return []string{key, "x", "1", `[1]`, `\x00`, "{1}"} }
	with := func(key string, place int, value string) []string {
		row := good(key)
		row[place] = value
		return row
	}
	f.more = [][]string{
		good("good"), good("twice"), good("twice"), good("twice"), good("\x00"), good("GOOD"),
		with("large", 1, strings.Repeat("x", enrich.MaxRow)), with("deep", 3, strings.Repeat("[", 100)+strings.Repeat("]", 100)),
		with("bytes", 4, "abc"), with("list", 5, "{1"), with("nested", 3, "{"),
	}
	keys := []string{"good", "twice", "large", "deep", "bytes", "list", "nested", "absent"}
	found, err := mustOpen(t, f.options()).Lookup(t.Context(), keys)
	var failed *enrich.Failed[string]
	if !errors.As(err, &failed) || len(failed.Keys) != 6 {
		t.Fatalf("%v", err)
	}
	for _, key := range keys[1:7] {
		if !errors.Is(failed.Keys[key], enrich.ErrMalformed) || found[key] != nil {
			t.Errorf("%s: %v", key, failed.Keys[key])
		}
	}
	if len(found) != 1 || string(found["good"][0].JSON) != `{"id":"good","tier":"x","n":1,"nested":[1],"raw":"AA==","list":[1]}` {
		t.Errorf("%s", found)
	}
}

func TestVersions(t *testing.T) {
	f := newFake(t, nil)
	f.columns = []fakeColumn{{"id", pgtype.TextOID}, {"since", pgtype.TimestamptzOID}, {"until", pgtype.TimestamptzOID}, {"tier", pgtype.TextOID}}
	f.more = [][]string{
		{"a", "2026-03-01 00:00:00+00", "\x00", "gold"}, {"a", "\x00", "2026-02-01 00:00:00+00", "free"},
		{"a", "2026-02-01 00:00:00.5+00", "2026-03-01 00:00:00+00", "silver"}, {"a", "2026-02-01 00:00:00+00", "2026-02-01 00:00:00+00", "never"},
		{"a", "infinity", "\x00", "never"}, {"a", "\x00", "0044-03-15 00:00:00 BC", "never"},
		{"overlap", "\x00", "\x00", "x"}, {"overlap", "2026-02-01 00:00:00+00", "\x00", "y"},
		{"backwards", "2026-02-01 00:00:00+00", "2026-01-01 00:00:00+00", "y"}, {"what", "soon", "\x00", "y"},
	}
	o := f.options()
	o.ValidFrom, o.ValidTo, o.Select = "since", "until", []string{"tier"}
	found, err := mustOpen(t, o).Lookup(t.Context(), []string{"a", "overlap", "backwards", "what"})
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

// TestRefused: an error of the server is the call's, with its code, and the connection goes on.
func TestRefused(t *testing.T) {
	f := newFake(t, nil)
	f.rows["a"] = []string{"a", "x", "1", "{}"}
	table := mustOpen(t, f.options())
	f.mu.Lock()
	f.fail = &pgproto3.ErrorResponse{Severity: "ERROR", Code: "57014", Message: "canceling statement due to statement timeout"}
	f.mu.Unlock()
	found, err := table.Lookup(t.Context(), []string{"a"})
	var server *pgconn.PgError
	if found != nil || !errors.As(err, &server) || server.Code != "57014" || !strings.Contains(err.Error(), "app.users") {
		t.Errorf("%v, %v", found, err)
	}
	f.mu.Lock()
	f.fail = nil
	conns := len(f.conns)
	f.mu.Unlock()
	if found, err := table.Lookup(t.Context(), []string{"a"}); err != nil || len(found) != 1 {
		t.Errorf("%v, %v", found, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.conns) != conns {
		t.Error("the connection was given up")
	}
}

// TestHangs: a server that does not answer holds a call until its time is over, or the table is closed.
func TestHangs(t *testing.T) {
	for _, end := range []string{"cancel", "close"} {
		f := newFake(t, nil)
		table := mustOpen(t, f.options())
		hung := make(chan struct{})
		f.mu.Lock()
		f.hang = hung
		f.mu.Unlock()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := table.Lookup(ctx, []string{"a"})
			done <- err
		}()
		<-hung
		if end == "cancel" {
			cancel()
		} else {
			_ = table.Close()
		}
		err := <-done
		cancel()
		if err == nil || end == "cancel" && !errors.Is(err, context.Canceled) || end == "close" && !strings.Contains(err.Error(), "closed") {
			t.Errorf("%s: %v", end, err)
		}
	}
}

// TestNewTypes: a column of a type that was not there when the table was opened is looked up once.
func TestNewTypes(t *testing.T) {
	f := newFake(t, nil)
	f.rows["a"] = []string{"a", "x", "1", "{}"}
	table := mustOpen(t, f.options())
	f.mu.Lock()
	f.columns = append(f.columns, fakeColumn{"list", 7001})
	f.types = append(f.types, []string{"7001", "7002", "0", "0", "numbers", "A", ","}, []string{"7002", "0", "23", "0", "_int4", "A", ","})
	f.rows["a"] = append(f.rows["a"], "{1,2}")
	f.queries = nil
	f.mu.Unlock()
	for range 2 {
		found, err := table.Lookup(t.Context(), []string{"a"})
		if err != nil || !strings.HasSuffix(string(found["a"][0].JSON), `"list":[1,2]}`) {
			t.Errorf("%s, %v", found, err)
		}
	}
	if len(f.queries) != 3 {
		t.Errorf("%d queries, want 2 and 1", len(f.queries))
	}
}

func TestNew(t *testing.T) {
	f := newFake(t, nil)
	var logged bytes.Buffer
	for _, c := range []struct {
		name   string
		change func(o *Options)
		want   string
	}{
		{"nothing", func(o *Options) { *o = Options{} }, "are needed"},
		{"table", func(o *Options) { o.Table = "a.b.c" }, "schema.table"},
		{"quotes", func(o *Options) { o.Table = `"a` }, "not closed"},
		{"key", func(o *Options) { o.Key = "Id" }, `no column "Id", but id, tier, n, nested`},
		{"key type", func(o *Options) { o.Key = "nested" }, "jsonb cannot be a key"},
		{"select", func(o *Options) { o.Select = []string{"x"} }, `no column "x"`},
		{"field", func(o *Options) { o.Select = []string{"tier.x"} }, "has no fields"},
		{"valid", func(o *Options) { o.ValidTo = "n" }, "no timestamptz"},
		{"password", func(o *Options) { o.Password = "wr0ng-one" }, "28P01"},
		{"tls", func(o *Options) { o.TLS = "verify-full" }, "TLS"},
		{"tls mode", func(o *Options) { o.TLS = "prefer" }, "verify-full, require or disable"},
		{"address", func(o *Options) { o.Address = "a:b:c:d" }, "address"},
		{"port", func(o *Options) { o.Address = "localhost:0" }, "not an address"},
		{"connections", func(o *Options) { o.MaxConns = -1 }, "connections"},
		{"authorities", func(o *Options) { o.TLS, o.CAFile = "verify-full", "/nowhere" }, "/nowhere"},
	} {
		o := f.options()
		c.change(&o)
		_, err := New(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), fakePassword) || strings.Contains(err.Error(), "wr0ng-one") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	f.mu.Lock()
	f.fail = nil
	f.mu.Unlock()
	o := f.options()
	o.Logger = slog.New(slog.NewTextHandler(&logged, nil))
	mustOpen(t, o)
	if !strings.Contains(logged.String(), "no index begins with the key") {
		t.Errorf("a key without an index: %q", logged.String())
	}
}

// TestTLS: by default a server elsewhere has to prove that it is the one.
func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	authority := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFake(t, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	for _, c := range []struct {
		mode, ca string
		ok       bool
	}{{"verify-full", authority, true}, {"verify-full", "", false}, {"require", "", true}} {
		o := f.options()
		o.TLS, o.CAFile = c.mode, c.ca
		table, err := New(t.Context(), o)
		if (err == nil) != c.ok {
			t.Errorf("%s %q: %v", c.mode, c.ca, err)
		}
		if err == nil {
			_ = table.Close()
		}
	}
	for address, want := range map[string]bool{"localhost": false, "127.0.0.1:5433": false, "[::1]:5432": false, "/var/run/postgresql": false, "db.example.com": true, "10.0.0.7:5432": true} {
		config, err := Options{Address: address, User: "u"}.config()
		if err != nil || (config.ConnConfig.TLSConfig != nil) != want || want && config.ConnConfig.TLSConfig.InsecureSkipVerify {
			t.Errorf("%s: %v, %v", address, config.ConnConfig.TLSConfig, err)
		}
	}
}

// TestVariables: libpq's variables change nothing.
func TestVariables(t *testing.T) {
	for name, value := range map[string]string{"PGHOST": "elsewhere", "PGPORT": "1", "PGPASSWORD": "x", "PGDATABASE": "x", "PGOPTIONS": "-c geqo=off", "PGSSLMODE": "require", "PGTARGETSESSIONATTRS": "read-write"} {
		t.Setenv(name, value)
	}
	config, err := Options{Address: "h:7", User: "u", TLS: "disable"}.config()
	if err != nil {
		t.Fatal(err)
	}
	c := config.ConnConfig
	if c.Host != "h" || c.Port != 7 || c.User != "u" || c.Password != "" || c.Database != "" || c.TLSConfig != nil || c.ValidateConnect != nil || len(c.RuntimeParams) != 2 || len(c.Fallbacks) != 0 {
		t.Errorf("%+v", c)
	}
}

func TestQuoteTable(t *testing.T) {
	for name, want := range map[string]string{
		"users": `"users"`, "app.users": `"app"."users"`, `"a.b".users`: `"a.b"."users"`, `a."b.c"`: `"a"."b.c"`,
		"Robert; DROP TABLE x": `"Robert; DROP TABLE x"`, "": "", ".": "", "a.": "", ".a": "", "a.b.c": "", `"a`: "", `"a"b`: "", `a"b`: "", "a\x00": "", `""`: "",
	} {
		got, err := quoteTable(name)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
}
