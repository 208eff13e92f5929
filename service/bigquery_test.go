package service_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/millstream/millstream/fakes/bigquery"
	"github.com/millstream/millstream/service"
	"github.com/millstream/millstream/stream"
)

func bigQuery(t *testing.T, tables ...bigquery.Table) *bigquery.Server {
	t.Helper()
	server := bigquery.New(bigquery.Options{})
	t.Cleanup(server.Close)
	if _, err := server.Start(); err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		if err := server.CreateTable(table); err != nil {
			t.Fatal(err)
		}
	}
	return server
}

var (
	totals = bigquery.Table{Name: "p.d.totals", PrimaryKey: []string{"k", "window_start"}, Columns: []bigquery.Column{
		{Name: "window_start", Type: "TIMESTAMP", Mode: "REQUIRED"}, {Name: "window_end", Type: "TIMESTAMP"},
		{Name: "k", Type: "STRING", Mode: "REQUIRED"}, {Name: "n", Type: "INT64"}, {Name: "total", Type: "NUMERIC"},
	}}
	events = bigquery.Table{Name: "p.d.events", Columns: []bigquery.Column{
		{Name: "k", Type: "STRING", Mode: "REQUIRED"}, {Name: "v", Type: "INT64"}, {Name: "t", Type: "TIMESTAMP"},
	}}
	letters = bigquery.Table{Name: "p.d.letters", Columns: []bigquery.Column{
		{Name: "reason", Type: "STRING"}, {Name: "stage", Type: "STRING"}, {Name: "source", Type: "STRING"}, {Name: "partition", Type: "STRING"},
		{Name: "position", Type: "STRING"}, {Name: "event_time", Type: "TIMESTAMP"}, {Name: "error", Type: "STRING"}, {Name: "attempts", Type: "INT64"},
		{Name: "length", Type: "INT64"}, {Name: "raw", Type: "BYTES"},
	}}
)

// A file goes into tables, as events, as totals and as dead letters, and every number is right, also when
// every fourth call fails in one way or another.
func TestBigQuery(t *testing.T) {
	const keys, each, minutes = 7, 60, 5
	in := filepath.Join(t.TempDir(), "in.ndjson")
	var lines bytes.Buffer
	for m := range minutes {
		for i := range each {
			at := time.Date(2026, 1, 1, 0, m, i%60, 0, time.UTC)
			for k := range keys {
				fmt.Fprintf(&lines, "{\"k\":\"k%d\",\"v\":%d,\"t\":%q}\n", k, i, at.Format(time.RFC3339))
			}
		}
	}
	lines.WriteString("{\"k\":\"bad\",\"v\":\"many\",\"t\":\"2026-01-01T00:04:59Z\"}\n")
	lines.WriteString("no JSON\n")
	if err := os.WriteFile(in, lines.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, fault := range map[string]bigquery.Fault{
		"well":      {Operation: "nothing", Times: -1},
		"broken":    {Operation: bigquery.AppendRows, Every: 4, Times: -1, Break: true},
		"lost":      {Operation: bigquery.AppendRows, Every: 2, Times: -1, LoseReply: true},
		"refused":   {Operation: "FlushRows", Every: 2, Times: -1, Code: codes.Unavailable},
		"uncertain": {Operation: "FlushRows", Every: 2, Times: -1, LoseReply: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := bigQuery(t, totals, events, letters)
			at := "?endpoint=" + server.Address()
			armed := server.Inject(fault)
			run := func(sink string, args ...string) string {
				s := settings(t, append([]string{"--source", in, "--until-end", "--log-format", "json", "--time", "t",
					"--checkpoint", t.TempDir(), "--dead-letter", "bigquery://p/d/letters" + at}, args...)...)
				s.Sinks = []string{sink + at}
				var log bytes.Buffer
				if err := service.RunQuery(t.Context(), s, &log); err != nil {
					t.Fatal(err, log.String())
				}
				return log.String()
			}
			run("bigquery://p/d/events", "--checkpoint-every", "50ms")
			log := run("bigquery://p/d/totals", "--key", "k", "--window", "tumbling:1m", "--aggregate", "count() as n, sum(v) as total", "--where", `k != "bad"`)

			rows, err := server.Rows("p.d.events")
			if err != nil || len(rows) != keys*each*minutes {
				t.Errorf("%d events, want %d, %v", len(rows), keys*each*minutes, err)
			}
			rows, err = server.Rows("p.d.totals")
			if err != nil || len(rows) != keys*minutes {
				t.Fatalf("%d totals, want %d, %v\n%s", len(rows), keys*minutes, err, log)
			}
			for _, r := range rows {
				if r["n"] != int64(each) || r["total"] != fmt.Sprint(each*(each-1)/2) {
					t.Errorf("%v", r)
				}
			}
			rows, err = server.Rows("p.d.letters")
			counts := make(map[any]int)
			for _, r := range rows {
				counts[r["reason"]]++
				if len(r["raw"].([]byte)) == 0 {
					t.Errorf("%v", r)
				}
			}
			if err != nil || counts["undecodable"] != 2 || counts[stream.ReasonRejected] != 1 || len(rows) != 3 {
				t.Errorf("%v, %v", counts, err)
			}
			if (armed.Hits() > 0) != (name != "well") {
				t.Error("hits:", armed.Hits())
			}
		})
	}
}

