package windows

import (
	"cmp"
	"io"
	"slices"
	"time"

	"github.com/millstream/millstream/stream"
)

// sessionMerge makes sessions. A key has at most one open session: slices are folded in order of
// time, and all partials of one slice together, before they meet it. Events of a slice are less than
// a gap apart, so a slice holds one session a key at most.
type sessionMerge[E, R any] struct {
	pending[E, R]
	gap    time.Duration
	open   *table[E, R]   // row by key; a closed session's row waits for the key's next one
	closed int            // rows of open that hold no session
	next   stream.Instant // no open session ends before
	done   *table[E, R]   // scratch: sessions whose key has begun another
	out    R
}

// Advance implements stream.MergeState. It goes slice by slice: once a slice is folded, every session
// that ends at or before the slice's end is complete, and later ones end later.
func (m *sessionMerge[E, R]) Advance(to stream.Instant, emit func(*R) error) error {
	to = m.boundary(to)
	if to <= m.reached {
		return nil
	}
	for len(m.slices) > 0 && m.slices[0].end <= to {
		s := m.slices[0]
		// Sessions that the time before this slice completes come first.
		if err := m.close(s.start, emit); err != nil {
			return err
		}
		m.slices[0] = nil
		m.slices = m.slices[1:]
		m.fold(s.table)
		if err := m.close(s.end, emit); err != nil {
			return err
		}
	}
	if err := m.close(to, emit); err != nil {
		return err
	}
	m.reached = to
	return nil
}

// fold takes a merged slice into the open sessions.
func (m *sessionMerge[E, R]) fold(t *table[E, R]) {
	for src := range uint32(t.keys.len()) {
		row, added := m.open.put(t.keys.at(src))
		switch {
		case added:
		case !m.holds(row):
			m.closed--
		case t.first[src] >= m.open.last[row].Add(m.gap):
			m.retire(row)
		}
		m.open.merge(row, t, src)
		m.next = min(m.next, m.open.last[row].Add(m.gap))
	}
}

// holds reports whether a row is an open session.
func (m *sessionMerge[E, R]) holds(row uint32) bool { return m.open.first[row] <= m.open.last[row] }

// retire moves a complete session aside, so that its key can begin another.
func (m *sessionMerge[E, R]) retire(row uint32) {
	if m.done == nil {
		m.done = newTable(m.fresh(), true)
	}
	to, _ := m.done.put(m.open.keys.at(row)) // a key retires once a slice at most
	m.done.merge(to, m.open, row)
	m.empty(row)
}

func (m *sessionMerge[E, R]) empty(row uint32) {
	m.open.rows.clear(row)
	m.open.first[row], m.open.last[row] = stream.EndOfTime, stream.Beginning
}

// ending is a complete session, in the order in which sessions are emitted.
type ending[E, R any] struct {
	end   stream.Instant
	start stream.Instant
	table *table[E, R]
	row   uint32
}

// close emits every session that ends at or before the boundary.
func (m *sessionMerge[E, R]) close(boundary stream.Instant, emit func(*R) error) error {
	var ends []ending[E, R]
	if m.done != nil {
		for row := range uint32(m.done.keys.len()) {
			ends = append(ends, ending[E, R]{m.done.last[row].Add(m.gap), m.done.first[row], m.done, row})
		}
	}
	if m.next <= boundary {
		m.next = stream.EndOfTime
		for row := range uint32(m.open.keys.len()) {
			if !m.holds(row) {
				continue
			}
			end := m.open.last[row].Add(m.gap)
			if end > boundary {
				m.next = min(m.next, end)
				continue
			}
			ends = append(ends, ending[E, R]{end, m.open.first[row], m.open, row})
		}
	}
	slices.SortFunc(ends, func(a, b ending[E, R]) int {
		return cmp.Or(cmp.Compare(a.end, b.end), cmp.Compare(a.start, b.start), cmp.Compare(a.table.keys.at(a.row), b.table.keys.at(b.row)))
	})
	for _, e := range ends {
		e.table.rows.emit(e.row, e.table.keys.at(e.row), stream.Window{Start: e.start, End: e.end}, &m.out)
		if err := emit(&m.out); err != nil {
			return err
		}
		if e.table == m.open {
			m.empty(e.row)
			m.closed++
		}
	}
	if m.done != nil {
		m.done.reset(false)
	}
	if n := m.open.keys.len(); m.closed > 64 && m.closed > n/2 {
		m.compact()
	}
	return nil
}

// compact drops the rows that hold no session.
func (m *sessionMerge[E, R]) compact() {
	t := newTable(m.fresh(), true)
	for row := range uint32(m.open.keys.len()) {
		if m.holds(row) {
			to, _ := t.put(m.open.keys.at(row))
			t.merge(to, m.open, row)
		}
	}
	m.open, m.closed = t, 0
}

// Snapshot implements stream.MergeState.
func (m *sessionMerge[E, R]) Snapshot() io.WriterTo {
	if m.closed > 0 {
		m.compact()
	}
	open := m.open.snapshot()
	return &mergeSnapshot{snapshot: m.snapshot(), reached: m.reached, open: &open}
}

// Restore implements stream.MergeState.
func (m *sessionMerge[E, R]) Restore(data []byte) error {
	r := &reader{data: data}
	m.restore(r)
	m.open.decode(r, true)
	if err := r.end(); err != nil {
		return err
	}
	m.next = stream.EndOfTime
	for row := range m.open.last {
		m.next = min(m.next, m.open.last[row].Add(m.gap))
	}
	return nil
}

// Open implements stream.MergeState: the number of sessions that may still grow.
func (m *sessionMerge[E, R]) Open() int { return m.open.keys.len() - m.closed }
