package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// What could not be used is counted by reason, shown without harm to a terminal, and sent again as it was.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bad := []string{"not json", `{"k":"b"}`, "\x1b[31m{\"k\":\"c\"}", `{"k":"d","t":1,"v":"x"}`}
	write(t, filepath.Join(dir, "in.ndjson"), append([]string{`{"k":"a","t":1,"v":2}`}, bad...)...)
	run := []string{"run", "--source", "in.ndjson", "--until-end", "--key", "k", "--time", "t", "--window", "tumbling:1m", "--aggregate", "sum(v) as s",
		"--sink", "stdout:", "--http", ""}
	in := func(args ...string) *process { return launch{dir: dir}.start(t, args...) }
	in(run...).succeeds()

	p := in("dead-letters", "list").succeeds()
	p.says(p.stdout.String(), "2      undecodable", "1      no event time", "in.ndjson", "PARTITIONS")
	p = in("dead-letters", "list", "--reason", "no event time").succeeds()
	if out := p.stdout.String(); strings.Contains(out, "undecodable") {
		t.Error(out)
	}
	p = in("dead-letters", "show").succeeds()
	p.says(p.stdout.String(), `(8 bytes) not json`, `\u001b[31m{"k":"c"}`, "at 41")
	if strings.Contains(p.stdout.String(), "\x1b") {
		t.Error("a record's bytes reach the terminal")
	}
	p = in("dead-letters", "show", "--limit", "1").succeeds()
	p.says(p.stdout.String(), "… and 3 more")
	if got := in("dead-letters", "replay").succeeds().stdout.String(); got != strings.Join(bad, "\n")+"\n" {
		t.Errorf("replayed: %q", got)
	}

	server, stream := serveKinesis(t, 2)
	p = in("dead-letters", "replay", "--to", stream, "--dry-run").succeeds()
	p.says(p.stderr.String(), "4 records of ", "would go to kinesis://")
	sent := func() (data []string) {
		records, err := server.UserRecords(workStream)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			data = append(data, string(r.Data))
		}
		slices.Sort(data)
		return data
	}
	if got := sent(); len(got) > 0 {
		t.Errorf("a dry run has sent %q", got)
	}
	began := time.Now()
	in("dead-letters", "replay", "--to", stream, "--rate", "2").succeeds()
	want := slices.Sorted(slices.Values(bad))
	if got := sent(); !slices.Equal(got, want) || time.Since(began) < time.Second {
		t.Errorf("sent in %s: %q", time.Since(began), got)
	}
	in("dead-letters", "replay", "--to", "fixed", "--reason", "no event time").succeeds()
	files, _ := filepath.Glob(filepath.Join(dir, "fixed", "*.ndjson"))
	if len(files) != 1 {
		t.Fatalf("replayed to a folder: %s", files)
	}
	if data, err := os.ReadFile(files[0]); err != nil || string(data) != `{"k":"b"}`+"\n" {
		t.Errorf("%q, %v", data, err)
	}
	old := time.Now().Add(-3 * time.Hour)
	letters, _ := filepath.Glob(filepath.Join(dir, "millstream-state", "main", "dead-letter", "*"))
	for _, f := range letters {
		if err := os.Chtimes(f, old, old); err != nil {
			t.Fatal(err)
		}
	}
	p = in("dead-letters", "list", "--since", "2h").succeeds()
	p.says(p.stdout.String(), "no dead letters in ")
	p = in("dead-letters", "list", "--since", old.Add(-time.Minute).Format(time.RFC3339)).succeeds()
	p.says(p.stdout.String(), "undecodable")
}

func TestDeadLettersRefused(t *testing.T) {
	t.Parallel()
	for _, c := range [][]string{
		{"--checkpoint: ", "list"}, {"--dead-letter: ", "list", "--dead-letter", "kinesis://x"}, {"--since: ", "list", "--since", "soon"},
		{"--limit: ", "show", "--limit", "-1", "--dead-letter", "."}, {"--rate: ", "replay", "--rate", "-1", "--dead-letter", "."},
		{"--to: ", "replay", "--to", "redis://x", "--dead-letter", "."}, {"did you mean", "lst"},
	} {
		launch{dir: t.TempDir()}.start(t, append([]string{"dead-letters"}, c[1:]...)...).fails(2, c[0])
	}
}
