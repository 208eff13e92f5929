package kinesis_test

import (
	"bytes"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/millstream/millstream/fakes/kinesis"
)

func listed(t testing.TB, client *sdk.Client) string {
	t.Helper()
	out, err := client.ListShards(ctx, &sdk.ListShardsInput{StreamName: aws.String(stream)})
	must(t, err)
	var ids []string
	for _, s := range out.Shards {
		ids = append(ids, strings.TrimPrefix(*s.ShardId, "shardId-00000000000"))
	}
	return strings.Join(ids, " ")
}

// Records expire one by one, a closed shard vanishes when its last record has,
// and an iterator from before reads on at the oldest record there is.
func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := inMemory(kinesis.Options{Retention: time.Minute, IteratorLifetime: time.Hour})
		defer server.Close()
		must(t, server.CreateStream(stream, 1))
		must(t, putText(client, "a"))
		iterator := iterate(t, client, stream, shardID(0))
		pause(40 * time.Second)
		must(t, putText(client, "b"))
		pause(19 * time.Second)
		if got := texts(get(t, client, iterator).Records); len(got) != 2 {
			t.Errorf("before the retention is over: %v", got)
		}
		pause(2 * time.Second)
		if got := texts(get(t, client, iterator).Records); len(got) != 1 || got[0] != "b" {
			t.Errorf("after it: %v", got)
		}
		must(t, server.Split(stream, shardID(0)))
		if got := listed(t, client); got != "0 1 2" {
			t.Errorf("shards %q", got)
		}
		pause(time.Minute)
		if got := listed(t, client); got != "0 1 2" {
			t.Errorf("shards %q at the very end of the retention", got)
		}
		pause(time.Millisecond)
		if got := listed(t, client); got != "1 2" {
			t.Errorf("shards %q after it", got)
		}
		_, err := client.GetRecords(ctx, &sdk.GetRecordsInput{ShardIterator: &iterator})
		wantCode(t, err, kinesis.ResourceNotFound)
		_, err = client.GetShardIterator(ctx, &sdk.GetShardIteratorInput{StreamName: aws.String(stream), ShardId: aws.String(shardID(0)), ShardIteratorType: types.ShardIteratorTypeTrimHorizon})
		wantCode(t, err, kinesis.ResourceNotFound)
		out, err := client.ListShards(ctx, &sdk.ListShardsInput{StreamName: aws.String(stream)})
		must(t, err)
		if parent := aws.ToString(out.Shards[0].ParentShardId); parent != shardID(0) {
			t.Errorf("the child names %q as its parent", parent)
		}
	})
}

func TestTrim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := inMemory(kinesis.Options{})
		defer server.Close()
		must(t, server.CreateStream(stream, 1))
		must(t, putText(client, "a"))
		pause(time.Second)
		horizon := time.Now()
		must(t, putText(client, "b"))
		must(t, server.Trim(stream, horizon))
		wantStored(t, server, "b")
		must(t, server.Trim(stream, horizon.Add(-time.Hour))) // never back
		wantStored(t, server, "b")
		must(t, server.Split(stream, shardID(0)))
		pause(time.Millisecond)
		must(t, server.Trim(stream, time.Now()))
		if got := listed(t, client); got != "1 2" {
			t.Errorf("shards %q", got)
		}
	})
}

// A stream never holds much more than MaxBytes, and what goes is the oldest.
func TestMaxBytes(t *testing.T) {
	const most = 1 << 20
	server, _ := start(t, kinesis.Options{MaxBytes: most})
	must(t, server.CreateStream(stream, 4))
	for i := range 40 {
		var batch []kinesis.Record
		for j := range 100 {
			batch = append(batch, kinesis.Record{PartitionKey: fmt.Sprint(j), Data: fmt.Appendf(nil, "%04d%0996d", i*100+j, 0)})
		}
		must(t, server.PutBatch(stream, batch))
		shards, err := server.Shards(stream)
		must(t, err)
		held := 0
		for _, s := range shards {
			held += s.Records
		}
		if size := held * 1000; size > most {
			t.Fatalf("the stream holds %d bytes", size)
		}
	}
	records, err := server.Records(stream)
	must(t, err)
	// A chunk a shard is the grain: a sixteenth of MaxBytes.
	oldest := 4000
	for _, r := range records {
		var n int
		fmt.Sscanf(string(r.Data[:4]), "%d", &n)
		oldest = min(oldest, n)
	}
	if len(records) < 600 || 4000-oldest > 1400 {
		t.Errorf("%d records are left, the oldest %d of 4000", len(records), oldest)
	}
	shards, err := server.Shards(stream)
	must(t, err)
	for _, s := range shards {
		if s.Trimmed == 0 {
			t.Errorf("%s lost nothing", s.ID)
		}
	}
}

