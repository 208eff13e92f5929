package pubsub

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/pubsub/v2"
	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	fake "github.com/millstream/millstream/fakes/pubsub"
	"github.com/millstream/millstream/sinks/sinktest"
	"github.com/millstream/millstream/stream"
)

// holds runs a case: dial makes a client whose calls pass through the interceptor, seen returns what is
// in the topic.
func holds(t *testing.T, c sinktest.Case, dial func(grpc.DialOption) *pubsub.Client, seen func() [][]byte) {
	err := c.Holds(t.Context(), &sinktest.Destination{
		Promise: sinktest.AtLeastOnceByID, Name: "topic " + topic,
		Open: func(hook sinktest.Hook) (stream.Sink, error) {
			wire := new(sinktest.Wire)
			client := dial(grpc.WithUnaryInterceptor(func(ctx context.Context, method string, in, out any, c *grpc.ClientConn, invoke grpc.UnaryInvoker, o ...grpc.CallOption) error {
				return wire.Call(ctx, func(ctx context.Context) error { return invoke(ctx, method, in, out, c, o...) })
			}))
			t.Cleanup(func() { client.Close() })
			s, err := New(t.Context(), Options{Project: "p", Topic: "rows", Client: client, Logger: slog.New(slog.DiscardHandler)})
			wire.Begin(hook)
			return s, err
		},
		Seen: func(context.Context) ([][]byte, error) { return seen(), nil },
	})
	if err != nil {
		t.Error(err)
	}
}

// The suite holds on Google's fake.
func TestSuite(t *testing.T) {
	for _, c := range sinktest.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			inBubble(t, func(b *bed) {
				holds(b.T, c, func(o grpc.DialOption) *pubsub.Client { return b.dial(o) }, func() (rows [][]byte) {
					for _, m := range b.fake.Messages() {
						rows = append(rows, m.Data)
					}
					return rows
				})
			})
		})
	}
}

// inFake runs f against fakes/pubsub, whose subscription remembers what is in the topic.
func inFake(t *testing.T, o fake.Options, f func(t *testing.T, server *fake.Server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		server := fake.New(o)
		t.Cleanup(func() {
			server.Close()
			synctest.Wait()
		})
		if err := server.CreateTopic(topic); err != nil {
			t.Fatal(err)
		}
		if err := server.CreateSubscription(&pb.Subscription{Name: allRows, Topic: topic}); err != nil {
			t.Fatal(err)
		}
		f(t, server)
	})
}

const allRows = "projects/p/subscriptions/rows"

// The suite holds on fakes/pubsub too, which keeps the service's limits.
func TestSuiteOnOurFake(t *testing.T) {
	for _, c := range sinktest.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			inFake(t, fake.Options{}, func(t *testing.T, server *fake.Server) {
				dial := func(o grpc.DialOption) *pubsub.Client {
					client, err := pubsub.NewClient(t.Context(), "p", append(server.ClientOptions(), option.WithGRPCDialOption(o))...)
					if err != nil {
						t.Fatal(err)
					}
					return client
				}
				holds(t, c, dial, func() (rows [][]byte) {
					messages, err := server.Messages(allRows)
					if err != nil {
						t.Error(err)
					}
					for _, m := range messages {
						rows = append(rows, m.Data)
					}
					return rows
				})
			})
		})
	}
}

// Whatever the service does to its calls, all rows arrive: it refuses, forgets to answer, drops the
// connection, is full for a while.
func TestService(t *testing.T) {
	for name, hurt := range map[string]func(*fake.Server){
		"refuses": func(s *fake.Server) { s.Inject(fake.Fault{Operation: "Publish", Times: 5, Code: codes.Unavailable}) },
		"no quota": func(s *fake.Server) {
			s.Inject(fake.Fault{Operation: "Publish", Times: 5, Code: codes.ResourceExhausted})
		},
		"no answer": func(s *fake.Server) { s.Inject(fake.Fault{Operation: "Publish", Times: 2, Delay: time.Hour}) },
		"lost":      func(s *fake.Server) { s.Inject(fake.Fault{Operation: "Publish", Times: 5, LoseReply: true}) },
		"dropped": func(s *fake.Server) {
			slow := s.Inject(fake.Fault{Operation: "Publish", Times: 3, Delay: time.Second})
			go func() {
				<-slow.Done()
				s.DropConnections()
			}()
		},
	} {
		t.Run(name, func(t *testing.T) {
			inFake(t, fake.Options{}, func(t *testing.T, server *fake.Server) {
				client, err := pubsub.NewClient(t.Context(), "p", server.ClientOptions()...)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { client.Close() })
				s, err := New(t.Context(), Options{Project: "p", Topic: "rows", Client: client, Logger: slog.New(slog.DiscardHandler)})
				if err != nil {
					t.Fatal(err)
				}
				hurt(server)
				if err := s.Deliver(t.Context(), id, rowsOf(5000, 0)); err != nil {
					t.Fatal(err)
				}
				seen := make(map[string]bool)
				messages, err := server.Messages(allRows)
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range messages {
					seen[string(m.Data)] = true
				}
				if n := s.Counters(); len(seen) != 5000 || n.Throttled+n.Ambiguous == 0 {
					t.Error(fmt.Sprint(len(seen), " rows, ", n))
				}
			})
		})
	}
}
