package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// lane owns one partition for one assignment: its goroutine is the only one that touches the
// operator's state. It restores, then processes batches in order of Seq, and hands copies of its
// state to a goroutine of its own for stage, save and commit; at most one such checkpoint is under
// way, and the lane goes on meanwhile.
type lane[E, R any] struct {
	p *Pipeline[E, R]
	a *Assignment
	c committer

	mu    sync.Mutex
	inbox []*Batch
	over  error         // set when the lane has ended: every later batch settles with it
	ended bool          // the same, for a lane that ended well
	wake  chan struct{} // something is in the inbox

	// Owned by the lane's goroutine.
	ahead   map[uint64]*Batch // arrived before their turn
	nextSeq uint64
	state   LaneState[E, R]
	enrich  []Enricher[E]
	from    Instant
	until   Instant

	pending        []*decoded[E] // in order; the first is the next to be processed
	pendingRecords int
	spares         []*decoded[E]
	delay          atomic.Pointer[string] // what enriching waits for; nil: nothing
	told           *string                // of delay, the last that was reported

	position   Position
	watermark  Instant
	reader     ReaderState
	idle       bool
	arrived    Instant
	lastRecord time.Time // monotonic, when a record last came
	known      *known    // nil: the source delivers every record once
	holdUntil  time.Time // the watermark stays put until then; zero: it moves
	holdSeq    uint64    // and until the batches before this one are processed, which had come by then; 0: not known yet
	highest    Instant   // event time
	frozen     []Frozen  // saved, not yet covered by the frontier
	ledger     Ledger
	sinkLosses int64

	// What the next checkpoint will make durable.
	changed bool
	rows    []Row
	dead    []Row
	held    int64 // bytes of rows and dead letters in the Flow
	waiting []*Batch
	final   *Batch // the batch that ends the assignment: settled last of all

	saving    chan checkpointed // nil: none under way
	lastStart time.Time
	lastTook  time.Duration
	reported  time.Time
}

func newLane[E, R any](p *Pipeline[E, R], a *Assignment) *lane[E, R] {
	l := &lane[E, R]{p: p, a: a, wake: make(chan struct{}, 1), ahead: make(map[uint64]*Batch), from: Beginning, until: EndOfTime}
	l.c = committer{log: a.Log, sinks: p.Sinks, dead: p.DeadLetter, a: a, logger: p.logger(), stuck: l.stuck, rules: p.rules}
	if t, ok := At(p.From); ok && !p.From.IsZero() {
		l.from = t
	}
	if t, ok := At(p.Until); ok && !p.Until.IsZero() {
		l.until = t
	}
	return l
}

