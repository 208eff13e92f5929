package windows

import (
	"math"
	"slices"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/DataDog/sketches-go/ddsketch/mapping"
	"github.com/DataDog/sketches-go/ddsketch/store"
)

// quantileAccuracy is the relative error of quantile(x, q).
const quantileAccuracy = 0.01

// quantileMapping cuts numbers into bins whose bounds are 2 % apart. It never changes: saved sketches
// hold bin numbers. Some 71,000 bins of either sign cover all of float64, which is what bounds a
// sketch; a million values between 1 and 1,000,000 take 690.
var quantileMapping = must(mapping.NewLogarithmicMapping(quantileAccuracy))

const mostBins = 1 << 17

// quantileExact is up to how many values a group's quantile is exact: small groups are common, and an
// estimate between two values is plain wrong there.
const quantileExact = 64

// quantile is the state of quantile(x, q): its values while they are few, and then a DDSketch that
// never merges bins, so that it depends on the values alone. Iterating a sparse store changes nothing
// in it, which snapshots rely on.
type quantile struct {
	few                []float64 // sorted; until sketch is set
	positive, negative *store.SparseStore
	sketch             *ddsketch.DDSketch
	min, max           float64 // exact: the estimate never leaves them
	q                  float64
}

func newQuantiles(q float64) column {
	fresh := func() *quantile { return newQuantile(q) }
	return &sketchColumn[*quantile]{fresh: fresh, read: func(r *reader) *quantile { return readQuantile(r, q) }, empty: []byte("null")}
}

func newQuantile(q float64) *quantile {
	return &quantile{min: math.Inf(1), max: math.Inf(-1), q: q}
}

func (s *quantile) add(v *Value) {
	i, f, kind := v.number()
	switch kind {
	case Null:
		return
	case Int:
		f = float64(i)
	}
	s.min, s.max = min(s.min, f), max(s.max, f)
	if s.sketch == nil && len(s.few) < quantileExact {
		at, _ := slices.BinarySearch(s.few, f)
		s.few = slices.Insert(s.few, at, f)
		return
	}
	s.estimated()
	s.count(f)
}

// estimated goes over to a sketch.
func (s *quantile) estimated() {
	if s.sketch != nil {
		return
	}
	s.positive, s.negative = store.NewSparseStore(), store.NewSparseStore()
	s.sketch = ddsketch.NewDDSketch(quantileMapping, s.positive, s.negative)
	for _, f := range s.few {
		s.count(f)
	}
	s.few = nil
}

func (s *quantile) count(f float64) {
	most := s.sketch.MaxIndexableValue()
	if err := s.sketch.Add(max(-most, min(most, f))); err != nil {
		panic(err) // of no value within these bounds
	}
}

func (s *quantile) merge(from *quantile) {
	s.min, s.max = min(s.min, from.min), max(s.max, from.max)
	if s.sketch == nil && from.sketch == nil && len(s.few)+len(from.few) <= quantileExact {
		s.few = append(s.few, from.few...)
		slices.Sort(s.few)
		return
	}
	s.estimated()
	if from.sketch == nil {
		for _, f := range from.few {
			s.count(f)
		}
		return
	}
	if err := s.sketch.MergeWith(from.sketch); err != nil {
		panic(err) // of one mapping by construction
	}
}

func (s *quantile) clone() *quantile {
	c := newQuantile(s.q)
	c.merge(s)
	return c
}

func (s *quantile) appendJSON(dst []byte) []byte {
	return appendFloat(dst, max(s.min, min(s.max, s.estimate())))
}

// estimate returns the value at rank ⌈q·n⌉, counted from 1: the smallest one that at least a share q
// of the values does not exceed. The sketch's own method has another idea of a rank between two values.
func (s *quantile) estimate() float64 {
	if s.sketch == nil {
		return s.few[s.rank(len(s.few))]
	}
	below, zeros, n := s.negative.TotalCount(), s.sketch.GetZeroCount(), s.sketch.GetCount()
	rank := float64(s.rank(int(n)))
	switch {
	case rank == 0:
		return s.min
	case rank == n-1:
		return s.max
	case rank < below:
		return -quantileMapping.Value(s.negative.KeyAtRank(below - 1 - rank))
	case rank < below+zeros:
		return 0
	}
	return quantileMapping.Value(s.positive.KeyAtRank(rank - below - zeros))
}

// rank is counted from 0.
func (s *quantile) rank(n int) int {
	r := int(math.Ceil(s.q*float64(n)-1e-9)) - 1 // 0.07·100 is a little more than 7
	return max(0, min(r, n-1))
}

type bin struct {
	index int
	count float64
}

func (s *quantile) encode(w *writer) {
	w.float(s.min)
	w.float(s.max)
	w.bool(s.sketch != nil)
	if s.sketch == nil {
		w.uvarint(uint64(len(s.few)))
		for _, f := range s.few {
			w.float(f)
		}
		return
	}
	w.uvarint(uint64(s.sketch.GetZeroCount()))
	var bins []bin
	for _, st := range []*store.SparseStore{s.positive, s.negative} {
		bins = bins[:0]
		st.ForEach(func(index int, count float64) bool {
			bins = append(bins, bin{index, count})
			return false
		})
		slices.SortFunc(bins, func(a, b bin) int { return a.index - b.index })
		w.uvarint(uint64(len(bins)))
		for _, b := range bins {
			w.varint(int64(b.index))
			w.uvarint(uint64(b.count))
		}
	}
}

func readQuantile(r *reader, q float64) *quantile {
	s := newQuantile(q)
	s.min, s.max = r.float(), r.float()
	if !r.bool() {
		for range r.count(8) {
			s.few = append(s.few, r.float())
		}
		if len(s.few) == 0 || len(s.few) > quantileExact || !slices.IsSorted(s.few) {
			r.fail("a quantile with impossible values")
			return nil
		}
		return s
	}
	s.estimated()
	if zeros := r.uvarint(); zeros > 0 {
		if err := s.sketch.AddWithCount(0, float64(zeros)); err != nil {
			r.fail(err.Error())
		}
	}
	for _, st := range []*store.SparseStore{s.positive, s.negative} {
		for range r.count(2) {
			index, count := r.varint(), r.uvarint()
			if index < -mostBins || index > mostBins || count == 0 {
				r.fail("a quantile sketch with an impossible bin")
			}
			if r.err != nil {
				return nil
			}
			st.AddWithCount(int(index), float64(count))
		}
	}
	return s
}
