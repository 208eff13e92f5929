package enrich

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/millstream/millstream/cloud/retry"
)

// flight is one key on its way to the backend and back, for everybody who waits for it. The cache's mutex
// guards it; landed is valid for those whose waiter is done.
type flight[K comparable, V any] struct {
	key      K
	waiters  []*waiter
	stage    stage
	since    instant // when it was put into its queue
	attempts int     // calls that have failed
	landed   *entry[K, V]
}

// stage is where a flight is.
type stage uint8

const (
	resting      stage = iota // until it is tried again
	inBackground              // in Cache.background
	inUrgent                  // in Cache.urgent
	called                    // in a call
)

// waiter is a batch that waits for flights.
type waiter struct {
	left int // guarded by the cache's mutex
	done chan struct{}
	gone atomic.Bool // the batch has given up
	tell func(error) // what it waits for
	told atomic.Bool
}

// lull is how long keys that nobody waits for are collected.
const lull = 100 * time.Millisecond

// launch makes the flight of a key. The mutex is held.
func (c *Cache[K, V]) launch(key K) *flight[K, V] {
	f := &flight[K, V]{key: owned(key), stage: inBackground}
	c.flights[f.key] = f
	return f
}

// join has w wait for f, and f be called for soon. The mutex is held.
func (c *Cache[K, V]) join(f *flight[K, V], w *waiter, now instant) {
	if n := len(f.waiters); n > 0 && f.waiters[n-1] == w {
		return
	}
	f.waiters = append(f.waiters, w)
	w.left++
	if f.stage == inBackground { // if it is in that queue it stays there, and is passed over
		c.push(f, now)
	}
}

// push puts a flight among those that are waited for. The mutex is held.
func (c *Cache[K, V]) push(f *flight[K, V], now instant) {
	f.stage, f.since = inUrgent, now
	c.urgent = append(c.urgent, f)
}

// refresh has keys looked up that nobody waits for.
func (c *Cache[K, V]) refresh(keys ...K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	now := c.now()
	for _, key := range keys {
		if c.flights[key] == nil {
			f := c.launch(key)
			f.since = now
			c.background = append(c.background, f)
			c.stats.refreshes.Add(1)
		}
	}
	c.pump()
}

// pump makes the calls that are due. The mutex is held.
func (c *Cache[K, V]) pump() {
	now := c.now()
	for !c.closed && c.calls < c.cfg.Calls && c.due(now) {
		chunk := c.take()
		c.calls++
		c.under.Add(1)
		go c.call(chunk)
	}
	c.timer.Stop()
	if c.closed || c.calls >= c.cfg.Calls {
		return // whichever call ends first pumps again
	}
	switch {
	case len(c.urgent) > 0:
		c.timer.Reset(time.Duration(c.urgent[0].since + int64(c.cfg.Linger) - now))
	case len(c.background) > 0:
		c.timer.Reset(max(c.cfg.Linger, time.Duration(c.background[0].since+int64(lull)-now)))
	}
}

// due reports whether a call should be made now: a full one at once, and one that is not full when it has
// nothing to wait for. Keys that nobody waits for get half of the calls.
func (c *Cache[K, V]) due(now instant) bool {
	for len(c.background) > 0 && c.background[0].stage != inBackground {
		c.background = c.background[1:]
	}
	if n := len(c.urgent); n > 0 {
		return n >= c.cfg.Limit || c.calls == 0 || now-c.urgent[0].since >= int64(c.cfg.Linger)
	}
	n := len(c.background)
	return n > 0 && c.calls <= c.cfg.Calls/2 && (n >= c.cfg.Limit || now-c.background[0].since >= int64(lull))
}

