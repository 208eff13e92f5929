package windows

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/millstream/millstream/stream"
)

type args = []Value

func num(i int64) Value   { return Value{Kind: Int, I: i} }
func flt(f float64) Value { return Value{Kind: Float, F: f} }
func str(s string) Value  { return Value{Kind: String, S: s} }
func at(s string) stream.Instant {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	i, _ := stream.At(t)
	return i
}

func mustFunc(_ testing.TB, name string, params ...float64) Func {
	f, err := NewFunc(name, params...)
	if err != nil {
		panic(err)
	}
	return f
}

// columnsOf is an operator whose events carry one argument a function.
func columnsOf(w Windows, funcs ...Func) *Columns[args] {
	return &Columns[args]{Windows: w, Funcs: funcs, Arg: func(e *args, i int) *Value { return &(*e)[i] }}
}

func written(t testing.TB, w io.WriterTo) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := w.WriteTo(&b)
	if err != nil {
		t.Fatal(err)
	}
	if n != int64(b.Len()) {
		t.Fatalf("WriteTo says %d bytes, wrote %d", n, b.Len())
	}
	return b.Bytes()
}

// frozen is a frozen slice with its bytes, as the merger reads it.
type frozen struct {
	partition string
	stream.Frozen
	data []byte
}

// fleet is a pipeline's lanes and merger without an engine.
type fleet[E, R any] struct {
	t       testing.TB
	op      stream.Operator[E, R]
	names   []string
	lanes   map[string]stream.LaneState[E, R]
	marks   map[string]stream.Instant
	pending []frozen
	merger  stream.MergeState[R]
	reached stream.Instant
	render  func(*R) string
	rows    []string
}

func newFleet[E, R any](t testing.TB, op stream.Operator[E, R], render func(*R) string) *fleet[E, R] {
	t.Helper()
	if err := op.Validate(); err != nil {
		t.Fatal(err)
	}
	return &fleet[E, R]{t: t, op: op, lanes: map[string]stream.LaneState[E, R]{}, marks: map[string]stream.Instant{},
		merger: op.Merger(), reached: stream.Beginning, render: render}
}

func (f *fleet[E, R]) lane(name string) stream.LaneState[E, R] {
	l := f.lanes[name]
	if l == nil {
		l = f.op.Lane()
		f.lanes[name] = l
		f.marks[name] = stream.Beginning
		f.names = append(f.names, name)
		slices.Sort(f.names)
	}
	return l
}

func (f *fleet[E, R]) add(partition string, e stream.Event[E]) bool {
	f.t.Helper()
	ok, err := f.lane(partition).Add(&e, f.marks[partition])
	if err != nil {
		f.t.Fatal(err)
	}
	return ok
}

// freeze raises a partition's watermark and takes what it passed.
func (f *fleet[E, R]) freeze(partition string, w stream.Instant) {
	f.t.Helper()
	l := f.lane(partition)
	f.marks[partition] = max(f.marks[partition], w)
	ripe := l.Ripe(w)
	slices := l.Freeze(w)
	if ripe != (len(slices) > 0) {
		f.t.Fatalf("Ripe says %v, Freeze returned %d slices", ripe, len(slices))
	}
	for _, s := range slices {
		data := written(f.t, s.Data)
		f.pending = append(f.pending, frozen{partition, stream.Frozen{Start: s.Start, End: s.End, Count: s.Count}, data})
	}
}

// restart saves and restores a partition.
func (f *fleet[E, R]) restart(partition string) {
	f.t.Helper()
	data := written(f.t, f.lane(partition).Snapshot())
	l := f.op.Lane()
	if err := l.Restore(data); err != nil {
		f.t.Fatal(err)
	}
	f.lanes[partition] = l
}

func (f *fleet[E, R]) restartMerger() {
	f.t.Helper()
	data := written(f.t, f.merger.Snapshot())
	m := f.op.Merger()
	if err := m.Restore(data); err != nil {
		f.t.Fatal(err)
	}
	f.merger = m
}

// advance merges everything frozen up to a boundary, as the engine does. each says whether the merge
// state is told of every slice's end, or only of the last.
func (f *fleet[E, R]) advance(to stream.Instant, each bool) {
	f.t.Helper()
	emit := func(r *R) error {
		f.rows = append(f.rows, f.render(r))
		return nil
	}
	slices.SortStableFunc(f.pending, func(a, b frozen) int {
		return cmp.Or(cmp.Compare(a.End, b.End), cmp.Compare(a.partition, b.partition))
	})
	for len(f.pending) > 0 && f.pending[0].End <= to {
		s := f.pending[0]
		f.pending = f.pending[1:]
		if err := f.merger.Merge(s.Frozen, s.data); err != nil {
			f.t.Fatal(err)
		}
		if each && (len(f.pending) == 0 || f.pending[0].End != s.End) {
			if err := f.merger.Advance(s.End, emit); err != nil {
				f.t.Fatal(err)
			}
		}
	}
	if err := f.merger.Advance(to, emit); err != nil {
		f.t.Fatal(err)
	}
	f.reached = max(f.reached, to)
}

// low is the smallest watermark, floored to a slice: the frontier.
func (f *fleet[E, R]) low() stream.Instant {
	low := stream.EndOfTime
	for _, m := range f.marks {
		low = min(low, m)
	}
	return low.Floor(f.op.Slice())
}

func renderResult(r *Result) string {
	b := fmt.Appendf(nil, "%s %s %s", r.Window.Start, r.Window.End, r.Key)
	for i := range r.columns {
		b = append(b, ' ')
		b = r.AppendValue(b, i)
	}
	return string(b)
}
