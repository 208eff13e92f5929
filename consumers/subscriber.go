package consumers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millstream/millstream/stream"
)

// ErrClosed is returned by Subscribe after Close.
var ErrClosed = errors.New("subscriber is closed")

// Config says what a Subscriber reads and how much it holds. Source or Open, and Group or Join, are
// needed; every other zero is a default.
type Config struct {
	// Source is read for every topic; whoever made it closes it. Open makes one source a
	// subscription instead, named by the topic; the subscription closes it.
	Source Source
	Open   func(ctx context.Context, topic string) (Source, error)
	// Group leases the partitions for every topic. Join makes one a subscription instead.
	Group stream.Group
	Join  func(topic string) (stream.Group, error)

	// MaxInFlight bounds the bytes that one partition holds between source and log. Default 32 MiB.
	MaxInFlight int64
	// BatchBytes and BatchRecords are where a fetch is cut into batches. A record larger than
	// BatchBytes goes alone. Defaults 1 MiB and 4,096.
	BatchBytes   int
	BatchRecords int

	// The rest is for the plain mode.

	// MaxUnacked is how many messages of one partition may wait for their acks. Default 1, which
	// keeps the order of a partition even through a router that runs handlers at once.
	MaxUnacked int
	// NackDelay is the pause before a nacked message is sent again. Default 10 ms.
	NackDelay time.Duration
	// SaveEvery is how often the acked position is saved; what was acked since is delivered again
	// after a crash. Default 5 s.
	SaveEvery time.Duration
	// CloseTimeout is how long a draining subscription waits for the acks of messages that it has
	// delivered. Then their contexts are cancelled; they will be delivered again. Default 10 s.
	CloseTimeout time.Duration
	// Unmarshal turns a record into a message. Default: the payload is the record's data, not
	// copied, and the UUID names partition and position. When it fails the message is the default
	// one, and its metadata holds MetadataError.
	Unmarshal func(partition string, r *stream.Record) (*message.Message, error)

	Logger *slog.Logger // default slog.Default()
}

func (c *Config) setDefaults() {
	if c.MaxInFlight <= 0 {
		c.MaxInFlight = stream.DefaultInFlight
	}
	if c.BatchBytes <= 0 {
		c.BatchBytes = 1 << 20
	}
	if c.BatchRecords <= 0 {
		c.BatchRecords = 4096
	}
	if c.MaxUnacked <= 0 {
		c.MaxUnacked = 1
	}
	if c.NackDelay <= 0 {
		c.NackDelay = 10 * time.Millisecond
	}
	if c.SaveEvery <= 0 {
		c.SaveEvery = 5 * time.Second
	}
	if c.CloseTimeout <= 0 {
		c.CloseTimeout = 10 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
}

// Subscriber reads the partitions that its group leases. As a message.Subscriber it is the plain
// mode: one record a message, for any Watermill user. Batches is the other mode, which a
// stream.Pipeline needs. All methods are safe for concurrent use.
type Subscriber struct {
	cfg Config

	mu     sync.Mutex
	closed bool
	err    error
	stops  map[*subscription]context.CancelFunc
	runs   sync.WaitGroup

	falseAcks atomic.Int64
	nacks     atomic.Int64
	tellOnce  sync.Once
}

// New returns a Subscriber; nothing is read before the first Subscribe.
func New(cfg Config) (*Subscriber, error) {
	if (cfg.Source == nil) == (cfg.Open == nil) {
		return nil, errors.New("consumers: set exactly one of Config.Source and Config.Open")
	}
	if (cfg.Group == nil) == (cfg.Join == nil) {
		return nil, errors.New("consumers: set exactly one of Config.Group and Config.Join")
	}
	cfg.setDefaults()
	return &Subscriber{cfg: cfg, stops: make(map[*subscription]context.CancelFunc)}, nil
}

// Stats counts what handlers did to batches.
type Stats struct {
	FalseAcks int64 // acks of batches that were not durable, treated as nacks
	Nacks     int64
}

// Stats returns the counts since New.
func (s *Subscriber) Stats() Stats {
	return Stats{FalseAcks: s.falseAcks.Load(), Nacks: s.nacks.Load()}
}

// Err is the first error with which a subscription ended by itself: stream.ErrFinished when its
// pipeline had ended before. It is settled once the subscription's channel is closed.
func (s *Subscriber) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Batches returns the batch mode: every message carries a stream.Batch in its context, and is for
// stream.Pipeline.Handle. Its channel must be read until it is closed, as a router does: the batch
// that ends an assignment comes last. It shares the Subscriber's Close.
func (s *Subscriber) Batches() message.Subscriber { return batches{s} }

type batches struct{ s *Subscriber }

func (b batches) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	return b.s.subscribe(ctx, topic, (*subscription).serveBatches)
}

func (b batches) Close() error { return b.s.Close() }

// Subscribe starts the plain mode. Messages of one partition come in order; a nacked message comes
// again before the ones behind it. The channel is closed when ctx is done or Close is called, after
// the acked positions have been saved, or when every partition has ended.
func (s *Subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	return s.subscribe(ctx, topic, (*subscription).servePlain)
}

// Close drains every subscription: reading stops, what is under way is saved, partitions are
// released, channels are closed. It returns when all of that is done.
func (s *Subscriber) Close() error {
	s.mu.Lock()
	s.closed = true
	for _, stop := range s.stops {
		stop()
	}
	s.mu.Unlock()
	s.runs.Wait()
	return nil
}

// subscription is one Subscribe: one run of a group.
type subscription struct {
	*Subscriber
	src     Source
	ctx     context.Context // of messages: has the caller's values, and is never cancelled
	out     chan *message.Message
	flights sync.WaitGroup // readers that are open, and messages that are not settled
}

func (s *Subscriber) subscribe(ctx context.Context, topic string, serve func(*subscription, *stream.Assignment) error) (<-chan *message.Message, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, ErrClosed
	}
	s.runs.Add(1)
	s.mu.Unlock()

	sub := &subscription{Subscriber: s, ctx: context.WithoutCancel(ctx), out: make(chan *message.Message)}
	group, err := sub.join(ctx, topic)
	if err != nil {
		s.runs.Done()
		return nil, fmt.Errorf("topic %s: %w", topic, err)
	}
	run, stop := context.WithCancel(ctx)
	s.mu.Lock()
	s.stops[sub] = stop
	if s.closed {
		stop()
	}
	s.mu.Unlock()
	go func() {
		defer s.runs.Done()
		defer close(sub.out)
		err := group.Run(run, sub.src, func(a *stream.Assignment) error { return serve(sub, a) })
		stop()
		sub.flights.Wait()
		if s.cfg.Open != nil {
			err = errors.Join(err, sub.src.Close())
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.stops, sub)
		if err != nil {
			if !errors.Is(err, stream.ErrFinished) {
				s.cfg.Logger.Error("the subscription has ended", "topic", topic, "error", err)
			}
			if s.err == nil {
				s.err = err
			}
		}
	}()
	return sub.out, nil
}

// join finds the subscription's source and its group.
func (sub *subscription) join(ctx context.Context, topic string) (stream.Group, error) {
	sub.src = sub.cfg.Source
	if sub.cfg.Open != nil {
		src, err := sub.cfg.Open(ctx, topic)
		if err != nil {
			return nil, err
		}
		sub.src = src
	}
	if sub.cfg.Group != nil {
		return sub.cfg.Group, nil
	}
	group, err := sub.cfg.Join(topic)
	if err != nil && sub.cfg.Open != nil {
		err = errors.Join(err, sub.src.Close())
	}
	return group, err
}
