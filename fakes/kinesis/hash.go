package kinesis

import (
	"crypto/md5"
	"encoding/binary"
	"math/big"
	"math/bits"
)

// hash is a 128-bit unsigned hash key.
type hash struct{ hi, lo uint64 }

var maxHash = hash{1<<64 - 1, 1<<64 - 1}

// hashOf is the service's routing function: the MD5 of the partition key, read
// as a big-endian number.
func hashOf(partitionKey []byte) hash {
	sum := md5.Sum(partitionKey)
	return hash{binary.BigEndian.Uint64(sum[:8]), binary.BigEndian.Uint64(sum[8:])}
}

// parseHash reads a decimal hash key and reports whether it is below 2^128.
func parseHash(text string) (hash, bool) {
	n, ok := new(big.Int).SetString(text, 10)
	if !ok || n.Sign() < 0 || n.BitLen() > 128 {
		return hash{}, false
	}
	return fromBig(n), true
}

func fromBig(n *big.Int) hash {
	var b [16]byte
	n.FillBytes(b[:])
	return hash{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (h hash) big() *big.Int {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], h.hi)
	binary.BigEndian.PutUint64(b[8:], h.lo)
	return new(big.Int).SetBytes(b[:])
}

func (h hash) String() string { return h.big().String() }

func (h hash) less(o hash) bool { return h.hi < o.hi || h.hi == o.hi && h.lo < o.lo }

func (h hash) next() hash {
	lo, carry := bits.Add64(h.lo, 1, 0)
	return hash{h.hi + carry, lo}
}

func (h hash) previous() hash {
	lo, borrow := bits.Sub64(h.lo, 1, 0)
	return hash{h.hi - borrow, lo}
}

// middle returns the starting hash key of the upper half of lo … hi.
func middle(lo, hi hash) hash {
	sum := new(big.Int).Add(lo.big(), hi.big())
	return fromBig(sum.Rsh(sum.Add(sum, big.NewInt(1)), 1))
}

// boundaries returns the starting hash keys of n equal ranges.
func boundaries(n int) []hash {
	step := new(big.Int).Div(new(big.Int).Lsh(big.NewInt(1), 128), big.NewInt(int64(n)))
	starts := make([]hash, n)
	for i := range starts {
		starts[i] = fromBig(new(big.Int).Mul(step, big.NewInt(int64(i))))
	}
	return starts
}
