package kinesis_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	sdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/millstream/millstream/fakes/kinesis"
)

const stream = "orders"

func putText(client *sdk.Client, data string) error {
	_, err := client.PutRecord(ctx, &sdk.PutRecordInput{StreamName: aws.String(stream), PartitionKey: aws.String("k"), Data: []byte(data)})
	return err
}

func hits(t testing.TB, i *kinesis.Injection, want int) {
	t.Helper()
	if got := i.Hits(); got != want {
		t.Errorf("the fault hit %d calls, want %d", got, want)
	}
}

// stored returns the data of all records on the server.
func stored(t testing.TB, server *kinesis.Server) string {
	t.Helper()
	records, err := server.Records(stream)
	must(t, err)
	var all []string
	for _, r := range records {
		all = append(all, string(r.Data))
	}
	return strings.Join(all, " ")
}

func wantStored(t testing.TB, server *kinesis.Server, want string) {
	t.Helper()
	if got := stored(t, server); got != want {
		t.Errorf("the stream holds %q, want %q", got, want)
	}
}

// Each error code reaches the official client as its own type, once for each of
// Times calls, after Skip others, and without any effect on the stream.
func TestFaultCodes(t *testing.T) {
	server, client := start(t, kinesis.Options{})
	must(t, server.CreateStream(stream, 1))
	for _, want := range []string{
		kinesis.ProvisionedThroughputExceeded, kinesis.LimitExceeded, kinesis.ExpiredIterator, kinesis.ExpiredToken,
		kinesis.ResourceNotFound, kinesis.InternalFailure, kinesis.ServiceUnavailable, "KMSThrottlingException",
	} {
		fault := server.Inject(kinesis.Fault{Operation: "PutRecord", Code: want, Message: "because \"x\"", Skip: 1, Times: 2})
		must(t, putText(client, want))
		for range 2 {
			err := putText(client, "lost")
			wantCode(t, err, want)
			if !strings.Contains(err.Error(), `because "x"`) {
				t.Errorf("%v does not carry the message", err)
			}
		}
		hits(t, fault, 2)
		within(t, "the end of the fault", fault.Done())
		must(t, putText(client, "ok"))
	}
	if got := stored(t, server); strings.Contains(got, "lost") {
		t.Errorf("a refused record was stored: %s", got)
	}
	var typed *types.ProvisionedThroughputExceededException
	server.Inject(kinesis.Fault{Code: kinesis.ProvisionedThroughputExceeded})
	if err := putText(client, "x"); !errors.As(err, &typed) {
		t.Errorf("%v is not a %T", err, typed)
	}
}

// The client's own retryer takes a throttle and a 500 for what they are.
func TestFaultsAreRetried(t *testing.T) {
	server := kinesis.New(kinesis.Options{})
	endpoint, err := server.Start()
	must(t, err)
	defer server.Close()
	must(t, server.CreateStream(stream, 1))
	client := newClient(endpoint, func(o *sdk.Options) {
		o.Retryer = retry.NewStandard(func(r *retry.StandardOptions) {
			r.MaxAttempts = 5
			r.MaxBackoff = time.Millisecond
		})
	})
	fault := server.Inject(kinesis.Fault{Code: kinesis.ProvisionedThroughputExceeded, Times: 2})
	broken := server.Inject(kinesis.Fault{Code: kinesis.InternalFailure, Times: 1})
	must(t, putText(client, "once"))
	hits(t, fault, 2)
	hits(t, broken, 1)
	wantStored(t, server, "once")
}

// A fault is narrowed by operation, stream and shard; one without an effect
// counts.
func TestFaultMatches(t *testing.T) {
	server, client := start(t, kinesis.Options{})
	must(t, server.CreateStream(stream, 2))
	must(t, server.CreateStream("other", 2))
	arn := "arn:aws:kinesis:us-east-1:000000000000:stream/" + stream
	elsewhere := server.Inject(kinesis.Fault{Stream: "other", Code: kinesis.InternalFailure, Times: -1})
	shard := server.Inject(kinesis.Fault{Operation: "GetRecords", Stream: stream, Shard: shardID(1), Code: kinesis.InternalFailure, Times: -1})
	counter := server.Inject(kinesis.Fault{Operation: "GetRecords", Times: -1})

	_, err := client.ListShards(ctx, &sdk.ListShardsInput{StreamARN: &arn})
	must(t, err)
	get(t, client, iterate(t, client, stream, shardID(0)))
	hits(t, elsewhere, 0)
	hits(t, shard, 0)
	hits(t, counter, 1)

	one := iterate(t, client, stream, shardID(1))
	_, err = client.GetRecords(ctx, &sdk.GetRecordsInput{ShardIterator: &one})
	wantCode(t, err, kinesis.InternalFailure)
	hits(t, shard, 1)
	shard.Stop()
	shard.Stop()
	get(t, client, one)
	hits(t, shard, 1)
	hits(t, counter, 2)
	_, err = client.ListShards(ctx, &sdk.ListShardsInput{StreamName: aws.String("other")})
	wantCode(t, err, kinesis.InternalFailure)
	hits(t, elsewhere, 1)
}

