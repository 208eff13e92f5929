package windows

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// top is the state of top(x, n): the counters of Misra and Gries, merged as Agarwal et al. do
// ("Mergeable Summaries", 2012). While at most capacity values are distinct every count is exact.
// Beyond, a count is too small by at most N/(capacity+1) for N values, in whatever way they were split
// and merged, and never too large; a value more frequent than that is never missing.
type top struct {
	n, capacity int
	counts      map[Value]int64 // F is 0 but for Float
}

func newTops(n int) column {
	fresh := func() *top { return newTop(n) }
	return &sketchColumn[*top]{fresh: fresh, read: func(r *reader) *top { return readTop(r, n) }, empty: []byte("[]")}
}

func newTop(n int) *top {
	return &top{n: n, capacity: max(128, 10*n), counts: make(map[Value]int64)}
}

// bare returns v as a key: equal values are equal keys.
func (v *Value) bare() Value {
	switch c := v.canonical(); c.Kind {
	case Int:
		return Value{Kind: Int, I: c.I}
	case Float:
		return Value{Kind: Float, F: c.F}
	default:
		return Value{Kind: c.Kind, S: c.S}
	}
}

func (t *top) add(v *Value) {
	if rankable(v) != "" {
		return
	}
	key := v.bare()
	if n, ok := t.counts[key]; ok {
		t.counts[key] = n + 1
		return
	}
	if len(t.counts) < t.capacity {
		key.S = strings.Clone(key.S)
		t.counts[key] = 1
		return
	}
	t.subtract(1)
}

// subtract takes n from every counter and drops those that reach 0.
func (t *top) subtract(n int64) {
	for key, count := range t.counts {
		if count <= n {
			delete(t.counts, key)
		} else {
			t.counts[key] = count - n
		}
	}
}

func (t *top) merge(from *top) {
	for key, count := range from.counts {
		t.counts[key] += count
	}
	if len(t.counts) <= t.capacity {
		return
	}
	all := make([]int64, 0, len(t.counts))
	for _, count := range t.counts {
		all = append(all, count)
	}
	slices.Sort(all)
	t.subtract(all[len(all)-1-t.capacity])
}

func (t *top) clone() *top {
	c := newTop(t.n)
	for key, count := range t.counts {
		c.counts[key] = count
	}
	return c
}

type ranked struct {
	value Value
	count int64
}

// ranked returns the counters by count, then by value.
func (t *top) ranked() []ranked {
	all := make([]ranked, 0, len(t.counts))
	for key, count := range t.counts {
		all = append(all, ranked{key, count})
	}
	slices.SortFunc(all, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(b.count, a.count), compare(&a.value, &b.value))
	})
	return all
}

func (t *top) appendJSON(dst []byte) []byte {
	all := t.ranked()
	dst = append(dst, '[')
	for i := range all[:min(t.n, len(all))] {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"value":`...)
		dst = all[i].value.appendJSON(dst)
		dst = append(dst, `,"count":`...)
		dst = strconv.AppendInt(dst, all[i].count, 10)
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

func (t *top) encode(w *writer) {
	all := t.ranked()
	w.uvarint(uint64(len(all)))
	for i := range all {
		encodeValue(w, &all[i].value)
		w.uvarint(uint64(all[i].count))
	}
}

func readTop(r *reader, n int) *top {
	t := newTop(n)
	count := r.count(2)
	if count > t.capacity {
		r.fail("more counters than top holds")
		return nil
	}
	for range count {
		v, c := decodeValue(r), int64(r.uvarint())
		if v.Kind == Null || c <= 0 {
			r.fail("a counter without value or count")
		}
		if r.err != nil {
			return nil
		}
		t.counts[v.bare()] = c
	}
	return t
}
