package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// explain and the list, of a pipeline that runs, that was killed, that is stuck on its sink, and that has
// ended: from what is in the folder alone.
func TestExplain(t *testing.T) {
	t.Parallel()
	l := launch{dir: t.TempDir()}
	source := filepath.Join(l.dir, "in")
	write(t, filepath.Join(source, "fast.ndjson"), `{"at":"2026-01-01T00:00:10Z"}`, `{"at":"2026-01-01T00:05:00Z"}`)
	slow := write(t, filepath.Join(source, "slow.ndjson"), `{"at":"2026-01-01T00:00:20Z"}`, `{"at":"2026-01-01T00:01:30Z"}`)
	args := []string{"run", "--source", source, "--time", "at", "--window", "tumbling:1m", "--aggregate", "count() as n", "--sink", "out",
		"--out-of-order", "0s", "--lease", "2s", "--checkpoint-every", "50ms", "--log-format", "json"}
	says := func(text ...string) func() bool {
		return func() bool {
			p := l.start(t, "explain", "--lease", "2s")
			if p.wait() != 0 { // the folder is not there yet
				return false
			}
			for _, s := range text {
				if !strings.Contains(p.stdout.String(), s) {
					return false
				}
			}
			return true
		}
	}
	p := l.start(t, "explain", "--checkpoint", ".").succeeds()
	p.says(p.stdout.String(), `Pipeline "main" has no saved state`)

	run := l.start(t, args...)
	run.reaches("who holds the frontier", says("windows that end by 2026-01-01T00:01:00Z are out", "wait for partition slow.ndjson, whose watermark is 2026-01-01T00:01:30Z, since 20",
		"Why: it has read all there is; if nothing comes it counts as idle in ", "Waiting: nothing that is frozen and saved"))
	list := l.start(t, "checkpoints", "list", "--lease", "2s").succeeds().stdout.String()
	for _, s := range []string{"OWNER", "LAG", "POSITION", "WATERMARK", "AGE", "HELD BACK BY", "caught up", "the next wait for slow.ndjson, since "} {
		if !strings.Contains(list, s) {
			t.Errorf("the list does not say %q:\n%s", s, list)
		}
	}
	run.kill()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline) && !says("No instance lives")(); { // every look is a process
	}
	if !says("No instance lives: the newest heartbeat, of ", " old. To do: start one", "slow.ndjson", "owner dead")() {
		t.Errorf("after a kill it says\n%s", l.start(t, "explain", "--lease", "2s").succeeds().stdout.String())
	}

	// The sink's folder becomes a file: the merger cannot deliver.
	if err := os.RemoveAll(filepath.Join(l.dir, "out")); err != nil {
		t.Fatal(err)
	}
	stuck := l.start(t, args...)
	stuck.reaches("the claims", func() bool { return strings.Count(stuck.stderr.String(), `"msg":"claimed"`) == 3 })
	if err := os.RemoveAll(filepath.Join(l.dir, "out")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(l.dir, "out"), "in the way")
	addTo(t, slow, fmt.Sprintln(`{"at":"2026-01-01T00:03:00Z"}`))
	stuck.reaches("what it is stuck on", says("wait for the merger. Why: its owner ", " cannot go on, and tries again: deliver", "To do: mend what the error says"))
	if err := errors.Join(os.Remove(filepath.Join(l.dir, "out")), os.Mkdir(filepath.Join(l.dir, "out"), 0o755)); err != nil {
		t.Fatal(err)
	}
	stuck.reaches("the rows", says("windows that end by 2026-01-01T00:03:00Z are out"))
	stuck.signal(os.Interrupt)
	stuck.succeeds()
	if !says("No instance lives: ", "nobody owns it: its owner ", " has let it go")() {
		t.Errorf("after a drain it says\n%s", l.start(t, "explain", "--lease", "2s").succeeds().stdout.String())
	}
	l.start(t, append(args, "--until-end")...).succeeds()
	if !says(`Pipeline "main" has ended`)() {
		t.Error("an ended pipeline is not called so")
	}
	check := l.start(t, append([]string{"check"}, args[1:]...)...).succeeds()
	check.says(check.stdout.String(), `pipeline "main" has ended: it would read nothing`)
}
