package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	goredis "github.com/redis/go-redis/v9"

	"github.com/millstream/millstream/enrich"
	"github.com/millstream/millstream/enrich/enrichtest"
)

// options are those of a server in this process.
func options(m *miniredis.Miniredis) Options {
	return Options{Address: []string{m.Addr()}, Prefix: "user:", Logger: slog.New(slog.DiscardHandler)}
}

func openTable(t *testing.T, o Options) *Table {
	t.Helper()
	table, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = table.Close() })
	return table
}

// harness is a table over the server that o names, written to by client.
func harness(t *testing.T, o Options, client goredis.UniversalClient) *enrichtest.Harness {
	t.Cleanup(func() { _ = client.Close() })
	return &enrichtest.Harness{
		Table: openTable(t, o),
		Flat:  o.Kind == Hash,
		Put: func(ctx context.Context, key string, row map[string]any) error {
			if o.Kind == Hash {
				return client.HSet(ctx, o.Prefix+key, row).Err()
			}
			text, err := json.Marshal(row)
			if err != nil {
				return err
			}
			return client.Set(ctx, o.Prefix+key, text, 0).Err()
		},
		Delete: func(ctx context.Context, key string) error { return client.Del(ctx, o.Prefix+key).Err() },
		Select: func(fields ...string) (enrich.Table, error) {
			o := o
			o.Select = fields
			return New(t.Context(), o)
		},
	}
}

func TestSuite(t *testing.T) {
	for _, kind := range []Kind{JSON, Hash} {
		for _, cluster := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,cluster=%v", kind, cluster), func(t *testing.T) {
				enrichtest.Run(t, func(t *testing.T) *enrichtest.Harness {
					m := miniredis.RunT(t)
					o := options(m)
					o.Kind, o.Cluster = kind, cluster
					h := harness(t, o, goredis.NewClient(&goredis.Options{Addr: m.Addr()}))
					h.Down = m.Close
					return h
				})
			})
		}
	}
}

// wants asserts what a lookup answers: the row's JSON, "" for absent, "!malformed" or "!failed".
func wants(t *testing.T, table *Table, want map[string]string) {
	t.Helper()
	keys := make([]string, 0, len(want))
	for key := range want {
		keys = append(keys, key)
	}
	rows, err := table.Lookup(t.Context(), keys)
	var failed *enrich.Failed[string]
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	for key, want := range want {
		var got string
		if row := rows[key]; len(row) == 1 {
			got = string(row[0].JSON)
		}
		if failed != nil && failed.Keys[key] != nil {
			if got != "" {
				t.Errorf("%q has a row, %s, and failed: %v", key, got, failed.Keys[key])
			}
			got = "!failed"
			if errors.Is(failed.Keys[key], enrich.ErrMalformed) {
				got = "!malformed"
			}
		}
		if got != want {
			t.Errorf("%q: got %.100q, want %.100q (%v)", key, got, want, err)
		}
	}
}

func TestRows(t *testing.T) {
	m := miniredis.RunT(t)
	for key, value := range map[string]string{
		"object": ` { "n" : 9007199254740993, "a" : {"b": null, "c": 1} } `, "empty": "{}",
		"array": "[]", "text": "free", "nothing": "", "null": "null", "cut": `{"a":1`, "bytes": "{\"a\":\"\xff\"}",
		"large": `{"a":"` + strings.Repeat("x", enrich.MaxRow) + `"}`,
	} {
		if err := m.Set("user:"+key, value); err != nil {
			t.Fatal(err)
		}
	}
	m.HSet("user:hash", "tier", "<free>", "n", "9007199254740993")
	m.HSet("user:other", "x", "1")
	m.HSet("user:binary", "tier", "\xff")
	m.HSet("user:long", "tier", strings.Repeat("x", enrich.MaxRow))
	for _, cluster := range []bool{false, true} {
		o := options(m)
		o.Cluster = cluster
		wants(t, openTable(t, o), map[string]string{
			"object": `{"n":9007199254740993,"a":{"b":null,"c":1}}`, "empty": "{}", "absent": "", "": "",
			"array": "!malformed", "text": "!malformed", "nothing": "!malformed", "null": "!malformed", "cut": "!malformed", "bytes": "!malformed",
			"large": "!malformed", "hash": "!malformed", "other": "!malformed",
		})
		wants(t, openTable(t, o), map[string]string{"hash": "!malformed"}) // alone it is not the call's error
		o.Select = []string{"a.b", "z"}
		wants(t, openTable(t, o), map[string]string{"object": `{"a":{"b":null}}`, "empty": "{}", "absent": "", "hash": "!malformed"})

		o.Kind, o.Select = Hash, nil
		wants(t, openTable(t, o), map[string]string{
			"hash": `{"n":"9007199254740993","tier":"<free>"}`, "other": `{"x":"1"}`, "absent": "",
			"binary": "!malformed", "long": "!malformed", "object": "!malformed",
		})
		o.Select = []string{"tier", "absent", "tier"}
		wants(t, openTable(t, o), map[string]string{
			"hash": `{"tier":"<free>"}`, "other": "{}", "absent": "", "binary": "!malformed", "long": "!malformed", "object": "!malformed",
		})
	}
}

