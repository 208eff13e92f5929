package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millstream/millstream/stream"
)

// Facts are what the bucket says of a pipeline at one moment. Nothing else is known: whoever wrote it
// may be down.
type Facts struct {
	Now     time.Time // of whoever asks
	Lease   time.Duration
	Logs    map[string]Tail // by partition, the merger's among them
	Members []Member        // by id
}

// Tail is the end of a log.
type Tail struct {
	Newest *stream.Entry // nil: the log is damaged
	Base   *stream.Entry // newest checkpoint, end, reset or import; nil: none
	Claims int           // without a checkpoint or a release since; 16 means that many or more
	// Damaged says why the log cannot be read; then nothing else is known of it.
	Damaged string
}

// owner is the member that must be dead before others may claim.
func (t Tail) owner() string { return t.tail().owner() }

func (t Tail) tail() tail { return tail{newest: t.Newest, base: t.Base, claims: t.Claims} }

// Member is one heartbeat file.
type Member struct {
	ID         string
	Clock      time.Time // when the heartbeat was written, by the member's clock
	Alive      bool      // see Facts.alive
	Partitions map[string]stream.Status
	Failed     map[string]Failure
}

// Facts reads the end of every log and every heartbeat. A heartbeat that is older than a lease, or of
// the future, is that of a dead member or of a wrong clock: with patient set it is looked at again
// after half a lease, in which a living member writes it twice.
func (s *Store) Facts(ctx context.Context, patient bool) (*Facts, error) {
	beats := make(map[string]*observer)
	if err := s.lookAtAll(ctx, beats); err != nil {
		return nil, err
	}
	if patient && slices.ContainsFunc(slices.Collect(maps.Values(beats)), func(o *observer) bool { return !s.fresh(o.beat.Clock) }) {
		t := time.NewTimer(s.lease / 2)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, context.Cause(ctx)
		}
	}
	logs, err := s.logs(ctx)
	if err != nil {
		return nil, err
	}
	f := &Facts{Lease: s.lease, Logs: make(map[string]Tail, len(logs))}
	var mu sync.Mutex
	err = each(maps.Keys(logs), func(partition string) error {
		t, err := s.end(ctx, partition, logs[partition])
		mu.Lock()
		defer mu.Unlock()
		if t != nil {
			f.Logs[partition] = *t
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := s.doubt(ctx, f); err != nil {
		return nil, err
	}
	// Once more, so that whoever owns a log that was read is known, and nobody has grown old meanwhile.
	if err := s.lookAtAll(ctx, beats); err != nil {
		return nil, err
	}
	f.Now = time.Now()
	for id, o := range beats {
		if o.present {
			f.Members = append(f.Members, Member{ID: id, Clock: o.beat.Clock, Alive: o.changed || s.fresh(o.beat.Clock), Partitions: o.beat.Partitions, Failed: o.beat.Failed})
		}
	}
	slices.SortFunc(f.Members, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	return f, nil
}

// end reads the end of a listed log, nil for an empty one.
func (s *Store) end(ctx context.Context, partition string, numbers []uint64) (*Tail, error) {
	t, err := (&follower{s: s, partition: partition}).walk(ctx, numbers)
	var damaged *Damaged
	switch {
	case errors.As(err, &damaged):
		return &Tail{Damaged: err.Error()}, nil
	case err != nil || t.newest == nil:
		return nil, err
	}
	return &Tail{Newest: t.newest, Base: t.base, Claims: t.claims}, nil
}

// lookAtAll reads the heartbeats of all members, those already watched and new ones.
func (s *Store) lookAtAll(ctx context.Context, beats map[string]*observer) error {
	ids, err := s.members(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if beats[id] == nil {
			beats[id] = &observer{}
		}
	}
	return each(maps.Keys(beats), func(id string) error {
		if err := s.look(ctx, beats[id], id); err != nil {
			return fmt.Errorf("member %s: %w", id, err)
		}
		return nil
	})
}

// readsAtOnce is how many objects are read at the same time: a fleet has thousands of logs.
const readsAtOnce = 32

// each calls f for every name, many at once, and returns their errors.
func each[T any](names iter.Seq[T], f func(T) error) error {
	var (
		calls  sync.WaitGroup
		mu     sync.Mutex
		failed error
		free   = make(chan struct{}, readsAtOnce)
	)
	for name := range names {
		free <- struct{}{}
		mu.Lock()
		stop := failed != nil
		mu.Unlock()
		if stop {
			break
		}
		calls.Go(func() {
			defer func() { <-free }()
			if err := f(name); err != nil {
				mu.Lock()
				failed = cmp.Or(failed, err)
				mu.Unlock()
			}
		})
	}
	calls.Wait()
	return failed
}

// fresh reports whether a heartbeat of that time is of a member that may live, by two wall clocks.
func (s *Store) fresh(clock time.Time) bool {
	age := time.Since(clock)
	return age <= s.lease && age >= -s.lease
}

// member finds a heartbeat, nil when there is none.
func (f *Facts) member(id string) *Member {
	for i := range f.Members {
		if f.Members[i].ID == id {
			return &f.Members[i]
		}
	}
	return nil
}

// living counts the members that live.
func (f *Facts) living() (n int) {
	for _, m := range f.Members {
		if m.Alive {
			n++
		}
	}
	return n
}

// failure is the newest failure of a partition that no later checkpoint has ended.
func (f *Facts) failure(partition string) (newest *Failure) {
	for i := range f.Members {
		got, ok := f.Members[i].Failed[partition]
		if !ok || newest != nil && newest.At.After(got.At) {
			continue
		}
		if b := f.Logs[partition].Base; b != nil && b.Number > got.Newest {
			continue
		}
		newest = &got
	}
	return newest
}