// A page ends at 10,000 records or 10 MiB, and the reader knows whether more
// follows.
func TestPageLimits(t *testing.T) {
	server, client := start(t, kinesis.Options{})
	must(t, server.CreateStream(stream, 1))
	small := make([]kinesis.Record, 10_001)
	for i := range small {
		small[i] = kinesis.Record{PartitionKey: "k", Data: []byte("d")}
	}
	must(t, server.PutBatch(stream, small))
	out := get(t, client, iterate(t, client, stream, shardID(0)))
	if len(out.Records) != 10_000 || *out.MillisBehindLatest < 1 {
		t.Errorf("%d records, %d ms behind", len(out.Records), *out.MillisBehindLatest)
	}
	out = get(t, client, *out.NextShardIterator)
	if len(out.Records) != 1 || *out.MillisBehindLatest != 0 {
		t.Errorf("then %d records, %d ms behind", len(out.Records), *out.MillisBehindLatest)
	}
	tip := *out.NextShardIterator
	for range 12 {
		_, _, err := server.Put(stream, "k", make([]byte, 1<<20-1))
		must(t, err)
	}
	for _, want := range []int{10, 2, 0} {
		out = get(t, client, tip)
		if len(out.Records) != want {
			t.Errorf("%d large records, want %d", len(out.Records), want)
		}
		tip = *out.NextShardIterator
	}
}

// A record larger than a page's limit still comes, alone.
func TestLargestRecord(t *testing.T) {
	server, client := start(t, kinesis.Options{MaxRecordBytes: 10 << 20})
	must(t, server.CreateStream(stream, 1))
	data := bytes.Repeat([]byte{7}, 10<<20-1)
	_, err := client.PutRecord(ctx, &sdk.PutRecordInput{StreamName: aws.String(stream), PartitionKey: aws.String("k"), Data: data})
	must(t, err)
	must(t, putText(client, "b"))
	out := get(t, client, iterate(t, client, stream, shardID(0)))
	if len(out.Records) != 1 || !bytes.Equal(out.Records[0].Data, data) {
		t.Errorf("%d records", len(out.Records))
	}
	_, err = client.PutRecord(ctx, &sdk.PutRecordInput{StreamName: aws.String(stream), PartitionKey: aws.String("k"), Data: append(data, 0)})
	wantCode(t, err, "ValidationException")
}

// Sequence numbers pass the checks of the Kinesis Client Library's
// SequenceNumberValidator: 186 bits, version 2 in bits 0–3 and 184–187, the shard
// in bits 4–35.
func TestSequenceNumberLayout(t *testing.T) {
	server, _ := start(t, kinesis.Options{})
	must(t, server.CreateStream(stream, 20))
	for i := range 200 {
		id, text, err := server.Put(stream, fmt.Sprint(i), nil)
		must(t, err)
		n, ok := new(big.Int).SetString(text, 10)
		if !ok || len(text) != 56 || n.BitLen() != 186 {
			t.Fatalf("%q is not a sequence number", text)
		}
		field := func(shift, bits uint) uint64 {
			mask := new(big.Int).SetUint64(1<<bits - 1)
			return mask.And(mask, new(big.Int).Rsh(n, shift)).Uint64()
		}
		if field(0, 4) != 2 || field(184, 4) != 2 || id != shardID(int(field(4, 32))) {
			t.Fatalf("%s in %s: versions %d and %d, shard %d", text, id, field(0, 4), field(184, 4), field(4, 32))
		}
	}
}

