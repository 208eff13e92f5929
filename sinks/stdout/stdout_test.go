package stdout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/millstream/millstream/sinks/sinktest"
	"github.com/millstream/millstream/stream"
)

// pipe is what several processes write to.
type pipe struct {
	mu  sync.Mutex
	got []byte
}

func (p *pipe) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got = append(p.got, data...)
	return len(data), nil
}

// process is one process's end of a pipe.
type process struct {
	pipe *pipe
	wire *sinktest.Wire
}

func (p *process) Write(data []byte) (n int, err error) {
	err = p.wire.Call(context.Background(), func(context.Context) (err error) { n, err = p.pipe.Write(data); return err })
	return n, err
}

func TestSuite(t *testing.T) {
	for _, c := range sinktest.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := new(pipe)
				err := c.Holds(t.Context(), &sinktest.Destination{
					Promise: sinktest.AtLeastOnce, Name: "stdout",
					Open: func(hook sinktest.Hook) (stream.Sink, error) {
						wire := new(sinktest.Wire)
						wire.Begin(hook)
						return New(&process{p, wire}), nil
					},
					Seen: func(context.Context) ([][]byte, error) {
						p.mu.Lock()
						defer p.mu.Unlock()
						if len(p.got) == 0 {
							return nil, nil
						}
						return bytes.Split(bytes.TrimSuffix(bytes.Clone(p.got), []byte("\n")), []byte("\n")), nil
					},
				})
				if err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// full takes some bytes, then fails until there is room again.
type full struct {
	bytes.Buffer
	room int
}

func (f *full) Write(data []byte) (int, error) {
	n := min(len(data), f.room)
	f.room -= n
	f.Buffer.Write(data[:n])
	if n < len(data) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func rowsOf(number, n int) []stream.Row {
	rows := make([]stream.Row, n)
	for i := range rows {
		rows[i].Data = fmt.Appendf(nil, `{"entry":%d,"n":%d}`, number, i)
	}
	return rows
}

// TestFull: a disk that fills up at any byte, and has a little room again, gets each row once, in whole
// lines: also when another entry comes before the one that failed is repeated.
func TestFull(t *testing.T) {
	for room := range 200 {
		w := &full{room: room}
		s := New(w)
		failures := 0
		for pending := []int{1, 2}; len(pending) > 0; w.room += 20 {
			number := pending[0]
			pending = pending[1:]
			if err := s.Deliver(t.Context(), stream.CheckpointID{Number: uint64(number)}, rowsOf(number, 5)); err != nil {
				if failures++; failures > 100 || !errors.Is(err, syscall.ENOSPC) || !strings.HasPrefix(err.Error(), "stdout: ") {
					t.Fatal(err)
				}
				pending = append(pending, number)
			}
		}
		if room < 100 && failures == 0 {
			t.Fatalf("room %d is enough", room)
		}
		seen := make(map[string]int)
		for line := range strings.Lines(w.String()) {
			seen[line]++
		}
		for number := 1; number <= 2; number++ {
			for _, row := range rowsOf(number, 5) {
				if line := string(row.Data) + "\n"; seen[line] != 1 {
					t.Fatalf("room %d: %s is there %d times in %q", room, row.Data, seen[line], w.String())
				}
			}
		}
		if len(seen) != 10 {
			t.Fatalf("room %d: lines that nobody delivered in %q", room, w.String())
		}
	}
}

// TestGoesOn: after an error only what is missing is written.
func TestGoesOn(t *testing.T) {
	id := stream.CheckpointID{Number: 1}
	for room := range 5 * len(`{"entry":1,"n":0}`+"\n") {
		w := &full{room: room}
		s := New(w)
		if err := s.Deliver(t.Context(), id, rowsOf(1, 5)); err == nil {
			t.Fatalf("room %d is enough", room)
		}
		w.room = 1 << 20
		if err := s.Deliver(t.Context(), id, rowsOf(1, 5)); err != nil {
			t.Fatal(err)
		}
		var want strings.Builder
		for _, r := range rowsOf(1, 5) {
			fmt.Fprintf(&want, "%s\n", r.Data)
		}
		if w.String() != want.String() {
			t.Fatalf("room %d: %q", room, w.String())
		}
		if len(s.begun) != 0 || len(s.torn) != 0 {
			t.Fatal("a finished delivery is kept in mind")
		}
	}
}

// TestForgets: deliveries that failed and never come again do not add up.
func TestForgets(t *testing.T) {
	s := New(&full{})
	for n := range 3 * maxBegun {
		if err := s.Deliver(t.Context(), stream.CheckpointID{Number: uint64(n)}, rowsOf(n, 1)); err == nil {
			t.Fatal("there was room")
		}
	}
	if len(s.begun) > maxBegun {
		t.Errorf("%d are kept in mind", len(s.begun))
	}
}
