package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	fake "github.com/millstream/millstream/fakes/kinesis"
)

// closedPort is an address at which nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

// A setting that cannot work is one line that names it and the fix, exit code 2, and no file anywhere.
// What cannot be reached may work with the same settings tomorrow: exit code 1.
func TestSettingsAreRefused(t *testing.T) {
	t.Parallel()
	window := []string{"--key", "k", "--time", "t", "--window", "tumbling:1m", "--aggregate", "count() as n"}
	query := func(args ...string) []string {
		return slices.Concat([]string{"run", "--source", "in.ndjson", "--sink", "out"}, window, args)
	}
	run := func(args ...string) []string { return append([]string{"run"}, args...) }
	nowhere := closedPort(t)
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	taken := listener.Addr().String()
	for _, c := range []struct {
		name string
		args []string
		env  string
		want string // after "millstream: "; … stands for anything
	}{
		{"unknown flag", run("--sorce", "x"), "", "--sorce: no such flag: did you mean --source?"},
		{"unknown flag, nothing near", run("--frobnicate"), "", "--frobnicate: no such flag"},
		{"unknown command", []string{"rnu"}, "", "millstream rnu: no such command: did you mean run?"},
		{"unknown command below", []string{"checkpoints", "lst"}, "", "millstream checkpoints lst: no such command: did you mean list?"},
		{"unknown shell", []string{"completion", "bsh"}, "", "millstream completion bsh: no such command: did you mean bash?"},
		{"unknown variable", query(), "MILLSTREAM_SINKS=x", "MILLSTREAM_SINKS: no such setting: did you mean MILLSTREAM_SINK?"},
		{"bad variable", query(), "MILLSTREAM_LEASE=soon", `MILLSTREAM_LEASE: "soon" is not a duration: write it like 500ms, 10s or 1m30s`},
		{"argument", query("more"), "", `run: …"more"…`},
		{"no value", run("--sink"), "", "--sink: needs a value"},
		{"no source", run(), "", "--source: is missing: give a URL or a path"},
		{"no sink", run("--source", "in.ndjson"), "", "--sink: is missing: results would go nowhere. Try --sink stdout: or --sink ./out"},
		{"no such file", run("--source", "nothing.ndjson", "--sink", "out"), "", "--source: …/nothing.ndjson: no such file or folder"},
		{"unknown source", run("--source", "kafka://x", "--sink", "out"), "", "--source: kafka://x: unknown kind kafka: it is one of azblob, eventhubs, file, gs, kinesis, pubsub, s3, stdin"},
		{"misspelt source", run("--source", "kinessis://x", "--sink", "out"), "", "--source: kinessis://x: unknown kind kinessis: did you mean kinesis?"},
		{"source's parameter", run("--source", "kinesis://x?regin=y", "--sink", "out"), "", "--source: kinesis://x?regin=y: has no parameter regin: did you mean region?"},
		{"file's parameter", run("--source", "file:///x?rat=1", "--sink", "out"), "", "--source: file:///x?rat=1: unknown parameter rat; a file source has only rate"},
		{"unknown sink", run("--source", "in.ndjson", "--sink", "sql://x"), "", "--sink: sql://x: unknown kind sql: …"},
		{"sink without a hub", run("--source", "in.ndjson", "--sink", "eventhubs://plant"), "", "--sink: eventhubs://plant: names no event hub: want eventhubs://NAMESPACE/HUB"},
		{"sink is a file", run("--source", "in.ndjson", "--sink", "in.ndjson"), "", "--sink: …/in.ndjson: a file is where a folder should be…"},
		{"sink is the source", run("--source", "in", "--sink", "out", "--sink", "./in"), "", "--sink: ./in: is the folder that --source reads: …"},
		{"sink's URL is the source", run("--source", "in/", "--sink", "file://$DIR/in"), "", "--sink: file://…/in: is the folder that --source reads: …"},
		{"dead letter is the source", run("--source", "in", "--sink", "out", "--dead-letter", "out/../in"), "", "--dead-letter: out/../in: is the folder that --source reads: …"},
		{"empty folder", run("--source", "empty", "--until-end", "--sink", "out"), "", "--source: empty: the folder has no *.ndjson files…"},
		{"sink's format", run("--source", "in.ndjson", "--sink", "out?format=xml"), "", "--sink: out?format=xml: …"},
		{"sink's parameter", run("--source", "in.ndjson", "--sink", "out?formt=csv"), "", "--sink: out?formt=csv: has no parameter formt: did you mean format?"},
		{"bad duration", query("--checkpoint-every", "5"), "", `--checkpoint-every: "5" is not a duration: write it like 500ms, 10s or 1m30s`},
		{"no duration", query("--idle-after", "0s"), "", "--idle-after: 0s: must be more than nothing"},
		{"short lease", query("--lease", "10ms"), "", "--lease: 10ms: give it a second at least, or a slow disk loses it"},
		{"negative bound", query("--out-of-order", "-1s"), "", "--out-of-order: -1s: must not be negative"},
		{"no checkpoint kept", query("--keep", "0"), "", "--keep: 0: keep one checkpoint at least"},
		{"not a number", query("--keep", "many"), "", `--keep: "many" is not valid: …`},
		{"window's duration", query("--window", "tumbling:1x"), "", `--window: …"tumbling:1x"…`},
		{"window's kind", query("--window", "rolling:1m"), "", `--window: …"rolling:1m": want tumbling:1m, hopping:1m/10s or session:30s`},
		{"hop above size", query("--window", "hopping:1m/7m"), "", "--window: …hopping:1m/7m: the hop is larger than the size…"},
		{"aggregate alone", run("--source", "in.ndjson", "--sink", "out", "--aggregate", "count()"), "", "--aggregate: there is no window…add --window…"},
		{"window alone", run("--source", "in.ndjson", "--sink", "out", "--time", "t", "--window", "tumbling:1m"), "", "--window: there is nothing to aggregate…add --aggregate…"},
		{"unknown aggregate", query("--aggregate", "cuont()"), "", `--aggregate: …unknown aggregate "cuont"…`},
		{"open bracket", query("--aggregate", "sum(v"), "", "--aggregate: …not closed…"},
		{"bad expression", query("--where", "v >"), "", `--where: "v >": unexpected…`},
		{"clash of columns", query("--key", "a.b,a_b"), "", "--key: a.b and a_b are both the column a_b…"},
		{"late", query("--late", "frop"), "", `--late: "frop": it is dead-letter or drop…`},
		{"from", query("--from", "yesterday"), "", `--from: "yesterday": write a time as 2026-01-31T15:04:05Z`},
		{"from after until", query("--from", "2026-01-02T00:00:00Z", "--until", "2026-01-01T00:00:00Z"), "", "--from: 2026-01-02T00:00:00Z is not before --until 2026-01-01T00:00:00Z: nothing would be read"},
		{"until without time", run("--source", "in.ndjson", "--sink", "out", "--until", "2026-01-01T00:00:00Z"), "", "--time: is missing: --from and --until look at the event time"},
		{"log format", query("--log-format", "yaml"), "", `--log-format: "yaml": it is text or json`},
		{"address", query("--http", "127.0.0.1:99999"), "", "--http: …99999…"},
		{"address that is taken", query("--http", taken), "", "--http: …address already in use: choose another address, or '' for none"},
		{"name with a bucket", query("--checkpoint", "s3://b/p?region=us-east-1"), "", "--name: is required with a bucket: instances with the same name share the work"},
		{"bad name", query("--name", "My Pipe"), "", `--name: "My Pipe": use lower-case letters, digits, dots, dashes and underscores`},
		{"store out of reach", query("--name", "n", "--checkpoint", "s3://b/p?region=us-east-1&endpoint="+nowhere), "", "--checkpoint: s3://b/p: cannot be written: …cannot reach " + nowhere + "…connection refused"},
		{"sink out of reach", query("--sink", "s3://b/p?region=us-east-1&endpoint="+nowhere), "", "--sink: s3://b/p: cannot be written: …cannot reach " + nowhere + "…connection refused"},
		{"stream out of reach", run("--source", "kinesis://s?region=us-east-1&endpoint="+nowhere, "--sink", "out"), "", "--source: …stream s…connection refused…"},
		{"demo too short", []string{"demo", "--for", "1s"}, "", "--for: give the demo 6s at least…"},
		{"demo of something else", []string{"demo", "--source", "kafka"}, "", "--source: kafka: the demo has kinesis, pubsub and eventhubs"},
		{"demo with node out of reach", []string{"demo", "--source", "eventhubs"}, "PATH=/nowhere", "--source eventhubs: event hubs stand-in: needs node 18 or later, which is not in PATH (without --source the demo needs nothing)"},
		{"event hub out of reach", run("--source", "eventhubs://n/h?endpoint="+nowhere, "--sink", "out"), "", "--source: event hubs: n/h: …connection refused…"},
		{"no entry number", []string{"checkpoints", "show", "p", "x"}, "", "NUMBER: x is not the number of an entry"},
		{"no state folder", []string{"checkpoints", "list", "--checkpoint", "nowhere"}, "", "--checkpoint: …nowhere…no such file or directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, filepath.Join(dir, "in.ndjson"), `{"k":"a","v":1,"t":1767225600000}`)
			write(t, filepath.Join(dir, "in", "a.ndjson"), `{"k":"a","v":1,"t":1767225600000}`)
			if err := errors.Join(os.Mkdir(filepath.Join(dir, "empty"), 0o755), os.Mkdir(filepath.Join(dir, "out"), 0o755)); err != nil {
				t.Fatal(err)
			}
			args := slices.Clone(c.args)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "$DIR", dir)
			}
			p := launch{dir: dir, env: []string{c.env, "AWS_MAX_ATTEMPTS=1"}}.start(t, args...)
			code := 2
			if strings.HasSuffix(c.name, "out of reach") {
				code = 1
			}
			p.fails(code)
			said := strings.TrimPrefix(strings.TrimSpace(p.stderr.String()), "millstream: ")
			if !matches(said, c.want) {
				t.Errorf("says  %s\nwant  %s", said, c.want)
			}
			if files := outputs(t, filepath.Join(dir, "out")); len(files) != 0 {
				t.Errorf("left %s", files)
			}
		})
	}
}

