package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// want is what the handlers make of the files, but for the records that they fail on.
var want = map[string]Row{
	"1": {ID: "1", Name: "lamp", Timestamp: "2026-01-01T10:00:00Z", Value: 1998.9999999999998}, // as the handler's float
	"2": {ID: "2", Name: "desk, oak", Timestamp: "2026-01-01T10:00:05Z", Value: 25000},
	"5": {ID: "5", Timestamp: "2026-01-01T10:01:00Z", Value: 350, Category: "TOYS"},
	"6": {ID: "6", Timestamp: "2026-01-01T10:01:02Z", Value: 1200, Category: "UNKNOWN"},
	"7": {ID: "7", Timestamp: "2026-01-01T10:02:00Z", Value: 50, Category: "GARDEN"},
}

// The command that README.md names converts every file, and says what it could not use.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "files")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	cmd := exec.Command(bin, "--source", "raw?format=auto", "--until-end", "--sink", filepath.Join(dir, "processed"), "--checkpoint", "mem:",
		"--dead-letter", filepath.Join(dir, "dead"), "--http=")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	got := make(map[string]Row)
	files, err := filepath.Glob(filepath.Join(dir, "processed", "*.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(data) {
			var row Row
			if err := json.Unmarshal(line, &row); err != nil {
				t.Fatal(err)
			}
			if _, twice := got[row.ID]; twice {
				t.Errorf("%s comes twice", row.ID)
			}
			got[row.ID] = row
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if !strings.Contains(stderr.String(), "records_in=9 contributed=5 filtered=0 late=0 dead_lettered=4 rows_out=5") ||
		!strings.Contains(stderr.String(), "1 row does not fit its header") || !strings.Contains(stderr.String(), "1 unknown kind of file") {
		t.Errorf("stderr: %s", &stderr)
	}
}
