package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/millstream/millstream/stream"
)

// A log from which the newest entries are gone looks like one that ended earlier: its owner would go on
// from there, and bring rows a second time under ids that were used. So the logs vouch for each other (A9).
// A lane's entry says how far the merger's log had come when it was saved, and a row of the merger's roster
// says how far the partition's had. Neither costs a request.

// whole is an error when others have seen entries of a log that are not there. What is known of the log may
// be old: then it is read again, and the claim is not for now.
func (s *Store) whole(ctx context.Context, f *follower, row stream.RosterRow) error {
	if s.rules.trustLogs {
		return nil
	}
	at := f.state().number()
	err := s.missing(ctx, f, row)
	f.mu.Lock()
	doubted := f.doubted
	f.doubted = nil
	if err != nil {
		f.doubted = &at
	}
	f.mu.Unlock()
	if err != nil && (doubted == nil || *doubted != at) {
		return f.reload(ctx)
	}
	return err
}

// witness notes in a lane's entry how far the merger's log has come. It never takes back what an entry
// before has said: lanes go on while the merger's log is damaged, and would testify that it is whole.
func (l *log) witness(e *stream.Entry) {
	if l.partition == stream.MergerPartition {
		return
	}
	m := l.s.follow(stream.MergerPartition).state().newest
	if m != nil && (l.seen == nil || l.seen.Genesis == m.Genesis && l.seen.Number < m.Number) {
		l.seen = &stream.Mark{Number: m.Number, Genesis: m.Genesis}
	}
	e.Seen = l.seen
}

// missing compares a log with what others say of it.
func (s *Store) missing(ctx context.Context, f *follower, row stream.RosterRow) error {
	t := f.state()
	if f.partition != stream.MergerPartition {
		return s.short(t, &row)
	}
	names, err := s.witnesses(ctx, t)
	if err != nil {
		return err
	}
	if t.newest == nil {
		return s.gone(len(names))
	}
	return each(slices.Values(names), func(name string) error {
		lane := s.follow(name)
		if err := lane.sync(ctx, s.pollEvery()); err != nil {
			return nil //nolint:nilerr // a log that cannot be read is told by whoever needs it
		}
		return s.behind(t, name, lane.state().base)
	})
}

// short is an error when the roster vouches for more of a partition's log than t has.
func (s *Store) short(t tail, row *stream.RosterRow) error {
	switch n := restorable(t); {
	case row.Done:
		return nil // it never had a log here
	case n < row.Newest:
		return s.cutOff(row.Name, n, row.Newest, "the merger")
	case row.Ended && (t.base == nil || t.base.Kind != stream.KindEnd):
		return &Damaged{s.path(logDir(row.Name)), fmt.Sprintf("its end is gone: the log ends with %d, and the merger has seen the partition's end", n)}
	}
	return nil
}

// behind is an error when a partition's newest checkpoint has seen more of the merger's log than t has.
func (s *Store) behind(t tail, partition string, e *stream.Entry) error {
	if e == nil || e.Seen == nil || e.Seen.Number <= t.newest.Number && e.Seen.Genesis == t.newest.Genesis {
		return nil
	}
	return s.cutOff(stream.MergerPartition, t.newest.Number, e.Seen.Number, "partition "+partition)
}

// gone is an error when partitions have logs and the merger has none, which is always the first.
func (s *Store) gone(partitions int) error {
	if partitions == 0 {
		return nil
	}
	return &Damaged{s.path(logDir(stream.MergerPartition)), fmt.Sprintf("the merger's log is gone, and those of %d partitions are there", partitions)}
}

// vouched is an error when a log that the merger follows lacks entries that the roster vouches for. A
// reading may be old: the log is listed before anything is said of it.
func (l *log) vouched(ctx context.Context, f *follower) error {
	m := l.s.merged()
	if l.s.rules.trustLogs || m == nil || l.partition != stream.MergerPartition {
		return nil
	}
	i, ok := slices.BinarySearchFunc(m.Roster, f.partition, func(row stream.RosterRow, name string) int { return strings.Compare(row.Name, name) })
	if !ok || l.s.short(f.state(), &m.Roster[i]) == nil {
		return nil
	}
	if err := f.reload(ctx); !errors.Is(err, errNotNow) {
		var damaged *Damaged
		if errors.As(err, &damaged) {
			return err
		}
		return nil // what is known stays true
	}
	return l.s.short(f.state(), &m.Roster[i])
}

// doubt marks the logs as damaged that lack what others have seen of them. Those were read at other
// moments, so that a log in doubt is read again before anything is said of it.
func (s *Store) doubt(ctx context.Context, f *Facts) error {
	seen := make(map[string]func(tail) error)
	merger, lanes := f.Logs[stream.MergerPartition], 0
	for name, t := range f.Logs {
		if name == stream.MergerPartition {
			continue
		}
		lanes++
		if e := t.Base; merger.Newest != nil && s.behind(merger.tail(), name, e) != nil {
			seen[stream.MergerPartition] = func(t tail) error { return s.behind(t, name, e) }
		}
	}
	if merger.Newest == nil && merger.Damaged == "" && lanes > 0 {
		seen[stream.MergerPartition] = func(t tail) error {
			if t.newest == nil {
				return s.gone(lanes)
			}
			return nil
		}
	}
	if b := merger.Base; b != nil && b.Merger != nil {
		for i := range b.Merger.Roster {
			row := &b.Merger.Roster[i]
			if t := f.Logs[row.Name]; t.Damaged == "" && s.short(t.tail(), row) != nil {
				seen[row.Name] = func(t tail) error { return s.short(t, row) }
			}
		}
	}
	var mu sync.Mutex
	return each(maps.Keys(seen), func(partition string) error {
		numbers, err := s.list(ctx, partition)
		if err != nil {
			return err
		}
		t, err := s.end(ctx, partition, numbers)
		if err != nil {
			return err
		}
		if t == nil {
			t = &Tail{}
		}
		if t.Damaged == "" {
			if err := seen[partition](t.tail()); err != nil {
				t = &Tail{Damaged: err.Error()}
			}
		}
		mu.Lock()
		defer mu.Unlock()
		f.Logs[partition] = *t
		return nil
	})
}

// witnesses are the partitions that know of the merger's log: those of its roster, or, where there is none,
// all that have a log.
func (s *Store) witnesses(ctx context.Context, merger tail) (names []string, err error) {
	if merger.base != nil && merger.base.Merger != nil {
		for _, r := range merger.base.Merger.Roster {
			names = append(names, r.Name)
		}
		return names, nil
	}
	logs, err := s.logs(ctx)
	for name := range logs {
		if name != stream.MergerPartition {
			names = append(names, name)
		}
	}
	return names, err
}

// cutOff is the error of a log whose newest entries are gone.
func (s *Store) cutOff(partition string, ends, seen uint64, by string) error {
	return &Damaged{s.path(entryName(partition, seen)), fmt.Sprintf("it is gone, and so may be others: the log ends with %d, and %s has seen %d", ends, by, seen)}
}

// restorable is the number of the newest entry that a claim can resume from, 0 for none.
func restorable(t tail) uint64 {
	if t.base == nil {
		return 0
	}
	return t.base.Number
}
