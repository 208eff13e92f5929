package checkpoint

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/stream"
)

// partitions is a source with nothing but names.
type partitions []string

func (p partitions) Partitions(context.Context) ([]stream.Partition, error) {
	var ps []stream.Partition
	for _, name := range p {
		ps = append(ps, stream.Partition{Name: name})
	}
	return ps, nil
}

func (p partitions) Tip(context.Context) (string, error) { return "", nil }

var plan = stream.Plan{{Name: "--window", Value: "1m"}, {Name: "--key", Value: "user"}}

func config(b bucket.Bucket) Config {
	start := time.Now()
	return Config{Bucket: b, Name: "p", Plan: plan, Member: "m", Checked: true, Lease: 15 * time.Second,
		Logger: slog.New(slog.DiscardHandler), BootTime: func() time.Duration { return time.Since(start) }}
}

func open(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// worker serves assignments with the smallest of engines: the merger admits every partition of the
// source; a partition counts up, and saves a checkpoint every second.
type worker struct {
	store   *Store
	src     partitions
	until   int64  // a partition ends at this position; 0: never
	endless string // but this one

	mu     sync.Mutex
	unread map[string]error // what the merger was told of a log when it looked last
	claims map[string][]*stream.Assignment
}

func newWorker(s *Store, src ...string) *worker {
	return &worker{store: s, src: src, claims: make(map[string][]*stream.Assignment), unread: make(map[string]error)}
}

func (w *worker) run(ctx context.Context) error { return w.store.Group().Run(ctx, w.src, w.serve) }

func (w *worker) claimed(partition string) []*stream.Assignment {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*stream.Assignment(nil), w.claims[partition]...)
}

func (w *worker) serve(a *stream.Assignment) error {
	w.mu.Lock()
	w.claims[a.Partition] = append(w.claims[a.Partition], a)
	w.mu.Unlock()
	ctx, cancel := a.Context(context.Background())
	defer cancel()
	if a.Partition == stream.MergerPartition {
		return w.merge(ctx, a)
	}
	position := int64(0)
	if a.Base != nil {
		position = a.Base.Position.Number
	}
	for {
		select {
		case <-a.Draining:
			return a.Log.Append(ctx, &stream.Entry{Kind: stream.KindRelease})
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Second):
		}
		position++
		e := checkpointAt(position)
		if w.until > 0 && position >= w.until && a.Partition != w.endless {
			e.Watermark = stream.EndOfTime
		}
		if err := a.Log.Append(ctx, e); err != nil {
			return err
		}
		if e.Watermark == stream.EndOfTime {
			return a.Log.Append(ctx, &stream.Entry{Kind: stream.KindEnd, Position: e.Position, Watermark: stream.EndOfTime, Ledger: e.Ledger})
		}
	}
}

func checkpointAt(position int64) *stream.Entry {
	return &stream.Entry{Kind: stream.KindCheckpoint, Position: stream.Position{Number: position}, Watermark: stream.Instant(position),
		Ledger: stream.Ledger{RecordsIn: position, Contributed: position}}
}

func (w *worker) merge(ctx context.Context, a *stream.Assignment) error {
	m := &stream.MergerEntry{Frontier: stream.Beginning, Target: stream.Beginning}
	ps, _ := w.src.Partitions(ctx)
	slices.SortFunc(ps, func(a, b stream.Partition) int { return strings.Compare(a.Name, b.Name) })
	for _, p := range ps {
		m.Roster = append(m.Roster, stream.RosterRow{Partition: p, Start: 7})
	}
	if a.Base == nil || a.Base.Kind == stream.KindReset {
		if err := a.Log.Append(ctx, &stream.Entry{Kind: stream.KindCheckpoint, Merger: m}); err != nil {
			return err
		}
	}
	for {
		news := a.Log.Changed()
		ended := true
		known := &stream.MergerEntry{Frontier: m.Frontier, Target: m.Target}
		for _, p := range ps {
			row := stream.RosterRow{Partition: p, Start: 7}
			if a.Base != nil && a.Base.Merger != nil {
				for _, r := range a.Base.Merger.Roster {
					if r.Name == p.Name {
						row.Newest, row.Ended = r.Newest, r.Ended
					}
				}
			}
			e, err := a.Log.Newest(ctx, p.Name)
			if ctx.Err() != nil {
				return err
			}
			w.mu.Lock()
			w.unread[p.Name] = err
			w.mu.Unlock()
			ended = ended && e != nil && e.Kind == stream.KindEnd
			if e != nil {
				row.Newest, row.Ended = max(row.Newest, e.Number), row.Ended || e.Kind == stream.KindEnd
			}
			known.Roster = append(known.Roster, row)
		}
		if ended {
			return a.Log.Append(ctx, &stream.Entry{Kind: stream.KindEnd, Watermark: stream.EndOfTime, Merger: m})
		}
		select {
		case <-a.Draining:
			if err := a.Log.Append(ctx, &stream.Entry{Kind: stream.KindCheckpoint, Merger: known}); err != nil {
				return err
			}
			return a.Log.Append(ctx, &stream.Entry{Kind: stream.KindRelease})
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-news:
		case <-time.After(time.Second):
		}
	}
}

func TestOneProcessRunsToTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bucket.Memory()
		s := open(t, config(b))
		w := newWorker(s, "a", "b/c", "..")
		w.until = 20
		if err := w.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		l, err := s.Ledger(t.Context())
		if err != nil || l.RecordsIn != 60 {
			t.Fatalf("ledger %+v, %v", l, err)
		}
		for _, p := range w.src {
			as := w.claimed(p)
			if len(as) != 1 || as[0].Claim != 1 || as[0].Start != 7 || as[0].Base != nil {
				t.Fatalf("assignments of %s: %+v", p, as)
			}
		}
		names, _ := b.List(t.Context(), "p/members/")
		if len(names) != 0 {
			t.Errorf("member files after a clean exit: %v", names)
		}
		numbers, _ := s.list(t.Context(), "a")
		if numbers[0] != 1 || numbers[1] < 8 { // the last sweep may have come before the last entries
			t.Errorf("entries kept: %v", numbers)
		}
		if err := newWorker(open(t, config(b)), w.src...).run(t.Context()); !errors.Is(err, stream.ErrFinished) {
			t.Errorf("a second run: %v", err)
		}
	})
}

func TestDrainAndResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bucket.Memory()
		for round := range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 5500*time.Millisecond)
			w := newWorker(open(t, config(b)), "a", "b")
			if err := w.run(ctx); err != nil {
				t.Fatal(err)
			}
			cancel()
			as := w.claimed("a")
			if len(as) != 1 {
				t.Fatalf("round %d: %d claims", round, len(as))
			}
			if round > 0 && (as[0].Base.Position.Number != int64(5*round) || !as[0].Committed) {
				t.Fatalf("round %d: base %+v committed %v", round, as[0].Base, as[0].Committed)
			}
		}
	})
}
