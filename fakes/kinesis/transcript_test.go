package kinesis_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"os"
	"sort"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/millstream/millstream/fakes/kinesis"
)

// A transcript is what a fixed script of calls through the official client
// observes, without what may differ between two right servers (times, sequence
// numbers, ARNs, messages). The fake's is kept in testdata, and with the build
// tag integration it is compared with that of independent servers, so that the
// fake cannot drift into our own misunderstanding of the service.
type transcript struct {
	t      testing.TB
	client *sdk.Client
	prefix string // of stream names, so that a server may be used again
	lines  []string
}

func (tr *transcript) log(format string, args ...any) {
	tr.lines = append(tr.lines, fmt.Sprintf(format, args...))
}

// section is a part of the script. Servers differ in what they have, so each is
// compared alone.
type section struct {
	name string
	run  func(tr *transcript, stream string)
}

var sections = []section{
	{"topology", topology},
	{"routing", routing},
	{"reading", reading},
	{"positions", positions},
	{"timestamps", timestamps},
	{"split", split},
	{"merge", merge},
	{"child shards", childShards},
	{"resharding by count", updateShardCount},
	{"shard filters", shardFilters},
	{"pages", pages},
	{"consumers", consumers},
	{"refusals", refusals},
	{"refusals by arn", refusalsByARN},
}

// record runs one section against a server.
func record(t testing.TB, client *sdk.Client, prefix string, s section) string {
	t.Helper()
	tr := &transcript{t: t, client: client, prefix: prefix}
	stream := prefix + strings.ReplaceAll(s.name, " ", "-")
	s.run(tr, stream)
	tr.active(stream) // a peer may have accepted a reshard that it should refuse
	_, err := client.DeleteStream(context.Background(), &sdk.DeleteStreamInput{StreamName: &stream, EnforceConsumerDeletion: aws.Bool(true)})
	must(t, err)
	return strings.Join(tr.lines, "\n") + "\n"
}

// recordFake runs one section against the fake in virtual time.
func recordFake(t *testing.T, prefix string, s section) (text string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		server, client := inMemory(kinesis.Options{})
		defer server.Close()
		text = record(t, client, prefix, s)
	})
	return text
}

var update = flag.Bool("update", false, "rewrite testdata/transcript.txt")

