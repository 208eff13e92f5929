package kinesis

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	cloud "github.com/millstream/millstream/cloud/aws"
	fake "github.com/millstream/millstream/fakes/kinesis"
	"github.com/millstream/millstream/stream"
)

// Rows of 254 bytes fill records of 50 KB, and rows of one key stay in the key's own shard, in order.
func TestAggregate(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		b.reshard(4)
		s := b.sinkWith(Options{})
		const n = 4000
		if err := s.Deliver(b.Context(), id, rowsOf(n, 200)); err != nil {
			b.Fatal(err)
		}
		b.each(id, n)
		raw, err := b.server.Records("s")
		if err != nil {
			b.Fatal(err)
		}
		bytes := 0
		for _, r := range raw {
			if len(r.Data) > packedSize {
				b.Errorf("a record of %d bytes", len(r.Data))
			}
			bytes += len(r.Data)
		}
		if most := bytes/packedSize + 1 + 4; len(raw) > most {
			b.Errorf("%d records for %d bytes, want at most %d", len(raw), bytes, most)
		}
		open, last, shard := b.open(), make(map[string]int), make(map[string]string)
		for _, r := range b.stored() {
			var i int
			if _, err := fmt.Sscanf(string(r.Data[bytesUntil(r.Data):]), `"n":%d`, &i); err != nil {
				b.Fatal(err)
			}
			if was, ok := last[r.PartitionKey]; ok && (was > i || shard[r.PartitionKey] != r.ShardID) {
				b.Fatalf("row %d of %s in %s comes behind %d in %s", i, r.PartitionKey, r.ShardID, was, shard[r.PartitionKey])
			}
			last[r.PartitionKey], shard[r.PartitionKey] = i, r.ShardID
			if want := open[shardOf(open, cloud.HashOf([]byte(r.PartitionKey)))].name; r.ShardID != want {
				b.Fatalf("key %s is in %s, on its own it would be in %s", r.PartitionKey, r.ShardID, want)
			}
		}
	})
}

func bytesUntil(data []byte) int { return bytes.Index(data, []byte(`"n":`)) }

// reshard makes n of each of the stream's shards, a power of two.
func (b *bed) reshard(n int) {
	b.Helper()
	for open := 1; open < n; open *= 2 {
		shards, err := b.server.Shards("s")
		if err != nil {
			b.Fatal(err)
		}
		for _, sh := range shards {
			if !sh.Closed {
				if err := b.server.Split("s", sh.ID); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
}

// open returns the open shards.
func (b *bed) open() []shardRange {
	b.Helper()
	m, err := newShardMap(b.Context(), b.sink().putter)
	if err != nil {
		b.Fatal(err)
	}
	return m.shards
}

// A reshard between the listing and the call leads aggregates astray, and no row is lost: every reader
// takes a row by the hash key that it bears. The shards are listed again, once in a while.
func TestAggregateAcrossReshard(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		s := b.sinkWith(Options{})
		ids := id
		for round := range 4 {
			if round > 0 {
				b.reshard(2)
			}
			ids.Number = uint64(100 + round)
			if err := s.Deliver(b.Context(), ids, rowsOf(1000, 100)); err != nil {
				b.Fatal(err)
			}
			if n := len(b.stored()); n != 1000*(round+1) {
				b.Fatalf("after %d reshards %d rows are read, want %d", round, n, 1000*(round+1))
			}
			<-time.After(relistAfter)
		}
		ids.Number++
		if err := s.Deliver(b.Context(), ids, rowsOf(1000, 100)); err != nil || len(s.putter.shards.shards) != 8 {
			b.Errorf("%d shards are known, %v", len(s.putter.shards.shards), err)
		}
	})
}

// What the library does, rows that bear no hash key of their own, loses rows there.
func TestAggregateAcrossReshardNegative(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		b.reshard(8)
		var users []fake.UserRecord
		for i := range 100 {
			users = append(users, fake.UserRecord{PartitionKey: fmt.Sprint("key", i), Data: []byte(`{"n":1}`)})
		}
		if err := b.server.PutBatch("s", []fake.Record{{PartitionKey: "key0", Data: fake.Aggregate(users)}}); err != nil {
			b.Fatal(err)
		}
		if n := len(b.stored()); n == 0 || n > 50 {
			b.Errorf("%d rows of 100 are read", n)
		}
	})
}

// A row that fills a record does not overtake those of its key that wait for theirs to be full.
func TestAggregateOrder(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		var rows []stream.Row
		for i := range 30 {
			pad := ""
			if i%10 == 5 {
				pad = strings.Repeat("x", 60<<10)
			}
			rows = append(rows, stream.Row{Key: "k", Data: fmt.Appendf(nil, `{"n":%d,"pad":%q}`, i, pad)})
		}
		if err := b.sinkWith(Options{}).Deliver(b.Context(), id, rows); err != nil {
			b.Fatal(err)
		}
		for i, r := range b.stored() {
			if want := fmt.Sprintf(`"n":%d,`, i); !bytes.Contains(r.Data, []byte(want)) {
				b.Fatalf("%.100s stands where %s should", r.Data, want)
			}
		}
	})
}

// A row that fills a record is sent as it is, and one that is alone.
func TestAggregateLarge(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		rows := append(rowsOf(1, 60<<10), stream.Row{Key: "k", Data: []byte(`{"n":1}`)})
		if err := b.sinkWith(Options{}).Deliver(b.Context(), id, rows); err != nil {
			b.Fatal(err)
		}
		raw, err := b.server.Records("s")
		if err != nil || len(raw) != 2 || raw[0].Data[0] != '{' || raw[1].Data[0] != '{' {
			b.Fatalf("%d records, %v", len(raw), err)
		}
		b.each(id, 2)
	})
}

// Without the permission to list shards rows are records.
func TestAggregateDenied(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		b.server.Inject(fake.Fault{Operation: "ListShards", Code: "AccessDeniedException", Times: -1})
		s := b.sinkWith(Options{})
		if s.putter.shards != nil {
			b.Fatal("shards are known")
		}
		if err := s.Deliver(b.Context(), id, rowsOf(10, 0)); err != nil {
			b.Fatal(err)
		}
		b.each(id, 10)
	})
}

// Random rows of random sizes come out as they went in.
func TestPacker(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		p := packer{shards: []shardRange{{"low", cloud.HashRange{}}, {"high", cloud.HashRange{From: cloud.HashKey{0x80}}}}}
		var want [][]byte
		for i := range rnd.IntN(300) {
			data := bytes.Repeat([]byte{'x'}, 1+rnd.IntN(2000))
			if rnd.IntN(20) == 0 {
				data = bytes.Repeat([]byte{'x'}, packedSize-rnd.IntN(200))
			}
			want = append(want, data)
			p.add(i, types.PutRecordsRequestEntry{Data: data, PartitionKey: aws.String(fmt.Sprint(rnd.IntN(50)))})
		}
		seen := 0
		for _, e := range p.entries() {
			if len(e.record.Data) > packedSize {
				t.Fatalf("a record of %d bytes", len(e.record.Data))
			}
			seen += len(e.at)
			if len(e.at) == 1 {
				if !bytes.Equal(e.record.Data, want[e.at[0]]) {
					t.Fatal("a row alone has changed")
				}
				continue
			}
			message := e.record.Data[4 : len(e.record.Data)-md5.Size]
			if sum := md5.Sum(message); !bytes.HasSuffix(e.record.Data, sum[:]) {
				t.Fatal("the checksum is wrong")
			}
		}
		if seen != len(want) {
			t.Fatalf("%d rows of %d", seen, len(want))
		}
	}
}
