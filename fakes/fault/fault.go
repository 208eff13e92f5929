// Package fault arms faults and says which call they hit: what the fakes have in common. What a fault does
// is each fake's own.
package fault

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Times says which of the calls that a fault matches it hits.
type Times struct {
	Skip  int // so many pass first
	Every int // of those behind them every so manieth; 0 and 1: all
	Most  int // then it is disarmed; 0 means 1, negative: never
}

// List is the armed faults of one server, whatever their type. The zero value is ready. Safe for concurrent
// use.
type List[F any] struct {
	mu    sync.Mutex
	armed atomic.Int32
	all   []*armed[F]
}

type armed[F any] struct {
	*Injection
	fault F
	times Times
	seen  int
}

// Injection is an armed fault.
type Injection struct {
	hits  atomic.Int64
	spent chan struct{} // closed when disarmed
	stop  func()
}

// Hits returns the number of calls that the fault has hit.
func (i *Injection) Hits() int { return int(i.hits.Load()) }

// Done is closed when the fault has hit as many calls as it may (they may still be running) or was stopped.
func (i *Injection) Done() <-chan struct{} { return i.spent }

// Stop disarms the fault.
func (i *Injection) Stop() { i.stop() }

// Inject arms a fault. Faults apply in the order in which they were armed; the first that matches a call
// takes it.
func (l *List[F]) Inject(f F, times Times) *Injection {
	if times.Most == 0 {
		times.Most = 1
	}
	a := &armed[F]{Injection: &Injection{spent: make(chan struct{})}, fault: f, times: times}
	a.stop = func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.remove(a)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, a)
	l.armed.Store(int32(len(l.all)))
	return a.Injection
}

// remove disarms a, once. The caller holds mu.
func (l *List[F]) remove(a *armed[F]) {
	n := slices.Index(l.all, a)
	if n < 0 {
		return
	}
	l.all = slices.Delete(l.all, n, n+1)
	l.armed.Store(int32(len(l.all)))
	close(a.spent)
}

// Any reports whether a fault is armed: without one there is no need to ask what a call is about.
func (l *List[F]) Any() bool { return l.armed.Load() > 0 }

// Take returns the fault that hits a call, the zero F when none does; matches says whether a fault is about
// the call.
func (l *List[F]) Take(matches func(*F) bool) (none F) {
	if !l.Any() {
		return none
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.all {
		if !matches(&a.fault) {
			continue
		}
		if a.seen++; a.seen <= a.times.Skip || a.times.Every > 1 && (a.seen-a.times.Skip)%a.times.Every != 0 {
			continue
		}
		if a.hits.Add(1) == int64(a.times.Most) {
			l.remove(a)
		}
		return a.fault
	}
	return none
}
