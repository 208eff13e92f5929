package enrich

import (
	"hash/maphash"
	"strings"
	"sync"
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
}

// front is what one lane has used lately: an array, a place for each hash, the newest stands. It holds
// entries until refreshAt, so that a lane that reads a key all the time does not keep the cache from
// noticing that it is due.
type front[K comparable, V any] struct {
	mu    sync.Mutex // a lane's batches are enriched at once; held for as long as nobody waits
	seed  maphash.Seed
	slots []*entry[K, V]
}

// frontSlots is enough for the part of a skewed stream that is worth it, and 64 KiB.
const frontSlots = 8192

func newFront[K comparable, V any]() *front[K, V] {
	return &front[K, V]{seed: maphash.MakeSeed(), slots: make([]*entry[K, V], frontSlots)}
}

func (f *front[K, V]) slot(key K) **entry[K, V] {
	var h uint64
	if s, ok := any(key).(string); ok {
		h = maphash.String(f.seed, s)
	} else {
		h = maphash.Comparable(f.seed, key)
	}
	return &f.slots[h%frontSlots]
}

// owned returns a key that keeps no record's memory alive.
func owned[K comparable](key K) K {
	if s, ok := any(key).(string); ok {
		return any(strings.Clone(s)).(K)
	}
	return key
}
