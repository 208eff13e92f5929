//go:build unix

package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	fake "github.com/millstream/millstream/fakes/kinesis"
)

// SIGTERM and SIGINT drain: the process saves, releases and exits 0, and the next one goes on at once,
// though the lease is far longer than the test.
func TestSignalDrains(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(8, 12))
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	want := workFolder(t, random, in, 2, 5000)
	run := func(rate string) *process {
		return start(t, slices.Concat([]string{"run", "--source", "file://" + in + rate, "--until-end", "--sink", out,
			"--checkpoint", filepath.Join(dir, "state"), "--checkpoint-every", "100ms", "--lease", "10m"}, workQuery)...)
	}
	var before int64
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGTERM} {
		rows := len(outputs(t, out))
		p := run("?rate=2000")
		p.reaches("rows", func() bool { return len(outputs(t, out)) > rows })
		p.signal(s)
		p.succeeds()
		p.says(p.stderr.String(), "draining: a second signal exits at once")
		l := p.ledger()
		if l.RecordsIn <= before || l.RecordsIn >= want.ledger.RecordsIn {
			t.Errorf("%s: %d records in after %d, of %d: the drain did not save what was read", s, l.RecordsIn, before, want.ledger.RecordsIn)
		}
		before = l.RecordsIn
	}
	p := run("").succeeds()
	if err := want.compare(lines[result](t, out)); err != nil {
		t.Error(err)
	}
	if got := p.ledger(); got != want.ledger {
		t.Errorf("ledger %+v\nwant   %+v", got, want.ledger)
	}
}

// A process that is told to stop before it has anything, or while it waits for another's lease.
func TestSignalWhileNothingIsOwned(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := write(t, filepath.Join(dir, "in.ndjson"), `{"k":"a","v":1,"t":0}`)
	args := slices.Concat([]string{"run", "--source", in, "--sink", "stdout:", "--checkpoint", filepath.Join(dir, "state"), "--lease", "10m"}, workQuery)
	owner := start(t, args...)
	owner.reports(`"claimed","partition":"in.ndjson"`)
	waiting := start(t, args...)
	waiting.reaches("its member file", func() bool {
		members, _ := filepath.Glob(filepath.Join(dir, "state", "main", "members", "*"))
		return len(members) == 2
	})
	waiting.signal(syscall.SIGTERM)
	waiting.succeeds()
	waiting.ledger()
	owner.signal(syscall.SIGTERM)
	owner.succeeds()
}

// A process that is told to stop while its store does not answer stops; left alone it gives up, and
// names the store.
func TestStoreThatHangs(t *testing.T) {
	t.Parallel()
	asked, done := make(chan struct{}, 100), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-done
	}))
	t.Cleanup(func() { close(done); server.Close() })
	in := write(t, filepath.Join(t.TempDir(), "in.ndjson"), `{"k":"a"}`)
	args := []string{"run", "--source", in, "--sink", "stdout:", "--name", "n", "--log-format", "json",
		"--checkpoint", "s3://b/p?region=us-east-1&endpoint=" + server.URL}
	told := start(t, args...)
	select {
	case <-asked:
	case <-told.exited:
		t.Fatal(told.stderr.String())
	}
	told.signal(syscall.SIGTERM)
	told.succeeds()
	told.says(told.stderr.String(), "stopped before anything was read")
	if !testing.Short() {
		start(t, args...).fails(1, "--checkpoint: s3://b/p: cannot be written: ", "deadline exceeded")
	}
}

// A second signal exits at once, with exit code 1, though a sink hangs; what hung is delivered by the
// next process.
func TestSecondSignalExitsAtOnce(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			server, sink := serveKinesis(t, 1)
			hang := server.Inject(fake.Fault{Operation: "PutRecords", Times: -1, Delay: time.Hour})
			dir := t.TempDir()
			var in []string
			for i := range 100 {
				in = append(in, fmt.Sprintf(`{"k":"k","v":1,"t":%d}`, workStart+i*1000))
			}
			args := slices.Concat([]string{"run", "--source", write(t, filepath.Join(dir, "in.ndjson"), in...), "--until-end", "--sink", sink,
				"--checkpoint", filepath.Join(dir, "state"), "--checkpoint-every", "50ms", "--lease", "1s"}, workQuery)
			p := start(t, args...)
			p.reaches("a call of the sink", func() bool { return hang.Hits() > 0 })
			p.signal(s)
			p.reports("draining")
			select {
			case <-p.exited:
				t.Fatalf("exited though its sink hangs\n%s", p.stderr.String())
			default:
			}
			p.signal(s)
			if code := p.wait(); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			if said := p.stderr.String(); !strings.HasSuffix(said, "second signal: exiting at once; what was not saved is read again\n") {
				t.Errorf("the last line is another:\n%s", said)
			}
			hang.Stop()

			want := newOracle()
			want.partition(in, 0)
			if got := start(t, args...).succeeds().ledger(); got != want.ledger {
				t.Errorf("ledger %+v\nwant   %+v", got, want.ledger)
			}
			if err := want.compare(published(t, server)); err != nil {
				t.Error(err)
			}
		})
	}
}

// published returns the rows on the stream, each _id once, as a reader of an at-least-once sink must.
func published(t *testing.T, server *fake.Server) []result {
	t.Helper()
	records, err := server.UserRecords(workStream)
	if err != nil {
		t.Fatal(err)
	}
	var bodies [][]byte
	for _, r := range records {
		bodies = append(bodies, r.Data)
	}
	return byID(t, bodies)
}

// byID drops the copies of rows that came again.
func byID(t *testing.T, bodies [][]byte) (rows []result) {
	t.Helper()
	seen := map[string]bool{}
	for _, body := range bodies {
		for _, row := range parse[struct {
			ID string `json:"_id"`
			result
		}](t, string(body)) {
			if row.ID == "" {
				t.Fatalf("row without _id: %s", body)
			}
			if !seen[row.ID] {
				seen[row.ID] = true
				rows = append(rows, row.result)
			}
		}
	}
	return rows
}
