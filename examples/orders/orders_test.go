package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millstream/millstream/examples/orders/pipeline"
	"github.com/millstream/millstream/stream"
	"github.com/millstream/millstream/stream/streamtest"
)

// want is the totals of orders.ndjson, by hand.
var want = []string{
	`{"customer":"ann","minute":"2026-01-01T10:00:00Z","orders":2,"cents":2000,"largest":1250}`,
	`{"customer":"ann","minute":"2026-01-01T10:01:00Z","orders":1,"cents":100,"largest":100}`,
	`{"customer":"bob","minute":"2026-01-01T10:00:00Z","orders":1,"cents":300,"largest":300}`,
	`{"customer":"eve","minute":"2026-01-01T10:02:00Z","orders":1,"cents":4200,"largest":4200}`,
}

func records(t *testing.T) []stream.Record {
	data, err := os.ReadFile("orders.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	return streamtest.Lines(strings.Split(strings.TrimSpace(string(data)), "\n")...)
}

func TestTotals(t *testing.T) {
	p := pipeline.Totals()
	p.OutOfOrder = stream.Unbounded
	rows, ledger := streamtest.Feed(p, records(t)...)
	var got []string
	for _, r := range rows {
		got = append(got, string(r.Data))
	}
	same(t, got)
	if l := (stream.Ledger{RecordsIn: 7, Contributed: 5, DeadLettered: 2, RowsOut: 4}); ledger != l {
		t.Errorf("ledger %+v, want %+v", ledger, l)
	}
}

// TestKilledEverywhere kills the process at every step and compares.
func TestKilledEverywhere(t *testing.T) {
	p := pipeline.Totals()
	p.OutOfOrder = stream.Unbounded
	streamtest.KillEverywhere(t, p, records(t)...)
}

// TestPrograms runs both programs as a user would.
func TestPrograms(t *testing.T) {
	dir := t.TempDir()
	t.Run("service", func(t *testing.T) {
		out := program(t, ".", "--source", "orders.ndjson", "--until-end", "--sink", "stdout:", "--http=",
			"--checkpoint", "mem:", "--dead-letter", filepath.Join(dir, "dead"))
		same(t, strings.Split(strings.TrimSpace(out), "\n"))
	})
	t.Run("router", func(t *testing.T) {
		program(t, "./router", "orders.ndjson", filepath.Join(dir, "state"), filepath.Join(dir, "out"))
		names, _ := filepath.Glob(filepath.Join(dir, "out", "*.ndjson"))
		var lines []string
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, strings.Split(strings.TrimSpace(string(data)), "\n")...)
		}
		same(t, lines)
	})
}

// program builds and runs a package, and returns what it wrote to standard output.
func program(t *testing.T, pkg string, args ...string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "program")
	if out, err := exec.Command("go", "build", "-o", bin, pkg).CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
	cmd := exec.Command(bin, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", pkg, err, &stderr)
	}
	return string(out)
}

func same(t *testing.T, got []string) {
	t.Helper()
	got = slices.Sorted(slices.Values(got))
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
