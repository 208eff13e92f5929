// Package kinesis reads Amazon Kinesis Data Streams: a consumers.Source whose partitions are the
// stream's shards.
//
// # The life of a shard
//
// A shard appears in ListShards when the stream is made, or when a reshard splits one shard or merges
// two; then it names them as its parents. [Source.Partitions] lists every shard that the service
// still knows, closed ones that hold data included, with both parents. The engine opens a shard once
// the parents' ends are saved, so that a key's records stay in order across a reshard.
//
// A reader takes an iterator for its position and polls GetRecords: at once while it is behind, four
// times a second at the tip. Iterators expire; a new one is taken for the position behind the last
// record that was delivered. With Options.Consumer (enhanced fan-out) it calls SubscribeToShard instead
// and is pushed events for up to five minutes, each of which says where the next subscription begins.
// Throttling, lost connections and internal errors are waited out with back-off and jitter, and counted.
// Aggregates of the Kinesis Producer Library are unpacked. When the shard is closed and read to its end,
// the service hands out no further iterator, or an event names the children, and the reader reports
// the children that continue it.
//
// # Positions
//
// A record's position is also the place behind it: opening there delivers what follows it, and
// nothing twice. Token is the Kinesis sequence number. Number is 0 for a plain record; for user
// record i (from 0, in the aggregate's order, dropped ones counted) of an aggregate it is i + 1, the
// count of its user records that are done. Resuming reads the record at Token again and skips what is
// done; when that record is no longer there, others may have expired unread too, and that is counted.
// Positions that another program left are made by [Behind], [Oldest] and [Since].
package kinesis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go/middleware"

	cloud "github.com/millstream/millstream/cloud/aws"
	"github.com/millstream/millstream/cloud/retry"
	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/stream"
)

// Options configures a Source. Only Stream is required.
type Options struct {
	// Stream is the stream's name or ARN. An ARN names the region, and the account, which may be another
	// than the credentials': every request carries it.
	Stream string
	// Region and Endpoint are as in cloud/aws.Options.
	Region, Endpoint string
	// Start is where shards are begun that nothing was ever saved of: "earliest" (the default, the
	// oldest records still held), "latest" (what arrives after the pipeline's first start) or an
	// RFC 3339 time. "latest" is the moment at which Tip is first asked, and stays it across restarts
	// when readers are given that tip. Shards that a reshard opens later are always read from their
	// first record.
	Start string
	// UntilEnd makes Tip return the present moment: reading ends with the last record that arrived
	// before it.
	UntilEnd bool
	// PollEvery is the wait between two polls of a shard that has nothing new. Default 250 ms. The
	// service allows 5 calls a second for each shard, shared by all its readers.
	PollEvery time.Duration
	// Consumer is the name of a consumer that is registered with the stream: then shards are read by
	// enhanced fan-out, 2 MB a second for this consumer alone, and not polled. Two pipelines need two
	// consumers, since a second subscription ends the first. New waits up to a minute for one that is
	// being created; one that is missing is an error that wraps ErrNoConsumer.
	Consumer string
	// SDKDecoder leaves the decoding of records to the SDK, as everything else is. The records are the
	// same; BenchmarkDrain says what it costs.
	SDKDecoder bool
	// Client is used instead of one made from Region and Endpoint. Its retries are switched off: the
	// reader retries, so that throttling is seen and counted.
	Client *awskinesis.Client
	// Logger hears of what is waited out. Default: slog.Default().
	Logger *slog.Logger
}

// Counters says what a Source has met since it was made.
type Counters struct {
	Throttled    int64 // calls refused because of their rate
	Retried      int64 // calls that failed for a passing reason: lost connections, internal errors
	Reacquired   int64 // iterators that had expired and were taken anew
	Expired      int64 // positions whose record had expired when reading resumed: some records may be lost
	Deaggregated int64 // Kinesis records that were aggregates
	UserRecords  int64 // records that came out of aggregates
	Foreign      int64 // user records dropped: their hash key belongs to another shard
	Broken       int64 // user records that do not parse, delivered as their raw bytes
}

