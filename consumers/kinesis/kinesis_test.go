package kinesis

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	cloud "github.com/millstream/millstream/cloud/aws"
	"github.com/millstream/millstream/consumers"
	fake "github.com/millstream/millstream/fakes/kinesis"
	"github.com/millstream/millstream/stream"
)

// bed is a fake service with one stream, in a bubble of virtual time.
type bed struct {
	*testing.T
	server  *fake.Server
	web     *http.Client
	client  *awskinesis.Client
	readers []consumers.Reader
}

// inBubble runs f against a fake service. All connections are in-memory, so that waiting costs nothing.
func inBubble(t *testing.T, o fake.Options, f func(b *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(newBed(t, o)) })
}

// newBed makes one in the bubble of t, and undoes it with t.
func newBed(t *testing.T, o fake.Options) *bed {
	t.Helper()
	server := fake.New(o)
	web := server.Client()
	client := awskinesis.New(awskinesis.Options{
		Region: "us-east-1", BaseEndpoint: aws.String("http://127.0.0.1"), HTTPClient: cloud.Steady(web),
		Credentials: credentials.NewStaticCredentialsProvider("any", "any", ""),
	})
	b := &bed{T: t, server: server, web: web, client: client}
	t.Cleanup(func() {
		for _, r := range b.readers {
			r.Close()
		}
		web.CloseIdleConnections()
		server.Close()
		synctest.Wait()
	})
	b.do(server.CreateStream("s", 1))
	return b
}

func (b *bed) do(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bed) source(o Options) *Source {
	b.Helper()
	if o.Stream == "" {
		o.Stream = "s"
	}
	if o.Client = b.client; o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := New(b.Context(), o)
	b.do(err)
	return s
}

func (b *bed) open(s *Source, shard string, from stream.Position, tip string) consumers.Reader {
	b.Helper()
	r, err := s.Open(b.Context(), shard, from, tip)
	b.do(err)
	b.readers = append(b.readers, r)
	return r
}

func (b *bed) put(key, data string) {
	b.Helper()
	_, _, err := b.server.Put("s", key, []byte(data))
	b.do(err)
}

// puts stores n records "from", "from+1", …
func (b *bed) puts(from, n int) (data []string) {
	b.Helper()
	for i := from; i < from+n; i++ {
		b.put(fmt.Sprint("k", i), fmt.Sprint(i))
		data = append(data, fmt.Sprint(i))
	}
	return data
}

// read reads n records, and fails when the reader ends or fails before.
func (b *bed) read(r consumers.Reader, n int) []stream.Record {
	b.Helper()
	var records []stream.Record
	for len(records) < n {
		f := b.fetch(r)
		records = append(records, f.Records...)
		if f.End != nil && len(records) < n {
			b.Fatalf("the shard ended after %d of %d records", len(records), n)
		}
	}
	return records
}

func (b *bed) fetch(r consumers.Reader) consumers.Fetch {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	f, err := r.Read(ctx)
	b.do(err)
	return f
}

// rest reads to the end of the shard.
func (b *bed) rest(r consumers.Reader) ([]stream.Record, *stream.PartitionEnd) {
	b.Helper()
	var records []stream.Record
	for {
		f := b.fetch(r)
		records = append(records, f.Records...)
		if f.End != nil {
			return records, f.End
		}
	}
}

func (b *bed) want(records []stream.Record, data ...string) {
	b.Helper()
	if got := texts(records); !slices.Equal(got, data) {
		b.Fatalf("got %d records %.200q, want %d %.200q", len(got), got, len(data), data)
	}
}

func texts(records []stream.Record) (data []string) {
	for i := range records {
		data = append(data, string(records[i].Data))
	}
	return data
}

const shard0 = "shardId-000000000000"

func shardName(i int) string { return fmt.Sprintf("shardId-%012d", i) }