// matches compares with a text in which … stands for anything.
func matches(said, want string) bool {
	parts := strings.Split(want, "…")
	if !strings.HasPrefix(said, parts[0]) {
		return false
	}
	said = said[len(parts[0]):]
	for i, part := range parts[1:] {
		if i == len(parts)-2 && part != "" {
			return strings.HasSuffix(said, part)
		}
		n := strings.Index(said, part)
		if n < 0 {
			return false
		}
		said = said[n+len(part):]
	}
	return len(parts) > 1 || said == ""
}

// What a stream answers stops the start with its cause.
func TestStreamsAreRefused(t *testing.T) {
	t.Parallel()
	_, source := serveKinesis(t, 1)
	endpoint := source[strings.Index(source, "?"):]
	expired, source2 := serveKinesis(t, 1)
	expired.Inject(fake.Fault{Times: -1, Code: "ExpiredTokenException", Message: "The security token included in the request is expired"})
	query := []string{"--key", "k", "--time", "t", "--window", "tumbling:1m", "--aggregate", "count() as n"}
	for _, c := range []struct {
		name, source, sink, env string
		texts                   []string
	}{
		{"missing source", "kinesis://none" + endpoint, "out", "", []string{"--source: ", "stream none does not exist in us-east-1"}},
		{"missing sink", "in.ndjson", "kinesis://none" + endpoint, "", []string{"--sink: ", "stream none does not exist in us-east-1"}},
		{"expired source", source2, "out", "", []string{"--source: ", "credentials expired: renew them"}},
		{"expired sink", "in.ndjson", source2, "", []string{"--sink: ", "credentials expired: renew them"}},
		{"default checkpoint in Kubernetes", source, "out", "KUBERNETES_SERVICE_HOST=10.0.0.1", []string{"--checkpoint: the default is a folder of this container", "s3://"}},
		{"default checkpoint on ECS", source, "out", "ECS_CONTAINER_METADATA_URI_V4=http://169.254.170.2", []string{"--checkpoint: the default is a folder of this container"}},
		{"default checkpoint in our image", source, "out", "MILLSTREAM_IMAGE=1", []string{"--checkpoint: the default is a folder of this container"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, filepath.Join(dir, "in.ndjson"), `{"k":"a","v":1,"t":1767225600000}`)
			l := launch{dir: dir, env: []string{c.env}}
			code := 2
			if strings.HasPrefix(c.name, "expired") { // new credentials come without new settings
				code = 1
			}
			l.start(t, slices.Concat([]string{"run", "--source", c.source, "--sink", c.sink}, query)...).fails(code, c.texts...)
			if _, err := os.Stat(filepath.Join(dir, "millstream-state", "main")); err == nil {
				t.Error("left state of a pipeline")
			}
		})
	}
	t.Run("a checkpoint that was named is fine in a container", func(t *testing.T) {
		t.Parallel()
		l := launch{env: []string{"KUBERNETES_SERVICE_HOST=10.0.0.1"}}
		l.start(t, slices.Concat([]string{"run", "--source", source, "--sink", "out", "--until-end", "--checkpoint", "state"}, query)...).succeeds()
	})
}

