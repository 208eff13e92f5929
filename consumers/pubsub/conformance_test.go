package pubsub

import (
	"testing"
	"time"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/consumers/consumertest"
	fake "github.com/millstream/millstream/fakes/pubsub"
)

// The conformance suite with each client, in virtual time. One ordering key gives a subscription the order
// that the suite wants.
func TestConformance(t *testing.T) {
	for name, sdk := range map[string]bool{"own": false, "sdk": true} {
		t.Run(name, func(t *testing.T) {
			consumertest.RunVirtual(t, func(t *testing.T) *consumertest.Stream {
				const more = "projects/p/subscriptions/more"
				s := newService(t, &pb.Subscription{Name: orders, EnableMessageOrdering: true, Filter: `attributes.part = "orders"`},
					&pb.Subscription{Name: more, EnableMessageOrdering: true, Filter: `attributes.part = "more"`})
				o := s.options()
				o.SDK, o.Subscriptions = sdk, []string{"orders", "more"}
				var quota *fake.Injection
				return &consumertest.Stream{
					Source:     s.source(o),
					Redelivers: true,
					Publish: func(partition string, data ...[]byte) error {
						<-time.After(time.Second) // or a stream that is closing takes them with it, for a minute
						messages := make([]fake.Message, len(data))
						for i, d := range data {
							messages[i] = fake.Message{Data: d, OrderingKey: "key", Attributes: map[string]string{"part": partition}}
						}
						_, err := s.Publish(topic, messages...)
						return err
					},
					Again: func() (consumers.Source, error) { return New(t.Context(), o) },
					Disconnect: func() error {
						<-time.After(time.Second) // or what was on its way comes again, with what is behind it
						s.DropConnections()
						<-time.After(time.Second)
						return nil
					},
					Throttle: func(on bool) error {
						if !on {
							quota.Stop()
							return nil
						}
						<-time.After(time.Second)
						quota = s.Inject(fake.Fault{Operation: fake.StreamingPull, Code: codes.ResourceExhausted, Times: -1})
						for _, name := range []string{orders, more} {
							if _, err := s.EndStreams(name, status.Error(codes.ResourceExhausted, "quota")); err != nil {
								return err
							}
						}
						return nil
					},
					Missing: "none",
				}
			})
		})
	}
}
