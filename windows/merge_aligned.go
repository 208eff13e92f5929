package windows

import (
	"io"

	"github.com/millstream/millstream/stream"
)

// alignedMerge makes tumbling and hopping windows, whose bounds are the clock's: a window is out as
// soon as the frontier passes its end, and a slice goes when the last window that needs it is out.
type alignedMerge[E, R any] struct {
	pending[E, R]
	windows Windows
	window  *table[E, R] // scratch: a window of several slices
	order   []ordered    // scratch
	out     R
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
	return nil
}

// emit makes the results of the window that begins with the first slice.
func (m *alignedMerge[E, R]) emit(w stream.Window, emit func(*R) error) error {
	t := m.slices[0].table
	n := 1
	for n < len(m.slices) && m.slices[n].end <= w.End {
		n++
	}
	if n > 1 {
		if m.window == nil {
			m.window = newTable(m.fresh(), false)
		}
		t = m.window
		for _, s := range m.slices[:n] {
			t.mergeAll(s.table)
		}
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
