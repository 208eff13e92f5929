//go:build unix

package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

// bounded checks the most memory that a process which has ended ever had resident. The race detector
// multiplies it.
func bounded(t *testing.T, p *process, megabytes int64) {
	t.Helper()
	peak := p.peak.Load() >> 10
	if runtime.GOOS == "darwin" { // without /proc; in bytes, and without the memory of this process
		peak = p.cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss >> 20
	}
	t.Logf("peak resident memory %d MB, of %d MB", peak, megabytes)
	if peak == 0 || peak > megabytes && !raceDetector {
		t.Errorf("peak resident memory %d MB, want at most %d MB", peak, megabytes)
	}
}

// A million live keys of 36 bytes in one window, with four aggregates and a checkpoint in the middle.
func TestMillionKeys(t *testing.T) {
	t.Parallel()
	keys := 1_000_000
	if testing.Short() {
		keys = 100_000
	}
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "in.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(f)
	for i := range keys {
		fmt.Fprintf(w, `{"k":"%08x-0000-4000-8000-%012x","v":%d,"t":%d}`+"\n", uint32(i)*2654435761, i, i%1000, workStart+i%60000)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	p := launch{dir: dir, memory: true}.start(t, "run", "--source", "in.ndjson", "--until-end", "--key", "k", "--time", "t", "--window", "tumbling:1m",
		"--aggregate", "count() as n, sum(v) as total, min(v) as low, max(v) as high", "--sink", "out", "--checkpoint-every", "1s", "--log-format", "json").succeeds()
	if l := p.ledger(); l.Contributed != int64(keys) || l.RowsOut != int64(keys) {
		t.Errorf("ledger %+v", l)
	}
	bounded(t, p, 600)
}