// Numbers only grow: across generations of shards within one second, and when a
// stream is deleted and created again.
func TestSequenceNumbersOnlyGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // no time passes at all
		server, _ := inMemory(kinesis.Options{})
		defer server.Close()
		last := new(big.Int)
		put := func() {
			t.Helper()
			_, text, err := server.Put(stream, "k", nil)
			must(t, err)
			n := number(&text)
			if n.Cmp(last) <= 0 {
				t.Fatalf("%s after %s", n, last)
			}
			last = n
		}
		for range 3 {
			must(t, server.CreateStream(stream, 1))
			put()
			for range 5 {
				shards, err := server.Shards(stream)
				must(t, err)
				for _, s := range shards {
					if !s.Closed {
						must(t, server.Split(stream, s.ID))
					}
				}
				put()
			}
			_, err := newClient("http://kinesis.test", func(o *sdk.Options) { o.HTTPClient = server.Client() }).
				DeleteStream(ctx, &sdk.DeleteStreamInput{StreamName: aws.String(stream)})
			must(t, err)
		}
	})
}

// With Transition a stream passes through the service's states.
func TestTransitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := inMemory(kinesis.Options{Transition: 10 * time.Second})
		defer server.Close()
		_, err := client.CreateStream(ctx, &sdk.CreateStreamInput{StreamName: aws.String(stream), ShardCount: aws.Int32(1)})
		must(t, err)
		status := func(want types.StreamStatus) {
			t.Helper()
			out, err := client.DescribeStreamSummary(ctx, &sdk.DescribeStreamSummaryInput{StreamName: aws.String(stream)})
			must(t, err)
			if got := out.StreamDescriptionSummary.StreamStatus; got != want {
				t.Errorf("status %s, want %s", got, want)
			}
		}
		status(types.StreamStatusCreating)
		wantCode(t, putText(client, "early"), kinesis.ResourceNotFound)
		_, err = client.ListShards(ctx, &sdk.ListShardsInput{StreamName: aws.String(stream)})
		wantCode(t, err, "ResourceInUseException")
		must(t, sdk.NewStreamExistsWaiter(client).Wait(ctx, &sdk.DescribeStreamInput{StreamName: aws.String(stream)}, time.Minute))
		status(types.StreamStatusActive)
		must(t, putText(client, "a"))
		must(t, server.Split(stream, shardID(0)))
		status(types.StreamStatusUpdating)
		must(t, putText(client, "b"))
		wantCode(t, server.Split(stream, shardID(1)), "ResourceInUseException")
		pause(10 * time.Second)
		must(t, server.Split(stream, shardID(1)))
		_, err = client.DeleteStream(ctx, &sdk.DeleteStreamInput{StreamName: aws.String(stream)})
		must(t, err)
		status(types.StreamStatusDeleting)
		must(t, sdk.NewStreamNotExistsWaiter(client).Wait(ctx, &sdk.DescribeStreamInput{StreamName: aws.String(stream)}, time.Minute))
		must(t, server.CreateStream(stream, 1))
	})
}

func TestNextTokenExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := inMemory(kinesis.Options{})
		defer server.Close()
		must(t, server.CreateStream(stream, 5))
		out, err := client.ListShards(ctx, &sdk.ListShardsInput{StreamName: aws.String(stream), MaxResults: aws.Int32(1)})
		must(t, err)
		pause(300 * time.Second)
		more, err := client.ListShards(ctx, &sdk.ListShardsInput{NextToken: out.NextToken})
		must(t, err)
		if len(more.Shards) != 1 {
			t.Errorf("the page size is not remembered: %d shards", len(more.Shards))
		}
		pause(time.Millisecond)
		_, err = client.ListShards(ctx, &sdk.ListShardsInput{NextToken: out.NextToken})
		wantCode(t, err, "ExpiredNextTokenException")
		_, err = client.ListShards(ctx, &sdk.ListShardsInput{NextToken: more.NextToken, StreamName: aws.String(stream)})
		wantCode(t, err, "InvalidArgumentException")
		_, err = client.ListShards(ctx, &sdk.ListShardsInput{NextToken: aws.String("eyJTdHJlYW0iOjB9")})
		wantCode(t, err, "InvalidArgumentException")
	})
}

// An iterator of a deleted stream does not read the one created after it.
func TestIteratorOfDeletedStream(t *testing.T) {
	server, client := start(t, kinesis.Options{})
	must(t, server.CreateStream(stream, 1))
	iterator := iterate(t, client, stream, shardID(0))
	_, err := client.DeleteStream(ctx, &sdk.DeleteStreamInput{StreamName: aws.String(stream)})
	must(t, err)
	must(t, server.CreateStream(stream, 1))
	_, err = client.GetRecords(ctx, &sdk.GetRecordsInput{ShardIterator: &iterator})
	wantCode(t, err, kinesis.ResourceNotFound)
}

