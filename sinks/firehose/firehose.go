// Package firehose writes to Amazon Data Firehose: a stream.Sink for a pipeline's rows, and a Watermill
// publisher.
//
// # The life of a row
//
// A row is saved in the log before the sink sees it. [Sink.Deliver] gives it an _id made of the checkpoint's
// id and the row's index, which is the same whenever and by whomever it is delivered again; ends it with a
// line break; and packs rows into records, since Firehose bills every record as if it were a multiple of
// 5 KB and joins records without anything between them. Up to 500 records or 4 MB make a call. Entries that
// failed, and only those, are sent again. A reply that never comes leaves it open whether the call was
// done: it is sent again and counted as ambiguous. So rows arrive at least once, in no promised order.
//
// # Duplicates
//
// What comes twice bears the same _id. In Athena, over the bucket that Firehose delivers to:
//
//	SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY _id) AS copy FROM events) WHERE copy = 1
//
// In Redshift, behind its COPY:
//
//	SELECT * FROM events QUALIFY row_number() OVER (PARTITION BY _id ORDER BY _id) = 1
//
// # When rows are not packed
//
// Only buckets, and Redshift, receive records joined. OpenSearch, Splunk, Snowflake, Iceberg tables and
// HTTP endpoints take a record for one row; so do a transformation Lambda and dynamic partitioning, unless
// the delivery stream has "multi record deaggregation", which takes apart at most 500 rows. [New] asks what
// the delivery stream does and packs accordingly, where Options.Pack does not say. Whoever may not ask
// (firehose:DescribeDeliveryStream) should say it.
package firehose

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"

	awsfirehose "github.com/aws/aws-sdk-go-v2/service/firehose"

	cloud "github.com/millstream/millstream/cloud/aws"
	"github.com/millstream/millstream/sinks"
	"github.com/millstream/millstream/stream"
)

// Off as Options.Pack makes every row a record of its own.
const Off = -1

// DefaultPack is how large a record grows. The larger, the less is lost to rounding, half of 5 KB a record
// (0.5 % here), and the more comes again when an entry fails.
const DefaultPack = 500 << 10

// Options configures a Sink. Only Stream is required.
type Options struct {
	Stream           string              // the delivery stream's name
	Region, Endpoint string              // as in cloud/aws.Options
	Client           *awsfirehose.Client // used instead of one made from Region and Endpoint
	// Pack is how many bytes of rows a record holds at most, 1,024,000 or less. 0: DefaultPack, or Off
	// where New learns that packed rows would not arrive as rows. Off: a row each.
	Pack   int
	Logger *slog.Logger // default: slog.Default()
}

// Sink delivers rows to one delivery stream. It is safe for concurrent use, as stream.Sink asks.
type Sink struct {
	putter     *putter
	counters   counters
	unfinished sinks.Unfinished
}

var _ stream.Sink = (*Sink)(nil)

var streamName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,64}$`)

// New makes a Sink and asks for its delivery stream once, so that a missing one is an error here.
func New(ctx context.Context, o Options) (*Sink, error) {
	if err := checkPack(o.Pack); err != nil {
		return nil, err
	}
	client, logger, err := connect(ctx, o)
	if err != nil {
		return nil, err
	}
	s := &Sink{}
	s.putter, err = newPutter(ctx, client, client.Options().Region, o.Stream, o.Pack, &s.counters, logger)
	return s, err
}

func connect(ctx context.Context, o Options) (*awsfirehose.Client, *slog.Logger, error) {
	logger := o.Logger
	if logger == nil {
		logger = slog.Default()
	}
	if o.Client != nil {
		return o.Client, logger, nil
	}
	c, err := cloud.Load(ctx, cloud.Options{Region: o.Region, Endpoint: o.Endpoint})
	if err != nil {
		return nil, nil, fmt.Errorf("firehose: %w", err)
	}
	return awsfirehose.NewFromConfig(c), logger, nil
}

// Counters returns what has been met so far. Safe for concurrent use.
func (s *Sink) Counters() Counters { return s.counters.read() }

// Deliver stores rows. Called again with the same id by the same process, it sends only what is not stored
// yet. Rows larger than a record may be, and those that cannot be lines, see sinks.Lines, are in a
// *stream.Rejected; the others are then stored.
func (s *Sink) Deliver(ctx context.Context, id stream.CheckpointID, rows []stream.Row) error {
	stored := s.unfinished.Resume(id, len(rows))
	prefix := id.String() + "-"
	p := s.putter.packer()
	var rejected []stream.RejectedRow
	for i := range rows {
		if stored[i] {
			continue
		}
		row := stream.Row{Data: sinks.WithID(rows[i].Data, prefix+strconv.Itoa(i))}
		line, refused := sinks.Lines([]stream.Row{row})
		switch {
		case refused != nil:
			rejected = append(rejected, stream.RejectedRow{Index: i, Reason: refused.Rows[0].Reason})
		case len(line) > maxRecord:
			rejected = append(rejected, stream.RejectedRow{Index: i, Reason: tooLarge(len(line))})
		default:
			p.add(i, line)
		}
	}
	err := s.putter.put(ctx, p.entries(), func(at []int) {
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

func tooLarge(n int) string {
	return fmt.Sprintf("%d bytes as a line, and Firehose takes at most %d", n, maxRecord)
}

var errName = errors.New("want a delivery stream's name of at most 64 letters, digits, _ . and -")
