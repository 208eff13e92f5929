package enrich

import (
	"sync/atomic"
	"time"
)

// counters are a cache's own; all of them only grow.
type counters struct {
	hits, misses, stale, refreshes, unanswered atomic.Int64
	calls, keys, errors, outages               atomic.Int64
	nanos, slowest, complained                 atomic.Int64
}

func (c *counters) took(d time.Duration) {
	c.nanos.Add(int64(d))
	for {
		old := c.slowest.Load()
		if int64(d) <= old || c.slowest.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

// Stats are what has happened since the cache was made.
type Stats struct {
	Hits        int64   `json:"hits"`            // keys that were there
	Misses      int64   `json:"misses"`          // keys that were put in flight because somebody needed them
	StaleServed int64   `json:"stale_served"`    // rows beyond their time to live
	Refreshes   int64   `json:"refreshes"`       // keys that were looked up anew before anybody had to wait
	Unanswered  int64   `json:"unanswered"`      // keys that OnError decided about
	Calls       int64   `json:"calls"`           // to the backend
	Keys        int64   `json:"keys"`            // of those calls
	Errors      int64   `json:"errors"`          // calls that failed, at least for some keys
	Outages     int64   `json:"outages"`         // how often the circuit breaker has opened
	Open        bool    `json:"breaker_open"`    // it is open now
	Seconds     float64 `json:"lookup_seconds"`  // of all calls together
	Slowest     float64 `json:"slowest_seconds"` // of the slowest call
	Entries     int     `json:"entries"`         // in the cache, about
	InFlight    int     `json:"in_flight"`       // keys that are waited for or looked up anew
}

// Stats returns the cache's counters.
func (c *Cache[K, V]) Stats() Stats {
	s := &c.stats
	c.mu.Lock()
	flights := len(c.flights)
	c.mu.Unlock()
	return Stats{Hits: s.hits.Load(), Misses: s.misses.Load(), StaleServed: s.stale.Load(), Refreshes: s.refreshes.Load(),
		Unanswered: s.unanswered.Load(), Calls: s.calls.Load(), Keys: s.keys.Load(), Errors: s.errors.Load(), Outages: s.outages.Load(),
		Open: c.gate.shut(), Seconds: time.Duration(s.nanos.Load()).Seconds(), Slowest: time.Duration(s.slowest.Load()).Seconds(),
		Entries: c.kept.EstimatedSize(), InFlight: flights}
}

// complain logs what a call failed with, once a minute.
func (c *Cache[K, V]) complain(err error) {
	now := c.now() + 1
	last := c.stats.complained.Load()
	if last > 0 && now-last < int64(time.Minute) || !c.stats.complained.CompareAndSwap(last, now) {
		return
	}
	c.cfg.Logger.Warn("a lookup failed", "enrich", c.cfg.Name, "on_error", c.cfg.OnError.String(), "error", err)
}

func (o OnError) String() string {
	switch o {
	case Wait:
		return "wait"
	case Stale:
		return "stale"
	case Missing:
		return "missing"
	case DeadLetter:
		return "dead-letter"
	}
	return "unknown"
}