func TestRead(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		data := b.puts(0, 100)
		s := b.source(Options{})
		r := b.open(s, shard0, stream.Position{}, "")
		records := b.read(r, 100)
		b.want(records, data...)
		if r0 := records[0]; r0.Key != "k0" || time.Until(r0.Arrived.Time()).Abs() > time.Second {
			b.Fatalf("key %q, arrived %s", r0.Key, r0.Arrived)
		}
		if f := b.fetch(r); f.State != stream.CaughtUp || len(f.Records) != 0 {
			b.Fatalf("behind the last record: %+v", f)
		}
		go b.put("later", "later")
		b.want(b.read(r, 1), "later")
	})
}

// Every record's position is where a reader goes on behind it.
func TestResumeAnywhere(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		data := b.puts(0, 20)
		s := b.source(Options{})
		records := b.read(b.open(s, shard0, stream.Position{}, ""), 20)
		for i := range records[:19] {
			b.want(b.read(b.open(s, shard0, records[i].Position, ""), 19-i), data[i+1:]...)
		}
	})
}

func TestStart(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		b.puts(0, 2)
		<-time.After(time.Minute)
		middle := time.Now()
		b.puts(2, 2)
		<-time.After(time.Minute)
		latest := b.source(Options{Start: "latest"})
		tip, err := latest.Tip(b.Context())
		b.do(err)
		<-time.After(time.Second)
		b.puts(4, 2)
		b.do(b.server.Split("s", shard0))
		b.puts(6, 30)

		b.want(b.read(b.open(b.source(Options{}), shard0, stream.Position{}, ""), 6), "0", "1", "2", "3", "4", "5")
		b.want(b.read(b.open(b.source(Options{Start: middle.Format(time.RFC3339Nano)}), shard0, stream.Position{}, ""), 4), "2", "3", "4", "5")
		b.want(b.read(b.open(latest, shard0, stream.Position{}, ""), 2), "4", "5")

		// After a restart the mark still says where "latest" was, for the root and for its children.
		<-time.After(time.Hour)
		again := b.source(Options{Start: "latest"})
		b.want(b.read(b.open(again, shard0, stream.Position{}, tip), 2), "4", "5")
		n := 0
		for i := 1; i <= 2; i++ {
			n += len(b.fetch(b.open(again, shardName(i), stream.Position{}, tip)).Records)
		}
		if n != 30 {
			b.Fatalf("%d of the children's 30 records", n)
		}
	})
}

func TestBadOptions(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		for _, c := range []struct {
			o    Options
			want string
		}{
			{Options{Stream: "no such thing"}, `stream "no such thing": want a name`},
			{Options{Stream: "absent"}, "stream absent does not exist in us-east-1"},
			{Options{Stream: "arn:aws:kinesis:eu-west-1:123456789012:stream/absent"}, "stream absent does not exist"},
			{Options{Stream: "s", Start: "yesterday"}, "start=yesterday: want earliest, latest or an RFC 3339 time"},
			{Options{Stream: "s", Start: "2999-01-01T00:00:00Z"}, "is in the future"},
		} {
			c.o.Client = b.client
			_, err := New(b.Context(), c.o)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				b.Errorf("%+v: %v", c.o, err)
			}
		}
	})
}

