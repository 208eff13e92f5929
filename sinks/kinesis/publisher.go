package kinesis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aws/aws-sdk-go-v2/aws"
	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	cloud "github.com/millstream/millstream/cloud/aws"
)

// MetadataPartitionKey is the message metadata that holds the partition key, the one in which consumers
// puts the key of a record it has read, so that what is passed on keeps its key. Without it the message's
// UUID is the key.
const MetadataPartitionKey = "millstream_key"

// PublisherOptions configures a Publisher. The zero value publishes payloads as they are.
type PublisherOptions struct {
	Region, Endpoint string             // as in cloud/aws.Options
	Client           *awskinesis.Client // used instead of one made from Region and Endpoint
	// Marshal makes the record's data of a message. Default: the payload alone, what any other
	// consumer of the stream expects; UUID and metadata are then not transported. sinks.Envelope keeps them.
	Marshal func(*message.Message) ([]byte, error)
	Logger  *slog.Logger // default: slog.Default()
}

// Publisher is a Watermill publisher; a topic is a stream's name or ARN. Streams are not created.
// Safe for concurrent use.
type Publisher struct {
	client   *awskinesis.Client
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
var ErrClosed = errors.New("kinesis: the publisher is closed")

// NewPublisher makes a Publisher. The service is first asked by Publish.
func NewPublisher(ctx context.Context, o PublisherOptions) (*Publisher, error) {
	client, logger, err := connect(ctx, o.Client, cloud.Options{Region: o.Region, Endpoint: o.Endpoint}, o.Logger)
	if err != nil {
		return nil, err
	}
	p := &Publisher{client: client, marshal: o.Marshal, logger: logger, putters: make(map[string]*putter)}
	if p.marshal == nil {
		p.marshal = func(m *message.Message) ([]byte, error) { return m.Payload, nil }
	}
	p.ctx, p.close = context.WithCancel(context.WithoutCancel(ctx))
	return p, nil
}

// Counters returns what has been met so far. Safe for concurrent use.
func (p *Publisher) Counters() Counters { return p.counters.read() }

// Publish stores messages and returns when all are stored. Messages with one partition key keep their
// order when each is published by a call of its own; within one call those that the service refuses at
// first come behind the others. After an error some may be stored, and after a lost reply twice. A
// message that the stream can never take is an error before any is sent.
func (p *Publisher) Publish(topic string, messages ...*message.Message) error {
	if p.ctx.Err() != nil {
		return ErrClosed
	}
	to, err := p.putter(topic)
	if err != nil {
		return err
	}
	entries := make([]entry, len(messages))
	for i, m := range messages {
		data, err := p.marshal(m)
		if err != nil {
			return fmt.Errorf("kinesis: marshal message %s: %w", m.UUID, err)
		}
		if data == nil {
			data = []byte{}
		}
		entries[i] = entry{record: types.PutRecordsRequestEntry{
			Data:         data,
			PartitionKey: aws.String(partitionKey(m.Metadata.Get(MetadataPartitionKey), orZero(m.UUID))),
		}}
		if why := to.tooLarge(&entries[i]); why != "" {
			p.counters.rejected.Add(1)
			return fmt.Errorf("kinesis: message %s: %s", m.UUID, why)
		}
	}
	err = to.put(p.ctx, entries, func([]int) {})
	if err != nil && p.ctx.Err() != nil {
		return ErrClosed
	}
	return err
}

// orZero gives messages without a UUID a partition key, which may not be empty.
func orZero(uuid string) string {
	if uuid == "" {
		return "0"
	}
	return uuid
}

func (p *Publisher) putter(topic string) (*putter, error) {
	p.mu.Lock()
	to := p.putters[topic]
	p.mu.Unlock()
	if to != nil {
		return to, nil
	}
	to, err := newPutter(p.ctx, p.client, p.client.Options().Region, topic, &p.counters, p.logger)
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