// TestWrongTypeIsNotAbsent is the control of asking again for what MGET has answered with nil.
func TestWrongTypeIsNotAbsent(t *testing.T) {
	m := miniredis.RunT(t)
	m.HSet("user:hash", "tier", "free")
	table := openTable(t, options(m))
	c := &call{table: table, rows: map[string][]enrich.Row{}, failed: map[string]error{}}
	values, err := table.client.MGet(t.Context(), "user:hash", "user:absent").Result()
	if err != nil || values[0] != nil || values[1] != nil {
		t.Fatalf("MGET answers %v, %v: it tells a hash from what is absent, and need not be asked twice", values, err)
	}
	if c.ask(t.Context(), []string{"absent", "hash"}); len(c.failed) != 1 || !errors.Is(c.failed["hash"], enrich.ErrMalformed) {
		t.Errorf("failed: %v", c.failed)
	}
}

// TestCommands: one MGET when all are there, one more round for what is not; no command is sent twice.
func TestCommands(t *testing.T) {
	m := miniredis.RunT(t)
	for _, key := range []string{"a", "b", "c"} {
		if err := m.Set("user:"+key, "{}"); err != nil {
			t.Fatal(err)
		}
	}
	table := openTable(t, options(m))
	var seen []string
	m.Server().SetPreHook(func(_ *server.Peer, cmd string, args ...string) bool {
		seen = append(seen, cmd+" "+strings.Join(args, " "))
		return false
	})
	wants(t, table, map[string]string{"a": "{}", "b": "{}", "c": "{}"})
	if got := strings.Join(seen, ";"); got != "MGET user:a user:b user:c" {
		t.Errorf("commands: %s", got)
	}
	seen = nil // still over the connection that New has made
	wants(t, table, map[string]string{"a": "{}", "x": "", "y": ""})
	if got := strings.Join(seen, ";"); got != "MGET user:a user:x user:y;GET user:x;GET user:y" {
		t.Errorf("commands: %s", got)
	}
}

// TestServersErrors: an error is the call's when nothing is answered, a key's when something is, is never an
// absence, and is not tried again.
func TestServersErrors(t *testing.T) {
	for _, kind := range []Kind{JSON, Hash} {
		for _, reason := range []string{"LOADING Redis is loading the dataset in memory", "BUSY Redis is busy", "NOPERM no", "ERR max number of clients reached"} {
			m := miniredis.RunT(t)
			o := options(m)
			o.Kind = kind
			table := openTable(t, o)
			var calls atomic.Int32
			m.Server().SetPreHook(func(c *server.Peer, _ string, _ ...string) bool {
				calls.Add(1)
				c.WriteError(reason)
				return true
			})
			rows, err := table.Lookup(t.Context(), []string{"a"})
			var failed *enrich.Failed[string]
			if err == nil || errors.As(err, &failed) || !strings.Contains(err.Error(), reason) || !strings.Contains(err.Error(), m.Addr()) {
				t.Errorf("%s: %v, %v", kind, rows, err)
			}
			if calls.Load() != 1 {
				t.Errorf("%s %q: asked %d times", kind, reason, calls.Load())
			}
		}
	}
	m := miniredis.RunT(t)
	if err := m.Set("user:a", "{}"); err != nil {
		t.Fatal(err)
	}
	table := openTable(t, options(m))
	m.Server().SetPreHook(func(c *server.Peer, cmd string, args ...string) bool {
		if cmd == "GET" && args[0] == "user:b" {
			c.WriteError("BUSY Redis is busy")
			return true
		}
		return false
	})
	wants(t, table, map[string]string{"a": "{}", "b": "!failed", "c": ""})
}

