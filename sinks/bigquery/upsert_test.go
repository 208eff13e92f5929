package bigquery

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"google.golang.org/grpc/codes"

	fake "github.com/millstream/millstream/fakes/bigquery"
	"github.com/millstream/millstream/stream"
)

var keyedTable = fake.Table{Name: "p.d.rows", PrimaryKey: []string{"row"}, Columns: suiteTable.Columns}

// values are the visible rows with their numbers, by key.
func values(t testing.TB, server *fake.Server) string {
	t.Helper()
	rows, err := server.Rows("p.d.rows")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range rows {
		out = append(out, fmt.Sprint(r["row"], "=", r["n"]))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func row(label string, n int) stream.Row {
	return stream.Row{Data: fmt.Appendf(nil, `{"row":%q,"n":%d}`, label, n)}
}

// The newest row of a key is what is seen: by the checkpoint's number, then the part, then the place in it;
// whatever comes again, and in whatever order.
func TestUpsert(t *testing.T) {
	server := serve(t, keyedTable)
	u := mustOpen(t, server, Options{Write: Upsert})
	type delivery struct {
		number uint64
		part   int
		rows   []stream.Row
	}
	old := delivery{9, 0, []stream.Row{row("a", 1), row("b", 1), row("a", 2)}}
	second := delivery{9, 15, []stream.Row{row("b", 2)}}
	third := delivery{9, 16, []stream.Row{row("b", 3)}}
	newer := delivery{16, 0, []stream.Row{row("c", 1), row("a", 3)}}
	for _, order := range [][]delivery{{old, second, third, newer}, {newer, third, second, old}, {old, newer, old, third, newer, second}} {
		for _, d := range order {
			if err := u.Deliver(t.Context(), idOf(d.number, d.part), d.rows); err != nil {
				t.Fatal(err)
			}
		}
		if got := values(t, server); got != "a=3 b=3 c=1" {
			t.Error(got)
		}
	}
	if err := u.Fits([]string{"row", "more"}); err == nil || u.Fits([]string{"ROW", "n"}) != nil {
		t.Error(err)
	}
	if got := streams(t, server); len(got) != 0 {
		t.Error("streams were made:", got)
	}
}

// An answer that is lost, a connection that breaks and a quota delay rows, and change nothing.
func TestUpsertService(t *testing.T) {
	for name, f := range map[string]fake.Fault{
		"refused": {Code: codes.Unavailable}, "quota": {Code: codes.ResourceExhausted}, "broken": {Break: true}, "lost": {LoseReply: true},
		"stalled": {Stall: true}, "stalled, done": {Stall: true, LoseReply: true},
	} {
		server := serve(t, keyedTable)
		u := mustOpen(t, server, Options{Write: Upsert, Deadline: 100 * time.Millisecond})
		f.Operation, f.Every, f.Times = fake.AppendRows, 3, -1
		armed := server.Inject(f)
		for n := range uint64(6) {
			if err := u.Deliver(t.Context(), idOf(n, 0), []stream.Row{row("a", int(n)), row(fmt.Sprint("b", n), 0)}); err != nil {
				t.Fatal(name, err)
			}
		}
		if got := values(t, server); got != "a=5 b0=0 b1=0 b2=0 b3=0 b4=0 b5=0" || armed.Hits() == 0 {
			t.Error(name, got, armed.Hits())
		}
	}
}

// A row without its key is rejected alone, and so is one that the service refuses.
func TestUpsertRejected(t *testing.T) {
	server := serve(t, keyedTable)
	u := mustOpen(t, server, Options{Write: Upsert}).(*Upserter)
	u.service = &corrupting{u.service}
	rows := []stream.Row{row("a", 1), {Data: []byte(`{"n":1}`)}, row("corrupt", 1), row("b", 1)}
	for range 2 {
		var rejected *stream.Rejected
		if err := u.Deliver(t.Context(), idOf(1, 0), rows); !errors.As(err, &rejected) || len(rejected.Rows) != 2 ||
			rejected.Rows[0].Index != 1 || !strings.Contains(rejected.Rows[0].Reason, "column row is required") ||
			rejected.Rows[1].Index != 2 || !strings.Contains(rejected.Rows[1].Reason, "refuses the row") {
			t.Fatal(err)
		}
	}
	if got := values(t, server); got != "a=1 b=1" {
		t.Error(got)
	}
}

// Which way rows take follows from the table, unless it is said.
func TestMode(t *testing.T) {
	column := fake.Column{Name: "Window_Start", Type: "TIMESTAMP"}
	for _, c := range []struct {
		key  []string
		ask  Mode
		want Mode
		why  string
	}{
		{nil, "", Append, ""}, {nil, Append, Append, ""}, {nil, Upsert, "", "has no primary key"},
		{[]string{"row"}, "", Append, ""}, {[]string{"row"}, Upsert, Upsert, ""},
		{[]string{"row", "window_start"}, "", Upsert, ""}, {[]string{"row", "window_start"}, Append, Append, ""},
	} {
		table := suiteTable
		table.Columns, table.PrimaryKey = append(slices.Clone(table.Columns), column), c.key
		server := serve(t, table)
		s, err := openSink(t, server, Options{Write: c.ask}, nil)
		if c.why != "" {
			if err == nil || !strings.Contains(err.Error(), c.why) {
				t.Errorf("%v: %v", c, err)
			}
			continue
		}
		if err != nil || s.Mode() != c.want {
			t.Errorf("%v: %v", c, err)
		}
	}
}

// What the options cannot mean, or the service denies, is one line.
func TestRefused(t *testing.T) {
	server := serve(t, suiteTable)
	for want, o := range map[string]Options{
		`project "P Q"`:                 {Project: "P Q", Dataset: "d", Table: "rows"},
		`data set "d-e"`:                {Project: "p", Dataset: "d-e", Table: "rows"},
		`table "a.b"`:                   {Project: "p", Dataset: "d", Table: "a.b"},
		`table p.d.none does not exist`: {Project: "p", Dataset: "d", Table: "none"},
		`write "merge"`:                 {Project: "p", Dataset: "d", Table: "rows", Write: "merge"},
		`unknown "drop"`:                {Project: "p", Dataset: "d", Table: "rows", Unknown: "drop"},
	} {
		if _, err := openSink(t, server, o, nil); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want %s", err, want)
		}
	}
	server.Inject(fake.Fault{Operation: fake.REST, Code: codes.PermissionDenied, Message: "User does not have\npermission"})
	if _, err := openSink(t, server, Options{}, nil); !errors.Is(err, ErrDenied) || strings.Contains(err.Error(), "\n") {
		t.Error(err)
	}
	s := stagerOf(t, server, Options{})
	server.Inject(fake.Fault{Operation: "CreateWriteStream", Code: codes.PermissionDenied})
	if _, err := s.Stage(t.Context(), idOf(1, 0), rowsOf("a", 1)); !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "p.d.rows") {
		t.Error(err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", t.TempDir()+"/absent")
	if _, err := New(t.Context(), Options{Project: "p", Dataset: "d", Table: "t"}); err == nil || strings.Contains(err.Error(), "\n") {
		t.Error(err)
	}
}

// A column that the table gets while rows wait for it lets them through.
func TestSchemaChange(t *testing.T) {
	server := serve(t, suiteTable)
	wide := suiteTable
	wide.Name, wide.Columns = "p.d.wide", append(slices.Clone(wide.Columns), fake.Column{Name: "more", Type: "INT64"})
	if err := server.CreateTable(wide); err != nil {
		t.Fatal(err)
	}
	s := stagerOf(t, server, Options{Unknown: Fail})
	rows := []stream.Row{{Data: []byte(`{"row":"a","more":1}`)}}
	for range 2 {
		if _, err := s.Stage(t.Context(), idOf(1, 0), rows); err == nil || !strings.Contains(err.Error(), "a row has the field more") {
			t.Fatal(err)
		}
	}
	s.name = strings.Replace(s.name, "/rows", "/wide", 1)
	mustCommit(t, s, mustStage(t, s, idOf(1, 0), rows))
	if got, err := server.Rows("p.d.wide"); err != nil || len(got) != 1 || got[0]["more"] != int64(1) {
		t.Error(got, err)
	}
}

func publisherOf(t *testing.T, server *fake.Server, o PublisherOptions) *Publisher {
	t.Helper()
	o.Project, o.Dataset, o.Endpoint, o.Logger = "p", "d", server.Address(), slog.New(slog.DiscardHandler)
	p, err := NewPublisher(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// Messages are rows, visible when Publish returns, in the table that the topic names.
func TestPublisher(t *testing.T) {
	withID := suiteTable
	withID.Name, withID.Columns = "p.other.rows", append(slices.Clone(withID.Columns), fake.Column{Name: "_id", Type: "STRING"})
	server := serve(t, suiteTable, withID)
	p := publisherOf(t, server, PublisherOptions{})
	if err := p.Publish("rows", message.NewMessage("u1", []byte(`{"row":"a","n":1}`)), message.NewMessage("u2", []byte(`{"row":"b","n":2}`))); err != nil {
		t.Fatal(err)
	}
	if got := values(t, server); got != "a=1 b=2" {
		t.Error(got)
	}
	if err := p.Publish("other.rows", message.NewMessage("u3", []byte(`{"row":"c"}`))); err != nil {
		t.Fatal(err)
	}
	if rows, _ := server.Rows("p.other.rows"); len(rows) != 1 || rows[0]["_id"] != "u3" {
		t.Error(rows)
	}
	err := p.Publish("rows", message.NewMessage("u4", []byte(`{"row":"c","n":3}`)), message.NewMessage("u5", []byte(`{"more":1}`)))
	if err == nil || !strings.Contains(err.Error(), "1 of 2 messages are not stored, message u5: ") {
		t.Error(err)
	}
	if got := values(t, server); got != "a=1 b=2 c=3" {
		t.Error(got)
	}
	for topic, want := range map[string]string{"none": "table p.d.none does not exist", "a.b.c": `table "b.c"`, "": `table ""`} {
		if err := p.Publish(topic, message.NewMessage("u", []byte(`{}`))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", topic, err)
		}
	}
	if c := p.Counters(); c.Rejected != 1 || c.Requests != 3 {
		t.Errorf("%+v", c)
	}
}

// Many publish at once, answers are lost: nothing is missing.
func TestPublisherAtOnce(t *testing.T) {
	server := serve(t, suiteTable)
	p := publisherOf(t, server, PublisherOptions{Marshal: func(m *message.Message) ([]byte, error) {
		return fmt.Appendf(nil, `{"row":%q}`, m.UUID), nil
	}})
	server.Inject(fake.Fault{Operation: fake.AppendRows, Skip: 5, Times: 2, LoseReply: true})
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			for j := range 5 {
				if err := p.Publish("rows", message.NewMessage(fmt.Sprint(i, ".", j), nil)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	seen := make(map[string]bool)
	for _, text := range strings.Fields(labels(t, server)) {
		seen[strings.TrimSuffix(text, "(2)")] = true
	}
	if len(seen) != 40 {
		t.Error(len(seen))
	}
}

// Close ends a Publish that waits.
func TestPublisherClose(t *testing.T) {
	server := serve(t, suiteTable)
	p := publisherOf(t, server, PublisherOptions{})
	stall := server.Inject(fake.Fault{Operation: fake.AppendRows, Stall: true})
	ended := make(chan error, 1)
	go func() { ended <- p.Publish("rows", message.NewMessage("u", []byte(`{"row":"a"}`))) }()
	<-stall.Done()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := p.Publish("rows", message.NewMessage("u", []byte(`{"row":"a"}`))); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}
