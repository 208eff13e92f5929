package checkpoint

import (
	"context"
	"fmt"
	"slices"

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
		if n := restorable(t); n < row.Newest {
			return s.cutOff(f.partition, n, row.Newest, "the merger")
		}
		return nil
	}
	names, err := s.witnesses(ctx, t)
	if err != nil {
		return err
	}
	if t.newest == nil {
		if len(names) == 0 {
			return nil
		}
		return &Damaged{s.path(logDir(stream.MergerPartition)), fmt.Sprintf("the merger's log is gone, and those of %d partitions are there", len(names))}
	}
	return each(slices.Values(names), func(name string) error {
		lane := s.follow(name)
		if err := lane.sync(ctx, s.pollEvery()); err != nil {
			return nil //nolint:nilerr // a log that cannot be read is told by whoever needs it
		}
		e := lane.state().base
		if e == nil || e.Seen == nil || e.Seen.Number <= t.newest.Number && e.Seen.Genesis == t.newest.Genesis {
			return nil
		}
		return s.cutOff(stream.MergerPartition, t.newest.Number, e.Seen.Number, "partition "+name)
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
