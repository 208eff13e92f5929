package firehose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
	awsfirehose "github.com/aws/aws-sdk-go-v2/service/firehose"
)

// PublisherOptions configures a Publisher. The zero value publishes payloads as lines.
type PublisherOptions struct {
	Region, Endpoint string              // as in cloud/aws.Options
	Client           *awsfirehose.Client // used instead of one made from Region and Endpoint
	Pack             int                 // as in Options
	// Marshal makes the bytes that are delivered for a message. Default: the payload, ended by a line break
	// unless it has one; UUID and metadata are then not transported. sinks.Envelope keeps them.
	Marshal func(*message.Message) ([]byte, error)
	Logger  *slog.Logger // default: slog.Default()
}

// Publisher is a Watermill publisher; a topic is a delivery stream's name. Delivery streams are not
// created. Safe for concurrent use.
type Publisher struct {
	client   *awsfirehose.Client
	pack     int
	marshal  func(*message.Message) ([]byte, error)
	logger   *slog.Logger
	counters counters
	ctx      context.Context // done when the Publisher is closed
	close    context.CancelFunc

	mu      sync.Mutex
	putters map[string]*putter
}

var _ message.Publisher = (*Publisher)(nil)

// ErrClosed is returned by Publish after Close.
var ErrClosed = errors.New("firehose: the publisher is closed")

// NewPublisher makes a Publisher. The service is first asked by Publish.
func NewPublisher(ctx context.Context, o PublisherOptions) (*Publisher, error) {
	if err := checkPack(o.Pack); err != nil {
		return nil, err
	}
	client, logger, err := connect(ctx, Options{Client: o.Client, Region: o.Region, Endpoint: o.Endpoint, Logger: o.Logger})
	if err != nil {
		return nil, err
	}
	p := &Publisher{client: client, pack: o.Pack, marshal: o.Marshal, logger: logger, putters: make(map[string]*putter)}
	if p.marshal == nil {
		p.marshal = asLine
	}
	p.ctx, p.close = context.WithCancel(context.WithoutCancel(ctx))
	return p, nil
}

func asLine(m *message.Message) ([]byte, error) {
	if bytes.HasSuffix(m.Payload, []byte("\n")) {
		return m.Payload, nil
	}
	return append(bytes.Clone(m.Payload), '\n'), nil
}

// Counters returns what has been met so far. Safe for concurrent use.
func (p *Publisher) Counters() Counters { return p.counters.read() }

// Publish stores messages and returns when all are stored. After an error some may be stored, and after a
// lost reply twice. A message that Firehose can never take is an error before any is sent.
func (p *Publisher) Publish(topic string, messages ...*message.Message) error {
	if p.ctx.Err() != nil {
		return ErrClosed
	}
	to, err := p.putter(topic)
	if err != nil {
		return err
	}
	packed := to.packer()
	for i, m := range messages {
		data, err := p.marshal(m)
		if err != nil {
			return fmt.Errorf("firehose: marshal message %s: %w", m.UUID, err)
		}
		if len(data) > maxRecord {
			p.counters.rejected.Add(1)
			return fmt.Errorf("firehose: message %s: %s", m.UUID, tooLarge(len(data)))
		}
		packed.add(i, data)
	}
	err = to.put(p.ctx, packed.entries(), func([]int) {})
	if err != nil && p.ctx.Err() != nil {
		return ErrClosed
	}
	return err
}

func (p *Publisher) putter(topic string) (*putter, error) {
	p.mu.Lock()
	to := p.putters[topic]
	p.mu.Unlock()
	if to != nil {
		return to, nil
	}
	to, err := newPutter(p.ctx, p.client, p.client.Options().Region, topic, p.pack, &p.counters, p.logger)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if first := p.putters[topic]; first != nil {
		return first, nil
	}
	p.putters[topic] = to
	return to, nil
}

// Close ends waiting Publish calls with ErrClosed. It may be called twice.
func (p *Publisher) Close() error {
	p.close()
	return nil
}
