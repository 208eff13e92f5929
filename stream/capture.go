package stream

import (
	"context"
	"fmt"
	"io"
	"time"
)

// What a lane does about a checkpoint: when one starts, what it copies, and how it ends. The lane's own
// life is in lane.go, and what a checkpoint writes in commit.go.

// checkpointed is how a checkpoint ended.
type checkpointed struct {
	entry *Entry
	err   error
	took  time.Duration
	lost  int64
}

// due reports whether a checkpoint should start now.
func (l *lane[E, R]) due(now time.Time) bool {
	since := now.Sub(l.lastStart)
	if !l.changed || since < 5*l.lastTook {
		return false
	}
	every := l.p.checkpointEvery()
	return since >= every || l.full() || since >= every/10 && (l.state.Ripe(l.watermark) || l.idle)
}

// rollOn makes a file that is due a reason for a checkpoint.
func (l *lane[E, R]) rollOn(now time.Time) {
	if l.saving == nil && !l.changed {
		in, any := l.c.rollIn(now)
		l.changed = any && in == 0
	}
}

// full reports whether a checkpoint would give back half of what the Flow allows. What waits to be
// processed does not count: a lane that is behind its reader gains nothing from a checkpoint.
func (l *lane[E, R]) full() bool {
	return l.held >= l.a.Flow.limit/2 || len(l.waiting) >= MaxHeaders/2
}

// sleep is how long nothing can become due.
func (l *lane[E, R]) sleep(now time.Time) time.Duration {
	wait := time.Hour
	if l.changed && l.saving == nil {
		every := l.p.checkpointEvery()
		if l.full() {
			every = 0
		} else if l.state.Ripe(l.watermark) || l.idle {
			every /= 10
		}
		wait = max(every, 5*l.lastTook) - now.Sub(l.lastStart)
	}
	if in, any := l.c.rollIn(now); any && l.saving == nil && !l.changed {
		wait = min(wait, in)
	}
	if !l.holdUntil.IsZero() {
		if l.holdSeq == 0 {
			wait = min(wait, l.holdUntil.Sub(now))
		}
	} else if l.reader == CaughtUp && !l.idle && len(l.pending) == 0 {
		wait = min(wait, l.p.idleAfter()-now.Sub(l.lastRecord))
	}
	return max(wait, time.Millisecond)
}

// captured is a copy of everything that a checkpoint saves, independent of the lane.
type captured struct {
	entry    *Entry
	snapshot io.WriterTo
	frozen   []FrozenSlice
	rows     []Row
	dead     []Row
	ids      []uint64
	batches  []*Batch
	held     int64
}

// capture freezes what watermark w has passed and copies the state.
func (l *lane[E, R]) capture(w Instant) *captured {
	covered := l.a.Log.Frontier()
	if l.p.rules.forgetFrozen {
		covered = EndOfTime
	}
	keep := l.frozen[:0:0]
	for _, f := range l.frozen {
		if f.End > covered {
			keep = append(keep, f)
		}
	}
	l.ledger.RowsOut += int64(len(l.rows))
	c := &captured{
		entry: &Entry{Kind: KindCheckpoint, Position: l.position, Watermark: w, Idle: l.idle, State: l.reader,
			Frozen: keep, Ledger: l.ledger, SinkLosses: l.sinkLosses},
		frozen: l.state.Freeze(l.freezeTo(w)), snapshot: l.state.Snapshot(),
		rows: l.rows, dead: l.dead, batches: l.waiting, held: l.held,
	}
	if l.known != nil {
		c.ids = l.known.capture(time.Now())
	}
	l.frozen = keep
	l.rows, l.dead, l.waiting, l.held, l.changed = nil, nil, nil, 0, false
	return c
}

// freezeTo is how far an entry with watermark w freezes: every slice that w has passed (M1), at the
// end everything (M8).
func (l *lane[E, R]) freezeTo(w Instant) Instant {
	switch {
	case l.p.rules.freezeLate:
		return w.Add(-l.p.Operator.Slice())
	case l.p.rules.endUnfrozen:
		return l.watermark
	}
	return w
}

// begin starts a checkpoint on a goroutine of its own.
func (l *lane[E, R]) begin(ctx context.Context, c *captured) {
	saving := make(chan checkpointed, 1)
	l.saving, l.lastStart = saving, time.Now()
	go func() {
		start := time.Now()
		err := l.checkpoint(ctx, c)
		settle(c.batches, err)
		l.a.Flow.Release(c.held, headers(c.batches))
		saving <- checkpointed{c.entry, err, time.Since(start), l.c.losses}
	}()
}