// serveS3 starts a bucket of our own, which may keep the conditions of writes or not, and returns the
// URL of each prefix.
func serveS3(t *testing.T, conditions bool) (gofakes3.Backend, func(prefix string) string) {
	t.Helper()
	return serveS3Through(t, func(store http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !conditions {
				r.Header.Del("If-None-Match")
				r.Header.Del("If-Match")
			}
			store.ServeHTTP(w, r)
		})
	})
}

// serveS3Through puts something between the clients and the store.
func serveS3Through(t *testing.T, between func(store http.Handler) http.Handler) (gofakes3.Backend, func(prefix string) string) {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("b"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(between(gofakes3.New(backend, gofakes3.WithoutVersioning()).Server()))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // it complains about clients that were killed
	server.Start()
	t.Cleanup(server.Close)
	return backend, func(prefix string) string { return "s3://b/" + prefix + "?region=us-east-1&endpoint=" + server.URL }
}

// refuse is what an object store says when it will not.
func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>injected</Message></Error>", code)
}

// A store that creates an object and says that it failed makes the client try again, and meet its own
// object: that is no reason not to start.
func TestStoreWhoseAnswersAreLost(t *testing.T) {
	t.Parallel()
	for _, place := range []string{"state", "out"} {
		var lost atomic.Int64
		_, at := serveS3Through(t, func(store http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPut && strings.Contains(r.URL.Path, place+"/_check-") && lost.Add(1) == 1 {
					store.ServeHTTP(httptest.NewRecorder(), r)
					refuse(w, http.StatusInternalServerError, "InternalError")
					return
				}
				store.ServeHTTP(w, r)
			})
		})
		in := write(t, filepath.Join(t.TempDir(), "in.ndjson"), `{"k":"a"}`)
		start(t, "check", "--name", "n", "--source", in, "--sink", at("out"), "--checkpoint", at("state"), "--select", "*").succeeds()
		if lost.Load() == 0 {
			t.Errorf("%s: no answer was lost", place)
		}
	}
}

