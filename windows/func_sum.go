package windows

import (
	"math"
	"math/big"
	"slices"
	"strconv"

	"github.com/millstream/millstream/stream"
)

// counts is count(x) and count().
type counts struct{ n []int64 }

func (c *counts) grow()                                      { c.n = append(c.n, 0) }
func (c *counts) add(row uint32, _ *Value, _ stream.Instant) { c.n[row]++ }
func (c *counts) merge(row uint32, from column, src uint32)  { c.n[row] += from.(*counts).n[src] }
func (c *counts) clear(row uint32)                           { c.n[row] = 0 }
func (c *counts) reset()                                     { c.n = c.n[:0] }
func (c *counts) snapshot() encodable                        { return &counts{slices.Clone(c.n)} }
func (c *counts) encode(w *writer)                           { encodeInts(w, c.n) }
func (c *counts) decode(r *reader, n int)                    { c.n = decodeInts(r, c.n, n) }

func (c *counts) appendJSON(dst []byte, row uint32) []byte {
	return strconv.AppendInt(dst, c.n[row], 10)
}

func encodeInts(w *writer, v []int64) {
	for _, n := range v {
		w.varint(n)
	}
}

func decodeInts(r *reader, into []int64, n int) []int64 {
	into = slices.Grow(into, n)
	for range n {
		into = append(into, r.varint())
	}
	return into
}

const (
	hasInt = 1 << iota
	hasFloat
)

// sums is sum(x). Integers and floats are summed apart, so that the order of values and merges does
// not decide where integers begin to round.
type sums struct {
	has  []uint8
	ints []int64 // the low 64 bits, signed
	wide []int64 // multiples of 2^64 beside ints; nil while no row needs it

	// Neumaier's compensated summation; nil while there are no floats.
	floats []float64
	lost   []float64 // what rounding took from floats
}

func (c *sums) grow() {
	c.has = append(c.has, 0)
	c.ints = append(c.ints, 0)
	if c.wide != nil {
		c.wide = append(c.wide, 0)
	}
	if c.floats != nil {
		c.floats, c.lost = append(c.floats, 0), append(c.lost, 0)
	}
}

func (c *sums) add(row uint32, v *Value, _ stream.Instant) {
	if v.Kind == Int {
		c.addInt(row, v.I)
		return
	}
	switch i, f, kind := v.number(); kind {
	case Int:
		c.addInt(row, i)
	case Float:
		c.addFloat(row, f, 0)
	}
}

func (c *sums) addInt(row uint32, i int64) {
	c.has[row] |= hasInt
	old := c.ints[row]
	s := old + i
	c.ints[row] = s
	if (old^s)&(i^s) < 0 {
		c.carry(row, i)
	}
}

// carry notes that adding i overflowed the row.
func (c *sums) carry(row uint32, i int64) {
	if c.wide == nil {
		c.wide = make([]int64, len(c.ints), cap(c.ints))
	}
	if i < 0 {
		c.wide[row]--
	} else {
		c.wide[row]++
	}
}

func (c *sums) addFloat(row uint32, f, lost float64) {
	c.has[row] |= hasFloat
	if c.floats == nil {
		c.floats, c.lost = make([]float64, len(c.ints), cap(c.ints)), make([]float64, len(c.ints), cap(c.ints))
	}
	s, e := twoSum(c.floats[row], f)
	c.floats[row] = s
	c.lost[row] += e + lost
}

// twoSum returns a + b rounded, and what the rounding took.
func twoSum(a, b float64) (sum, lost float64) {
	sum = a + b
	if math.Abs(a) >= math.Abs(b) {
		return sum, (a - sum) + b
	}
	return sum, (b - sum) + a
}

func (c *sums) merge(row uint32, from column, src uint32) {
	o := from.(*sums)
	if o.has[src]&hasInt != 0 {
		c.addInt(row, o.ints[src])
		if o.wide != nil && o.wide[src] != 0 {
			if c.wide == nil {
				c.wide = make([]int64, len(c.ints), cap(c.ints))
			}
			c.wide[row] += o.wide[src]
		}
	}
	if o.has[src]&hasFloat != 0 {
		c.addFloat(row, o.floats[src], o.lost[src])
	}
}

func (c *sums) clear(row uint32) {
	c.has[row], c.ints[row] = 0, 0
	if c.wide != nil {
		c.wide[row] = 0
	}
	if c.floats != nil {
		c.floats[row], c.lost[row] = 0, 0
	}
}

func (c *sums) reset() { *c = sums{has: c.has[:0], ints: c.ints[:0]} }

func (c *sums) snapshot() encodable {
	return &sums{slices.Clone(c.has), slices.Clone(c.ints), slices.Clone(c.wide), slices.Clone(c.floats), slices.Clone(c.lost)}
}

// float returns the sum as a float.
func (c *sums) float(row uint32) float64 {
	// Both halves of the integer are floats exactly.
	low := c.ints[row] & math.MaxUint32
	f, lost := twoSum(float64(c.ints[row]-low), float64(low))
	if c.wide != nil {
		var l float64
		f, l = twoSum(f, float64(c.wide[row])*(1<<64))
		lost += l
	}
	if c.has[row]&hasFloat != 0 {
		var l float64
		f, l = twoSum(f, c.floats[row])
		lost += l + c.lost[row]
	}
	return f + lost
}

