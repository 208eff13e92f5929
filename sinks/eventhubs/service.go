package eventhubs

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	cloud "github.com/millstream/millstream/cloud/azure"
)

// service is what the package uses of the SDK. Its calls do not retry. Safe for concurrent use.
type service interface {
	partitions(ctx context.Context) ([]string, error)
	// send stores the leading events that fit into one batch, and returns how many those are.
	// errTooLarge: the first one alone does not fit.
	send(ctx context.Context, partition string, events []*azeventhubs.EventData) (int, error)
	close()
}

var errTooLarge = errors.New("the event is larger than a batch may be")

// sdk is the service as the SDK reaches it. Without retries the SDK keeps a link that has failed, so
// the client is replaced after every failure.
type sdk struct {
	at *cloud.EventHub

	mu     sync.Mutex
	client *azeventhubs.ProducerClient
}

const (
	callTimeout = 20 * time.Second
	// closeWithin bounds the polite end of a connection whose other side may be gone.
	closeWithin = 2 * time.Second
)

func (s *sdk) partitions(ctx context.Context) ([]string, error) {
	hub, err := call(ctx, s, func(ctx context.Context, c *azeventhubs.ProducerClient) (azeventhubs.EventHubProperties, error) {
		return c.GetEventHubProperties(ctx, nil)
	})
	return hub.PartitionIDs, err
}

func (s *sdk) send(ctx context.Context, partition string, events []*azeventhubs.EventData) (int, error) {
	return call(ctx, s, func(ctx context.Context, c *azeventhubs.ProducerClient) (n int, err error) {
		batch, err := c.NewEventDataBatch(ctx, &azeventhubs.EventDataBatchOptions{PartitionID: &partition})
		if err != nil {
			return 0, err
		}
		for ; n < len(events); n++ {
			if err := batch.AddEventData(events[n], nil); errors.Is(err, azeventhubs.ErrEventDataTooLarge) {
				break
			} else if err != nil {
				return 0, err
			}
		}
		if n == 0 {
			return 0, errTooLarge
		}
		return n, c.SendEventDataBatch(ctx, batch, nil)
	})
}

// call makes one call of a client, and gives the client up when the call fails or does not end in time.
func call[T any](ctx context.Context, s *sdk, f func(context.Context, *azeventhubs.ProducerClient) (T, error)) (T, error) {
	s.mu.Lock()
	c := s.client
	if c == nil {
		var err error
		if c, err = s.at.Producer(); err != nil {
			s.mu.Unlock()
			var none T
			return none, err
		}
		s.client = c
	}
	s.mu.Unlock()
	v, err := cloud.Within(ctx, callTimeout, func(ctx context.Context) (T, error) { return f(ctx, c) }, func() { s.drop(c) })
	if err != nil && !errors.Is(err, errTooLarge) {
		s.drop(c)
	}
	return v, err
}

// drop closes a client, in its own time, unless that has been done.
func (s *sdk) drop(c *azeventhubs.ProducerClient) {
	s.mu.Lock()
	mine := c != nil && s.client == c
	if mine {
		s.client = nil
	}
	s.mu.Unlock()
	if mine {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
			defer cancel()
			_ = c.Close(ctx) // what there was to learn is known
		}()
	}
}

func (s *sdk) close() {
	s.mu.Lock()
	c := s.client
	s.mu.Unlock()
	s.drop(c)
}
