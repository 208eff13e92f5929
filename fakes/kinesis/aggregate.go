package kinesis

import (
	"crypto/md5"

	"google.golang.org/protobuf/encoding/protowire"
)

// UserRecord is one record inside an aggregated one.
type UserRecord struct {
	PartitionKey    string
	ExplicitHashKey string // decimal; empty means none
	Data            []byte
}

// aggregateMagic begins every aggregated record.
const aggregateMagic = "\xF3\x89\x9A\xC2"

// Aggregate packs records into the data of one Kinesis record as the Kinesis
// Producer Library does (awslabs/amazon-kinesis-producer,
// aggregation-format.md): the bytes F3 89 9A C2, a protocol buffer, and the
// buffer's MD5. The buffer is
//
//	message AggregatedRecord {
//	  repeated string partition_key_table     = 1;
//	  repeated string explicit_hash_key_table = 2;
//	  repeated Record records                 = 3;
//	}
//	message Record {
//	  required uint64 partition_key_index     = 1; // in the table above
//	  optional uint64 explicit_hash_key_index = 2;
//	  required bytes  data                    = 3;
//	  repeated Tag    tags                    = 4; // not written here
//	}
//
// Each table holds a key once, in order of first use. The library puts the
// result under the first record's partition key, with an explicit hash key when
// that record has one.
func Aggregate(records []UserRecord) []byte {
	keys, hashes := make(map[string]uint64), make(map[string]uint64)
	var keyTable, hashTable, body, one []byte
	for _, r := range records {
		key, ok := keys[r.PartitionKey]
		if !ok {
			key = uint64(len(keys))
			keys[r.PartitionKey] = key
			keyTable = protowire.AppendTag(keyTable, 1, protowire.BytesType)
			keyTable = protowire.AppendString(keyTable, r.PartitionKey)
		}
		one = protowire.AppendTag(one[:0], 1, protowire.VarintType)
		one = protowire.AppendVarint(one, key)
		if r.ExplicitHashKey != "" {
			hash, ok := hashes[r.ExplicitHashKey]
			if !ok {
				hash = uint64(len(hashes))
				hashes[r.ExplicitHashKey] = hash
				hashTable = protowire.AppendTag(hashTable, 2, protowire.BytesType)
				hashTable = protowire.AppendString(hashTable, r.ExplicitHashKey)
			}
			one = protowire.AppendTag(one, 2, protowire.VarintType)
			one = protowire.AppendVarint(one, hash)
		}
		one = protowire.AppendTag(one, 3, protowire.BytesType)
		one = protowire.AppendBytes(one, r.Data)
		body = protowire.AppendTag(body, 3, protowire.BytesType)
		body = protowire.AppendBytes(body, one)
	}
	out := append([]byte(aggregateMagic), keyTable...)
	out = append(out, hashTable...)
	out = append(out, body...)
	sum := md5.Sum(out[len(aggregateMagic):])
	return append(out, sum[:]...)
}
