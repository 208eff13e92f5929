package sinks

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/millstream/millstream/cloud/retry"
)

// Resending stores entries at a service whose calls take many, and may store some and refuse others. An
// entry that failed is sent again, and it alone, until all are stored.
type Resending[E any] struct {
	// Fits returns how many of the pending entries go into the next call, at least one.
	Fits func(pending []E) int
	// Call stores entries and returns the error code of each, empty for those that are stored. After an
	// error none is known to be.
	Call func(ctx context.Context, entries []E) (codes []string, err error)
	// Stored is told of each entry, once.
	Stored func(*E)
	// Hopeless reports whether an error of Call will stay until somebody mends something.
	Hopeless func(error) bool
	// Explain words the error that is returned.
	Explain func(error) error
	Logger  *slog.Logger
}

// patience is how long entries may fail without one succeeding before Send returns the reason.
const patience = time.Minute

// Send returns when all are stored, when ctx is done, at a hopeless error, or when nothing has been stored
// for a minute. It reorders pending, but not those among each other that are stored by one call.
func (r *Resending[E]) Send(ctx context.Context, pending []E) error {
	progress := time.Now()
	for failures := 0; len(pending) > 0; {
		n := r.Fits(pending)
		codes, err := r.Call(ctx, pending[:n])
		if err != nil && (ctx.Err() != nil || r.Hopeless(err)) {
			return r.Explain(err)
		}
		// Failed entries move to the end of this call's part of pending, in their order.
		kept, last := n, ""
		for i := n - 1; i >= 0; i-- {
			if err == nil && codes[i] == "" {
				continue
			}
			if err == nil && last == "" {
				last = codes[i]
			}
			kept--
			pending[kept], pending[i] = pending[i], pending[kept]
		}
		for i := range kept {
			r.Stored(&pending[i])
		}
		pending = pending[kept:]
		if kept > 0 {
			progress = time.Now()
		}
		if kept == n {
			failures = 0
			continue
		}
		if err == nil {
			err = fmt.Errorf("%d of %d records failed, one with %s", n-kept, n, last)
		}
		failures++
		if time.Since(progress) > patience {
			return r.Explain(fmt.Errorf("nothing stored for %s: %w", patience, err))
		}
		wait := retry.Backoff(failures)
		r.Logger.Debug("records failed: sending them again", "records", n-kept, "in", wait, "error", err)
		if err := retry.Sleep(ctx, wait); err != nil {
			return err
		}
	}
	return nil
}
