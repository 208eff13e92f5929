package checkpoint

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/stream"
)

// retention decides for one claim what of its log is deleted (A6, A12). It is fed by Append, which it
// never holds up, and run by the group's janitor.
//
// Kept: the newest checkpoint and everything after it; the K checkpoints before it, and more of them
// until they reach back for DedupeFor, with everything between; every claim and reset for ever, since
// they occupy the very numbers that a zombie would try; every object that a kept entry names. What is
// deleted below that is a run of numbers from the oldest on, and an entry goes before its objects.
type retention struct {
	s         *Store
	partition string
	claim     uint64

	mu      sync.Mutex
	entries []kept // by number
	dirty   bool

	// Owned by the janitor.
	swept   bool     // objects of older claims are gone
	pending []string // objects whose entry is gone
}

// kept is what the retention knows of an entry that has not been deleted. Kind is empty for one that
// has not been read yet.
type kept struct {
	number  uint64
	kind    stream.Kind
	elapsed time.Duration
	objects []string
}

// readsPerSweep bounds how many old entries one sweep reads to learn what they are.
const readsPerSweep = 64

func newRetention(s *Store, partition string, c *claimed) *retention {
	r := &retention{s: s, partition: partition, claim: c.entry.Number, dirty: true}
	for _, n := range c.numbers {
		if n < c.entry.Number {
			r.entries = append(r.entries, kept{number: n})
		}
	}
	r.entries = append(r.entries, keptOf(c.entry))
	return r
}

func keptOf(e *stream.Entry) kept {
	k := kept{number: e.Number, kind: e.Kind, elapsed: e.Elapsed}
	e.Blobs(func(b *stream.Blob) {
		if b.Object != "" {
			k.objects = append(k.objects, b.Object)
		}
	})
	return k
}

// appended takes a saved entry.
func (r *retention) appended(e *stream.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries = append(r.entries, keptOf(e))
	r.dirty = true
}

func (k *kept) restorable() bool {
	return k.kind == stream.KindCheckpoint || k.kind == stream.KindEnd || k.kind == stream.KindReset || k.kind == stream.KindImport
}

func (k *kept) forEver(r rules) bool {
	return (k.kind == stream.KindClaim || k.kind == stream.KindReset || k.kind == stream.KindImport) && !r.forgetClaims
}

// snapshot copies what is known.
func (r *retention) snapshot() []kept {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dirty = false
	return slices.Clone(r.entries)
}

