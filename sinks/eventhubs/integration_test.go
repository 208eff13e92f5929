//go:build integration

package eventhubs

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	fake "github.com/millstream/millstream/fakes/eventhubs"
	"github.com/millstream/millstream/stream"
)

// The official client over a stand-in that speaks AMQP 1.0. This test needs node and, the first time, npm.
func TestIntegrationDeliver(t *testing.T) {
	server, err := fake.Start(t.Context(), fake.Options{MaxMessageSize: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := server.CreateHub("rows", 3); err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	s, err := New(t.Context(), Options{Namespace: "local", Hub: "rows", Endpoint: server.Endpoint(), Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	stored := func() (bodies [][]byte) {
		t.Helper()
		for _, partition := range s.writer.names {
			events, err := server.Events("rows", partition)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				bodies = append(bodies, e.Data)
			}
		}
		return bodies
	}
	deliver := func(number uint64, want int) {
		t.Helper()
		id := first
		id.Number = number
		if err := s.Deliver(t.Context(), id, some(3000, 20)); err != nil {
			t.Fatal(err)
		}
		if distinct, _ := ids(t, stored()); len(distinct) != want {
			t.Errorf("%d distinct rows of %d", len(distinct), want)
		}
	}
	deliver(1, 3000)
	if _, rows := ids(t, stored()); rows != 3000 {
		t.Errorf("%d rows although nothing failed", rows)
	}
	if _, err := server.Disconnect("rows"); err != nil {
		t.Fatal(err)
	}
	deliver(2, 6000)
	if err := server.LoseReplies("rows", 1); err != nil {
		t.Fatal(err)
	}
	deliver(3, 9000)
	if c := s.Counters(); c.Ambiguous == 0 {
		t.Errorf("%+v", c)
	}
	// The service is busy until a batch of each partition has been refused: nothing comes twice for that.
	throttled := s.Counters().Throttled
	before := s.Counters().Ambiguous
	count := len(stored())
	if err := server.Busy("rows", true); err != nil {
		t.Fatal(err)
	}
	s.writer.logger = slog.New(&onRecord{Handler: slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug}), do: func() {
		if s.Counters().Throttled-throttled >= int64(len(s.writer.names)) {
			if err := server.Busy("rows", false); err != nil {
				t.Error(err)
			}
		}
	}})
	deliver(4, 12000)
	s.writer.logger = quiet
	if c := s.Counters(); c.Throttled-throttled < int64(len(s.writer.names)) || c.Ambiguous != before || len(stored()) != count+3000 {
		t.Errorf("%d rows, %+v", len(stored())-count, c)
	}
	var rejected *stream.Rejected
	huge := []stream.Row{{Data: append(append([]byte(`{"x":"`), make([]byte, 80<<10)...), `"}`...)}}
	if err := s.Deliver(t.Context(), first, huge); !errors.As(err, &rejected) {
		t.Error(err)
	}
	if _, err := New(t.Context(), Options{Namespace: "local", Hub: "nosuch", Endpoint: server.Endpoint(), Logger: quiet}); err == nil || err.Error() != "event hubs: there is no event hub nosuch in namespace local" {
		t.Error(err)
	}
	p, err := NewPublisher(t.Context(), PublisherOptions{Namespace: "local", Endpoint: server.Endpoint(), Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	count = len(stored())
	if err := p.Publish("rows", message.NewMessage("1", []byte("one")), message.NewMessage("2", []byte("two"))); err != nil || len(stored()) != count+2 {
		t.Error(len(stored())-count, err)
	}
}

// onRecord calls do for every line of the log.
type onRecord struct {
	slog.Handler
	do func()
}

func (h *onRecord) Handle(context.Context, slog.Record) error {
	h.do()
	return nil
}