// TestLoginFails: a password that is changed while the table is open makes no row absent. The client leaves
// commands that it never sent without an error.
func TestLoginFails(t *testing.T) {
	for _, kind := range []Kind{JSON, Hash} {
		for _, o := range []Options{{}, {Cluster: true}, {Select: []string{"tier"}}} {
			m := miniredis.RunT(t)
			m.RequireUserAuth("app", "old")
			o.Address, o.Kind, o.Username, o.Password = []string{m.Addr()}, kind, "app", "old"
			o.Logger = slog.New(slog.DiscardHandler)
			table := openTable(t, o)
			m.RequireUserAuth("app", "new")
			m.Close()
			if err := m.Restart(); err != nil {
				t.Fatal(err)
			}
			for range 2 { // one connection may be found to be closed only by its use
				_, _ = table.Lookup(t.Context(), []string{"a"})
			}
			for _, keys := range [][]string{{"a"}, {"a", "b"}} {
				rows, err := table.Lookup(t.Context(), keys)
				if err == nil || !strings.Contains(err.Error(), "WRONGPASS") || errors.As(err, new(*enrich.Failed[string])) || errors.Is(err, enrich.ErrMalformed) {
					t.Errorf("%s %+v, %d keys: %v, %v", kind, o, len(keys), rows, err)
				}
			}
		}
	}
}

// half makes two servers a cluster in which each has half of the slots.
func half(t *testing.T) (a, b *miniredis.Miniredis, o Options) {
	a, b = miniredis.RunT(t), miniredis.RunT(t)
	slots := func(c *server.Peer, cmd string, args ...string) bool {
		if cmd != "CLUSTER" || !strings.EqualFold(args[0], "SLOTS") {
			return false
		}
		c.WriteLen(2)
		for i, m := range []*miniredis.Miniredis{a, b} {
			c.WriteLen(3)
			c.WriteInt(i * 8192)
			c.WriteInt(i*8192 + 8191)
			c.WriteLen(3)
			c.WriteBulk(m.Host())
			c.WriteInt(m.Server().Addr().Port)
			c.WriteBulk(fmt.Sprint("node", i))
		}
		return true
	}
	a.Server().SetPreHook(slots)
	b.Server().SetPreHook(slots)
	o = options(a)
	o.Cluster = true
	return a, b, o
}

