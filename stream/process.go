package stream

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// futureTolerance is how far beyond now an event time may be. A later one is broken, and must not
// move the watermark.
const futureTolerance = time.Minute

// process takes one decoded and enriched batch through the operator. Every record gets exactly one
// verdict, the first that applies:
//
//	undecodable, without key or time, in the future   dead-lettered
//	outside From/Until                                filtered
//	refused by an enricher                            filtered or dead-lettered, as the enricher says
//	not kept                                          filtered
//	a requirement not met                             dead-lettered
//	its slice already frozen                          late
//	otherwise                                         contributed
//
// An error is the partition's: it ends the assignment.
func (l *lane[E, R]) process(d *decoded[E]) (err error) {
	b := d.b
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic in the operator at or after position %s: %v\n%s", b.Records[0].Position, v, debug.Stack())
		}
	}()
	horizon, _ := At(time.Now().Add(futureTolerance))
	if last := l.lastBefore(d.events, horizon); last >= 0 {
		d.cut(last) // the partition ends at this record, wherever its batch happened to be cut
	}
	l.ledger.RecordsIn += int64(len(b.Records))
	l.ledger.Filtered += d.filtered()
	for _, f := range d.failed {
		l.bury(&b.Records[f.at], nil, f.reason, "decode", f.err)
	}
	if l.known != nil {
		l.known.count(d.ids)
	}
	watermark, events := l.watermark, d.events
	for i := range events {
		e := &events[i]
		if e.Time > horizon {
			l.bury(d.record(i), e, ReasonFuture, "decode", nil)
			continue
		}
		before := watermark
		watermark = l.advance(watermark, e.Time)
		l.highest = max(l.highest, e.Time)
		if e.Time < l.from || e.Time >= l.until {
			l.ledger.Filtered++
			continue
		}
		if e.refused != nil {
			if errors.Is(e.refused, Filtered) {
				l.ledger.Filtered++
			} else {
				l.bury(d.record(i), e, requireReason(e.refused), "enrich", e.refused)
			}
			continue
		}
		if l.p.Keep != nil && !l.p.Keep(e) {
			l.ledger.Filtered++
			continue
		}
		if l.p.Require != nil {
			if err := l.p.Require(e); err != nil {
				l.bury(d.record(i), e, requireReason(err), "require", err)
				continue
			}
		}
		ok, err := l.state.Add(e, before)
		if err != nil {
			return fmt.Errorf("position %s: %w", d.record(i).Position, err)
		}
		if !ok {
			l.late(d.record(i), e)
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
