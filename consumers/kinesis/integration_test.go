//go:build integration

package kinesis

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	cloud "github.com/millstream/millstream/cloud/aws"
	"github.com/millstream/millstream/cloud/retry"
	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/consumers/consumertest"
	fake "github.com/millstream/millstream/fakes/kinesis"
	"github.com/millstream/millstream/stream"
)

// peers are servers that others wrote, so that the fake cannot drift into our own misunderstanding of
// the service. Start them as the variables say, and give their URLs:
//
//	kinesalite --port 4577 --shardLimit 500 --createStreamMs 50      MILLSTREAM_TEST_KINESALITE=http://127.0.0.1:4577
//	node kinesis-local/main.js (see its README)                      MILLSTREAM_TEST_KINESIS_LOCAL=http://127.0.0.1:4568
func eachPeer(t *testing.T, f func(t *testing.T, p *peer)) {
	for _, name := range []string{"MILLSTREAM_TEST_KINESALITE", "MILLSTREAM_TEST_KINESIS_LOCAL"} {
		t.Run(name, func(t *testing.T) {
			endpoint := os.Getenv(name)
			if endpoint == "" {
				t.Fatalf("%s is not set", name)
			}
			c, err := cloud.Load(t.Context(), cloud.Options{Endpoint: endpoint})
			if err != nil {
				t.Fatal(err)
			}
			f(t, &peer{T: t, client: awskinesis.NewFromConfig(c)})
		})
	}
}

type peer struct {
	*testing.T
	client *awskinesis.Client
	stream string
}

func (p *peer) do(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// create makes a stream of its own for the test.
func (p *peer) create(shards int32) {
	p.Helper()
	p.stream = fmt.Sprintf("t-%d", time.Now().UnixNano())
	_, err := p.client.CreateStream(p.Context(), &awskinesis.CreateStreamInput{StreamName: &p.stream, ShardCount: &shards})
	p.do(err)
	p.Cleanup(func() {
		_, err := p.client.DeleteStream(context.Background(), &awskinesis.DeleteStreamInput{StreamName: &p.stream})
		if err != nil {
			p.Error(err)
		}
	})
	p.active()
}

func (p *peer) active() {
	p.Helper()
	p.do(awskinesis.NewStreamExistsWaiter(p.client, func(o *awskinesis.StreamExistsWaiterOptions) {
		o.MinDelay, o.MaxDelay = 20*time.Millisecond, 100*time.Millisecond
	}).Wait(p.Context(), &awskinesis.DescribeStreamInput{StreamName: &p.stream}, 20*time.Second))
}

func (p *peer) put(key string, data []byte) {
	p.Helper()
	_, err := p.client.PutRecord(p.Context(), &awskinesis.PutRecordInput{StreamName: &p.stream, PartitionKey: &key, Data: data})
	p.do(err)
}

func (p *peer) source(o Options) *Source {
	p.Helper()
	o.Stream, o.Client, o.Logger = p.stream, p.client, slog.New(slog.DiscardHandler)
	o.PollEvery = 20 * time.Millisecond
	s, err := New(p.Context(), o)
	p.do(err)
	return s
}

// nextSecond returns when the server's clock shows another second than it does now.
func (p *peer) nextSecond() {
	p.Helper()
	s := p.source(Options{})
	first, err := s.now(p.Context())
	p.do(err)
	for t := first; t.from.Before(first.before); {
		p.do(retry.Sleep(p.Context(), 20*time.Millisecond))
		t, err = s.now(p.Context())
		p.do(err)
	}
}

func (p *peer) split(shard string) {
	p.Helper()
	p.splitAt(shard, "170141183460469231731687303715884105728")
}

func (p *peer) splitAt(shard, half string) {
	p.Helper()
	_, err := p.client.SplitShard(p.Context(), &awskinesis.SplitShardInput{StreamName: &p.stream, ShardToSplit: &shard, NewStartingHashKey: &half})
	p.do(err)
	p.active()
}

func (p *peer) merge(a, b string) {
	p.Helper()
	_, err := p.client.MergeShards(p.Context(), &awskinesis.MergeShardsInput{StreamName: &p.stream, ShardToMerge: &a, AdjacentShardToMerge: &b})
	p.do(err)
	p.active()
}

func (p *peer) rest(s *Source, shard string, from stream.Position, tip string) ([]stream.Record, *stream.PartitionEnd) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), 30*time.Second)
	defer cancel()
	r, err := s.Open(ctx, shard, from, tip)
	p.do(err)
	var records []stream.Record
	for {
		f, err := r.Read(ctx)
		p.do(err)
		records = append(records, f.Records...)
		if f.End != nil {
			return records, f.End
		}
	}
}

