package consumers

import (
	"errors"
	"sync"

	"github.com/millstream/millstream/stream"
)

// ErrFalseAck ends an assignment whose message was acked although its batch was not durable.
var ErrFalseAck = errors.New("message was acked before its batch was durable")

// ErrNacked ends an assignment whose message was nacked by something other than its lane.
var ErrNacked = errors.New("message was nacked")

// watcher follows the messages of one assignment, oldest first, on one goroutine. An ack is believed
// only when the batch is durable; anything else that settles a message before that ends the
// assignment.
type watcher struct {
	s *Subscriber
	a *stream.Assignment

	mu     sync.Mutex
	queue  []flight
	closed bool
	wake   chan struct{}

	failed chan struct{} // closed after err is set
	err    error
	over   chan struct{} // closed after verdict is set: nobody waits for these batches any more
	result error
}

func newWatcher(s *Subscriber, a *stream.Assignment) *watcher {
	return &watcher{s: s, a: a, wake: make(chan struct{}, 1), failed: make(chan struct{}), over: make(chan struct{})}
}

func (w *watcher) add(f flight) {
	w.mu.Lock()
	w.queue = append(w.queue, f)
	w.mu.Unlock()
	w.poke()
}

// close says that the assignment has ended: batches that are not settled yet settle with err.
func (w *watcher) close(err error) {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.result = err
	close(w.over)
	w.poke()
}

func (w *watcher) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run returns when the assignment has ended and every message is settled.
func (w *watcher) run() {
	for {
		w.mu.Lock()
		queue, closed := w.queue, w.closed
		w.queue = nil
		w.mu.Unlock()
		for i := range queue {
			w.follow(queue[i])
			queue[i] = flight{}
		}
		if len(queue) == 0 {
			if closed {
				return
			}
			<-w.wake
		}
	}
}

func (w *watcher) follow(f flight) {
	acked := false
	select {
	case <-f.m.Acked():
		acked = true
		if !f.b.IsDurable() {
			w.falseAck(f)
		}
	case <-f.m.Nacked():
		if !f.b.IsDurable() {
			f.b.Settle(ErrNacked)
			w.fail(f.b.Err())
		}
	case <-f.b.Failed(): // a middleware may retry for long before it nacks
		w.fail(f.b.Err())
	case <-w.over:
		f.b.Settle(w.result)
	}
	if f.settled != nil {
		if f.b.IsDurable() {
			f.settled(nil)
		} else {
			f.settled(f.b.Err())
		}
	}
	if acked {
		return
	}
	select {
	case <-f.m.Acked():
		if !f.b.IsDurable() {
			w.falseAck(f)
		}
	case <-f.m.Nacked():
		w.s.nacks.Add(1)
	}
}

func (w *watcher) falseAck(f flight) {
	w.s.falseAcks.Add(1)
	cause := "something acks messages before the handler returns, or instead of calling it: InstantAck, Deduplicator, or a handler of your own"
	if done(f.b.Failed()) {
		cause = "something swallows the handler's error: PoisonQueue, IgnoreErrors, or a handler of your own"
	}
	w.s.tellOnce.Do(func() {
		w.s.cfg.Logger.Error("a message was acked although its batch is not durable: the ack is not believed, the partition starts again from its last checkpoint",
			"partition", w.a.Partition, "likely_cause", cause)
	})
	f.b.Settle(ErrFalseAck)
	w.fail(ErrFalseAck)
}

// fail ends the assignment with the first error. Only the watcher's goroutine calls it.
func (w *watcher) fail(err error) {
	if w.err == nil {
		w.err = err
		close(w.failed)
	}
}