func TestExpireIterators(t *testing.T) {
	server, client := start(t, kinesis.Options{})
	must(t, server.CreateStream(stream, 1))
	must(t, putText(client, "a"))
	old := iterate(t, client, stream, shardID(0))
	get(t, client, old)
	server.ExpireIterators()
	_, err := client.GetRecords(ctx, &sdk.GetRecordsInput{ShardIterator: &old})
	var expired *types.ExpiredIteratorException
	if !errors.As(err, &expired) {
		t.Fatalf("%v is not a %T", err, expired)
	}
	if got := texts(get(t, client, iterate(t, client, stream, shardID(0))).Records); len(got) != 1 {
		t.Errorf("a new iterator reads %v", got)
	}
}

// Iterators live for five minutes by themselves.
func TestIteratorLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := inMemory(kinesis.Options{})
		defer server.Close()
		must(t, server.CreateStream(stream, 1))
		iterator := iterate(t, client, stream, shardID(0))
		pause(5 * time.Minute)
		iterator = *get(t, client, iterator).NextShardIterator
		pause(5*time.Minute + time.Millisecond)
		_, err := client.GetRecords(ctx, &sdk.GetRecordsInput{ShardIterator: &iterator})
		wantCode(t, err, kinesis.ExpiredIterator)
	})
}

// The reply is lost, the work is not: what a client must take for unknown.
func TestLoseReply(t *testing.T) {
	server, client := start(t, kinesis.Options{})
	must(t, server.CreateStream(stream, 1))
	fault := server.Inject(kinesis.Fault{Operation: "PutRecord", LoseReply: true})
	err := putText(client, "ghost")
	if err == nil || strings.Contains(err.Error(), "StatusCode: 200") {
		t.Errorf("a lost reply answered %v", err)
	}
	hits(t, fault, 1)
	wantStored(t, server, "ghost")
	must(t, putText(client, "b"))
	wantStored(t, server, "ghost b")
}

// The connection is reset in the middle of the body.
func TestCutReply(t *testing.T) {
	for _, name := range []string{"socket", "pipe"} {
		t.Run(name, func(t *testing.T) {
			server, client := start(t, kinesis.Options{})
			if name == "pipe" {
				client = newClient("http://kinesis.test", func(o *sdk.Options) { o.HTTPClient = server.Client() })
			}
			must(t, server.CreateStream(stream, 1))
			for i := range 100 {
				_, _, err := server.Put(stream, "k", fmt.Appendf(nil, "r%d", i))
				must(t, err)
			}
			iterator := iterate(t, client, stream, shardID(0))
			fault := server.Inject(kinesis.Fault{Operation: "GetRecords", CutReply: true})
			out, err := client.GetRecords(ctx, &sdk.GetRecordsInput{ShardIterator: &iterator})
			if err == nil {
				t.Errorf("half a body was read as %d records", len(out.Records))
			}
			hits(t, fault, 1)
			if got := len(get(t, client, iterator).Records); got != 100 {
				t.Errorf("the next call read %d records", got)
			}
		})
	}
}

// Half of the body does arrive: the cut is not a refusal.
func TestCutReplySendsHalf(t *testing.T) {
	server := kinesis.New(kinesis.Options{})
	defer server.Close()
	must(t, server.CreateStream(stream, 1))
	server.Inject(kinesis.Fault{CutReply: true})
	request, err := http.NewRequest("POST", "http://kinesis.test/", strings.NewReader(`{"StreamName":"orders"}`))
	must(t, err)
	request.Header.Set("Content-Type", "application/x-amz-json-1.1")
	request.Header.Set("X-Amz-Target", "Kinesis_20131202.ListShards")
	response, err := server.Client().Do(request)
	must(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil || len(body) == 0 || int64(len(body)) != response.ContentLength/2 {
		t.Errorf("read %d of %d bytes, then %v", len(body), response.ContentLength, err)
	}
}

// A delay holds the call for its time, and ends when the client hangs up.
func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := inMemory(kinesis.Options{})
		defer server.Close()
		must(t, server.CreateStream(stream, 1))
		fault := server.Inject(kinesis.Fault{Operation: "PutRecord", Delay: time.Minute})
		began := time.Now()
		must(t, putText(client, "slow"))
		if took := time.Since(began); took != time.Minute {
			t.Errorf("the call took %v", took)
		}
		hits(t, fault, 1)

		fault = server.Inject(kinesis.Fault{Operation: "PutRecord", Delay: time.Hour})
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := client.PutRecord(short, &sdk.PutRecordInput{StreamName: aws.String(stream), PartitionKey: aws.String("k"), Data: []byte("gone")})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the call ended with %v", err)
		}
		hits(t, fault, 1)
		synctest.Wait()
		wantStored(t, server, "slow")
	})
}

