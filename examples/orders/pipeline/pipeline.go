// Package pipeline totals orders per customer and minute, on Go types of its own.
package pipeline

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/millstream/millstream/stream"
	"github.com/millstream/millstream/windows"
)

// Order is a record of the stream.
type Order struct {
	Customer string    `json:"customer"`
	Cents    int64     `json:"cents"`
	At       time.Time `json:"at"`
}

// Total is an accumulator: what is kept for each customer and minute. Its zero is empty, and its
// fields are exported, so that a checkpoint can hold it.
type Total struct{ Orders, Cents, Largest int64 }

// Row is a result.
type Row struct {
	Customer string    `json:"customer"`
	Minute   time.Time `json:"minute"`
	Orders   int64     `json:"orders"`
	Cents    int64     `json:"cents"`
	Largest  int64     `json:"largest"`
}

// Totals is the pipeline.
func Totals() *stream.Pipeline[Order, Row] {
	return &stream.Pipeline[Order, Row]{
		Name:    "orders",
		Decode:  decode,
		Require: func(e *stream.Event[Order]) error { return notNegative(e.Value.Cents) },
		Operator: &windows.Aggregation[Order, Total, Row]{
			Windows: windows.Tumbling(time.Minute),
			Add: func(t *Total, e *stream.Event[Order]) {
				t.Orders, t.Cents, t.Largest = t.Orders+1, t.Cents+e.Value.Cents, max(t.Largest, e.Value.Cents)
			},
			Merge: func(dst, src *Total) {
				dst.Orders, dst.Cents, dst.Largest = dst.Orders+src.Orders, dst.Cents+src.Cents, max(dst.Largest, src.Largest)
			},
			Emit: func(customer string, w stream.Window, t *Total) Row {
				return Row{customer, w.Start.Time(), t.Orders, t.Cents, t.Largest}
			},
		},
		Encode: func(r *Row) (stream.Row, error) {
			data, err := json.Marshal(r)
			return stream.Row{Key: r.Customer, Data: data}, err
		},
	}
}

// decode says what a record means, which key it belongs to and when it happened.
func decode(r *stream.Record) (e stream.Event[Order], err error) {
	if err := json.Unmarshal(r.Data, &e.Value); err != nil {
		return e, err
	}
	at, ok := stream.At(e.Value.At)
	if e.Key, e.Time = e.Value.Customer, at; !ok || e.Value.At.IsZero() {
		return e, fmt.Errorf("%w: at", stream.ErrNoTime)
	}
	return e, nil
}

// notNegative is a requirement: an order that fails it goes to the dead letter, with this reason.
func notNegative(cents int64) error {
	if cents < 0 {
		return fmt.Errorf("cents is negative")
	}
	return nil
}
