package kinesis

import (
	"bytes"
	"context"
	"crypto/md5" // the checksum of the aggregation format
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"google.golang.org/protobuf/encoding/protowire"

	cloud "github.com/millstream/millstream/cloud/aws"
	"github.com/millstream/millstream/cloud/retry"
)

// Many rows travel in one record, in the format of the Kinesis Producer Library (aggregation-format.md in
// awslabs/amazon-kinesis-producer): four magic bytes, a protobuf message, its MD5.
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
//	}
//
// Rows share a record when their partition keys belong to one shard, so that a group's rows stay
// together. Readers drop a row whose hash key is not of the shard in which they find it. The library
// therefore sends records again that a reshard has led astray; here every row bears its record's explicit
// hash key, which is of whatever shard the record is in: none can be dropped.
const (
	fieldPartitionKeys = 1
	fieldHashKeys      = 2
	fieldRecords       = 3

	fieldKeyIndex  = 1
	fieldHashIndex = 2
	fieldData      = 3

	// packedSize is how large an aggregate grows: two of the 25 KB units that the service bills, as the
	// library's own default.
	packedSize = 50 << 10
	// An aggregate's magic bytes, checksum, explicit hash key and its tag; and what a row needs beside its
	// data and key.
	aggregateOverhead = 4 + md5.Size + 2 + 39
	rowOverhead       = 20

	// relistAfter is the least time between two listings of the shards.
	relistAfter = 10 * time.Second
)

var aggregateMagic = []byte{0xF3, 0x89, 0x9A, 0xC2}

// shardMap knows which hash keys the open shards take. Safe for concurrent use.
type shardMap struct {
	p *putter

	mu     sync.Mutex
	shards []shardRange // by range
	listed time.Time
	stale  bool // a record went to another shard than the map says
}

type shardRange struct {
	name string
	cloud.HashRange
}

// newShardMap lists the shards.
func newShardMap(ctx context.Context, p *putter) (*shardMap, error) {
	m := &shardMap{p: p}
	shards, err := m.list(ctx)
	m.shards, m.listed = shards, time.Now()
	return m, err
}

// list reads all pages of ListShards, whose open shards share all hash keys between them.
func (m *shardMap) list(ctx context.Context) ([]shardRange, error) {
	var shards []shardRange
	in := &awskinesis.ListShardsInput{StreamName: m.p.stream.NameOnly(), StreamARN: m.p.stream.ARN}
	for n := 1; ; {
		bounded, cancel := context.WithTimeout(ctx, callTimeout)
		out, err := m.p.api.ListShards(bounded, in, once)
		cancel()
		if err != nil {
			if ctx.Err() != nil || cloud.Classify(err) == cloud.Permanent || n == 5 {
				return nil, err
			}
			if err := retry.Sleep(ctx, retry.Backoff(n)); err != nil {
				return nil, err
			}
			n++
			continue
		}
		for i := range out.Shards {
			s := &out.Shards[i]
			if s.SequenceNumberRange != nil && s.SequenceNumberRange.EndingSequenceNumber != nil {
				continue // closed
			}
			r, err := cloud.ParseHashRange(s.HashKeyRange)
			if err != nil {
				return nil, fmt.Errorf("shard %s: %w", aws.ToString(s.ShardId), err)
			}
			shards = append(shards, shardRange{aws.ToString(s.ShardId), r})
		}
		if aws.ToString(out.NextToken) == "" {
			break
		}
		in = &awskinesis.ListShardsInput{NextToken: out.NextToken}
	}
	slices.SortFunc(shards, func(a, b shardRange) int { return bytes.Compare(a.From[:], b.From[:]) })
	return shards, nil
}

// now returns the shards as they are known. A listing that fails leaves the old ones: they only say which
// rows travel together.
func (m *shardMap) now(ctx context.Context) []shardRange {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stale && time.Since(m.listed) >= relistAfter {
		m.listed = time.Now()
		shards, err := m.list(ctx)
		if err == nil {
			m.shards, m.stale = shards, false
		} else if !errors.Is(err, context.Canceled) {
			m.p.logger.Warn("the shards cannot be listed: rows travel together as before the last reshard", "stream", m.p.stream.Name, "error", m.p.explain("ListShards", err))
		}
	}
	return m.shards
}

