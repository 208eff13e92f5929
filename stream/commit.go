package stream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"time"
)

// committer takes output from memory to visibility, for a lane and for the merger alike:
//
//	stage   write rows and dead letters beside the log, or hold them back in a Stager
//	save    append the entry that names them: from here on they are decided
//	commit  deliver what the entry names; repeated after a crash, under the same ids
//
// Ack comes after commit, and entry n+1 is saved only after entry n is committed, so that at most
// one entry's output can be in doubt: the newest one's, which the next owner commits again.
type committer struct {
	log    Log
	sinks  []Sink
	dead   Sink
	a      *Assignment
	logger *slog.Logger
	losses int64 // rows rejected by sinks, of the last commit
	stuck  func(error)
	rules  rules

	waiting map[string]*waiting // by the name of a Roller
	flush   bool                // every file is due: nothing waits behind the next entry
}

// stage writes rows and dead letters and names them in e, which is then ready to be saved.
func (c *committer) stage(ctx context.Context, e *Entry, rows, dead []Row) error {
	if err := c.stageRows(ctx, e, rows); err != nil {
		return err
	}
	if err := c.stageParts(ctx, &e.Dead, "dead", dead); err != nil {
		return err
	}
	return c.roll(ctx, e)
}

// stageRows adds rows to e's output; it may be called many times before the save.
func (c *committer) stageRows(ctx context.Context, e *Entry, rows []Row) error {
	if len(rows) == 0 {
		return nil
	}
	part := len(e.Rows.Parts)
	if err := c.stageParts(ctx, &e.Rows, "rows", rows); err != nil {
		return err
	}
	for i, s := range c.sinks {
		stager, ok := s.(Stager)
		if !ok {
			continue
		}
		id := c.log.Next()
		id.Part = part
		var token []byte
		rejected, err := c.accepted(ctx, "stage", func() (err error) {
			token, err = stager.Stage(ctx, id, rows)
			return err
		})
		if err != nil {
			return err
		}
		letters, err := c.letters(id, rejected, once(rows))
		if err != nil {
			return err
		}
		if err := c.stageParts(ctx, &e.Dead, fmt.Sprintf("rejected-%d", i), letters); err != nil {
			return err
		}
		e.SinkLosses += int64(len(letters))
		if token != nil {
			e.Stagers = append(e.Stagers, StagedBy{Sink: stager.Name(), Token: token})
		}
	}
	return nil
}

func (c *committer) stageParts(ctx context.Context, s *Staged, kind string, rows []Row) error {
	for len(rows) > 0 {
		n, size := 0, 0
		for n < len(rows) && (n == 0 || size+len(rows[n].Data) <= partBytes) {
			size += len(rows[n].Data) + len(rows[n].Key) + 8
			n++
		}
		blob, err := c.log.WriteObject(ctx, kind, rowsWriter(rows[:n]))
		if err != nil {
			return fmt.Errorf("stage %s: %w", kind, err)
		}
		s.Parts = append(s.Parts, blob)
		s.Count += int64(n)
		rows = rows[n:]
	}
	return nil
}

// publish is save → commit of a staged entry.
func (c *committer) publish(ctx context.Context, e *Entry) error {
	id := c.log.Next()
	if c.rules.commitFirst {
		if err := c.commit(ctx, e, id); err != nil {
			return err
		}
		return c.save(ctx, e)
	}
	if err := c.save(ctx, e); err != nil {
		return err
	}
	return c.commit(ctx, e, id)
}

// again commits the output of the entry that a claim resumes from: nobody knows whether its owner came
// to do it, unless a release says so (A2).
func (c *committer) again(ctx context.Context, base *Entry) error {
	if c.a.Committed || c.rules.noRecommit {
		return nil
	}
	id := c.log.Next()
	id.Number = base.Number
	return c.commit(ctx, base, id)
}

// resume goes on from the entry that a claim names.
func (c *committer) resume(ctx context.Context, base *Entry) error {
	if err := c.again(ctx, base); err != nil {
		return err
	}
	c.rolled(base, time.Now())
	return nil
}

// save appends the entry. Only an error that ends the assignment comes back.
func (c *committer) save(ctx context.Context, e *Entry) error {
	if err := c.log.Append(ctx, e); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	return nil
}

// commit makes the output of a saved entry visible, retrying for as long as the assignment lives.
func (c *committer) commit(ctx context.Context, e *Entry, id CheckpointID) error {
	c.losses = 0
	for _, s := range e.Stagers {
		stager := c.stager(s.Sink)
		if stager == nil {
			return fmt.Errorf("commit: entry %d holds rows staged in the sink %s, which is no longer configured: add it again until they are committed", e.Number, s.Sink)
		}
		if err := c.persist(ctx, "commit", func() error { return stager.Commit(ctx, s.Token) }); err != nil {
			return err
		}
	}
	if err := c.write(ctx, e, id); err != nil {
		return err
	}
	for part, blob := range e.Rows.Parts {
		rows, err := c.read(ctx, blob)
		if err != nil {
			return err
		}
		id.Part = part
		for i, s := range c.sinks {
			if _, ok := s.(Stager); ok || e.isRolling(s) {
				continue
			}
			if err := c.deliver(ctx, s, i, id, rows); err != nil {
				return err
			}
		}
	}
	for part, blob := range e.Dead.Parts {
		rows, err := c.read(ctx, blob)
		if err != nil {
			return err
		}
		if err := c.bury(ctx, id.dead(part, "dead"), rows); err != nil {
			return err
		}
	}
	return nil
}

