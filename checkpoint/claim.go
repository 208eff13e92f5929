package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millstream/millstream/stream"
)

// errNotNow means that the partition cannot be claimed at the moment, for no fault of anybody's:
// somebody else owns it, was faster, or the roster has changed.
var errNotNow = errors.New("not to be claimed now")

// claimed is a claim that stands.
type claimed struct {
	entry     *stream.Entry
	base      *stream.Entry
	committed bool
	numbers   []uint64 // of the log, the claim's included
}

// claim is A2: append a claim behind the newest entry, and make sure that it is the newest. The
// caller has checked A3. Once the claim is offered ctx counts no more: a claim whose outcome we do
// not learn would keep everybody, us included, waiting for a lease.
func (s *Store) claim(ctx context.Context, m *member, f *follower) (*claimed, error) {
	numbers, err := s.list(ctx, f.partition)
	if err != nil {
		return nil, err
	}
	t := f.state()
	var newest uint64
	if len(numbers) > 0 {
		newest = numbers[len(numbers)-1]
	}
	if newest != t.number() {
		return nil, f.reload(ctx)
	}
	if err := s.checkPlan(t.base); err != nil {
		return nil, err
	}
	e := &stream.Entry{Number: newest + 1, Kind: stream.KindClaim, Owner: m.id, Nonce: nonce(), Plan: s.plan, Watermark: stream.Beginning, LastWatermark: stream.Beginning}
	e.Genesis = e.Nonce
	if t.newest != nil {
		e.Genesis = t.newest.Genesis
	}
	if t.base != nil {
		e.Base = t.base.Number
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.lease)
	defer cancel()
	if err := s.offer(ctx, f.partition, e); err != nil {
		if errors.Is(err, stream.ErrFenced) {
			return nil, f.reload(ctx)
		}
		return nil, err
	}
	numbers, err = s.list(ctx, f.partition)
	for wait := s.backOff(); err != nil; numbers, err = s.list(ctx, f.partition) {
		if sleepErr := wait.sleep(ctx); sleepErr != nil {
			return nil, fmt.Errorf("claim %d: %w (last: %w)", e.Number, sleepErr, err)
		}
	}
	if numbers[len(numbers)-1] != e.Number && !s.rules.noSecondList {
		s.logger.Warn("the claim is not the newest entry: walking away", "partition", f.partition, "claim", e.Number, "newest", numbers[len(numbers)-1])
		return nil, f.reload(ctx)
	}
	f.observe(e)
	return &claimed{entry: e, base: t.base, committed: t.released, numbers: numbers}, nil
}

// number of the newest entry, 0 for an empty log.
func (t tail) number() uint64 {
	if t.newest == nil {
		return 0
	}
	return t.newest.Number
}

// reload lists the log again; the claim is tried again later.
func (f *follower) reload(ctx context.Context) error {
	f.mu.Lock()
	f.known = false
	f.mu.Unlock()
	if err := f.sync(ctx, 0); err != nil {
		return err
	}
	return errNotNow
}

// free says who must be dead before the partition may be claimed: nobody when the newest entry is a
// release, a reset or an import, or there is none (A3).
func (t tail) owner() string {
	if t.newest == nil || t.newest.Kind == stream.KindRelease || t.newest.Kind == stream.KindReset || t.newest.Kind == stream.KindImport {
		return ""
	}
	return t.newest.Owner
}

// crashWait is how long to wait before one more claim: none for the first three without a
// checkpoint, then 1 s, doubling, at most 30 s (A2).
func (s *Store) crashWait(claims int) time.Duration {
	if claims < 3 || s.rules.noCrashBackOff {
		return 0
	}
	return min(time.Second<<min(claims-3, 5), 30*time.Second)
}
