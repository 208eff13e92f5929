package windows

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millstream/millstream/stream"
)

func allFuncs(t testing.TB) []Func {
	funcs := []Func{CountEvents(), mustFunc(t, "quantile", 0.5), mustFunc(t, "top", 3)}
	for _, s := range specs {
		if len(s.params) == 0 {
			funcs = append(funcs, mustFunc(t, s.name))
		}
	}
	return funcs
}

func event(key string, at stream.Instant, n int, v Value) stream.Event[args] {
	return stream.Event[args]{Key: key, Time: at, Value: slices.Repeat(args{v}, n)}
}

var someValues = []Value{num(1), num(1 << 60), flt(-2.5), flt(1e300), str("a"), str("12.5"), {Kind: Other, S: `{"a": [1]}`}, {}, num(-7), flt(0)}

// TestSnapshotStandsStill writes snapshots and frozen slices on other goroutines while the lane goes
// on (run with -race), and compares them with the same state written at once.
func TestSnapshotStandsStill(t *testing.T) {
	for _, w := range []Windows{Tumbling(100), Session(100)} {
		op := columnsOf(w, allFuncs(t)...)
		lane, twin := op.Lane(), op.Lane()
		var wg sync.WaitGroup
		var later, now [][]byte
		var mu sync.Mutex
		put := func(i int, data []byte) {
			mu.Lock()
			defer mu.Unlock()
			for len(later) <= i {
				later = append(later, nil)
			}
			later[i] = data
		}
		write := func(to io.WriterTo) {
			i := len(now)
			now = append(now, nil)
			wg.Go(func() {
				var b bytes.Buffer
				if _, err := to.WriteTo(&b); err != nil {
					t.Error(err)
				}
				put(i, b.Bytes())
			})
		}
		at := stream.Instant(0)
		for round := range 60 {
			for i := range 200 {
				e := event("key-"+strings.Repeat("x", i%37), at+stream.Instant(i), len(op.Funcs), someValues[(i+round)%len(someValues)])
				lane.Add(&e, stream.Beginning)
				twin.Add(&e, stream.Beginning)
			}
			write(lane.Snapshot())
			now[len(now)-1] = written(t, twin.Snapshot())
			if round%7 == 6 {
				at += 100
				a, b := lane.Freeze(at), twin.Freeze(at)
				for i := range a {
					write(a[i].Data)
					now[len(now)-1] = written(t, b[i].Data)
				}
			}
		}
		wg.Wait()
		for i := range now {
			if !bytes.Equal(now[i], later[i]) {
				t.Fatalf("%s: state %d of %d changed after it was taken", w, i, len(now))
			}
		}
	}
}

// The negative controls of TestSnapshotStandsStill: without the marks that a snapshot leaves behind,
// it would change.
func TestSnapshotMarks(t *testing.T) {
	rows := newTops(3).(*sketchColumn[*top])
	rows.grow()
	encoded := func(e encodable) string {
		var b bytes.Buffer
		w := newWriter(&b)
		e.encode(w)
		w.done()
		return b.String()
	}
	v := str("a")
	for _, marked := range []bool{true, false} {
		rows.add(0, &v, 0)
		s := rows.snapshot()
		if !marked {
			rows.current--
		}
		before := encoded(s)
		rows.add(0, &v, 0)
		if same := encoded(s) == before; same != marked {
			t.Errorf("sketch, marked %v: unchanged %v", marked, same)
		}
	}
	for _, marked := range []bool{true, false} {
		var k keys
		k.put("first")
		s := k.snapshot()
		k.shared = marked
		k.reset(true)
		k.put("other")
		if same := s.at(0) == "first"; same != marked {
			t.Errorf("keys, marked %v: unchanged %v", marked, same)
		}
	}
	// A merger's keys outlive its tables: rows keep them.
	for _, reuse := range []bool{false, true} {
		var k keys
		k.put("first")
		key := k.at(0)
		k.reset(reuse)
		k.put("other")
		if same := key == "first"; same == reuse {
			t.Errorf("reuse %v: unchanged %v", reuse, same)
		}
	}
}

func TestFrozenSliceIsWrittenOnce(t *testing.T) {
	lane := columnsOf(Tumbling(10), CountEvents()).Lane()
	e := event("k", 1, 1, num(1))
	lane.Add(&e, stream.Beginning)
	s := lane.Freeze(10)[0]
	written(t, s.Data)
	if _, err := s.Data.WriteTo(io.Discard); err == nil {
		t.Error("written twice: the table may hold another slice by now")
	}
}

type failing struct{ after int }

func (f *failing) Write(p []byte) (int, error) {
	if f.after -= len(p); f.after < 0 {
		return 0, errors.New("disk full")
	}
	return len(p), nil
}

func TestWriteFails(t *testing.T) {
	lane := columnsOf(Tumbling(10), CountEvents()).Lane()
	for range 3 {
		e := event(strings.Repeat("k", 100_000), 1, 1, num(1))
		lane.Add(&e, stream.Beginning)
	}
	if n, err := lane.Snapshot().WriteTo(&failing{50}); err == nil || n > 50 {
		t.Error(n, err)
	}
}

