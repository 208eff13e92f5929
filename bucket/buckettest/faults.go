package buckettest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"

	"github.com/millstream/millstream/bucket"
)

// ErrUnavailable is an answer like a provider's 500 or 503: it says nothing about the outcome.
var ErrUnavailable = errors.New("the store is unavailable (HTTP 503)")

// ErrCutOff is the answer to every operation of a process that died.
var ErrCutOff = errors.New("cut off from the store")

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
	// CutOff cuts the Faults off for good: before this operation, or after it when After is set.
	CutOff bool
	// Hide leaves the names for which it returns true out of a list.
	Hide func(name string) bool
}

func (f *Fault) harmless() bool { return f.Err == nil && f.Hold == nil && f.Hide == nil && !f.CutOff }

// Faults is a bucket that fails as Hook says. Safe for concurrent use, and in the bubbles of
// testing/synctest: it waits on channels alone, and starts a goroutine only for a write that is Late,
// which ends when Hold is closed. Each stands for one process's way to the store: several around one
// bucket are several processes.
type Faults struct {
	bucket.Bucket
	// Hook is asked before every operation, concurrently; name is a list's prefix. Nil lets all pass.
	Hook func(op, name string) Fault

	mu    sync.Mutex
	calls map[string]int
	met   map[string]int
	cut   chan struct{} // made when somebody waits, closed when dead
	dead  bool
}

// CutOff lets the process die, as the store sees it: from now on every operation, those that are held
// included, is answered with ErrCutOff and does not happen. One that the store is at happens, but its
// caller is not told. Operations after it are not counted. A write that was Late before still happens.
func (f *Faults) CutOff() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.dead && f.cut != nil {
		close(f.cut)
	}
	f.dead = true
}

func (f *Faults) isCutOff() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

// whenCutOff returns a channel that is closed at the cut.
func (f *Faults) whenCutOff() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cut == nil {
		f.cut = make(chan struct{})
		if f.dead {
			close(f.cut)
		}
	}
	return f.cut
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
	if f.isCutOff() {
		return fault // do answers
	}
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
	if f.isCutOff() {
		return ErrCutOff
	}
	if fault.Hold != nil {
		select {
		case <-fault.Hold:
		default:
			select {
			case <-fault.Hold:
			case <-f.whenCutOff():
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
	if fault.CutOff && !fault.After {
		f.CutOff()
	}
	switch {
	case f.isCutOff():
		return ErrCutOff
	case fault.Err != nil && !fault.After:
		return fault.Err
	}
	err := act(ctx)
	if fault.CutOff {
		f.CutOff()
	}
	switch {
	case f.isCutOff():
		return ErrCutOff
	case fault.Err != nil:
		return fault.Err
	}
	return err
}

// Create implements bucket.Bucket.
func (f *Faults) Create(ctx context.Context, name string, data []byte) error {
	data = slices.Clone(data) // the caller's slice is its own again when a Late write happens
	return f.do(ctx, f.ask(Create, name), func(ctx context.Context) error { return f.Bucket.Create(ctx, name, data) })
}

// CreateFrom implements bucket.Bucket: what is written is one Create.
func (f *Faults) CreateFrom(ctx context.Context, name string, write func(io.Writer) error) error {
	var data bytes.Buffer
	if err := write(&data); err != nil {
		return err
	}
	return f.Create(ctx, name, data.Bytes())
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
