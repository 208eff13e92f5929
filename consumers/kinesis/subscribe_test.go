package kinesis

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go/middleware"

	cloud "github.com/millstream/millstream/cloud/aws"
	fake "github.com/millstream/millstream/fakes/kinesis"
	"github.com/millstream/millstream/stream"
)

const consumer = "fan"

// register registers the consumer with a stream.
func (b *bed) register(of string) {
	b.Helper()
	_, err := b.client.RegisterStreamConsumer(b.Context(), &awskinesis.RegisterStreamConsumerInput{
		StreamARN: aws.String("arn:aws:kinesis:us-east-1:000000000000:stream/" + of), ConsumerName: aws.String(consumer),
	})
	b.do(err)
}

// inFan is inBubble with a consumer, whose subscriptions last for life (zero: five minutes).
func inFan(t *testing.T, o fake.Options, f func(b *bed)) {
	t.Helper()
	inBubble(t, o, func(b *bed) {
		b.register("s")
		f(b)
	})
}

func (b *bed) fan(o Options) *Source {
	b.Helper()
	o.Consumer = consumer
	return b.source(o)
}

// calls counts the requests of a kind.
func (b *bed) calls(operation string) *fake.Injection {
	return b.server.Inject(fake.Fault{Operation: operation, Times: -1})
}

func TestSubscription(t *testing.T) {
	inFan(t, fake.Options{}, func(b *bed) {
		polls := b.calls(callGetRecords)
		data := b.puts(0, 100)
		s := b.fan(Options{})
		r := b.open(s, shard0, stream.Position{}, "")
		began := time.Now()
		f := b.fetch(r)
		b.want(f.Records, data...)
		if f.State != stream.CaughtUp || time.Since(began) != 0 {
			b.Fatalf("state %v after %s", f.State, time.Since(began))
		}
		go b.put("later", "later")
		b.want(b.read(r, 1), "later")
		if polls.Hits() != 0 || s.Identity() != b.source(Options{}).Identity() {
			b.Fatalf("%d polls, identity %s", polls.Hits(), s.Identity())
		}
	})
}

// Without records the empty events say that the reader has caught up; with records the event says it.
func TestSubscriptionStates(t *testing.T) {
	inFan(t, fake.Options{}, func(b *bed) {
		r := b.open(b.fan(Options{}), shard0, stream.Position{}, "")
		if f := b.fetch(r); f.State != stream.CaughtUp || len(f.Records) != 0 {
			b.Fatalf("%+v", f)
		}
		b.do(r.Close())
		record := strings.Repeat("x", 300<<10) // an event holds three of them
		for range 6 {
			b.put("k", record)
		}
		r = b.open(b.fan(Options{}), shard0, stream.Position{}, "")
		for _, state := range []stream.ReaderState{stream.Reading, stream.CaughtUp} {
			if f := b.fetch(r); len(f.Records) != 3 || f.State != state {
				b.Fatalf("%d records, %v", len(f.Records), f.State)
			}
		}
	})
}

func TestSubscriptionResumesAnywhere(t *testing.T) {
	inFan(t, fake.Options{}, func(b *bed) {
		data := b.puts(0, 20)
		s := b.fan(Options{})
		records := b.read(b.open(s, shard0, stream.Position{}, ""), 20)
		for i := range records[:19] {
			r := b.open(s, shard0, records[i].Position, "")
			b.want(b.read(r, 19-i), data[i+1:]...)
			b.do(r.Close())
		}
		// What was read by polling goes on by subscription, and the other way round.
		b.want(b.read(b.open(b.source(Options{}), shard0, records[4].Position, ""), 15), data[5:]...)
		if c := s.Counters(); c != (Counters{}) {
			b.Fatalf("%+v", c)
		}
	})
}

