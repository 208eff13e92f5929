//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A limit on the size of a file does to a process what a full disk does, at any user's rights: a write
// stops in the middle with an error.
func limited(blocks int) []string {
	return []string{"sh", "-c", fmt.Sprintf(`ulimit -S -f %d; exec "$@"`, blocks), "sh"}
}

func TestFullDiskStopsTheStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := write(t, filepath.Join(dir, "in.ndjson"), `{"k":"a","v":1,"t":1767225600000}`)
	l := launch{dir: dir, wrap: limited(0)}
	l.start(t, "run", "--source", in, "--sink", "out").fails(1, "--checkpoint: ", "millstream-state: cannot be written: ", "file too large")
	l.start(t, "run", "--source", in, "--sink", "out", "--checkpoint", "mem:").fails(1, "--sink: ", "out: cannot be written: ", "file too large")
	for _, folder := range []string{"out", "millstream-state"} {
		if files := outputs(t, filepath.Join(dir, folder)); len(files) > 0 {
			t.Errorf("%s holds %s", folder, files)
		}
	}
}

// A disk that is full in mid-run is waited for: no half file is taken for output, a process that is
// stopped meanwhile exits 1, and with space again everything comes out exact.
func TestFullDiskIsWaitedFor(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(9, 13))
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	want := workFolder(t, random, filepath.Join(dir, "in"), 2, 3000)
	args := slices.Concat([]string{"run", "--source", "in", "--until-end", "--sink", "out", "--checkpoint-every", "50ms", "--lease", "1s"}, workQuery)

	full := launch{dir: dir, wrap: limited(8)}.start(t, args...)
	full.reports("cannot be saved: trying again")
	full.reports("file too large")
	full.signal(syscall.SIGTERM)
	full.reports("draining")
	full.signal(syscall.SIGTERM)
	if code := full.wait(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}

	full = launch{dir: dir, wrap: limited(8)}.start(t, args...)
	full.reports("cannot be saved: trying again")
	if files := outputs(t, out); len(files) > 0 {
		t.Errorf("output before anything could be saved: %s", files)
	}
	if err := unix.Prlimit(full.cmd.Process.Pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}, nil); err != nil {
		t.Fatal(err)
	}
	full.succeeds()
	if err := want.compare(lines[result](t, out)); err != nil {
		t.Error(err)
	}
	if got := full.ledger(); got != want.ledger {
		t.Errorf("ledger %+v\nwant   %+v", got, want.ledger)
	}
}

// A sink that goes away in mid-run is waited for, and its rows come once.
func TestSinkThatGoesAwayIsWaitedFor(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(10, 13))
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	want := workFolder(t, random, filepath.Join(dir, "in"), 2, 4000)
	p := launch{dir: dir}.start(t, slices.Concat([]string{"run", "--source", "file://" + dir + "/in?rate=2000", "--until-end", "--sink", "out",
		"--checkpoint-every", "50ms"}, workQuery)...)
	p.reaches("rows", func() bool { return len(outputs(t, out)) > 2 })
	if err := os.Rename(out, out+"-away"); err != nil {
		t.Fatal(err)
	}
	write(t, out, "in the way")
	p.reports("deliver failed: the partition waits and tries again")
	if said := p.stderr.String(); !strings.Contains(said, "out") || !strings.Contains(said, "a file is where a folder should be") {
		t.Errorf("does not say what is in the way:\n%s", said)
	}
	if err := os.Remove(out); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(out+"-away", out); err != nil {
		t.Fatal(err)
	}
	p.succeeds()
	if err := want.compare(lines[result](t, out)); err != nil {
		t.Error(err)
	}
	if got := p.ledger(); got != want.ledger {
		t.Errorf("ledger %+v\nwant   %+v", got, want.ledger)
	}
}
