// Package retry waits between attempts.
package retry

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	first = 200 * time.Millisecond
	most  = 5 * time.Second
)

// Backoff is how long to wait after attempt n (1, 2, …) has failed: 200 ms, doubling, at most 5 s, with
// jitter over its upper half, so that many callers do not come back together.
func Backoff(n int) time.Duration {
	d := most
	if n < 6 {
		d = min(most, first<<max(0, n-1))
	}
	return d/2 + rand.N(d/2)
}

// Sleep waits for d, or until ctx is done and then returns its error.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
