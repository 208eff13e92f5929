package eventhubs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/ThreeDotsLabs/watermill/message"
)

// MetadataKey is the message metadata whose value chooses the partition, the one in which consumers puts
// the key of a record it has read, so that what is passed on keeps its key. Without it the message's
// UUID does.
const MetadataKey = "millstream_key"

// PublisherOptions configures a Publisher. Only Namespace is required.
type PublisherOptions struct {
	Namespace, Endpoint string // as in cloud/azure.Options
	// Marshal makes an event's body of a message. Default: the payload alone, what any other consumer
	// of the hub expects; UUID and metadata are then not transported. sinks.Envelope keeps them.
	Marshal func(*message.Message) ([]byte, error)
	Logger  *slog.Logger // default: slog.Default()

	service func(hub string) service // of tests
}

// Publisher is a Watermill publisher; a topic is a hub of the namespace. Hubs are not created. Safe for
// concurrent use.
type Publisher struct {
	o        PublisherOptions
	counters counters
	ctx      context.Context // done when the Publisher is closed
	close    context.CancelFunc

	mu      sync.Mutex
	writers map[string]*writer
}

var _ message.Publisher = (*Publisher)(nil)

// ErrClosed is returned by Publish after Close.
var ErrClosed = errors.New("event hubs: the publisher is closed")

// NewPublisher makes a Publisher. The service is first asked by Publish.
func NewPublisher(ctx context.Context, o PublisherOptions) (*Publisher, error) {
	if o.Marshal == nil {
		o.Marshal = func(m *message.Message) ([]byte, error) { return m.Payload, nil }
	}
	p := &Publisher{o: o, writers: make(map[string]*writer)}
	p.ctx, p.close = context.WithCancel(context.WithoutCancel(ctx))
	return p, nil
}

// Counters returns what has been met so far. Safe for concurrent use.
func (p *Publisher) Counters() Counters { return p.counters.read() }

// Publish stores messages and returns when all are stored. Messages with one key keep their order. After
// an error some may be stored, and after a lost answer twice. A message that the hub can never take is
// an error that names it, when the others are stored.
func (p *Publisher) Publish(topic string, messages ...*message.Message) error {
	to, err := p.writer(topic)
	if err != nil {
		return err
	}
	entries := make([]entry, len(messages))
	for i, m := range messages {
		body, err := p.o.Marshal(m)
		if err != nil {
			return fmt.Errorf("event hubs: marshal message %s: %w", m.UUID, err)
		}
		key := m.Metadata.Get(MetadataKey)
		if key == "" {
			key = m.UUID
		}
		entries[i] = entry{at: i, partition: to.partition(key), event: &azeventhubs.EventData{Body: body, MessageID: &m.UUID}}
	}
	refused, err := to.write(p.ctx, entries, func(int) {})
	switch {
	case err != nil && p.ctx.Err() != nil:
		return ErrClosed
	case err == nil && len(refused) > 0:
		return fmt.Errorf("event hubs: %d of %d messages are larger than event hub %s takes, the first is message %s", len(refused), len(messages), topic, messages[refused[0]].UUID)
	}
	return err
}

func (p *Publisher) writer(topic string) (*writer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return nil, ErrClosed
	}
	if w := p.writers[topic]; w != nil {
		return w, nil
	}
	o := Options{Namespace: p.o.Namespace, Hub: topic, Endpoint: p.o.Endpoint, Logger: p.o.Logger}
	if p.o.service != nil {
		o.service = p.o.service(topic)
	}
	w, err := newWriter(p.ctx, o, &p.counters)
	if err != nil {
		return nil, err
	}
	p.writers[topic] = w
	return w, nil
}

// Close ends waiting Publish calls with ErrClosed, and the connections. It may be called twice.
func (p *Publisher) Close() error {
	p.close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for topic, w := range p.writers {
		w.service.close()
		delete(p.writers, topic)
	}
	return nil
}
