package kinesis

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"

	cloud "github.com/millstream/millstream/cloud/aws"
	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/consumers/consumertest"
	fake "github.com/millstream/millstream/fakes/kinesis"
	"github.com/millstream/millstream/stream"
)

// The conformance suite over real connections to the fake.
func TestConformance(t *testing.T) {
	server := fake.New(fake.Options{MaxRecordBytes: 10 << 20})
	t.Cleanup(func() { server.Close() })
	endpoint, err := server.Start()
	if err != nil {
		t.Fatal(err)
	}
	config, err := cloud.Load(t.Context(), cloud.Options{Endpoint: endpoint})
	if err != nil {
		t.Fatal(err)
	}
	client := awskinesis.NewFromConfig(config)
	var streams atomic.Int64
	consumertest.Run(t, func(t *testing.T) *consumertest.Stream {
		name := fmt.Sprint("s", streams.Add(1))
		if err := server.CreateStream(name, 2); err != nil {
			t.Fatal(err)
		}
		source := func(o Options) (consumers.Source, error) {
			o.Stream, o.Client, o.Logger = name, client, slog.New(slog.DiscardHandler)
			o.PollEvery = 5 * time.Millisecond
			return New(t.Context(), o)
		}
		src, err := source(Options{})
		if err != nil {
			t.Fatal(err)
		}
		var throttle *fake.Injection
		return &consumertest.Stream{
			Source:  src,
			Publish: func(shard string, data ...[]byte) error { return publish(server, name, shard, 1, data) },
			Again:   func() (consumers.Source, error) { return source(Options{}) },
			Bounded: func() (consumers.Source, error) { return source(Options{UntilEnd: true}) },
			End:     func(shard string) error { return server.Split(name, shard) },
			Disconnect: func() error {
				server.Inject(fake.Fault{Operation: callGetRecords, Stream: name, CutReply: true})
				server.ExpireIterators()
				return nil
			},
			Throttle: func(on bool) error {
				if !on {
					throttle.Stop()
					return nil
				}
				throttle = server.Inject(fake.Fault{Operation: callGetRecords, Stream: name, Code: fake.ProvisionedThroughputExceeded, Times: -1})
				return nil
			},
			Missing: shardName(99),
			Largest: 10<<20 - len("k"),
		}
	})
}

// The suite over polling and subscriptions, with both decoders, in virtual time: a shard takes a
// subscription every five seconds.
func TestConformanceVirtual(t *testing.T) {
	for _, by := range []string{"", consumer} {
		for _, sdk := range []bool{false, true} {
			for _, packed := range []int{1, 7} {
				t.Run(fmt.Sprintf("consumer=%s/sdk=%t/packed=%d", by, sdk, packed), func(t *testing.T) {
					consumertest.RunVirtual(t, func(t *testing.T) *consumertest.Stream {
						return virtual(newBed(t, fake.Options{MaxRecordBytes: 10 << 20}), Options{Consumer: by, SDKDecoder: sdk}, packed)
					})
				})
			}
		}
	}
}

// virtual makes a stream of two shards that the suite may do everything to, read with the given options.
func virtual(b *bed, o Options, packed int) *consumertest.Stream {
	b.do(b.server.CreateStream("two", 2))
	b.register("two")
	lines := &breaker{RoundTripper: b.web.Transport}
	options := b.client.Options()
	options.HTTPClient = cloud.Steady(&http.Client{Transport: lines})
	b.client = awskinesis.New(options)
	source := func(until bool) (consumers.Source, error) {
		o.Stream, o.Client, o.UntilEnd, o.Logger = "two", b.client, until, slog.New(slog.DiscardHandler)
		src, err := New(b.Context(), o)
		return closing{src, b}, err
	}
	src, err := source(false)
	b.do(err)
	refused := fake.Fault{Operation: callGetRecords, Code: fake.ProvisionedThroughputExceeded, Times: -1}
	if o.Consumer != "" {
		refused = fake.Fault{Operation: callSubscribe, Code: fake.LimitExceeded, Times: -1}
	}
	var throttle *fake.Injection
	s := &consumertest.Stream{
		Source:  src,
		Publish: func(shard string, data ...[]byte) error { return publish(b.server, "two", shard, packed, data) },
		Again:   func() (consumers.Source, error) { return source(false) },
		Bounded: func() (consumers.Source, error) { return source(true) },
		End:     func(shard string) error { return b.server.Split("two", shard) },
		Disconnect: func() error {
			lines.cut()
			b.server.ExpireIterators()
			return nil
		},
		Throttle: func(on bool) error {
			if !on {
				throttle.Stop()
				return nil
			}
			throttle = b.server.Inject(refused)
			lines.cut()
			return nil
		},
		Missing: shardName(99),
		Largest: 10<<20 - len("k"),
	}
	if packed > 1 {
		s.Largest -= 200 // what an aggregate has around its data
	}
	return s
}

// closing closes the readers that the suite leaves open when its bubble ends.
type closing struct {
	consumers.Source
	b *bed
}

func (c closing) Open(ctx context.Context, partition string, from stream.Position, tip string) (consumers.Reader, error) {
	r, err := c.Source.Open(ctx, partition, from, tip)
	if err == nil {
		c.b.readers = append(c.b.readers, r)
	}
	return r, err
}

// breaker breaks connections on demand.
type breaker struct {
	http.RoundTripper
	mu   sync.Mutex
	open []io.Closer
}

func (l *breaker) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(r)
	if err == nil {
		l.mu.Lock()
		l.open = append(l.open, resp.Body)
		l.mu.Unlock()
	}
	return resp, err
}

func (l *breaker) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, body := range l.open {
		body.Close()
	}
	l.open = nil
}

// publish writes records to a shard, n of them in one.
func publish(server *fake.Server, name, shard string, packed int, data [][]byte) error {
	at, err := startOf(server, name, shard)
	if err != nil {
		return err
	}
	var records []fake.Record
	for _, blob := range pack(packed, at, data) {
		records = append(records, fake.Record{PartitionKey: "k", ExplicitHashKey: at, Data: blob})
	}
	return server.PutBatch(name, records)
}

// startOf is a shard's first hash key, which routes a record to it.
func startOf(server *fake.Server, stream, shard string) (string, error) {
	shards, err := server.Shards(stream)
	for _, sh := range shards {
		if sh.ID == shard {
			return sh.StartingHashKey, nil
		}
	}
	return "", fmt.Errorf("no shard %s: %w", shard, err)
}

// pack makes Kinesis records of n user records each, all with the hash key at; of one, plain ones.
func pack(n int, at string, data [][]byte) (blobs [][]byte) {
	if n == 1 {
		return data
	}
	for len(data) > 0 {
		var us []fake.UserRecord
		for len(data) > 0 && len(us) < n {
			us = append(us, fake.UserRecord{PartitionKey: "k", ExplicitHashKey: at, Data: data[0]})
			data = data[1:]
		}
		blobs = append(blobs, fake.Aggregate(us))
	}
	return blobs
}

// middle is the first hash key of the upper half of a range.
func middle(r cloud.HashRange) string {
	sum := new(big.Int).Add(new(big.Int).SetBytes(r.From[:]), new(big.Int).SetBytes(r.To[:]))
	return sum.Rsh(sum.Add(sum, big.NewInt(1)), 1).String()
}
