package aws

import (
	"bytes"
	"crypto/md5" // Kinesis routes by the MD5 of the partition key; nothing is protected by it
	"fmt"
	"math/big"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// HashKey is a 128-bit hash key of Kinesis, big endian, so that bytes compare as numbers do.
type HashKey [16]byte

// HashOf is the service's routing function for records without an explicit hash key.
func HashOf(partitionKey []byte) HashKey { return md5.Sum(partitionKey) }

// ParseHash reads a decimal hash key; it reports false for anything that is not below 2^128.
func ParseHash(text string) (h HashKey, ok bool) {
	if len(text) == 0 || len(text) > 39 { // 2^128 has 39 digits
		return h, false
	}
	for _, c := range []byte(text) {
		if c < '0' || c > '9' {
			return h, false
		}
	}
	n, _ := new(big.Int).SetString(text, 10)
	if n.BitLen() > 128 {
		return h, false
	}
	n.FillBytes(h[:])
	return h, true
}

// HashRange is the part of the hash keys that a shard takes, both ends included.
type HashRange struct{ From, To HashKey }

// ParseHashRange reads what ListShards says of a shard.
func ParseHashRange(r *types.HashKeyRange) (HashRange, error) {
	if r == nil {
		return HashRange{}, fmt.Errorf("the service gave no hash key range")
	}
	from, okFrom := ParseHash(aws.ToString(r.StartingHashKey))
	to, okTo := ParseHash(aws.ToString(r.EndingHashKey))
	if !okFrom || !okTo {
		return HashRange{}, fmt.Errorf("hash key range %q to %q", aws.ToString(r.StartingHashKey), aws.ToString(r.EndingHashKey))
	}
	return HashRange{from, to}, nil
}

// Holds reports whether a shard of the range takes a key.
func (r HashRange) Holds(h HashKey) bool {
	return bytes.Compare(r.From[:], h[:]) <= 0 && bytes.Compare(h[:], r.To[:]) <= 0
}

// String writes the key as the service wants it, in decimal.
func (h HashKey) String() string { return new(big.Int).SetBytes(h[:]).String() }
