package kinesis

import (
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// stream is a set of shards. Its lock guards the topology: putting a record
// takes it for reading, resharding for writing, so no record enters a shard
// that is closing. The fields above mu never change.
type stream struct {
	id        uint64 // distinguishes a stream from a deleted one of its name
	name, arn string
	mode      string
	created   int64 // Unix milliseconds
	maxRecord int   // bytes of key and data
	retention time.Duration
	maxBytes  int64
	chunkSize int

	bytes   atomic.Int64 // held by all shards
	trimmed atomic.Int64 // records that arrived before this are gone (Unix ms)

	mu        sync.RWMutex
	status    string // CREATING, ACTIVE, UPDATING, DELETING
	until     int64  // the status changes at this time (Unix ms), 0 never
	shards    []*shard
	open      []*shard // ordered by hash range
	nextIndex int
	newest    int64 // largest creation second of a shard
	consumers map[string]*consumer

	evicting sync.Mutex
}

// horizon returns the arrival time (Unix ms) before which records are gone.
func (st *stream) horizon(now int64) int64 {
	return max(now-st.retention.Milliseconds(), st.trimmed.Load())
}

// state returns the status now, completing what was under way. A stream whose
// deletion is complete returns "".
func (st *stream) state(now int64) string {
	st.mu.RLock()
	status, until := st.status, st.until
	st.mu.RUnlock()
	if until == 0 || now < until {
		return status
	}
	if status == statusDeleting {
		return ""
	}
	return statusActive
}

// enter starts a transition that lasts d. The caller holds mu.
func (st *stream) enter(status string, now int64, d time.Duration) {
	st.status, st.until = status, now+d.Milliseconds()
}

// addShard appends an open shard. The caller holds mu; now is Unix ms.
func (st *stream) addShard(lo, hi hash, now int64, second int64, parents ...*shard) *shard {
	var names []string
	for _, p := range parents {
		second = max(second, p.starting.created()+1)
		names = append(names, p.id)
	}
	st.newest = max(st.newest, second)
	sh := &shard{
		stream: st, index: st.nextIndex, id: shardName(st.nextIndex),
		lo: lo, hi: hi, parents: names, created: now,
		starting: newSequence(second, st.nextIndex),
		first:    1, next: 1,
	}
	st.nextIndex++
	st.shards = append(st.shards, sh)
	i := sort.Search(len(st.open), func(i int) bool { return lo.less(st.open[i].lo) })
	st.open = append(st.open, nil)
	copy(st.open[i+1:], st.open[i:])
	st.open[i] = sh
	return sh
}

// retire takes a shard from those that records go to; close follows, once its children are there. The
// caller holds mu.
func (st *stream) retire(sh *shard) {
	for i, o := range st.open {
		if o == sh {
			st.open = append(st.open[:i:i], st.open[i+1:]...)
			break
		}
	}
}

// route returns the open shard for a hash key, nil when none covers it. The
// caller holds mu for reading.
func (st *stream) route(h hash) *shard {
	i := sort.Search(len(st.open), func(i int) bool { return h.less(st.open[i].lo) }) - 1
	if i < 0 || st.open[i].hi.less(h) {
		return nil
	}
	return st.open[i]
}

// find returns a listed shard, nil when there is none. The caller holds mu for
// reading.
func (st *stream) find(index int) *shard {
	i := sort.Search(len(st.shards), func(i int) bool { return st.shards[i].index >= index })
	if i == len(st.shards) || st.shards[i].index != index {
		return nil
	}
	return st.shards[i]
}

// lookup is find for callers that hold no lock. Vanished shards are not found.
func (st *stream) lookup(index int) *shard {
	st.forget(time.Now().UnixMilli())
	st.mu.RLock()
	defer st.mu.RUnlock()
	return st.find(index)
}

// split replaces sh by two children, the upper of which starts at start. The
// caller holds mu and has checked that sh is open and start inside it.
func (st *stream) split(sh *shard, start hash, now int64) {
	st.retire(sh)
	lower := st.addShard(sh.lo, start.previous(), now, now/1000, sh)
	upper := st.addShard(start, sh.hi, now, now/1000, sh)
	sh.close(now, lower, upper)
}

// merge replaces two adjacent open shards, a below b, by one. The caller holds
// mu.
func (st *stream) merge(a, b, parent, adjacent *shard, now int64) {
	st.retire(a)
	st.retire(b)
	child := st.addShard(a.lo, b.hi, now, now/1000, parent, adjacent)
	a.close(now, child)
	b.close(now, child)
}

// rescale splits and merges until the open shards are target equal ranges. The
// caller holds mu.
func (st *stream) rescale(target int, now int64) {
	starts := boundaries(target)
	for _, start := range starts {
		if sh := st.route(start); sh.lo != start {
			st.split(sh, start, now)
		}
	}
	for i := 0; i < len(starts); i++ {
		for i+1 < len(st.open) && (i+1 == len(starts) || st.open[i+1].lo != starts[i+1]) {
			a, b := st.open[i], st.open[i+1]
			st.merge(a, b, a, b, now)
		}
	}
}

// forget removes closed shards whose records have all expired.
func (st *stream) forget(now int64) {
	horizon := st.horizon(now)
	expired := func(sh *shard) bool {
		sh.mu.Lock()
		defer sh.mu.Unlock()
		return sh.closed != 0 && sh.closed < horizon
	}
	st.mu.RLock()
	stale := false
	for _, sh := range st.shards {
		if stale = expired(sh); stale {
			break
		}
	}
	st.mu.RUnlock()
	if !stale {
		return
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	kept := make([]*shard, 0, len(st.shards))
	for _, sh := range st.shards {
		if expired(sh) {
			sh.mu.Lock()
			sh.trim(horizon)
			sh.mu.Unlock()
			continue
		}
		kept = append(kept, sh)
	}
	st.shards = kept
}

// evict drops the oldest chunks of the stream until it fits its byte limit. The
// caller holds mu for reading.
func (st *stream) evict() {
	if st.bytes.Load() <= st.maxBytes || !st.evicting.TryLock() {
		return
	}
	defer st.evicting.Unlock()
	for st.bytes.Load() > st.maxBytes {
		var oldest *shard
		var arrived int64
		for _, sh := range st.shards {
			sh.mu.Lock()
			if len(sh.chunks) > 0 && (oldest == nil || sh.chunks[0].arrived[0] < arrived) {
				oldest, arrived = sh, sh.chunks[0].arrived[0]
			}
			sh.mu.Unlock()
		}
		if oldest == nil {
			return
		}
		oldest.mu.Lock()
		if len(oldest.chunks) > 0 {
			oldest.dropOldest()
		}
		oldest.mu.Unlock()
	}
}

const (
	statusCreating = "CREATING"
	statusActive   = "ACTIVE"
	statusUpdating = "UPDATING"
	statusDeleting = "DELETING"
)
