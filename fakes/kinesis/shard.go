package kinesis

import (
	"fmt"
	"sort"
	"sync"
	"time"
)

const (
	minChunk        = 4 << 10
	maxChunk        = 512 << 10
	maxChunkRecords = 8192

	// recordOverhead is what a record costs in a chunk beside its key and data.
	recordOverhead = 16
)

// chunk holds consecutive records of one shard. All three slices only grow at
// their ends, so a copy of the struct taken under the shard's lock stays
// readable without it.
type chunk struct {
	first   uint64 // counter of the first record
	data    []byte // key, data, key, data, …
	ends    []uint32
	arrived []int64 // Unix milliseconds, never decreasing in a shard
}

func (c *chunk) len() int { return len(c.arrived) }

// record returns the key and data of the chunk's i-th record, aliasing it.
func (c *chunk) record(i int) (key, data []byte) {
	start := uint32(0)
	if i > 0 {
		start = c.ends[2*i-1]
	}
	return c.data[start:c.ends[2*i]:c.ends[2*i]], c.data[c.ends[2*i]:c.ends[2*i+1]:c.ends[2*i+1]]
}

func (c *chunk) size() int64 { return int64(len(c.data) + recordOverhead*len(c.arrived)) }

// shard is an ordered log of records for one range of hash keys. The fields
// above mu never change.
type shard struct {
	stream   *stream
	index    int
	id       string
	lo, hi   hash
	parents  []string // none, one (split) or two (merge: parent, adjacent parent)
	starting sequence
	created  int64 // Unix milliseconds

	mu       sync.Mutex
	chunks   []*chunk
	first    uint64 // counter of the oldest record that is still visible
	next     uint64 // counter of the next record
	newest   int64  // arrival of the newest record
	closed   int64  // Unix milliseconds, 0 while open
	children []*shard
	wake     chan struct{} // closed when a record arrives or the shard closes; nil while nobody waits
	calls    bucket        // GetRecords calls
	out      bucket        // bytes read
	in       bucket        // bytes written
	inCount  bucket        // records written
}

func shardName(index int) string { return fmt.Sprintf("shardId-%012d", index) }

// append stores one record and returns its counter. The caller holds the
// stream's lock for reading, so the shard cannot close meanwhile.
func (sh *shard) append(key string, data []byte, arrived int64) uint64 {
	need := len(key) + len(data)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	arrived = max(arrived, sh.newest)
	sh.newest = arrived

	var c *chunk
	if n := len(sh.chunks); n > 0 {
		c = sh.chunks[n-1]
	}
	if c == nil || len(c.data)+need > cap(c.data) || c.len() >= maxChunkRecords {
		sh.trim(sh.stream.horizon(time.Now().UnixMilli()))
		size := minChunk
		if c != nil {
			size = min(2*cap(c.data), sh.stream.chunkSize)
		}
		c = &chunk{first: sh.next, data: make([]byte, 0, max(size, need))}
		sh.chunks = append(sh.chunks, c)
	}
	c.data = append(c.data, key...)
	keyEnd := uint32(len(c.data))
	c.data = append(c.data, data...)
	c.ends = append(c.ends, keyEnd, uint32(len(c.data)))
	c.arrived = append(c.arrived, arrived)
	sh.stream.bytes.Add(int64(need + recordOverhead))

	n := sh.next
	sh.next++
	sh.notify()
	return n
}

func (sh *shard) notify() {
	if sh.wake != nil {
		close(sh.wake)
		sh.wake = nil
	}
}

// changed returns a channel that is closed once a record with counter from or a
// later one is there, or the shard is closed; nil when that is so already.
func (sh *shard) changed(from uint64) <-chan struct{} {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.next > max(from, 1) || sh.closed != 0 {
		return nil
	}
	if sh.wake == nil {
		sh.wake = make(chan struct{})
	}
	return sh.wake
}

// trim hides the records that arrived before horizon and drops the chunks that
// hold no other. The caller holds mu.
func (sh *shard) trim(horizon int64) {
	for len(sh.chunks) > 0 {
		c := sh.chunks[0]
		if c.arrived[c.len()-1] >= horizon {
			hidden := sort.Search(c.len(), func(i int) bool { return c.arrived[i] >= horizon })
			sh.first = max(sh.first, c.first+uint64(hidden))
			return
		}
		sh.dropOldest()
	}
}

// dropOldest forgets the oldest chunk. The caller holds mu and has checked that
// there is one.
func (sh *shard) dropOldest() {
	c := sh.chunks[0]
	sh.chunks[0] = nil
	sh.chunks = sh.chunks[1:]
	sh.first = max(sh.first, c.first+uint64(c.len()))
	sh.stream.bytes.Add(-c.size())
}

// view is what one read sees: a stretch of records that needs no lock, and the
// shard's state when it was taken.
type view struct {
	chunks []chunk
	from   uint64 // counter of the first record to deliver
	next   uint64 // counter behind the newest record
	closed bool
}

// snapshot returns the records from counter from on, at least enough for
// records and size. Trimmed records are skipped.
func (sh *shard) snapshot(from uint64, records int, size int64, chunks []chunk) view {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.trim(sh.stream.horizon(time.Now().UnixMilli()))
	v := view{chunks: chunks, from: max(from, sh.first), next: sh.next, closed: sh.closed != 0}
	if v.from >= sh.next {
		v.from = min(v.from, sh.next)
		return v
	}
	i := sort.Search(len(sh.chunks), func(i int) bool {
		return sh.chunks[i].first+uint64(sh.chunks[i].len()) > v.from
	})
	for ; i < len(sh.chunks) && records > 0 && size > 0; i++ {
		c := *sh.chunks[i]
		v.chunks = append(v.chunks, c)
		skipped := 0
		if v.from > c.first {
			skipped = int(v.from - c.first)
		}
		records -= c.len() - skipped
		if skipped == 0 {
			size -= int64(len(c.data))
		}
	}
	return v
}

// atTime returns the counter of the oldest visible record that arrived at ms or
// later.
func (sh *shard) atTime(ms int64) uint64 {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, c := range sh.chunks {
		if c.arrived[c.len()-1] >= ms {
			i := sort.Search(c.len(), func(i int) bool { return c.arrived[i] >= ms })
			return max(sh.first, c.first+uint64(i))
		}
	}
	return sh.next
}

// close ends the shard and names its children, at once: whoever sees the end sees where to go on. The
// caller holds the stream's lock for writing.
func (sh *shard) close(now int64, children ...*shard) {
	sh.mu.Lock()
	sh.children = children
	sh.closed = max(now, sh.newest, sh.created)
	sh.notify()
	sh.mu.Unlock()
}

// openAt reports whether the shard accepted records at ms; since is true for
// shards that did then or later.
func (sh *shard) openAt(ms int64, since bool) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return (sh.closed == 0 || sh.closed > ms) && (since || sh.created <= ms)
}

func (sh *shard) isClosed() bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.closed != 0
}
