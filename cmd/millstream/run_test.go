package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millstream/millstream/service"
	"github.com/millstream/millstream/stream"
)

// clicks of two users: two minutes, one record out of order, one that is late with a bound of 10 s.
var clicksOfTwo = []string{
	`{"user":{"id":"a"},"page":"/","ms":10,"at":"2026-01-01T00:00:00Z"}`,
	`{"user":{"id":"b"},"page":"/","ms":20,"at":"2026-01-01T00:00:20Z"}`,
	`{"user":{"id":"a"},"page":"/x","ms":30,"at":"2026-01-01T00:00:15Z"}`,
	`{"user":{"id":"a"},"page":"/","ms":40,"at":"2026-01-01T00:01:30Z"}`,
	`{"user":{"id":"b"},"page":"/x","ms":50,"at":"2026-01-01T00:00:30Z"}`,
	`{"user":{"id":"b"},"page":"/","ms":60,"at":"2026-01-01T00:01:59.5Z"}`,
}

// What each kind of pipeline writes, line by line.
func TestRows(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		flags  []string
		rows   string
		ledger stream.Ledger
	}{
		{"tumbling", []string{"--key", "user.id", "--time", "at", "--window", "tumbling:1m", "--aggregate", "count() as n, sum(ms)"}, `
{"window_start":"2026-01-01T00:00:00Z","window_end":"2026-01-01T00:01:00Z","user_id":"a","n":2,"sum_ms":40}
{"window_start":"2026-01-01T00:00:00Z","window_end":"2026-01-01T00:01:00Z","user_id":"b","n":2,"sum_ms":70}
{"window_start":"2026-01-01T00:01:00Z","window_end":"2026-01-01T00:02:00Z","user_id":"a","n":1,"sum_ms":40}
{"window_start":"2026-01-01T00:01:00Z","window_end":"2026-01-01T00:02:00Z","user_id":"b","n":1,"sum_ms":60}
`, stream.Ledger{RecordsIn: 6, Contributed: 6, RowsOut: 4}},
		{"one total", []string{"--time", "at", "--window", "tumbling:1h", "--aggregate", "min(ms) as low, max(ms) as high, avg(ms) as mean"}, `
{"window_start":"2026-01-01T00:00:00Z","window_end":"2026-01-01T01:00:00Z","low":10,"high":60,"mean":35}
`, stream.Ledger{RecordsIn: 6, Contributed: 6, RowsOut: 1}},
		{"hopping", []string{"--time", "at", "--window", "hopping:2m/1m", "--aggregate", "count() as n"}, `
{"window_start":"2025-12-31T23:59:00Z","window_end":"2026-01-01T00:01:00Z","n":4}
{"window_start":"2026-01-01T00:00:00Z","window_end":"2026-01-01T00:02:00Z","n":6}
{"window_start":"2026-01-01T00:01:00Z","window_end":"2026-01-01T00:03:00Z","n":2}
`, stream.Ledger{RecordsIn: 6, Contributed: 6, RowsOut: 3}},
		{"session", []string{"--key", "user.id", "--time", "at", "--window", "session:30s", "--aggregate", "count() as n, last(page) as page"}, `
{"window_start":"2026-01-01T00:00:00Z","window_end":"2026-01-01T00:00:45Z","user_id":"a","n":2,"page":"/x"}
{"window_start":"2026-01-01T00:00:20Z","window_end":"2026-01-01T00:01:00Z","user_id":"b","n":2,"page":"/x"}
{"window_start":"2026-01-01T00:01:30Z","window_end":"2026-01-01T00:02:00Z","user_id":"a","n":1,"page":"/"}
{"window_start":"2026-01-01T00:01:59.500Z","window_end":"2026-01-01T00:02:29.500Z","user_id":"b","n":1,"page":"/"}
`, stream.Ledger{RecordsIn: 6, Contributed: 6, RowsOut: 4}},
		{"pass-through", []string{"--where", `page == "/x"`}, clicksOfTwo[2] + "\n" + clicksOfTwo[4] + "\n",
			stream.Ledger{RecordsIn: 6, Contributed: 2, Filtered: 4, RowsOut: 2}},
		{"select", []string{"--where", "ms > 40", "--select", "user.id as user, ms / 10 as cs, page"}, `
{"user":"b","cs":5,"page":"/x"}
{"user":"b","cs":6,"page":"/"}
`, stream.Ledger{RecordsIn: 6, Contributed: 2, Filtered: 4, RowsOut: 2}},
		{"late", []string{"--out-of-order", "10s", "--key", "user.id", "--time", "at", "--window", "tumbling:1m", "--aggregate", "count() as n"}, `
{"window_start":"2026-01-01T00:00:00Z","window_end":"2026-01-01T00:01:00Z","user_id":"a","n":2}
{"window_start":"2026-01-01T00:00:00Z","window_end":"2026-01-01T00:01:00Z","user_id":"b","n":1}
{"window_start":"2026-01-01T00:01:00Z","window_end":"2026-01-01T00:02:00Z","user_id":"a","n":1}
{"window_start":"2026-01-01T00:01:00Z","window_end":"2026-01-01T00:02:00Z","user_id":"b","n":1}
`, stream.Ledger{RecordsIn: 6, Contributed: 5, Late: 1, RowsOut: 4}},
		{"from and until", []string{"--from", "2026-01-01T00:00:15Z", "--until", "2026-01-01T00:01:00Z", "--key", "user.id", "--time", "at",
			"--window", "tumbling:1m", "--aggregate", "count() as n"}, `
{"window_start":"2026-01-01T00:00:00Z","window_end":"2026-01-01T00:01:00Z","user_id":"a","n":1}
{"window_start":"2026-01-01T00:00:00Z","window_end":"2026-01-01T00:01:00Z","user_id":"b","n":2}
`, stream.Ledger{RecordsIn: 6, Contributed: 3, Filtered: 3, RowsOut: 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			in := write(t, filepath.Join(dir, "in.ndjson"), clicksOfTwo...)
			p := launch{dir: dir}.start(t, slices.Concat([]string{"run", "--source", in, "--until-end", "--sink", "stdout:", "--sink", "out",
				"--log-format", "json"}, c.flags)...).succeeds()
			want := strings.TrimPrefix(c.rows, "\n")
			if got := sorted(p.stdout.String()); got != sorted(want) {
				t.Errorf("stdout:\n%s\nwant:\n%s", got, want)
			}
			var files strings.Builder
			for _, name := range outputs(t, filepath.Join(dir, "out")) {
				data, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				files.Write(data)
			}
			if got := sorted(files.String()); got != sorted(want) {
				t.Errorf("files of the second sink:\n%s\nwant:\n%s", got, want)
			}
			if got := p.ledger(); got != c.ledger {
				t.Errorf("ledger %+v\nwant   %+v", got, c.ledger)
			}
		})
	}
}