// put hands a batch to the lane. Called with the registry's mutex held.
func (l *lane[E, R]) put(b *Batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || l.over != nil {
		b.Settle(l.over)
		return
	}
	l.inbox = append(l.inbox, b)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run is the lane's goroutine.
func (l *lane[E, R]) run() {
	ctx, cancel := l.a.Context(context.Background())
	defer cancel()
	err := l.live(ctx)
	if err != nil {
		cancel()
		if l.saving != nil {
			<-l.saving // its goroutine may still use the log; it fails now
		}
		if !errors.Is(err, ErrFenced) && !errors.Is(err, ErrLeaseLost) && !errors.Is(err, context.Canceled) {
			l.stuck(err)
			l.c.logger.Error("the partition stops and starts again from its last checkpoint", "partition", l.a.Partition, "error", err)
		}
	}
	l.mu.Lock()
	l.over, l.ended = err, err == nil
	inbox := l.inbox
	l.inbox = nil
	l.mu.Unlock()
	if err == nil {
		l.a.finish() // before the lane is forgotten: a late batch must not start another
	}
	l.p.engine.retire(l)
	// An end that the lane decided by itself leaves unread batches behind: there is nothing to do for
	// them, so they are settled without error.
	settle(l.waiting, err)
	settle(inbox, err)
	for _, d := range l.pending {
		d.b.Settle(err)
	}
	for _, b := range l.ahead {
		b.Settle(err)
	}
	if l.final != nil {
		l.final.Settle(err)
	}
}

// live restores and then works until the assignment ends.
func (l *lane[E, R]) live(ctx context.Context) (err error) {
	defer caught(&err)
	ctx = WithDelays(ctx, l.delayed)
	if err := l.restore(ctx); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if b := l.a.Base; b != nil && b.Kind == KindCheckpoint && b.Watermark == EndOfTime {
		return l.close(ctx, b) // its owner died between the final checkpoint and the end
	}
	l.lastStart, l.lastRecord = time.Now(), time.Now()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		done, err := l.work(ctx)
		if done || err != nil {
			return err
		}
		if d := l.delay.Load(); d != l.told {
			l.told = d
			l.report(true)
		}
		news := l.a.Log.Changed() // taken before the target is read, so that nothing slips between
		l.moveOn(time.Now())
		l.raiseIdle()
		l.rollOn(time.Now())
		if l.saving == nil && l.due(time.Now()) {
			l.begin(ctx, l.capture(l.watermark))
		}
		timer.Reset(l.sleep(time.Now()))
		if !l.idle {
			news = nil
		}
		select {
		case <-l.wake:
		case <-l.ready():
		case r := <-l.saving:
			if err := l.finished(r); err != nil {
				return err
			}
		case <-timer.C:
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// work processes what is in the inbox, in order. It reports true when the assignment has ended.
func (l *lane[E, R]) work(ctx context.Context) (bool, error) {
	if l.watermark >= l.until {
		return true, l.end(ctx, &PartitionEnd{})
	}
	l.mu.Lock()
	inbox := l.inbox
	l.inbox = nil
	l.mu.Unlock()
	for _, b := range inbox {
		l.ahead[b.Seq] = b
	}
	for {
		l.prepare(ctx)
		if len(l.pending) == 0 {
			return false, nil
		}
		d := l.pending[0]
		if d.done != nil {
			select {
			case <-d.done:
			default:
				return false, nil
			}
		}
		if d.err != nil {
			return false, d.err
		}
		b, records := d.b, len(d.b.Records)
		if b.End != nil || b.Last {
			l.final = b
		} else {
			l.waiting = append(l.waiting, b)
		}
		if len(b.Records) > 0 {
			if err := l.process(d); err != nil {
				return false, err
			}
			l.lastRecord, l.idle, l.changed = time.Now(), false, true
			if l.p.rules.ackFirst {
				b.Settle(nil)
			}
			if at := b.Records[len(b.Records)-1].Arrived; at > l.arrived {
				l.arrived = at
			}
		}
		if b.Next != (Position{}) && b.Next != l.position {
			l.position, l.changed = b.Next, true
		}
		l.reader = b.State
		l.processed(d, records)
		l.release(b)
		l.report(false)
		switch {
		case b.End != nil:
			return true, l.end(ctx, b.End)
		case b.Last:
			return true, l.leave(ctx)
		case l.watermark >= l.until:
			return true, l.end(ctx, &PartitionEnd{})
		case !l.changed && l.saving == nil:
			l.settleWaiting() // nothing came of it
		}
		select {
		case r := <-l.saving:
			if err := l.finished(r); err != nil {
				return false, err
			}
		case <-ctx.Done():
			return false, context.Cause(ctx)
		default:
		}
		if l.saving == nil && l.due(time.Now()) {
			l.begin(ctx, l.capture(l.watermark))
		}
	}
}

// release gives back the batch's bytes: from here on only its header is kept.
func (l *lane[E, R]) release(b *Batch) {
	b.Records = nil
	if b.bytes > 0 {
		l.a.Flow.Release(b.bytes, 0)
	}
}

// hold accounts for rows and dead letters kept until the next save.
func (l *lane[E, R]) hold(n int64) {
	l.held += n
	l.a.Flow.Hold(n)
}

// moveOn lets the watermark go that was held after the claim. What had come by then may still wait to be
// enriched.
func (l *lane[E, R]) moveOn(now time.Time) {
	if l.holdUntil.IsZero() || now.Before(l.holdUntil) {
		return
	}
	if l.holdSeq == 0 {
		l.mu.Lock()
		l.holdSeq = l.nextSeq + uint64(len(l.ahead)+len(l.inbox))
		l.mu.Unlock()
	}
	if l.nextSeq-uint64(len(l.pending)) < l.holdSeq && !l.p.rules.hastyEnriched {
		return
	}
	l.holdUntil = time.Time{}
	if w := l.advance(l.watermark, l.highest); w > l.watermark {
		l.watermark, l.changed = w, true
	}
}

// raiseIdle applies M5: a lane that has caught up and seen nothing for a while raises its own
// watermark to the merger's target, so that it holds no window back. One that is throttled or paused
// may have records waiting, and is not idle, even if it was.
func (l *lane[E, R]) raiseIdle() {
	width := l.p.Operator.Slice()
	if width == 0 || l.p.OutOfOrder == Unbounded || !l.holdUntil.IsZero() {
		return
	}
	quiet := l.reader == CaughtUp && (len(l.pending) == 0 || l.p.rules.idleWhileWaiting) || l.p.rules.raiseThrottled
	if idle := quiet && (l.idle || time.Since(l.lastRecord) >= l.p.idleAfter()); idle != l.idle {
		l.idle, l.changed = idle, true
	}
	if !l.idle {
		return
	}
	if target := l.a.Log.Target(); target.Floor(width) > l.watermark.Floor(width) {
		l.watermark, l.changed = target, true
	}
}

// restore takes over from the entry that the claim names.
func (l *lane[E, R]) restore(ctx context.Context) error {
	if err := l.p.Validate(); err != nil {
		return err
	}
	l.state = l.p.Operator.Lane()
	for _, e := range l.p.Enrich {
		if p, ok := e.(LaneEnricher[E]); ok {
			e = p.Lane()
		}
		l.enrich = append(l.enrich, e)
	}
	l.watermark, l.highest = l.a.Start, Beginning
	if l.a.Base == nil {
		l.position = l.a.From
	}
	if l.p.rules.ignoreStart {
		l.watermark = Beginning
	}
	if src, ok := l.a.Source.(Redelivering); ok {
		var err error
		if l.known, err = recall(ctx, l.a.Log); err != nil {
			return err
		}
		if l.p.rules.forgetIDs {
			clear(l.known.ids)
		}
		if !l.p.rules.hastyWatermark {
			l.holdUntil = time.Now().Add(src.RedeliversWithin())
		}
	}
	base := l.a.Base
	if base == nil || base.Kind == KindReset {
		return nil
	}
	l.position, l.watermark = base.Position, max(l.watermark, base.Watermark)
	l.frozen, l.ledger, l.sinkLosses = base.Frozen, base.Ledger, base.SinkLosses
	if err := l.c.resume(ctx, base); err != nil {
		return err
	}
	if l.c.losses > 0 {
		l.sinkLosses, l.changed = l.sinkLosses+l.c.losses, true
	}
	for _, blob := range base.Snapshot {
		data, err := l.a.Log.ReadBlob(ctx, blob)
		if err != nil {
			return err
		}
		if err := l.state.Restore(data); err != nil {
			return fmt.Errorf("entry %d: %w", base.Number, err)
		}
	}
	return nil
}

// stuck tells the fleet what holds this partition up; nil that nothing does any more.
func (l *lane[E, R]) stuck(err error) {
	s := Status{Watermark: Beginning}
	if old := l.a.Status(); old != nil {
		s = *old
	}
	s.Error, s.At = "", time.Now()
	if err != nil {
		s.Error = err.Error()
	} else if d := l.delay.Load(); d != nil {
		s.Error = *d
	}
	l.a.Report(s)
}

// report publishes the lane's status, at most a few times a second unless now.
func (l *lane[E, R]) report(now bool) {
	t := time.Now()
	if !now && t.Sub(l.reported) < 250*time.Millisecond {
		return
	}
	l.reported = t
	s := Status{Position: l.position, Watermark: l.watermark, State: l.reader, Idle: l.idle, RecordsIn: l.ledger.RecordsIn,
		OpenWindows: l.state.Open(), LastArrived: l.arrived, At: t, Newest: l.a.Log.Next().Number - 1}
	if old := l.a.Status(); old != nil && !now {
		s.Error = old.Error
	}
	if d := l.delay.Load(); d != nil {
		s.Error = *d
	}
	if l.reader == CaughtUp && !l.idle {
		s.IdleAt = l.lastRecord.Add(l.p.idleAfter())
	}
	l.a.Report(s)
}

func (p *Pipeline[E, R]) logger() *slog.Logger {
	if p.Logger != nil {
		return p.Logger
	}
	return slog.Default()
}