// Every request for a stream that was given by its ARN names it by that, so that it may be another
// account's, in the ARN's region. The plan's name for it is the same as by name.
func TestARN(t *testing.T) {
	const arn = "arn:aws:kinesis:eu-west-1:210987654321:stream/s"
	inBubble(t, fake.Options{Region: "eu-west-1", AccountID: "210987654321"}, func(b *bed) {
		b.put("k", "1")
		asked := make(map[string]bool)
		options := b.client.Options()
		options.Region = "eu-west-1"
		options.HTTPClient = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			body, err := io.ReadAll(r.Body)
			b.do(err)
			r.Body = io.NopCloser(bytes.NewReader(body))
			var in struct{ StreamARN, StreamName, ConsumerARN string }
			b.do(json.Unmarshal(body, &in))
			operation := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "Kinesis_20131202.")
			asked[operation] = true
			if in.StreamARN != arn && !strings.HasPrefix(in.ConsumerARN, arn+"/consumer/fan:") || in.StreamName != "" {
				b.Errorf("%s: %s", operation, body)
			}
			return b.web.Transport.RoundTrip(r)
		})}
		plain := b.client.Options()
		plain.Region = "eu-west-1"
		b.client = awskinesis.New(plain)
		named := b.source(Options{})
		b.client = awskinesis.New(options)
		s := b.source(Options{Stream: arn})
		b.want(b.read(b.open(s, shard0, stream.Position{}, ""), 1), "1")
		if _, err := b.client.RegisterStreamConsumer(b.Context(), &awskinesis.RegisterStreamConsumerInput{StreamARN: aws.String(arn), ConsumerName: aws.String(consumer)}); err != nil {
			b.Fatal(err)
		}
		b.want(b.read(b.open(b.fan(Options{Stream: arn}), shard0, stream.Position{}, ""), 1), "1")
		for _, operation := range []string{"ListShards", "GetShardIterator", "GetRecords", "DescribeStreamConsumer", "SubscribeToShard"} {
			if !asked[operation] {
				b.Errorf("%s was not asked", operation)
			}
		}
		if s.Identity() != "kinesis://eu-west-1/s" || named.Identity() != s.Identity() {
			b.Errorf("identities %s and %s", s.Identity(), named.Identity())
		}
		if _, err := New(b.Context(), Options{Stream: arn, Region: "us-east-1", Client: b.client}); err == nil || !strings.Contains(err.Error(), "is in eu-west-1, as its ARN says, and not in us-east-1") {
			b.Error(err)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// An on-demand stream has no number of shards: it grows under its readers, and what they were told of
// where to start holds for the shards that come, polled and by subscription.
func TestOnDemand(t *testing.T) {
	for name, by := range map[string]string{"polled": "", "by subscription": consumer} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, fake.Options{}, func(b *bed) {
				_, err := b.client.CreateStream(b.Context(), &awskinesis.CreateStreamInput{StreamName: aws.String("grows"),
					StreamModeDetails: &types.StreamModeDetails{StreamMode: types.StreamModeOnDemand}})
				b.do(err)
				b.register("grows")
				put := func(from, n int) {
					for i := from; i < from+n; i++ {
						_, _, err := b.server.Put("grows", fmt.Sprint("key", i), fmt.Append(nil, i))
						b.do(err)
					}
				}
				put(0, 50)
				<-time.After(time.Minute)
				start := time.Now()
				put(50, 50)
				s := b.source(Options{Stream: "grows", Consumer: by, Start: start.Format(time.RFC3339Nano)})
				ps, err := s.Partitions(b.Context())
				b.do(err)
				if len(ps) != 4 {
					b.Fatalf("%d shards", len(ps))
				}
				for i := range 2 {
					b.do(b.server.Split("grows", shardName(i)))
				}
				put(100, 100)
				seen := make(map[string]int)
				for len(ps) > 0 { // children join behind their parents
					r := b.open(s, ps[0].Name, stream.Position{}, "")
					ps = ps[1:]
					var f consumers.Fetch
					for f.State != stream.CaughtUp {
						f = b.fetch(r)
						for _, text := range texts(f.Records) {
							seen[text]++
						}
					}
					if f.End != nil {
						ps = append(ps, f.End.Children...)
					}
				}
				if len(seen) != 150 {
					b.Fatalf("%d records", len(seen))
				}
				for i := 50; i < 200; i++ {
					if seen[fmt.Sprint(i)] != 1 {
						b.Fatalf("record %d came %d times", i, seen[fmt.Sprint(i)])
					}
				}
			})
		})
	}
}

