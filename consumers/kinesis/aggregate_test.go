package kinesis

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	cloud "github.com/millstream/millstream/cloud/aws"
	"github.com/millstream/millstream/consumers"
	fake "github.com/millstream/millstream/fakes/kinesis"
	"github.com/millstream/millstream/stream"
)

var everything = cloud.HashRange{To: cloud.HashKey(bytes.Repeat([]byte{0xFF}, 16))}

// seal puts magic and checksum around an aggregate's message.
func seal(message []byte) []byte {
	sum := md5.Sum(message)
	return slices.Concat(aggregateMagic, message, sum[:])
}

func field(dst []byte, number protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(dst, number, protowire.BytesType), value)
}

func varint(dst []byte, number protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(dst, number, protowire.VarintType), value)
}

// user is a well-formed user record.
func user(key uint64, data string) []byte { return field(varint(nil, 1, key), 3, []byte(data)) }

func TestDeaggregate(t *testing.T) {
	keys := field(field(nil, 1, []byte("a")), 1, []byte("b"))
	low := cloud.HashRange{To: cloud.HashKey{0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}}
	// MD5("a") = 0cc1…, in the lower half; MD5("b") = 92eb…, in the upper.
	for _, c := range []struct {
		name  string
		data  []byte
		shard cloud.HashRange
		want  string // "data:key" kept, "-" foreign, "!" broken; "plain" for no aggregate
	}{
		{"two", seal(field(field(keys, 3, user(0, "x")), 3, user(1, "y"))), everything, "x:a y:b"},
		{"tables behind the records", seal(append(field(field(nil, 3, user(0, "x")), 3, user(1, "y")), keys...)), everything, "x:a y:b"},
		{"empty data", seal(field(keys, 3, user(0, ""))), everything, ":a"},
		{"no records", seal(keys), everything, ""},
		{"unknown fields", seal(varint(field(keys, 3, varint(field(user(0, "x"), 4, []byte("tag")), 9, 1)), 12, 5)), everything, "x:a"},
		{"foreign", seal(field(field(keys, 3, user(0, "x")), 3, user(1, "y"))), low, "x:a -"},
		{"explicit hash key", seal(field(field(field(keys, 2, []byte("0")), 3, varint(user(1, "y"), 2, 0)), 3, user(1, "z"))), low, "y:b -"},
		{"explicit hash key elsewhere", seal(field(field(keys, 2, []byte("340282366920938463463374607431768211455")), 3, varint(user(0, "x"), 2, 0))), low, "-"},
		{"hash key too large", seal(field(field(keys, 2, []byte("340282366920938463463374607431768211456")), 3, varint(user(0, "x"), 2, 0))), everything, "!"},
		{"hash key no number", seal(field(field(keys, 2, []byte("-1")), 3, varint(user(0, "x"), 2, 0))), everything, "!"},
		{"key index beyond", seal(field(field(keys, 3, user(2, "x")), 3, user(1, "y"))), everything, "! y:b"},
		{"key index huge", seal(field(keys, 3, user(1<<63, "x"))), everything, "!"},
		{"hash index beyond", seal(field(field(keys, 3, varint(user(0, "x"), 2, 0)), 3, user(1, "y"))), everything, "! y:b"},
		{"no key", seal(field(field(keys, 3, field(nil, 3, []byte("x"))), 3, user(1, "y"))), everything, "! y:b"},
		{"no data", seal(field(field(keys, 3, varint(nil, 1, 0)), 3, user(1, "y"))), everything, "! y:b"},
		{"torn user record", seal(field(field(keys, 3, user(0, "long")[:4]), 3, user(1, "y"))), everything, "! y:b"},
		{"torn message", seal(field(keys, 3, user(0, "x"))[:8]), everything, "plain"},
		{"wrong checksum", append(seal(field(keys, 3, user(0, "x"))), 0), everything, "plain"},
		{"no magic", []byte(`{"a":1,"b":"a plain record that is long enough"}`), everything, "plain"},
		{"magic alone", aggregateMagic, everything, "plain"},
		{"empty", nil, everything, "plain"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := show(deaggregate(c.data, c.shard)); got != c.want {
				t.Fatalf("got %q, want %q", got, c.want)
			}
		})
	}
}

func show(records []userRecord, ok bool) string {
	if !ok {
		return "plain"
	}
	var s []string
	for _, r := range records {
		switch r.fate {
		case foreign:
			s = append(s, "-")
		case broken:
			s = append(s, "!")
		default:
			s = append(s, string(r.data)+":"+r.key)
		}
	}
	return strings.Join(s, " ")
}

// What an aggregate unfolds to is bounded.
func TestDeaggregateBound(t *testing.T) {
	message := field(nil, 1, []byte("k"))
	for range maxUserRecords - 1 {
		message = field(message, 3, user(0, ""))
	}
	if records, ok := deaggregate(seal(message), everything); !ok || len(records) != maxUserRecords-1 {
		t.Fatal("the largest aggregate was refused")
	}
	if _, ok := deaggregate(seal(field(message, 3, user(0, ""))), everything); ok {
		t.Fatal("one more was not")
	}
}