// A store that ignores the condition of a write is refused; the same store with its conditions kept
// runs a pipeline to its end.
func TestStoreThatIgnoresConditionalWrites(t *testing.T) {
	t.Parallel()
	for _, ignores := range []bool{true, false} {
		_, at := serveS3(t, !ignores)
		dir := t.TempDir()
		write(t, filepath.Join(dir, "in.ndjson"), `{"k":"a","v":1,"t":1767225600000}`, `{"k":"a","v":2,"t":1767225600000}`)
		place := at("p")
		args := []string{"--source", "in.ndjson", "--sink", "out", "--until-end", "--name", "n", "--key", "k", "--time", "t",
			"--window", "tumbling:1m", "--aggregate", "count() as n", "--checkpoint", place}
		for _, command := range []string{"check", "run"} {
			p := launch{dir: dir}.start(t, append([]string{command}, args...)...)
			if ignores {
				p.fails(2, "--checkpoint: s3://b/p: ", "this store ignores conditional writes", "use another one")
				continue
			}
			p.succeeds()
		}
		// check looks at a sink in the same way: there a name must be written once, too.
		sink := launch{dir: dir}.start(t, "check", "--source", "in.ndjson", "--sink", place, "--checkpoint", "state", "--select", "*")
		if ignores {
			sink.fails(2, "--sink: s3://b/p: ", "this store ignores conditional writes")
		} else {
			sink.succeeds()
		}
		if got, want := len(outputs(t, filepath.Join(dir, "out"))), map[bool]int{true: 0, false: 1}[ignores]; got != want {
			t.Errorf("ignores %t: %d files, want %d", ignores, got, want)
		}
	}
}