func sorted(text string) string {
	return strings.Join(slices.Sorted(strings.Lines(text)), "")
}

// --until ends a run that follows its source, once everything before is committed.
func TestUntilEndsARunThatFollows(t *testing.T) {
	t.Parallel()
	in := write(t, filepath.Join(t.TempDir(), "in.ndjson"), clicksOfTwo...)
	p := start(t, "run", "--source", in, "--until", "2026-01-01T00:01:00Z", "--time", "at", "--window", "tumbling:1m",
		"--aggregate", "count() as n", "--sink", "stdout:", "--log-format", "json").succeeds()
	if got, want := p.stdout.String(), `{"window_start":"2026-01-01T00:00:00Z","window_end":"2026-01-01T00:01:00Z","n":3}`+"\n"; got != want {
		t.Errorf("rows %s\nwant %s", got, want)
	}
	p.ledger()
}

// A late record is counted as late wherever it goes; by default that is the dead letter.
func TestLate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		flags []string
		dead  int
	}{{nil, 1}, {[]string{"--late", "dead-letter"}, 1}, {[]string{"--late", "drop"}, 0}} {
		dir := t.TempDir()
		in := write(t, filepath.Join(dir, "in.ndjson"), clicksOfTwo...)
		p := launch{dir: dir}.start(t, slices.Concat([]string{"run", "--source", in, "--until-end", "--out-of-order", "10s", "--time", "at",
			"--window", "tumbling:1m", "--aggregate", "count() as n", "--sink", "out", "--log-format", "json"}, c.flags)...).succeeds()
		if l := p.ledger(); l.Late != 1 || l.DeadLettered != 0 || l.Contributed != 5 {
			t.Errorf("%s: ledger %+v", c.flags, l)
		}
		dead := lines[stream.DeadLetter](t, filepath.Join(dir, "millstream-state", "main", "dead-letter"))
		if len(dead) != c.dead {
			t.Errorf("%s: %d dead letters, want %d", c.flags, len(dead), c.dead)
		}
		for _, d := range dead {
			if d.Reason != stream.ReasonLate || string(d.Raw) != clicksOfTwo[4] || d.EventTime != "2026-01-01T00:00:30Z" {
				t.Errorf("%+v", d)
			}
		}
	}
}