func TestTranscript(t *testing.T) {
	var b strings.Builder
	for _, s := range sections {
		fmt.Fprintf(&b, "== %s\n%s", s.name, recordFake(t, "t-", s))
	}
	const golden = "testdata/transcript.txt"
	if *update {
		must(t, os.WriteFile(golden, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if b.String() != string(want) {
		t.Errorf("the transcript changed:\n%s", difference(string(want), b.String()))
	}
}

// difference lists the lines that only one of two texts has.
func difference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	count := map[string]int{}
	for _, l := range w {
		count[l]++
	}
	var out []string
	for _, l := range g {
		if count[l]--; count[l] < 0 {
			out = append(out, "+ "+l)
		}
	}
	for _, l := range w {
		if count[l] > 0 {
			count[l]--
			out = append(out, "- "+l)
		}
	}
	return strings.Join(out, "\n")
}

var ctx = context.Background()

// pause lets time pass: virtual time for the fake, real time only for a peer.
func pause(d time.Duration) { <-time.After(d) }

// create makes a stream and waits until it is there.
func (tr *transcript) create(stream string, shards int32) {
	tr.t.Helper()
	_, err := tr.client.CreateStream(ctx, &sdk.CreateStreamInput{StreamName: &stream, ShardCount: &shards})
	must(tr.t, err)
	tr.active(stream)
}

// active waits until a stream is ACTIVE. Servers other than ours take time.
func (tr *transcript) active(stream string) {
	tr.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		out, err := tr.client.DescribeStreamSummary(ctx, &sdk.DescribeStreamSummaryInput{StreamName: &stream})
		must(tr.t, err)
		if out.StreamDescriptionSummary.StreamStatus == types.StreamStatusActive {
			return
		}
		if time.Now().After(deadline) {
			tr.t.Fatalf("stream %s stays %s", stream, out.StreamDescriptionSummary.StreamStatus)
		}
		pause(20 * time.Millisecond)
	}
}

func (tr *transcript) shards(stream string) []types.Shard {
	tr.t.Helper()
	out, err := tr.client.ListShards(ctx, &sdk.ListShardsInput{StreamName: &stream})
	must(tr.t, err)
	sort.Slice(out.Shards, func(i, j int) bool { return *out.Shards[i].ShardId < *out.Shards[j].ShardId })
	return out.Shards
}

func (tr *transcript) logShards(shards []types.Shard) {
	for _, s := range shards {
		line := fmt.Sprintf("%s %s-%s", *s.ShardId, *s.HashKeyRange.StartingHashKey, *s.HashKeyRange.EndingHashKey)
		if s.ParentShardId != nil {
			line += " parent " + *s.ParentShardId
		}
		if s.AdjacentParentShardId != nil {
			line += " adjacent " + *s.AdjacentParentShardId
		}
		if s.SequenceNumberRange.EndingSequenceNumber != nil {
			line += " closed"
		}
		tr.log("%s", line)
	}
}

func (tr *transcript) put(stream, key, data string) (shard, sequence string) {
	tr.t.Helper()
	out, err := tr.client.PutRecord(ctx, &sdk.PutRecordInput{StreamName: &stream, PartitionKey: &key, Data: []byte(data)})
	must(tr.t, err)
	return *out.ShardId, *out.SequenceNumber
}

// read logs a shard's records.
func (tr *transcript) read(stream, shard string) []types.Record {
	tr.t.Helper()
	records, ended := drain(tr.t, tr.client, stream, shard)
	tr.log("%s: %s, ended: %v", shard, strings.Join(texts(records), " "), ended)
	return records
}

func number(s *string) *big.Int {
	n, _ := new(big.Int).SetString(aws.ToString(s), 10)
	if n == nil {
		return new(big.Int)
	}
	return n
}

// topology: the shards of new streams.
func topology(tr *transcript, stream string) {
	tr.create(stream, 3)
	tr.logShards(tr.shards(stream))
	out, err := tr.client.DescribeStream(ctx, &sdk.DescribeStreamInput{StreamName: &stream})
	must(tr.t, err)
	d := out.StreamDescription
	tr.log("%s, %d shards, more: %v, retention %d h", d.StreamStatus, len(d.Shards), *d.HasMoreShards, *d.RetentionPeriodHours)
	summary, err := tr.client.DescribeStreamSummary(ctx, &sdk.DescribeStreamSummaryInput{StreamName: &stream})
	must(tr.t, err)
	tr.log("open shards: %d", *summary.StreamDescriptionSummary.OpenShardCount)
	tr.log("arn ends in the name: %v", strings.HasSuffix(*d.StreamARN, ":stream/"+stream))
	var ranges []string
	for _, n := range []int32{1, 7, 10} {
		more := fmt.Sprintf("%s-%d", stream, n)
		tr.create(more, n)
		shards := tr.shards(more)
		last := shards[len(shards)-1]
		ranges = append(ranges, fmt.Sprintf("%d: %s-%s", n, *last.HashKeyRange.StartingHashKey, *last.HashKeyRange.EndingHashKey))
		_, err := tr.client.DeleteStream(ctx, &sdk.DeleteStreamInput{StreamName: &more})
		must(tr.t, err)
	}
	tr.log("last shard of %s", strings.Join(ranges, ", "))
}

// routing: which shard a key goes to, and what PutRecords answers.
func routing(tr *transcript, stream string) {
	tr.create(stream, 5)
	var entries []types.PutRecordsRequestEntry
	for i := range 40 {
		entries = append(entries, types.PutRecordsRequestEntry{PartitionKey: aws.String(fmt.Sprintf("key-%d-é", i)), Data: fmt.Appendf(nil, "d%d", i)})
	}
	for _, h := range []string{"0", "1", "68056473384187692692674921486353642291", "68056473384187692692674921486353642290", "340282366920938463463374607431768211455"} {
		entries = append(entries, types.PutRecordsRequestEntry{PartitionKey: aws.String("same"), ExplicitHashKey: aws.String(h), Data: []byte("h" + h)})
	}
	out, err := tr.client.PutRecords(ctx, &sdk.PutRecordsInput{StreamName: &stream, Records: entries})
	must(tr.t, err)
	tr.log("failed: %d", *out.FailedRecordCount)
	for i, r := range out.Records {
		tr.log("%s %s → %s", *entries[i].PartitionKey, aws.ToString(entries[i].ExplicitHashKey), *r.ShardId)
		if len(*r.SequenceNumber) != 56 {
			tr.log("sequence number of %d digits", len(*r.SequenceNumber))
		}
	}
	shard, _ := tr.put(stream, "one", "alone")
	tr.log("one → %s", shard)
}

// reading: records come back whole, in order, in pages.
func reading(tr *transcript, stream string) {
	tr.create(stream, 1)
	for i := range 5 {
		tr.put(stream, "k"+string(rune('a'+i)), fmt.Sprintf("r%d", i))
	}
	odd := "quote \" back \\ slash / tab \t é 😀 <&>"
	tr.put(stream, odd, "\x00\xff\n")
	records := tr.read(stream, shardID(0))
	tr.log("last key %q, data %x", *records[5].PartitionKey, records[5].Data)
	last := new(big.Int)
	increasing, timed := true, true
	for _, r := range records {
		increasing = increasing && number(r.SequenceNumber).Cmp(last) > 0
		last = number(r.SequenceNumber)
		timed = timed && time.Since(*r.ApproximateArrivalTimestamp).Abs() < time.Minute
	}
	tr.log("increasing: %v, arrived just now: %v", increasing, timed)

	iterator := iterate(tr.t, tr.client, stream, shardID(0))
	for page := 0; page < 4; page++ {
		out, err := tr.client.GetRecords(ctx, &sdk.GetRecordsInput{ShardIterator: &iterator, Limit: aws.Int32(2)})
		must(tr.t, err)
		tr.log("page %d: %d records", page, len(out.Records))
		iterator = *out.NextShardIterator
	}
	tr.put(stream, "x", "later")
	tr.log("behind the tip: %s", strings.Join(texts(get(tr.t, tr.client, iterator).Records), " "))
}

// positions: where an iterator starts.
func positions(tr *transcript, stream string) {
	tr.create(stream, 1)
	var sequences []string
	for i := range 4 {
		_, n := tr.put(stream, "k", fmt.Sprintf("r%d", i))
		sequences = append(sequences, n)
	}
	at := func(kind types.ShardIteratorType, sequence *string) {
		tr.t.Helper()
		records, _ := drainFrom(tr.t, tr.client, iterateAt(tr.t, tr.client, &sdk.GetShardIteratorInput{
			StreamName: &stream, ShardId: aws.String(shardID(0)), ShardIteratorType: kind, StartingSequenceNumber: sequence,
		}))
		tr.log("%s: %s", kind, strings.Join(texts(records), " "))
	}
	at(types.ShardIteratorTypeAtSequenceNumber, &sequences[0])
	at(types.ShardIteratorTypeAtSequenceNumber, &sequences[2])
	at(types.ShardIteratorTypeAfterSequenceNumber, &sequences[2])
	at(types.ShardIteratorTypeAfterSequenceNumber, &sequences[3])
	at(types.ShardIteratorTypeAtSequenceNumber, tr.shards(stream)[0].SequenceNumberRange.StartingSequenceNumber)
	at(types.ShardIteratorTypeTrimHorizon, nil)
	at(types.ShardIteratorTypeLatest, nil)

	latest := iterateAt(tr.t, tr.client, &sdk.GetShardIteratorInput{
		StreamName: &stream, ShardId: aws.String(shardID(0)), ShardIteratorType: types.ShardIteratorTypeLatest,
	})
	tr.put(stream, "k", "new")
	tr.log("LATEST, then a record: %s", strings.Join(texts(get(tr.t, tr.client, latest).Records), " "))
}

// timestamps: AT_TIMESTAMP between records that are a while apart.
func timestamps(tr *transcript, stream string) {
	tr.create(stream, 1)
	tr.put(stream, "k", "old")
	records := tr.read(stream, shardID(0))
	arrived := *records[0].ApproximateArrivalTimestamp
	pause(50 * time.Millisecond)
	tr.put(stream, "k", "new")
	for _, at := range []struct {
		name string
		time time.Time
	}{
		{"an hour before", arrived.Add(-time.Hour)}, {"old's", arrived}, {"after old", arrived.Add(25 * time.Millisecond)},
	} {
		records, _ := drainFrom(tr.t, tr.client, iterateAt(tr.t, tr.client, &sdk.GetShardIteratorInput{
			StreamName: &stream, ShardId: aws.String(shardID(0)), ShardIteratorType: types.ShardIteratorTypeAtTimestamp, Timestamp: aws.Time(at.time),
		}))
		tr.log("%s: %s", at.name, strings.Join(texts(records), " "))
	}
	_, err := tr.client.GetShardIterator(ctx, &sdk.GetShardIteratorInput{
		StreamName: &stream, ShardId: aws.String(shardID(0)), ShardIteratorType: types.ShardIteratorTypeAtTimestamp, Timestamp: aws.Time(time.Now().Add(time.Hour)),
	})
	tr.log("in the future: %s", code(err))
}

// lineage logs what must hold between parents and children.
func (tr *transcript) lineage(stream string) {
	tr.t.Helper()
	shards := tr.shards(stream)
	tr.logShards(shards)
	byID := map[string]types.Shard{}
	for _, s := range shards {
		byID[*s.ShardId] = s
		for _, parent := range []*string{s.ParentShardId, s.AdjacentParentShardId} {
			if parent == nil {
				continue
			}
			end := byID[*parent].SequenceNumberRange.EndingSequenceNumber
			tr.log("%s starts after %s: %v", *s.ShardId, *parent, number(s.SequenceNumberRange.StartingSequenceNumber).Cmp(number(end)) > 0)
		}
	}
}

func (tr *transcript) split(stream, shard, start string) {
	tr.t.Helper()
	_, err := tr.client.SplitShard(ctx, &sdk.SplitShardInput{StreamName: &stream, ShardToSplit: &shard, NewStartingHashKey: &start})
	must(tr.t, err)
	tr.active(stream)
}

func (tr *transcript) merge(stream, shard, adjacent string) {
	tr.t.Helper()
	_, err := tr.client.MergeShards(ctx, &sdk.MergeShardsInput{StreamName: &stream, ShardToMerge: &shard, AdjacentShardToMerge: &adjacent})
	must(tr.t, err)
	tr.active(stream)
}

// spread puts n records under different keys and logs where they went.
func (tr *transcript) spread(stream, name string, n int) {
	tr.t.Helper()
	for i := range n {
		shard, _ := tr.put(stream, fmt.Sprintf("key-%d", i), fmt.Sprintf("%s%d", name, i))
		tr.log("%s%d → %s", name, i, shard)
	}
}

const half = "170141183460469231731687303715884105728"

// split: a reader finds everything, and the end of the parent.
func split(tr *transcript, stream string) {
	tr.create(stream, 1)
	tr.spread(stream, "a", 6)
	tip := iterateAt(tr.t, tr.client, &sdk.GetShardIteratorInput{
		StreamName: &stream, ShardId: aws.String(shardID(0)), ShardIteratorType: types.ShardIteratorTypeLatest,
	})
	tr.split(stream, shardID(0), half)
	tr.spread(stream, "b", 6)
	tr.lineage(stream)
	records := tr.read(stream, shardID(0))
	tr.read(stream, shardID(1))
	tr.read(stream, shardID(2))
	rest, ended := drainFrom(tr.t, tr.client, tip)
	tr.log("at the tip when it closed: %d records, ended: %v", len(rest), ended)
	last := records[len(records)-1]
	rest, ended = drainFrom(tr.t, tr.client, iterateAt(tr.t, tr.client, &sdk.GetShardIteratorInput{
		StreamName: &stream, ShardId: aws.String(shardID(0)), ShardIteratorType: types.ShardIteratorTypeAfterSequenceNumber, StartingSequenceNumber: last.SequenceNumber,
	}))
	tr.log("after the last record: %d records, ended: %v", len(rest), ended)
	tr.log("ending number is behind the last record: %v",
		number(tr.shards(stream)[0].SequenceNumberRange.EndingSequenceNumber).Cmp(number(last.SequenceNumber)) >= 0)
	_, err := tr.client.SplitShard(ctx, &sdk.SplitShardInput{StreamName: &stream, ShardToSplit: aws.String(shardID(1)), NewStartingHashKey: aws.String(half)})
	tr.log("split outside of the range: %s", code(err))
}

// merge: two parents, one child.
func merge(tr *transcript, stream string) {
	tr.create(stream, 3)
	tr.spread(stream, "a", 6)
	tr.merge(stream, shardID(1), shardID(2))
	tr.spread(stream, "b", 6)
	tr.lineage(stream)
	for i := range 4 {
		tr.read(stream, shardID(i))
	}
	_, err := tr.client.MergeShards(ctx, &sdk.MergeShardsInput{StreamName: &stream, ShardToMerge: aws.String(shardID(0)), AdjacentShardToMerge: aws.String(shardID(2))})
	tr.log("not adjacent: %s", code(err))
}

// childShards: what a reader is told at the end of a shard.
func childShards(tr *transcript, stream string) {
	tr.create(stream, 2)
	tr.split(stream, shardID(0), "85070591730234615865843651857942052864")
	tr.merge(stream, shardID(3), shardID(1))
	tr.lineage(stream)
	for _, shard := range []string{shardID(0), shardID(1), shardID(3)} {
		out := get(tr.t, tr.client, iterate(tr.t, tr.client, stream, shard))
		for _, child := range out.ChildShards {
			sort.Strings(child.ParentShards)
			tr.log("%s → %s of %v, %s-%s", shard, *child.ShardId, child.ParentShards, *child.HashKeyRange.StartingHashKey, *child.HashKeyRange.EndingHashKey)
		}
	}
}

// updateShardCount: the open shards afterwards; the way there is the server's.
func updateShardCount(tr *transcript, stream string) {
	tr.create(stream, 2)
	for _, target := range []int32{4, 2, 1} {
		out, err := tr.client.UpdateShardCount(ctx, &sdk.UpdateShardCountInput{StreamName: &stream, TargetShardCount: aws.Int32(target), ScalingType: types.ScalingTypeUniformScaling})
		must(tr.t, err)
		tr.log("%d → %d", *out.CurrentShardCount, *out.TargetShardCount)
		tr.active(stream)
		var ranges []string
		for _, s := range tr.shards(stream) {
			if s.SequenceNumberRange.EndingSequenceNumber == nil {
				ranges = append(ranges, *s.HashKeyRange.StartingHashKey+"-"+*s.HashKeyRange.EndingHashKey)
			}
		}
		sort.Strings(ranges)
		tr.log("%s", strings.Join(ranges, "\n"))
	}
	_, err := tr.client.UpdateShardCount(ctx, &sdk.UpdateShardCountInput{StreamName: &stream, TargetShardCount: aws.Int32(3), ScalingType: types.ScalingTypeUniformScaling})
	tr.log("more than double: %s", code(err))
}

// shardFilters: ListShards by time and place. kinesis-local knows times to about a
// second.
func shardFilters(tr *transcript, stream string) {
	tr.create(stream, 2)
	pause(1500 * time.Millisecond)
	before := time.Now()
	pause(1500 * time.Millisecond)
	tr.split(stream, shardID(0), "85070591730234615865843651857942052864")
	pause(1500 * time.Millisecond)
	for _, f := range []types.ShardFilter{
		{Type: types.ShardFilterTypeAtLatest},
		{Type: types.ShardFilterTypeAtTrimHorizon},
		{Type: types.ShardFilterTypeFromTrimHorizon},
		{Type: types.ShardFilterTypeAfterShardId, ShardId: aws.String(shardID(1))},
		{Type: types.ShardFilterTypeAtTimestamp, Timestamp: &before},
		{Type: types.ShardFilterTypeAtTimestamp, Timestamp: aws.Time(time.Now())},
		{Type: types.ShardFilterTypeFromTimestamp, Timestamp: aws.Time(time.Now())},
		{Type: types.ShardFilterTypeFromTimestamp, Timestamp: aws.Time(time.Now().Add(-time.Hour))},
	} {
		out, err := tr.client.ListShards(ctx, &sdk.ListShardsInput{StreamName: &stream, ShardFilter: &f})
		must(tr.t, err)
		var ids []string
		for _, s := range out.Shards {
			ids = append(ids, strings.TrimPrefix(*s.ShardId, "shardId-00000000000"))
		}
		sort.Strings(ids)
		tr.log("%s: %s", f.Type, strings.Join(ids, " "))
	}
}

// pages: ListShards in parts.
func pages(tr *transcript, stream string) {
	tr.create(stream, 5)
	in := &sdk.ListShardsInput{StreamName: &stream, MaxResults: aws.Int32(2)}
	for page := 0; page < 5; page++ {
		out, err := tr.client.ListShards(ctx, in)
		must(tr.t, err)
		var ids []string
		for _, s := range out.Shards {
			ids = append(ids, *s.ShardId)
		}
		tr.log("page %d: %s", page, strings.Join(ids, " "))
		if out.NextToken == nil {
			break
		}
		in = &sdk.ListShardsInput{NextToken: out.NextToken, MaxResults: aws.Int32(2)}
	}
	out, err := tr.client.ListShards(ctx, &sdk.ListShardsInput{StreamName: &stream, ExclusiveStartShardId: aws.String(shardID(2))})
	must(tr.t, err)
	tr.log("after the third: %d", len(out.Shards))
}

// consumers: registration of enhanced fan-out.
func consumers(tr *transcript, stream string) {
	tr.create(stream, 1)
	out, err := tr.client.DescribeStreamSummary(ctx, &sdk.DescribeStreamSummaryInput{StreamName: &stream})
	must(tr.t, err)
	arn := out.StreamDescriptionSummary.StreamARN
	registered, err := tr.client.RegisterStreamConsumer(ctx, &sdk.RegisterStreamConsumerInput{StreamARN: arn, ConsumerName: aws.String("fan")})
	must(tr.t, err)
	tr.log("%s", *registered.Consumer.ConsumerName)
	_, err = tr.client.RegisterStreamConsumer(ctx, &sdk.RegisterStreamConsumerInput{StreamARN: arn, ConsumerName: aws.String("fan")})
	tr.log("again: %s", code(err))
	consumer := registered.Consumer.ConsumerARN
	tr.log("arn names stream and consumer: %v", strings.HasPrefix(*consumer, *arn+"/consumer/fan:"))
	for deadline := time.Now().Add(10 * time.Second); ; {
		described, err := tr.client.DescribeStreamConsumer(ctx, &sdk.DescribeStreamConsumerInput{ConsumerARN: consumer})
		must(tr.t, err)
		if described.ConsumerDescription.ConsumerStatus == types.ConsumerStatusActive {
			break
		}
		if time.Now().After(deadline) {
			tr.t.Fatal("the consumer does not become ACTIVE")
		}
		pause(20 * time.Millisecond)
	}
	byName, err := tr.client.DescribeStreamConsumer(ctx, &sdk.DescribeStreamConsumerInput{StreamARN: arn, ConsumerName: aws.String("fan")})
	must(tr.t, err)
	tr.log("by name the same: %v", *byName.ConsumerDescription.ConsumerARN == *consumer)
	list, err := tr.client.ListStreamConsumers(ctx, &sdk.ListStreamConsumersInput{StreamARN: arn})
	must(tr.t, err)
	tr.log("consumers: %d", len(list.Consumers))
	_, err = tr.client.DeleteStream(ctx, &sdk.DeleteStreamInput{StreamName: &stream})
	tr.log("deleting the stream: %s", code(err))
	_, err = tr.client.DescribeStreamConsumer(ctx, &sdk.DescribeStreamConsumerInput{StreamARN: arn, ConsumerName: aws.String("nobody")})
	tr.log("unknown: %s", code(err))
	_, err = tr.client.DeregisterStreamConsumer(ctx, &sdk.DeregisterStreamConsumerInput{ConsumerARN: consumer})
	tr.log("deregister: %s", code(err))
}

// refuse logs the answer to a call that must fail.
func (tr *transcript) refuse(what string, err error) {
	status := 0
	var response *smithyhttp.ResponseError
	if errors.As(err, &response) {
		status = response.HTTPStatusCode()
	}
	tr.log("%s: %d %s", what, status, code(err))
}

// refusals: error types of bad requests.
func refusals(tr *transcript, stream string) {
	tr.create(stream, 2)
	c := tr.client
	missing := tr.prefix + "missing"
	_, err := c.CreateStream(ctx, &sdk.CreateStreamInput{StreamName: &stream, ShardCount: aws.Int32(1)})
	tr.refuse("create twice", err)
	_, err = c.CreateStream(ctx, &sdk.CreateStreamInput{StreamName: aws.String("no spaces"), ShardCount: aws.Int32(1)})
	tr.refuse("bad stream name", err)
	_, err = c.CreateStream(ctx, &sdk.CreateStreamInput{StreamName: aws.String(tr.prefix + "none"), ShardCount: aws.Int32(0)})
	tr.refuse("no shards", err)
	_, err = c.CreateStream(ctx, &sdk.CreateStreamInput{StreamName: aws.String(tr.prefix + "many"), ShardCount: aws.Int32(600)})
	tr.refuse("too many shards", err)
	_, err = c.DescribeStream(ctx, &sdk.DescribeStreamInput{StreamName: &missing})
	tr.refuse("describe what is missing", err)
	_, err = c.DeleteStream(ctx, &sdk.DeleteStreamInput{StreamName: &missing})
	tr.refuse("delete what is missing", err)
	_, err = c.ListShards(ctx, &sdk.ListShardsInput{StreamName: &missing})
	tr.refuse("list shards of what is missing", err)
	_, err = c.ListShards(ctx, &sdk.ListShardsInput{})
	tr.refuse("list shards of nothing", err)
	_, err = c.PutRecord(ctx, &sdk.PutRecordInput{StreamName: &missing, PartitionKey: aws.String("k"), Data: []byte("d")})
	tr.refuse("put into what is missing", err)

	put := func(what string, change func(*sdk.PutRecordInput)) {
		in := &sdk.PutRecordInput{StreamName: &stream, PartitionKey: aws.String("k"), Data: []byte("d")}
		change(in)
		_, err := c.PutRecord(ctx, in)
		tr.refuse(what, err)
	}
	put("empty key", func(in *sdk.PutRecordInput) { in.PartitionKey = aws.String("") })
	put("long key", func(in *sdk.PutRecordInput) { in.PartitionKey = aws.String(strings.Repeat("k", 257)) })
	put("hash key of 2^128", func(in *sdk.PutRecordInput) {
		in.ExplicitHashKey = aws.String("340282366920938463463374607431768211456")
	})
	put("hash key that is no number", func(in *sdk.PutRecordInput) { in.ExplicitHashKey = aws.String("0x10") })
	_, err = c.PutRecords(ctx, &sdk.PutRecordsInput{StreamName: &stream, Records: make([]types.PutRecordsRequestEntry, 0)})
	tr.refuse("no records", err)
	records := make([]types.PutRecordsRequestEntry, 501)
	for i := range records {
		records[i] = types.PutRecordsRequestEntry{PartitionKey: aws.String("k"), Data: []byte("d")}
	}
	_, err = c.PutRecords(ctx, &sdk.PutRecordsInput{StreamName: &stream, Records: records})
	tr.refuse("501 records", err)

	iterator := func(what string, change func(*sdk.GetShardIteratorInput)) {
		in := &sdk.GetShardIteratorInput{StreamName: &stream, ShardId: aws.String(shardID(0)), ShardIteratorType: types.ShardIteratorTypeTrimHorizon}
		change(in)
		_, err := c.GetShardIterator(ctx, in)
		tr.refuse(what, err)
	}
	_, first := tr.put(stream, "k", "d") // shard 1
	iterator("iterator type", func(in *sdk.GetShardIteratorInput) { in.ShardIteratorType = "SOMEWHERE" })
	iterator("iterator of a missing shard", func(in *sdk.GetShardIteratorInput) { in.ShardId = aws.String(shardID(9)) })
	iterator("iterator of a missing stream", func(in *sdk.GetShardIteratorInput) { in.StreamName = &missing })
	iterator("needless sequence number", func(in *sdk.GetShardIteratorInput) { in.StartingSequenceNumber = &first })
	iterator("no sequence number", func(in *sdk.GetShardIteratorInput) {
		in.ShardIteratorType = types.ShardIteratorTypeAtSequenceNumber
	})
	iterator("sequence number of another shard", func(in *sdk.GetShardIteratorInput) {
		in.ShardIteratorType, in.StartingSequenceNumber = types.ShardIteratorTypeAtSequenceNumber, &first
	})
	iterator("sequence number of nothing", func(in *sdk.GetShardIteratorInput) {
		in.ShardIteratorType, in.StartingSequenceNumber = types.ShardIteratorTypeAtSequenceNumber, aws.String("12345678901234567890123456789012345678901234567890123456")
	})
	iterator("no timestamp", func(in *sdk.GetShardIteratorInput) { in.ShardIteratorType = types.ShardIteratorTypeAtTimestamp })
	_, err = c.GetRecords(ctx, &sdk.GetRecordsInput{ShardIterator: aws.String("garbage")})
	tr.refuse("garbage for an iterator", err)
	good := iterate(tr.t, c, stream, shardID(0))
	_, err = c.GetRecords(ctx, &sdk.GetRecordsInput{ShardIterator: &good, Limit: aws.Int32(0)})
	tr.refuse("limit 0", err)

	_, err = c.SplitShard(ctx, &sdk.SplitShardInput{StreamName: &stream, ShardToSplit: aws.String(shardID(9)), NewStartingHashKey: aws.String(half)})
	tr.refuse("split a missing shard", err)
	_, err = c.SplitShard(ctx, &sdk.SplitShardInput{StreamName: &stream, ShardToSplit: aws.String(shardID(0)), NewStartingHashKey: aws.String("0")})
	tr.refuse("split at the start", err)
	tr.active(stream)
	_, err = c.SplitShard(ctx, &sdk.SplitShardInput{StreamName: &stream, ShardToSplit: aws.String(shardID(0)), NewStartingHashKey: aws.String("-1")})
	tr.refuse("split at -1", err)
	tr.active(stream)
	_, err = c.MergeShards(ctx, &sdk.MergeShardsInput{StreamName: &stream, ShardToMerge: aws.String(shardID(0)), AdjacentShardToMerge: aws.String(shardID(0))})
	tr.refuse("merge a shard with itself", err)
}

// refusalsByARN: streams named by ARN.
func refusalsByARN(tr *transcript, stream string) {
	tr.create(stream, 1)
	summary, err := tr.client.DescribeStreamSummary(ctx, &sdk.DescribeStreamSummaryInput{StreamName: &stream})
	must(tr.t, err)
	arn := *summary.StreamDescriptionSummary.StreamARN
	_, err = tr.client.PutRecord(ctx, &sdk.PutRecordInput{StreamARN: &arn, PartitionKey: aws.String("k"), Data: []byte("d")})
	tr.log("put: %s", code(err))
	out, err := tr.client.ListShards(ctx, &sdk.ListShardsInput{StreamARN: &arn})
	must(tr.t, err)
	tr.log("shards: %d", len(out.Shards))
	iterator := iterateAt(tr.t, tr.client, &sdk.GetShardIteratorInput{StreamARN: &arn, ShardId: aws.String(shardID(0)), ShardIteratorType: types.ShardIteratorTypeTrimHorizon})
	got, err := tr.client.GetRecords(ctx, &sdk.GetRecordsInput{StreamARN: &arn, ShardIterator: &iterator})
	must(tr.t, err)
	tr.log("records: %d", len(got.Records))
	_, err = tr.client.DescribeStreamSummary(ctx, &sdk.DescribeStreamSummaryInput{StreamARN: aws.String(arn + "-missing")})
	tr.refuse("missing", err)
}