func TestBigQueryIsRefused(t *testing.T) {
	server := bigQuery(t, totals, events)
	at := "endpoint=" + server.Address()
	in := filepath.Join(t.TempDir(), "in.ndjson")
	if err := os.WriteFile(in, []byte("{\"k\":\"a\",\"t\":1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for sink, want := range map[string]string{
		"bigquery://p/d":                             "names no table: want bigquery://PROJECT/DATASET/TABLE",
		"bigquery://p/d/t/x":                         "names no table",
		"bigquery://p/d/t?wrote=append":              "has no parameter wrote: did you mean write?",
		"bigquery://p/d/events?write=insert&" + at:   `write "insert": want append or upsert`,
		"bigquery://p/d/events?unknown=drop&" + at:   `unknown "drop": want dead-letter, ignore or fail`,
		"bigquery://p/d/events?endpoint=nowhere":     `endpoint "nowhere": want an address`,
		"bigquery://p/d/none?" + at:                  "bigquery: table p.d.none does not exist",
		"bigquery://p/d/events?write=upsert&" + at:   "has no primary key",
		"bigquery://p/d/events?" + at:                "table p.d.events has no column window_start: add it",
		"bigquery://p/d/events?unknown=ignore&" + at: "",
		"big-query://p/d/events":                     "unknown kind big-query: did you mean bigquery?",
	} {
		s := settings(t, "--source", in, "--until-end", "--time", "t", "--key", "k", "--window", "tumbling:1m", "--aggregate", "count() as n")
		s.Sinks = []string{sink}
		err := service.RunQuery(t.Context(), s, io.Discard)
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", sink, err)
			}
			continue
		}
		var setting *service.SettingError
		if !errors.As(err, &setting) || setting.Setting != "--sink" || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", sink, err)
		}
	}
	for letter, want := range map[string]string{
		"bigquery://p/d/events?" + at:              "table p.d.events has no column reason",
		"bigquery://p/d/totals?write=upsert&" + at: "write=upsert would keep one dead letter for each key",
	} {
		s := settings(t, "--source", in, "--until-end", "--dead-letter", letter)
		if err := service.RunQuery(t.Context(), s, io.Discard); err == nil || !strings.HasPrefix(err.Error(), "--dead-letter: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", letter, err)
		}
	}
}

