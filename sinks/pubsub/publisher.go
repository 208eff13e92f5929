package pubsub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"cloud.google.com/go/pubsub/v2"
	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/ThreeDotsLabs/watermill/message"

	cloud "github.com/millstream/millstream/cloud/gcp"
)

// MetadataOrderingKey is the message metadata that holds the ordering key, the one in which consumers
// puts the key of a record it has read, so that what is passed on keeps its key.
const MetadataOrderingKey = "millstream_key"

// AttributeUUID is the attribute that [Marshal] puts a message's UUID into, the one that
// watermill-googlecloud uses too.
const AttributeUUID = "_watermill_message_uuid"

// PublisherOptions configures a Publisher. Only Project is required.
type PublisherOptions struct {
	Project  string         // of topics that are given without one
	Endpoint string         // as in cloud/gcp.Options
	Client   *pubsub.Client // used instead of one made from Project and Endpoint; it is not closed
	// Marshal makes the Pub/Sub message of a message. Default: Marshal.
	Marshal func(*message.Message) (*pb.PubsubMessage, error)
	// Ordering publishes messages that have MetadataOrderingKey with it as their ordering key.
	Ordering bool
	Logger   *slog.Logger // default: slog.Default()
}

// Publisher is a Watermill publisher; a topic is its id, or its full name projects/PROJECT/topics/ID.
// Topics are not created. Safe for concurrent use.
type Publisher struct {
	client   *pubsub.Client
	project  string
	marshal  func(*message.Message) (*pb.PubsubMessage, error)
	ordering bool
	logger   *slog.Logger
	counters counters
	ctx      context.Context // done when the Publisher is closed
	end      context.CancelFunc
	close    func() error // of the client
	closing  sync.Once
	closed   error

	mu      sync.Mutex
	writers map[string]*writer
	running sync.WaitGroup
}

var _ message.Publisher = (*Publisher)(nil)

// ErrClosed is returned by Publish after Close.
var ErrClosed = errors.New("pubsub: the publisher is closed")

// NewPublisher makes a Publisher. The service is first asked by Publish.
func NewPublisher(ctx context.Context, o PublisherOptions) (*Publisher, error) {
	client, closer, logger, err := connect(ctx, o.Client, cloud.Options{Project: o.Project, Endpoint: o.Endpoint}, o.Logger)
	if err != nil {
		return nil, err
	}
	p := &Publisher{client: client, project: o.Project, marshal: o.Marshal, ordering: o.Ordering, logger: logger,
		close: closer, writers: make(map[string]*writer)}
	if p.marshal == nil {
		p.marshal = Marshal
	}
	p.ctx, p.end = context.WithCancel(context.WithoutCancel(ctx))
	return p, nil
}

// Marshal makes a Pub/Sub message whose data is the payload and whose attributes are the UUID, under
// AttributeUUID, and the metadata, what consumers adds about where a message was read excepted.
func Marshal(m *message.Message) (*pb.PubsubMessage, error) {
	attributes := make(map[string]string, len(m.Metadata)+1)
	for name, value := range m.Metadata {
		if !strings.HasPrefix(name, "millstream_") {
			attributes[name] = value
		}
	}
	if m.UUID != "" {
		attributes[AttributeUUID] = m.UUID
	}
	return &pb.PubsubMessage{Data: m.Payload, Attributes: attributes}, nil
}

// Counters returns what has been met so far. Safe for concurrent use.
func (p *Publisher) Counters() Counters { return p.counters.read() }

// Publish publishes messages and returns when all are stored. Messages with one ordering key keep
// their order; others have none. After an error some may be stored, and after a lost reply twice. A
// message that the topic can never take is an error before any is sent; one that its schema refuses is
// an error that names it, when the others are stored.
func (p *Publisher) Publish(topic string, messages ...*message.Message) error {
	p.mu.Lock()
	if p.ctx.Err() != nil {
		p.mu.Unlock()
		return ErrClosed
	}
	p.running.Add(1)
	p.mu.Unlock()
	defer p.running.Done()
	err := p.publish(topic, messages)
	if err != nil && p.ctx.Err() != nil {
		return ErrClosed
	}
	return err
}

func (p *Publisher) publish(topic string, messages []*message.Message) error {
	to, err := p.writer(topic)
	if err != nil {
		return err
	}
	entries := make([]entry, len(messages))
	for i, m := range messages {
		out, err := p.marshal(m)
		if err != nil {
			return fmt.Errorf("pubsub: marshal message %s: %w", m.UUID, err)
		}
		if p.ordering && out.OrderingKey == "" {
			out.OrderingKey = orderingKey(m.Metadata.Get(MetadataOrderingKey))
		}
		entries[i] = newEntry(i, out)
		if why := to.unfit(&entries[i]); why != "" {
			p.counters.rejected.Add(1)
			return fmt.Errorf("pubsub: message %s: %s", m.UUID, why)
		}
	}
	refused, err := to.publish(p.ctx, entries, func(int) {})
	if err == nil && refused != nil {
		p.counters.rejected.Add(int64(len(refused)))
		return fmt.Errorf("pubsub: topic %s refuses %d of %d messages, message %s with %s",
			to.topic, len(refused), len(messages), messages[refused[0].at].UUID, refused[0].why)
	}
	return err
}

func (p *Publisher) writer(topic string) (*writer, error) {
	name, err := cloud.Topic(p.project, topic)
	if err != nil {
		return nil, fmt.Errorf("pubsub: %w", err)
	}
	p.mu.Lock()
	to := p.writers[name]
	p.mu.Unlock()
	if to != nil {
		return to, nil
	}
	to, err = newWriter(p.ctx, p.client.TopicAdminClient, name, &p.counters, p.logger)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if first := p.writers[name]; first != nil {
		return first, nil
	}
	p.writers[name] = to
	return to, nil
}

// Close ends waiting Publish calls with ErrClosed, and the connection unless the options gave it. It
// may be called twice.
func (p *Publisher) Close() error {
	p.closing.Do(func() {
		p.mu.Lock()
		p.end()
		p.mu.Unlock()
		p.running.Wait()
		p.closed = p.close()
	})
	return p.closed
}
