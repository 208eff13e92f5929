package stream

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
)

// decoded is a batch on its way from the inbox to the operator: its records are decoded, and its events
// are enriched on a goroutine of their own, while the lane processes the batches before it. Nothing of it
// has touched the lane's state, ledger or dead letters; that is process.
type decoded[E any] struct {
	b       *Batch
	decoder Decoder[E]
	events  []Event[E]
	index   []int32       // of each event's record
	failed  []failure     // of records without an event; the rest was filtered
	ids     []uint64      // that were not known before
	done    chan struct{} // closed when the events are enriched; nil: there is nothing to wait for
	err     error         // of that; valid once done is closed
}

// failure is a record that has no event.
type failure struct {
	at     int32
	reason string
	err    error
}

// Ahead is how far decoding and enriching may run ahead of processing: in batches, the one at hand
// included, and in records, unless the next batch alone has more.
const (
	aheadBatches = 4
	aheadRecords = 8192
)

// prepare decodes the batches that have come, in order, and has them enriched, as far ahead as allowed.
func (l *lane[E, R]) prepare(ctx context.Context) {
	for len(l.pending) == 0 || len(l.p.Enrich) > 0 && len(l.pending) < aheadBatches {
		b := l.ahead[l.nextSeq]
		if b == nil || len(l.pending) > 1 && l.pendingRecords+len(b.Records) > aheadRecords {
			return
		}
		delete(l.ahead, l.nextSeq)
		l.nextSeq++
		d := l.spare()
		d.b = b
		if l.known != nil && !l.p.rules.dropKnown {
			b.Records, d.ids = l.known.fresher(b.Records)
			if l.p.rules.countEarly {
				l.known.count(d.ids)
				d.ids = nil
			}
		}
		l.pendingRecords += len(b.Records)
		l.pending = append(l.pending, d)
		if len(b.Records) == 0 {
			continue
		}
		l.decode(d)
		if len(l.enrich) > 0 && len(d.events) > 0 {
			d.done = make(chan struct{})
			go l.enrichBatch(ctx, d)
		}
	}
}

// spare returns a decoded to fill, its memory used before if possible.
func (l *lane[E, R]) spare() *decoded[E] {
	if n := len(l.spares); n > 0 {
		d := l.spares[n-1]
		l.spares = l.spares[:n-1]
		return d
	}
	d := &decoded[E]{}
	if l.p.NewDecoder != nil {
		d.decoder = l.p.NewDecoder()
	}
	return d
}

// processed takes the first pending batch off and keeps its memory for another.
func (l *lane[E, R]) processed(d *decoded[E], records int) {
	l.pending = l.pending[1:]
	l.pendingRecords -= records
	*d = decoded[E]{decoder: d.decoder, events: d.events[:0], index: d.index[:0], failed: d.failed[:0]}
	l.spares = append(l.spares, d)
}

// ready is closed when the first pending batch can be processed; nil while there is none.
func (l *lane[E, R]) ready() <-chan struct{} {
	if len(l.pending) == 0 {
		return nil
	}
	return l.pending[0].done
}

// enrichBatch runs the enrichers one after the other, so that each sees what those before it have set.
func (l *lane[E, R]) enrichBatch(ctx context.Context, d *decoded[E]) {
	defer close(d.done)
	defer func() {
		if v := recover(); v != nil {
			d.err = fmt.Errorf("panic in enrich at or after position %s: %v\n%s", d.b.Records[0].Position, v, debug.Stack())
		}
	}()
	for _, enricher := range l.enrich {
		if err := enricher.Enrich(ctx, d.events); err != nil {
			d.err = fmt.Errorf("enrich: %w", err)
			return
		}
	}
}

// record is the record of an event.
func (d *decoded[E]) record(i int) *Record { return &d.b.Records[d.index[i]] }

// cut forgets everything behind an event's record.
func (d *decoded[E]) cut(last int) {
	end := d.index[last] + 1
	d.b.Records = d.b.Records[:end]
	d.events, d.index = d.events[:last+1], d.index[:last+1]
	for len(d.failed) > 0 && d.failed[len(d.failed)-1].at >= end {
		d.failed = d.failed[:len(d.failed)-1]
	}
}

// filtered is how many records Decode did not want.
func (d *decoded[E]) filtered() int64 {
	return int64(len(d.b.Records) - len(d.events) - len(d.failed))
}

// decode decodes every record of the batch.
func (l *lane[E, R]) decode(d *decoded[E]) {
	n := len(d.b.Records)
	if cap(d.events) < n {
		d.events, d.index = make([]Event[E], n), make([]int32, n)
	}
	d.events, d.index = d.events[:n], d.index[:n]
	if d.decoder != nil {
		d.decoder.Reset()
	}
	kept := 0
	for i := 0; i < n; {
		i, kept = l.decodeFrom(d, i, kept)
	}
	d.events, d.index = d.events[:kept], d.index[:kept]
}

// decodeFrom decodes records from i on, until the end or a panic, which is that record's. kept events are
// there already.
func (l *lane[E, R]) decodeFrom(d *decoded[E], i, kept int) (next, total int) {
	next, total = i, kept
	defer func() {
		if v := recover(); v != nil {
			d.failed = append(d.failed, failure{int32(next), ReasonUndecodable, fmt.Errorf("panic: %v", v)})
			next++
		}
	}()
	records, events, index := d.b.Records, d.events, d.index
	for ; next < len(records); next++ {
		r := &records[next]
		if r.Refused != nil {
			d.failed = append(d.failed, failure{int32(next), r.Refused.Reason, errors.New(r.Refused.Detail)})
			continue
		}
		e := &events[total]
		var err error
		if d.decoder != nil {
			e.refused = nil
			err = d.decoder.Decode(r, e)
		} else {
			*e, err = l.p.Decode(r)
			if err == nil && e.Time == 0 && l.p.Operator.Slice() > 0 {
				err = ErrNoTime // forgotten; no clock has ever said 1970
			}
		}
		if err != nil {
			if !errors.Is(err, Filtered) {
				d.failed = append(d.failed, failure{int32(next), decodeReason(err), err})
			}
			continue
		}
		index[total] = int32(next)
		total++
	}
	return next, total
}
