package stream_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/millstream/millstream/stream"
)

// dawdler is an enricher that takes its time: for batches that begin in a certain time, or by chance, and then
// fails now and then too.
type dawdler struct {
	from, to stream.Instant
	key      string
	takes    time.Duration

	mu       sync.Mutex
	rng      *rand.Rand // nil: no chance
	dawdled  int
	failures int
}

func (d *dawdler) Enrich(ctx context.Context, events []stream.Event[int64]) error {
	takes, fails := d.decide(events)
	if takes > 0 {
		stream.Delayed(ctx, errors.New("a dawdler"))
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		stream.Delayed(ctx, nil)
	}
	if fails {
		return errors.New("a dawdler that gives up")
	}
	return nil
}

func (d *dawdler) decide(events []stream.Event[int64]) (takes time.Duration, fails bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rng == nil {
		if e := &events[0]; e.Key == d.key && e.Time >= d.from && e.Time < d.to {
			takes = d.takes
		}
		return takes, false
	}
	switch n := d.rng.IntN(100); {
	case n < 20:
		takes = time.Duration(d.rng.Int64N(int64(3 * time.Second)))
	case n < 22:
		takes = time.Duration(d.rng.Int64N(int64(40 * time.Second)))
	case n == 22:
		fails = true
		d.failures++
	}
	if takes > 0 {
		d.dawdled++
	}
	return takes, fails
}