// check says which promise a table gets.
func TestBigQueryCheck(t *testing.T) {
	server := bigQuery(t, totals, events)
	s := settings(t, "--source", t.TempDir(), "--checkpoint", t.TempDir())
	s.Sinks = []string{"bigquery://p/d/totals?endpoint=" + server.Address(), "bigquery://p/d/events?endpoint=" + server.Address()}
	var out bytes.Buffer
	server.Inject(bigquery.Fault{Operation: "CreateWriteStream", Code: codes.PermissionDenied})
	if err := service.Check(t.Context(), &s.Settings, stream.Plan{}, nil, &out); err == nil || !strings.Contains(err.Error(), "access denied: writing needs the role BigQuery Data Editor") {
		t.Error(err)
	}
	out.Reset()
	if err := service.Check(t.Context(), &s.Settings, stream.Plan{}, nil, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{": one row for each primary key, the newest: ", ": exactly once: rows wait in buffered streams", "bigquery.tables.updateData on table p.d.totals"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("check does not say %q:\n%s", want, out.String())
		}
	}
}

// A table that is made as --ddl says takes the rows of every aggregate, and the default is upsert.
func TestDDL(t *testing.T) {
	in := filepath.Join(t.TempDir(), "in.ndjson")
	if err := os.WriteFile(in, []byte("{\"k\":\"a\",\"v\":1.25,\"w\":\"x\",\"t\":1}\n{\"k\":7,\"v\":2,\"w\":\"y\",\"t\":2}\n{\"k\":\"a\",\"v\":0.1,\"w\":\"x\",\"t\":3}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := settings(t, "--source", in, "--until-end", "--checkpoint", t.TempDir(), "--time", "t", "--key", "k", "--window", "tumbling:1m",
		"--aggregate", "count() as n, sum(v) as total, avg(v), min(v), max(w), stddev(v), first(w), last(v), count_distinct(w), quantile(v, 0.5), top(w, 2)")
	server := bigQuery(t)
	s.Sinks = []string{"stdout:", "bigquery://p/d/made?endpoint=" + server.Address()}
	q, err := s.Compile()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := service.DDL(&s.Settings, q, &out); err != nil {
		t.Fatal(err)
	}
	table := bigquery.Table{Name: "p.d.made"}
	for _, line := range strings.Split(out.String(), "\n") {
		line = strings.TrimSuffix(strings.TrimSpace(line), ",")
		words := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "CREATE"), len(words) < 2, words[0] == "PARTITION", words[0] == "CLUSTER":
		case words[0] == "PRIMARY":
			_, keys, _ := strings.Cut(line, "(")
			keys, _, _ = strings.Cut(keys, ")")
			table.PrimaryKey = strings.Split(keys, ", ")
		default:
			c := bigquery.Column{Name: strings.Trim(words[0], "`"), Type: words[1]}
			if strings.HasSuffix(line, "NOT NULL") {
				c.Mode = "REQUIRED"
			}
			table.Columns = append(table.Columns, c)
		}
	}
	if err := server.CreateTable(table); err != nil {
		t.Fatal(err, out.String())
	}
	s.Sinks = s.Sinks[1:]
	var log bytes.Buffer
	if err := service.RunQuery(t.Context(), s, &log); err != nil {
		t.Fatal(err)
	}
	rows, err := server.Rows("p.d.made")
	if err != nil || len(rows) != 2 || len(rows[0])+len(rows[1]) != 14+13 || len(table.PrimaryKey) != 3 {
		t.Fatalf("%v, %v\n%s%s", rows, err, out.String(), log.String())
	}
	for _, r := range rows { // of the 14 columns one is empty: a single value has no deviation
		if r["k"] == "a" && (r["n"] != int64(2) || r["total"] != "1.35") {
			t.Errorf("%v", r)
		}
	}
	s.Sinks = []string{"stdout:"}
	if err := service.DDL(&s.Settings, q, &out); err == nil || !strings.Contains(err.Error(), "--ddl: needs a table") {
		t.Error(err)
	}
}
