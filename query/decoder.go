package query

import (
	"errors"
	"fmt"

	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"

	"github.com/millstream/millstream/query/fields"
	"github.com/millstream/millstream/stream"
	"github.com/millstream/millstream/windows"
)

// Event is what a record is to the pipeline once it is decoded: all expressions have been evaluated,
// while its bytes were in the processor's cache, and only their outcome is kept.
type Event struct {
	filtered bool            // --where is false
	err      error           // why the record is dead-lettered in spite of having a key and a time
	args     []windows.Value // of the aggregates, with --window
	row      []byte          // without
}

// decoder decodes the records of one lane.
type decoder struct {
	q       *Query
	scanner *fields.Scanner
	slots   []fields.Value // of the record at hand
	vm      vm.VM
	env     []any // what the machine sees of slots
	boxed   any   // env

	// Memory of the batch's events, used again after Reset.
	args []windows.Value
	keys []byte

	members []fields.Field
	rows    []byte
	number  []byte // scratch for a number in a key
}

func (q *Query) newDecoder() stream.Decoder[Event] {
	d := &decoder{q: q, scanner: q.plan.NewScanner(), slots: make([]fields.Value, q.plan.Len()), env: make([]any, q.plan.Len())}
	d.boxed = d.env
	return d
}

// Reset implements stream.Decoder.
func (d *decoder) Reset() {
	d.args, d.keys = d.args[:0], d.keys[:0]
}

// Decode implements stream.Decoder. It gives the event its key and time, or fails; what --where,
// --require and the aggregates make of the event is kept in it for Keep and Require, which the
// engine asks in its own order.
func (d *decoder) Decode(r *stream.Record, e *stream.Event[Event]) error {
	if err := d.scanner.Scan(r.Data, d.slots); err != nil {
		return err
	}
	q := d.q
	if q.absent.watching.Load() {
		q.absent.see(d, r.Data)
	}
	var err error
	if e.Key, err = d.key(); err != nil {
		return err
	}
	if e.Time, err = d.time(r); err != nil {
		return err
	}
	d.judge(r, &e.Value)
	return nil
}

func (d *decoder) time(r *stream.Record) (stream.Instant, error) {
	x := d.q.time
	if x == nil {
		if r.Arrived == 0 && d.q.windowed {
			return 0, fmt.Errorf("%w: the source did not say when the record arrived", stream.ErrNoTime)
		}
		return r.Arrived, nil
	}
	var v fields.Value
	if x.slot >= 0 {
		v = d.slots[x.slot]
	} else {
		var err error
		if v, err = d.value(x); err != nil {
			return 0, err
		}
	}
	t, err := d.q.clock.read(&v)
	if err != nil {
		return 0, fmt.Errorf("%w: %s: %w", stream.ErrNoTime, x.text, err)
	}
	return t, nil
}

// judge evaluates everything that is asked of a record with a key and a time.
func (d *decoder) judge(r *stream.Record, e *Event) {
	*e = Event{}
	q := d.q
	if q.where != nil {
		ok, err := d.holds(q.where)
		if err != nil {
			e.err = err
			return
		}
		if !ok {
			e.filtered = true
			return
		}
	}
	for i := range q.require {
		ok, err := d.holds(q.require[i].x)
		if err != nil {
			e.err = err
			return
		}
		if !ok {
			e.err = q.require[i].unmet
			return
		}
	}
	if q.windowed {
		e.args, e.err = d.arguments()
	} else {
		e.row, e.err = d.row(r.Data)
	}
}

// holds decides a condition.
func (d *decoder) holds(x *expression) (bool, error) {
	if x.quick != nil {
		if v := x.quick(d.slots); v != unsure {
			return v == yes, nil
		}
	}
	v, err := d.eval(x)
	if err == nil {
		if v, err = boolean(v); err == nil {
			return v.(bool), nil
		}
	}
	return false, unusable(x, err)
}

// eval runs an expression on the machine.
func (d *decoder) eval(x *expression) (any, error) {
	for _, slot := range x.uses {
		v, err := toAny(&d.slots[slot])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.q.paths.list[slot], err)
		}
		d.env[slot] = v
	}
	v, err := d.vm.Run(x.program, d.boxed)
	if err != nil {
		var at *file.Error
		if errors.As(err, &at) {
			return nil, errors.New(at.Message)
		}
	}
	return v, err
}

// recordError is why one record is dead-lettered.
type recordError struct {
	reason string // few different ones: they label a counter
	detail string
}

func (e *recordError) Error() string  { return e.detail }
func (e *recordError) Reason() string { return e.reason }

// unusable says that an expression cannot be evaluated for a record.
func unusable(x *expression, err error) error {
	return &recordError{reason: x.flag + " failed: " + bounded(x.text), detail: x.flag + ": " + bounded(x.text) + ": " + err.Error()}
}

// bounded cuts the text of an expression for a reason.
func bounded(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && s[cut]&0xC0 == 0x80 {
		cut--
	}
	return s[:cut] + "…"
}
