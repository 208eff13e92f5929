package fields

import (
	"math/bits"
	"strings"
)

// keys finds the nodes of one object's keys. A key of at most fifteen bytes
// is two words, padded with zeros, and is looked up in a hash table; as a rule
// no two keys share an entry, so that it is found, or found missing, without a
// branch that depends on the data. The map has all keys, the longer ones and
// those that hold a zero byte, which only an escape can write, among them.
type keys struct {
	all   map[string]*node
	table []entry // a power of two
	seed  uint64
	shift uint8
}

type entry struct {
	first, second uint64
	child         *node
	next          *entry // another key with the same hash
}

// shortKey is the longest key that has a place in the table. A zero byte ends
// it there.
const shortKey = 15

// add returns the node for a key, which is made with the given slot if new.
func (k *keys) add(key string, slot int) *node {
	n := k.all[key]
	if n == nil {
		if k.all == nil {
			k.all = map[string]*node{}
		}
		n = &node{slot: slot}
		k.all[key] = n
	}
	return n
}

// seal builds the table, with the first of some seeds that keeps all keys
// apart, or else with the last one.
func (k *keys) seal(nothing *node) {
	k.shift = uint8(64 - max(3, bits.Len(uint(4*len(k.all)))))
	for seed := range uint64(64) {
		k.seed = (2*seed + 1) * 0x9e3779b97f4a7c15
		if k.build(nothing) {
			return
		}
	}
}

// build fills the table, and reports whether each key has its own entry.
func (k *keys) build(nothing *node) (apart bool) {
	k.table = make([]entry, 1<<(64-k.shift))
	for i := range k.table {
		k.table[i].child = nothing
	}
	apart = true
	for key, child := range k.all {
		if len(key) > shortKey || strings.Contains(key, "\x00") {
			continue
		}
		first, second := word(key, 0), word(key, 8)
		e := &k.table[k.index(first, second)]
		if e.child == nothing {
			*e = entry{first: first, second: second, child: child}
		} else {
			e.next = &entry{first: first, second: second, child: child, next: e.next}
			apart = false
		}
	}
	return apart
}

func (k *keys) index(first, second uint64) int {
	return int((first ^ bits.RotateLeft64(second, 31)) * k.seed >> (k.shift & 63))
}

// find returns the node of a key, or nothing.
func (k *keys) find(key string, nothing *node) *node {
	if n := k.all[key]; n != nil {
		return n
	}
	return nothing
}

// short is find for a key of at most fifteen bytes, none of them 0.
func (k *keys) short(first, second uint64, nothing *node) *node {
	e := &k.table[k.index(first, second)]
	n := e.child
	if (e.first^first)|(e.second^second) != 0 {
		n = nothing
	}
	if e.next != nil && n == nothing {
		return e.next.search(first, second, nothing)
	}
	return n
}

// search is short for the keys that share an entry with another one.
func (e *entry) search(first, second uint64, nothing *node) *node {
	for ; e != nil; e = e.next {
		if e.first == first && e.second == second {
			return e.child
		}
	}
	return nothing
}

// word returns the eight bytes from i on, the first one lowest; those beyond
// the end are 0.
func word(rec string, i int) (w uint64) {
	if i+8 <= len(rec) {
		return load(rec, i)
	}
	for k := len(rec) - 1; k >= i; k-- {
		w = w<<8 | uint64(rec[k])
	}
	return w
}
