package bigquery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millstream/millstream/sinks"
)

// PublisherOptions configures a Publisher. Only Project is required.
type PublisherOptions struct {
	Project  string
	Dataset  string        // of topics that are given without one
	Unknown  Unknown       // as in Options; DeadLetter and Fail are an error of Publish
	Endpoint string        // as in Options
	Deadline time.Duration // as in Options
	// Marshal makes the JSON object of a message. Default: its payload; a table with a column _id gets the
	// message's UUID there, unless the payload has an _id of its own.
	Marshal func(*message.Message) ([]byte, error)
	Logger  *slog.Logger // default: slog.Default()
}

// Publisher is a Watermill publisher. A topic is a table, "TABLE" or "DATASET.TABLE", which is not created;
// a message is a row, which is visible when Publish returns. Safe for concurrent use.
type Publisher struct {
	options PublisherOptions
	service backend
	ctx     context.Context // done when the Publisher is closed
	end     context.CancelFunc
	closing sync.Once
	closed  error

	mu      sync.Mutex
	tables  map[string]*table
	running sync.WaitGroup
}

var _ message.Publisher = (*Publisher)(nil)

// ErrClosed is returned by Publish after Close.
var ErrClosed = errors.New("bigquery: the publisher is closed")

// NewPublisher makes a Publisher. The service is first asked by Publish.
func NewPublisher(ctx context.Context, o PublisherOptions) (*Publisher, error) {
	service, err := dial(ctx, o.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("bigquery: %w", err)
	}
	p := &Publisher{options: o, service: service, tables: make(map[string]*table)}
	p.ctx, p.end = context.WithCancel(context.WithoutCancel(ctx))
	return p, nil
}

// Publish adds messages to a table and returns when all are visible. After an error some may be, and after
// a lost reply twice. Messages that the table does not take are an error that names the first, when the
// others are stored; so are those with a field that the table has no column for, unless Unknown is Ignore.
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
	t, err := p.table(topic)
	if err != nil {
		return err
	}
	var unmarshalled error
	f, err := t.freeze(p.ctx, len(messages), func(pl *plan, i int) ([]byte, error) {
		data := []byte(messages[i].Payload)
		if p.options.Marshal != nil {
			var err error
			if data, err = p.options.Marshal(messages[i]); err != nil {
				unmarshalled = fmt.Errorf("bigquery: marshal message %s: %w", messages[i].UUID, err)
				return nil, err
			}
		} else if find(pl.columns, "_id") != nil && messages[i].UUID != "" {
			data = sinks.WithID(data, messages[i].UUID)
		}
		return pl.encode(data, t.unknown == Ignore)
	})
	if err == nil {
		err = unmarshalled
	}
	if err != nil {
		return err
	}
	if err := t.write(p.ctx, f); err != nil {
		return err
	}
	if n := len(f.refused); n > 0 {
		t.rejected.Add(int64(n))
		return fmt.Errorf("bigquery: %d of %d messages are not stored, message %s: %s", n, len(messages), messages[f.refused[0].Index].UUID, f.refused[0].Reason)
	}
	return nil
}

func (p *Publisher) table(topic string) (*table, error) {
	dataset, name, found := strings.Cut(topic, ".")
	if !found {
		dataset, name = p.options.Dataset, topic
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	key := dataset + "." + name
	if t := p.tables[key]; t != nil {
		return t, nil
	}
	t, err := newTable(Options{Project: p.options.Project, Dataset: dataset, Table: name, Unknown: p.options.Unknown, Deadline: p.options.Deadline, Logger: p.options.Logger}, p.service)
	if err != nil {
		return nil, err
	}
	p.tables[key] = t
	return t, nil
}

// Counters returns what has been met so far, in all tables. Safe for concurrent use.
func (p *Publisher) Counters() Counters {
	p.mu.Lock()
	defer p.mu.Unlock()
	var sum Counters
	for _, t := range p.tables {
		c := t.Counters()
		sum.Requests += c.Requests
		sum.Bytes += c.Bytes
		sum.Ambiguous += c.Ambiguous
		sum.Rejected += c.Rejected
	}
	return sum
}

// Close ends waiting Publish calls with ErrClosed, and the connections. It may be called twice.
func (p *Publisher) Close() error {
	p.closing.Do(func() {
		p.mu.Lock()
		p.end()
		p.mu.Unlock()
		p.running.Wait()
		if err := p.service.close(); err != nil {
			p.closed = fmt.Errorf("bigquery: close: %w", err)
		}
	})
	return p.closed
}
