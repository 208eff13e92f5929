package sinktest

import (
	"context"
	"errors"
	"sync"
)

var (
	// ErrRefused is the answer of a destination that is down.
	ErrRefused = errors.New("the destination is out of order")
	// ErrLost stands for a reply that never came.
	ErrLost = errors.New("the reply was lost")
	// ErrKilled is what the calls of a process come to that was killed.
	ErrKilled = errors.New("the process was killed")
)

// Fault is what happens to one call of a sink to its destination. The zero Fault lets it pass.
type Fault struct {
	Refused bool // nothing is done; the answer is ErrRefused
	Lost    bool // it is done; the answer is ErrLost
	Killed  bool // the process dies before the call is done, after it with Lost; so do its later calls
	Gate    *Gate
}

// Gate holds a call under way until it is released. Then it is done, even when the caller gave up.
type Gate struct{ reached, release, done chan struct{} }

func newGate() *Gate {
	return &Gate{make(chan struct{}), make(chan struct{}), make(chan struct{})}
}

// Hook decides what happens to each call, counted from 1. It may be called by several goroutines at
// once. A Hook that is nil lets all pass.
type Hook func(call int) Fault

// Wire is one process's way to a destination, which fails as its Hook says. A test puts it where the
// sink under test calls out: around a bucket's methods, a request, a write. Safe for concurrent use.
type Wire struct {
	mu    sync.Mutex
	hook  Hook
	calls int
	dead  bool
}

// Begin starts counting calls, which pass until then: opening a sink is not part of a delivery.
func (w *Wire) Begin(hook Hook) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hook, w.calls = hook, 0
}

// Call does act, or does what the Hook says. When the caller gives up while the call is held, act runs
// later, on another goroutine and with a context that is never done: what it uses must not be the
// caller's.
func (w *Wire) Call(ctx context.Context, act func(context.Context) error) error {
	w.mu.Lock()
	w.calls++
	n, hook, dead := w.calls, w.hook, w.dead
	w.mu.Unlock()
	var fault Fault
	switch {
	case dead:
		return ErrKilled
	case hook != nil:
		fault = hook(n)
	}
	if g := fault.Gate; g != nil {
		close(g.reached)
		select {
		case <-g.release:
			defer close(g.done)
		case <-ctx.Done():
			go func() {
				<-g.release
				_ = act(context.WithoutCancel(ctx)) // nobody waits for the answer
				close(g.done)
			}()
			return ctx.Err()
		}
	}
	if fault.Killed {
		defer func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.dead = true
		}()
		if !fault.Lost {
			return ErrKilled
		}
	}
	if fault.Refused {
		return ErrRefused
	}
	err := act(ctx)
	switch {
	case fault.Killed:
		return ErrKilled
	case fault.Lost:
		return ErrLost
	}
	return err
}
