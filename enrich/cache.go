package enrich

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/millstream/millstream/stream"
)

// Cache stands between the lanes of a process and a Lookup. It is itself a Lookup, that answers for every key
// or not at all, and With knows a faster way into it. Everything may be called concurrently.
type Cache[K comparable, V any] struct {
	cfg   Config[K, V]
	gate  *gate[K, V]
	start time.Time
	kept  *otter.Cache[K, *entry[K, V]]
	stats counters

	mu         sync.Mutex
	flights    map[K]*flight[K, V] // of keys that are waited for, or looked up anew
	urgent     []*flight[K, V]     // to be called for: somebody waits
	background []*flight[K, V]     // nobody does, or did
	calls      int                 // under way
	timer      *time.Timer         // when a call is due that is not full
	closed     bool
	ctx        context.Context //nolint:containedctx // of the calls, which outlive whoever asked first
	cancel     context.CancelFunc
	under      sync.WaitGroup // calls under way
	saver      chan struct{}  // closed when the hot keys are not saved any more
}

// NewCache returns a cache in front of a lookup. Close it.
func NewCache[K comparable, V any](lookup Lookup[K, V], cfg Config[K, V]) (*Cache[K, V], error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	options := &otter.Options[K, *entry[K, V]]{MaximumSize: cfg.Max}
	if cfg.MaxBytes > 0 {
		options.MaximumSize, options.MaximumWeight = 0, uint64(cfg.MaxBytes)
		options.Weigher = func(k K, e *entry[K, V]) uint32 {
			size := overhead
			if e.found {
				size += cfg.Size(k, e.value)
			}
			return uint32(min(max(size, overhead), most))
		}
	}
	kept, err := otter.New(options)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.Name, err)
	}
	c := &Cache[K, V]{cfg: cfg, start: time.Now(), kept: kept, flights: map[K]*flight[K, V]{}, saver: make(chan struct{})}
	c.gate = newGate(lookup, &c.cfg, &c.stats)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.timer = time.AfterFunc(time.Hour, c.tick)
	go c.keepHot()
	return c, nil
}

// overhead is roughly what an entry costs beside its key and value.
const overhead = 200

// Close ends what is under way, and remembers the hot keys. Batches that wait get an error.
func (c *Cache[K, V]) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	for _, f := range c.flights {
		c.land(f, &entry[K, V]{key: f.key, err: errClosed})
	}
	c.timer.Stop()
	c.mu.Unlock()
	c.cancel()
	c.under.Wait()
	<-c.saver
	c.kept.StopAllGoroutines()
	return nil
}

var errClosed = errors.New("the cache is closed")

func (c *Cache[K, V]) now() instant { return instant(time.Since(c.start)) }

// Lookup implements Lookup, by way of the cache. The error is that of one key, when OnError is DeadLetter.
func (c *Cache[K, V]) Lookup(ctx context.Context, keys []K) (map[K]V, error) {
	entries := make([]*entry[K, V], len(keys))
	if err := c.resolve(ctx, nil, keys, entries); err != nil {
		return nil, err
	}
	found, failed := make(map[K]V, len(keys)), map[K]error{}
	for _, e := range entries {
		switch {
		case e.err != nil:
			failed[e.key] = e.err
		case e.found:
			found[e.key] = e.value
		}
	}
	if len(failed) > 0 {
		return found, &Failed[K]{failed}
	}
	return found, nil
}

// resolve fills entries with what is known of keys, and waits for those of which nothing is. The error is
// the context's.
func (c *Cache[K, V]) resolve(ctx context.Context, f *front[K, V], keys []K, entries []*entry[K, V]) error {
	missing := c.scan(f, keys, entries)
	c.stats.hits.Add(int64(len(keys) - len(missing)))
	if len(missing) == 0 {
		return nil
	}
	if err := c.wait(ctx, keys, missing, entries); err != nil {
		return err
	}
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range missing {
		if e := entries[i]; e.err == nil && e.refreshAt > 0 {
			*f.slot(e.key) = e
		}
	}
	return nil
}

// scan fills in the entries that are there, and returns the indexes of the others.
func (c *Cache[K, V]) scan(f *front[K, V], keys []K, entries []*entry[K, V]) (missing []int32) {
	now := c.now()
	if f == nil {
		for i, key := range keys {
			if entries[i] = c.load(key, now); entries[i] == nil {
				missing = append(missing, int32(i))
			}
		}
		return missing
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, key := range keys {
		slot := f.slot(key)
		e := *slot
		if e == nil || now >= e.refreshAt || e.key != key {
			if e = c.load(key, now); e == nil {
				missing = append(missing, int32(i))
			} else if now < e.refreshAt {
				*slot = e
			}
		}
		entries[i] = e
	}
	return missing
}

// servable returns the entry of a key if it may be served now.
func (c *Cache[K, V]) servable(key K, now instant) *entry[K, V] {
	e, ok := c.kept.GetIfPresent(key)
	if !ok || now >= e.expires+int64(c.cfg.Revalidate) {
		return nil
	}
	return e
}

// load is servable, and has the key looked up anew if it is due. The mutex is not held.
func (c *Cache[K, V]) load(key K, now instant) *entry[K, V] {
	e := c.servable(key, now)
	if e != nil && now >= e.refreshAt {
		if now >= e.expires {
			c.stats.stale.Add(1)
		}
		if at := e.nextTry.Load(); now >= at && e.nextTry.CompareAndSwap(at, now+int64(time.Second)) {
			c.refresh(e.key)
		}
	}
	return e
}

// learned is the entry of a key that was answered by a call that began at asked. Lifetimes differ by a tenth,
// so that what was looked up together is not due together.
func (c *Cache[K, V]) learned(key K, value V, found bool, asked instant) *entry[K, V] {
	ttl := int64(c.cfg.TTL)
	if !found {
		ttl = int64(c.cfg.AbsentTTL)
	}
	ttl -= rand.Int64N(max(1, ttl/10))
	e := &entry[K, V]{key: key, value: value, found: found, refreshAt: asked + ttl - ttl/5, expires: asked + ttl}
	e.nextTry.Store(e.refreshAt)
	return e
}

// wait puts what is missing in flight, unless it is, and waits until all of it has landed.
func (c *Cache[K, V]) wait(ctx context.Context, keys []K, missing []int32, entries []*entry[K, V]) error {
	w := &waiter{done: make(chan struct{}), tell: func(err error) { stream.Delayed(ctx, err) }}
	mine := make([]*flight[K, V], len(missing))
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return errClosed
	}
	now := c.now()
	for n, i := range missing {
		f := c.flights[keys[i]]
		if f == nil {
			if e := c.servable(keys[i], now); e != nil { // it has landed since
				entries[i] = e
				continue
			}
			f = c.launch(keys[i])
			c.stats.misses.Add(1)
		}
		mine[n] = f
		c.join(f, w, now)
	}
	c.pump()
	waits := w.left > 0
	c.mu.Unlock()
	if waits {
		select {
		case <-w.done:
		case <-ctx.Done():
			w.gone.Store(true)
			return context.Cause(ctx)
		}
		if w.told.Load() {
			w.tell(nil)
		}
	}
	for n, i := range missing {
		if f := mine[n]; f != nil {
			entries[i] = f.landed
			if errors.Is(f.landed.err, errClosed) {
				return errClosed
			}
		}
	}
	return nil
}
