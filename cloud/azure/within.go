package azure

import (
	"context"
	"time"
)

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
