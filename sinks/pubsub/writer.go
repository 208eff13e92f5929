package pubsub

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
	"unicode/utf8"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/protobuf/proto"

	cloud "github.com/millstream/millstream/cloud/gcp"
	"github.com/millstream/millstream/cloud/retry"
)

// Limits of Publish, see https://cloud.google.com/pubsub/quotas#resource_limits.
const (
	maxEntries     = 1000
	maxRequest     = 10_000_000
	maxOrderingKey = 1024
	maxAttributes  = 100

	// packRequest is where a request is full unless one message is larger: what a lost reply makes
	// ambiguous stays small, and the service bills bytes, not requests, from 1,000 bytes on.
	packRequest = 1 << 20
	// inFlight is how many requests of one Publish or Deliver wait for their answers at once.
	inFlight = 16

	callTimeout = 20 * time.Second
	// patience is how long requests may fail without one succeeding before the reason is returned.
	patience = time.Minute
)

// Counters says what writing has met.
type Counters struct {
	Requests  int64 // Publish calls
	Throttled int64 // calls refused because of a quota
	Ambiguous int64 // calls without a clear answer: their messages may be in the topic twice
	Rejected  int64 // messages that the topic does not take
}

type counters struct{ requests, throttled, ambiguous, rejected atomic.Int64 }

func (c *counters) read() Counters {
	return Counters{c.requests.Load(), c.throttled.Load(), c.ambiguous.Load(), c.rejected.Load()}
}

// api is what the package uses of the SDK's client.
type api interface {
	Publish(context.Context, *pb.PublishRequest, ...gax.CallOption) (*pb.PublishResponse, error)
	GetTopic(context.Context, *pb.GetTopicRequest, ...gax.CallOption) (*pb.Topic, error)
}

// writer publishes entries to one topic. Safe for concurrent use.
type writer struct {
	api      api
	topic    string // full name
	counters *counters
	logger   *slog.Logger
}

// newWriter asks for the topic once, to learn that it exists. Whoever may only publish may not ask;
// then the first Publish tells.
func newWriter(ctx context.Context, a api, topic string, c *counters, l *slog.Logger) (*writer, error) {
	w := &writer{api: a, topic: topic, counters: c, logger: l}
	began := time.Now()
	for n := 1; ; n++ {
		bounded, cancel := context.WithTimeout(ctx, callTimeout)
		_, err := a.GetTopic(bounded, &pb.GetTopicRequest{Topic: topic}, cloud.Once())
		cancel()
		if err == nil {
			return w, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("pubsub: topic %s: %w", topic, ctx.Err())
		}
		switch kind := cloud.Classify(err); {
		case kind == cloud.Denied && !errors.Is(cloud.Explain(err), cloud.ErrNoCredentials):
			l.Debug("whether the topic exists is unknown: its description may not be read", "topic", topic, "error", err)
			return w, nil
		case kind != cloud.Transient && kind != cloud.Throttled, time.Since(began) > patience/4:
			return nil, w.explain(err)
		}
		if err := retry.Sleep(ctx, retry.Backoff(n)); err != nil {
			return nil, fmt.Errorf("pubsub: topic %s: %w", topic, err)
		}
	}
}

// explain makes one line of an error, which names the topic.
func (w *writer) explain(err error) error {
	if cloud.Classify(err) == cloud.Missing {
		return &reason{fmt.Sprintf("pubsub: topic %s does not exist", w.topic), err}
	}
	return fmt.Errorf("pubsub: topic %s: %w", w.topic, cloud.Explain(err))
}

// reason is an error whose text stands alone; its cause is for errors.Is and errors.As.
type reason struct {
	text  string
	cause error
}

func (e *reason) Error() string { return e.text }
func (e *reason) Unwrap() error { return e.cause }

// entry is one message on its way. at is the caller's index.
type entry struct {
	message *pb.PubsubMessage
	at      int
	size    int // within a request
}

func newEntry(at int, m *pb.PubsubMessage) entry {
	n := proto.Size(m)
	return entry{message: m, at: at, size: n + 1 + varint(n)}
}

// varint is the length of n as a protobuf length.
func varint(n int) int {
	length := 1
	for ; n >= 1<<7; n >>= 7 {
		length++
	}
	return length
}

// unfit says why the service can never take the entry, or nothing.
func (w *writer) unfit(e *entry) string {
	if limit := maxRequest - len(w.topic) - 3; e.size > limit {
		return fmt.Sprintf("%d bytes, and a topic takes at most %d", e.size, limit)
	}
	if len(e.message.Data) == 0 && len(e.message.Attributes) == 0 {
		return "empty, and a topic takes no message without data and attributes"
	}
	if n := len(e.message.Attributes); n > maxAttributes {
		return fmt.Sprintf("%d attributes, and a message has at most %d", n, maxAttributes)
	}
	return ""
}

// orderingKey makes a key that the service accepts: at most 1,024 bytes of UTF-8. Another key is
// replaced by its SHA-256, which keeps equal keys together.
func orderingKey(key string) string {
	if utf8.ValidString(key) && len(key) <= maxOrderingKey {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}