func (c *committer) stager(name string) Stager {
	for _, s := range c.sinks {
		if st, ok := s.(Stager); ok && st.Name() == name {
			return st
		}
	}
	return nil
}

func (c *committer) read(ctx context.Context, b Blob) ([]Row, error) {
	data, err := c.log.ReadBlob(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	return decodeRows(data)
}

func (c *committer) deliver(ctx context.Context, s Sink, index int, id CheckpointID, rows []Row) error {
	rejected, err := c.accepted(ctx, "deliver", func() error { return s.Deliver(ctx, id, rows) })
	if err != nil {
		return err
	}
	return c.refused(ctx, id, index, rejected, once(rows))
}

// once is rows as the one part that there is.
func once(rows []Row) iter.Seq2[[]Row, error] {
	return func(yield func([]Row, error) bool) { yield(rows, nil) }
}

// accepted has rows delivered, however long it takes, and returns those that the sink can never take.
func (c *committer) accepted(ctx context.Context, what string, deliver func() error) ([]RejectedRow, error) {
	var rejected *Rejected
	err := c.persist(ctx, what, func() error {
		rejected = nil
		if err := deliver(); !errors.As(err, &rejected) {
			return err
		}
		return nil
	})
	if err != nil || rejected == nil {
		return nil, err
	}
	return rejected.Rows, nil
}

// refused counts the rows that sink number index can never take, and buries them.
func (c *committer) refused(ctx context.Context, id CheckpointID, index int, rejected []RejectedRow, parts iter.Seq2[[]Row, error]) error {
	dead, err := c.letters(id, rejected, parts)
	if err != nil || len(dead) == 0 {
		return err
	}
	c.losses += int64(len(dead))
	return c.bury(ctx, id.dead(id.Part, fmt.Sprintf("rejected-%d", index)), dead)
}

// letters are the dead letters of rejected rows, whose indexes count the rows of all parts.
func (c *committer) letters(id CheckpointID, rejected []RejectedRow, parts iter.Seq2[[]Row, error]) ([]Row, error) {
	if len(rejected) == 0 {
		return nil, nil
	}
	dead, before := make([]Row, 0, len(rejected)), 0
	for rows, err := range parts {
		if err != nil {
			return nil, err
		}
		for _, r := range rejected {
			if i := r.Index - before; i >= 0 && i < len(rows) {
				d := DeadLetter{Reason: ReasonRejected, Stage: "sink", Source: c.a.sourceName(), Partition: id.Partition,
					Position: fmt.Sprintf("%s[%d]", id, r.Index), Error: r.Reason, Raw: rows[i].Data}
				dead = append(dead, d.row())
			}
		}
		before += len(rows)
	}
	if len(dead) != len(rejected) {
		return nil, fmt.Errorf("the sink rejects %d rows, of which %d are among the %d that it was given", len(rejected), len(dead), before)
	}
	return dead, nil
}

// bury delivers dead letters. Without a dead letter sink they are logged, and gone.
func (c *committer) bury(ctx context.Context, id CheckpointID, rows []Row) error {
	if c.dead == nil {
		for _, r := range rows {
			c.logger.Warn("dead letter without a sink", "partition", id.Partition, "letter", string(r.Data[:min(len(r.Data), 2048)]))
		}
		return nil
	}
	// A sink may refuse a letter for its size: an event hub takes less than a record may have. Then less
	// of the record goes with it, and at last nothing but where it is.
	for _, most := range []int{lessRaw, 0, -1} {
		rejected, err := c.accepted(ctx, "dead letter", func() error { return c.dead.Deliver(ctx, id, rows) })
		if err != nil || len(rejected) == 0 {
			return err
		}
		shorter := make([]Row, 0, len(rejected))
		for _, r := range rejected {
			if most < 0 {
				c.logger.Error("the dead letter's sink refuses a letter: it is lost but for this", "partition", id.Partition, "error", r.Reason, "letter", string(rows[r.Index].Data))
				continue
			}
			shorter = append(shorter, shortened(rows[r.Index], most))
		}
		rows, id.Kind = shorter, id.Kind+"-short"
	}
	return nil
}

// lessRaw is how much of a record stays in a letter that was too large for its sink.
const lessRaw = 16 << 10

// persist repeats f until it succeeds or the assignment is over: a sink that is down holds the
// partition back, and says so, rather than losing anything.
func (c *committer) persist(ctx context.Context, what string, f func() error) error {
	wait := 100 * time.Millisecond
	for attempt := 1; ; attempt++ {
		err := f()
		if err == nil {
			if attempt > 1 {
				c.stuck(nil)
				c.logger.Info(what+" works again", "partition", c.a.Partition, "attempts", attempt)
			}
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		}
		c.stuck(fmt.Errorf("%s: %w", what, err))
		c.logger.Warn(what+" failed: the partition waits and tries again", "partition", c.a.Partition, "attempt", attempt, "error", err)
		t := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("%s: %w (last: %w)", what, context.Cause(ctx), err)
		}
		wait = min(wait*2, 30*time.Second)
	}
}
