package windows

import (
	"cmp"
	"encoding/binary"
	"hash/maphash"
	"slices"
	"unsafe"
)

const (
	firstChunk = 256
	lastChunk  = 1 << 20
	firstSlots = 8
)

var keySeed = maphash.MakeSeed() // never saved: hashes are this process's

// keys numbers distinct keys densely, in order of arrival. Their bytes are in append-only chunks, so
// a copy of the headers is a copy of the keys; an open-addressing index of 8 bytes a slot finds them.
type keys struct {
	slots  []uint64 // 32 bits of the hash, then number+1; 0 is free
	refs   []keyRef
	chunks [][]byte
	shared bool // a snapshot reads refs and chunks: they must not be reused
}

type keyRef struct{ chunk, offset, length uint32 }

func (k *keys) len() int { return len(k.refs) }

// at returns key i. Its memory is not used again unless reset is told that it may be.
func (k *keys) at(i uint32) string {
	r := k.refs[i]
	if r.length == 0 {
		return ""
	}
	return unsafe.String(&k.chunks[r.chunk][r.offset], int(r.length))
}

// put returns the number of a key, and whether it is new.
func (k *keys) put(key string) (uint32, bool) {
	tag := uint32(maphash.String(keySeed, key) >> 32)
	if len(k.slots) == 0 {
		k.slots = make([]uint64, firstSlots)
	}
	mask := uint32(len(k.slots) - 1)
	i := tag & mask
	for ; ; i = (i + 1) & mask {
		s := k.slots[i]
		if s == 0 {
			break
		}
		if uint32(s>>32) == tag && k.at(uint32(s)-1) == key {
			return uint32(s) - 1, false
		}
	}
	n := uint32(len(k.refs))
	k.append(key)
	k.slots[i] = uint64(tag)<<32 | uint64(n+1)
	if len(k.refs)*4 >= len(k.slots)*3 {
		k.widen()
	}
	return n, true
}

// widen doubles the index. The hashes in the slots suffice to place them anew.
func (k *keys) widen() {
	slots := make([]uint64, 2*len(k.slots))
	mask := uint32(len(slots) - 1)
	for _, s := range k.slots {
		if s == 0 {
			continue
		}
		i := uint32(s>>32) & mask
		for slots[i] != 0 {
			i = (i + 1) & mask
		}
		slots[i] = s
	}
	k.slots = slots
}

// append stores a key's bytes. What is stored never moves.
func (k *keys) append(key string) {
	last := len(k.chunks) - 1
	if last < 0 || cap(k.chunks[last])-len(k.chunks[last]) < len(key) {
		size := firstChunk
		if last >= 0 {
			size = min(2*cap(k.chunks[last]), lastChunk)
		}
		k.chunks = append(k.chunks, make([]byte, 0, max(size, len(key))))
		last++
	}
	c := &k.chunks[last]
	k.refs = append(k.refs, keyRef{uint32(last), uint32(len(*c)), uint32(len(key))})
	*c = append(*c, key...)
}

// snapshot shares the bytes and copies the headers.
func (k *keys) snapshot() keys {
	k.shared = true
	return keys{refs: k.refs, chunks: slices.Clone(k.chunks)}
}

// reset forgets the keys. The memory of their bytes is used again only if reuse is set: nobody may
// then hold a key any more.
func (k *keys) reset(reuse bool) {
	if len(k.refs)*16 < len(k.slots) && len(k.slots) > 1024 {
		k.slots = make([]uint64, len(k.slots)/4) // it was sized for far more
	} else {
		clear(k.slots)
	}
	if k.shared || !reuse {
		k.chunks = nil
	} else if last := len(k.chunks) - 1; last >= 0 {
		k.chunks[0] = k.chunks[last][:0]
		clear(k.chunks[1:])
		k.chunks = k.chunks[:1]
	}
	if k.shared {
		k.refs = nil
	}
	k.refs = k.refs[:0]
	k.shared = false
}

func (k *keys) encode(w *writer) {
	w.uvarint(uint64(len(k.refs)))
	for i := range k.refs {
		w.string(k.at(uint32(i)))
	}
}

// decode reads keys into an empty k. Without an index they can be read, not found.
func (k *keys) decode(r *reader, index bool) {
	n := r.count(1)
	k.refs = slices.Grow(k.refs, n)
	if size := max(firstSlots, 1<<bitsFor(n*4/3+1)); index && size > len(k.slots) {
		k.slots = make([]uint64, size)
	}
	for range n {
		b := r.bytes()
		key := unsafe.String(unsafe.SliceData(b), len(b))
		if !index {
			k.append(key)
			continue
		}
		if _, added := k.put(key); !added && r.err == nil {
			r.fail("a key comes twice")
		}
		if r.err != nil {
			return
		}
	}
}

func bitsFor(n int) int {
	b := 0
	for 1<<b < n {
		b++
	}
	return b
}

// ordered is a row of a table as results are sorted: most comparisons need only the prefix.
type ordered struct {
	prefix uint64
	row    uint32
}

func prefixOf(key string) uint64 {
	if len(key) >= 8 {
		return binary.BigEndian.Uint64(unsafe.Slice(unsafe.StringData(key), 8))
	}
	var b [8]byte
	copy(b[:], key)
	return binary.BigEndian.Uint64(b[:])
}

// sorted returns the rows in order of their keys' bytes.
func (k *keys) sorted(into []ordered) []ordered {
	into = into[:0]
	for i := range k.refs {
		into = append(into, ordered{prefixOf(k.at(uint32(i))), uint32(i)})
	}
	slices.SortFunc(into, func(a, b ordered) int {
		if c := cmp.Compare(a.prefix, b.prefix); c != 0 {
			return c
		}
		return cmp.Compare(k.at(a.row), k.at(b.row))
	})
	return into
}
