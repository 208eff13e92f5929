package query

import (
	"context"
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
	err      error // why the record is dead-lettered in spite of having a key and a time
	filtered bool  // --where is false
	at       int32 // of its arguments in d.args, or of its row in d.rows; before that with joins, of what is saved of it
	d        *decoder
}

// settled reports whether the record's fate is known before anything is looked up.
func (e *Event) settled() bool { return e.filtered || e.err != nil }

// argument returns the argument of an aggregate. It lasts as long as the batch.
func (e *Event) argument(i int) *windows.Value { return &e.d.args[int(e.at)+i] }

// row returns the row of an event without windows. It is never written to again.
func (e *Event) row() []byte { return e.d.rows[e.at] }

// decoder decodes the records of one lane.
type decoder struct {
	q       *Query
	scanner *fields.Scanner
	slots   []fields.Value // of the record at hand
	vm      vm.VM
	env     []any // what the machine sees of slots
	boxed   any   // env

	// What the batch's events refer to, used again after Reset.
	args []windows.Value
	keys []byte
	rows [][]byte

	// Of records that wait for their rows.
	saved []fields.Value // the slots of one record after the other
	data  [][]byte

	members []fields.Field
	chunk   []byte // memory for rows
	number  []byte // scratch for a number in a key

	computed fields.Value // see value
}

func (q *Query) newDecoder() stream.Decoder[Event] {
	d := &decoder{q: q, scanner: q.plan.NewScanner(), slots: make([]fields.Value, q.plan.Len()), env: make([]any, q.plan.Len())}
	d.boxed = d.env
	return d
}

// Reset implements stream.Decoder.
func (d *decoder) Reset() {
	d.args, d.keys, d.rows = d.args[:0], d.keys[:0], d.rows[:0]
	d.saved, d.data = d.saved[:0], d.data[:0]
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
	if !q.keyJoined {
		if e.Key, err = d.key(); err != nil {
			return err
		}
	}
	if e.Time, err = d.time(r); err != nil {
		return err
	}
	e.Value = Event{d: d}
	if d.passes(q.where, &e.Value) {
		switch {
		case len(q.joins) == 0:
			d.judge(r.Data, q.require, &e.Value)
		case d.meets(q.require[:q.early], &e.Value):
			d.save(r, &e.Value)
		}
	}
	return nil
}

// save keeps what is known of a record until its rows are.
func (d *decoder) save(r *stream.Record, e *Event) {
	e.at = int32(len(d.data))
	d.saved, d.data = append(d.saved, d.slots...), append(d.data, r.Data)
}

// savedSlots are the slots of an event that waits for its rows.
func (d *decoder) savedSlots(e *Event) []fields.Value {
	n := d.q.plan.Len()
	return d.saved[int(e.at)*n:][:n]
}

// finish evaluates what waited for an event's rows.
func (d *decoder) finish(e *stream.Event[Event]) {
	v := &e.Value
	slots, data := d.slots, d.data[v.at]
	d.slots = d.savedSlots(v)
	defer func() { d.slots = slots }()
	if d.q.keyJoined {
		var err error
		if e.Key, err = d.key(); err != nil {
			reason := stream.ReasonNoKey
			if r, ok := err.(*recordError); ok { //nolint:errorlint // it is never wrapped
				reason = r.reason
			}
			e.Refuse(&recordError{reason, err.Error()})
			return
		}
	}
	if d.passes(d.q.whereJoined, v) {
		d.judge(data, d.q.require[d.q.early:], v)
	}
}

// finisher is the last enricher of a query with joins.
type finisher struct{}

// Enrich implements stream.Enricher.
func (finisher) Enrich(_ context.Context, events []stream.Event[Event]) error {
	for i := range events {
		if e := &events[i]; !e.Value.settled() && e.Refused() == nil {
			e.Value.d.finish(e)
		}
	}
	return nil
}

// Finish is the enricher to run after those of all Joins.
func (q *Query) Finish() stream.Enricher[Event] { return finisher{} }

func (d *decoder) time(r *stream.Record) (stream.Instant, error) {
	x := d.q.time
	if x == nil {
		if r.Arrived == 0 && d.q.windowed {
			return 0, fmt.Errorf("%w: the source did not say when the record arrived", stream.ErrNoTime)
		}
		return r.Arrived, nil
	}
	v, err := d.value(x)
	if err != nil {
		return 0, err
	}
	t, err := d.q.clock.read(v)
	if err != nil {
		return 0, fmt.Errorf("%w: %s: %w", stream.ErrNoTime, x.text, err)
	}
	return t, nil
}

// passes reports whether all conditions of --where hold.
func (d *decoder) passes(where []*expression, e *Event) bool {
	for _, x := range where {
		ok, err := d.holds(x)
		if err != nil || !ok {
			e.err, e.filtered = err, err == nil
			return false
		}
	}
	return true
}

// meets reports whether all of some requirements are met.
func (d *decoder) meets(require []requirement, e *Event) bool {
	for i := range require {
		ok, err := d.holds(require[i].x)
		if err == nil && !ok {
			err = require[i].unmet
		}
		if err != nil {
			e.err = err
			return false
		}
	}
	return true
}

// judge evaluates everything else that is asked of a record with a key and a time.
func (d *decoder) judge(data []byte, require []requirement, e *Event) {
	q := d.q
	if !d.meets(require, e) {
		return
	}
	if q.windowed {
		e.at, e.err = int32(len(d.args)), d.arguments()
		return
	}
	e.at = int32(len(d.rows))
	row, err := d.row(data)
	d.rows, e.err = append(d.rows, row), err
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
