package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millstream/millstream/stream"
	"github.com/millstream/millstream/stream/streamtest"
)

// want is what the handler would make of records.ndjson in one invocation for each minute.
var want = map[string]Total{
	"a 2026-01-01T10:00:01Z": {"a", 3, 8.5, "2026-01-01T10:00:01Z", "2026-01-01T10:00:59Z"},
	"a 2026-01-01T10:01:00Z": {"a", 1, 10, "2026-01-01T10:01:00Z", "2026-01-01T10:01:00Z"},
	"b 2026-01-01T10:00:07Z": {"b", 1, 2.25, "2026-01-01T10:00:07Z", "2026-01-01T10:00:07Z"},
}

func check(t *testing.T, rows [][]byte) {
	t.Helper()
	got := make(map[string]Total)
	for _, data := range rows {
		var row Total
		if err := json.Unmarshal(data, &row); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		got[row.ID+" "+row.MinTimestamp] = row
	}
	if !maps.Equal(got, want) || len(rows) != len(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestGo runs the pipeline on Go types. The records without an id or a value are dead-lettered; the
// handler would have failed on them, and with them the batch.
func TestGo(t *testing.T) {
	data, err := os.ReadFile("records.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	p := totals()
	p.OutOfOrder = stream.Unbounded
	rows, ledger := streamtest.Feed(p, streamtest.Lines(strings.Split(strings.TrimSpace(string(data)), "\n")...)...)
	var out [][]byte
	for _, r := range rows {
		out = append(out, r.Data)
	}
	check(t, out)
	if ledger.DeadLettered != 2 || ledger.Contributed != 5 {
		t.Errorf("ledger %+v", ledger)
	}
}

// TestFlags runs the same as flags alone, as README.md has it.
func TestFlags(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "millstream")
	if out, err := exec.Command("go", "build", "-o", bin, "../../cmd/millstream").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	cmd := exec.Command(bin, "run", "--source", "records.ndjson", "--until-end", "--key", "id", "--time", "timestamp",
		"--require", "value != nil", "--window", "tumbling:1m",
		"--aggregate", "count() as count, sum(value) as total_value, min(timestamp) as min_timestamp, max(timestamp) as max_timestamp",
		"--sink", "stdout:", "--checkpoint", "mem:", "--dead-letter", filepath.Join(dir, "dead"), "--http=")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	check(t, slices.Collect(bytes.Lines(out)))
	if !strings.Contains(stderr.String(), "records_in=7 contributed=5 filtered=0 late=0 dead_lettered=2 rows_out=3") {
		t.Errorf("ledger: %s", &stderr)
	}
}
