// Package pubsub reads Google Cloud Pub/Sub: a consumers.Source whose partitions are subscriptions.
//
// # The life of a message
//
// A subscription is leased as a whole, and its owner opens as many streams as it needs. A message that
// comes on one of them is held under a lease of 60 seconds, which is renewed for as long as the reader is
// open. The reader hands it on as a record whose ID is the message's own; the lane counts no ID twice.
// When the record is in a saved checkpoint the message is acknowledged ([consumers.Fetch.Settle]), and
// the service forgets it. When the record will not be, or the reader is closed, the message is given
// back at once (a negative acknowledgement), for the next owner.
//
// An owner that dies gives nothing back: its leases run out within a minute, and what it held comes
// again, to the next owner, whose lane keeps its watermark back for as long
// ([Source.RedeliversWithin]). An acknowledgement that gets lost makes a message come again too, which
// the log knows by its ID. So the totals are exact as long as a message does not come again after the
// log has forgotten its ID (Options.DedupeFor).
//
// Messages with an ordering key keep their order. Others have none. Filters are the subscription's own.
//
// A position resumes nothing, since the service knows what is acknowledged; it is for people, and is
// the id of the message. There is neither a start nor an end. Nothing is created.
//
// # Sharing
//
// With Options.Shared a subscription is so many partitions, on any instances. A message that comes again
// may then come to another partition, whose log does not know it: at least once ([Source.Guarantee]).
// Several subscriptions of a topic with filters that exclude each other are exact.
//
// # Two clients
//
// By default the reader speaks the streaming protocol itself: it renews leases and acknowledges in
// batches of a thousand. Options.SDK leaves that to the SDK's Subscriber.Receive, which starts goroutines
// for each message. Both are bound to the same tests.
package pubsub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"google.golang.org/api/option"
	"google.golang.org/grpc"

	cloud "github.com/millstream/millstream/cloud/gcp"
	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/stream"
)

// AckDeadline is how long a message stays with a reader that says nothing. It is ours, whatever the
// subscription's own is.
const AckDeadline = time.Minute

// slack is added for what is under way between a client and the service.
const slack = 5 * time.Second

// Options configures a Source. Project and Subscriptions are required.
type Options struct {
	// Project and Endpoint are as in cloud/gcp.Options.
	Project, Endpoint string
	// Subscriptions are ids, or full names projects/PROJECT/subscriptions/ID. Those of one topic need
	// filters that exclude each other, or every message is counted once for each.
	Subscriptions []string
	// Shared makes every subscription so many partitions, at the price of at least once. Default 1.
	Shared int
	// DedupeFor is how long the log remembers message ids. A subscription that may deliver again later
	// than that is refused. Default 10 minutes.
	DedupeFor time.Duration
	// Streams is how many streams a partition opens; the service sends at most 10 MB/s on each.
	// Default 8.
	Streams int
	// MaxMessages and MaxBytes bound what a partition holds and has not acknowledged. They must be above
	// the rate times the checkpoint interval, or reading stops until the next checkpoint. Defaults
	// 200,000 and 512 MiB.
	MaxMessages int
	MaxBytes    int64
	// SDK leaves streams, leases and acknowledgements to the SDK.
	SDK bool
	// Whole makes the data of a record the whole message in the encoding of protocol buffers
	// (google.pubsub.v1.PubsubMessage), its attributes included. [OpenMessage] reads it.
	Whole bool
	// ClientOptions are added to those of the client.
	ClientOptions []option.ClientOption
	// Logger hears of what is waited out. Default: slog.Default().
	Logger *slog.Logger
}

// Source is one or more subscriptions. It implements consumers.Source and stream.Redelivering.
type Source struct {
	options       Options
	client        *pubsub.Client
	logger        *slog.Logger
	identity      string
	within        time.Duration
	subscriptions map[string]*subscription // by partition
	partitions    []stream.Partition
	counters      counters
}

// subscription is one at the service.
type subscription struct {
	id     string // as messages name it
	name   string // in full
	exact  bool   // has exactly-once delivery
	health health

	topic, filter string // empty when the settings cannot be seen

	answers atomic.Bool // the service answers pings of streams
}

var (
	_ consumers.Source    = (*Source)(nil)
	_ stream.Redelivering = (*Source)(nil)
)

