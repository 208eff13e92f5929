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
var want = map[string]string{
	`"1"`: `{"id":"1","name":"lamp","timestamp":"2026-01-01T10:00:00Z","value":1998.9999999999998}`, // as the handler's float
	`"2"`: `{"id":"2","name":"desk, oak","timestamp":"2026-01-01T10:00:05Z","value":25000}`,
	`"5"`: `{"id":"5","timestamp":"2026-01-01T10:01:00Z","value":350,"category":"TOYS"}`,
	`6`:   `{"id":6,"timestamp":"2026-01-01T10:01:02Z","value":1200,"category":"UNKNOWN"}`,
	`"7"`: `{"id":"7","timestamp":"2026-01-01T10:02:00Z","value":50,"category":"GARDEN"}`,
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
	got := make(map[string]string)
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
			if _, twice := got[string(row.ID)]; twice {
				t.Errorf("%s comes twice", row.ID)
			}
			got[string(row.ID)] = strings.TrimSpace(string(line))
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if !strings.Contains(stderr.String(), "records_in=10 contributed=5 filtered=0 late=0 dead_lettered=5 rows_out=5") ||
		!strings.Contains(stderr.String(), "1 row does not fit its header") || !strings.Contains(stderr.String(), "1 unknown kind of file") {
		t.Errorf("stderr: %s", &stderr)
	}
}
