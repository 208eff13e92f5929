package consumertest

import (
	"context"
	"errors"
	"fmt"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/stream"
)

// settleAll tells a source what became of records.
func settleAll(fetches []consumers.Fetch, err error) {
	for i := range fetches {
		if f := &fetches[i]; f.Settle != nil && len(f.Records) > 0 {
			f.Settle(0, len(f.Records), err)
		}
	}
}

// checkRedelivery: what is durable never comes again, what failed does, and so does what nobody had
// settled when the reader was closed, to whoever reads next, with the ids that it had.
func checkRedelivery(ctx context.Context, s *Stream) error {
	src, ok := s.Source.(stream.Redelivering)
	if !ok || src.RedeliversWithin() <= 0 {
		return errors.New("the source does not say within which time it redelivers")
	}
	p, err := first(ctx, s)
	if err != nil {
		return err
	}
	want := some(p, 0, 30)
	if err := s.Publish(p, want...); err != nil {
		return err
	}
	r, err := open(ctx, s.Source, p, stream.Position{}, "")
	if err != nil {
		return err
	}
	if err := r.all(ctx, want); err != nil {
		r.Close()
		return err
	}
	ids := make(map[string]uint64)
	byID := make(map[uint64]bool)
	for _, record := range r.records {
		if record.ID == 0 || byID[record.ID] {
			r.Close()
			return fmt.Errorf("record %q has id %d, which is zero or another record's", clip(record.Data), record.ID)
		}
		ids[string(record.Data)], byID[record.ID] = record.ID, true
	}
	durable, i := 10, 0
	for _, f := range r.fetches {
		for j := range f.Records {
			if i++; i <= durable {
				f.Settle(j, j+1, nil)
			}
		}
	}
	if err := r.Close(); err != nil {
		return fmt.Errorf("Close: %w", err)
	}
	again, err := open(ctx, s.Source, p, stream.Position{}, "")
	if err != nil {
		return err
	}
	defer again.Close()
	if err := again.all(ctx, want[durable:]); err != nil {
		return fmt.Errorf("behind a reader that settled %d of %d: %w", durable, len(want), err)
	}
	for _, record := range again.records {
		if record.ID != ids[string(record.Data)] {
			return fmt.Errorf("record %q comes again with id %d instead of %d", clip(record.Data), record.ID, ids[string(record.Data)])
		}
	}
	settleAll(again.fetches, errors.New("it was not processed"))
	n := len(again.records)
	if err := again.until(ctx, "what was given back", func() bool { return len(again.records) >= 2*n }); err != nil {
		return err
	}
	seen := make(map[string]bool)
	for _, record := range again.records[n:] {
		seen[string(record.Data)] = true
	}
	if len(seen) != n {
		return fmt.Errorf("%d of %d records came again", len(seen), n)
	}
	return nil
}
