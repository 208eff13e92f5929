package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/stream"
)

// members lists the ids that have a heartbeat file.
func (s *Store) members(ctx context.Context) ([]string, error) {
	dir := s.path("members/")
	names, err := s.bucket.List(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	ids := names[:0]
	for _, name := range names {
		if name != s.path(turnoverName) {
			ids = append(ids, strings.TrimPrefix(name, dir))
		}
	}
	return ids, nil
}

// tails reads the end of every log, by partition. What this process remembers plays no part: the
// answer is the same whoever asks.
func (s *Store) tails(ctx context.Context) (map[string]tail, error) {
	logs, err := s.logs(ctx)
	if err != nil {
		return nil, err
	}
	tails := make(map[string]tail, len(logs))
	for partition, numbers := range logs {
		f := &follower{s: s, partition: partition}
		t, err := f.walk(ctx, numbers)
		if err != nil {
			return nil, err
		}
		tails[partition] = t
	}
	return tails, nil
}

// Ledger sums what became of every record, over the newest saved entry of every log.
func (s *Store) Ledger(ctx context.Context) (stream.Ledger, error) {
	tails, err := s.tails(ctx)
	if err != nil {
		return stream.Ledger{}, err
	}
	var sum stream.Ledger
	for _, t := range tails {
		if t.base != nil {
			sum.Add(t.base.Ledger)
		}
	}
	return sum, nil
}

// Ended reports whether the pipeline has come to its end (M8).
func (s *Store) Ended(ctx context.Context) (bool, error) {
	numbers, err := s.list(ctx, stream.MergerPartition)
	if err != nil {
		return false, err
	}
	f := &follower{s: s, partition: stream.MergerPartition}
	t, err := f.walk(ctx, numbers)
	return t.base != nil && t.base.Kind == stream.KindEnd, err
}

// Ends returns the saved position of every partition that has one.
func (s *Store) Ends(ctx context.Context) (map[string]stream.Position, error) {
	tails, err := s.tails(ctx)
	if err != nil {
		return nil, err
	}
	ends := make(map[string]stream.Position, len(tails))
	for partition, t := range tails {
		if t.base != nil && partition != stream.MergerPartition {
			ends[partition] = t.base.Position
		}
	}
	return ends, nil
}

// Info is what is known of one partition.
type Info struct {
	Partition string
	Newest    uint64         // number of the newest entry
	Kind      stream.Kind    // of the newest entry
	Owner     string         // member that wrote it
	Saved     *stream.Entry  // newest checkpoint, end or reset; nil: none
	Status    *stream.Status // from the owner's heartbeat; nil when there is none
	Age       time.Duration  // of that heartbeat, by the two wall clocks
}

// List describes every partition that has a log, the merger first.
func (s *Store) List(ctx context.Context) ([]Info, error) {
	tails, err := s.tails(ctx)
	if err != nil {
		return nil, err
	}
	ids, err := s.members(ctx)
	if err != nil {
		return nil, err
	}
	beats := make(map[string]heartbeat, len(ids))
	for _, id := range ids {
		var o observer
		if err := s.look(ctx, &o, id); err != nil {
			return nil, fmt.Errorf("member %s: %w", id, err)
		}
		beats[id] = o.beat
	}
	infos := make([]Info, 0, len(tails))
	for partition, t := range tails {
		if t.newest == nil {
			continue
		}
		info := Info{Partition: partition, Newest: t.newest.Number, Kind: t.newest.Kind, Owner: t.newest.Owner, Saved: t.base}
		if beat, ok := beats[t.newest.Owner]; ok {
			if status, owns := beat.Partitions[partition]; owns {
				info.Status, info.Age = &status, time.Since(beat.Clock)
			}
		}
		infos = append(infos, info)
	}
	slices.SortFunc(infos, func(a, b Info) int {
		if am, bm := a.Partition == stream.MergerPartition, b.Partition == stream.MergerPartition; am != bm {
			if am {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Partition, b.Partition)
	})
	return infos, nil
}

// Show reads one entry of a partition's log.
func (s *Store) Show(ctx context.Context, partition string, number uint64) (*stream.Entry, error) {
	e, err := s.read(ctx, partition, number)
	if errors.Is(err, bucket.ErrNotFound) {
		numbers, listErr := s.list(ctx, partition)
		switch {
		case listErr != nil:
			return nil, errors.Join(err, listErr)
		case len(numbers) == 0:
			return nil, fmt.Errorf("partition %s has no log in %s/%s", partition, s.bucket.URL(), s.name)
		}
		return nil, fmt.Errorf("partition %s has no entry %d: it has %d of them from %d to %d", partition, number, len(numbers), numbers[0], numbers[len(numbers)-1])
	}
	return e, err
}

// Reset starts the pipeline again from the source's start (A7): it appends a reset to every log, the
// merger's included. Numbers go on, so that nothing delivered before can be mistaken for what comes
// now: rows delivered already come again, under new ids. It is refused while a member lives, which
// takes a lease to find out when heartbeat files are there. It returns the partitions reset.
func (s *Store) Reset(ctx context.Context) ([]string, error) {
	if s.rules.resetAnyway {
		return s.resetAll(ctx)
	}
	if err := s.Deserted(ctx); err != nil {
		var running *Running
		if errors.As(err, &running) {
			err = fmt.Errorf("%w, then reset", err)
		}
		return nil, err
	}
	return s.resetAll(ctx)
}

func (s *Store) resetAll(ctx context.Context) ([]string, error) {
	m := newMember(s)
	reset := make(map[string]uint64)
	// The merger's log comes last: from then on no roster names a partition, and whoever claims one
	// by an older roster looks at it once more before it serves. A claim that slipped in before is
	// found by looking again.
	for again := true; again; {
		logs, err := s.logs(ctx)
		if err != nil {
			return nil, err
		}
		again = false
		used, err := s.used(ctx, logs)
		if err != nil {
			return nil, err
		}
		for _, partition := range slices.SortedFunc(maps.Keys(used), mergerLast) {
			newest := used[partition]
			if reset[partition] == newest || s.rules.resetSparesMerger && partition == stream.MergerPartition {
				continue
			}
			n, err := s.resetLog(ctx, m, partition, newest)
			if err != nil {
				return nil, fmt.Errorf("reset of partition %s: %w", partition, err)
			}
			reset[partition], again = n, true
		}
	}
	return slices.SortedFunc(maps.Keys(reset), mergerLast), nil
}

// used is the highest number of each log that anybody has seen (A9): what is damaged by having lost its
// newest entries must not use their numbers again. A merger's log that is gone has one all the same.
func (s *Store) used(ctx context.Context, logs map[string][]uint64) (map[string]uint64, error) {
	var mu sync.Mutex
	used := make(map[string]uint64, len(logs)+1)
	if len(logs) > 0 {
		used[stream.MergerPartition] = 0
	}
	more := func(partition string, n uint64) { used[partition] = max(used[partition], n) }
	return used, each(maps.Keys(logs), func(partition string) error {
		t, err := (&follower{s: s, partition: partition}).walk(ctx, logs[partition])
		var damaged *Damaged
		if err != nil && !errors.As(err, &damaged) {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		more(partition, logs[partition][len(logs[partition])-1])
		if t.base == nil {
			return nil
		}
		if t.base.Seen != nil {
			more(stream.MergerPartition, t.base.Seen.Number)
		}
		if t.base.Merger != nil {
			for _, row := range t.base.Merger.Roster {
				if row.Newest > 0 {
					more(row.Name, row.Newest)
				}
			}
		}
		return nil
	})
}

func mergerLast(a, b string) int {
	if am, bm := a == stream.MergerPartition, b == stream.MergerPartition; am != bm {
		if am {
			return 1
		}
		return -1
	}
	return strings.Compare(a, b)
}

// resetLog appends a reset behind everything that is there.
func (s *Store) resetLog(ctx context.Context, m *member, partition string, newest uint64) (uint64, error) {
	for {
		genesis, err := s.genesisOf(ctx, partition, newest)
		if err != nil {
			return 0, err
		}
		e := &stream.Entry{Number: newest + 1, Kind: stream.KindReset, Owner: m.id, Nonce: nonce(), Genesis: genesis, Plan: s.plan,
			Watermark: stream.Beginning, LastWatermark: stream.Beginning}
		err = s.offer(ctx, partition, e)
		if err == nil {
			return e.Number, nil
		}
		if !errors.Is(err, stream.ErrFenced) {
			return 0, err
		}
		numbers, err := s.list(ctx, partition)
		if err != nil {
			return 0, err
		}
		newest = max(newest, numbers[len(numbers)-1])
	}
}

// genesisOf reads the log's genesis from its newest entry, or from the newest that is there and not damaged: a
// reset is the way out of a damaged log (A9). Without any it is a fresh one, which no name can bear yet.
func (s *Store) genesisOf(ctx context.Context, partition string, newest uint64) (string, error) {
	e, err := s.read(ctx, partition, newest)
	var damaged *Damaged
	if !errors.As(err, &damaged) && !errors.Is(err, bucket.ErrNotFound) {
		if err != nil {
			return "", err
		}
		return e.Genesis, nil
	}
	numbers, err := s.list(ctx, partition)
	if err != nil {
		return "", err
	}
	for _, n := range slices.Backward(numbers) {
		e, err := s.read(ctx, partition, n)
		switch {
		case err == nil:
			return e.Genesis, nil
		case !errors.As(err, &damaged):
			return "", err
		}
	}
	return nonce(), nil
}

// Running says that a member lives.
type Running struct{ Member string }

func (r *Running) Error() string {
	return fmt.Sprintf("member %s is running this pipeline: stop it first", r.Member)
}

// Deserted makes sure that no member lives, as A3 says: every heartbeat file stands still, and none
// appears, for a lease. It returns at once when there is no such file, and a *Running for one that
// changes.
func (s *Store) Deserted(ctx context.Context) error {
	watching := make(map[string]*observer)
	for {
		ids, err := s.members(ctx)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if watching[id] == nil {
				watching[id] = &observer{}
			}
		}
		settled := true
		for id, o := range watching {
			if err := s.look(ctx, o, id); err != nil {
				s.logger.Warn("a heartbeat cannot be read", "member", id, "error", err)
			}
			if o.changed && o.present {
				return &Running{id}
			}
			settled = settled && o.dead(s.lease, s.rules)
		}
		if settled {
			return nil
		}
		t := time.NewTimer(s.lease / 4)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
	}
}
