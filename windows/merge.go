package windows

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/millstream/millstream/stream"
)

// newMerge returns the merge state for a kind of windows.
func newMerge[E, R any](w Windows, fresh func() accumulators[E, R]) stream.MergeState[R] {
	p := pending[E, R]{width: w.Slice(), sessions: w.kind == session, fresh: fresh, layout: fresh().layout(), reached: stream.Beginning}
	if w.kind == session {
		return &sessionMerge[E, R]{pending: p, gap: w.size, open: newTable(fresh(), true)}
	}
	return newAlignedMerge(p, w)
}

// pending holds the merged slices that windows still need, for every kind of windows.
type pending[E, R any] struct {
	width    time.Duration
	sessions bool
	fresh    func() accumulators[E, R]
	layout   string

	reached stream.Instant // the boundary up to which every window is out
	slices  []*slice[E, R] // by end
	partial *table[E, R]   // scratch: a partition's slice beside those of others
}

// Merge folds a partition's frozen slice into the slice of all partitions. The first one is decoded
// straight into its place.
func (p *pending[E, R]) Merge(s stream.Frozen, data []byte) error {
	if !isSlice(s.Start, s.End, p.width) {
		return fmt.Errorf("%w: [%s, %s) is not a slice of %s", errDamaged, s.Start, s.End, short(p.width))
	}
	if s.End <= p.reached {
		return fmt.Errorf("the slice ending %s comes after the windows up to %s were emitted", s.End, p.reached)
	}
	at, found := slices.BinarySearchFunc(p.slices, s.End, func(o *slice[E, R], end stream.Instant) int { return cmp.Compare(o.end, end) })
	r := &reader{data: data}
	r.header(p.layout)
	if found {
		if p.partial == nil {
			p.partial = newTable(p.fresh(), p.sessions)
		}
		defer p.partial.reset(true) // nobody has seen its keys
		p.partial.decode(r, false)
		if err := r.end(); err != nil {
			return err
		}
		p.slices[at].table.mergeAll(p.partial)
		p.slices[at].count += s.Count
		return nil
	}
	t := newTable(p.fresh(), p.sessions)
	t.decode(r, true)
	if err := r.end(); err != nil {
		return err
	}
	p.slices = slices.Insert(p.slices, at, &slice[E, R]{start: s.Start, end: s.End, count: s.Count, table: t})
	return nil
}

// boundary returns the end of the last slice that ends at or before to.
func (p *pending[E, R]) boundary(to stream.Instant) stream.Instant { return to.Floor(p.width) }

func (p *pending[E, R]) snapshot() snapshot {
	s := snapshot{layout: p.layout, width: p.width}
	for _, o := range p.slices {
		s.slices = append(s.slices, sliceSnapshot{o.start, o.end, o.count, o.table.snapshot()})
	}
	return s
}

// mergeSnapshot is a copy of a merge state, encoded when it is written.
type mergeSnapshot struct {
	snapshot
	reached stream.Instant
	open    *tableSnapshot
}

func (s *mergeSnapshot) WriteTo(to io.Writer) (int64, error) {
	w := newWriter(to)
	w.header(s.layout)
	w.varint(int64(s.reached))
	s.encode(w)
	if s.open != nil {
		s.open.encode(w)
	}
	return w.done()
}

func (p *pending[E, R]) restore(r *reader) {
	r.header(p.layout)
	p.reached = stream.Instant(r.varint())
	p.slices = decodeSlices(r, p.width, p.fresh, p.sessions)
}
