package eventhubs

import (
	"context"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	cloud "github.com/millstream/millstream/cloud/azure"
)

// service is what the driver uses of the SDK. Its calls do not retry.
type service interface {
	hub(ctx context.Context) (azeventhubs.EventHubProperties, error)
	partition(ctx context.Context, id string) (azeventhubs.PartitionProperties, error)
	// open makes a receiver with a connection of its own. The link is opened by its first call.
	open(partition string, o *azeventhubs.PartitionClientOptions) (receiver, error)
	close()
}

// receiver is an *azeventhubs.PartitionClient. One goroutine at a time.
type receiver interface {
	ReceiveEvents(ctx context.Context, count int, o *azeventhubs.ReceiveEventsOptions) ([]*azeventhubs.ReceivedEventData, error)
	Close(ctx context.Context) error
}

// sdk is the service as the SDK reaches it.
type sdk struct {
	at       *cloud.EventHub
	group    string
	replaced func() // told when the client of questions is given up

	mu     sync.Mutex
	client *azeventhubs.ConsumerClient // for questions
}

func newSDK(at *cloud.EventHub, group string, replaced func()) *sdk {
	return &sdk{at: at, group: group, replaced: replaced}
}

// askWithin bounds one question, connecting included.
const askWithin = 10 * time.Second

func (s *sdk) hub(ctx context.Context) (azeventhubs.EventHubProperties, error) {
	return ask(ctx, s, func(ctx context.Context, c *azeventhubs.ConsumerClient) (azeventhubs.EventHubProperties, error) {
		return c.GetEventHubProperties(ctx, nil)
	})
}

func (s *sdk) partition(ctx context.Context, id string) (azeventhubs.PartitionProperties, error) {
	return ask(ctx, s, func(ctx context.Context, c *azeventhubs.ConsumerClient) (azeventhubs.PartitionProperties, error) {
		return c.GetPartitionProperties(ctx, id, nil)
	})
}

// ask calls the client of questions. When no answer comes, that client is closed, which ends the call
// that hangs, and the next question has a new one.
func ask[T any](ctx context.Context, s *sdk, call func(context.Context, *azeventhubs.ConsumerClient) (T, error)) (T, error) {
	s.mu.Lock()
	c := s.client
	if c == nil {
		var err error
		if c, err = s.at.Consumer(s.group); err != nil {
			s.mu.Unlock()
			var none T
			return none, err
		}
		s.client = c
	}
	s.mu.Unlock()
	return cloud.Within(ctx, askWithin, func(ctx context.Context) (T, error) { return call(ctx, c) }, func() {
		s.mu.Lock()
		mine := s.client == c
		if mine {
			s.client = nil
		}
		s.mu.Unlock()
		if mine {
			s.replaced()
			abandon(c)
		}
	})
}

func (s *sdk) close() {
	s.mu.Lock()
	c := s.client
	s.client = nil
	s.mu.Unlock()
	if c != nil {
		abandon(c)
	}
}

// closeWithin bounds the polite end of a connection whose other side may be gone.
const closeWithin = 2 * time.Second

type closer interface{ Close(context.Context) error }

// abandon closes without waiting for it: what there was to learn is known.
func abandon(c closer) {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
		defer cancel()
		_ = c.Close(ctx) // the connection is given up either way
	}()
}

func (s *sdk) open(partition string, o *azeventhubs.PartitionClientOptions) (receiver, error) {
	c, err := s.at.Consumer(s.group)
	if err != nil {
		return nil, err
	}
	p, err := c.NewPartitionClient(partition, o)
	if err != nil {
		abandon(c)
		return nil, err
	}
	return &connected{p, c}, nil
}

// connected is a receiver and its connection.
type connected struct {
	*azeventhubs.PartitionClient
	client *azeventhubs.ConsumerClient
}

// Close closes the link, so that the service forgets the reader at once, and then the connection.
func (c *connected) Close(ctx context.Context) error {
	err := c.PartitionClient.Close(ctx)
	if closed := c.client.Close(ctx); err == nil {
		err = closed
	}
	return err
}

// discard closes a receiver in its own time.
func discard(r receiver) { abandon(r) }
