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
	rules rules
	kept  *otter.Cache[K, *entry[K, V]]
	front front[K, V]
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
	c := &Cache[K, V]{cfg: cfg, start: time.Now(), front: newFront[K, V](cfg.Max), flights: map[K]*flight[K, V]{}, saver: make(chan struct{})}
	options := &otter.Options[K, *entry[K, V]]{
		MaximumSize:      cfg.Max,
		OnAtomicDeletion: func(e otter.DeletionEvent[K, *entry[K, V]]) { c.front.drop(e.Value) },
	}
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
	var err error
	if c.kept, err = otter.New(options); err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.Name, err)
	}
	c.gate = newGate(lookup, &c.cfg, &c.stats)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.timer = time.AfterFunc(time.Hour, c.tick)
	go c.keepHot()
	return c, nil
}

// rules switch off, in tests, what the cache's promises rest on.
type rules struct {
	flightEach bool // whoever misses a key has it looked up for himself
	serveGone  bool // an entry is served that has been replaced
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

// Lookup implements Lookup, by way of the cache. A key is in the error when OnError is DeadLetter and it was not
// answered.
func (c *Cache[K, V]) Lookup(ctx context.Context, keys []K) (map[K]V, error) {
	entries, r := make([]*entry[K, V], len(keys)), c.reading()
	var missing missing[K]
	for i, key := range keys {
		if entries[i] = r.read(key, r.peek(key)); entries[i] == nil {
			missing.add(i, key)
		}
	}
	r.done()
	if err := c.wait(ctx, &missing, entries); err != nil {
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

// reader reads the keys of one batch.
type reader[K comparable, V any] struct {
	c           *Cache[K, V]
	now         instant
	hits, front int64
}

func (c *Cache[K, V]) reading() reader[K, V] { return reader[K, V]{c: c, now: c.now()} }

// sampled is how many reads of the front go by for one that the cache is told of, which would otherwise take
// what is read most for what is never read.
const sampled = 8

// peek fetches what may be the entry of a key. To fetch those of a whole batch before they are looked at lets
// the processor wait for all of their memory at once, and not for one after the other.
func (r *reader[K, V]) peek(key K) *entry[K, V] { return r.c.front.slot(key).Load() }

// read returns what is known of a key and may be served now; nil if that is nothing. peeked is what peek
// returned for it.
func (r *reader[K, V]) read(key K, peeked *entry[K, V]) *entry[K, V] {
	if e := peeked; e != nil && r.now < e.refreshAt && e.key == key && (!e.gone.Load() || r.c.rules.serveGone) {
		r.hits++
		if r.front++; r.front%sampled == 0 {
			r.c.kept.GetIfPresent(key)
		}
		return e
	}
	e := r.c.load(key, r.now)
	if e != nil {
		r.hits++
		if r.now < e.refreshAt {
			r.c.front.slot(key).Store(e)
		}
	}
	return e
}

func (r *reader[K, V]) done() { r.c.stats.hits.Add(r.hits) }

// missing are the keys of a batch that nothing is known of, and where in the batch they are.
type missing[K comparable] struct {
	keys []K
	at   []int
}

func (m *missing[K]) add(i int, key K) { m.keys, m.at = append(m.keys, key), append(m.at, i) }

// servable returns the entry of a key if it may be served now.
func (c *Cache[K, V]) servable(key K, now instant) *entry[K, V] {
	e, ok := c.kept.GetIfPresent(key)
	if !ok || now >= e.expires+int64(c.cfg.Revalidate) || e.gone.Load() {
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

// wait puts what is missing in flight, unless it is, waits until all of it has landed, and fills in the
// entries. The error is the context's.
func (c *Cache[K, V]) wait(ctx context.Context, missing *missing[K], entries []*entry[K, V]) error {
	if len(missing.keys) == 0 {
		return nil
	}
	w := &waiter{done: make(chan struct{}), tell: func(err error) { stream.Delayed(ctx, err) }}
	mine := make([]*flight[K, V], len(missing.keys))
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return errClosed
	}
	now := c.now()
	for n, key := range missing.keys {
		f := c.flights[key]
		if f == nil || c.rules.flightEach {
			if e := c.servable(key, now); e != nil { // it has landed since
				entries[missing.at[n]] = e
				continue
			}
			f = c.launch(key)
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
	for n, f := range mine {
		if f == nil {
			continue
		}
		entries[missing.at[n]] = f.landed
		if errors.Is(f.landed.err, errClosed) {
			return errClosed
		}
	}
	return nil
}
