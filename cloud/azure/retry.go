package azure

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	backoffFirst = 200 * time.Millisecond
	backoffMost  = 5 * time.Second
)

// Backoff is how long to wait after attempt n (1, 2, …) has failed: 200 ms, doubling, at most 5 s, with
// jitter over its upper half, so that many callers do not come back together.
func Backoff(n int) time.Duration {
	d := backoffMost
	if n < 6 {
		d = min(backoffMost, backoffFirst<<max(0, n-1))
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

// Within runs call and waits for it no longer than d, nor than ctx. The SDK's questions to $management
// do not hear that their context is done, so a call that is given up goes on in its goroutine; cancel
// is called then, and must make it end, such as by closing its client.
func Within[T any](ctx context.Context, d time.Duration, call func(context.Context) (T, error), cancel func()) (T, error) {
	ctx, stop := context.WithTimeout(ctx, d)
	defer stop()
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		v, err := call(ctx)
		done <- outcome{v, err}
	}()
	select {
	case o := <-done:
		return o.value, o.err
	case <-ctx.Done():
		cancel()
		var none T
		return none, ctx.Err()
	}
}