// take returns the flights of one call, those that are waited for first. The mutex is held.
func (c *Cache[K, V]) take() []*flight[K, V] {
	n := min(len(c.urgent), c.cfg.Limit)
	chunk := append(make([]*flight[K, V], 0, c.cfg.Limit), c.urgent[:n]...)
	c.urgent = c.urgent[n:]
	for len(chunk) < c.cfg.Limit && len(c.background) > 0 {
		f := c.background[0]
		c.background = c.background[1:]
		if f.stage == inBackground {
			chunk = append(chunk, f)
		}
	}
	for _, f := range chunk {
		f.stage = called
	}
	return chunk
}

// tick is the timer's.
func (c *Cache[K, V]) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pump()
}

// call asks the backend for the keys of flights, and lands what is answered.
func (c *Cache[K, V]) call(flights []*flight[K, V]) {
	defer c.under.Done()
	keys := make([]K, len(flights))
	for i, f := range flights {
		keys[i] = f.key
	}
	found, asked, err := c.gate.ask(c.ctx, keys, c.now)
	var some *Failed[K]
	partly := errors.As(err, &some)

	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls--
	var again []*flight[K, V]
	for _, f := range flights {
		if f.landed != nil {
			continue // the cache was closed
		}
		why := err
		if partly {
			why = some.Keys[f.key]
		}
		if why != nil {
			if c.failed(f, why) {
				again = append(again, f)
			}
			continue
		}
		value, ok := found[f.key]
		e := c.learned(f.key, value, ok, asked)
		if old, ok := c.kept.GetEntryQuietly(f.key); ok {
			c.front.drop(old.Value) // before anybody can see the new one
		}
		c.kept.Set(f.key, e)
		c.land(f, e)
	}
	c.rest(again)
	c.pump()
}

// failed decides what becomes of a flight whose call has failed, and reports whether it is tried again.
func (c *Cache[K, V]) failed(f *flight[K, V], why error) bool {
	f.attempts++
	c.complain(why)
	why = fmt.Errorf("enrich %s: %w", c.cfg.Name, why)
	if !f.wanted() {
		delete(c.flights, f.key)
		return false
	}
	for _, w := range f.waiters {
		w.told.Store(true)
		w.tell(why)
	}
	final := f.attempts >= c.cfg.Attempts || c.gate.shut()
	switch {
	case c.cfg.OnError == Stale:
		if e, ok := c.kept.GetEntryQuietly(f.key); ok && e.Value.found && c.now() < e.Value.expires+int64(c.cfg.MaxStale) {
			c.stats.stale.Add(1)
			c.land(f, &entry[K, V]{key: f.key, value: e.Value.value, found: true})
			return false
		}
	case c.cfg.OnError == Missing && final:
		c.stats.unanswered.Add(1)
		c.land(f, &entry[K, V]{key: f.key})
		return false
	case c.cfg.OnError == DeadLetter && final:
		c.stats.unanswered.Add(1)
		c.land(f, &entry[K, V]{key: f.key, err: why})
		return false
	}
	f.stage = resting
	return true
}

// wanted reports whether anybody still waits for the flight.
func (f *flight[K, V]) wanted() bool {
	for _, w := range f.waiters {
		if !w.gone.Load() {
			return true
		}
	}
	return false
}

// land gives a flight's entry to those who wait. The mutex is held.
func (c *Cache[K, V]) land(f *flight[K, V], e *entry[K, V]) {
	f.landed = e
	delete(c.flights, f.key)
	for _, w := range f.waiters {
		if w.left--; w.left == 0 {
			close(w.done)
		}
	}
	f.waiters = nil
}

// rest has flights tried again after a while. The mutex is held.
func (c *Cache[K, V]) rest(flights []*flight[K, V]) {
	if len(flights) == 0 {
		return
	}
	attempts := 0
	for _, f := range flights {
		attempts = max(attempts, f.attempts)
	}
	time.AfterFunc(retry.Backoff(attempts), func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.closed {
			return
		}
		now := c.now()
		for _, f := range flights {
			if f.wanted() {
				c.push(f, now)
			} else {
				delete(c.flights, f.key)
			}
		}
		c.pump()
	})
}