// Subscriptions are replaced before they are five minutes old, and each begins where the one before has
// ended: nothing is lost, repeated or taken for expired, while the shard is busy and while it is quiet for
// longer than it keeps records.
func TestSubscriptionRenewed(t *testing.T) {
	for name, c := range map[string]struct {
		o      fake.Options
		tamper func(*types.StartingPosition)
		want   string
	}{
		"before its time": {},
		"by the service":  {o: fake.Options{SubscriptionLifetime: 40 * time.Second}},
		// The negative controls: going on elsewhere than behind the last event.
		"from the tip":    {tamper: func(p *types.StartingPosition) { *p = types.StartingPosition{Type: types.ShardIteratorTypeLatest} }, want: "lost or repeated"},
		"from the oldest": {tamper: func(p *types.StartingPosition) { *p = types.StartingPosition{Type: types.ShardIteratorTypeTrimHorizon} }, want: "lost or repeated"},
	} {
		t.Run(name, func(t *testing.T) {
			c.o.Retention = time.Hour
			inFan(t, c.o, func(b *bed) {
				err := b.renew(c.tamper)
				if c.want == "" {
					b.do(err)
				} else if err == nil || !strings.Contains(err.Error(), c.want) {
					b.Fatalf("%v instead of %q", err, c.want)
				}
			})
		})
	}
}

// renew reads for hours, and returns what is wrong with what came. tamper changes where subscriptions
// begin, the first one excepted.
func (b *bed) renew(tamper func(*types.StartingPosition)) error {
	var ages []time.Duration
	var last time.Time
	b.intercept(func(in *awskinesis.SubscribeToShardInput) {
		if !last.IsZero() {
			ages = append(ages, time.Since(last))
			if tamper != nil {
				tamper(in.StartingPosition)
			}
		}
		last = time.Now()
	})
	b.server.Inject(fake.Fault{Operation: callSubscribe, Delay: 10 * time.Second, Times: -1}) // records arrive meanwhile
	s := b.fan(Options{})
	r := b.open(s, shard0, stream.Position{}, "")
	const n = 300
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	go func() {
		defer cancel()
		for i := range n {
			b.put("k", fmt.Sprint(i))
			if i == n/2 {
				<-time.After(2 * time.Hour)
			}
			<-time.After(7 * time.Second)
		}
		<-time.After(time.Minute)
	}()
	var got []string
	for {
		f, err := r.Read(ctx)
		if ctx.Err() != nil {
			break
		}
		b.do(err)
		got = append(got, texts(f.Records)...)
	}
	for i, text := range got {
		if text != fmt.Sprint(i) {
			return fmt.Errorf("lost or repeated: record %d is %s", i, text)
		}
	}
	if len(got) != n {
		return fmt.Errorf("lost or repeated: %d of %d records", len(got), n)
	}
	if i := slices.IndexFunc(ages, func(age time.Duration) bool { return age >= 5*time.Minute }); i >= 0 || len(ages) < 30 {
		return fmt.Errorf("%d subscriptions, after %s", len(ages)+1, ages)
	}
	if c := s.Counters(); c != (Counters{}) {
		return fmt.Errorf("%+v", c)
	}
	return nil
}

// intercept calls f with every request for a subscription that the bed's sources make from now on.
func (b *bed) intercept(f func(*awskinesis.SubscribeToShardInput)) {
	options := b.client.Options()
	options.APIOptions = append(slices.Clone(options.APIOptions), func(stack *middleware.Stack) error {
		return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("Intercept", func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
			if sub, ok := in.Parameters.(*awskinesis.SubscribeToShardInput); ok {
				f(sub)
			}
			return next.HandleInitialize(ctx, in)
		}), middleware.Before)
	})
	b.client = awskinesis.New(options)
}

// Connections that break after any number of bytes, in the middle of an event as well: every record
// arrives once.
func TestSubscriptionCut(t *testing.T) {
	inFan(t, fake.Options{}, func(b *bed) {
		data := b.puts(0, 40)
		options := b.client.Options()
		retried := int64(0)
		for most := 1; most < 12_000; most += 331 {
			options.HTTPClient = &http.Client{Transport: &cutter{b.web.Transport, most, 3}}
			b.client = awskinesis.New(options)
			s := b.fan(Options{})
			r := b.open(s, shard0, stream.Position{}, "")
			b.want(b.read(r, len(data)), data...)
			more := b.puts(len(data), 1)
			b.want(b.read(r, 1), more...)
			data = append(data, more...)
			b.do(r.Close())
			retried += s.Counters().Retried
		}
		if retried < 50 {
			b.Fatalf("%d connections broke", retried)
		}
	})
}