// before returns the numbers of the entries before a claim's.
func (r *retention) before(claim uint64) (numbers []uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.entries {
		if n := r.entries[i].number; n < claim {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

func (r *retention) learned(k kept) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i, ok := r.find(k.number); ok {
		r.entries[i] = k
	}
}

func (r *retention) forget(n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i, ok := r.find(n); ok {
		r.entries = slices.Delete(r.entries, i, i+1)
	}
}

func (r *retention) find(n uint64) (int, bool) {
	return slices.BinarySearchFunc(r.entries, n, func(k kept, n uint64) int {
		switch {
		case k.number < n:
			return -1
		case k.number > n:
			return 1
		}
		return 0
	})
}

// learn reads an entry that is not known yet.
func (r *retention) learn(ctx context.Context, k *kept) error {
	e, err := r.s.read(ctx, r.partition, k.number)
	switch {
	case errors.Is(err, bucket.ErrNotFound):
		r.forget(k.number)
		return nil
	case err != nil:
		return err
	}
	*k = keptOf(e)
	r.learned(*k)
	return nil
}

// sweep deletes what is to be deleted now. An error ends it; the next one goes on.
func (r *retention) sweep(ctx context.Context) error {
	entries := r.snapshot()
	cut, err := r.cut(ctx, entries)
	if err != nil || cut < 0 {
		return err
	}
	named := make(map[string]bool)
	if !r.s.rules.forgetNames {
		for _, k := range entries[cut:] {
			for _, o := range k.objects {
				named[o] = true
			}
		}
	}
	for i, reads := 0, 0; i < cut; i++ {
		k := &entries[i]
		if k.kind == "" {
			if reads++; reads > readsPerSweep {
				break // what is below the cut stays in order
			}
			if err := r.learn(ctx, k); err != nil {
				return err
			}
		}
		if k.kind == "" || k.forEver(r.s.rules) {
			continue
		}
		if err := r.s.bucket.Delete(ctx, r.s.path(entryName(r.partition, k.number))); err != nil {
			return err
		}
		r.forget(k.number)
		r.pending = append(r.pending, k.objects...)
	}
	for len(r.pending) > 0 {
		if o := r.pending[0]; !named[o] {
			if err := r.s.bucket.Delete(ctx, r.s.path(o)); err != nil {
				return err
			}
		}
		r.pending = r.pending[1:]
	}
	if r.swept || r.s.rules.noGarbage {
		return nil
	}
	if err := r.orphans(ctx, named); err != nil {
		return err
	}
	r.swept = true
	return nil
}

// cut is the index of the oldest entry that is kept for more than being a claim or a reset; -1 when
// nothing may be deleted. It reads entries that it has to know.
func (r *retention) cut(ctx context.Context, entries []kept) (int, error) {
	checkpoints, age := 0, time.Duration(0)
	for i := len(entries) - 1; i >= 0; i-- {
		k := &entries[i]
		if k.kind == "" {
			if err := r.learn(ctx, k); err != nil {
				return 0, err
			}
		}
		if k.restorable() {
			if checkpoints++; checkpoints > r.s.cfg.Keep && (age >= r.s.cfg.DedupeFor || r.s.rules.noDedupe) {
				return i, nil
			}
		}
		age += k.elapsed // of the entries before this one
	}
	return 0, nil
}

// orphans deletes the objects of older claims that no kept entry names (A12): they were written for
// entries that never came to be. Nobody can append for an older claim any more.
func (r *retention) orphans(ctx context.Context, named map[string]bool) error {
	dir := r.s.path(objectDir(r.partition))
	names, err := r.s.bucket.List(ctx, dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		claim, ok := number(strings.TrimPrefix(name, dir)[:min(20, len(name)-len(dir))])
		if !ok || claim >= r.claim || named[strings.TrimPrefix(name, r.s.path(""))] {
			continue
		}
		if err := r.s.bucket.Delete(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// janitor runs the retentions of a group one after the other, apart from everything else.
type janitor struct {
	s *Store

	mu   sync.Mutex
	all  map[*retention]bool
	done map[string]bool // ended partitions whose objects are gone
}

func (j *janitor) add(r *retention) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.all[r] = true
}

func (j *janitor) remove(r *retention) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.all, r)
}

// work sweeps until ctx is done. Failures are for the next round: deleting is never urgent.
func (j *janitor) work(ctx context.Context) {
	pause := max(j.s.lease/15, 10*time.Millisecond)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		news := j.s.news.next()
		j.round(ctx)
		timer.Reset(pause) // not more often, however fast entries come
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		select {
		case <-news:
		case <-ctx.Done():
			return
		}
	}
}

func (j *janitor) round(ctx context.Context) {
	j.mu.Lock()
	var todo []*retention
	merger := false
	for r := range j.all {
		r.mu.Lock()
		if r.dirty {
			todo = append(todo, r)
		}
		r.mu.Unlock()
		merger = merger || r.partition == stream.MergerPartition
	}
	j.mu.Unlock()
	for _, r := range todo {
		if err := r.sweep(ctx); err != nil && ctx.Err() == nil {
			r.mu.Lock()
			r.dirty = true
			r.mu.Unlock()
			j.s.logger.Info("old entries and objects cannot be deleted now", "partition", r.partition, "error", err)
		}
	}
	if merger && !j.s.rules.noGarbage {
		if err := j.bury(ctx); err != nil && ctx.Err() == nil {
			j.s.logger.Info("objects of ended partitions cannot be deleted now", "error", err)
		}
	}
}

// bury deletes the objects of partitions that have ended, once the saved frontier has passed all
// that they froze (A12). It is the merger's owner who does it.
func (j *janitor) bury(ctx context.Context) error {
	m := j.s.merged()
	if m == nil {
		return nil
	}
	for i := range m.Roster {
		name := m.Roster[i].Name
		if !m.Roster[i].Ended || j.done[name] {
			continue
		}
		e := j.s.follow(name).state().base
		if e == nil || e.Kind != stream.KindEnd || slices.ContainsFunc(e.Frozen, func(f stream.Frozen) bool { return f.End > m.Frontier }) {
			continue
		}
		names, err := j.s.bucket.List(ctx, j.s.path(objectDir(name)))
		if err != nil {
			return err
		}
		for _, object := range names {
			if err := j.s.bucket.Delete(ctx, object); err != nil {
				return err
			}
		}
		j.done[name] = true
	}
	return nil
}
