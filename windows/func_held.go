package windows

import (
	"math"
	"slices"
	"strings"

	"github.com/millstream/millstream/stream"
)

// held is a column of values that are kept as they came.
type held struct {
	kind []ValueKind
	num  []int64  // Int, or the bits of a Float
	text []string // nil while there are no strings; never points into a record
}

func (h *held) grow() {
	h.kind, h.num = append(h.kind, Null), append(h.num, 0)
	if h.text != nil {
		h.text = append(h.text, "")
	}
}

func (h *held) get(row uint32) (v Value) {
	v.Kind = h.kind[row]
	switch v.Kind {
	case Int:
		v.I = h.num[row]
	case Float:
		v.F = math.Float64frombits(uint64(h.num[row]))
	case String, Other:
		v.S = h.text[row]
	}
	return v
}

// set keeps a value. own says that its text may be kept without a copy.
func (h *held) set(row uint32, v *Value, own bool) {
	h.kind[row] = v.Kind
	switch v.Kind {
	case Int:
		h.num[row] = v.I
	case Float:
		h.num[row] = int64(math.Float64bits(v.F))
	case String, Other:
		if h.text == nil {
			h.text = make([]string, len(h.kind), cap(h.kind))
		}
		if h.text[row] == v.S {
			return
		}
		if own {
			h.text[row] = v.S
		} else {
			h.text[row] = strings.Clone(v.S)
		}
		return
	}
	if h.text != nil {
		h.text[row] = ""
	}
}

func (h *held) clear(row uint32) { h.set(row, &Value{}, true) }

func (h *held) reset() { *h = held{kind: h.kind[:0], num: h.num[:0]} }

func (h *held) clone() held {
	return held{slices.Clone(h.kind), slices.Clone(h.num), slices.Clone(h.text)}
}

func (h *held) encode(w *writer) {
	for i := range h.kind {
		v := h.get(uint32(i))
		encodeValue(w, &v)
	}
}

func (h *held) decode(r *reader, n int) {
	h.kind, h.num = slices.Grow(h.kind, n), slices.Grow(h.num, n)
	for row := range uint32(n) {
		h.grow()
		v := decodeValue(r)
		if r.err != nil {
			return
		}
		h.set(row, &v, true)
	}
}

func encodeValue(w *writer, v *Value) {
	w.byte(byte(v.Kind))
	switch v.Kind {
	case Int:
		w.varint(v.I)
	case Float:
		w.float(v.F)
	case String, Other:
		w.string(v.S)
	}
}

func decodeValue(r *reader) (v Value) {
	v.Kind = ValueKind(r.byte())
	switch v.Kind {
	case Null:
	case Int:
		v.I = r.varint()
	case Float:
		v.F = r.float()
	case String, Other:
		v.S = r.string()
	default:
		r.fail("a value of no known kind")
	}
	return v
}

func (h *held) appendJSON(dst []byte, row uint32) []byte {
	v := h.get(row)
	return v.appendJSON(dst)
}

// extremes is min(x) and max(x).
type extremes struct {
	held
	sign int // −1: min, 1: max
}

func (c *extremes) add(row uint32, v *Value, _ stream.Instant) {
	if v.Kind == Int && c.kind[row] == Int {
		if c.sign > 0 {
			c.num[row] = max(c.num[row], v.I)
		} else {
			c.num[row] = min(c.num[row], v.I)
		}
		return
	}
	c.offer(row, v, false)
}

func (c *extremes) offer(row uint32, v *Value, own bool) {
	if v.Kind == Null || comparison(v) != "" {
		return
	}
	if now := c.get(row); now.Kind == Null || c.better(v, &now) {
		c.set(row, v, own)
	}
}

// better reports whether a replaces b. Of equal numbers the integer stays, for min and max alike.
func (c *extremes) better(a, b *Value) bool {
	if a.Kind <= Float && b.Kind <= Float && a.Kind != b.Kind {
		x, y := a.canonical(), b.canonical()
		if x == y {
			return a.Kind == Int
		}
	}
	return compare(a, b)*c.sign > 0
}

func (c *extremes) merge(row uint32, from column, src uint32) {
	v := from.(*extremes).get(src)
	c.offer(row, &v, true)
}

func (c *extremes) snapshot() encodable { return &extremes{held: c.clone()} }

// edges is first(x) and last(x).
type edges struct {
	held
	at   []stream.Instant // the value's event time
	last bool
}

func (c *edges) grow() {
	c.held.grow()
	c.at = append(c.at, 0)
}

func (c *edges) add(row uint32, v *Value, at stream.Instant) { c.offer(row, v, at, false) }

// offer takes values in order of partition and position, so that of equal times the first offered is
// the first and the last offered is the last.
func (c *edges) offer(row uint32, v *Value, at stream.Instant, own bool) {
	if v.Kind == Null {
		return
	}
	if c.kind[row] == Null || c.last && at >= c.at[row] || !c.last && at < c.at[row] {
		c.set(row, v, own)
		c.at[row] = at
	}
}

func (c *edges) merge(row uint32, from column, src uint32) {
	o := from.(*edges)
	v := o.get(src)
	c.offer(row, &v, o.at[src], true)
}

func (c *edges) clear(row uint32) {
	c.held.clear(row)
	c.at[row] = 0
}

func (c *edges) reset() {
	c.held.reset()
	c.at = c.at[:0]
}

func (c *edges) snapshot() encodable { return &edges{held: c.clone(), at: slices.Clone(c.at)} }

func (c *edges) encode(w *writer) {
	c.held.encode(w)
	for i, at := range c.at {
		if c.kind[i] != Null {
			w.varint(int64(at))
		}
	}
}

func (c *edges) decode(r *reader, n int) {
	c.held.decode(r, n)
	if r.err != nil {
		return
	}
	c.at = slices.Grow(c.at, n)
	for i := range n {
		var at stream.Instant
		if c.kind[i] != Null {
			at = stream.Instant(r.varint())
		}
		c.at = append(c.at, at)
	}
}