// checkpoint is stage → save → commit for what was captured; the acks follow in begin.
func (l *lane[E, R]) checkpoint(ctx context.Context, c *captured) (err error) {
	defer caught(&err)
	for _, f := range c.frozen {
		blob, err := l.a.Log.WriteObject(ctx, "slice", f.Data)
		if err != nil {
			return fmt.Errorf("slice: %w", err)
		}
		c.entry.Frozen = append(c.entry.Frozen, Frozen{Start: f.Start, End: f.End, Count: f.Count, Data: blob})
	}
	if c.snapshot != nil {
		blob, err := l.a.Log.WriteObject(ctx, "snapshot", c.snapshot)
		if err != nil {
			return fmt.Errorf("snapshot: %w", err)
		}
		c.entry.Snapshot = []Blob{blob}
	}
	if len(c.ids) > 0 {
		blob, err := l.a.Log.WriteObject(ctx, "ids", idsWriter(c.ids))
		if err != nil {
			return fmt.Errorf("ids: %w", err)
		}
		c.entry.IDs = []Blob{blob}
	}
	if err := l.c.stage(ctx, c.entry, c.rows, c.dead); err != nil {
		return err
	}
	return l.c.publish(ctx, c.entry)
}

// finished takes the outcome of a checkpoint back into the lane. Rows that a sink rejected are counted
// once they are known, which is in the next entry.
func (l *lane[E, R]) finished(r checkpointed) error {
	l.saving = nil
	l.lastTook = r.took
	if r.err != nil {
		return r.err
	}
	l.frozen = r.entry.Frozen
	l.sinkLosses = r.entry.SinkLosses + r.lost
	l.c.rolled(r.entry, time.Now())
	l.changed = l.changed || r.lost > 0
	l.report(true)
	if !l.changed {
		l.settleWaiting()
	}
	return nil
}

// settleWaiting settles batches that changed nothing: with no checkpoint under way and none due,
// all they led to is saved already.
func (l *lane[E, R]) settleWaiting() {
	settle(l.waiting, nil)
	l.a.Flow.Release(0, headers(l.waiting))
	l.waiting = nil
}

func settle(batches []*Batch, err error) {
	for _, b := range batches {
		b.Settle(err)
	}
}

// headers counts the batches that hold a header of the Flow.
func headers(batches []*Batch) (n int) {
	for _, b := range batches {
		if b.bytes > 0 {
			n++
		}
	}
	return n
}

// drainSave waits for the checkpoint under way, if there is one.
func (l *lane[E, R]) drainSave(ctx context.Context) error {
	if l.saving == nil {
		return nil
	}
	select {
	case r := <-l.saving:
		return l.finished(r)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// leave saves what there is and releases the partition.
func (l *lane[E, R]) leave(ctx context.Context) error {
	if err := l.drainSave(ctx); err != nil {
		return err
	}
	l.c.flush = true
	for l.changed || l.c.unrolled() {
		l.begin(ctx, l.capture(l.watermark))
		if err := l.drainSave(ctx); err != nil {
			return err
		}
	}
	return l.c.save(ctx, &Entry{Kind: KindRelease})
}

// end freezes everything, checkpoints with a watermark of +∞, and closes the log (M8).
func (l *lane[E, R]) end(ctx context.Context, pe *PartitionEnd) error {
	last := l.watermark
	if pe.Lost {
		l.c.logger.Error("the partition is gone from the source before its end was read: what it still held is lost",
			"partition", l.a.Partition, "position", l.position.String())
	}
	if err := l.drainSave(ctx); err != nil {
		return err
	}
	l.c.flush = true
	c := l.capture(EndOfTime)
	c.entry.LastWatermark, c.entry.Children, c.entry.Lost = last, pe.Children, pe.Lost
	l.begin(ctx, c)
	if err := l.drainSave(ctx); err != nil {
		return err
	}
	return l.close(ctx, c.entry)
}

// close appends the end that a final checkpoint announces. It carries no output.
func (l *lane[E, R]) close(ctx context.Context, final *Entry) error {
	return l.c.save(ctx, &Entry{Kind: KindEnd, Position: final.Position, Watermark: EndOfTime, LastWatermark: final.LastWatermark,
		Frozen: final.Frozen, Ledger: final.Ledger, SinkLosses: l.sinkLosses, Children: final.Children, Lost: final.Lost})
}
