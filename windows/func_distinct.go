package windows

import (
	"math"
	"slices"
	"strconv"

	"github.com/axiomhq/hyperloglog"
	"github.com/cespare/xxhash/v2"
)

const (
	distinctExact     = 512 // values counted exactly
	distinctPrecision = 14  // 2^14 registers of a byte: a standard error of 1.04/√2^14 = 0.8 %
)

// distinct is the state of count_distinct(x): the 64-bit hashes of the values, and a dense HyperLogLog
// once there are more than distinctExact. Both are functions of the set of values alone, whatever the
// order, the batches and the partitions they came in.
type distinct struct {
	hashes []uint64 // open addressing, a power of two long; 0 is free
	n      int
	many   *hyperloglog.Sketch
}

func newDistincts() column {
	return &sketchColumn[*distinct]{fresh: func() *distinct { return &distinct{hashes: make([]uint64, 8)} }, read: readDistinct, empty: []byte("0")}
}

// hashOf is stable: hashes of one value meet in the merger from many processes.
func hashOf(v *Value) uint64 {
	c := v.canonical()
	var h uint64
	switch c.Kind {
	case Int:
		h = uint64(c.I) ^ 0x9e3779b97f4a7c15
	case Float:
		h = math.Float64bits(c.F) ^ 0xc2b2ae3d27d4eb4f
	case String:
		h = xxhash.Sum64String(c.S)
	default:
		h = xxhash.Sum64String(c.S) ^ 0x165667b19e3779f9
	}
	// The finalizer of MurmurHash3: integers need it, and it costs strings nothing.
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return max(h, 1)
}

func (d *distinct) add(v *Value) { d.insert(hashOf(v)) }

func (d *distinct) insert(h uint64) {
	if d.many != nil {
		d.many.InsertHash(h)
		return
	}
	mask := uint64(len(d.hashes) - 1)
	i := h & mask
	for ; d.hashes[i] != 0; i = (i + 1) & mask {
		if d.hashes[i] == h {
			return
		}
	}
	d.hashes[i] = h
	switch d.n++; {
	case d.n > distinctExact:
		d.approximate()
	case d.n*4 > len(d.hashes)*3:
		old := d.hashes
		d.hashes, d.n = make([]uint64, 2*len(old)), 0
		for _, h := range old {
			if h != 0 {
				d.insert(h)
			}
		}
	}
}

func (d *distinct) approximate() {
	d.many = must(hyperloglog.NewSketch(distinctPrecision, false))
	for _, h := range d.hashes {
		if h != 0 {
			d.many.InsertHash(h)
		}
	}
	d.hashes, d.n = nil, 0
}

func (d *distinct) merge(from *distinct) {
	if from.many == nil {
		for _, h := range from.hashes {
			if h != 0 {
				d.insert(h)
			}
		}
		return
	}
	if d.many == nil {
		d.approximate()
	}
	if err := d.many.Merge(from.many); err != nil {
		panic(err) // of one precision by construction and by readDistinct
	}
}

func (d *distinct) clone() *distinct {
	c := &distinct{hashes: slices.Clone(d.hashes), n: d.n}
	if d.many != nil {
		c.many = d.many.Clone()
	}
	return c
}

func (d *distinct) appendJSON(dst []byte) []byte {
	if d.many != nil {
		return strconv.AppendUint(dst, d.many.Estimate(), 10)
	}
	return strconv.AppendInt(dst, int64(d.n), 10)
}

func (d *distinct) encode(w *writer) {
	if d.many != nil {
		w.uvarint(distinctExact + 1)
		b, err := d.many.AppendBinary(nil)
		if err != nil {
			w.fail(err)
			return
		}
		w.uvarint(uint64(len(b)))
		w.raw(b)
		return
	}
	w.uvarint(uint64(d.n))
	sorted := make([]uint64, 0, d.n)
	for _, h := range d.hashes {
		if h != 0 {
			sorted = append(sorted, h)
		}
	}
	slices.Sort(sorted)
	for _, h := range sorted {
		w.uint64(h)
	}
}

func readDistinct(r *reader) *distinct {
	d := &distinct{hashes: make([]uint64, 8)}
	n := r.uvarint()
	if n <= distinctExact {
		for range n {
			if h := r.uint64(); h != 0 {
				d.insert(h)
			}
			if r.err != nil {
				return nil
			}
		}
		if d.n != int(n) {
			r.fail("a hash comes twice")
		}
		return d
	}
	// Version, precision, bias, sparse flag, register count, then a byte a register.
	b := r.bytes()
	if len(b) != 8+1<<distinctPrecision || b[1] != distinctPrecision || b[3] != 0 {
		r.fail("a HyperLogLog sketch of another shape")
		return nil
	}
	d.hashes, d.many = nil, new(hyperloglog.Sketch)
	if err := d.many.UnmarshalBinary(b); err != nil {
		r.fail(err.Error())
		return nil
	}
	return d
}
