package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millstream/millstream/stream"
	"github.com/millstream/millstream/stream/streamtest"
)

// ledger is that of events.ndjson, by hand: the handler would have counted four events, and failed on
// the line that is not JSON, with the whole batch.
const ledger = "records_in=7 contributed=4 filtered=2 late=0 dead_lettered=1 rows_out=4"

// lines returns the file's events that have a timestamp.
func lines(t *testing.T) (all, kept []string) {
	t.Helper()
	data, err := os.ReadFile("events.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	all = strings.Split(strings.TrimSpace(string(data)), "\n")
	for _, line := range all {
		if strings.Contains(line, `"timestamp":`) && !strings.Contains(line, `"timestamp":null`) {
			kept = append(kept, line)
		}
	}
	return all, kept
}

func same(t *testing.T, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestGo runs the pipeline on Go types.
func TestGo(t *testing.T) {
	all, kept := lines(t)
	rows, counted := streamtest.Feed(filter(), streamtest.Lines(all...)...)
	var got []string
	for _, r := range rows {
		got = append(got, string(r.Data))
	}
	same(t, got, kept)
	if l := (stream.Ledger{RecordsIn: 7, Contributed: 4, Filtered: 2, DeadLettered: 1, RowsOut: 4}); counted != l {
		t.Errorf("ledger %+v, want %+v", counted, l)
	}
}

// TestKilledEverywhere kills the process at every step and compares.
func TestKilledEverywhere(t *testing.T) {
	all, _ := lines(t)
	streamtest.KillEverywhere(t, filter(), streamtest.Lines(all...)...)
}

// TestFlags runs the same as flags alone, and TestProgram the program, as README.md has them.
func TestFlags(t *testing.T) {
	run(t, "../../cmd/millstream", "run", "--where", "timestamp != nil")
}

func TestProgram(t *testing.T) { run(t, ".") }

func run(t *testing.T, pkg string, args ...string) {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "program")
	if out, err := exec.Command("go", "build", "-o", bin, pkg).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	cmd := exec.Command(bin, append(args, "--source", "events.ndjson", "--until-end",
		"--sink", "stdout:", "--checkpoint", "mem:", "--dead-letter", filepath.Join(dir, "dead"), "--http=")...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	_, kept := lines(t)
	same(t, strings.Split(strings.TrimSpace(string(out)), "\n"), kept)
	if !strings.Contains(stderr.String(), ledger) {
		t.Errorf("ledger: %s", &stderr)
	}
}
