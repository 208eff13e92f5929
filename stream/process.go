package stream

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// futureTolerance is how far beyond now an event time may be. A later one is broken, and must not
// move the watermark.
const futureTolerance = time.Minute

// process takes one batch through decode, enrich and the operator. Every record gets exactly one
// verdict, the first that applies:
//
//	undecodable, without key or time, in the future   dead-lettered
//	outside From/Until, not kept                      filtered
//	a requirement not met                             dead-lettered
//	its slice already frozen                          late
//	otherwise                                         contributed
//
// An error is the partition's: it ends the assignment.
func (l *lane[E, R]) process(ctx context.Context, b *Batch) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic in the operator at or after position %s: %v\n%s", b.Records[0].Position, v, debug.Stack())
		}
	}()
	horizon, _ := At(time.Now().Add(futureTolerance))
	ledger, dead, held := l.ledger, len(l.dead), l.held
	events, index := l.decode(b)
	if last := l.lastBefore(events, horizon); last >= 0 {
		// The partition ends at this record, wherever its batch happened to be cut: what was decoded
		// beyond it is forgotten.
		b.Records = b.Records[:index[last]+1]
		l.ledger, l.dead = ledger, l.dead[:dead]
		l.hold(held - l.held)
		events, index = l.decode(b)
	}
	for _, enricher := range l.p.Enrich {
		if err := enricher.Enrich(ctx, events); err != nil {
			return fmt.Errorf("enrich: %w", err)
		}
	}
	watermark := l.watermark
	for i := range events {
		e := &events[i]
		if e.Time > horizon {
			l.bury(&b.Records[index[i]], e, ReasonFuture, "decode", nil)
			continue
		}
		before := watermark
		watermark = l.advance(watermark, e.Time)
		l.highest = max(l.highest, e.Time)
		if e.Time < l.from || e.Time >= l.until {
			l.ledger.Filtered++
			continue
		}
		if l.p.Keep != nil && !l.p.Keep(e) {
			l.ledger.Filtered++
			continue
		}
		if l.p.Require != nil {
			if err := l.p.Require(e); err != nil {
				l.bury(&b.Records[index[i]], e, requireReason(err), "require", err)
				continue
			}
		}
		ok, err := l.state.Add(e, before)
		if err != nil {
			return fmt.Errorf("position %s: %w", b.Records[index[i]].Position, err)
		}
		if !ok {
			l.late(&b.Records[index[i]], e)
			continue
		}
		l.ledger.Contributed++
	}
	l.watermark = watermark
	l.encode(l.state.Rows(), b)
	return nil
}

// advance is the watermark after an event at t: the highest time less the out-of-order bound, never
// back. Without a bound it stays where it is until the partition ends; while it is held it stays too.
func (l *lane[E, R]) advance(watermark, t Instant) Instant {
	if l.p.OutOfOrder == Unbounded || !l.holdUntil.IsZero() {
		return watermark
	}
	return max(watermark, t.Add(-l.p.OutOfOrder))
}

// lastBefore returns the first event with which the watermark reaches Until, -1 if none does.
func (l *lane[E, R]) lastBefore(events []Event[E], horizon Instant) int {
	if l.until == EndOfTime {
		return -1
	}
	watermark := l.watermark
	for i := range events {
		if events[i].Time <= horizon {
			watermark = l.advance(watermark, events[i].Time)
		}
		if watermark >= l.until {
			return i
		}
	}
	return -1
}

// decode decodes every record into the lane's reused memory. index holds each event's record.
func (l *lane[E, R]) decode(b *Batch) ([]Event[E], []int32) {
	n := len(b.Records)
	if cap(l.events) < n {
		l.events = make([]Event[E], n)
		l.index = make([]int32, n)
	}
	if l.decoder != nil {
		l.decoder.Reset()
	}
	l.ledger.RecordsIn += int64(n)
	kept := 0
	for i := 0; i < n; {
		i, kept = l.decodeFrom(b, i, kept)
	}
	return l.events[:kept], l.index[:kept]
}

// decodeFrom decodes records from i on, until the end or a panic, which is that record's.
func (l *lane[E, R]) decodeFrom(b *Batch, i, kept int) (next, total int) {
	next, total = i, kept
	defer func() {
		if v := recover(); v != nil {
			l.bury(&b.Records[next], nil, ReasonUndecodable, "decode", fmt.Errorf("panic: %v", v))
			next++
		}
	}()
	events, index := l.events[:cap(l.events)], l.index[:cap(l.index)]
	for ; next < len(b.Records); next++ {
		r := &b.Records[next]
		if r.Refused != nil {
			l.bury(r, nil, r.Refused.Reason, "decode", errors.New(r.Refused.Detail))
			continue
		}
		e := &events[total]
		var err error
		if l.decoder != nil {
			err = l.decoder.Decode(r, e)
		} else {
			*e, err = l.p.Decode(r)
			if err == nil && e.Time == 0 && l.p.Operator.Slice() > 0 {
				err = ErrNoTime // forgotten; no clock has ever said 1970
			}
		}
		if err != nil {
			if errors.Is(err, Filtered) {
				l.ledger.Filtered++
			} else {
				l.bury(r, nil, decodeReason(err), "decode", err)
			}
			continue
		}
		index[total] = int32(next)
		total++
	}
	return next, total
}

// encode turns the lane's own results into rows.
func (l *lane[E, R]) encode(results []R, b *Batch) {
	var size int64
	for i := range results {
		row, err := l.p.Encode(&results[i])
		if err != nil {
			l.deadRow(DeadLetter{Reason: ReasonEncode, Stage: "encode", Position: b.Next.String(), Error: err.Error(), Raw: fmt.Appendf(nil, "%v", results[i])})
			continue
		}
		l.rows = append(l.rows, row)
		size += rowSize(&row)
	}
	if size > 0 {
		l.hold(size)
	}
}

// bury counts a record as dead-lettered and writes its letter.
func (l *lane[E, R]) bury(r *Record, e *Event[E], reason, stage string, err error) {
	l.ledger.DeadLettered++
	l.letter(r, e, reason, stage, err)
}

// late counts a record as late, and late only, wherever it is written.
func (l *lane[E, R]) late(r *Record, e *Event[E]) {
	l.ledger.Late++
	if l.p.Late == LateDeadLetter {
		l.letter(r, e, ReasonLate, "window", nil)
	}
}

func (l *lane[E, R]) letter(r *Record, e *Event[E], reason, stage string, err error) {
	d := DeadLetter{Reason: reason, Stage: stage, Position: r.Position.String(), Raw: r.Data}
	if p, ok := l.a.Source.(Placer); ok {
		d.Position = p.Place(r.Position)
	}
	if r.Refused != nil {
		d.Length = r.Refused.Length
	}
	if err != nil {
		d.Error = err.Error()
	}
	if e != nil {
		d.EventTime = e.Time.String()
	}
	l.deadRow(d)
}

func (l *lane[E, R]) deadRow(d DeadLetter) {
	d.Source, d.Partition = l.a.sourceName(), l.a.Partition
	row := d.row()
	l.dead = append(l.dead, row)
	l.hold(rowSize(&row))
}

func rowSize(r *Row) int64 { return int64(len(r.Data)+len(r.Key)) + 64 }