// A split and a merge: every record, in order, parents and children as the listing has them, though
// one server tells no children and the other wrong ending sequence numbers.
func TestPeerReshard(t *testing.T) {
	eachPeer(t, func(t *testing.T, p *peer) {
		p.create(1)
		for i := range 10 {
			p.put("k", fmt.Append(nil, i))
		}
		p.split(shardName(0))
		for i := range 40 {
			p.put(fmt.Sprint("k", i), fmt.Append(nil, 10+i))
		}
		p.merge(shardName(1), shardName(2))
		for i := range 10 {
			p.put("k", fmt.Append(nil, 50+i))
		}
		// kinesalite dates what comes after a reshard up to a second ahead, for each reshard.
		for range 3 {
			p.nextSecond()
		}
		s := p.source(Options{UntilEnd: true})
		tip, err := s.Tip(t.Context())
		p.do(err)
		want := []stream.Partition{
			{Name: shardName(0)},
			{Name: shardName(1), Parents: []string{shardName(0)}},
			{Name: shardName(2), Parents: []string{shardName(0)}},
			{Name: shardName(3), Parents: []string{shardName(1), shardName(2)}},
		}
		ps, err := s.Partitions(t.Context())
		p.do(err)
		if fmt.Sprint(ps) != fmt.Sprint(want) {
			t.Fatalf("partitions %v", ps)
		}
		children := [][]stream.Partition{{want[1], want[2]}, {want[3]}, {want[3]}, nil}
		var all []stream.Record
		for i, partition := range ps {
			records, end := p.rest(s, partition.Name, stream.Position{}, tip)
			slices.SortFunc(end.Children, func(a, b stream.Partition) int { return cmp.Compare(a.Name, b.Name) })
			if fmt.Sprint(end.Children) != fmt.Sprint(children[i]) || end.Lost {
				t.Errorf("%s ended with %+v", partition.Name, end)
			}
			for j := range records {
				rest, _ := p.rest(s, partition.Name, records[j].Position, tip)
				if !slices.Equal(texts(rest), texts(records[j+1:])) {
					t.Fatalf("resumed behind %s: %q", records[j].Position, texts(rest))
				}
			}
			all = append(all, records...)
		}
		if len(all) != 60 {
			t.Fatalf("%d of 60 records", len(all))
		}
	})
}

// Volume: more than one reply of GetRecords, written by PutRecords.
func TestPeerVolume(t *testing.T) {
	eachPeer(t, func(t *testing.T, p *peer) {
		p.create(1)
		n := 12_000
		if strings.HasSuffix(t.Name(), "KINESIS_LOCAL") {
			n = 1_500 // it takes a second for 700
		}
		for i := 0; i < n; i += 500 {
			in := &awskinesis.PutRecordsInput{StreamName: &p.stream}
			for j := i; j < i+500; j++ {
				in.Records = append(in.Records, types.PutRecordsRequestEntry{Data: fmt.Append(nil, j), PartitionKey: aws.String("k")})
			}
			out, err := p.client.PutRecords(t.Context(), in)
			p.do(err)
			if aws.ToInt32(out.FailedRecordCount) != 0 {
				t.Fatal("records failed")
			}
		}
		s := p.source(Options{UntilEnd: true})
		tip, err := s.Tip(t.Context())
		p.do(err)
		records, _ := p.rest(s, shardName(0), stream.Position{}, tip)
		if len(records) != n {
			t.Fatalf("%d of %d records", len(records), n)
		}
		for i := range records {
			if string(records[i].Data) != fmt.Sprint(i) {
				t.Fatalf("record %d is %q", i, records[i].Data)
			}
		}
	})
}

// Aggregates pass through unharmed, and are resumed in their midst.
func TestPeerAggregates(t *testing.T) {
	eachPeer(t, func(t *testing.T, p *peer) {
		p.create(1)
		var us []fake.UserRecord
		var want []string
		for i := range 20 {
			us = append(us, fake.UserRecord{PartitionKey: fmt.Sprint(i), Data: fmt.Append(nil, i)})
			want = append(want, fmt.Sprint(i))
		}
		p.put("a", fake.Aggregate(us[:12]))
		p.put("a", us[12].Data)
		p.put("a", fake.Aggregate(us[13:]))
		p.split(shardName(0))
		if err := checkResume(t.Context(), p.source(Options{}), want); err != nil {
			t.Fatal(err)
		}
	})
}