// New makes a Source and asks the service for every subscription, so that a missing one, missing
// credentials, one that cannot be pulled, or a service that cannot be reached before ctx is done is an
// error here, in one line.
func New(ctx context.Context, o Options) (*Source, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	o.Shared = max(o.Shared, 1)
	o.Streams = cmp.Or(max(o.Streams, 0), 8)
	o.MaxMessages = cmp.Or(max(o.MaxMessages, 0), 200_000)
	o.MaxBytes = cmp.Or(max(o.MaxBytes, 0), 512<<20)
	o.DedupeFor = cmp.Or(max(o.DedupeFor, 0), 10*time.Minute)
	s := &Source{options: o, logger: o.Logger, subscriptions: make(map[string]*subscription)}
	subscriptions, err := s.name()
	if err != nil {
		return nil, fmt.Errorf("pubsub: %w", err)
	}
	options := append(slices.Clone(o.ClientOptions), option.WithGRPCDialOption(grpc.WithChainStreamInterceptor(s.watch(subscriptions))))
	if s.client, err = cloud.PubSub(ctx, cloud.Options{Project: o.Project, Endpoint: o.Endpoint}, options...); err != nil {
		return nil, fmt.Errorf("pubsub: %w", err)
	}
	var longest time.Duration
	for _, sub := range subscriptions {
		backoff, err := s.examine(ctx, sub)
		if err != nil {
			s.client.Close()
			return nil, fmt.Errorf("pubsub: %w", err)
		}
		longest = max(longest, backoff)
	}
	s.overlapping(subscriptions)
	s.within = AckDeadline + longest + slack
	return s, nil
}

// name makes the partitions.
func (s *Source) name() (map[string]*subscription, error) {
	if len(s.options.Subscriptions) == 0 {
		return nil, errors.New("no subscription is named")
	}
	byName := make(map[string]*subscription)
	var ids []string
	for _, given := range s.options.Subscriptions {
		name, err := cloud.Subscription(s.options.Project, given)
		if err != nil {
			return nil, err
		}
		if byName[name] != nil {
			return nil, fmt.Errorf("subscription %s is named twice", given)
		}
		sub := &subscription{id: name, name: name}
		if rest, found := strings.CutPrefix(name, "projects/"+s.options.Project+"/subscriptions/"); found {
			sub.id = rest
		}
		byName[name] = sub
		ids = append(ids, sub.id)
		for i := range s.options.Shared {
			partition := sub.id
			if s.options.Shared > 1 {
				partition = fmt.Sprintf("%s/%d", sub.id, i)
			}
			s.subscriptions[partition] = sub
			s.partitions = append(s.partitions, stream.Partition{Name: partition})
		}
	}
	slices.Sort(ids)
	s.identity = "pubsub://" + s.options.Project + "/" + strings.Join(ids, ",")
	if s.options.Shared > 1 {
		s.identity += fmt.Sprintf("?shared=%d", s.options.Shared)
	}
	return byName, nil
}

// Identity names project and subscriptions, and how many share each, for the plan.
func (s *Source) Identity() string { return s.identity }

// RedeliversWithin is the deadline that leases have, and the longest pause that a subscription's retry
// policy makes before it delivers again.
func (s *Source) RedeliversWithin() time.Duration { return s.within }

// Guarantee says what keeps the totals from being exact, in words for people; empty when nothing does.
func (s *Source) Guarantee() string {
	if s.options.Shared > 1 {
		return fmt.Sprintf("at least once: %d partitions share a subscription, and a message that comes again may come to another of them, which does not know it", s.options.Shared)
	}
	return ""
}

// Counters returns what has been met so far. Safe for concurrent use.
func (s *Source) Counters() Counters { return s.counters.read() }

// Partitions lists the subscriptions, as they were configured.
func (s *Source) Partitions(context.Context) ([]stream.Partition, error) {
	return slices.Clone(s.partitions), nil
}

// Tip is empty: a subscription has no end that could be known.
func (s *Source) Tip(context.Context) (string, error) { return "", nil }

// Open begins to read a subscription. It goes on where the service says, wherever from is.
func (s *Source) Open(_ context.Context, partition string, _ stream.Position, _ string) (consumers.Reader, error) {
	sub := s.subscriptions[partition]
	if sub == nil {
		return nil, fmt.Errorf("pubsub: partition %s: %w", partition, stream.ErrPartitionGone)
	}
	if s.options.SDK {
		return openSDK(s, sub), nil
	}
	return openOwn(s, sub), nil
}

// Close closes the connections.
func (s *Source) Close() error {
	if err := s.client.Close(); err != nil {
		return fmt.Errorf("pubsub: close: %w", err)
	}
	return nil
}
