package windows

import (
	"strings"
	"testing"

	"github.com/millstream/millstream/stream"
)

// fuzzed are operators whose saved state is fuzzed.
func fuzzed(t testing.TB) []*Columns[args] {
	return []*Columns[args]{
		columnsOf(Tumbling(100), allFuncs(t)...),
		columnsOf(Hopping(100, 30), allFuncs(t)...),
		columnsOf(Session(100), allFuncs(t)...),
	}
}

// FuzzState gives arbitrary bytes to everything that decodes saved state: nothing may panic or take
// memory out of proportion, and what is accepted can be used.
func FuzzState(f *testing.F) {
	for i, op := range fuzzed(f) {
		lane, merger := op.Lane(), op.Merger()
		for n := range 700 {
			e := event("key-"+strings.Repeat("x", n%3), stream.Instant(n/2-30), len(op.Funcs), someValues[n%len(someValues)])
			if n > 100 {
				e.Key, e.Time = "many", 5
				e.Value = event("", 0, len(op.Funcs), num(int64(n))).Value
			}
			lane.Add(&e, stream.Beginning)
		}
		f.Add(uint8(i), uint8(0), written(f, lane.Snapshot()))
		for _, s := range lane.Freeze(stream.EndOfTime) {
			data := written(f, s.Data)
			f.Add(uint8(i), uint8(1), data)
			if s.Start >= 0 {
				continue
			}
			if err := merger.Merge(stream.Frozen{Start: s.Start, End: s.End}, data); err != nil {
				f.Fatal(err)
			}
		}
		f.Add(uint8(i), uint8(2), written(f, merger.Snapshot()))
	}
	ops := fuzzed(f)
	f.Fuzz(func(t *testing.T, which, what uint8, data []byte) {
		op := ops[int(which)%len(ops)]
		lane, merger := op.Lane(), op.Merger()
		emit := func(r *Result) error {
			for i := range r.columns {
				r.AppendValue(nil, i)
			}
			return nil
		}
		switch what % 3 {
		case 0:
			if lane.Restore(data) != nil {
				return
			}
			again := written(t, lane.Snapshot())
			if err := op.Lane().Restore(again); err != nil {
				t.Fatalf("what was accepted once is refused: %v", err)
			}
			for _, s := range lane.Freeze(stream.EndOfTime) {
				if err := merger.Merge(stream.Frozen{Start: s.Start, End: s.End}, written(t, s.Data)); err != nil {
					t.Fatal(err)
				}
			}
		case 1:
			start, end := sliceAt(7, op.Slice())
			if merger.Merge(stream.Frozen{Start: start, End: end}, data) != nil {
				return
			}
			if err := merger.Merge(stream.Frozen{Start: start, End: end}, data); err != nil {
				t.Fatal(err)
			}
		case 2:
			if merger.Restore(data) != nil {
				return
			}
			if err := op.Merger().Restore(written(t, merger.Snapshot())); err != nil {
				t.Fatalf("what was accepted once is refused: %v", err)
			}
		}
		if err := merger.Advance(stream.EndOfTime, emit); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzAccumulator decodes arbitrary bytes as an accumulator of a user's type.
func FuzzAccumulator(f *testing.F) {
	c := codecOf[everything]()
	b, err := c.append(nil, &everything{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		var v everything
		if c.decode(data, &v) != nil {
			return
		}
		if _, err := c.append(nil, &v); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzParse: whatever is accepted prints as something that is accepted as the same.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"tumbling:1m", "hopping:1m/10s", "session:30s", "hopping:1m", "tumbling:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		w, err := Parse(s)
		if err != nil {
			return
		}
		if again, err := Parse(w.String()); err != nil || again != w {
			t.Errorf("%q → %q → %v, %v", s, w, again, err)
		}
		if w.Slice() <= 0 {
			t.Errorf("%q: slices of %s", s, w.Slice())
		}
	})
}