func TestPartitionsPages(t *testing.T) {
	inBubble(t, fake.Options{ShardLimit: 3000}, func(b *bed) {
		b.do(b.server.CreateStream("wide", 2500))
		ps, err := b.source(Options{Stream: "wide"}).Partitions(b.Context())
		b.do(err)
		if len(ps) != 2500 || ps[2499].Name != shardName(2499) {
			b.Fatalf("%d shards, last %v", len(ps), ps[len(ps)-1])
		}
	})
}

// Split and merge: closed shards stay listed with their data, and ends name the children with every
// parent, so that the engine reads a merged shard only after both.
func TestReshard(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		s := b.source(Options{})
		b.puts(0, 10)
		b.do(b.server.Split("s", shard0))
		b.puts(10, 40)
		b.do(b.server.Merge("s", shardName(1), shardName(2)))
		b.puts(50, 10)

		ps, err := s.Partitions(b.Context())
		b.do(err)
		want := []stream.Partition{
			{Name: shardName(0)},
			{Name: shardName(1), Parents: []string{shardName(0)}},
			{Name: shardName(2), Parents: []string{shardName(0)}},
			{Name: shardName(3), Parents: []string{shardName(1), shardName(2)}},
		}
		if fmt.Sprint(ps) != fmt.Sprint(want) {
			b.Fatalf("partitions %v", ps)
		}
		children := map[string][]stream.Partition{shardName(0): {want[1], want[2]}, shardName(1): {want[3]}, shardName(2): {want[3]}}
		total := 0
		for _, p := range ps[:3] {
			records, end := b.rest(b.open(s, p.Name, stream.Position{}, ""))
			total += len(records)
			if fmt.Sprint(end.Children) != fmt.Sprint(children[p.Name]) || end.Lost {
				b.Fatalf("%s ended with %+v", p.Name, end)
			}
		}
		total += len(b.read(b.open(s, shardName(3), stream.Position{}, ""), 10))
		if total != 60 {
			b.Fatalf("%d of 60 records", total)
		}
	})
}

// A reader at the tip of a shard that closes gets the end in a reply without records.
func TestSplitWhileReading(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		s := b.source(Options{})
		b.puts(0, 3)
		r := b.open(s, shard0, stream.Position{}, "")
		last := b.read(r, 3)[2].Position
		failed := make(chan error, 1)
		go func() {
			<-time.After(time.Second)
			failed <- b.server.Split("s", shard0)
		}()
		records, end := b.rest(r)
		b.do(<-failed)
		if len(records) != 0 || len(end.Children) != 2 {
			b.Fatalf("%d records, %+v", len(records), end)
		}
		again, end := b.rest(b.open(s, shard0, last, ""))
		if len(again) != 0 || len(end.Children) != 2 {
			b.Fatalf("resumed behind the last record: %d records, %+v", len(again), end)
		}
	})
}

func TestClosedWithoutChildren(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		b.puts(0, 3)
		b.do(b.server.CloseShard("s", shard0))
		records, end := b.rest(b.open(b.source(Options{}), shard0, stream.Position{}, ""))
		if len(records) != 3 || len(end.Children) != 0 || end.Lost {
			b.Fatalf("%d records, %+v", len(records), end)
		}
	})
}

func TestUntilEnd(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		s := b.source(Options{UntilEnd: true})
		if tip, _ := b.source(Options{}).Tip(b.Context()); tip != "" {
			b.Fatalf("an endless source has the tip %q", tip)
		}
		<-time.After(700 * time.Millisecond) // not a whole second, as Date headers are
		data := b.puts(0, 5)
		tip, err := s.Tip(b.Context())
		b.do(err)
		tail, end := b.rest(b.open(s, shard0, stream.Position{}, tip)) // ends at the open tip
		b.want(tail, data...)
		if end.Lost {
			b.Fatal("lost")
		}
		<-time.After(2 * time.Second)
		b.puts(5, 5) // later than the tip
		r := b.open(s, shard0, stream.Position{}, tip)
		records, _ := b.rest(r)
		b.want(records, data...)
		if f := b.fetch(r); f.End == nil || f.Next != records[4].Position {
			b.Fatalf("behind the end: %+v", f)
		}
		// From the end on nothing comes, however often it is opened.
		more, _ := b.rest(b.open(s, shard0, records[4].Position, tip))
		b.want(more)
	})
}