// The standard input is a source under both its names, and ends where the pipe does.
func TestStandardInput(t *testing.T) {
	t.Parallel()
	for _, source := range []string{"-", "stdin:"} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		p := launch{stdin: r}.start(t, "run", "--source", source, "--until-end", "--checkpoint", "mem:", "--select", "ms", "--sink", "stdout:", "--log-format", "json")
		r.Close()
		fmt.Fprint(w, strings.Join(clicksOfTwo[:2], "\n")) // the last line has no end, and counts
		w.Close()
		if got, want := p.succeeds().stdout.String(), "{\"ms\":10}\n{\"ms\":20}\n"; got != want {
			t.Errorf("%s: rows %q, want %q", source, got, want)
		}
		if l := p.ledger(); l.RecordsIn != 2 || l.RowsOut != 2 {
			t.Errorf("%s: ledger %+v", source, l)
		}
	}
}

// A run that follows its folder reads what is appended, and files that are added.
func TestFollowsWhatIsAdded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := write(t, filepath.Join(dir, "in", "a.ndjson"), clicksOfTwo[0])
	p := launch{dir: dir}.start(t, "run", "--source", "in", "--select", "ms", "--sink", "out", "--checkpoint-every", "50ms", "--log-format", "json")
	type row struct{ MS int }
	have := func(n int) func() bool {
		return func() bool { return len(lines[row](t, filepath.Join(dir, "out"))) == n }
	}
	p.reaches("the first row", have(1))
	addTo(t, a, clicksOfTwo[1]+"\n"+clicksOfTwo[2][:20])
	p.reaches("an appended row", have(2))
	addTo(t, a, clicksOfTwo[2][20:]+"\n")
	p.reaches("the row whose line was written in two steps", have(3))
	write(t, filepath.Join(dir, "in", "b.ndjson"), clicksOfTwo[3])
	p.reaches("a row of an added file", have(4))
	p.signal(os.Interrupt)
	if l := p.succeeds().ledger(); l.RecordsIn != 4 || l.RowsOut != 4 {
		t.Errorf("ledger %+v", l)
	}
}

// A bounded run that has ended says that nothing is new, or names what is, and how to start again.
func TestFinishedRunAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := write(t, filepath.Join(dir, "in", "a.ndjson"), clicksOfTwo...)
	run := func(flags ...string) *process {
		t.Helper()
		p := launch{dir: dir}.start(t, slices.Concat([]string{"run", "--source", "in", "--until-end", "--time", "at", "--window", "tumbling:1m",
			"--aggregate", "count() as n", "--sink", "out", "--log-format", "json"}, flags)...).succeeds()
		return p
	}
	first := run().ledger()
	files := outputs(t, filepath.Join(dir, "out"))
	again := func(texts ...string) {
		t.Helper()
		p := run()
		p.says(p.stderr.String(), append(texts, "this pipeline has ended", "use a new --name to start again", "millstream checkpoints reset")...)
		if got := p.ledger(); got != first {
			t.Errorf("ledger %+v\nwant   %+v", got, first)
		}
		if got := outputs(t, filepath.Join(dir, "out")); !slices.Equal(got, files) {
			t.Errorf("output changed: %s", got)
		}
	}
	again("nothing is new")
	addTo(t, a, clicksOfTwo[0]+"\n")
	again("what was added since is not read", fmt.Sprintf("a.ndjson: %d bytes appended", len(clicksOfTwo[0])+1))
	write(t, filepath.Join(dir, "in", "b.ndjson"), clicksOfTwo[1])
	again("what was added since is not read", "a.ndjson: ", fmt.Sprintf("b.ndjson: added, %d bytes", len(clicksOfTwo[1])+1))

	if l := run("--name", "second", "--sink", "out2").ledger(); l.RecordsIn != 8 {
		t.Errorf("under a new name: %+v", l)
	}
}

