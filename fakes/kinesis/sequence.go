package kinesis

import (
	"math/big"
	"math/bits"
)

// A sequence number has 187 bits, so 56 decimal digits, laid out as the service
// does (from the top; the Kinesis Client Library's SequenceNumberValidator reads
// the two versions and the shard):
//
//	bits 184–187  2
//	bits 148–183  second in which the shard was created
//	bits 144–147  low four bits of the shard's index
//	bits  80–143  counter, one a record
//	bits  72– 79  0
//	bits  36– 71  second in which the shard was created (the service: of the record)
//	bits   4– 35  index of the shard
//	bits   0–  3  version, 2
//
// The creation second is the most significant part that varies. A child's is
// made larger than its parents', so that every sequence number of a child is
// larger than every one of its parents.
type sequence struct{ hi, mid, lo uint64 }

// endCounter is the counter in a closed shard's ending sequence number.
const endCounter = 1<<63 - 1

const createdMask = 1<<36 - 1

// newSequence returns the number of counter 0, a shard's starting sequence
// number. Records count from 1.
func newSequence(createdSecond int64, index int) sequence {
	c := uint64(createdSecond) & createdMask
	return sequence{
		hi:  2<<56 | c<<20 | uint64(index&0xf)<<16,
		mid: c >> 28,
		lo:  c<<36 | uint64(uint32(index))<<4 | 2,
	}
}

// at returns the number with counter n.
func (s sequence) at(n uint64) sequence {
	return sequence{hi: s.hi&^0xffff | n>>48, mid: s.mid&0xffff | n<<16, lo: s.lo}
}

func (s sequence) counter() uint64 { return s.hi<<48 | s.mid>>16 }
func (s sequence) created() int64  { return int64(s.hi >> 20 & createdMask) }
func (s sequence) shard() int      { return int(uint32(s.lo >> 4)) }

// valid reports whether both version fields are those of this layout.
func (s sequence) valid() bool { return s.hi>>56 == 2 && s.lo&0xf == 2 }

func (s sequence) String() string { return string(s.append(nil)) }

// append writes the 56 decimal digits.
func (s sequence) append(dst []byte) []byte {
	const e19 = 10_000_000_000_000_000_000
	q1, r := bits.Div64(s.hi, s.mid, e19)
	q0, low := bits.Div64(r, s.lo, e19)
	high, middle := bits.Div64(q1, q0, e19)
	dst = appendDigits(dst, high, 18)
	dst = appendDigits(dst, middle, 19)
	return appendDigits(dst, low, 19)
}

const digitPairs = "00010203040506070809" +
	"10111213141516171819" +
	"20212223242526272829" +
	"30313233343536373839" +
	"40414243444546474849" +
	"50515253545556575859" +
	"60616263646566676869" +
	"70717273747576777879" +
	"80818283848586878889" +
	"90919293949596979899"

// appendDigits writes n in exactly width digits.
func appendDigits(dst []byte, n uint64, width int) []byte {
	var buf [20]byte
	i := width
	for i >= 2 {
		pair := n % 100 * 2
		n /= 100
		i -= 2
		buf[i], buf[i+1] = digitPairs[pair], digitPairs[pair+1]
	}
	if i == 1 {
		buf[0] = byte('0' + n%10)
	}
	return append(dst, buf[:width]...)
}

// parseSequence reads a decimal sequence number and reports whether it has this
// layout. The caller has checked that text is digits and of bounded length.
func parseSequence(text string) (sequence, bool) {
	n, ok := new(big.Int).SetString(text, 10)
	if !ok || n.BitLen() > 192 {
		return sequence{}, false
	}
	var b [24]byte
	n.FillBytes(b[:])
	var s sequence
	for i, w := range []*uint64{&s.hi, &s.mid, &s.lo} {
		for _, c := range b[i*8 : i*8+8] {
			*w = *w<<8 | uint64(c)
		}
	}
	return s, s.valid()
}
