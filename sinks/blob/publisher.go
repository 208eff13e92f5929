package blob

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/stream"
)

// PublisherOptions configures a Publisher. The zero value writes payloads as newline-delimited JSON.
type PublisherOptions struct {
	// Files says how files are written; Roll and RollSize have no meaning here.
	Files Options
	// Marshal makes the row of a message. Default: the payload alone; UUID and metadata are then not
	// transported. sinks.Envelope keeps them, in NDJSON.
	Marshal func(*message.Message) ([]byte, error)
}

// Publisher is a Watermill publisher whose topics are folders of a bucket. Every call of Publish makes one
// file (with a path template: one in each path), whose name nobody else has. Publish more than a few messages
// at once: small files are slow to read. Safe for concurrent use.
type Publisher struct {
	bucket  bucket.Bucket
	options PublisherOptions
	ctx     context.Context // done when the Publisher is closed
	end     context.CancelFunc

	mu      sync.Mutex
	running sync.WaitGroup
}

var _ message.Publisher = (*Publisher)(nil)

// ErrClosed is returned by Publish after Close.
var ErrClosed = errors.New("blob: the publisher is closed")

// NewPublisher makes a Publisher. It does not close the bucket.
func NewPublisher(b bucket.Bucket, o PublisherOptions) (*Publisher, error) {
	if _, err := Open(b, "", o.Files); err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	if o.Marshal == nil {
		o.Marshal = func(m *message.Message) ([]byte, error) { return m.Payload, nil }
	}
	p := &Publisher{bucket: b, options: o}
	p.ctx, p.end = context.WithCancel(context.Background())
	return p, nil
}

// Publish writes messages into a file of the folder topic, which may be "", and returns when all are there. A
// message that the format cannot hold is an error that names it, when the others are written; after any other
// error, some paths of a template may have their file.
func (p *Publisher) Publish(topic string, messages ...*message.Message) error {
	p.mu.Lock()
	if p.ctx.Err() != nil {
		p.mu.Unlock()
		return ErrClosed
	}
	p.running.Add(1)
	p.mu.Unlock()
	defer p.running.Done()
	prefix := topic
	if topic != "" {
		prefix += "/"
	}
	sink, err := Open(p.bucket, prefix, p.options.Files)
	if err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	rows := make([]stream.Row, len(messages))
	for i, m := range messages {
		if rows[i].Data, err = p.options.Marshal(m); err != nil {
			return fmt.Errorf("blob: marshal message %s: %w", m.UUID, err)
		}
	}
	id := stream.CheckpointID{Pipeline: "messages", Genesis: rand.Text(), Partition: rand.Text()}
	err = sink.Deliver(p.ctx, id, rows)
	var rejected *stream.Rejected
	switch {
	case errors.As(err, &rejected):
		first := rejected.Rows[0]
		return fmt.Errorf("blob: %d of %d messages cannot be written, message %s since %s", len(rejected.Rows), len(messages), messages[first.Index].UUID, first.Reason)
	case err != nil && p.ctx.Err() != nil:
		return ErrClosed
	case err != nil:
		return fmt.Errorf("blob: %w", err)
	}
	return nil
}

// Close gives up what is under way, and waits for it.
func (p *Publisher) Close() error {
	p.mu.Lock()
	p.end()
	p.mu.Unlock()
	p.running.Wait()
	return nil
}
