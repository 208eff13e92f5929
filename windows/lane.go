package windows

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/millstream/millstream/stream"
)

// slice is a run of event time of one lane, with what was folded into it. It is never empty.
type slice[E, R any] struct {
	start, end stream.Instant
	count      int64 // events
	table      *table[E, R]
}

// laneState is the state of one partition: the slices that its watermark has not passed.
type laneState[E, R any] struct {
	width    time.Duration
	sessions bool
	fresh    func() accumulators[E, R]
	layout   string

	slices   map[stream.Instant]*slice[E, R] // by start
	recent   *slice[E, R]                    // the last event's
	earliest stream.Instant                  // the smallest end
	tables   *sync.Pool                      // emptied tables of slices that were written
}

func newLane[E, R any](w Windows, fresh func() accumulators[E, R]) *laneState[E, R] {
	return &laneState[E, R]{width: w.Slice(), sessions: w.kind == session, fresh: fresh, layout: fresh().layout(),
		slices: make(map[stream.Instant]*slice[E, R]), earliest: stream.EndOfTime, tables: new(sync.Pool)}
}

// Add implements stream.LaneState.
func (l *laneState[E, R]) Add(e *stream.Event[E], watermark stream.Instant) (bool, error) {
	s := l.recent
	if s == nil || e.Time < s.start || e.Time >= s.end {
		start, end := sliceAt(e.Time, l.width)
		if s = l.slices[start]; s == nil {
			if end <= watermark {
				return false, nil
			}
			s = l.open(start, end)
		}
		l.recent = s
	}
	if s.end <= watermark {
		return false, nil
	}
	s.count++
	s.table.add(e)
	return true, nil
}

func (l *laneState[E, R]) open(start, end stream.Instant) *slice[E, R] {
	t, _ := l.tables.Get().(*table[E, R])
	if t == nil {
		t = newTable(l.fresh(), l.sessions)
	}
	s := &slice[E, R]{start: start, end: end, table: t}
	l.slices[start] = s
	l.earliest = min(l.earliest, end)
	return s
}

// Rows implements stream.LaneState: windows are never complete in a lane.
func (l *laneState[E, R]) Rows() []R { return nil }

// Ripe implements stream.LaneState.
func (l *laneState[E, R]) Ripe(w stream.Instant) bool { return len(l.slices) > 0 && l.earliest <= w }

// Open implements stream.LaneState.
func (l *laneState[E, R]) Open() int { return len(l.slices) }

// Freeze implements stream.LaneState. The tables are handed over, not copied.
func (l *laneState[E, R]) Freeze(w stream.Instant) []stream.FrozenSlice {
	if !l.Ripe(w) {
		return nil
	}
	l.recent, l.earliest = nil, stream.EndOfTime
	var out []stream.FrozenSlice
	for start, s := range l.slices {
		if s.end > w {
			l.earliest = min(l.earliest, s.end)
			continue
		}
		delete(l.slices, start)
		out = append(out, stream.FrozenSlice{Start: s.start, End: s.end, Count: s.count,
			Data: &frozenTable[E, R]{table: s.table, layout: l.layout, tables: l.tables}})
	}
	slices.SortFunc(out, func(a, b stream.FrozenSlice) int { return cmp.Compare(a.End, b.End) })
	return out
}

// frozenTable writes a frozen slice's table once, then gives its memory back to the lane.
type frozenTable[E, R any] struct {
	table  *table[E, R]
	layout string
	tables *sync.Pool
}

func (f *frozenTable[E, R]) WriteTo(to io.Writer) (int64, error) {
	if f.table == nil {
		return 0, errors.New("a frozen slice can be written only once")
	}
	w := newWriter(to)
	w.header(f.layout)
	s := f.table.frozen()
	s.encode(w)
	n, err := w.done()
	f.table.reset(true)
	f.tables.Put(f.table)
	f.table = nil
	return n, err
}

// Snapshot implements stream.LaneState.
func (l *laneState[E, R]) Snapshot() io.WriterTo {
	s := &snapshot{layout: l.layout, width: l.width}
	for _, o := range l.slices {
		s.slices = append(s.slices, sliceSnapshot{o.start, o.end, o.count, o.table.snapshot()})
	}
	slices.SortFunc(s.slices, func(a, b sliceSnapshot) int { return cmp.Compare(a.start, b.start) })
	return s
}

// snapshot is a copy of slices, encoded when it is written.
type snapshot struct {
	layout string
	width  time.Duration
	slices []sliceSnapshot
}

type sliceSnapshot struct {
	start, end stream.Instant
	count      int64
	table      tableSnapshot
}

func (s *snapshot) WriteTo(to io.Writer) (int64, error) {
	w := newWriter(to)
	w.header(s.layout)
	s.encode(w)
	return w.done()
}

func (s *snapshot) encode(w *writer) {
	w.varint(int64(s.width))
	w.uvarint(uint64(len(s.slices)))
	for i := range s.slices {
		o := &s.slices[i]
		w.varint(int64(o.start))
		w.varint(int64(o.end))
		w.uvarint(uint64(o.count))
		o.table.encode(w)
	}
}

// decodeSlices reads what snapshot.encode wrote, by start.
func decodeSlices[E, R any](r *reader, width time.Duration, fresh func() accumulators[E, R], sessions bool) []*slice[E, R] {
	if w := time.Duration(r.varint()); r.err == nil && w != width {
		r.err = fmt.Errorf("window state has slices of %s, this program has slices of %s", short(w), short(width))
		return nil
	}
	var out []*slice[E, R]
	for range r.count(4) {
		s := &slice[E, R]{start: stream.Instant(r.varint()), end: stream.Instant(r.varint()), count: int64(r.uvarint())}
		if !isSlice(s.start, s.end, width) || len(out) > 0 && out[len(out)-1].end > s.start {
			r.fail("slices are out of place or order")
		}
		if r.err != nil {
			return nil
		}
		s.table = newTable(fresh(), sessions)
		s.table.decode(r, true)
		out = append(out, s)
	}
	return out
}

// Restore implements stream.LaneState.
func (l *laneState[E, R]) Restore(data []byte) error {
	r := &reader{data: data}
	r.header(l.layout)
	restored := decodeSlices(r, l.width, l.fresh, l.sessions)
	if err := r.end(); err != nil {
		return err
	}
	for _, s := range restored {
		l.slices[s.start] = s
		l.earliest = min(l.earliest, s.end)
	}
	return nil
}
