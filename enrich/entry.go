package enrich

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
)

// instant is nanoseconds since the cache was made, by a clock that only goes forward.
type instant = int64

// entry is what is known of a key. It is immutable but for nextTry.
type entry[K comparable, V any] struct {
	key   K
	value V
	found bool  // false: there is no row
	err   error // the key was not answered: for those who wait only, never kept

	refreshAt instant // from here on it is looked up anew when it is read
	expires   instant // from here on it is not served
	nextTry   atomic.Int64
	gone      atomic.Bool // it has been replaced or evicted, and must not be served any more
}

// front is a small array before the cache: a place for each hash, in which the newest stands. To read it takes
// a hash and a comparison, no lock, and touches nothing that others write. It holds entries until refreshAt, so
// that a key that is read all the time is not kept from being due; and an entry that is gone from the cache is
// gone here, so that nobody sees an older row after a newer one.
type front[K comparable, V any] struct {
	seed  maphash.Seed
	slots []atomic.Pointer[entry[K, V]] // a power of two
}

// A front has a slot for every entry of the cache, but no more than 2 MiB of them.
const (
	leastSlots = 1 << 10
	mostSlots  = 1 << 18
)

func newFront[K comparable, V any](entries int) front[K, V] {
	n := leastSlots
	for n < entries && n < mostSlots {
		n *= 2
	}
	return front[K, V]{seed: maphash.MakeSeed(), slots: make([]atomic.Pointer[entry[K, V]], n)}
}

func (f *front[K, V]) slot(key K) *atomic.Pointer[entry[K, V]] {
	var h uint64
	if s, ok := any(key).(string); ok {
		h = maphash.String(f.seed, s)
	} else {
		h = maphash.Comparable(f.seed, key)
	}
	return &f.slots[h&uint64(len(f.slots)-1)]
}

// drop takes an entry out that is not in the cache any more.
func (f *front[K, V]) drop(e *entry[K, V]) {
	e.gone.Store(true)
	f.slot(e.key).CompareAndSwap(e, nil)
}

// owned returns a key that keeps no record's memory alive.
func owned[K comparable](key K) K {
	if s, ok := any(key).(string); ok {
		return any(strings.Clone(s)).(K)
	}
	return key
}