// cutter breaks the first few event streams after so many bytes.
type cutter struct {
	http.RoundTripper
	after, times int
}

func (c *cutter) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.RoundTripper.RoundTrip(r)
	if err == nil && c.times > 0 && resp.Header.Get("Content-Type") == "application/vnd.amazon.eventstream" {
		c.times--
		resp.Body = &cutBody{resp.Body, c.after}
	}
	return resp, err
}

type cutBody struct {
	io.ReadCloser
	left int
}

func (b *cutBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, errors.New("connection reset by peer")
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// What passes by itself is waited out and counted, and says in which state the reader is.
func TestSubscriptionFaults(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault fake.Fault
		want  Counters
		state stream.ReaderState
	}{
		{"throttled", fake.Fault{Code: fake.ProvisionedThroughputExceeded}, Counters{Throttled: 3}, stream.Throttled},
		{"limit", fake.Fault{Code: fake.LimitExceeded}, Counters{Throttled: 3}, stream.Throttled},
		{"in use", fake.Fault{Code: "ResourceInUseException"}, Counters{Throttled: 3}, stream.Throttled},
		{"internal", fake.Fault{Code: fake.InternalFailure}, Counters{Retried: 3}, stream.CaughtUp},
		{"unavailable", fake.Fault{Code: fake.ServiceUnavailable}, Counters{Retried: 3}, stream.CaughtUp},
		// Of a subscription that was made and lost the service takes the next one for the second.
		{"lost reply", fake.Fault{LoseReply: true}, Counters{Retried: 2, Throttled: 2}, stream.Throttled},
		{"no reply", fake.Fault{Delay: time.Hour}, Counters{Retried: 3}, stream.CaughtUp},
	} {
		t.Run(c.name, func(t *testing.T) {
			inFan(t, fake.Options{}, func(b *bed) {
				c.fault.Operation, c.fault.Times = callSubscribe, 3
				hit := b.server.Inject(c.fault)
				s := b.fan(Options{})
				r := b.open(s, shard0, stream.Position{}, "")
				if f := b.fetch(r); f.State != c.state || len(f.Records) != 0 {
					b.Errorf("%+v", f)
				}
				data := b.puts(0, 50)
				b.want(b.read(r, 50), data...)
				if got := s.Counters(); hit.Hits() != 3 || got != c.want {
					b.Fatalf("%d hits, %+v", hit.Hits(), got)
				}
			})
		})
	}
}

// Two readers of a shard in the name of one consumer: the later one waits until the service takes it and
// puts the earlier one out, which goes on once it may.
func TestSubscriptionTaken(t *testing.T) {
	inFan(t, fake.Options{}, func(b *bed) {
		data := b.puts(0, 10)
		s := b.fan(Options{})
		first := b.open(s, shard0, stream.Position{}, "")
		b.want(b.read(first, 10), data...)
		other := b.fan(Options{}) // another process
		began := time.Now()
		second := b.open(other, shard0, stream.Position{}, "")
		b.want(b.read(second, 10), data...)
		if took := time.Since(began); took < respite || took > 2*respite || other.Counters().Throttled != 1 {
			b.Fatalf("after %s, %+v", took, other.Counters())
		}
		b.do(second.Close())
		more := b.puts(10, 1)
		b.want(b.read(first, 1), more...)
	})
}

