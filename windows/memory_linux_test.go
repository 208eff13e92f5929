//go:build !race

package windows

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millstream/millstream/stream"
)

const memoryChild = "WINDOWS_TEST_MEMORY_CHILD"

// TestMemory holds a million keys of 36 bytes with count, sum, min and max in a process of its own,
// with a snapshot being written while events go on, then freezes, merges and emits them. The whole
// process must stay below 600 MB, and the lane's state below 150 MB.
func TestMemory(t *testing.T) {
	if os.Getenv(memoryChild) != "" {
		memoryOfAMillionKeys()
		return
	}
	child := exec.Command(os.Args[0], "-test.run=^TestMemory$", "-test.v")
	child.Env = append(os.Environ(), memoryChild+"=1", "GOMEMLIMIT=off", "GOGC=100")
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var state, encoded, lane, whole, rows int
	_, after, _ := strings.Cut(string(out), "memory:")
	if _, err := fmt.Sscan(after, &state, &encoded, &lane, &whole, &rows); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("state %d MB, snapshot %d MB encoded; resident at most %d MB with a lane and a snapshot, %d MB with the merge as well", state, encoded, lane, whole)
	if state > 150 || whole > 600 || rows != 1_000_000 {
		t.Errorf("state %d MB, want at most 150; resident %d MB, want at most 600; %d rows", state, whole, rows)
	}
}

func resident() int {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return int(u.Maxrss / 1000)
}

func memoryOfAMillionKeys() {
	op := benchmarkColumns(nil, "count()", "sum", "min", "max")
	lane := op.Lane()
	add := func(i int) {
		e := stream.Event[fields]{Key: fmt.Sprintf("%08x-0000-4000-8000-%012x", i, i), Value: fields{num(int64(i) << 20)}}
		if ok, err := lane.Add(&e, stream.Beginning); !ok || err != nil {
			panic(err)
		}
	}
	for i := range 1_000_000 {
		add(i)
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	state := m.HeapAlloc / 1_000_000
	var wg sync.WaitGroup
	var encoded int64
	for range 3 {
		snapshot := lane.Snapshot()
		wg.Go(func() { encoded, _ = snapshot.WriteTo(io.Discard) })
		for i := range 1_000_000 {
			add(i)
		}
		wg.Wait()
	}
	laneOnly := resident()
	s := lane.Freeze(stream.EndOfTime)[0]
	var data bytesWriter
	if _, err := s.Data.WriteTo(&data); err != nil {
		panic(err)
	}
	merger := op.Merger()
	if err := merger.Merge(stream.Frozen{Start: s.Start, End: s.End, Count: s.Count}, data); err != nil {
		panic(err)
	}
	rows := 0
	if err := merger.Advance(stream.EndOfTime, func(*Result) error { rows++; return nil }); err != nil {
		panic(err)
	}
	runtime.KeepAlive(lane)
	fmt.Println("memory:", state, encoded/1_000_000, laneOnly, resident(), rows)
}

type bytesWriter []byte

func (b *bytesWriter) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

// Tables are used again: slices that come and go take little memory each. The negative control gives
// the lane no table back.
func TestTablesAreReused(t *testing.T) {
	allocations := func(reuse bool) float64 {
		lane := benchmarkColumns(t, "count()", "sum", "min", "max").Lane().(*laneState[fields, Result])
		events := benchmarkEvents(1000)[:1000]
		at := stream.Instant(0)
		return testing.AllocsPerRun(50, func() {
			if !reuse {
				lane.tables = new(sync.Pool)
			}
			for i := range events {
				events[i].Time = at
			}
			addAll(t, lane, events)
			at += stream.Instant(time.Minute)
			for _, s := range lane.Freeze(at) {
				if _, err := s.Data.WriteTo(io.Discard); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	with, without := allocations(true), allocations(false)
	t.Logf("%v allocations for a slice of 1,000 keys, %v with a new table", with, without)
	if with > 12 || without < 3*with {
		t.Errorf("%v allocations for a slice of 1,000 keys, %v with a new table", with, without)
	}
}
