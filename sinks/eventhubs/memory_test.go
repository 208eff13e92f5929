package eventhubs

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	"github.com/millstream/millstream/sinks/sinktest"
)

// hub is an event hub in memory.
type hub struct {
	mu      sync.Mutex
	names   []string
	largest int // bytes of bodies in a batch
	batches int
	events  map[string][]*azeventhubs.EventData
}

func newHub() *hub {
	return &hub{names: []string{"0", "1", "2"}, largest: 1 << 10, events: make(map[string][]*azeventhubs.EventData)}
}

func (h *hub) bodies() (all [][]byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range h.names {
		for _, e := range h.events[name] {
			all = append(all, e.Body)
		}
	}
	return all
}

// memory is a process's way to a hub.
type memory struct {
	*hub
	wire   *sinktest.Wire
	fails  func(partition string) error // before a batch is stored
	lists  error
	closed bool
}

func (m *memory) partitions(context.Context) ([]string, error) { return m.names, m.lists }

func (m *memory) send(ctx context.Context, partition string, events []*azeventhubs.EventData) (int, error) {
	n, size := 0, 0
	for n < len(events) && size+len(events[n].Body) <= m.largest {
		size += len(events[n].Body)
		n++
	}
	if n == 0 {
		return 0, errTooLarge
	}
	if m.fails != nil {
		if err := m.fails(partition); err != nil {
			return 0, err
		}
	}
	return n, m.wire.Call(ctx, func(context.Context) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.batches++
		m.events[partition] = append(m.events[partition], events[:n]...)
		return nil
	})
}

func (m *memory) close() { m.closed = true }

// condition is an error of the service, as the client shows it.
func condition(name, text string) error {
	return errors.New("*Error{Condition: " + name + ", Description: " + text + ", Info: map[]}")
}

func sinkOf(t *testing.T, m *memory) *Sink {
	t.Helper()
	if m.wire == nil {
		m.wire = new(sinktest.Wire)
	}
	s, err := New(t.Context(), Options{Namespace: "orders", Hub: "rows", Endpoint: "127.0.0.1", Logger: slog.New(slog.DiscardHandler), service: m})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