func TestExpiredIterator(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		s := b.source(Options{})
		data := b.puts(0, 10)
		r := b.open(s, shard0, stream.Position{}, "")
		b.want(b.read(r, 10), data...)
		b.server.ExpireIterators()
		more := b.puts(10, 10)
		b.want(b.read(r, 10), more...)
		if c := s.Counters(); c.Reacquired != 1 {
			b.Fatalf("%+v", c)
		}
	})
}

// A position that the stream has outlived is told, since what followed it may be gone unread.
func TestExpiredPosition(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		s := b.source(Options{})
		b.puts(0, 10)
		at := b.read(b.open(s, shard0, stream.Position{}, ""), 10)[2].Position
		b.want(b.read(b.open(s, shard0, at, ""), 7), "3", "4", "5", "6", "7", "8", "9")
		if n := s.Counters().Expired; n != 0 {
			b.Fatalf("%d expired before any was", n)
		}
		<-time.After(time.Minute)
		b.do(b.server.Trim("s", time.Now()))
		b.puts(10, 2)
		b.want(b.read(b.open(s, shard0, at, ""), 2), "10", "11")
		if n := s.Counters().Expired; n != 1 {
			b.Fatalf("%d expired", n)
		}
	})
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault fake.Fault
		check func(Counters) bool
	}{
		{"throttled", fake.Fault{Code: fake.ProvisionedThroughputExceeded}, func(c Counters) bool { return c.Throttled == 3 }},
		{"limit", fake.Fault{Code: fake.LimitExceeded}, func(c Counters) bool { return c.Throttled == 3 }},
		{"internal", fake.Fault{Code: fake.InternalFailure}, func(c Counters) bool { return c.Retried == 3 }},
		{"unavailable", fake.Fault{Code: fake.ServiceUnavailable}, func(c Counters) bool { return c.Retried == 3 }},
		{"lost reply", fake.Fault{LoseReply: true}, func(c Counters) bool { return c.Retried == 3 }},
		{"half a reply", fake.Fault{CutReply: true}, func(c Counters) bool { return c.Retried == 3 }},
		{"no reply", fake.Fault{Delay: time.Hour}, func(c Counters) bool { return c.Retried == 3 }},
		{"empty", fake.Fault{Empty: true}, func(c Counters) bool { return c == (Counters{}) }},
	} {
		for _, operation := range []string{"GetRecords", "GetShardIterator", "ListShards"} {
			if c.fault.Empty && operation != "GetRecords" {
				continue
			}
			t.Run(c.name+"/"+operation, func(t *testing.T) {
				inBubble(t, fake.Options{}, func(b *bed) {
					s := b.source(Options{})
					data := b.puts(0, 50)
					c.fault.Operation, c.fault.Times = operation, 3
					hit := b.server.Inject(c.fault)
					b.want(b.read(b.open(s, shard0, stream.Position{}, ""), 50), data...)
					if hit.Hits() != 3 || !c.check(s.Counters()) {
						b.Fatalf("%d hits, %+v", hit.Hits(), s.Counters())
					}
				})
			})
		}
	}
}