// Whatever the bytes, nothing crashes, and what is kept lies within the record.
func FuzzDeaggregate(f *testing.F) {
	f.Add([]byte("{}"), true)
	f.Add(fake.Aggregate([]fake.UserRecord{{PartitionKey: "a", Data: []byte("x")}, {PartitionKey: "b", ExplicitHashKey: "17", Data: []byte("y")}}), false)
	f.Add(field(field(nil, 1, []byte("a")), 3, user(0, "x")), true)
	f.Add(field(field(nil, 2, []byte("7")), 3, varint(user(0, "x"), 2, 0)), true)
	f.Fuzz(func(t *testing.T, data []byte, sealed bool) {
		if sealed {
			data = seal(data)
		}
		before := bytes.Clone(data)
		records, ok := deaggregate(data, everything)
		if !ok && records != nil {
			t.Fatal("records of no aggregate")
		}
		total := 0
		for _, r := range records {
			total += len(r.data)
			if r.fate == foreign {
				t.Fatal("foreign to a shard that takes everything")
			}
		}
		if total > len(data) {
			t.Fatalf("%d bytes out of %d", total, len(data))
		}
		if !bytes.Equal(before, data) {
			t.Fatal("the record was modified")
		}
	})
}

// Round trip through the fake's independent writer.
func TestDeaggregateRandom(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var in []fake.UserRecord
		var want []string
		for i := range rng.IntN(200) {
			u := fake.UserRecord{PartitionKey: fmt.Sprint("key", rng.IntN(10)), Data: fmt.Append(nil, i)}
			if rng.IntN(2) == 0 {
				u.ExplicitHashKey = fmt.Sprint(rng.Uint64())
			}
			in = append(in, u)
			want = append(want, string(u.Data)+":"+u.PartitionKey)
		}
		if got := show(deaggregate(fake.Aggregate(in), everything)); got != strings.Join(want, " ") {
			t.Fatalf("seed %d: %s", seed, got)
		}
	}
}

// aggregate stores user records from … from+n-1 as one Kinesis record.
func (b *bed) aggregate(from, n int) (data []string) {
	b.Helper()
	var us []fake.UserRecord
	for i := from; i < from+n; i++ {
		us = append(us, fake.UserRecord{PartitionKey: fmt.Sprint("k", i), Data: fmt.Append(nil, i)})
		data = append(data, fmt.Sprint(i))
	}
	b.put("k", string(fake.Aggregate(us)))
	return data
}

// Plain records and aggregates, one of them cut by the end of a fetch: every position resumes behind
// its record, and nothing comes twice or is missing.
func TestAggregatesResumeAnywhere(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		want := slices.Concat(b.aggregate(0, 5), b.puts(5, 2), b.aggregate(7, 1), b.aggregate(8, 4), b.puts(12, 1))
		b.do(b.server.Split("s", shard0))
		s := b.source(Options{})
		if err := checkResume(b.Context(), s, want); err != nil {
			b.Fatal(err)
		}
		if c := s.Counters(); c.Deaggregated == 0 || c.Foreign != 0 || c.Broken != 0 {
			b.Fatalf("%+v", c)
		}
		// The negative control: a driver that ignores the sub-sequence is caught.
		if err := checkResume(b.Context(), wholeRecords{s}, want); err == nil {
			b.Fatal("a source that resumes behind whole Kinesis records passed")
		}
	})
}

// wholeRecords is a Source that forgets where in an aggregate it was.
type wholeRecords struct{ consumers.Source }

func (w wholeRecords) Open(ctx context.Context, p string, from stream.Position, tip string) (consumers.Reader, error) {
	from.Number = 0
	return w.Source.Open(ctx, p, from, tip)
}

// checkResume reads the first shard, resumes behind each of its records, and compares.
func checkResume(ctx context.Context, s consumers.Source, want []string) error {
	all, err := readAll(ctx, s, stream.Position{})
	if err != nil {
		return err
	}
	if !slices.Equal(texts(all), want) {
		return fmt.Errorf("got %q, want %q", texts(all), want)
	}
	seen := make(map[stream.Position]bool)
	for i, r := range all {
		if seen[r.Position] {
			return fmt.Errorf("two records at %s", r.Position)
		}
		seen[r.Position] = true
		rest, err := readAll(ctx, s, r.Position)
		if err != nil {
			return err
		}
		if !slices.Equal(texts(rest), want[i+1:]) {
			return fmt.Errorf("behind %q at %s: got %q", r.Data, r.Position, texts(rest))
		}
	}
	return nil
}

func readAll(ctx context.Context, s consumers.Source, from stream.Position) (all []stream.Record, err error) {
	r, err := s.Open(ctx, shard0, from, "")
	if err != nil {
		return nil, err
	}
	for {
		f, err := r.Read(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, f.Records...)
		if n := len(f.Records); n > 0 && f.Next != f.Records[n-1].Position && f.Next.Number != 0 {
			return nil, fmt.Errorf("next %s behind a record at %s", f.Next, f.Records[n-1].Position)
		}
		if f.End != nil {
			return all, nil
		}
	}
}

