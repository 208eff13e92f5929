package service

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"strings"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"golang.org/x/time/rate"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/sinks/blob"
	eventhubssink "github.com/millstream/millstream/sinks/eventhubs"
	kinesissink "github.com/millstream/millstream/sinks/kinesis"
	pubsubsink "github.com/millstream/millstream/sinks/pubsub"
	"github.com/millstream/millstream/stream"
)

// Replayed counts what became of letters.
type Replayed struct {
	Sent  int
	Short int // not sent: the letter holds only the beginning of its record
}

const (
	// A call to a stream takes up to replayBatch records, a file replayFile bytes.
	replayBatch = 500
	replayFile  = 4 << 20
)

// Replay sends the records of letters again, byte for byte, to a sink's URL, or to out, a line each, when
// that is empty: at most perSecond a second, 0 for no bound. Letters stay where they are, so who replays
// twice sends twice; after an error some may have been sent that are not counted.
func Replay(ctx context.Context, letters iter.Seq2[Letter, error], to string, perSecond float64, out io.Writer) (done Replayed, err error) {
	target, err := openReplay(ctx, to, out)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, target.close()) }()
	limit, most := rate.NewLimiter(rate.Inf, 0), target.most
	if perSecond > 0 {
		most = max(1, min(most, int(perSecond)))
		limit = rate.NewLimiter(rate.Limit(perSecond), most)
	}
	var batch [][]byte
	size := 0
	send := func() error {
		if len(batch) == 0 {
			return nil
		}
		if err := limit.WaitN(ctx, len(batch)); err != nil {
			return err
		}
		if err := target.send(ctx, batch); err != nil {
			return err
		}
		done.Sent += len(batch)
		batch, size = batch[:0], 0
		return nil
	}
	for l, err := range letters {
		if err != nil {
			return done, err
		}
		if !l.Whole() {
			done.Short++
			continue
		}
		batch, size = append(batch, l.Raw), size+len(l.Raw)
		if len(batch) >= most || size >= replayFile {
			if err := send(); err != nil {
				return done, err
			}
		}
	}
	return done, send()
}

// replayTarget is where records are sent again.
type replayTarget struct {
	most  int // records a call
	send  func(ctx context.Context, records [][]byte) error
	close func() error
}

// openReplay is the one switch from URLs to what takes records as they are.
func openReplay(ctx context.Context, to string, out io.Writer) (*replayTarget, error) {
	if to == "" || to == "stdout:" {
		return &replayTarget{replayBatch, func(_ context.Context, records [][]byte) error {
			for _, r := range records {
				if _, err := fmt.Fprintf(out, "%s\n", r); err != nil {
					return err
				}
			}
			return nil
		}, func() error { return nil }}, nil
	}
	l, err := parseLocation("--to", to)
	if err != nil {
		return nil, err
	}
	var publisher message.Publisher
	topic, endpoint := l.rest, l.params.Get("endpoint")
	switch l.scheme {
	case "file", "s3", "gs", "azblob":
		b, err := openBucket(ctx, "--to", bucketURL(to))
		if err != nil {
			return nil, err
		}
		return replayFiles(b)
	case "kinesis":
		if err = l.only("region", "endpoint"); err == nil {
			publisher, err = kinesissink.NewPublisher(ctx, kinesissink.PublisherOptions{Region: l.params.Get("region"), Endpoint: endpoint, Logger: slog.Default()})
		}
	case "pubsub":
		project, id, _ := strings.Cut(l.rest, "/")
		topic = id
		if err = l.only("endpoint"); err == nil {
			publisher, err = pubsubsink.NewPublisher(ctx, pubsubsink.PublisherOptions{Project: project, Endpoint: endpoint, Logger: slog.Default()})
		}
	case "eventhubs":
		namespace, hub, _ := strings.Cut(l.rest, "/")
		topic = hub
		if err = l.only("endpoint"); err == nil {
			publisher, err = eventhubssink.NewPublisher(ctx, eventhubssink.PublisherOptions{Namespace: namespace, Endpoint: endpoint, Logger: slog.Default()})
		}
	default:
		return nil, settingf("--to", "%s: records can be sent again to a folder or a bucket, kinesis://, pubsub:// or eventhubs://", to)
	}
	if err != nil {
		return nil, unusable("--to", err, "%v")
	}
	if topic == "" {
		return nil, settingf("--to", "%s: names no stream", to)
	}
	return &replayTarget{replayBatch, func(_ context.Context, records [][]byte) error {
		messages := make([]*message.Message, len(records))
		for i, r := range records {
			messages[i] = message.NewMessage(watermill.NewUUID(), r)
		}
		return publisher.Publish(topic, messages...)
	}, publisher.Close}, nil
}

// replayFiles writes records as lines of files that no other replay writes.
func replayFiles(b bucket.Bucket) (*replayTarget, error) {
	sink, err := blob.New(b, "")
	if err != nil {
		return nil, err
	}
	id := stream.CheckpointID{Pipeline: "replay", Genesis: rand.Text(), Partition: "dead-letters"}
	return &replayTarget{1 << 20, func(ctx context.Context, records [][]byte) error {
		id.Number++
		rows := make([]stream.Row, len(records))
		for i, r := range records {
			rows[i].Data = r
		}
		return sink.Deliver(ctx, id, rows)
	}, b.Close}, nil
}
