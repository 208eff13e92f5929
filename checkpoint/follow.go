package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/stream"
)

// walkBack bounds how many entries behind the newest checkpoint are read to learn how the partition
// came to stand without a newer one. It is beyond what the crash loop's count can distinguish.
const walkBack = 16

// follower knows the newest entries of one log (A11): it reads the next number until nothing is
// there, and lists only when it starts, when somebody is known to be further on, or, rarely, when
// nothing has come for long, since what it would have read next may have been deleted. Entries
// appended by this process are told to it, so that following what we own costs nothing.
type follower struct {
	s         *Store
	partition string
	io        chan struct{} // held while reading; a channel, so that waiting is waiting in virtual time too

	mu       sync.Mutex
	is       tail
	newAt    time.Time // when the newest entry was first seen here
	known    bool      // the log has been listed
	owned    int       // claims of this process: what they append is observed
	hinted   uint64    // a heartbeat tells of this entry
	doubted  *uint64   // the newest entry's number when the log seemed to end too early, see whole
	readAt   time.Time
	listedAt time.Time
	listWait time.Duration
}

// tail is the end of a log.
type tail struct {
	newest   *stream.Entry // of any kind, nil for an empty log
	base     *stream.Entry // the newest checkpoint, reset or end
	released bool          // a release stands behind base: its output is committed
	claims   int           // since base, or since the last release
}

const (
	relistFirst = time.Minute
	relistMax   = 10 * time.Minute
)

// follow returns the store's follower of a partition.
func (s *Store) follow(partition string) *follower {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.followers[partition]
	if f == nil {
		f = &follower{s: s, partition: partition, io: make(chan struct{}, 1), listWait: relistFirst}
		s.followers[partition] = f
	}
	return f
}

// state returns what is known.
func (f *follower) state() tail {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.is
}

// since is when the newest entry was first seen here.
func (f *follower) since() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.newAt
}

// loaded reports whether the log was ever read.
func (f *follower) loaded() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.known || f.is.newest != nil
}

// own says that a claim of this process stands, or has ended.
func (f *follower) own(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.owned += n
	f.readAt = time.Time{}
}

// refresh makes the next sync list the log: something has happened, perhaps beyond entries that are
// deleted by now.
func (f *follower) refresh() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.known = false
}

// hint says that somebody knows of entry n.
func (f *follower) hint(n uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hinted = max(f.hinted, n)
}

// observe takes the next entry. It reports whether it was new.
func (f *follower) observe(e *stream.Entry) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.is.newest != nil && e.Number <= f.is.newest.Number {
		return false
	}
	if f.is.newest != nil && e.Number != f.is.newest.Number+1 {
		f.known = false
	}
	f.is.add(e)
	f.newAt = time.Now()
	return true
}

func (t *tail) add(e *stream.Entry) {
	t.newest = e
	switch {
	case e.Restorable():
		t.base, t.released, t.claims = e, false, 0
	case e.Kind == stream.KindRelease:
		t.released, t.claims = true, 0
	case e.Kind == stream.KindClaim:
		t.claims++
	}
}

// sync reads what is new, unless that was done less than every ago, or this process owns the log.
func (f *follower) sync(ctx context.Context, every time.Duration) error {
	select {
	case f.io <- struct{}{}:
		defer func() { <-f.io }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	f.mu.Lock()
	known, fresh := f.known, f.known && (f.owned > 0 || every > 0 && time.Since(f.readAt) < every)
	f.mu.Unlock()
	if fresh {
		return nil
	}
	var err error
	if known {
		err = f.forward(ctx)
	} else {
		err = f.load(ctx)
	}
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.readAt = time.Now()
	f.mu.Unlock()
	return nil
}

// forward reads the numbers that follow.
func (f *follower) forward(ctx context.Context) error {
	found := false
	for {
		next := uint64(1)
		if t := f.state(); t.newest != nil {
			next = t.newest.Number + 1
		}
		e, err := f.s.read(ctx, f.partition, next)
		if errors.Is(err, bucket.ErrNotFound) {
			break
		}
		if err != nil {
			return err
		}
		if f.observe(e) {
			found = true
			f.s.news.tell()
		}
	}
	if !f.gap(found) {
		return nil
	}
	return f.load(ctx)
}

// gap reports whether the log should be listed, since entries may have gone by.
func (f *follower) gap(found bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.s.rules.blindFollower {
		return false
	}
	if f.hinted > 0 && (f.is.newest == nil || f.hinted > f.is.newest.Number) {
		f.hinted = 0 // once for each hint: a heartbeat may be wrong
		return true
	}
	if found {
		f.listedAt, f.listWait = time.Now(), relistFirst
		return false
	}
	return time.Since(f.listedAt) >= f.listWait
}

// load lists the log and reads it from its end back to the newest checkpoint.
func (f *follower) load(ctx context.Context) error {
	numbers, err := f.s.list(ctx, f.partition)
	if err != nil {
		return err
	}
	t, err := f.walk(ctx, numbers)
	if err != nil {
		return err
	}
	f.mu.Lock()
	old := f.is.newest
	newer := t.newest != nil && (old == nil || t.newest.Number > old.Number)
	if newer || !f.known && t.newest != nil && t.newest.Number == old.Number {
		f.is = t
	}
	if newer {
		f.newAt = time.Now()
	}
	if f.known && !newer {
		f.listWait = min(f.listWait*2, relistMax)
	} else {
		f.listWait = relistFirst
	}
	f.known, f.listedAt = true, time.Now()
	f.mu.Unlock()
	if newer {
		f.s.news.tell()
	}
	return nil
}

// walk reads the tail of a listed log. A claim names its base, so that a long row of claims need not
// be read.
func (f *follower) walk(ctx context.Context, numbers []uint64) (t tail, err error) {
	f.mu.Lock()
	known := f.is
	if !f.known {
		known = tail{} // something was missed on the way to it
	}
	f.mu.Unlock()
	var behind []*stream.Entry // newest first
	base, named := uint64(0), false
	for i := len(numbers) - 1; i >= 0 && len(behind) < walkBack; i-- {
		n := numbers[i]
		if named && n <= base {
			break
		}
		if known.newest != nil && known.newest.Number == n && i == len(numbers)-1 {
			return known, nil
		}
		e, err := f.s.read(ctx, f.partition, n)
		if f.s.rules.skipDamaged && errors.Is(err, bucket.ErrNotFound) {
			continue
		}
		if err != nil {
			return t, err
		}
		if e.Restorable() {
			t.base = e
			break
		}
		if e.Kind == stream.KindClaim && !named {
			base, named = e.Base, true
		}
		behind = append(behind, e)
	}
	if t.base == nil && base > 0 {
		if t.base, err = f.s.read(ctx, f.partition, base); err != nil {
			return t, fmt.Errorf("base of the newest claim: %w", err)
		}
	}
	t.newest = t.base
	for i := len(behind) - 1; i >= 0; i-- {
		t.add(behind[i])
	}
	return t, nil
}
