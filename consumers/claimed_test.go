package consumers_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/consumers/consumertest"
	"github.com/millstream/millstream/stream"
)

// claimed notes the claims that its readers are opened for.
type claimed struct {
	consumers.Source
	mu     sync.Mutex
	claims []uint64
}

func (c *claimed) Open(context.Context, string, stream.Position, string) (consumers.Reader, error) {
	panic("opened without its claim")
}

func (c *claimed) OpenClaimed(ctx context.Context, p string, from stream.Position, tip string, claim uint64) (consumers.Reader, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.claims = append(c.claims, claim)
	return c.Source.Open(ctx, p, from, tip)
}

// A source that can keep earlier owners out is told the claim, which grows.
func TestClaimedSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := consumertest.NewMemory(1, 100)
		memory.Append(topic, "0", numbers(0, 100)...)
		src := &claimed{Source: memory.Source(topic)}
		ls, failed := newLanes(), false
		ls.refuse = func(b *stream.Batch) error {
			if len(b.Records) > 0 && !failed {
				failed = true
				return errRefused
			}
			return nil
		}
		r := start(t, memory, consumers.Config{Source: src}, ls.Handle)
		<-time.After(time.Minute)
		r.stop()
		var want []uint64
		for _, e := range r.logs.Entries("0") {
			if e.Kind == stream.KindClaim {
				want = append(want, e.Number)
			}
		}
		if len(want) < 2 || !slices.Equal(src.claims, want) || ls.got("0") != text(100) {
			t.Errorf("opened for %v, claimed %v, read %s", src.claims, want, ls.got("0"))
		}
	})
}
