package pubsub

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/millstream/millstream/cloud/gcp"
	"github.com/millstream/millstream/stream"
)

// What cannot be read to exact totals is refused, in one line that says what to do. The service is
// Google's own stand-in, which knows all kinds of subscriptions.
func TestExamine(t *testing.T) {
	slow := func(most time.Duration) *pb.RetryPolicy {
		return &pb.RetryPolicy{MinimumBackoff: durationpb.New(10 * time.Second), MaximumBackoff: durationpb.New(most)}
	}
	for _, c := range []struct {
		name   string
		config *pb.Subscription
		want   string
		within time.Duration
		warned string
	}{
		{name: "pull", config: &pb.Subscription{}, within: 65 * time.Second},
		{name: "detached", config: &pb.Subscription{Detached: true}, want: "is detached from its topic"},
		{name: "push", config: &pb.Subscription{PushConfig: &pb.PushConfig{PushEndpoint: "https://x/y"}}, want: "pushes to https://x/y"},
		{name: "bigquery", config: &pb.Subscription{BigqueryConfig: &pb.BigQueryConfig{Table: "p.d.t"}}, want: "writes to BigQuery"},
		{name: "storage", config: &pb.Subscription{CloudStorageConfig: &pb.CloudStorageConfig{Bucket: "b"}}, want: "writes to Cloud Storage"},
		{name: "patient", config: &pb.Subscription{RetryPolicy: slow(time.Minute)}, within: 125 * time.Second},
		{name: "too patient", config: &pb.Subscription{RetryPolicy: slow(10 * time.Minute)}, want: "raise --dedupe-for to 12m0s"},
		{name: "dead letters", config: &pb.Subscription{DeadLetterPolicy: &pb.DeadLetterPolicy{DeadLetterTopic: topic, MaxDeliveryAttempts: 5}}, within: 65 * time.Second, warned: "max_delivery_attempts=5"},
		{name: "filter", config: &pb.Subscription{Filter: `attributes.a = "1"`}, within: 65 * time.Second, warned: "filter="},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := pstest.NewServer()
			defer server.Close()
			_, err := server.GServer.CreateTopic(t.Context(), &pb.Topic{Name: topic})
			c.config.Name, c.config.Topic, c.config.AckDeadlineSeconds = orders, topic, 10
			if err == nil {
				_, err = server.GServer.CreateSubscription(t.Context(), c.config)
			}
			if err != nil {
				t.Fatal(err)
			}
			var log strings.Builder
			src, err := New(t.Context(), Options{Project: project, Subscriptions: []string{"orders"}, Endpoint: server.Addr, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), orders) {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			if src.RedeliversWithin() != c.within || !strings.Contains(log.String(), c.warned) {
				t.Errorf("%s\n%s", src.RedeliversWithin(), log.String())
			}
		})
	}
}

// Subscriptions that hold the same messages are read, and said to be.
func TestOverlapping(t *testing.T) {
	for filters, warned := range map[[2]string]bool{
		{`attributes.a = "1"`, `attributes.a = "2"`}: false,
		{`attributes.a = "1"`, `attributes.a = "1"`}: true,
		{`attributes.a = "1"`, ""}:                   true,
		{"", ""}:                                     true,
	} {
		s := newService(t, &pb.Subscription{Name: orders, Filter: filters[0]}, &pb.Subscription{Name: orders + "2", Filter: filters[1]})
		var log strings.Builder
		o := s.options()
		o.Subscriptions, o.Logger = []string{"orders", "orders2"}, slog.New(slog.NewTextHandler(&log, nil))
		s.source(o)
		if strings.Contains(log.String(), "counted once for each") != warned {
			t.Errorf("%q: %s", filters, log.String())
		}
	}
}

// A service that cannot be asked is an error within seconds; one that may be read and not looked at is
// accepted.
func TestOutOfReach(t *testing.T) {
	for _, c := range []struct {
		name    string
		options []pstest.ServerReactorOption
		want    string
		is      error
	}{
		{"unavailable", []pstest.ServerReactorOption{pstest.WithErrorInjection("GetSubscription", codes.Unavailable, "not now")}, "subscription projects/p/subscriptions/orders: Unavailable: not now", nil},
		{"denied", []pstest.ServerReactorOption{pstest.WithErrorInjection("GetSubscription", codes.PermissionDenied, "no")}, "access denied", gcp.ErrDenied},
		{"missing", nil, "subscription projects/p/subscriptions/orders does not exist", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := pstest.NewServer(c.options...)
			defer server.Close()
			began := time.Now()
			_, err := New(t.Context(), Options{Project: project, Subscriptions: []string{"orders"}, Endpoint: server.Addr, Logger: slog.New(slog.DiscardHandler)})
			if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) || time.Since(began) > 2*askPatience {
				t.Errorf("%v after %s", err, time.Since(began))
			}
		})
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		o        Options
		identity string
		names    string
	}{
		{Options{Subscriptions: []string{"even", "odd"}}, "pubsub://p/even,odd", "even odd"},
		{Options{Subscriptions: []string{"odd", "even"}}, "pubsub://p/even,odd", "odd even"},
		{Options{Subscriptions: []string{"projects/p/subscriptions/odd"}}, "pubsub://p/odd", "odd"},
		{Options{Subscriptions: []string{"projects/q/subscriptions/odd"}}, "pubsub://p/projects/q/subscriptions/odd", "projects/q/subscriptions/odd"},
		{Options{Subscriptions: []string{"odd"}, Shared: 2}, "pubsub://p/odd?shared=2", "odd/0 odd/1"},
		{Options{Subscriptions: []string{"odd", "odd"}}, "", "odd is named twice"},
		{Options{}, "", "no subscription is named"},
	} {
		c.o.Project = project
		c.o.Shared = max(1, c.o.Shared)
		s := &Source{options: c.o, subscriptions: make(map[string]*subscription)}
		if _, err := s.name(); err != nil {
			if c.identity != "" || !strings.Contains(err.Error(), c.names) {
				t.Errorf("%+v: %v", c.o, err)
			}
			continue
		}
		var names []string
		ps, err := s.Partitions(t.Context())
		for _, p := range ps {
			names = append(names, p.Name)
		}
		if err != nil || s.Identity() != c.identity || strings.Join(names, " ") != c.names || (c.o.Shared > 1) != (s.Guarantee() != "") {
			t.Errorf("%+v: %s, %v", c.o, s.Identity(), names)
		}
		if _, err := s.Open(context.Background(), "other", stream.Position{}, ""); !errors.Is(err, stream.ErrPartitionGone) {
			t.Error(err)
		}
	}
}

func TestIDs(t *testing.T) {
	seen := make(map[uint64]string)
	for _, id := range []string{"1", "11451024881293845", "18446744073709551615", "18446744073709551616", "0", "", "m1", "m2", "01x"} {
		n := idOf(id)
		if n == 0 || seen[n] != "" {
			t.Errorf("%q is %d, as %q is", id, n, seen[n])
		}
		seen[n] = id
	}
	if idOf("11451024881293845") != 11451024881293845 {
		t.Error("a number is not itself")
	}
}