// went learns where a record went that was meant for a shard.
func (m *shardMap) went(meant, to string) {
	if meant == to || meant == "" || to == "" {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stale = true
}

// shardOf returns the place among shards of the one that takes a hash key.
func shardOf(shards []shardRange, h cloud.HashKey) int {
	i, found := slices.BinarySearchFunc(shards, h, func(s shardRange, h cloud.HashKey) int { return bytes.Compare(s.From[:], h[:]) })
	if !found {
		i--
	}
	return max(i, 0)
}

// packer puts the rows of one delivery into as few records as it can. The zero value, with shards, is
// ready.
type packer struct {
	shards []shardRange
	open   []aggregate // by shard
	done   []entry
}

// aggregate is a record that is being filled.
type aggregate struct {
	keys  map[string]uint64
	table []byte // of partition keys, encoded
	rows  []byte // encoded
	hash  cloud.HashKey
	first types.PutRecordsRequestEntry // sent as it is when it stays alone
	at    []int
}

func (a *aggregate) size() int { return aggregateOverhead + len(a.table) + len(a.rows) }

// add takes a row's record.
func (p *packer) add(at int, record types.PutRecordsRequestEntry) {
	key := *record.PartitionKey
	hash := cloud.HashOf([]byte(key))
	shard := shardOf(p.shards, hash)
	if p.open == nil {
		p.open = make([]aggregate, max(1, len(p.shards)))
	}
	if len(record.Data)+len(key)+rowOverhead+aggregateOverhead > packedSize {
		p.close(shard) // rows of its key stay before it
		p.done = append(p.done, entry{record: record, at: []int{at}})
		return
	}
	a := &p.open[shard]
	if a.size()+len(record.Data)+len(key)+rowOverhead > packedSize {
		p.close(shard)
	}
	if len(a.at) == 0 {
		*a = aggregate{keys: make(map[string]uint64), hash: hash, first: record}
	}
	index, known := a.keys[key]
	if !known {
		index = uint64(len(a.keys))
		a.keys[key] = index
		a.table = protowire.AppendTag(a.table, fieldPartitionKeys, protowire.BytesType)
		a.table = protowire.AppendString(a.table, key)
	}
	size := protowire.SizeTag(fieldKeyIndex) + protowire.SizeVarint(index) + protowire.SizeTag(fieldHashIndex) + protowire.SizeVarint(0) +
		protowire.SizeTag(fieldData) + protowire.SizeBytes(len(record.Data))
	a.rows = protowire.AppendTag(a.rows, fieldRecords, protowire.BytesType)
	a.rows = protowire.AppendVarint(a.rows, uint64(size))
	a.rows = protowire.AppendTag(a.rows, fieldKeyIndex, protowire.VarintType)
	a.rows = protowire.AppendVarint(a.rows, index)
	a.rows = protowire.AppendTag(a.rows, fieldHashIndex, protowire.VarintType)
	a.rows = protowire.AppendVarint(a.rows, 0)
	a.rows = protowire.AppendTag(a.rows, fieldData, protowire.BytesType)
	a.rows = protowire.AppendBytes(a.rows, record.Data)
	a.at = append(a.at, at)
}

// close ends the aggregate of a shard.
func (p *packer) close(shard int) {
	a := &p.open[shard]
	meant := ""
	if len(p.shards) > 0 {
		meant = p.shards[shard].name
	}
	switch len(a.at) {
	case 0:
	case 1:
		p.done = append(p.done, entry{record: a.first, at: a.at, shard: meant})
	default:
		hash := a.hash.String()
		data := append(make([]byte, 0, a.size()), aggregateMagic...)
		data = append(data, a.table...)
		data = protowire.AppendTag(data, fieldHashKeys, protowire.BytesType)
		data = protowire.AppendString(data, hash)
		data = append(data, a.rows...)
		sum := md5.Sum(data[len(aggregateMagic):])
		p.done = append(p.done, entry{at: a.at, shard: meant, record: types.PutRecordsRequestEntry{
			Data: append(data, sum[:]...), PartitionKey: a.first.PartitionKey, ExplicitHashKey: &hash,
		}})
	}
	*a = aggregate{}
}

// entries returns the records, and ends the packer.
func (p *packer) entries() []entry {
	for shard := range p.open {
		p.close(shard)
	}
	return p.done
}
