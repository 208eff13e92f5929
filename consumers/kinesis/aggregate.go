package kinesis

import (
	"bytes"
	"crypto/md5" // the checksum of the aggregation format
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	cloud "github.com/millstream/millstream/cloud/aws"
)

// Producers that use the Kinesis Producer Library pack many user records into one Kinesis record
// (aggregation-format.md in awslabs/amazon-kinesis-producer): four magic bytes, the protobuf message
// AggregatedRecord, and the MD5 of that message.
//
//	message AggregatedRecord {
//	  repeated string partition_key_table     = 1;
//	  repeated string explicit_hash_key_table = 2;
//	  repeated Record records                 = 3;
//	}
//	message Record {
//	  required uint64 partition_key_index     = 1;
//	  optional uint64 explicit_hash_key_index = 2;
//	  required bytes  data                    = 3;
//	  repeated Tag    tags                    = 4; // not used by the library
//	}
const (
	fieldPartitionKeys = 1
	fieldHashKeys      = 2
	fieldRecords       = 3

	fieldKeyIndex  = 1
	fieldHashIndex = 2
	fieldData      = 3

	// maxUserRecords bounds what one Kinesis record may unfold to: 12 MiB of headers beside the data,
	// which is never copied. A full 1 MiB record of one-byte user records stays below it.
	maxUserRecords = 1 << 18
)

var aggregateMagic = []byte{0xF3, 0x89, 0x9A, 0xC2}

// fate says what becomes of a user record.
type fate uint8

const (
	kept    fate = iota
	foreign      // its hash key belongs to another shard: that shard's readers see it
	broken       // the format does not hold; data is the message's bytes, for the dead letter
)

// userRecord is one record of an aggregate. data points into the Kinesis record.
type userRecord struct {
	data []byte
	key  string
	fate fate
}

// deaggregate unpacks a Kinesis record that was read from a shard of the given range. It reports
// false for data that is no aggregate: without the magic, with a wrong checksum, with an outer
// message that cannot be walked to its end, or with more than maxUserRecords. Such data is a plain
// record. The user records keep the order, and so the index, that they have in the aggregate,
// whatever their fate: positions count them.
func deaggregate(data []byte, shard cloud.HashRange) ([]userRecord, bool) {
	if len(data) < len(aggregateMagic)+md5.Size || !bytes.HasPrefix(data, aggregateMagic) {
		return nil, false
	}
	message := data[len(aggregateMagic) : len(data)-md5.Size]
	if sum := md5.Sum(message); !bytes.Equal(sum[:], data[len(data)-md5.Size:]) {
		return nil, false
	}
	keys, hashes := table{shard: shard}, table{shard: shard, explicit: true}
	var records [][]byte
	for rest := message; len(rest) > 0; {
		number, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return nil, false
		}
		rest = rest[n:]
		if kind != protowire.BytesType || number > fieldRecords {
			if n = protowire.ConsumeFieldValue(number, kind, rest); n < 0 {
				return nil, false
			}
			rest = rest[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(rest)
		if n < 0 {
			return nil, false
		}
		rest = rest[n:]
		switch number {
		case fieldPartitionKeys:
			keys.add(value)
		case fieldHashKeys:
			hashes.add(value)
		case fieldRecords:
			records = append(records, value)
		}
		if len(keys.entries)+len(hashes.entries)+len(records) > maxUserRecords {
			return nil, false
		}
	}
	unpacked := make([]userRecord, len(records))
	for i, inner := range records {
		unpacked[i] = unpack(inner, &keys, &hashes)
	}
	return unpacked, true
}

// unpack reads one user record. Whatever is wrong with it is its own misfortune alone.
func unpack(inner []byte, keys, hashes *table) userRecord {
	const absent = math.MaxUint64
	var data []byte
	found := false
	keyIndex, hashIndex := uint64(absent), uint64(absent)
	bad := userRecord{data: inner, fate: broken}
	for rest := inner; len(rest) > 0; {
		number, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return bad
		}
		rest = rest[n:]
		switch {
		case number == fieldKeyIndex && kind == protowire.VarintType:
			keyIndex, n = protowire.ConsumeVarint(rest)
		case number == fieldHashIndex && kind == protowire.VarintType:
			hashIndex, n = protowire.ConsumeVarint(rest)
		case number == fieldData && kind == protowire.BytesType:
			data, n = protowire.ConsumeBytes(rest)
			found = true
		default:
			n = protowire.ConsumeFieldValue(number, kind, rest)
		}
		if n < 0 {
			return bad
		}
		rest = rest[n:]
	}
	key, ok := keys.at(keyIndex)
	if !found || !ok {
		return bad
	}
	route := key
	if hashIndex != absent {
		if route, ok = hashes.at(hashIndex); !ok {
			return bad
		}
	}
	switch route.fate {
	case broken:
		return bad
	case foreign:
		return userRecord{fate: foreign}
	}
	return userRecord{data: data[:len(data):len(data)], key: key.text}
}

// table is one of an aggregate's two tables of keys. What a key means for the shard is found out
// once, however many records name it.
type table struct {
	shard    cloud.HashRange
	explicit bool
	entries  []tableEntry
}

type tableEntry struct {
	raw   []byte
	text  string
	fate  fate
	known bool
}

func (t *table) add(raw []byte) { t.entries = append(t.entries, tableEntry{raw: raw}) }

func (t *table) at(index uint64) (*tableEntry, bool) {
	if index >= uint64(len(t.entries)) {
		return nil, false
	}
	e := &t.entries[index]
	if e.known {
		return e, true
	}
	e.known, e.text = true, string(e.raw)
	hash, ok := cloud.HashOf(e.raw), true
	if t.explicit {
		hash, ok = cloud.ParseHash(e.text)
	}
	switch {
	case !ok:
		e.fate = broken
	case !t.shard.Holds(hash):
		e.fate = foreign
	}
	return e, true
}