// TestLargeAnswers: an answer is read up to its bound; what is too large alone is malformed, what is too large
// together is asked for in parts, and what does not fit into the call is left for another.
func TestLargeAnswers(t *testing.T) {
	const most = 64 << 10
	m := miniredis.RunT(t)
	row := func(size int) string { return `{"a":"` + strings.Repeat("x", size-8) + `"}` }
	want := map[string]string{"absent": ""}
	for i := range 50 {
		key := fmt.Sprint(i)
		_ = m.Set("user:"+key, row(1000))
		m.HSet("hash:"+key, "a", row(1000))
		want[key] = row(1000)
	}
	for i := range 3 { // larger than a connection reads
		key := fmt.Sprint(i * 20)
		_ = m.Set("user:"+key, row(200<<10))
		m.HSet("hash:"+key, "a", row(200<<10))
		want[key] = "!malformed"
	}
	for _, o := range []Options{{Prefix: "user:"}, {Prefix: "user:", Cluster: true}, {Prefix: "hash:", Kind: Hash}, {Prefix: "hash:", Kind: Hash, Select: []string{"a"}}} {
		o.Address, o.Logger = []string{m.Addr()}, slog.New(slog.DiscardHandler)
		table, err := open(o, most)
		if err != nil {
			t.Fatal(err)
		}
		want := maps.Clone(want)
		if o.Kind == Hash {
			for key, text := range want {
				if strings.HasPrefix(text, "{") {
					quoted, _ := json.Marshal(text)
					want[key] = `{"a":` + string(quoted) + "}"
				}
			}
		}
		wants(t, table, want)
		_ = table.Close()
	}

	for i := range 100 {
		_ = m.Set(fmt.Sprint("fits", i), row(1000))
	}
	table, err := open(Options{Address: []string{m.Addr()}}, most)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	_ = m.Set("third", row(most/3))
	for range 10 { // the bound is a call's, not the connection's
		wants(t, table, map[string]string{"third": row(most / 3)})
	}
	var keys []string
	for i := range 100 {
		keys = append(keys, fmt.Sprint("fits", i))
	}
	for round := 0; len(keys) > 0; round++ {
		rows, err := table.Lookup(t.Context(), keys)
		var failed *enrich.Failed[string]
		if err != nil && !errors.As(err, &failed) || errors.Is(err, enrich.ErrMalformed) {
			t.Fatal(err)
		}
		if len(rows) < min(len(keys), most/1000-1) || len(rows) > most/1000 || round > 2 {
			t.Fatalf("%d rows of %d keys in round %d", len(rows), len(keys), round)
		}
		keys = slices.DeleteFunc(keys, func(key string) bool { return rows[key] != nil })
	}
}

// TestHalfACluster: of a cluster with a node that is away the keys of the others are answered.
func TestHalfACluster(t *testing.T) {
	a, b, o := half(t)
	table := openTable(t, o)
	var keys, onA, onB []string
	for i := range 20 {
		keys = append(keys, fmt.Sprint(i))
		_ = a.Set("user:"+keys[i], `{"on":"a"}`)
		_ = b.Set("user:"+keys[i], `{"on":"b"}`)
	}
	rows, err := table.Lookup(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for key, row := range rows {
		if want[key] = string(row[0].JSON); want[key] == `{"on":"a"}` {
			onA = append(onA, key)
		} else {
			onB = append(onB, key)
		}
	}
	if len(onA) == 0 || len(onB) == 0 || len(rows) != len(keys) {
		t.Fatalf("%d and %d keys", len(onA), len(onB))
	}
	b.Close()
	for _, key := range onB {
		want[key] = "!failed"
	}
	wants(t, table, want)
	if _, err := table.Lookup(t.Context(), onB); err == nil || errors.As(err, new(*enrich.Failed[string])) {
		t.Errorf("of the node that is away: %v", err)
	}
}

// TestSilentNode: when a node of a cluster does not answer in time, what the others have answered stands.
func TestSilentNode(t *testing.T) {
	a, b, o := half(t)
	table := openTable(t, o)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	b.Server().SetPreHook(func(_ *server.Peer, _ string, _ ...string) bool {
		<-release
		return false
	})
	var keys []string
	for i := range 20 {
		keys = append(keys, fmt.Sprint(i))
		if i%2 == 0 {
			_ = a.Set("user:"+keys[i], "{}")
		}
		_ = b.Set("user:"+keys[i], "{}")
	}
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
		rows, err := table.Lookup(ctx, keys)
		cancel()
		var failed *enrich.Failed[string]
		if !errors.As(err, &failed) || len(failed.Keys) == 0 || len(rows) == 0 || len(failed.Keys)+len(rows) == len(keys) {
			t.Errorf("%v, %v", rows, err) // rows, absent ones, and those of the silent node
		}
	}
}

// silent takes connections and never answers.
func silent(t *testing.T) (address string, asked <-chan struct{}) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	heard := make(chan struct{}, 100)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			go func() {
				for buf := make([]byte, 1024); ; {
					if _, err := conn.Read(buf); err != nil {
						return
					}
					heard <- struct{}{}
				}
			}()
		}
	}()
	return l.Addr().String(), heard
}

