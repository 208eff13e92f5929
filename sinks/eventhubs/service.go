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
// the client is replaced after a failure of its links. All partitions share it: what is under way in
// the others ends before it is closed, and is not made ambiguous.
type sdk struct {
	at *cloud.EventHub

	mu     sync.Mutex
	client *client // for the next call; nil: to be made
}

// client is an SDK client and the number of calls that use it.
type client struct {
	*azeventhubs.ProducerClient
	calls int
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

// call makes one call of a client, and gives the client up when its links fail or the call does not end
// in time.
func call[T any](ctx context.Context, s *sdk, f func(context.Context, *azeventhubs.ProducerClient) (T, error)) (T, error) {
	c, err := s.take()
	if err != nil {
		var none T
		return none, err
	}
	givenUp := false
	v, err := cloud.Within(ctx, callTimeout, func(ctx context.Context) (T, error) { return f(ctx, c.ProducerClient) }, func() { givenUp = true })
	s.put(c, givenUp || breaks(err))
	return v, err
}

// breaks reports whether a link may be unusable after an error. A batch that is refused because of its
// rate leaves its link open, unless the service closed it, which the SDK has a type of its own for.
func breaks(err error) bool {
	if err == nil || errors.Is(err, errTooLarge) {
		return false
	}
	var closed *azeventhubs.Error
	return cloud.Classify(err) != cloud.Throttled || errors.As(err, &closed)
}

func (s *sdk) take() (*client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil {
		made, err := s.at.Producer()
		if err != nil {
			return nil, err
		}
		s.client = &client{ProducerClient: made}
	}
	s.client.calls++
	return s.client, nil
}

// put ends a call. The last one closes a client that was given up.
func (s *sdk) put(c *client, broken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.calls--
	if broken && s.client == c {
		s.client = nil
	}
	if s.client != c && c.calls == 0 {
		c.end()
	}
}

// end closes a client in its own time.
func (c *client) end() {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
		defer cancel()
		_ = c.Close(ctx) // what there was to learn is known
	}()
}

func (s *sdk) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.client
	s.client = nil
	if c != nil && c.calls == 0 {
		c.end()
	}
}