type counters struct {
	throttled, retried, reacquired, expired, deaggregated, userRecords, foreign, broken atomic.Int64
}

// api is what the driver uses of the SDK's client.
type api interface {
	ListShards(context.Context, *awskinesis.ListShardsInput, ...func(*awskinesis.Options)) (*awskinesis.ListShardsOutput, error)
	GetShardIterator(context.Context, *awskinesis.GetShardIteratorInput, ...func(*awskinesis.Options)) (*awskinesis.GetShardIteratorOutput, error)
	GetRecords(context.Context, *awskinesis.GetRecordsInput, ...func(*awskinesis.Options)) (*awskinesis.GetRecordsOutput, error)
	SubscribeToShard(context.Context, *awskinesis.SubscribeToShardInput, ...func(*awskinesis.Options)) (*awskinesis.SubscribeToShardOutput, error)
	DescribeStreamConsumer(context.Context, *awskinesis.DescribeStreamConsumerInput, ...func(*awskinesis.Options)) (*awskinesis.DescribeStreamConsumerOutput, error)
	DescribeStreamSummary(context.Context, *awskinesis.DescribeStreamSummaryInput, ...func(*awskinesis.Options)) (*awskinesis.DescribeStreamSummaryOutput, error)
}

// Source is one stream. It implements consumers.Source.
type Source struct {
	options  Options
	api      api
	stream   cloud.KinesisStream
	region   string
	consumer string // its ARN; empty: poll
	start    startAt
	paced    bool // keep below the service's limits from the first call on
	logger   *slog.Logger
	counters counters

	began time.Time // what "latest" means for readers without a tip

	mu         sync.Mutex
	shards     map[string]shard
	subscribed map[string]time.Time // when shards were subscribed to in the last seconds
}

var _ consumers.Source = (*Source)(nil)

// startAt is the parsed Options.Start.
type startAt struct {
	latest bool
	at     time.Time
}

func parseStart(s string) (startAt, error) {
	switch s {
	case "", "earliest":
		return startAt{}, nil
	case "latest":
		return startAt{latest: true}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return startAt{}, fmt.Errorf("start=%s: want earliest, latest or an RFC 3339 time such as 2026-01-02T15:04:05Z", s)
	}
	if t.After(time.Now()) {
		return startAt{}, fmt.Errorf("start=%s is in the future", s)
	}
	return startAt{at: t}, nil
}

