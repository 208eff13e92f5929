package kinesis

import (
	"bytes"
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

// UserRecords returns what a client library makes of Records: aggregated records are unfolded, and those
// inside that do not belong to the shard in which they are found are dropped, as the Kinesis Client Library
// does. Records of a broken aggregate are returned as they are.
func (s *Server) UserRecords(stream string) ([]Record, error) {
	all, err := s.Records(stream)
	if err != nil {
		return nil, err
	}
	st, err := s.stream(stream)
	if err != nil {
		return nil, err
	}
	st.mu.RLock()
	ranges := make(map[string][2]hash)
	for _, sh := range st.shards {
		ranges[sh.id] = [2]hash{sh.lo, sh.hi}
	}
	st.mu.RUnlock()
	var users []Record
	for _, r := range all {
		inside, ok := unfold(r.Data)
		if !ok {
			users = append(users, r)
			continue
		}
		within := ranges[r.ShardID]
		for _, u := range inside {
			h := hashOf([]byte(u.PartitionKey))
			if u.ExplicitHashKey != "" {
				if h, ok = parseHash(u.ExplicitHashKey); !ok {
					continue
				}
			}
			if h.less(within[0]) || within[1].less(h) {
				continue
			}
			one := r
			one.PartitionKey, one.ExplicitHashKey, one.Data = u.PartitionKey, u.ExplicitHashKey, u.Data
			users = append(users, one)
		}
	}
	return users, nil
}

// unfold is the inverse of Aggregate. It reports false for data that is no whole aggregate.
func unfold(data []byte) (records []UserRecord, ok bool) {
	if len(data) < len(aggregateMagic)+md5.Size || !bytes.HasPrefix(data, []byte(aggregateMagic)) {
		return nil, false
	}
	message := data[len(aggregateMagic) : len(data)-md5.Size]
	if sum := md5.Sum(message); !bytes.Equal(sum[:], data[len(data)-md5.Size:]) {
		return nil, false
	}
	var tables [3][]string // by the number of their field
	var inner [][]byte
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 || kind != protowire.BytesType || number > 3 {
			return nil, false
		}
		value, m := protowire.ConsumeBytes(message[n:])
		if m < 0 {
			return nil, false
		}
		message = message[n+m:]
		if number == 3 {
			inner = append(inner, value)
		} else {
			tables[number] = append(tables[number], string(value))
		}
	}
	for _, rest := range inner {
		var u UserRecord
		for len(rest) > 0 {
			number, kind, n := protowire.ConsumeTag(rest)
			if n < 0 {
				return nil, false
			}
			rest = rest[n:]
			if kind == protowire.BytesType {
				value, n := protowire.ConsumeBytes(rest)
				if n < 0 || number != 3 {
					return nil, false
				}
				u.Data, rest = bytes.Clone(value), rest[n:]
				continue
			}
			index, n := protowire.ConsumeVarint(rest)
			if n < 0 || number > 2 || number < 1 || index >= uint64(len(tables[number])) {
				return nil, false
			}
			if number == 1 {
				u.PartitionKey = tables[1][index]
			} else {
				u.ExplicitHashKey = tables[2][index]
			}
			rest = rest[n:]
		}
		records = append(records, u)
	}
	return records, true
}