func TestThrottledState(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		r := b.open(b.source(Options{}), shard0, stream.Position{}, "")
		if f := b.fetch(r); f.State != stream.CaughtUp {
			b.Fatalf("%+v", f)
		}
		b.server.Inject(fake.Fault{Operation: "GetRecords", Code: fake.ProvisionedThroughputExceeded, Times: 5})
		if f := b.fetch(r); f.State != stream.Throttled {
			b.Fatalf("%+v", f)
		}
		if f := b.fetch(r); f.State != stream.CaughtUp {
			b.Fatalf("%+v", f)
		}
		// A shard that cannot be read has not caught up, so that it cannot become idle.
		b.server.Inject(fake.Fault{Operation: "GetRecords", Code: fake.InternalFailure, Times: 5})
		if f := b.fetch(r); f.State != stream.Reading {
			b.Fatalf("%+v", f)
		}
	})
}

// Once it has been throttled a reader keeps below the shard's limits: the whole backlog comes with at
// most a few further refusals.
func TestPace(t *testing.T) {
	inBubble(t, fake.Options{EnforceLimits: true}, func(b *bed) {
		s := b.source(Options{})
		record := strings.Repeat("x", 500<<10)
		for range 60 { // 30 MB
			b.put("k", record)
		}
		began := time.Now()
		b.read(b.open(s, shard0, stream.Position{}, ""), 60)
		if took := time.Since(began); took > 25*time.Second {
			b.Errorf("30 MB at 2 MB/s took %s", took)
		}
		if n := s.Counters().Throttled; n < 1 || n > 6 {
			b.Errorf("throttled %d times", n)
		}
	})
}

func TestErrorsThatStay(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		s := b.source(Options{})
		b.puts(0, 3)
		_, err := s.Open(b.Context(), "shardId-000000000099", stream.Position{}, "")
		if !errors.Is(err, stream.ErrPartitionGone) {
			b.Errorf("unknown shard: %v", err)
		}
		if _, err := s.Open(b.Context(), shard0, stream.Position{Number: 7}, ""); err == nil {
			b.Error("a file's position was taken")
		}
		r := b.open(s, shard0, stream.Position{Token: "49999999999999999999999999999999999999999999999999999999"}, "")
		if _, err := r.Read(b.Context()); err == nil || !strings.Contains(err.Error(), "cannot resume at position") {
			b.Errorf("foreign position: %v", err)
		}
		b.server.Inject(fake.Fault{Operation: "GetRecords", Code: fake.ExpiredToken})
		if _, err := b.open(s, shard0, stream.Position{}, "").Read(b.Context()); err == nil || !strings.Contains(err.Error(), "credentials expired") {
			b.Errorf("expired credentials: %v", err)
		}
		b.server.Inject(fake.Fault{Operation: "GetRecords", Code: fake.InternalFailure, Times: -1})
		if _, err := b.open(s, shard0, stream.Position{}, "").Read(b.Context()); err == nil || !strings.Contains(err.Error(), "has failed for") {
			b.Errorf("broken for ever: %v", err)
		}
	})
}

// A shard whose last record expired while it was open is gone; a deleted stream is another thing.
func TestGone(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		s := b.source(Options{})
		b.puts(0, 3)
		r := b.open(s, shard0, stream.Position{}, "")
		b.read(r, 3)
		b.do(b.server.Split("s", shard0))
		<-time.After(time.Minute)
		b.do(b.server.Trim("s", time.Now()))
		b.server.ExpireIterators()
		var err error
		for err == nil {
			var f consumers.Fetch
			if f, err = r.Read(b.Context()); f.End != nil {
				b.Fatalf("%+v", f.End)
			}
		}
		if !errors.Is(err, stream.ErrPartitionGone) {
			b.Fatal(err)
		}
		r = b.open(s, shardName(1), stream.Position{}, "")
		if _, err := b.client.DeleteStream(b.Context(), &awskinesis.DeleteStreamInput{StreamName: aws.String("s")}); err != nil {
			b.Fatal(err)
		}
		_, err = r.Read(b.Context())
		if err == nil || errors.Is(err, stream.ErrPartitionGone) || !strings.Contains(err.Error(), "stream s does not exist") {
			b.Fatal(err)
		}
	})
}
