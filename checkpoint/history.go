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

// historyReads is how many entries are read at once.
const historyReads = 16

// History reads the log back for as long as ids are to be remembered: what the retention keeps for it
// (A6). Time at which nobody owned the partition counts nothing.
func (l *log) History(ctx context.Context) ([]stream.Past, time.Duration, error) {
	keep := l.s.cfg.DedupeFor
	numbers := l.retention.before(l.claim)
	var past []stream.Past
	age := time.Duration(0)
	for len(numbers) > 0 {
		n := max(len(numbers)-historyReads, 0)
		entries, err := l.readAll(ctx, numbers[n:])
		if err != nil {
			return nil, 0, fmt.Errorf("history of %s: %w", l.partition, err)
		}
		numbers = numbers[:n]
		for i := len(entries) - 1; i >= 0; i-- {
			e := entries[i]
			if e == nil {
				continue
			}
			if age > keep || e.Kind == stream.KindReset {
				return past, keep, nil
			}
			if len(e.IDs) > 0 {
				past = append(past, stream.Past{Entry: e, Age: age})
			}
			age += e.Elapsed
		}
	}
	return past, keep, nil
}

// readAll reads entries at once. One that is gone is nil: the retention deletes what is older than
// anything that History needs.
func (l *log) readAll(ctx context.Context, numbers []uint64) ([]*stream.Entry, error) {
	entries, errs := make([]*stream.Entry, len(numbers)), make([]error, len(numbers))
	var reading sync.WaitGroup
	for i, n := range numbers {
		reading.Go(func() { entries[i], errs[i] = l.s.insist(ctx, l.partition, n) })
	}
	reading.Wait()
	return entries, errors.Join(errs...)
}

// insist reads an entry, trying again while the store does not answer; nil when it is not there.
func (s *Store) insist(ctx context.Context, partition string, n uint64) (*stream.Entry, error) {
	for wait := s.backOff(); ; {
		e, err := s.read(ctx, partition, n)
		var damaged *Damaged
		switch {
		case err == nil:
			return e, nil
		case errors.Is(err, bucket.ErrNotFound):
			return nil, nil
		case errors.As(err, &damaged):
			return nil, err
		}
		if err := wait.sleep(ctx); err != nil {
			return nil, err
		}
	}
}