// TestSilentServer: a call ends with its context, by deadline or by cancelling, while the server says nothing.
func TestSilentServer(t *testing.T) {
	address, asked := silent(t)
	table, err := open(Options{Address: []string{address}}, maxAnswer)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := table.Lookup(ctx, []string{"a"}); err == nil || errors.As(err, new(*enrich.Failed[string])) {
		t.Errorf("after the deadline: %v", err)
	}
	for len(asked) > 0 {
		<-asked
	}
	ctx, cancel = context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	start := time.Now()
	if _, err := table.Lookup(ctx, []string{"a"}); !errors.Is(err, context.Canceled) || time.Since(start) > answerWait/2 {
		t.Errorf("cancelled: %v after %v", err, time.Since(start))
	}
}

func TestClosed(t *testing.T) {
	m := miniredis.RunT(t)
	table := openTable(t, options(m))
	for range 2 {
		if err := table.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := table.Lookup(t.Context(), []string{"a"}); err == nil {
		t.Error("a closed table answers")
	}
}

func TestTLS(t *testing.T) {
	https := httptest.NewTLSServer(nil) // for its certificate
	t.Cleanup(https.Close)
	m, err := miniredis.RunTLS(&tls.Config{Certificates: https.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	_ = m.Set("user:a", "{}")
	roots := x509.NewCertPool()
	roots.AddCert(https.Certificate())
	o := options(m)
	for _, o.Cluster = range []bool{false, true} {
		o.TLS = &tls.Config{RootCAs: roots}
		wants(t, openTable(t, o), map[string]string{"a": "{}", "b": ""})
		for want, config := range map[string]*tls.Config{"certificate signed by unknown authority": {}, "": nil} {
			o.TLS = config
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			if _, err := New(ctx, o); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, not %q", err, want)
			}
			cancel()
		}
	}
}

func TestNewSaysWhatIsWrong(t *testing.T) {
	plain := miniredis.RunT(t)
	locked := miniredis.RunT(t)
	locked.RequireUserAuth("app", "s3cret")
	denied := miniredis.RunT(t)
	denied.SetError("NOPERM this user has no permissions to run the 'mget' command")
	gone := miniredis.RunT(t)
	nobody := gone.Addr()
	gone.Close()
	with := func(m *miniredis.Miniredis, f func(o *Options)) Options {
		o := options(m)
		f(&o)
		return o
	}
	for _, c := range []struct {
		o    Options
		want []string
	}{
		{with(locked, func(*Options) {}), []string{locked.Addr(), "NOAUTH", "give a password"}},
		{with(locked, func(o *Options) { o.Username, o.Password = "app", "hunter2" }), []string{locked.Addr(), "WRONGPASS"}},
		{with(locked, func(o *Options) { o.Username = "app" }), []string{"app", "no password"}},
		{with(denied, func(*Options) {}), []string{"NOPERM", "~user:* +mget +get"}},
		{with(denied, func(o *Options) { o.Kind = Hash }), []string{"+hgetall"}},
		{with(denied, func(o *Options) { o.Kind, o.Select = Hash, []string{"a"} }), []string{"+hmget +hlen"}},
		{Options{Address: []string{nobody}}, []string{nobody, "refused"}},
		{with(plain, func(o *Options) { o.Kind = "list" }), []string{`"list"`, "json", "hash"}},
		{with(plain, func(o *Options) { o.Address = []string{"nowhere.invalid"} }), []string{"nowhere.invalid:6379"}},
		{with(plain, func(o *Options) { o.Address = []string{"::1"} }), []string{"host:port"}},
		{with(plain, func(o *Options) { o.Address = []string{""} }), []string{"host:port"}},
		{with(plain, func(o *Options) { o.Address = []string{"a:1", "b:2"} }), []string{"Cluster"}},
		{with(plain, func(o *Options) { o.Cluster, o.DB = true, 3 }), []string{"database 3"}},
		{with(plain, func(o *Options) { o.Select = []string{"a..b"} }), []string{"a..b"}},
	} {
		table, err := New(t.Context(), c.o)
		if err == nil {
			_ = table.Close()
			t.Errorf("%+v is taken", c.o)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v: does not say %q", err, want)
			}
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v: the password", err)
		}
	}
	ok := openTable(t, with(locked, func(o *Options) { o.Username, o.Password, o.DB = "app", "s3cret", 3 }))
	_ = locked.DB(3).Set("user:a", "{}")
	wants(t, ok, map[string]string{"a": "{}", "b": ""})
}