// Everything that flags say the environment can say; flags win.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := write(t, filepath.Join(dir, "in.ndjson"), clicksOfTwo...)
	l := launch{dir: dir, env: []string{"MILLSTREAM_SOURCE=" + in, "MILLSTREAM_SINK=out\n\n  \nstdout:\n", "MILLSTREAM_UNTIL_END=true", "MILLSTREAM_KEY=user.id,page",
		"MILLSTREAM_TIME=at", "MILLSTREAM_WINDOW=tumbling:1h", "MILLSTREAM_AGGREGATE=count() as n", "MILLSTREAM_REQUIRE=ms > 10\nms < 60",
		"MILLSTREAM_CHECKPOINT=state", "MILLSTREAM_NAME=of-environment", "MILLSTREAM_CHECKPOINT_EVERY=50ms", "MILLSTREAM_LOG_FORMAT=text"}}
	p := l.start(t, "run", "--name", "of-flag", "--log-format", "json").succeeds()
	if ledger := p.ledger(); ledger.DeadLettered != 2 || ledger.Contributed != 4 || ledger.RowsOut != 4 {
		t.Errorf("ledger %+v", ledger)
	}
	if rows := lines[map[string]any](t, filepath.Join(dir, "out")); len(rows) != 4 || len(parse[map[string]any](t, p.stdout.String())) != 4 {
		t.Errorf("rows %v, and %s", rows, p.stdout.String())
	}
	for name, want := range map[string]bool{"of-flag": true, "of-environment": false} {
		if _, err := os.Stat(filepath.Join(dir, "state", name)); (err == nil) != want {
			t.Errorf("state under %s: %v", name, err)
		}
	}
	c := l.start(t, "config", "--name", "of-flag", "--dead-letter", "s3://b?sas=hunter2").succeeds()
	for _, line := range []string{"--name MILLSTREAM_NAME of-flag flag", "--window MILLSTREAM_WINDOW tumbling:1h MILLSTREAM_WINDOW",
		"--lease MILLSTREAM_LEASE 15s default", "--until-end MILLSTREAM_UNTIL_END true MILLSTREAM_UNTIL_END",
		"--dead-letter MILLSTREAM_DEAD_LETTER s3://b?sas=[redacted] flag"} {
		if !slices.ContainsFunc(strings.Split(c.stdout.String(), "\n"), func(s string) bool { return strings.Join(strings.Fields(s), " ") == line }) {
			t.Errorf("config does not say %s:\n%s", line, c.stdout.String())
		}
	}
}

// A field that no record has is most likely misspelt.
func TestAbsentFieldWarns(t *testing.T) {
	t.Parallel()
	in := write(t, filepath.Join(t.TempDir(), "in.ndjson"), clicksOfTwo...)
	p := start(t, "run", "--source", in, "--until-end", "--where", `pgae != "/"`, "--sink", "stdout:").succeeds()
	p.says(p.stderr.String(), "level=WARN", "pgae", "--where")
}

// The page for health and status follows the work.
func TestStatusPage(t *testing.T) {
	t.Parallel()
	in := write(t, filepath.Join(t.TempDir(), "in.ndjson"), clicksOfTwo...)
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, "run", "--source", in, "--time", "at", "--window", "tumbling:1m", "--aggregate", "count() as n", "--sink", "stdout:",
		"--checkpoint-every", "50ms", "--http", address)
	get := func(path string) string {
		r, err := http.Get("http://" + address + path)
		if err != nil {
			return ""
		}
		defer r.Body.Close()
		body, _ := io.ReadAll(r.Body) // half a body does not parse
		return string(body)
	}
	p.reaches("health", func() bool { return get("/healthz") == "ok\n" })
	p.reaches("all records on the page", func() bool {
		var r service.StatusReport
		return json.Unmarshal([]byte(get("/status")), &r) == nil && r.Name == "main" && r.RecordsIn == 6 && len(r.Partitions) == 2
	})
	p.signal(os.Interrupt)
	p.succeeds()
}

// A pipe that was read to its end is not the next one: what is in that is new.
func TestSecondPipeIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	args := []string{"run", "--source", "stdin:", "--key", "k", "--time", "t", "--window", "tumbling:1m", "--aggregate", "count() as n", "--sink", "out"}
	for run := range 2 {
		in, err := os.CreateTemp(dir, "in")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(in, `{"k":"a","t":%d}`, 1767225600000+run)
		if _, err := in.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
		p := launch{dir: dir, stdin: in}.start(t, args...)
		if run == 0 {
			p.succeeds()
			continue
		}
		if code := p.wait(); code != 2 || !strings.Contains(p.stderr.String(), "millstream: --source: stdin: a pipe was read to its end under --name main") {
			t.Errorf("exit code %d\n%s", code, p.stderr.String())
		}
	}
}