func (c *sums) appendJSON(dst []byte, row uint32) []byte {
	switch {
	case c.has[row] == 0:
		return append(dst, "null"...)
	case c.has[row]&hasFloat != 0:
		return appendFloat(dst, c.float(row))
	case c.wide == nil || c.wide[row] == 0:
		return strconv.AppendInt(dst, c.ints[row], 10)
	}
	n := new(big.Int).Lsh(big.NewInt(c.wide[row]), 64)
	return n.Add(n, big.NewInt(c.ints[row])).Append(dst, 10)
}

func (c *sums) encode(w *writer) {
	w.bool(c.wide != nil)
	for i, has := range c.has {
		w.byte(has)
		if has&hasInt != 0 {
			w.varint(c.ints[i])
			if c.wide != nil {
				w.varint(c.wide[i])
			}
		}
		if has&hasFloat != 0 {
			w.float(c.floats[i])
			w.float(c.lost[i])
		}
	}
}

func (c *sums) decode(r *reader, n int) {
	wide := r.bool()
	c.has, c.ints = slices.Grow(c.has, n), slices.Grow(c.ints, n)
	for range n {
		row := uint32(len(c.ints))
		c.grow()
		has := r.byte()
		if has > hasInt|hasFloat {
			r.fail("a sum of no known kind")
		}
		if r.err != nil {
			return
		}
		if has&hasInt != 0 {
			c.addInt(row, r.varint())
			if wide {
				if c.wide == nil {
					c.wide = make([]int64, len(c.ints), cap(c.ints))
				}
				c.wide[row] = r.varint()
			}
		}
		if has&hasFloat != 0 {
			f := r.float()
			c.addFloat(row, f, 0)
			c.floats[row], c.lost[row] = f, r.float()
		}
	}
}

// averages is avg(x).
type averages struct {
	sums sums
	n    []int64
}

func (c *averages) grow() {
	c.sums.grow()
	c.n = append(c.n, 0)
}

func (c *averages) add(row uint32, v *Value, at stream.Instant) {
	if numeric(v) == "" {
		c.sums.add(row, v, at)
		c.n[row]++
	}
}

func (c *averages) merge(row uint32, from column, src uint32) {
	o := from.(*averages)
	c.sums.merge(row, &o.sums, src)
	c.n[row] += o.n[src]
}

func (c *averages) clear(row uint32) {
	c.sums.clear(row)
	c.n[row] = 0
}

func (c *averages) reset() {
	c.sums.reset()
	c.n = c.n[:0]
}

func (c *averages) snapshot() encodable {
	return &averages{*c.sums.snapshot().(*sums), slices.Clone(c.n)}
}

func (c *averages) encode(w *writer) {
	c.sums.encode(w)
	encodeInts(w, c.n)
}

func (c *averages) decode(r *reader, n int) {
	c.sums.decode(r, n)
	c.n = decodeInts(r, c.n, n)
}

func (c *averages) appendJSON(dst []byte, row uint32) []byte {
	if c.n[row] == 0 {
		return append(dst, "null"...)
	}
	return appendFloat(dst, c.sums.float(row)/float64(c.n[row]))
}

// deviations is stddev(x), by the updates of Welford (values) and Chan et al. (merges).
type deviations struct {
	n    []int64
	mean []float64
	m2   []float64 // sum of squared distances from the mean
}

func (c *deviations) grow() {
	c.n, c.mean, c.m2 = append(c.n, 0), append(c.mean, 0), append(c.m2, 0)
}

func (c *deviations) add(row uint32, v *Value, _ stream.Instant) {
	i, f, kind := v.number()
	switch kind {
	case Null:
		return
	case Int:
		f = float64(i)
	}
	c.n[row]++
	d := f - c.mean[row]
	c.mean[row] += d / float64(c.n[row])
	c.m2[row] += d * (f - c.mean[row])
}

func (c *deviations) merge(row uint32, from column, src uint32) {
	o := from.(*deviations)
	a, b := float64(c.n[row]), float64(o.n[src])
	if b == 0 {
		return
	}
	if a == 0 {
		c.n[row], c.mean[row], c.m2[row] = o.n[src], o.mean[src], o.m2[src]
		return
	}
	d := o.mean[src] - c.mean[row]
	c.mean[row] += d * b / (a + b)
	c.m2[row] += o.m2[src] + d*d*a*b/(a+b)
	c.n[row] += o.n[src]
}

func (c *deviations) clear(row uint32) { c.n[row], c.mean[row], c.m2[row] = 0, 0, 0 }

func (c *deviations) reset() { c.n, c.mean, c.m2 = c.n[:0], c.mean[:0], c.m2[:0] }

func (c *deviations) snapshot() encodable {
	return &deviations{slices.Clone(c.n), slices.Clone(c.mean), slices.Clone(c.m2)}
}

func (c *deviations) encode(w *writer) {
	for i, n := range c.n {
		w.varint(n)
		w.float(c.mean[i])
		w.float(c.m2[i])
	}
}

func (c *deviations) decode(r *reader, n int) {
	for range n {
		c.n, c.mean, c.m2 = append(c.n, r.varint()), append(c.mean, r.float()), append(c.m2, r.float())
	}
}

func (c *deviations) appendJSON(dst []byte, row uint32) []byte {
	if c.n[row] < 2 {
		return append(dst, "null"...)
	}
	return appendFloat(dst, math.Sqrt(c.m2[row]/float64(c.n[row]-1)))
}
