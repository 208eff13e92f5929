//go:build integration

package eventhubs

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/consumers/consumertest"
	fake "github.com/millstream/millstream/fakes/eventhubs"
	"github.com/millstream/millstream/stream"
)

// The official client over a stand-in that speaks AMQP 1.0. These tests need node and, the first time, npm.

func start(t *testing.T, o fake.Options) *fake.Server {
	t.Helper()
	server, err := fake.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server
}

var quietLog = slog.New(slog.DiscardHandler)

// over opens a source of a hub of the server. Its waits are short, so that tests are.
func over(t *testing.T, server *fake.Server, hub string, o Options) (*Source, error) {
	o.Namespace, o.Hub, o.Endpoint = "local", hub, server.Endpoint()
	o.CheckEvery = 50 * time.Millisecond
	if o.Logger == nil {
		o.Logger = quietLog
	}
	return New(t.Context(), o)
}

func TestIntegrationConformance(t *testing.T) {
	const largest = 1 << 20
	server := start(t, fake.Options{MaxMessageSize: largest + 1<<10})
	var hubs atomic.Int64
	consumertest.Run(t, func(t *testing.T) *consumertest.Stream {
		hub := fmt.Sprint("h", hubs.Add(1))
		if err := server.CreateHub(hub, 2); err != nil {
			t.Fatal(err)
		}
		src, err := over(t, server, hub, Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { src.Close() })
		return &consumertest.Stream{
			Source:     src,
			Publish:    func(partition string, data ...[]byte) error { return server.Publish(hub, partition, "", data...) },
			Again:      func() (consumers.Source, error) { return over(t, server, hub, Options{}) },
			Bounded:    func() (consumers.Source, error) { return over(t, server, hub, Options{UntilEnd: true}) },
			Disconnect: func() error { _, err := server.Disconnect(hub); return err },
			Throttle:   func(on bool) error { return server.Throttle(hub, "", on) },
			Missing:    "99",
			Largest:    largest,
		}
	})
}

// A receiver that brings nothing any more is replaced. Negative control: it stays silent.
func TestIntegrationSilent(t *testing.T) {
	server := start(t, fake.Options{})
	for _, after := range []time.Duration{200 * time.Millisecond, time.Hour} {
		hub := fmt.Sprint("after-", after)
		if err := server.CreateHub(hub, 1); err != nil {
			t.Fatal(err)
		}
		src, err := over(t, server, hub, Options{SilentAfter: after})
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		r := open(t, src, "0", stream.Position{}, "")
		defer r.Close()
		for i, want := 0, 0; i < 2; i++ {
			if err := server.Publish(hub, "0", "", numbers(10*i, 10*i+10)...); err != nil {
				t.Fatal(err)
			}
			if want += 10; i == 1 && after == time.Hour {
				want = 10
			}
			within := 20 * time.Second
			if i == 1 && after == time.Hour {
				within = 2 * time.Second
			}
			for began := time.Now(); time.Since(began) < within && (len(r.records) < want || want == 10 && i == 1); {
				if err := r.next(time.Until(began.Add(within))); err != nil && r.text() != text(0, want) {
					t.Fatal(err)
				}
			}
			if r.text() != text(0, want) {
				t.Errorf("after %s: read %q instead of %d", after, r.text(), want)
			}
			if i == 0 {
				if n, err := server.Silence(hub, "0"); err != nil || n != 1 {
					t.Fatal(n, err)
				}
			}
		}
		if n := src.Counters().Silent; (n == 1) != (after < time.Hour) {
			t.Errorf("after %s: %d receivers replaced", after, n)
		}
	}
}