func TestPeerStart(t *testing.T) {
	eachPeer(t, func(t *testing.T, p *peer) {
		p.create(1)
		p.put("k", []byte("before"))
		p.nextSecond()
		middle := time.Now()
		p.nextSecond()
		latest := p.source(Options{Start: "latest"})
		latestTip, err := latest.Tip(t.Context())
		p.do(err)
		p.put("k", []byte("after"))
		until := p.source(Options{UntilEnd: true})
		tip, err := until.Tip(t.Context())
		p.do(err)
		for name, c := range map[string]struct {
			s    *Source
			tip  string
			want []string
		}{
			"earliest": {until, tip, []string{"before", "after"}},
			"time":     {p.source(Options{Start: middle.UTC().Format(time.RFC3339Nano)}), tip, []string{"after"}},
			"latest":   {latest, latestTip + "&" + tip, []string{"after"}},
		} {
			records, _ := p.rest(c.s, shardName(0), stream.Position{}, c.tip)
			if !slices.Equal(texts(records), c.want) {
				t.Errorf("%s: %q", name, texts(records))
			}
		}
	})
}

// The conformance suite over a server that others wrote: plain by our decoder, aggregated by the SDK's.
func TestPeerConformance(t *testing.T) {
	eachPeer(t, func(t *testing.T, p *peer) {
		for packed, sdk := range map[int]bool{1: false, 7: true} {
			t.Run(fmt.Sprintf("packed=%d", packed), func(t *testing.T) {
				consumertest.Run(t, func(t *testing.T) *consumertest.Stream {
					q := &peer{T: t, client: p.client}
					q.create(2)
					return &consumertest.Stream{
						Source:  q.source(Options{SDKDecoder: sdk}),
						Publish: q.publish(packed),
						Again:   func() (consumers.Source, error) { return q.source(Options{SDKDecoder: sdk}), nil },
						Bounded: func() (consumers.Source, error) { return q.source(Options{UntilEnd: true, SDKDecoder: sdk}), nil },
						End: func(shard string) error {
							_, r := q.rangeOf(shard)
							q.splitAt(shard, middle(r))
							return nil
						},
						Missing: shardName(99),
						Largest: 900 << 10,
					}
				})
			})
		}
	})
}

// What servers that others wrote reply is read without the SDK's decoder, and alike.
func TestPeerDecode(t *testing.T) {
	eachPeer(t, func(t *testing.T, p *peer) {
		p.create(1)
		for i := range 300 {
			p.put(fmt.Sprint("ключ ", i), []byte(strings.Repeat("é\x00", i)))
		}
		replies := 0
		options := p.client.Options()
		options.HTTPClient = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			resp, err := http.DefaultTransport.RoundTrip(r)
			if err == nil && strings.HasSuffix(r.Header.Get("X-Amz-Target"), callGetRecords) {
				body, err := io.ReadAll(resp.Body)
				p.do(err)
				if _, ok := decodeAnswer(body, "NextShardIterator"); !ok {
					t.Errorf("left to the SDK: %.300s", body)
				}
				p.do(differ(body))
				replies++
				resp.Body = io.NopCloser(bytes.NewReader(body))
			}
			return resp, err
		})}
		p.client = awskinesis.New(options)
		r, err := p.source(Options{}).Open(t.Context(), shard0, stream.Position{}, "")
		p.do(err)
		for n := 0; n < 300; {
			f, err := r.Read(t.Context())
			p.do(err)
			n += len(f.Records)
		}
		if replies == 0 {
			t.Fatal("no reply")
		}
	})
}

// rangeOf returns a shard's first hash key, in decimal, and its range.
func (p *peer) rangeOf(name string) (string, cloud.HashRange) {
	p.Helper()
	out, err := p.client.ListShards(p.Context(), &awskinesis.ListShardsInput{StreamName: &p.stream})
	p.do(err)
	for _, sh := range out.Shards {
		if *sh.ShardId == name {
			r, err := cloud.ParseHashRange(sh.HashKeyRange)
			p.do(err)
			return *sh.HashKeyRange.StartingHashKey, r
		}
	}
	p.Fatalf("no shard %s", name)
	return "", cloud.HashRange{}
}

// publish puts records into a shard, in order, packed ones by the fake's aggregation.
func (p *peer) publish(packed int) func(string, ...[]byte) error {
	return func(shard string, data ...[]byte) error {
		p.Helper()
		at, _ := p.rangeOf(shard)
		for _, blob := range pack(packed, at, data) {
			_, err := p.client.PutRecord(p.Context(), &awskinesis.PutRecordInput{
				StreamName: &p.stream, PartitionKey: aws.String("k"), ExplicitHashKey: &at, Data: blob})
			if err != nil {
				return err
			}
		}
		return nil
	}
}

func TestPeerErrors(t *testing.T) {
	eachPeer(t, func(t *testing.T, p *peer) {
		p.create(1)
		if _, err := New(t.Context(), Options{Stream: "absent", Client: p.client}); err == nil || classify(err) != missing {
			t.Errorf("missing stream: %v", err)
		} else {
			t.Log(err)
		}
		_, err := p.source(Options{}).Open(t.Context(), shardName(9), stream.Position{}, "")
		if !errors.Is(err, stream.ErrPartitionGone) {
			t.Errorf("missing shard: %v", err)
		}
	})
}
