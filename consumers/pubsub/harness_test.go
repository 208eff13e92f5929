package pubsub

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/millstream/millstream/consumers"
	fake "github.com/millstream/millstream/fakes/pubsub"
	"github.com/millstream/millstream/stream"
)

const (
	project = "p"
	topic   = "projects/p/topics/clicks"
	orders  = "projects/p/subscriptions/orders"
)

// service is a Pub/Sub with a topic and subscriptions, of which "orders" is one.
type service struct {
	*fake.Server
	t testing.TB
}

func newService(t testing.TB, configs ...*pb.Subscription) *service {
	t.Helper()
	s := &service{fake.New(fake.Options{}), t}
	t.Cleanup(s.Close)
	s.must(s.CreateTopic(topic))
	if len(configs) == 0 {
		configs = []*pb.Subscription{{Name: orders}}
	}
	for _, c := range configs {
		c.Topic = topic
		s.must(s.CreateSubscription(c))
	}
	return s
}

func (s *service) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *service) options() Options {
	return Options{Project: project, Subscriptions: []string{"orders"}, Streams: 2, ClientOptions: s.ClientOptions(), Logger: slog.New(slog.DiscardHandler)}
}

func (s *service) source(o Options) *Source {
	s.t.Helper()
	src, err := New(s.t.Context(), o)
	s.must(err)
	s.t.Cleanup(func() {
		if o.SDK { // a goroutine of each stream of the SDK looks every 10 s whether it is over
			<-time.After(11 * time.Second)
		}
		s.must(src.Close())
	})
	return src
}

func (s *service) publish(key string, data ...string) {
	s.t.Helper()
	messages := make([]fake.Message, len(data))
	for i, d := range data {
		messages[i] = fake.Message{Data: []byte(d), OrderingKey: key}
	}
	_, err := s.Publish(topic, messages...)
	s.must(err)
}

func numbered(n int) []string {
	data := make([]string, n)
	for i := range data {
		data[i] = fmt.Sprint("message ", i)
	}
	return data
}

func (s *service) stats() fake.Stats {
	s.t.Helper()
	stats, err := s.Stats(orders)
	s.must(err)
	return stats
}

// settled waits until the subscription holds that many messages, of which so many are outstanding.
func (s *service) wait(what string, until func(fake.Stats) bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Minute)
	defer cancel()
	if err := s.Wait(ctx, orders, until); err != nil {
		s.t.Fatalf("%s: %v, %+v", what, err, s.stats())
	}
}

func (s *service) open(src *Source, partition string) consumers.Reader {
	s.t.Helper()
	r, err := src.Open(s.t.Context(), partition, stream.Position{}, "")
	s.must(err)
	return r
}

// read reads until there are n records.
func (s *service) read(r consumers.Reader, n int) (fetches []consumers.Fetch) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Minute)
	defer cancel()
	for n > 0 {
		f, err := r.Read(ctx)
		if err != nil {
			s.t.Fatalf("%d records are missing: %v", n, err)
		}
		n -= len(f.Records)
		fetches = append(fetches, f)
	}
	return fetches
}

func settle(fetches []consumers.Fetch, err error) {
	for _, f := range fetches {
		if f.Settle != nil {
			f.Settle(0, len(f.Records), err)
		}
	}
}

// both runs a test in virtual time with each client.
func both(t *testing.T, test func(t *testing.T, sdk bool)) {
	for name, sdk := range map[string]bool{"own": false, "sdk": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, sdk) })
		})
	}
}
