package windows

import (
	"slices"

	"github.com/millstream/millstream/stream"
)

// accumulators are the rows of a table: row i belongs to its key i. They are what Aggregation and
// Columns differ in; everything else in this package is the same for both.
type accumulators[E, R any] interface {
	layout() string // what is held; state of another layout is refused
	grow()          // one more empty row
	add(row uint32, e *stream.Event[E])
	merge(row uint32, from accumulators[E, R], src uint32) // from stays as it is
	clear(row uint32)                                      // to an empty row
	reset()                                                // to no rows, keeping memory
	snapshot() encodable                                   // a copy that may be encoded while the rows change
	encodable
	decode(r *reader, n int) // n rows into none
	emit(row uint32, key string, w stream.Window, out *R)
}

type encodable interface{ encode(w *writer) }

// table holds the accumulators of the keys of one slice, one window, or of the open sessions.
type table[E, R any] struct {
	keys keys
	rows accumulators[E, R]

	sessions    bool
	first, last []stream.Instant // a session's event times
}

func newTable[E, R any](rows accumulators[E, R], sessions bool) *table[E, R] {
	return &table[E, R]{rows: rows, sessions: sessions}
}

// put returns the row of a key, an empty one if the key is new.
func (t *table[E, R]) put(key string) (row uint32, added bool) {
	row, added = t.keys.put(key)
	if added {
		t.grow()
	}
	return row, added
}

func (t *table[E, R]) grow() {
	t.rows.grow()
	if t.sessions {
		t.first = append(t.first, stream.EndOfTime)
		t.last = append(t.last, stream.Beginning)
	}
}

func (t *table[E, R]) add(e *stream.Event[E]) {
	row, added := t.keys.put(e.Key)
	if added {
		t.grow()
	}
	if t.sessions {
		t.first[row] = min(t.first[row], e.Time)
		t.last[row] = max(t.last[row], e.Time)
	}
	t.rows.add(row, e)
}

// merge folds a row of another table into a row of this one.
func (t *table[E, R]) merge(row uint32, from *table[E, R], src uint32) {
	if t.sessions {
		t.first[row] = min(t.first[row], from.first[src])
		t.last[row] = max(t.last[row], from.last[src])
	}
	t.rows.merge(row, from.rows, src)
}

// mergeAll folds every key of another table into this one.
func (t *table[E, R]) mergeAll(from *table[E, R]) {
	for src := range uint32(from.keys.len()) {
		row, _ := t.put(from.keys.at(src))
		t.merge(row, from, src)
	}
}

// reset empties the table and keeps its memory; see keys.reset for reuse.
func (t *table[E, R]) reset(reuse bool) {
	t.keys.reset(reuse)
	t.rows.reset()
	t.first, t.last = t.first[:0], t.last[:0]
}

// tableSnapshot is a copy of a table that only encodes.
type tableSnapshot struct {
	keys        keys
	rows        encodable
	sessions    bool
	first, last []stream.Instant
}

func (t *table[E, R]) snapshot() tableSnapshot {
	return tableSnapshot{t.keys.snapshot(), t.rows.snapshot(), t.sessions, slices.Clone(t.first), slices.Clone(t.last)}
}

// frozen is the table itself as something to encode: nobody may change it any more.
func (t *table[E, R]) frozen() tableSnapshot {
	return tableSnapshot{t.keys, t.rows, t.sessions, t.first, t.last}
}

func (s *tableSnapshot) encode(w *writer) {
	s.keys.encode(w)
	if s.sessions {
		for i := range s.first {
			w.varint(int64(s.first[i]))
			w.uvarint(uint64(s.last[i] - s.first[i]))
		}
	}
	s.rows.encode(w)
}

// decode reads what encode wrote into an empty table. Without an index its keys cannot be found.
func (t *table[E, R]) decode(r *reader, index bool) {
	t.keys.decode(r, index)
	n := t.keys.len()
	if t.sessions {
		t.first, t.last = slices.Grow(t.first, n), slices.Grow(t.last, n)
		for range n {
			first := stream.Instant(r.varint())
			last := first + stream.Instant(r.uvarint())
			if last < first {
				r.fail("a session ends before it begins")
			}
			t.first, t.last = append(t.first, first), append(t.last, last)
		}
	}
	if r.err == nil {
		t.rows.decode(r, n)
	}
}