// A pipeline whose meaning has changed does not go on from another's state; what has no meaning for
// the totals may change.
func TestChangedPlanIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := write(t, filepath.Join(dir, "in.ndjson"), `{"k":"a","j":1,"v":1,"t":1767225600000,"s":1767225600000}`)
	other := write(t, filepath.Join(dir, "other.ndjson"), `{"k":"a"}`)
	base := map[string]string{"--source": in, "--key": "k", "--time": "t", "--window": "tumbling:1m", "--aggregate": "count() as n",
		"--sink": "out", "--checkpoint-every": "50ms", "--lease": "1s"}
	command := func(flag, value string) []string {
		args := []string{"run", "--until-end"}
		for f, v := range base {
			if f == flag {
				v = value
			}
			args = append(args, f+"="+v)
		}
		if _, known := base[flag]; !known && flag != "" {
			args = append(args, flag+"="+value)
		}
		return args
	}
	first := launch{dir: dir}.start(t, slices.DeleteFunc(command("", ""), func(a string) bool { return a == "--until-end" })...)
	first.reaches("a checkpoint", func() bool {
		entries, _ := filepath.Glob(filepath.Join(dir, "millstream-state", "main", "log", "in.ndjson", "*"))
		return len(entries) >= 2
	})
	first.kill()

	fix := ": use a new --name, set it back, or checkpoints reset"
	for _, c := range []struct{ flag, value, want string }{
		{"--window", "tumbling:5m", "--window changed (1m → 5m) since entry "},
		{"--window", "hopping:1m/10s", "--window changed (tumbling:1m → hopping:1m/10s) since entry "},
		{"--key", "j", "--key changed (k → j) since entry "},
		{"--key", "k,j", "--key changed (k → k,j) since entry "},
		{"--time", "s", "--time changed (t → s) since entry "},
		{"--aggregate", "count() as n, sum(v) as total", "--aggregate changed (count() as n → count() as n, sum(v) as total) since entry "},
		{"--source", other, "--source changed (file:" + in + " → file:" + other + ") since entry "},
	} {
		for _, verb := range []string{"run", "check"} {
			args := command(c.flag, c.value)
			args[0] = verb
			launch{dir: dir}.start(t, args...).fails(2, "millstream: "+c.want, fix)
		}
	}
	p := launch{dir: dir}.start(t, append(command("--checkpoint-every", "1s"), "--sink=out2", "--where=v == 1", "--log-format=json", "--idle-after=5s")...)
	if l := p.succeeds().ledger(); l.RecordsIn != 1 || l.Contributed != 1 {
		t.Errorf("ledger %+v", l)
	}
}
