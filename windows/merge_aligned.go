package windows

import (
	"cmp"
	"io"
	"math"
	"slices"
	"time"

	"github.com/millstream/millstream/stream"
)

// alignedMerge makes tumbling and hopping windows, whose bounds are the clock's: a window is out as
// soon as the frontier passes its end, and a slice goes when the last window that needs it is out.
type alignedMerge[E, R any] struct {
	pending[E, R]
	windows Windows
	window  *table[E, R] // scratch: a window of several slices
	order   []ordered    // scratch

	// Where windows are of many slices, runs of them are merged once and serve every window around
	// them: a window of n slices takes about 2·√n merges a key, not n. Blocks are not saved.
	blockWidth time.Duration
	blocks     []block[E, R] // by start
	out        R
}

// block is the merged slices of a run of time, aligned like slices.
type block[E, R any] struct {
	start, end stream.Instant
	table      *table[E, R]
}

// manySlices is where blocks begin to be worth their memory.
const manySlices = 16

func newAlignedMerge[E, R any](p pending[E, R], w Windows) *alignedMerge[E, R] {
	m := &alignedMerge[E, R]{pending: p, windows: w}
	if n := w.size / p.width; n >= manySlices {
		m.blockWidth = p.width * time.Duration(math.Sqrt(float64(n)))
	}
	return m
}

// Advance implements stream.MergeState.
func (m *alignedMerge[E, R]) Advance(to stream.Instant, emit func(*R) error) error {
	to = m.boundary(to)
	for len(m.slices) > 0 && m.reached < to {
		first := m.slices[0]
		end := m.windows.firstEnd(max(first.end, m.reached+1))
		start := end.Add(-m.windows.size)
		if !end.Finite() {
			start = first.start // the window goes on beyond what an Instant can say
		}
		if start > first.start {
			m.slices[0] = nil
			m.slices = m.slices[1:]
			continue
		}
		if end > to {
			break
		}
		if err := m.emit(stream.Window{Start: start, End: end}, emit); err != nil {
			return err
		}
		m.reached = end
	}
	if m.reached = max(m.reached, to); m.reached == stream.EndOfTime {
		m.slices = nil
	}
	if len(m.slices) == 0 {
		m.blocks = nil
	}
	return nil
}

// emit makes the results of the window that begins with the first slice.
func (m *alignedMerge[E, R]) emit(w stream.Window, emit func(*R) error) error {
	t := m.slices[0].table
	if len(m.slices) > 1 && m.slices[1].end <= w.End {
		t = m.merged(w)
		defer t.reset(false)
	}
	m.order = t.keys.sorted(m.order)
	for _, o := range m.order {
		t.rows.emit(o.row, t.keys.at(o.row), w, &m.out)
		if err := emit(&m.out); err != nil {
			return err
		}
	}
	return nil
}

// merged merges the slices of a window, in order of time.
func (m *alignedMerge[E, R]) merged(w stream.Window) *table[E, R] {
	if m.window == nil {
		m.window = newTable(m.fresh(), false)
	}
	for len(m.blocks) > 0 && m.blocks[0].start < w.Start { // no later window holds it whole
		m.blocks[0].table = nil
		m.blocks = m.blocks[1:]
	}
	for i := 0; i < len(m.slices) && m.slices[i].end <= w.End; {
		if b := m.block(i, w); b != nil {
			m.window.mergeAll(b.table)
			for i < len(m.slices) && m.slices[i].start < b.end {
				i++
			}
			continue
		}
		m.window.mergeAll(m.slices[i].table)
		i++
	}
	return m.window
}

// block returns the block that begins with slice i, if the window holds it whole: then nothing of it
// is still to come, either.
func (m *alignedMerge[E, R]) block(i int, w stream.Window) *block[E, R] {
	if m.blockWidth == 0 {
		return nil
	}
	start, end := sliceAt(m.slices[i].start, m.blockWidth)
	if start < w.Start || end > w.End {
		return nil
	}
	at, found := slices.BinarySearchFunc(m.blocks, start, func(b block[E, R], start stream.Instant) int { return cmp.Compare(b.start, start) })
	if !found {
		b := block[E, R]{start, end, newTable(m.fresh(), false)}
		for _, s := range m.slices[i:] {
			if s.start >= end {
				break
			}
			b.table.mergeAll(s.table)
		}
		m.blocks = slices.Insert(m.blocks, at, b)
	}
	return &m.blocks[at]
}

// Snapshot implements stream.MergeState.
func (m *alignedMerge[E, R]) Snapshot() io.WriterTo {
	return &mergeSnapshot{snapshot: m.snapshot(), reached: m.reached}
}

// Restore implements stream.MergeState.
func (m *alignedMerge[E, R]) Restore(data []byte) error {
	r := &reader{data: data}
	m.restore(r)
	return r.end()
}

// Open implements stream.MergeState: the number of slices that windows still need.
func (m *alignedMerge[E, R]) Open() int { return len(m.slices) }
