package kinesis

import (
	"bytes"
	"crypto/md5" // Kinesis routes by the MD5 of the partition key; nothing is protected by it
	"fmt"
	"math/big"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// hashKey is a 128-bit hash key, big endian, so that bytes compare as numbers do.
type hashKey [16]byte

// hashOf is the service's routing function for records without an explicit hash key.
func hashOf(partitionKey []byte) hashKey { return md5.Sum(partitionKey) }

// parseHash reads a decimal hash key; it reports false for anything that is not below 2^128.
func parseHash(text string) (h hashKey, ok bool) {
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

// hashRange is the part of the hash keys that a shard takes, both ends included.
type hashRange struct{ from, to hashKey }

func parseRange(r *types.HashKeyRange) (hashRange, error) {
	if r == nil {
		return hashRange{}, fmt.Errorf("the service gave no hash key range")
	}
	from, okFrom := parseHash(aws.ToString(r.StartingHashKey))
	to, okTo := parseHash(aws.ToString(r.EndingHashKey))
	if !okFrom || !okTo {
		return hashRange{}, fmt.Errorf("hash key range %q to %q", aws.ToString(r.StartingHashKey), aws.ToString(r.EndingHashKey))
	}
	return hashRange{from, to}, nil
}

func (r hashRange) holds(h hashKey) bool {
	return bytes.Compare(r.from[:], h[:]) <= 0 && bytes.Compare(h[:], r.to[:]) <= 0
}
