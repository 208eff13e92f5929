// Package pubsub writes to Google Cloud Pub/Sub: a stream.Sink for a pipeline's rows, and a Watermill
// publisher.
//
// # The life of a row
//
// A row is saved in the log before the sink sees it. [Sink.Deliver] gives it an _id made of the
// checkpoint's id and the row's index, which is the same whenever and by whomever the row is delivered
// again; packs rows into Publish requests, sends several of them at once and then collects the
// answers. A request is stored as a whole or not at all; those that failed, and only those, are sent
// again. A reply that never comes leaves it open whether the request was done: it is sent again,
// counted as ambiguous, and a subscriber tells the copies by their _id. So rows arrive at least once,
// in no promised order unless [Options].Ordering asks for the rows of each key in theirs.
//
// Nothing is created: a topic that does not exist is an error.
package pubsub

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"

	"cloud.google.com/go/pubsub/v2"
	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	cloud "github.com/millstream/millstream/cloud/gcp"
	"github.com/millstream/millstream/sinks"
	"github.com/millstream/millstream/stream"
)

// Options configures a Sink. Only Project and Topic are required.
type Options struct {
	Project  string // the project's id
	Topic    string // the topic's id, or its full name projects/PROJECT/topics/ID
	Endpoint string // as in cloud/gcp.Options
	// Ordering publishes a row that has a key with it as its ordering key, one request after the other
	// for each key, so that subscriptions with message ordering deliver the rows of a key in order.
	// Every key is then a request of its own, and the service takes 1 MB/s of each.
	Ordering bool
	Client   *pubsub.Client // used instead of one made from Project and Endpoint; it is not closed
	Logger   *slog.Logger   // default: slog.Default()
}

// Sink delivers rows to one topic. It is safe for concurrent use, as stream.Sink asks.
type Sink struct {
	writer   *writer
	ordering bool
	counters counters
	close    func() error

	unfinished sinks.Unfinished
}

var _ stream.Sink = (*Sink)(nil)

// New makes a Sink and asks for its topic once, so that a missing one is an error here.
func New(ctx context.Context, o Options) (*Sink, error) {
	name, err := cloud.Topic(o.Project, o.Topic)
	if err != nil {
		return nil, fmt.Errorf("pubsub: %w", err)
	}
	client, closer, logger, err := connect(ctx, o.Client, cloud.Options{Project: o.Project, Endpoint: o.Endpoint}, o.Logger)
	if err != nil {
		return nil, err
	}
	s := &Sink{ordering: o.Ordering, close: closer}
	s.writer, err = newWriter(ctx, client.TopicAdminClient, name, &s.counters, logger)
	if err != nil {
		_ = closer() // the error that matters is err
		return nil, err
	}
	return s, nil
}

func connect(ctx context.Context, client *pubsub.Client, o cloud.Options, logger *slog.Logger) (*pubsub.Client, func() error, *slog.Logger, error) {
	if logger == nil {
		logger = slog.Default()
	}
	if client != nil {
		return client, func() error { return nil }, logger, nil
	}
	client, err := cloud.PubSub(ctx, o)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("pubsub: %w", err)
	}
	return client, client.Close, logger, nil
}

// Counters returns what has been met so far. Safe for concurrent use.
func (s *Sink) Counters() Counters { return s.counters.read() }

// Close closes the connection, unless Options gave it. No Deliver may be under way.
func (s *Sink) Close() error { return s.close() }

// Deliver publishes rows. Called again with the same id by the same process, it sends only what is not
// stored yet. Rows that the topic does not take, because they are too large or because its schema
// refuses them, are in a *stream.Rejected; the others are then stored.
func (s *Sink) Deliver(ctx context.Context, id stream.CheckpointID, rows []stream.Row) error {
	stored := s.unfinished.Resume(id, len(rows))
	prefix := id.String() + "-"
	entries := make([]entry, 0, len(rows))
	var rejected []stream.RejectedRow
	for i := range rows {
		if stored[i] {
			continue
		}
		m := &pb.PubsubMessage{Data: sinks.WithID(rows[i].Data, prefix+strconv.Itoa(i))}
		if s.ordering {
			m.OrderingKey = orderingKey(rows[i].Key)
		}
		e := newEntry(i, m)
		if why := s.writer.unfit(&e); why != "" {
			rejected = append(rejected, stream.RejectedRow{Index: i, Reason: why})
			continue
		}
		entries = append(entries, e)
	}
	refused, err := s.writer.publish(ctx, entries, func(at int) { stored[at] = true })
	if err != nil {
		s.unfinished.Keep(id, stored)
		return err
	}
	for _, r := range refused {
		rejected = append(rejected, stream.RejectedRow{Index: r.at, Reason: r.why})
	}
	if rejected != nil {
		s.counters.rejected.Add(int64(len(rejected)))
		return &stream.Rejected{Rows: rejected}
	}
	return nil
}