// An aggregate larger than a fetch is delivered in parts, and the iterator may expire between them.
func TestAggregateLargerThanFetch(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		n := 2*maxFetch + 5
		want := b.aggregate(0, n)
		s := b.source(Options{})
		r := b.open(s, shard0, stream.Position{}, "")
		first := b.fetch(r)
		if len(first.Records) != maxFetch || first.Next.Number != maxFetch {
			b.Fatalf("%d records, next %s", len(first.Records), first.Next)
		}
		b.server.ExpireIterators()
		b.want(append(first.Records, b.read(r, n-maxFetch)...), want...)
		b.want(b.read(b.open(s, shard0, first.Next, ""), n-maxFetch), want[maxFetch:]...)
		if c := s.Counters(); c.Deaggregated != 1 || c.UserRecords != int64(2*n-maxFetch) {
			b.Fatalf("%+v", c)
		}
	})
}

// A record with the magic and a wrong checksum is a plain record; a broken user record comes as its
// raw bytes, so that it is accounted for; a foreign one is dropped, counted, and still has an index.
func TestStrangeAggregates(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		b.do(b.server.CreateStream("two", 2))
		keys := field(field(nil, 1, []byte("a")), 1, []byte("b"))
		broken := varint(nil, 1, 0)
		blob := seal(field(field(field(field(keys, 3, user(1, "foreign")), 3, broken), 3, user(0, "mine")), 3, user(1, "foreign")))
		torn := append(slices.Clone(blob), 1)
		b.do(b.server.PutBatch("two", []fake.Record{{PartitionKey: "a", Data: blob}, {PartitionKey: "a", Data: torn}}))
		s := b.source(Options{Stream: "two"})
		records := b.read(b.open(s, shard0, stream.Position{}, ""), 3)
		b.want(records, string(broken), "mine", string(torn))
		if records[0].Position.Number != 2 || records[1].Position.Number != 3 || records[2].Position.Number != 0 {
			b.Fatalf("positions %v %v %v", records[0].Position, records[1].Position, records[2].Position)
		}
		if c := s.Counters(); c.Foreign != 2 || c.Broken != 1 || c.Deaggregated != 1 {
			b.Fatalf("%+v", c)
		}
	})
}

// The negative control of TestReshard: children without their parents are noticed.
func TestParentsMatter(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		b.do(b.server.CreateStream("two", 2))
		b.do(b.server.Merge("two", shardName(0), shardName(1)))
		s := b.source(Options{Stream: "two"})
		if err := checkParents(b.Context(), s); err != nil {
			b.Fatal(err)
		}
		if err := checkParents(b.Context(), orphans{s}); err == nil {
			b.Fatal("a source that leaves out the adjacent parent passed")
		}
	})
}

// checkParents wants the merged shard to name both parents, in the listing and in their ends.
func checkParents(ctx context.Context, s consumers.Source) error {
	ps, err := s.Partitions(ctx)
	if err != nil {
		return err
	}
	both := []string{shardName(0), shardName(1)}
	if !slices.ContainsFunc(ps, func(p stream.Partition) bool { return p.Name == shardName(2) && slices.Equal(p.Parents, both) }) {
		return fmt.Errorf("listed %v", ps)
	}
	for _, parent := range both {
		r, err := s.Open(ctx, parent, stream.Position{}, "")
		if err != nil {
			return err
		}
		var f consumers.Fetch
		for f.End == nil {
			if f, err = r.Read(ctx); err != nil {
				return err
			}
		}
		if len(f.End.Children) != 1 || !slices.Equal(f.End.Children[0].Parents, both) {
			return fmt.Errorf("%s ended with %v", parent, f.End.Children)
		}
	}
	return nil
}

type orphans struct{ *Source }

func (o orphans) Partitions(ctx context.Context) ([]stream.Partition, error) {
	ps, err := o.Source.Partitions(ctx)
	for i := range ps {
		ps[i].Parents = ps[i].Parents[:min(1, len(ps[i].Parents))]
	}
	return ps, err
}

// A closed shard's children are looked up when the reply does not say who they are.
func TestChildrenNotTold(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		b.do(b.server.CreateStream("two", 2))
		b.do(b.server.Merge("two", shardName(0), shardName(1)))
		s := b.source(Options{Stream: "two"})
		children, err := s.children(b.Context(), shardName(0), nil)
		b.do(err)
		if len(children) != 1 || !slices.Equal(children[0].Parents, []string{shardName(0), shardName(1)}) {
			b.Fatalf("%v", children)
		}
		b.server.Inject(fake.Fault{Operation: "ListShards", Code: fake.ExpiredToken})
		if _, err := s.children(b.Context(), shardName(0), nil); err == nil || errors.Is(err, stream.ErrPartitionGone) {
			b.Fatal("an end without its children was reported after an error")
		}
	})
}