// New makes a Source and asks the service for the stream once, so that a missing stream, a wrong
// region, expired credentials or an unreachable endpoint is an error here.
func New(ctx context.Context, o Options) (*Source, error) {
	s := &Source{options: o, logger: o.Logger, subscribed: make(map[string]time.Time)}
	if s.logger == nil {
		s.logger = slog.Default()
	}
	if s.options.PollEvery <= 0 {
		s.options.PollEvery = 250 * time.Millisecond
	}
	var err error
	if s.stream, err = cloud.ParseKinesisStream(o.Stream); err != nil {
		return nil, fmt.Errorf("kinesis: %w", err)
	}
	if of := s.stream.Region; of != "" {
		if o.Region != "" && o.Region != of {
			return nil, fmt.Errorf("kinesis: stream %s is in %s, as its ARN says, and not in %s: leave the region out", s.stream.Name, of, o.Region)
		}
		o.Region = of
	}
	if s.start, err = parseStart(o.Start); err != nil {
		return nil, fmt.Errorf("kinesis: %w", err)
	}
	client := o.Client
	if client == nil {
		c, err := cloud.Load(ctx, cloud.Options{Region: o.Region, Endpoint: o.Endpoint})
		if err != nil {
			return nil, fmt.Errorf("kinesis: %w", err)
		}
		client = awskinesis.NewFromConfig(c)
	}
	s.api, s.region = client, client.Options().Region
	if s.stream.Region != "" {
		s.region = s.stream.Region
	}
	s.paced = !cloud.Options{Endpoint: aws.ToString(client.Options().BaseEndpoint)}.Local()
	t, err := s.now(ctx)
	if err != nil {
		return nil, err
	}
	s.began = t.likely
	if o.Consumer != "" {
		if s.consumer, err = s.registered(ctx); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// feed makes what brings a shard's records.
func (s *Source) feed(shard string) feed {
	if s.consumer != "" {
		return &subscription{src: s, shard: &shard}
	}
	return &polling{src: s, shard: &shard, paced: s.paced}
}

// Identity names the stream for the plan: its region and name, however it was given. The account is no
// part of it, since a name does not tell it: another account's stream of the same name is told by its
// sequence numbers.
func (s *Source) Identity() string { return "kinesis://" + s.region + "/" + s.stream.Name }

// Counters returns what has been met so far. Safe for concurrent use.
func (s *Source) Counters() Counters {
	c := &s.counters
	return Counters{
		Throttled: c.throttled.Load(), Retried: c.retried.Load(), Reacquired: c.reacquired.Load(), Expired: c.expired.Load(),
		Deaggregated: c.deaggregated.Load(), UserRecords: c.userRecords.Load(),
		Foreign: c.foreign.Load(), Broken: c.broken.Load(),
	}
}

// Close does nothing: a Source holds no goroutine, and its connections are the client's.
func (s *Source) Close() error { return nil }

// Open begins to read a shard behind from. The service is asked by the first Read.
func (s *Source) Open(ctx context.Context, partition string, from stream.Position, tip string) (consumers.Reader, error) {
	if from.Token == "" && from.Number != 0 || from.Number < 0 {
		return nil, fmt.Errorf("%s: position %s is not of a Kinesis stream", s.subject(partition), from)
	}
	m, err := parseMark(tip)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.subject(partition), err)
	}
	sh, err := s.shard(ctx, partition)
	if err != nil {
		return nil, err
	}
	r := &reader{src: s, shard: sh, next: from, until: m.until, feed: s.feed(sh.partition.Name)}
	switch {
	case !s.start.latest:
		r.from = s.start.at
	case m.from.IsZero():
		r.from = s.began
	default:
		r.from = m.from
	}
	if at, ok := strings.CutPrefix(from.Token, placeMark); ok {
		r.next = stream.Position{}
		if r.from, err = parsePlace(at); err != nil {
			return nil, fmt.Errorf("%s: position %s: %w", s.subject(partition), from, err)
		}
	}
	return r, nil
}

// Tip returns the mark that readers are given: where "latest" began, and with UntilEnd where to end.
// It is empty when neither is asked for. With UntilEnd it takes up to a second: what is in the stream
// when Tip is called is before the mark, and what comes once it has returned is not.
func (s *Source) Tip(ctx context.Context) (string, error) {
	if !s.start.latest && !s.options.UntilEnd {
		return "", nil
	}
	t, err := s.now(ctx)
	if err != nil {
		return "", err
	}
	var m mark
	if s.start.latest {
		m.from = t.likely
	}
	if s.options.UntilEnd {
		m.until = t.before
		for t.from.Before(m.until) {
			if err := retry.Sleep(ctx, tipPoll); err != nil {
				return "", err
			}
			if t, err = s.now(ctx); err != nil {
				return "", err
			}
		}
	}
	return m.String(), nil
}

// mark is what a tip says: records of [from, until). Times are the service's, in milliseconds as arrival times are.
type mark struct{ from, until time.Time }

const markLayout = "2006-01-02T15:04:05.000Z07:00"

func (m mark) String() string {
	v := url.Values{}
	if !m.from.IsZero() {
		v.Set("from", m.from.UTC().Format(markLayout))
	}
	if !m.until.IsZero() {
		v.Set("until", m.until.UTC().Format(markLayout))
	}
	return v.Encode()
}

func parseMark(tip string) (m mark, err error) {
	v, err := url.ParseQuery(tip)
	if err != nil {
		return m, fmt.Errorf("tip %q: %w", tip, err)
	}
	for name, at := range map[string]*time.Time{"from": &m.from, "until": &m.until} {
		if text := v.Get(name); text != "" {
			if *at, err = time.Parse(time.RFC3339Nano, text); err != nil {
				return m, fmt.Errorf("tip %q: %w", tip, err)
			}
		}
	}
	return m, nil
}

