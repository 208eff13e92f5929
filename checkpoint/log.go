package checkpoint

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/millstream/millstream/stream"
)

// log is one claim's log: stream.Log.
type log struct {
	run       *run
	s         *Store
	member    *member
	follower  *follower
	retention *retention
	partition string
	claim     uint64
	genesis   string
	lose      func(error) // ends the assignment

	busy chan struct{} // held by Append
	seen *stream.Mark  // of the merger's log; Append's

	mu   sync.Mutex
	next uint64
	seq  uint64    // of objects
	last time.Time // when the entry before the next one was appended
	over error     // why nothing can be appended any more
}

func nonce() string { return rand.Text() }

func (l *log) Next() stream.CheckpointID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return stream.CheckpointID{Pipeline: l.s.name, Genesis: l.genesis, Partition: l.partition, Number: l.next}
}

// Append saves e under the next number (A1).
func (l *log) Append(ctx context.Context, e *stream.Entry) error {
	select {
	case l.busy <- struct{}{}:
		defer func() { <-l.busy }()
	default:
		return fmt.Errorf("log %s: two goroutines append at once", l.partition)
	}
	if err := l.ready(e); err != nil {
		return err
	}
	if err := l.spill(ctx, e); err != nil {
		return l.end(err)
	}
	appended := time.Now()
	l.mu.Lock()
	e.Number, e.Elapsed = l.next, appended.Sub(l.last)
	l.mu.Unlock()
	e.Owner, e.Nonce, e.Genesis, e.Plan, e.Base = l.member.id, nonce(), l.genesis, l.s.plan, 0
	l.witness(e)
	if err := l.s.offer(ctx, l.partition, e); err != nil {
		if l.s.rules.skipNumber && ctx.Err() == nil {
			l.mu.Lock()
			l.next++
			l.mu.Unlock()
			return err
		}
		return l.end(err)
	}
	l.mu.Lock()
	l.next, l.last = e.Number+1, appended
	if e.Kind == stream.KindRelease || e.Kind == stream.KindEnd {
		l.over = fmt.Errorf("log %s: a %s is appended already, nothing may follow it", l.partition, e.Kind)
	}
	l.mu.Unlock()
	l.retention.appended(e)
	l.follower.observe(e)
	l.s.news.tell()
	return nil
}

// ready refuses what must not be appended: anything after the log is over for this claim, and
// entries in the wrong order (A5). The lease is looked at first of all: a process that slept may have
// been replaced (A4).
func (l *log) ready(e *stream.Entry) error {
	if err := l.alive(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.s.rules.noOrder {
		return nil
	}
	if l.over != nil {
		return l.over
	}
	switch e.Kind {
	case stream.KindCheckpoint:
		return nil
	case stream.KindRelease, stream.KindEnd:
		if len(e.Rows.Parts)+len(e.Dead.Parts)+len(e.Stagers)+len(e.Snapshot) > 0 {
			return fmt.Errorf("log %s: a %s carries no output: it comes after the last commit", l.partition, e.Kind)
		}
		return nil
	}
	return fmt.Errorf("log %s: an owner appends no %s", l.partition, e.Kind)
}

// alive ends the log when the lease is lost.
func (l *log) alive() error {
	l.mu.Lock()
	over := l.over
	l.mu.Unlock()
	if over != nil && !l.s.rules.noOrder {
		return over
	}
	if !l.member.check() {
		return l.end(stream.ErrLeaseLost)
	}
	return nil
}

// end refuses everything from here on.
func (l *log) end(err error) error {
	l.mu.Lock()
	if l.over == nil {
		l.over = err
	}
	l.mu.Unlock()
	if errors.Is(err, stream.ErrFenced) || errors.Is(err, stream.ErrLeaseLost) {
		l.lose(err)
	}
	return err
}

// spill turns inline frozen slices into objects, the largest first, when the entry would carry too
// much of them on and on.
func (l *log) spill(ctx context.Context, e *stream.Entry) error {
	total := 0
	for i := range e.Frozen {
		total += len(e.Frozen[i].Data.Inline)
	}
	if total <= frozenInlineMax {
		return nil
	}
	e.Frozen = slices.Clone(e.Frozen) // the lane's copy is its own
	order := make([]int, len(e.Frozen))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return len(e.Frozen[b].Data.Inline) - len(e.Frozen[a].Data.Inline) })
	for _, i := range order {
		if total <= frozenInlineMax/2 {
			break
		}
		b := &e.Frozen[i].Data
		if b.Object != "" {
			continue
		}
		total -= len(b.Inline)
		if err := l.store(ctx, "slice", b); err != nil {
			return err
		}
	}
	return nil
}

