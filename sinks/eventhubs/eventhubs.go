// Package eventhubs writes to Azure Event Hubs: a stream.Sink for a pipeline's rows, and a Watermill
// publisher.
//
// # The life of a row
//
// A row is saved in the log before the sink sees it. [Sink.Deliver] gives it an _id made of the
// checkpoint's id and the row's index, which is the same whenever and by whomever the row is delivered
// again; chooses a partition for it; packs the rows of each partition into batches as large as the link
// allows; sends to all partitions at once, one batch after the other in each; and then collects. A batch
// is stored as a whole or not at all. When its answer is lost it is sent again, counted as ambiguous,
// and a consumer tells the copies by their _id. So rows arrive at least once; those of a key go to one
// partition, in their order when nothing is sent twice.
//
// Nothing is created: a hub that does not exist is an error.
package eventhubs

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	cloud "github.com/millstream/millstream/cloud/azure"
	"github.com/millstream/millstream/sinks"
	"github.com/millstream/millstream/stream"
)

// Options configures a Sink. Namespace and Hub are required.
type Options struct {
	Namespace, Hub, Endpoint string       // as in cloud/azure.Options
	Logger                   *slog.Logger // default: slog.Default()

	service service // of tests
}

// Sink delivers rows to one hub. It is safe for concurrent use, as stream.Sink asks.
//
// The partition of a row is chosen by its key, among those that the hub had when the Sink was made. Rows
// without a key go to one partition for each checkpoint.
type Sink struct {
	writer   *writer
	counters counters

	unfinished sinks.Unfinished
}

var _ stream.Sink = (*Sink)(nil)

// New makes a Sink and asks for the hub's partitions, so that a missing hub is an error here.
func New(ctx context.Context, o Options) (*Sink, error) {
	s := &Sink{}
	var err error
	s.writer, err = newWriter(ctx, o, &s.counters)
	return s, err
}

// Counters returns what has been met so far. Safe for concurrent use.
func (s *Sink) Counters() Counters { return s.counters.read() }

// Close closes the connection. No Deliver may be under way.
func (s *Sink) Close() error {
	s.writer.service.close()
	return nil
}

// Deliver stores rows. Called again with the same id by the same process, it sends only what is not
// stored yet. Rows larger than the hub's events may be are in a *stream.Rejected; the others are then
// stored.
func (s *Sink) Deliver(ctx context.Context, id stream.CheckpointID, rows []stream.Row) error {
	stored := s.unfinished.Resume(id, len(rows))
	name := id.String()
	entries := make([]entry, 0, len(rows))
	for i := range rows {
		if stored[i] {
			continue
		}
		rowID, key := name+"-"+strconv.Itoa(i), rows[i].Key
		if key == "" {
			key = name
		}
		entries = append(entries, entry{at: i, partition: s.writer.partition(key), event: &azeventhubs.EventData{
			Body: sinks.WithID(rows[i].Data, rowID), ContentType: to.Ptr("application/json"), MessageID: &rowID,
		}})
	}
	refused, err := s.writer.write(ctx, entries, func(at int) { stored[at] = true })
	if err != nil {
		s.unfinished.Keep(id, stored)
		return err
	}
	if len(refused) == 0 {
		return nil
	}
	rejected := &stream.Rejected{}
	for _, at := range refused {
		rejected.Rows = append(rejected.Rows, stream.RejectedRow{Index: at, Reason: fmt.Sprintf("%d bytes, more than event hub %s takes in one event", len(rows[at].Data), s.writer.at.Hub)})
	}
	return rejected
}

// find looks for the hub without asking anybody.
func find(o Options) (*cloud.EventHub, error) {
	at, err := cloud.Find(cloud.Options{Namespace: o.Namespace, Hub: o.Hub, Endpoint: o.Endpoint})
	if err != nil {
		return nil, fmt.Errorf("event hubs: %w", err)
	}
	return at, nil
}