// A subscription that another reader of the same consumer has ended says so, once.
func TestSubscriptionPutOut(t *testing.T) {
	inFan(t, fake.Options{}, func(b *bed) {
		data := b.puts(0, 10)
		canned := slices.Concat(
			frame(`{}`, ":message-type", "event", ":event-type", "initial-response"),
			frame(`{"message":"Another active subscription exists"}`, ":message-type", "exception", ":exception-type", "ResourceInUseException"))
		options := b.client.Options()
		options.HTTPClient = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			resp, err := b.web.Transport.RoundTrip(r)
			if err == nil && canned != nil && resp.Header.Get("Content-Type") == "application/vnd.amazon.eventstream" {
				resp.Body.Close()
				resp.Body, canned = io.NopCloser(bytes.NewReader(canned)), nil
			}
			return resp, err
		})}
		b.client = awskinesis.New(options)
		var log strings.Builder
		s := b.fan(Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		r := b.open(s, shard0, stream.Position{}, "")
		if f := b.fetch(r); f.State != stream.Throttled {
			b.Fatalf("%+v", f)
		}
		b.want(b.read(r, 10), data...)
		if text := log.String(); strings.Count(text, "level=WARN") != 1 || !strings.Contains(text, "give each pipeline a consumer of its own") || s.Counters().Throttled != 1 {
			b.Fatalf("%+v\n%s", s.Counters(), text)
		}
	})
}

// The replies of every day are read without the SDK's decoder.
func TestOwnDecoder(t *testing.T) {
	inFan(t, fake.Options{}, func(b *bed) {
		data := b.puts(0, 100)
		replies, events := 0, 0
		options := b.client.Options()
		options.HTTPClient = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			resp, err := b.web.Transport.RoundTrip(r)
			b.do(err)
			switch strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "Kinesis_20131202.") {
			case callGetRecords:
				body, err := io.ReadAll(resp.Body)
				b.do(err)
				if _, ok := decodeAnswer(body, "NextShardIterator"); !ok {
					b.Errorf("%.200s", body)
				}
				replies++
				resp.Body = io.NopCloser(bytes.NewReader(body))
			case callSubscribe:
				first, err := readFrame(nil, resp.Body)
				b.do(err)
				second, err := readFrame(nil, resp.Body)
				b.do(err)
				headers := second[preludeSize : preludeSize+binary.BigEndian.Uint32(second[4:])]
				if _, ok := decodeAnswer(second[preludeSize+len(headers):len(second)-trailerSize], "ContinuationSequenceNumber"); !ok || !isEvent(headers) {
					b.Errorf("%.300q", second)
				}
				events++
				resp.Body = io.NopCloser(bytes.NewReader(slices.Concat(first, second)))
			}
			return resp, err
		})}
		b.client = awskinesis.New(options)
		b.want(b.read(b.open(b.source(Options{}), shard0, stream.Position{}, ""), 100), data...)
		b.want(b.read(b.open(b.fan(Options{}), shard0, stream.Position{}, ""), 100), data...)
		if replies == 0 || events == 0 {
			b.Fatalf("%d replies, %d events", replies, events)
		}
	})
}

// A subscription that says nothing at all is replaced.
func TestSubscriptionSilent(t *testing.T) {
	inFan(t, fake.Options{}, func(b *bed) {
		data := b.puts(0, 10)
		options := b.client.Options()
		options.HTTPClient = &http.Client{Transport: &stalled{RoundTripper: b.web.Transport}}
		b.client = awskinesis.New(options)
		s := b.fan(Options{})
		began := time.Now()
		b.want(b.read(b.open(s, shard0, stream.Position{}, ""), 10), data...)
		if took := time.Since(began); took < silence || took > 2*silence || s.Counters().Retried != 1 {
			b.Fatalf("after %s, %+v", took, s.Counters())
		}
	})
}

// stalled lets only the first bytes of the first event stream through.
type stalled struct {
	http.RoundTripper
	done bool
}

func (s *stalled) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := s.RoundTripper.RoundTrip(r)
	if err == nil && !s.done && resp.Header.Get("Content-Type") == "application/vnd.amazon.eventstream" {
		s.done = true
		resp.Body = &stalledBody{resp.Body, 120, make(chan struct{})}
	}
	return resp, err
}

type stalledBody struct {
	io.ReadCloser
	left   int
	closed chan struct{}
}