func TestCloseShard(t *testing.T) {
	server, client := start(t, kinesis.Options{})
	must(t, server.CreateStream(stream, 2))
	must(t, putText(client, "a")) // in shard 1
	must(t, server.CloseShard(stream, shardID(1)))
	records, ended := drain(t, client, stream, shardID(1))
	if len(records) != 1 || !ended {
		t.Errorf("%d records, ended: %v", len(records), ended)
	}
	wantCode(t, putText(client, "b"), kinesis.InternalFailure)
	wantCode(t, server.CloseShard(stream, shardID(1)), "InvalidArgumentException")
	_, err := client.UpdateShardCount(ctx, &sdk.UpdateShardCountInput{StreamName: aws.String(stream), TargetShardCount: aws.Int32(1), ScalingType: types.ScalingTypeUniformScaling})
	wantCode(t, err, "InvalidArgumentException")
}

// Whatever comes in, the answer is an error of the protocol.
func TestBadRequests(t *testing.T) {
	server, _ := start(t, kinesis.Options{})
	must(t, server.CreateStream(stream, 1))
	client := server.Client()
	const json11 = "application/x-amz-json-1.1"
	for _, c := range []struct {
		name, method, target, media, body string
		status                            int
		want                              string
	}{
		{"get", "GET", "ListShards", json11, "", 400, "UnknownOperationException"},
		{"operation", "POST", "FlyToTheMoon", json11, "{}", 400, "UnknownOperationException"},
		{"cbor", "POST", "ListShards", "application/x-amz-cbor-1.1", "\xa0", 400, "SerializationException"},
		{"empty", "POST", "ListShards", json11, "", 400, "SerializationException"},
		{"not json", "POST", "ListShards", json11, "hello", 400, "SerializationException"},
		{"list", "POST", "ListShards", json11, "[]", 400, "SerializationException"},
		{"type", "POST", "ListShards", json11, `{"StreamName":7}`, 400, "SerializationException"},
		{"time", "POST", "GetShardIterator", json11, `{"Timestamp":"now"}`, 400, "SerializationException"},
		{"base64", "POST", "PutRecord", json11, `{"StreamName":"orders","PartitionKey":"k","Data":"?"}`, 400, "SerializationException"},
		{"no data", "POST", "PutRecord", json11, `{"StreamName":"orders","PartitionKey":"k"}`, 400, "ValidationException"},
		{"no data in an entry", "POST", "PutRecords", json11, `{"StreamName":"orders","Records":[{"PartitionKey":"k"},null]}`, 400, "ValidationException"},
		{"no iterator", "POST", "GetRecords", json11, `{}`, 400, "ValidationException"},
		{"deep", "POST", "ListShards", json11, strings.Repeat("[", 100_000), 400, "SerializationException"},
		{"too large", "POST", "PutRecord", json11, strings.Repeat(" ", 16<<20+1), 413, "RequestEntityTooLargeException"},
		{"arn", "POST", "ListShards", json11, `{"StreamARN":"arn:aws:s3:::stream/orders"}`, 400, "ValidationException"},
		{"arn and name", "POST", "ListShards", json11, `{"StreamName":"orders","StreamARN":"arn:aws:kinesis:eu-west-1:123456789012:stream/others"}`, 400, "InvalidArgumentException"},
	} {
		request, err := http.NewRequest(c.method, "http://kinesis.test/", strings.NewReader(c.body))
		must(t, err)
		request.Header.Set("Content-Type", c.media)
		request.Header.Set("X-Amz-Target", "Kinesis_20131202."+c.target)
		response, err := client.Do(request)
		must(t, err)
		body, err := io.ReadAll(response.Body)
		must(t, err)
		response.Body.Close()
		if response.StatusCode != c.status || response.Header.Get("X-Amzn-ErrorType") != c.want ||
			!strings.HasPrefix(string(body), `{"__type":"`+c.want+`","message":"`) || response.Header.Get("x-amzn-RequestId") == "" {
			t.Errorf("%s: %d %s %s", c.name, response.StatusCode, response.Header.Get("X-Amzn-ErrorType"), body)
		}
	}
}