// The owner level on the wire: a later claim puts an earlier one out, which says why.
func TestIntegrationStolen(t *testing.T) {
	server := start(t, fake.Options{})
	if err := server.CreateHub("orders", 1); err != nil {
		t.Fatal(err)
	}
	if err := server.Publish("orders", "0", "", numbers(0, 10)...); err != nil {
		t.Fatal(err)
	}
	src, err := over(t, server, "orders", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var rs []*session
	for _, claim := range []uint64{3, 4} {
		r, err := src.OpenClaimed(t.Context(), "0", stream.Position{}, "", claim)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		s := &session{Reader: r}
		for len(s.records) < 10 {
			if err := s.next(20 * time.Second); err != nil {
				t.Fatal(err)
			}
		}
		rs = append(rs, s)
	}
	for err = nil; err == nil; {
		err = rs[0].next(20 * time.Second)
	}
	if !strings.HasPrefix(err.Error(), "event hubs: local/orders: partition 0: another reader of consumer group $Default has the partition") {
		t.Error(err)
	}
	if n, err := server.Counts(); err != nil || n.Stolen != 1 {
		t.Errorf("%+v, %v", n, err)
	}
}

// What is missing is said when the source is made; raised partitions are seen; a question that nobody
// answers is given up, and asked again over another connection.
func TestIntegrationHub(t *testing.T) {
	server := start(t, fake.Options{})
	if err := server.CreateHub("orders", 2, "mine"); err != nil {
		t.Fatal(err)
	}
	if _, err := over(t, server, "absent", Options{}); err == nil || err.Error() != "event hubs: there is no event hub absent in namespace local" {
		t.Error(err)
	}
	if _, err := over(t, server, "orders", Options{ConsumerGroup: "absent"}); err == nil || err.Error() != "event hubs: local/orders has no consumer group absent" {
		t.Error(err)
	}
	if err := server.RefuseTokens(true); err != nil {
		t.Fatal(err)
	}
	if _, err := over(t, server, "orders", Options{}); err == nil || !strings.HasPrefix(err.Error(), "event hubs: local/orders: access denied") {
		t.Error(err)
	}
	if err := server.RefuseTokens(false); err != nil {
		t.Fatal(err)
	}
	src, err := over(t, server, "orders", Options{ConsumerGroup: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if err := server.Grow("orders", 3); err != nil {
		t.Fatal(err)
	}
	if ps, err := src.Partitions(t.Context()); err != nil || len(ps) != 3 {
		t.Error(ps, err)
	}
	if _, err := src.Open(t.Context(), "9", stream.Position{}, ""); err == nil {
		t.Error("opened partition 9 of 3")
	}
	if err := server.HangManagement(true); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := src.Partitions(ctx); err == nil || ctx.Err() == nil {
		t.Error("answered", err)
	}
	if err := server.HangManagement(false); err != nil {
		t.Fatal(err)
	}
	if ps, err := src.Partitions(t.Context()); err != nil || len(ps) != 3 || src.Counters().Replaced != 1 {
		t.Error(ps, err, src.Counters())
	}
}

// A connection string of the environment, as for an emulator, fits any namespace.
func TestIntegrationConnectionString(t *testing.T) {
	server := start(t, fake.Options{})
	if err := server.CreateHub("orders", 1); err != nil {
		t.Fatal(err)
	}
	if err := server.Publish("orders", "0", "", numbers(0, 10)...); err != nil {
		t.Fatal(err)
	}
	t.Setenv("EVENTHUBS_CONNECTION_STRING", server.ConnectionString()+";EntityPath=orders")
	src, err := New(t.Context(), Options{Namespace: "any", Hub: "orders", Logger: quietLog})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	r := open(t, src, "0", stream.Position{}, "")
	defer r.Close()
	for len(r.records) < 10 {
		if err := r.next(20 * time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if r.text() != text(0, 10) {
		t.Error(r.text())
	}
}

// The plain mode passes Watermill's universal suite.
//
// The Features, honestly: events of one partition, and so of one partition key, come in order, to
// however many subscribers of a group; hubs here have one partition, hence GuaranteedOrder. What is read
// stays readable, and a new group begins at the oldest event. Delivery in plain mode is at least once:
// what was acked since the last save comes again after a crash. Contexts do not travel.
func TestIntegrationUniversal(t *testing.T) {
	server := start(t, fake.Options{MaxMessageSize: 1 << 20})
	var mu sync.Mutex
	logs := make(map[string]*consumertest.Logs) // by group and hub
	created := make(map[string]bool)
	create := func(hub string) error {
		mu.Lock()
		defer mu.Unlock()
		if created[hub] {
			return nil
		}
		created[hub] = true
		return server.CreateHub(hub, 1)
	}
	withGroup := func(t *testing.T, group string) (message.Publisher, message.Subscriber) {
		sub, err := NewSubscriber(Options{Namespace: "local", Endpoint: server.Endpoint(), CheckEvery: 100 * time.Millisecond, Logger: quietLog}, consumers.Config{
			Unmarshal: consumers.OpenEnvelope,
			Join: func(topic string) (stream.Group, error) {
				mu.Lock()
				defer mu.Unlock()
				name := fmt.Sprint(group, "/", topic)
				if logs[name] == nil {
					logs[name] = consumertest.NewLogs()
				}
				return logs[name].Group(), nil
			},
			CloseTimeout: time.Second,
			Logger:       quietLog,
		})
		if err != nil {
			t.Fatal(err)
		}
		return &publisher{server: server, create: create}, creatingSubscriber{sub, create}
	}
	tests.TestPubSub(t, tests.Features{
		ConsumerGroups:                   true,
		ExactlyOnceDelivery:              false,
		GuaranteedOrder:                  true,
		Persistent:                       true,
		NewSubscriberReceivesOldMessages: false, // a new group does, a new subscriber of a group goes on where it is
	}, func(t *testing.T) (message.Publisher, message.Subscriber) {
		return withGroup(t, "group")
	}, withGroup)
}

// publisher puts messages, as envelopes, into the hub itself: this suite is about reading.
type publisher struct {
	server *fake.Server
	create func(hub string) error
	closed atomic.Bool
}

func (p *publisher) Publish(topic string, ms ...*message.Message) error {
	if p.closed.Load() {
		return consumers.ErrClosed
	}
	if err := p.create(topic); err != nil {
		return err
	}
	for _, m := range ms {
		data, err := json.Marshal(map[string]any{"uuid": m.UUID, "metadata": m.Metadata, "payload": []byte(m.Payload)})
		if err != nil {
			return err
		}
		if err := p.server.Publish(topic, "0", "", data); err != nil {
			return err
		}
	}
	return nil
}

func (p *publisher) Close() error {
	p.closed.Store(true)
	return nil
}

// The suite invents topics; the driver creates no hubs.
type creatingSubscriber struct {
	message.Subscriber
	create func(topic string) error
}

func (s creatingSubscriber) SubscribeInitialize(topic string) error { return s.create(topic) }

func (s creatingSubscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	if err := s.create(topic); err != nil {
		return nil, err
	}
	return s.Subscriber.Subscribe(ctx, topic)
}