func (b *stalledBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		<-b.closed
		return 0, io.ErrClosedPipe
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func (b *stalledBody) Close() error {
	close(b.closed)
	return b.ReadCloser.Close()
}

// Nothing is created: a consumer that is missing is one line that says how to register it.
func TestConsumer(t *testing.T) {
	inBubble(t, fake.Options{Transition: 20 * time.Second}, func(b *bed) {
		<-time.After(time.Minute) // until the stream is active
		registrations := b.calls("RegisterStreamConsumer")
		_, err := New(b.Context(), Options{Stream: "s", Client: b.client, Consumer: consumer, Logger: slog.New(slog.DiscardHandler)})
		const command = "aws kinesis register-stream-consumer --stream-arn arn:aws:kinesis:us-east-1:000000000000:stream/s --consumer-name fan"
		if !errors.Is(err, ErrNoConsumer) || !strings.Contains(err.Error(), command) || strings.Contains(err.Error(), "\n") || registrations.Hits() != 0 {
			b.Fatal(err)
		}
		b.register("s")
		began := time.Now()
		s := b.fan(Options{}) // waits while it is created
		if took := time.Since(began); took < 20*time.Second || took > 25*time.Second {
			b.Fatalf("after %s", took)
		}
		bounded, cancel := context.WithTimeout(b.Context(), 10*time.Second)
		defer cancel()
		b.do(b.server.CreateStream("other", 1))
		<-time.After(time.Minute)
		b.register("other")
		_, err = New(bounded, Options{Stream: "other", Client: b.client, Consumer: consumer})
		if !errors.Is(err, context.DeadlineExceeded) {
			b.Fatal(err)
		}
		b.puts(0, 3)
		r := b.open(s, shard0, stream.Position{}, "")
		b.read(r, 3)
		_, err = b.client.DeregisterStreamConsumer(b.Context(), &awskinesis.DeregisterStreamConsumerInput{ConsumerARN: &s.consumer})
		b.do(err)
		for err == nil {
			_, err = r.Read(b.Context())
		}
		if !strings.Contains(err.Error(), "consumer fan is not registered any more") || errors.Is(err, stream.ErrPartitionGone) {
			b.Fatal(err)
		}
	})
}

// A consumer that stays CREATING for longer than one waits is told.
func TestConsumerNeverActive(t *testing.T) {
	inBubble(t, fake.Options{Transition: time.Hour}, func(b *bed) {
		<-time.After(2 * time.Hour)
		b.register("s")
		_, err := New(b.Context(), Options{Stream: "s", Client: b.client, Consumer: consumer})
		if err == nil || !strings.Contains(err.Error(), "consumer fan has been CREATING for 1m0s") {
			b.Fatal(err)
		}
	})
}

func TestSubscriptionStart(t *testing.T) {
	inFan(t, fake.Options{}, func(b *bed) {
		b.puts(0, 2)
		<-time.After(time.Minute)
		middle := time.Now()
		b.puts(2, 2)
		<-time.After(time.Minute)
		latest := b.fan(Options{Start: "latest"})
		tip, err := latest.Tip(b.Context())
		b.do(err)
		<-time.After(time.Second)
		b.puts(4, 2)
		b.do(b.server.Split("s", shard0))
		b.puts(6, 30)
		since := b.fan(Options{Start: middle.Format(time.RFC3339Nano)})
		old, end := b.rest(b.open(since, shard0, stream.Position{}, ""))
		b.want(old, "2", "3", "4", "5")
		if len(end.Children) != 2 || !slices.Equal(end.Children[0].Parents, []string{shard0}) {
			b.Fatalf("%+v", end)
		}
		recent, _ := b.rest(b.open(latest, shard0, stream.Position{}, tip))
		b.want(recent, "4", "5")
		n := 0
		for _, p := range end.Children {
			n += len(b.fetch(b.open(since, p.Name, stream.Position{}, "")).Records)
		}
		if n != 30 {
			b.Fatalf("%d of the children's 30 records", n)
		}
	})
}

func TestSubscriptionUntilEnd(t *testing.T) {
	inFan(t, fake.Options{}, func(b *bed) {
		s := b.fan(Options{UntilEnd: true})
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
		records, _ := b.rest(b.open(s, shard0, stream.Position{}, tip))
		b.want(records, data...)
		more, _ := b.rest(b.open(s, shard0, records[4].Position, tip))
		b.want(more)
	})
}

// A reader at the tip of a shard that closes is told in an event without records.
func TestSubscriptionSplit(t *testing.T) {
	inFan(t, fake.Options{}, func(b *bed) {
		s := b.fan(Options{})
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

// Aggregates go on at any of their user records.
func TestSubscriptionAggregates(t *testing.T) {
	inFan(t, fake.Options{}, func(b *bed) {
		var data []string
		for i := range 4 {
			var us []fake.UserRecord
			for j := range 5 {
				text := fmt.Sprint(i, "/", j)
				us = append(us, fake.UserRecord{PartitionKey: "k", Data: []byte(text)})
				data = append(data, text)
			}
			b.put("k", string(fake.Aggregate(us)))
		}
		s := b.fan(Options{})
		records := b.read(b.open(s, shard0, stream.Position{}, ""), 20)
		b.want(records, data...)
		for i := range records[:19] {
			r := b.open(s, shard0, records[i].Position, "")
			b.want(b.read(r, 19-i), data[i+1:]...)
			b.do(r.Close())
		}
	})
}

// What says neither where to go on nor which shards do is no end of the shard.
func TestNoFalseEnd(t *testing.T) {
	for operation, canned := range map[string][]byte{
		callGetRecords: []byte(`{}`),
		callSubscribe:  slices.Concat(frame(`{}`, ":message-type", "event", ":event-type", "initial-response"), event(`{"Records":[],"MillisBehindLatest":0}`)),
	} {
		for _, sdk := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/sdk=%t", operation, sdk), func(t *testing.T) {
				inFan(t, fake.Options{}, func(b *bed) {
					data := b.puts(0, 10)
					left := 3
					options := b.client.Options()
					options.HTTPClient = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
						resp, err := b.web.Transport.RoundTrip(r)
						if err == nil && left > 0 && strings.HasSuffix(r.Header.Get("X-Amz-Target"), operation) {
							left--
							resp.Body.Close()
							resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(canned)), int64(len(canned))
						}
						return resp, err
					})}
					b.client = awskinesis.New(options)
					o := Options{SDKDecoder: sdk}
					if operation == callSubscribe {
						o.Consumer = consumer
					}
					s := b.source(o)
					b.want(b.read(b.open(s, shard0, stream.Position{}, ""), 10), data...)
					if left != 0 || s.Counters() != (Counters{Retried: 3}) {
						b.Fatalf("%d left, %+v", left, s.Counters())
					}
				})
			})
		}
	}
}