// Direct calls check what they are given.
func TestDirectCallsRefuse(t *testing.T) {
	server, _ := start(t, kinesis.Options{ShardLimit: 4})
	must(t, server.CreateStream(stream, 4))
	put := func(r kinesis.Record) error { return server.PutBatch(stream, []kinesis.Record{r}) }
	for what, err := range map[string]error{
		"stream name":  server.CreateStream("a b", 1),
		"no shards":    server.CreateStream("x", 0),
		"again":        server.CreateStream(stream, 1),
		"shard limit":  server.CreateStream("x", 1),
		"split limit":  server.Split(stream, shardID(0)),
		"split what":   server.Split(stream, "shard"),
		"merge":        server.Merge(stream, shardID(0), shardID(2)),
		"merge itself": server.Merge(stream, shardID(0), shardID(0)),
		"trim":         server.Trim("x", time.Now()),
		"stream":       server.PutBatch("x", nil),
		"key":          put(kinesis.Record{}),
		"long key":     put(kinesis.Record{PartitionKey: strings.Repeat("é", 257)}),
		"utf-8":        put(kinesis.Record{PartitionKey: "\xff"}),
		"hash":         put(kinesis.Record{PartitionKey: "k", ExplicitHashKey: "-1"}),
		"data":         put(kinesis.Record{PartitionKey: "k", Data: make([]byte, 1<<20)}),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	wantStored(t, server, "")
}

// Records put while shards split and merge all arrive, once, and each reader
// sees its shard in order.
func TestReshardUnderLoad(t *testing.T) {
	server, client := start(t, kinesis.Options{ShardLimit: 1000})
	must(t, server.CreateStream(stream, 2))
	const writers, each = 4, 2000
	var wait sync.WaitGroup
	for w := range writers {
		wait.Go(func() {
			for i := range each {
				if _, _, err := server.Put(stream, fmt.Sprint(w, "-", i%50), fmt.Appendf(nil, "%d-%d", w, i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	reshards := 0
	for range 40 {
		shards, err := server.Shards(stream)
		must(t, err)
		var open []kinesis.Shard
		for _, s := range shards {
			if !s.Closed {
				open = append(open, s)
			}
		}
		if len(open) < 6 {
			must(t, server.Split(stream, open[0].ID))
			reshards++
			continue
		}
		for _, b := range open[1:] {
			if server.Merge(stream, open[0].ID, b.ID) == nil {
				reshards++
				break
			}
		}
	}
	wait.Wait()
	if reshards < 20 {
		t.Errorf("only %d reshards", reshards)
	}
	seen := map[string]bool{}
	shards, err := server.Shards(stream)
	must(t, err)
	for _, s := range shards {
		records, ended := drain(t, client, stream, s.ID)
		if ended != s.Closed {
			t.Errorf("%s ended: %v, closed: %v", s.ID, ended, s.Closed)
		}
		next := map[string]int{}
		for _, r := range records {
			var w, i int
			fmt.Sscanf(string(r.Data), "%d-%d", &w, &i)
			if i < next[*r.PartitionKey] {
				t.Errorf("%s: %s out of order", s.ID, r.Data)
			}
			next[*r.PartitionKey] = i
			if seen[string(r.Data)] {
				t.Errorf("%s came twice", r.Data)
			}
			seen[string(r.Data)] = true
		}
	}
	if len(seen) != writers*each {
		t.Errorf("%d records, want %d", len(seen), writers*each)
	}
}

// A closed server refuses, and a second Close is harmless.
func TestClose(t *testing.T) {
	server := kinesis.New(kinesis.Options{})
	endpoint, err := server.Start()
	must(t, err)
	again, err := server.Start()
	must(t, err)
	if again != endpoint {
		t.Errorf("Start gave %s, then %s", endpoint, again)
	}
	memory := server.Client()
	must(t, server.Close())
	must(t, server.Close())
	if _, err := http.Get(endpoint); err == nil {
		t.Error("the socket still answers")
	}
	if _, err := memory.Get("http://kinesis.test"); err == nil {
		t.Error("the pipe still answers")
	}
	idle := kinesis.New(kinesis.Options{})
	must(t, idle.Close())
	if _, err := idle.Start(); err == nil {
		t.Error("a closed server starts")
	}
}