// PutRecords fails in part: the client learns which, and only the others are
// stored.
func TestFailEntries(t *testing.T) {
	server, client := start(t, kinesis.Options{})
	must(t, server.CreateStream(stream, 1))
	var entries []types.PutRecordsRequestEntry
	for i := range 10 {
		entries = append(entries, types.PutRecordsRequestEntry{PartitionKey: aws.String("k"), Data: fmt.Appendf(nil, "%d", i)})
	}
	odd := func(entry int) bool { return entry%2 == 1 }
	fault := server.Inject(kinesis.Fault{Operation: "PutRecords", FailEntries: odd})
	out, err := client.PutRecords(ctx, &sdk.PutRecordsInput{StreamName: aws.String(stream), Records: entries})
	must(t, err)
	hits(t, fault, 1)
	if *out.FailedRecordCount != 5 {
		t.Errorf("FailedRecordCount %d", *out.FailedRecordCount)
	}
	for i, r := range out.Records {
		if failed := r.ErrorCode != nil; failed != odd(i) || failed == (r.SequenceNumber != nil) {
			t.Errorf("entry %d: %v %v", i, aws.ToString(r.ErrorCode), aws.ToString(r.SequenceNumber))
		}
		if odd(i) && *r.ErrorCode != kinesis.ProvisionedThroughputExceeded {
			t.Errorf("entry %d: %s", i, *r.ErrorCode)
		}
	}
	wantStored(t, server, "0 2 4 6 8")

	server.Inject(kinesis.Fault{Operation: "PutRecords", FailEntries: odd, Code: kinesis.InternalFailure})
	out, err = client.PutRecords(ctx, &sdk.PutRecordsInput{StreamName: aws.String(stream), Records: entries})
	must(t, err)
	if *out.Records[1].ErrorCode != kinesis.InternalFailure {
		t.Errorf("entry 1: %s", *out.Records[1].ErrorCode)
	}
}

// An empty read does not mean the tip: the place stays, and the reader is told
// that it is behind.
func TestEmptyRead(t *testing.T) {
	server, client := start(t, kinesis.Options{})
	must(t, server.CreateStream(stream, 1))
	must(t, putText(client, "a"))
	fault := server.Inject(kinesis.Fault{Operation: "GetRecords", Empty: true})
	out := get(t, client, iterate(t, client, stream, shardID(0)))
	hits(t, fault, 1)
	if len(out.Records) != 0 || *out.MillisBehindLatest == 0 {
		t.Errorf("%d records, %d ms behind", len(out.Records), *out.MillisBehindLatest)
	}
	if got := texts(get(t, client, *out.NextShardIterator).Records); len(got) != 1 {
		t.Errorf("then %v", got)
	}
}

// The service's limits per shard, and that they are off by default.
func TestEnforceLimits(t *testing.T) {
	run := func(t *testing.T, enforce bool) (reads, large, writes string) {
		synctest.Test(t, func(t *testing.T) {
			server, client := inMemory(kinesis.Options{EnforceLimits: enforce, MaxRecordBytes: 10 << 20})
			defer server.Close()
			must(t, server.CreateStream(stream, 1))
			iterator := iterate(t, client, stream, shardID(0))
			read := func() string {
				out, err := client.GetRecords(ctx, &sdk.GetRecordsInput{ShardIterator: &iterator})
				if err == nil {
					iterator = *out.NextShardIterator
				}
				return code(err)
			}
			for range 6 {
				reads = read()
			}
			pause(200 * time.Millisecond)
			if got := read(); got != "ok" {
				t.Errorf("a fifth of a second later: %s", got)
			}
			pause(10 * time.Second)

			// Direct calls are exempt, and 6 MiB read at once cost three seconds.
			for range 6 {
				_, _, err := server.Put(stream, "k", make([]byte, 1<<20))
				must(t, err)
			}
			if got := read(); got != "ok" {
				t.Errorf("the large read: %s", got)
			}
			pause(1900 * time.Millisecond)
			large = read()
			pause(1200 * time.Millisecond)
			if got := read(); got != "ok" {
				t.Errorf("after the debt was paid: %s", got)
			}

			entries := make([]types.PutRecordsRequestEntry, 500)
			for i := range entries {
				entries[i] = types.PutRecordsRequestEntry{PartitionKey: aws.String("k"), Data: []byte("d")}
			}
			failed := int32(0)
			for range 3 {
				out, err := client.PutRecords(ctx, &sdk.PutRecordsInput{StreamName: aws.String(stream), Records: entries})
				must(t, err)
				failed += *out.FailedRecordCount
			}
			writes = fmt.Sprint(failed)
		})
		return reads, large, writes
	}
	if reads, large, writes := run(t, true); reads != kinesis.ProvisionedThroughputExceeded || large != reads || writes != "500" {
		t.Errorf("with limits: %s, %s, %s", reads, large, writes)
	}
	if reads, large, writes := run(t, false); reads != "ok" || large != "ok" || writes != "0" {
		t.Errorf("without limits: %s, %s, %s", reads, large, writes)
	}
}
