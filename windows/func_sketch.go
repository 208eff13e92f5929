package windows

import (
	"slices"

	"github.com/millstream/millstream/stream"
)

// sketch is the state of one row of a sketchColumn: bounded, made when the first value comes, and
// shared with snapshots until it changes.
type sketch[S any] interface {
	comparable
	clone() S
	add(v *Value)
	merge(from S) // from stays as it is
	encode(w *writer)
	appendJSON(dst []byte) []byte
}

// sketchColumn holds a sketch a row. A snapshot copies only pointers; the lane clones a sketch the
// first time it changes one that a snapshot may still read.
type sketchColumn[S sketch[S]] struct {
	fresh   func() S
	read    func(r *reader) S
	empty   []byte // the JSON of a row without values
	rows    []S    // the zero S: no values
	born    []uint64
	current uint64 // rows born before belong to a snapshot, too
}

func (c *sketchColumn[S]) grow() {
	var none S
	c.rows, c.born = append(c.rows, none), append(c.born, 0)
}

// own returns the row's sketch as one that may be changed.
func (c *sketchColumn[S]) own(row uint32) S {
	var none S
	switch {
	case c.rows[row] == none:
		c.rows[row] = c.fresh()
	case c.born[row] < c.current:
		c.rows[row] = c.rows[row].clone()
	}
	c.born[row] = c.current
	return c.rows[row]
}

func (c *sketchColumn[S]) add(row uint32, v *Value, _ stream.Instant) { c.own(row).add(v) }

func (c *sketchColumn[S]) merge(row uint32, from column, src uint32) {
	var none S
	if s := from.(*sketchColumn[S]).rows[src]; s != none {
		c.own(row).merge(s)
	}
}

func (c *sketchColumn[S]) clear(row uint32) { clear(c.rows[row : row+1]) }

func (c *sketchColumn[S]) reset() {
	clear(c.rows)
	c.rows, c.born = c.rows[:0], c.born[:0]
}

func (c *sketchColumn[S]) snapshot() encodable {
	c.current++
	return &sketchColumn[S]{rows: slices.Clone(c.rows)}
}

func (c *sketchColumn[S]) encode(w *writer) {
	var none S
	for _, s := range c.rows {
		w.bool(s != none)
		if s != none {
			s.encode(w)
		}
	}
}

func (c *sketchColumn[S]) decode(r *reader, n int) {
	for range n {
		c.grow()
		if r.bool() {
			c.rows[len(c.rows)-1] = c.read(r)
			c.born[len(c.rows)-1] = c.current
		}
		if r.err != nil {
			return
		}
	}
}

func (c *sketchColumn[S]) appendJSON(dst []byte, row uint32) []byte {
	var none S
	if s := c.rows[row]; s != none {
		return s.appendJSON(dst)
	}
	return append(dst, c.empty...)
}