// tipPoll is how often Tip looks at the service's clock while it waits for the next second.
const tipPoll = 50 * time.Millisecond

// clock is what is known of the service's present: it lies in [from, before). likely is our own
// clock's reading from before the call where that is compatible, and from otherwise.
type clock struct{ from, before, likely time.Time }

// clockOf reads the Date header of a reply, which counts whole seconds.
func clockOf(m middleware.Metadata, called time.Time) clock {
	date, ok := awsmiddleware.GetServerTime(m)
	if !ok {
		return clock{called, time.Now().Add(time.Millisecond), called}
	}
	c := clock{date, date.Add(time.Second), called}
	if called.Before(c.from.Add(-time.Second)) || called.After(c.before.Add(time.Second)) {
		c.likely = date
	}
	return c
}

// now asks the service for its time.
func (s *Source) now(ctx context.Context) (clock, error) {
	called := time.Now()
	out, err := control(ctx, s, "ListShards", func(ctx context.Context) (*awskinesis.ListShardsOutput, error) {
		return s.api.ListShards(ctx, &awskinesis.ListShardsInput{
			StreamARN: s.stream.ARN, StreamName: s.stream.NameOnly(), MaxResults: aws.Int32(1),
		}, once)
	})
	if err != nil {
		return clock{}, err
	}
	return clockOf(out.ResultMetadata, called), nil
}

// once switches the SDK's own retries off for a call.
func once(o *awskinesis.Options) { o.Retryer = aws.NopRetryer{} }

const (
	// callTimeout bounds one request. A full reply is 10 MiB.
	callTimeout = 30 * time.Second
	// controlTimeout bounds one call that lists shards, controlPatience how long such a call is
	// retried. The caller comes back.
	controlTimeout  = 5 * time.Second
	controlPatience = 30 * time.Second
)

// control makes a call, waiting out what passes by itself, and names the stream in what remains.
func control[T any](ctx context.Context, s *Source, what string, call func(context.Context) (T, error)) (T, error) {
	began := time.Now()
	var last error // of the attempts that were answered
	for n := 1; ; n++ {
		bounded, cancel := context.WithTimeout(ctx, controlTimeout)
		out, err := call(bounded)
		cancel()
		if err == nil {
			return out, nil
		}
		if ctx.Err() != nil {
			return out, s.gaveUp(ctx, what, last)
		}
		last = err
		kind := classify(err)
		s.count(kind)
		if kind != transient && kind != throttled || time.Since(began) > controlPatience {
			return out, s.explain(what, err)
		}
		if retry.Sleep(ctx, retry.Backoff(n)) != nil {
			return out, s.gaveUp(ctx, what, last)
		}
	}
}

// gaveUp says why ctx is done, and what the calls met before, if they met anything.
func (s *Source) gaveUp(ctx context.Context, what string, last error) error {
	if last == nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w (%w)", s.explain(what, last), ctx.Err())
}

func (s *Source) count(kind failure) {
	switch kind {
	case throttled:
		s.counters.throttled.Add(1)
	case transient:
		s.counters.retried.Add(1)
	}
}

// explain turns an error of the service into one line that names the stream.
func (s *Source) explain(what string, err error) error {
	var missing *types.ResourceNotFoundException
	if errors.As(err, &missing) && !strings.Contains(strings.ToLower(missing.ErrorMessage()), "shard ") {
		return &reason{fmt.Sprintf("kinesis: stream %s does not exist in %s", s.stream.Name, s.region), err}
	}
	if told := cloud.Explain(err); told != nil {
		return fmt.Errorf("kinesis: stream %s: %w", s.stream.Name, told)
	}
	return fmt.Errorf("kinesis: stream %s: %s: %w", s.stream.Name, what, err)
}

// reason is an error whose text stands alone; its cause is for errors.Is and errors.As.
type reason struct {
	text  string
	cause error
}

func (e *reason) Error() string { return e.text }
func (e *reason) Unwrap() error { return e.cause }

func (s *Source) subject(partition string) string {
	return "kinesis: stream " + s.stream.Name + ": shard " + partition
}
