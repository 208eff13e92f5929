package windows

import (
	"errors"
	"time"

	"github.com/millstream/millstream/stream"
)

// Aggregation folds the events of each key and window into an accumulator of the caller's own type A.
// The zero A is an empty accumulator. Its address is a stream.Operator. Nothing may be changed once a
// pipeline runs. The functions are called by many lanes at once, for different accumulators.
//
// Accumulators are saved with every checkpoint. If *A implements encoding.BinaryUnmarshaler, and
// BinaryAppender or BinaryMarshaler, these methods save it; otherwise its exported fields are saved
// as CBOR, and Validate refuses a type that would lose something. An A without pointers, slices and
// maps is copied while the lane stands still and encoded later; any other is encoded at once, which
// holds the lane up for longer.
type Aggregation[E, A, R any] struct {
	Windows Windows
	// Add folds one event of the key. Strings of the event may point into the record: clone
	// (strings.Clone) what the accumulator keeps.
	Add func(acc *A, e *stream.Event[E])
	// Merge folds src into dst, which may be empty. Partials are merged in order of time slices, then
	// of partition names. src is used again: Merge must not change it, nor let dst refer to its slices
	// or maps.
	Merge func(dst, src *A)
	// Emit makes the result of a key and window. It may keep the key; it must neither keep nor change
	// the accumulator, which may count in further windows.
	Emit func(key string, w stream.Window, acc *A) R
}

// Lane implements stream.Operator.
func (a *Aggregation[E, A, R]) Lane() stream.LaneState[E, R] { return newLane(a.Windows, a.rows()) }

// Merger implements stream.Operator.
func (a *Aggregation[E, A, R]) Merger() stream.MergeState[R] { return newMerge(a.Windows, a.rows()) }

// Slice implements stream.Operator.
func (a *Aggregation[E, A, R]) Slice() time.Duration { return a.Windows.Slice() }

// Plan implements stream.Operator.
func (a *Aggregation[E, A, R]) Plan() stream.Plan {
	return stream.Plan{{Name: "Windows", Value: a.Windows.String()}}
}

// Validate implements stream.Operator.
func (a *Aggregation[E, A, R]) Validate() error {
	switch {
	case a.Add == nil:
		return errors.New("windows.Aggregation: Add is missing")
	case a.Merge == nil:
		return errors.New("windows.Aggregation: Merge is missing: every partition has partial results of its own, and they must be merged")
	case a.Emit == nil:
		return errors.New("windows.Aggregation: Emit is missing")
	}
	if err := a.Windows.Validate(); err != nil {
		return err
	}
	return checkAccumulator[A]()
}

func (a *Aggregation[E, A, R]) rows() func() accumulators[E, R] {
	codec := codecOf[A]()
	return func() accumulators[E, R] { return &userRows[E, A, R]{a: a, codec: codec} }
}

// userRows are accumulators of a user's type.
type userRows[E, A, R any] struct {
	a     *Aggregation[E, A, R]
	codec accumulatorCodec[A]
	accs  []A
	buf   []byte
}

func (u *userRows[E, A, R]) layout() string { return "user" }

func (u *userRows[E, A, R]) grow() {
	var zero A
	u.accs = append(u.accs, zero)
}

func (u *userRows[E, A, R]) add(row uint32, e *stream.Event[E]) { u.a.Add(&u.accs[row], e) }

func (u *userRows[E, A, R]) merge(row uint32, from accumulators[E, R], src uint32) {
	u.a.Merge(&u.accs[row], &from.(*userRows[E, A, R]).accs[src])
}

func (u *userRows[E, A, R]) clear(row uint32) { clear(u.accs[row : row+1]) }

func (u *userRows[E, A, R]) reset() {
	clear(u.accs)
	u.accs = u.accs[:0]
}

func (u *userRows[E, A, R]) emit(row uint32, key string, w stream.Window, out *R) {
	*out = u.a.Emit(key, w, &u.accs[row])
}

// snapshot copies accumulators that refer to nothing; others are encoded while they stand still.
func (u *userRows[E, A, R]) snapshot() encodable {
	if u.codec.flat {
		return &userRows[E, A, R]{codec: u.codec, accs: append([]A(nil), u.accs...)}
	}
	var encoded encodedRows
	w := newWriter(&encoded)
	u.encode(w)
	_, encoded.err = w.done()
	return &encoded
}

func (u *userRows[E, A, R]) encode(w *writer) {
	for i := range u.accs {
		b, err := u.codec.append(u.buf[:0], &u.accs[i])
		if err != nil {
			w.fail(err)
			return
		}
		w.uvarint(uint64(len(b)))
		w.raw(b)
		u.buf = b
	}
}

func (u *userRows[E, A, R]) decode(r *reader, n int) {
	u.accs = append(u.accs, make([]A, n)...)
	for i := range u.accs {
		b := r.bytes()
		if r.err != nil {
			return
		}
		if err := u.codec.decode(b, &u.accs[i]); err != nil {
			r.fail(err.Error())
			return
		}
	}
}

// encodedRows are rows that are bytes already.
type encodedRows struct {
	data []byte
	err  error
}

func (e *encodedRows) Write(p []byte) (int, error) {
	e.data = append(e.data, p...)
	return len(p), nil
}

func (e *encodedRows) encode(w *writer) {
	if e.err != nil {
		w.fail(e.err)
		return
	}
	w.raw(e.data)
}