// State of another shape is refused by name, not decoded into something else.
func TestRestoreRefuses(t *testing.T) {
	sum := columnsOf(Tumbling(time.Minute), mustFunc(t, "sum"))
	lane := sum.Lane()
	e := event("k", 1, 1, num(1))
	lane.Add(&e, stream.Beginning)
	data := written(t, lane.Snapshot())
	for _, c := range []struct {
		op   *Columns[args]
		data []byte
		want string
	}{
		{columnsOf(Tumbling(time.Minute), mustFunc(t, "avg")), data, `holds "sum", this program folds "avg"`},
		{columnsOf(Tumbling(time.Hour), mustFunc(t, "sum")), data, "slices of 1m, this program has slices of 1h"},
		{sum, append([]byte{9}, data[1:]...), "format version 9"},
		{sum, data[:len(data)-1], "damaged"},
		{sum, append(slices.Clone(data), 0), "left over"},
		{sum, nil, "damaged"},
	} {
		if err := c.op.Lane().Restore(c.data); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want …%s…", err, c.want)
		}
	}
	if err := sum.Merger().Restore(data); err == nil {
		t.Error("a merger restored a lane's snapshot")
	}
}

func TestMergeRefuses(t *testing.T) {
	op := columnsOf(Tumbling(10), CountEvents())
	lane := op.Lane()
	e := event("k", 1, 1, num(1))
	lane.Add(&e, stream.Beginning)
	data := written(t, lane.Freeze(10)[0].Data)
	m := op.Merger()
	if err := m.Merge(stream.Frozen{Start: 1, End: 11}, data); err == nil {
		t.Error("merged what is no slice")
	}
	if err := m.Advance(10, func(*Result) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := m.Merge(stream.Frozen{Start: 0, End: 10}, data); err == nil || !strings.Contains(err.Error(), "were emitted") {
		t.Error("merged a slice whose window is out:", err)
	}
	m = op.Merger()
	if err := m.Merge(stream.Frozen{Start: 0, End: 10}, data); err != nil {
		t.Fatal(err)
	}
	if err := m.Advance(10, func(*Result) error { return io.ErrClosedPipe }); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

// A merger that forgets how far it got would emit windows twice: the boundary is part of its state.
func TestEveryWindowOnce(t *testing.T) {
	for _, forget := range []bool{false, true} {
		f := newFleet(t, columnsOf(Hopping(30, 10), CountEvents()), renderResult)
		for at := range stream.Instant(50) {
			f.add("p", stream.Event[args]{Key: "k", Time: at})
		}
		f.freeze("p", 30)
		f.advance(30, true)
		f.restartMerger()
		if forget {
			f.merger.(*alignedMerge[args, Result]).reached = stream.Beginning
		}
		f.freeze("p", stream.EndOfTime)
		f.advance(stream.EndOfTime, true)
		seen := map[string]bool{}
		twice := false
		for _, r := range f.rows {
			twice = twice || seen[r]
			seen[r] = true
		}
		if twice != forget || len(seen) != 7 {
			t.Errorf("forget %v: %q", forget, f.rows)
		}
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	for _, w := range []Windows{Tumbling(time.Second), Hopping(10*time.Second, time.Second), Session(time.Second)} {
		op := benchmarkColumns(t, "count()", "sum", "min", "max", "avg", "stddev", "first", "last", "count_distinct", "quantile", "top")
		op.Windows = w
		lane := op.Lane()
		events := benchmarkEvents(1000)
		for range 3 {
			addAll(t, lane, events)
		}
		i := 0
		if n := testing.AllocsPerRun(10_000, func() {
			if ok, _ := lane.Add(&events[i&(len(events)-1)], stream.Beginning); !ok {
				t.Fatal("late")
			}
			i++
		}); n != 0 {
			t.Errorf("%s: %v allocations an event", w, n)
		}
	}
}

// What lies a long time back, or ahead, stays within what an Instant can say.
func TestExtremes(t *testing.T) {
	for _, w := range []Windows{Tumbling(24 * 365 * time.Hour), Hopping(24*365*time.Hour, 24*time.Hour*73), Session(24 * 365 * time.Hour)} {
		f := newFleet(t, columnsOf(w, CountEvents()), renderResult)
		for _, at := range []stream.Instant{stream.Beginning + 1, stream.EndOfTime - 1, 0} {
			if !f.add("p", stream.Event[args]{Key: "k", Time: at}) {
				t.Errorf("%s: %s is late", w, at)
			}
		}
		f.restart("p")
		f.freeze("p", stream.EndOfTime)
		f.advance(stream.EndOfTime, false)
		if len(f.rows) < 3 {
			t.Errorf("%s: %q", w, f.rows)
		}
		if f.lane("p").Open() != 0 || f.merger.Open() != 0 {
			t.Error("something stays open")
		}
	}
}
