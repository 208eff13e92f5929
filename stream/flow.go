package stream

import (
	"context"
	"sync"
)

// MaxHeaders is how many batches of one assignment may be on their way to durability. A processed
// batch keeps only its header until its checkpoint.
const MaxHeaders = 10_000

// DefaultInFlight is the default bound of a Flow: 32 MiB.
const DefaultInFlight = 32 << 20

// Flow bounds what one assignment holds in memory between the source and the log: the records of
// batches not yet processed, and the rows and dead letters not yet saved. The reader waits on it;
// the lane adds and gives back. Safe for concurrent use.
type Flow struct {
	mu      sync.Mutex
	limit   int64
	used    int64
	headers int
	wake    chan struct{} // closed and replaced whenever room appears
}

// NewFlow makes a Flow of limit bytes; 0 means DefaultInFlight.
func NewFlow(limit int64) *Flow {
	if limit <= 0 {
		limit = DefaultInFlight
	}
	return &Flow{limit: limit, wake: make(chan struct{})}
}

// Acquire takes n bytes and one header, waiting for room. When nothing is held n may exceed the limit.
func (f *Flow) Acquire(ctx context.Context, n int64) error {
	for {
		f.mu.Lock()
		if f.headers < MaxHeaders && (f.used == 0 || f.used+n <= f.limit) {
			f.used += n
			f.headers++
			f.mu.Unlock()
			return nil
		}
		wake := f.wake
		f.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Hold adds n bytes without waiting: rows and dead letters made from records already let in.
func (f *Flow) Hold(n int64) {
	f.mu.Lock()
	f.used += n
	f.mu.Unlock()
}

// Release gives back n bytes and a number of headers.
func (f *Flow) Release(n int64, headers int) {
	f.mu.Lock()
	f.used -= n
	f.headers -= headers
	close(f.wake)
	f.wake = make(chan struct{})
	f.mu.Unlock()
}

// Used returns the bytes held.
func (f *Flow) Used() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.used
}