// Subscriptions over HTTP/2, as the service requires it: two shards share a connection.
func TestSubscriptionHTTP2(t *testing.T) {
	server := fake.New(fake.Options{})
	defer server.Close()
	web := httptest.NewUnstartedServer(server)
	var mu sync.Mutex
	lines := make(map[string]bool)
	web.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.Header.Get("X-Amz-Target"), callSubscribe) {
			mu.Lock()
			lines[r.Proto+" "+r.RemoteAddr] = true
			mu.Unlock()
		}
		server.ServeHTTP(w, r)
	})
	web.EnableHTTP2 = true
	web.StartTLS()
	defer web.Close()
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CA_BUNDLE", bundle)
	config, err := cloud.Load(t.Context(), cloud.Options{Endpoint: web.URL})
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{T: t, server: server, client: awskinesis.NewFromConfig(config)}
	b.do(server.CreateStream("s", 2))
	b.register("s")
	data := b.puts(0, 100)
	s := b.fan(Options{})
	var got []string
	for i := range 2 {
		r := b.open(s, shardName(i), stream.Position{}, "")
		defer r.Close()
		got = append(got, texts(b.fetch(r).Records)...)
	}
	slices.SortFunc(got, func(x, y string) int { return cmp.Or(len(x)-len(y), strings.Compare(x, y)) })
	if !slices.Equal(got, data) {
		t.Fatalf("%q", got)
	}
	mu.Lock()
	defer mu.Unlock()
	for line := range lines {
		if len(lines) != 1 || !strings.HasPrefix(line, "HTTP/2.0 ") {
			t.Fatalf("%v", lines)
		}
	}
}
