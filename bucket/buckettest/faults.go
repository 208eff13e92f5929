package buckettest

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/millstream/millstream/bucket"
)

// ErrUnavailable is an answer like a provider's 500 or 503: it says nothing about the outcome.
var ErrUnavailable = errors.New("the store is unavailable (HTTP 503)")

// The operations a fault can meet.
const (
	Create = "create"
	Put    = "put"
	Get    = "get"
	List   = "list"
	Delete = "delete"
)

// Fault is what happens to one operation. The zero Fault lets it pass. Its parts can be combined.
type Fault struct {
	// Err is the answer. The operation does not happen, unless After is set.
	Err error
	// After makes the operation happen before Err is answered: the caller cannot know.
	After bool
	// Hold delays the operation until it is closed. A caller whose context ends meanwhile gets the
	// context's error, and the operation does not happen, unless Late is set.
	Hold <-chan struct{}
	// Late makes a write that was given up by its caller happen all the same when Hold is closed,
	// like a request that was still under way.
	Late bool
	// Hide leaves the names for which it returns true out of a list.
	Hide func(name string) bool
}

func (f *Fault) harmless() bool { return f.Err == nil && f.Hold == nil && f.Hide == nil }

// Faults is a bucket that fails as Hook says. Safe for concurrent use, and in the bubbles of
// testing/synctest: it waits on channels alone, and starts a goroutine only for a write that is Late,
// which ends when Hold is closed.
type Faults struct {
	bucket.Bucket
	// Hook is asked before every operation, concurrently; name is a list's prefix. Nil lets all pass.
	Hook func(op, name string) Fault

	mu    sync.Mutex
	calls map[string]int
	met   map[string]int
}

// Calls returns how often an operation was called.
func (f *Faults) Calls(op string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

// Met returns how many of an operation's calls met a fault: a test asserts that what it meant to
// inject happened.
func (f *Faults) Met(op string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.met[op]
}

func (f *Faults) ask(op, name string) Fault {
	var fault Fault
	if f.Hook != nil {
		fault = f.Hook(op, name)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls == nil {
		f.calls, f.met = make(map[string]int), make(map[string]int)
	}
	f.calls[op]++
	if !fault.harmless() {
		f.met[op]++
	}
	return fault
}

// do carries out one operation under its fault.
func (f *Faults) do(ctx context.Context, fault Fault, act func(context.Context) error) error {
	if fault.Hold != nil {
		select {
		case <-fault.Hold:
		default:
			select {
			case <-fault.Hold:
			case <-ctx.Done():
				if fault.Late {
					go func() {
						<-fault.Hold
						_ = act(context.WithoutCancel(ctx)) // nobody waits for its answer
					}()
				}
				return ctx.Err()
			}
		}
	}
	if fault.Err != nil && !fault.After {
		return fault.Err
	}
	err := act(ctx)
	if fault.Err != nil {
		return fault.Err
	}
	return err
}

// Create implements bucket.Bucket.
func (f *Faults) Create(ctx context.Context, name string, data []byte) error {
	data = slices.Clone(data) // the caller's slice is its own again when a Late write happens
	return f.do(ctx, f.ask(Create, name), func(ctx context.Context) error { return f.Bucket.Create(ctx, name, data) })
}

// Put implements bucket.Bucket.
func (f *Faults) Put(ctx context.Context, name string, data []byte) error {
	data = slices.Clone(data)
	return f.do(ctx, f.ask(Put, name), func(ctx context.Context) error { return f.Bucket.Put(ctx, name, data) })
}

// Get implements bucket.Bucket.
func (f *Faults) Get(ctx context.Context, name string) ([]byte, error) {
	fault := f.ask(Get, name)
	fault.Late = false
	var data []byte
	err := f.do(ctx, fault, func(ctx context.Context) (err error) { data, err = f.Bucket.Get(ctx, name); return err })
	if err != nil {
		return nil, err
	}
	return data, nil
}

// List implements bucket.Bucket.
func (f *Faults) List(ctx context.Context, prefix string) ([]string, error) {
	fault := f.ask(List, prefix)
	fault.Late = false
	var names []string
	err := f.do(ctx, fault, func(ctx context.Context) (err error) { names, err = f.Bucket.List(ctx, prefix); return err })
	if err != nil {
		return nil, err
	}
	if fault.Hide != nil {
		names = slices.DeleteFunc(names, fault.Hide)
	}
	return names, nil
}

// Delete implements bucket.Bucket.
func (f *Faults) Delete(ctx context.Context, name string) error {
	return f.do(ctx, f.ask(Delete, name), func(ctx context.Context) error { return f.Bucket.Delete(ctx, name) })
}