// store writes the stored bytes of an inline blob as an object.
func (l *log) store(ctx context.Context, kind string, b *stream.Blob) error {
	l.mu.Lock()
	l.seq++
	name := objectName(l.partition, l.claim, l.seq, kind)
	l.mu.Unlock()
	if err := l.s.writeObject(ctx, name, b.Inline); err != nil {
		return err
	}
	if kind != "snapshot" {
		l.s.recent.put(name, b.Inline)
	}
	b.Object, b.Inline = name, nil
	return nil
}

// WriteObject stores what from writes.
func (l *log) WriteObject(ctx context.Context, kind string, from io.WriterTo) (stream.Blob, error) {
	if err := l.alive(); err != nil {
		return stream.Blob{}, err
	}
	stored, size, err := l.s.pack.pack(from)
	if err != nil {
		return stream.Blob{}, fmt.Errorf("%s: %w", kind, err)
	}
	b := stream.Blob{Inline: stored, Size: size, Sum: xxhash.Sum64(stored)}
	if len(stored) <= inlineMax {
		return b, nil
	}
	return b, l.store(ctx, kind, &b)
}

func (l *log) ReadBlob(ctx context.Context, b stream.Blob) ([]byte, error) {
	return l.s.readBlob(ctx, b)
}

// Newest returns the newest restorable entry of a log. When the store does not answer it is the
// newest that is known: what is saved stays true.
func (l *log) Newest(ctx context.Context, partition string) (e *stream.Entry, err error) {
	f := l.s.follow(partition)
	if l.partition == stream.MergerPartition {
		defer func() { l.run.unread(partition, err) }()
	}
	for wait := l.s.backOff(); ; {
		err := f.sync(ctx, l.s.pollEvery())
		if err == nil {
			err = l.vouched(ctx, f)
		}
		if err == nil {
			return f.state().base, nil
		}
		var damaged *Damaged
		if errors.As(err, &damaged) || ctx.Err() != nil {
			return nil, err
		}
		if f.loaded() {
			return f.state().base, nil
		}
		l.s.logger.Warn("a log cannot be read: trying again", "partition", partition, "error", err)
		if err := wait.sleep(ctx); err != nil {
			return nil, err
		}
	}
}

// merged returns the merger's part of its newest saved entry, nil before there is one. What was
// imported counts once a merger has saved it under its plan: two plans cannot both begin with it.
func (s *Store) merged() *stream.MergerEntry {
	if e := s.follow(stream.MergerPartition).state().base; e != nil && e.Kind != stream.KindReset && e.Kind != stream.KindImport {
		return e.Merger
	}
	return nil
}

func (l *log) Frontier() stream.Instant {
	if m := l.s.merged(); m != nil {
		return m.Frontier
	}
	return stream.Beginning
}

func (l *log) Target() stream.Instant {
	if m := l.s.merged(); m != nil {
		return m.Target
	}
	return stream.Beginning
}

func (l *log) Clock() time.Time { return l.run.clock() }

func (l *log) Changed() <-chan struct{} { return l.s.news.next() }

// pollEvery is how often a log of somebody else is looked at.
func (s *Store) pollEvery() time.Duration { return min(s.lease/5, 3*time.Second) }
