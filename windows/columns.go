package windows

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/millstream/millstream/stream"
)

// Columns computes built-in aggregates per key and window. *Columns is a stream.Operator. Nothing may
// be changed once a pipeline runs; Arg is called by many lanes at once.
//
// Null values are skipped. An argument that its function's Check refuses is skipped too, so check
// before adding: Columns cannot say what became of it.
type Columns[E any] struct {
	Windows Windows
	Funcs   []Func
	// Arg returns the argument of Funcs[i] for an event. It is used until the next call. For
	// CountEvents it is not called; nil means that there is no argument, which count takes as
	// something to count, and every other function as null.
	Arg func(e *E, i int) *Value
	// Describe adds lines to the pipeline's plan: what the arguments are.
	Describe func() stream.Plan
}

// Result is one key's row of a window. It is valid during emit only, but its Key may be kept.
type Result struct {
	Key    string
	Window stream.Window

	columns []column
	row     uint32
}

// AppendValue appends the JSON of aggregate i, as Columns.Funcs numbers them.
func (r *Result) AppendValue(dst []byte, i int) []byte {
	return r.columns[i].appendJSON(dst, r.row)
}

// Lane implements stream.Operator.
func (c *Columns[E]) Lane() stream.LaneState[E, Result] { return newLane(c.Windows, c.rows) }

// Merger implements stream.Operator.
func (c *Columns[E]) Merger() stream.MergeState[Result] { return newMerge(c.Windows, c.rows) }

// Slice implements stream.Operator.
func (c *Columns[E]) Slice() time.Duration { return c.Windows.Slice() }

// Plan implements stream.Operator: the windows, what Describe says, the functions.
func (c *Columns[E]) Plan() stream.Plan {
	plan := stream.Plan{{Name: "--window", Value: c.Windows.String()}}
	if c.Describe != nil {
		plan = append(plan, c.Describe()...)
	}
	return append(plan, stream.Setting{Name: "aggregate functions", Value: c.functions()})
}

func (c *Columns[E]) functions() string {
	names := make([]string, len(c.Funcs))
	for i := range c.Funcs {
		names[i] = c.Funcs[i].layout()
	}
	return strings.Join(names, ", ")
}

// Validate implements stream.Operator.
func (c *Columns[E]) Validate() error {
	for i := range c.Funcs {
		switch {
		case c.Funcs[i].spec == nil:
			return fmt.Errorf("windows.Columns: Funcs[%d] is empty: make it with NewFunc or CountEvents", i)
		case !c.Funcs[i].events && c.Arg == nil:
			return errors.New("windows.Columns: Arg is missing")
		}
	}
	return c.Windows.Validate()
}

func (c *Columns[E]) rows() accumulators[E, Result] {
	r := &columnRows[E]{c: c, columns: make([]column, len(c.Funcs))}
	for i := range c.Funcs {
		r.columns[i] = c.Funcs[i].spec.column(&c.Funcs[i])
	}
	return r
}

// column holds the accumulators of one aggregate, a row a key. Rows are empty, and stay it, until the
// first value that is not null.
type column interface {
	grow()                                       // one more empty row
	add(row uint32, v *Value, at stream.Instant) // never null; count: nil without argument
	merge(row uint32, from column, src uint32)   // from is of the same type and parameters
	clear(row uint32)                            // to an empty row
	reset()                                      // to no rows, keeping memory
	snapshot() encodable                         // a copy that may be encoded while the rows change
	encode(w *writer)                            // all rows
	decode(r *reader, n int)                     // n rows into none
	appendJSON(dst []byte, row uint32) []byte
}

// columnRows are accumulators held column by column.
type columnRows[E any] struct {
	c       *Columns[E]
	columns []column
}

func (r *columnRows[E]) layout() string { return r.c.functions() }

func (r *columnRows[E]) grow() {
	for _, col := range r.columns {
		col.grow()
	}
}

func (r *columnRows[E]) add(row uint32, e *stream.Event[E]) {
	for i, col := range r.columns {
		f := &r.c.Funcs[i]
		if f.events {
			col.add(row, nil, e.Time)
			continue
		}
		if v := r.c.Arg(&e.Value, i); v == nil {
			if f.spec.bare {
				col.add(row, nil, e.Time)
			}
		} else if v.Kind != Null {
			col.add(row, v, e.Time)
		}
	}
}

func (r *columnRows[E]) merge(row uint32, from accumulators[E, Result], src uint32) {
	others := from.(*columnRows[E]).columns
	for i, col := range r.columns {
		col.merge(row, others[i], src)
	}
}

func (r *columnRows[E]) clear(row uint32) {
	for _, col := range r.columns {
		col.clear(row)
	}
}

func (r *columnRows[E]) reset() {
	for _, col := range r.columns {
		col.reset()
	}
}

func (r *columnRows[E]) emit(row uint32, key string, w stream.Window, out *Result) {
	out.Key, out.Window, out.columns, out.row = key, w, r.columns, row
}

func (r *columnRows[E]) snapshot() encodable {
	s := make(columnsSnapshot, len(r.columns))
	for i, col := range r.columns {
		s[i] = col.snapshot()
	}
	return s
}

type columnsSnapshot []encodable

func (s columnsSnapshot) encode(w *writer) {
	for _, col := range s {
		col.encode(w)
	}
}

func (r *columnRows[E]) encode(w *writer) {
	for _, col := range r.columns {
		col.encode(w)
	}
}

func (r *columnRows[E]) decode(from *reader, n int) {
	for _, col := range r.columns {
		if from.err != nil {
			return
		}
		col.decode(from, n)
	}
}
