// Package kinesis writes to Amazon Kinesis Data Streams: a stream.Sink for a pipeline's rows, and a
// Watermill publisher.
//
// # The life of a row
//
// A row is saved in the log before the sink sees it. [Sink.Deliver] gives it an _id made of the
// checkpoint's id and the row's index, which is the same whenever and by whomever the row is delivered
// again; packs the rows of a shard into records of up to 50 KB, as the Kinesis Producer Library does and
// every client library undoes; puts up to 500 of them into a PutRecords request; and sends the entries that
// failed, and only those, again until all are stored. A reply that never comes leaves it open whether the request was
// done: it is sent again, counted as ambiguous, and a consumer tells the copies by their _id. So rows
// arrive at least once, in no promised order.
package kinesis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	cloud "github.com/millstream/millstream/cloud/aws"
	"github.com/millstream/millstream/sinks"
	"github.com/millstream/millstream/stream"
)

// Options configures a Sink. Only Stream is required.
type Options struct {
	Stream           string             // name or ARN
	Region, Endpoint string             // as in cloud/aws.Options; an ARN's region when Region is empty
	Client           *awskinesis.Client // used instead of one made from Region and Endpoint
	// Plain sends every row as a record of its own. Where the shards may not be listed it is so too.
	Plain  bool
	Logger *slog.Logger // default: slog.Default()
}

// Sink delivers rows to one stream. It is safe for concurrent use, as stream.Sink asks.
//
// The partition key is the row's key, so that rows of a group go to one shard; its SHA-256 when the
// service would not take it; the row's _id when it has none.
type Sink struct {
	putter   *putter
	counters counters

	unfinished sinks.Unfinished
}

var _ stream.Sink = (*Sink)(nil)

// New makes a Sink and asks for its stream once, so that a missing one is an error here.
func New(ctx context.Context, o Options) (*Sink, error) {
	st, err := cloud.ParseKinesisStream(o.Stream)
	if err != nil {
		return nil, fmt.Errorf("kinesis: %w", err)
	}
	if o.Region == "" {
		o.Region = st.Region
	}
	client, logger, err := connect(ctx, o.Client, cloud.Options{Region: o.Region, Endpoint: o.Endpoint}, o.Logger)
	if err != nil {
		return nil, err
	}
	s := &Sink{}
	if s.putter, err = newPutter(ctx, client, client.Options().Region, o.Stream, &s.counters, logger); err != nil || o.Plain {
		return s, err
	}
	shards, err := newShardMap(ctx, s.putter)
	switch {
	case err == nil:
		s.putter.shards = shards
	case errors.Is(cloud.Explain(err), cloud.ErrDenied):
		logger.Warn("every row is a record of its own, since the shards may not be listed: allow kinesis:ListShards, or say that it is meant so (aggregate=false)", "stream", o.Stream)
	default:
		return nil, s.putter.explain("ListShards", err)
	}
	return s, nil
}

func connect(ctx context.Context, client *awskinesis.Client, o cloud.Options, logger *slog.Logger) (*awskinesis.Client, *slog.Logger, error) {
	if logger == nil {
		logger = slog.Default()
	}
	if client != nil {
		return client, logger, nil
	}
	c, err := cloud.Load(ctx, o)
	if err != nil {
		return nil, nil, fmt.Errorf("kinesis: %w", err)
	}
	return awskinesis.NewFromConfig(c), logger, nil
}

// Counters returns what has been met so far. Safe for concurrent use.
func (s *Sink) Counters() Counters { return s.counters.read() }

// Deliver stores rows. Called again with the same id by the same process, it sends only what is not
// stored yet. Rows larger than the stream's records may be are in a *stream.Rejected; the others are
// then stored.
func (s *Sink) Deliver(ctx context.Context, id stream.CheckpointID, rows []stream.Row) error {
	stored := s.unfinished.Resume(id, len(rows))
	prefix := id.String() + "-"
	var entries []entry
	var packed *packer
	if m := s.putter.shards; m != nil {
		packed = &packer{shards: m.now(ctx)}
	}
	var rejected []stream.RejectedRow
	for i := range rows {
		if stored[i] {
			continue
		}
		rowID := prefix + strconv.Itoa(i)
		e := entry{at: []int{i}, record: types.PutRecordsRequestEntry{
			Data:         sinks.WithID(rows[i].Data, rowID),
			PartitionKey: aws.String(partitionKey(rows[i].Key, rowID)),
		}}
		if why := s.putter.tooLarge(&e); why != "" {
			rejected = append(rejected, stream.RejectedRow{Index: i, Reason: why})
			continue
		}
		if packed != nil {
			packed.add(i, e.record)
		} else {
			entries = append(entries, e)
		}
	}
	if packed != nil {
		entries = packed.entries()
	}
	err := s.putter.put(ctx, entries, func(at []int) {
		for _, i := range at {
			stored[i] = true
		}
	})
	if err != nil {
		s.unfinished.Keep(id, stored)
		return err
	}
	if rejected != nil {
		s.counters.rejected.Add(int64(len(rejected)))
		return &stream.Rejected{Rows: rejected}
	}
	return nil
}
