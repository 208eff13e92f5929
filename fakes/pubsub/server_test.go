package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	gcp "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/iterator"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	cloud "github.com/millstream/millstream/cloud/gcp"
	"github.com/millstream/millstream/fakes/pubsub"
)

// What the service refuses is refused, with a reason, and nothing of it is done.
func TestLimits(t *testing.T) {
	virtually(t, pubsub.Options{}, nil, func(b *bed) {
		admin, subs := b.client.TopicAdminClient, b.client.SubscriptionAdminClient
		publish := func(messages ...*pubsubpb.PubsubMessage) error {
			return second(admin.Publish(b.ctx, &pubsubpb.PublishRequest{Topic: topic, Messages: messages}))
		}
		create := func(change func(*pubsubpb.Subscription)) error {
			c := &pubsubpb.Subscription{Name: name + "-other", Topic: topic}
			change(c)
			return second(subs.CreateSubscription(b.ctx, c))
		}
		attributes := make(map[string]string)
		for i := range 101 {
			attributes[fmt.Sprint("a", i)] = ""
		}
		for what, err := range map[string]error{
			"have at least one message: no messages":           publish(),
			"1001 messages: at most 1000":                      publish(texts("", numbers(1001)...)...),
			"exceeds the limit: 100":                           publish(texts("", strings.Repeat("x", 10_000_000))...),
			"must have data":                                   publish(texts("", "x", "")...),
			"101 attributes":                                   publish(&pubsubpb.PubsubMessage{Attributes: attributes}),
			`attribute "googx"`:                                publish(&pubsubpb.PubsubMessage{Attributes: map[string]string{"googx": ""}}),
			`attribute ""`:                                     publish(&pubsubpb.PubsubMessage{Attributes: map[string]string{"": ""}}),
			"a value of at most 1024":                          publish(&pubsubpb.PubsubMessage{Attributes: map[string]string{"a": strings.Repeat("x", 1025)}}),
			"The ordering key has 1025":                        publish(texts(strings.Repeat("k", 1025), "x")...),
			"Invalid [topics] name":                            second(admin.CreateTopic(b.ctx, &pubsubpb.Topic{Name: "orders"})),
			"Invalid [topics] name: (name=projects/p/topics/g": second(admin.CreateTopic(b.ctx, &pubsubpb.Topic{Name: "projects/p/topics/google"})),
			"Invalid [subscriptions] name":                     create(func(c *pubsubpb.Subscription) { c.Name = "projects/p/topics/orders" }),
			"ack_deadline_seconds is 5":                        create(func(c *pubsubpb.Subscription) { c.AckDeadlineSeconds = 5 }),
			"ack_deadline_seconds is 601":                      create(func(c *pubsubpb.Subscription) { c.AckDeadlineSeconds = 601 }),
			"Invalid filter: ":                                 create(func(c *pubsubpb.Subscription) { c.Filter = "attributes" }),
			"max_messages is 0":                                second(subs.Pull(b.ctx, &pubsubpb.PullRequest{Subscription: name})),
			"invalid ack ID to the service (ack_id=xyz)":       b.acknowledge(&pubsubpb.ReceivedMessage{AckId: "xyz"}),
			"No ack ids":                                       b.modack(10),
			"is 601 s":                                         b.modack(601, &pubsubpb.ReceivedMessage{AckId: strings.Repeat("0", 24)}),
			"at most 524288":                                   b.acknowledge(slices.Repeat([]*pubsubpb.ReceivedMessage{{AckId: strings.Repeat("0", 24)}}, 25_000)...),
			"The update_mask":                                  second(subs.UpdateSubscription(b.ctx, &pubsubpb.UpdateSubscriptionRequest{Subscription: &pubsubpb.Subscription{Name: name}})),
		} {
			what, _ = strings.CutPrefix(what, "have at least one message: ")
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), what) {
				b.Errorf("%s: %v", what, err)
			}
		}
		err := create(func(c *pubsubpb.Subscription) { c.PushConfig = &pubsubpb.PushConfig{PushEndpoint: "https://localhost"} })
		if status.Code(err) != codes.Unimplemented {
			b.Errorf("push: %v", err)
		}
		if s := b.stats(); s != (pubsub.Stats{}) {
			b.Errorf("%+v", s)
		}
		must(b, publish(texts("", slices.Repeat([]string{strings.Repeat("x", 9_900)}, 1000)...)...)) // is within both

		for what, first := range map[string]*pubsubpb.StreamingPullRequest{
			"stream_ack_deadline_seconds is 0": {Subscription: name},
			"stream_ack_deadline_seconds is 9": {Subscription: name, StreamAckDeadlineSeconds: 9},
			"Invalid [subscriptions] name":     {StreamAckDeadlineSeconds: 10},
			"1 modify_deadline_ack_ids with 0": {Subscription: name, StreamAckDeadlineSeconds: 10, ModifyDeadlineAckIds: []string{"x"}},
		} {
			stream, err := subs.StreamingPull(b.ctx)
			must(b, err)
			must(b, stream.Send(first))
			if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), what) {
				b.Errorf("%s: %v", what, err)
			}
		}
		for what, later := range map[string]*pubsubpb.StreamingPullRequest{
			"Only the first request":            {Subscription: name},
			"invalid ack ID":                    {AckIds: []string{"short"}},
			"The ack deadline is -1":            {ModifyDeadlineAckIds: []string{strings.Repeat("0", 24)}, ModifyDeadlineSeconds: []int32{-1}},
			"stream_ack_deadline_seconds is 99": {StreamAckDeadlineSeconds: 999},
		} {
			p := b.open(&pubsubpb.StreamingPullRequest{})
			must(b, p.stream.Send(later))
			for err = nil; err == nil; {
				_, err = p.stream.Recv()
			}
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), what) {
				b.Errorf("%s: %v", what, err)
			}
		}
	})
}

// What is held is bounded. A publisher that is refused gets through when something is acknowledged;
// without the bound nothing would be refused.
func TestMemory(t *testing.T) {
	refused := func(most int64) (n int) {
		virtually(t, pubsub.Options{MaxBytes: most}, nil, func(b *bed) {
			batch := texts("", slices.Repeat([]string{strings.Repeat("x", 1000)}, 100)...)
			for range 20 {
				_, err := b.client.TopicAdminClient.Publish(b.ctx, &pubsubpb.PublishRequest{Topic: topic, Messages: batch}, cloud.Once())
				if err != nil {
					if status.Code(err) != codes.ResourceExhausted {
						b.Fatal(err)
					}
					n++
				}
			}
			if held := b.server.Bytes(); most > 0 && held > most {
				b.Errorf("%d bytes are held, more than %d", held, most)
			}
			p := b.open(&pubsubpb.StreamingPullRequest{})
			for b.stats().Backlog+b.stats().Outstanding > 0 {
				in, err := p.stream.Recv()
				must(b, err)
				p.ack(in.ReceivedMessages...)
			}
			if held := b.server.Bytes(); held != 0 {
				b.Errorf("%d bytes are held for nothing", held)
			}
			b.publish(batch...)
		})
		return n
	}
	if n := refused(1 << 20); n < 5 || n > 15 {
		t.Errorf("%d of 20 requests are refused", n)
	}
	if n := refused(0); n != 0 {
		t.Errorf("%d of 20 requests are refused by the default", n)
	}
}

// With exactly-once delivery a stream says what became of each ack id.
func TestConfirmations(t *testing.T) {
	virtually(t, pubsub.Options{}, &pubsubpb.Subscription{EnableExactlyOnceDelivery: true, EnableMessageOrdering: true}, func(b *bed) {
		b.publish(texts("k", "0", "1", "2")...)
		b.publish(texts("", "free")...)
		p := b.open(&pubsubpb.StreamingPullRequest{StreamAckDeadlineSeconds: 20})
		got := p.some(4)
		at := func(text string) *pubsubpb.ReceivedMessage { return got[slices.Index(dataOf(got), text)] }
		confirmed := func() *pubsubpb.StreamingPullResponse {
			in, err := p.stream.Recv()
			must(b, err)
			if !in.SubscriptionProperties.ExactlyOnceDeliveryEnabled || !in.SubscriptionProperties.MessageOrderingEnabled || len(in.ReceivedMessages) != 0 {
				b.Fatalf("%v", in)
			}
			return in
		}
		p.ack(at("1"), at("free"), at("0"), at("free"))
		c := confirmed().AcknowledgeConfirmation
		if !slices.Equal(c.AckIds, idsOf([]*pubsubpb.ReceivedMessage{at("free"), at("0")})) || !slices.Equal(c.UnorderedAckIds, []string{at("1").AckId}) || !slices.Equal(c.InvalidAckIds, []string{at("free").AckId}) {
			b.Errorf("%v", c)
		}
		p.modify(30, at("0"), at("1"), at("2"))
		if c := confirmed().ModifyAckDeadlineConfirmation; len(c.AckIds) != 2 || !slices.Equal(c.InvalidAckIds, []string{at("0").AckId}) {
			b.Errorf("%v", c)
		}
		if err := b.acknowledge(at("2")); failure(b, err)[at("2").AckId] != "TRANSIENT_FAILURE_UNORDERED_ACK_ID" {
			b.Errorf("%v", err)
		}
		<-time.After(30*time.Second + 200*time.Millisecond)
		again := p.some(2)
		p.ack(at("1"))
		if c := confirmed().AcknowledgeConfirmation; len(c.AckIds) != 0 || len(c.InvalidAckIds) != 1 {
			b.Errorf("%v", c)
		}
		b.server.Inject(pubsub.Fault{Operation: pubsub.Request, Forget: true})
		for _, left := range []int{2, 0} { // the first time all is as if it were done
			p.ack(again...)
			if c := confirmed().AcknowledgeConfirmation; len(c.AckIds) != 2 || b.stats().Outstanding != left {
				b.Errorf("%v, %+v", c, b.stats())
			}
		}
	})
}

// Ordering at its edges: who gets what follows, and when.
func TestOrderingEdges(t *testing.T) {
	virtually(t, pubsub.Options{}, &pubsubpb.Subscription{EnableMessageOrdering: true}, func(b *bed) {
		long := func() *pubsubpb.StreamingPullRequest {
			return &pubsubpb.StreamingPullRequest{StreamAckDeadlineSeconds: 30}
		}
		// Whoever has the first gets what follows, as long as it is outstanding.
		first := b.open(long())
		b.publish(texts("k", "0", "1")...)
		first.some(2)
		other := b.open(long())
		synctest.Wait()
		b.publish(texts("k", "2")...)
		if got := dataOf(first.some(1)); got[0] != "2" {
			b.Errorf("%v", got)
		}
		// When it has gone, the rest waits until the deadline; then all comes to the other, in order.
		first.stop()
		synctest.Wait()
		b.publish(texts("k", "3")...)
		synctest.Wait()
		if s := b.stats(); s.Outstanding != 3 || s.Backlog != 1 {
			b.Errorf("%+v", s)
		}
		got := other.some(4)
		if strings.Join(dataOf(got), "") != "0123" {
			b.Errorf("%v", dataOf(got))
		}
		other.ack(got...)
		if s := b.stats(); s.Outstanding+s.Backlog != 0 || b.server.Bytes() != 0 {
			b.Errorf("%+v", s)
		}
		// A Pull's messages hold the key too.
		b.publish(texts("k", "4", "5", "6")...)
		other.stop()
		synctest.Wait()
		// The stream may have taken them before it ended.
		if _, err := b.server.Expire(name); err != nil {
			b.Fatal(err)
		}
		two := b.pull(2)
		if strings.Join(dataOf(two), "") != "45" || len(b.pull(2)) != 0 {
			b.Errorf("%v", dataOf(two))
		}
		must(b, b.acknowledge(two[1]))
		if len(b.pull(2)) != 0 {
			b.Error("a message before it is outstanding")
		}
		must(b, b.acknowledge(two[0]))
		if got := dataOf(b.pull(2)); strings.Join(got, "") != "6" {
			b.Errorf("%v", got)
		}
	})
}

// Topics and subscriptions come and go.
func TestAdmin(t *testing.T) {
	virtually(t, pubsub.Options{StreamLifetime: time.Minute}, nil, func(b *bed) {
		admin, subs := b.client.TopicAdminClient, b.client.SubscriptionAdminClient
		for i := range 25 {
			must(b, b.server.CreateTopic(fmt.Sprintf("projects/q/topics/t%02d", i)))
			must(b, b.server.CreateSubscription(&pubsubpb.Subscription{Name: fmt.Sprintf("projects/q/subscriptions/s%02d", i), Topic: "projects/q/topics/t00"}))
		}
		var names []string
		for it := admin.ListTopics(b.ctx, &pubsubpb.ListTopicsRequest{Project: "projects/q", PageSize: 10}); ; {
			next, err := it.Next()
			if errors.Is(err, iterator.Done) {
				break
			}
			must(b, err)
			names = append(names, next.Name)
		}
		if len(names) != 25 || names[24] != "projects/q/topics/t24" {
			b.Errorf("%v", names)
		}
		list, err := subs.ListSubscriptions(b.ctx, &pubsubpb.ListSubscriptionsRequest{Project: "projects/q"}).Next()
		if err != nil || list.Name != "projects/q/subscriptions/s00" || list.AckDeadlineSeconds != 10 {
			b.Errorf("%v, %v", list, err)
		}
		of, err := admin.ListTopicSubscriptions(b.ctx, &pubsubpb.ListTopicSubscriptionsRequest{Topic: topic}).Next()
		if err != nil || of != name {
			b.Errorf("%s, %v", of, err)
		}
		changed, err := subs.UpdateSubscription(b.ctx, &pubsubpb.UpdateSubscriptionRequest{
			Subscription: &pubsubpb.Subscription{Name: name, AckDeadlineSeconds: 60, EnableExactlyOnceDelivery: true},
			UpdateMask:   &fieldmaskpb.FieldMask{Paths: []string{"ack_deadline_seconds", "enable_exactly_once_delivery"}}})
		if err != nil || changed.AckDeadlineSeconds != 60 || !changed.EnableExactlyOnceDelivery || changed.Topic != topic {
			b.Errorf("%v, %v", changed, err)
		}

		// A stream lives as long as it may; its subscription's end is its own.
		p, began := b.open(&pubsubpb.StreamingPullRequest{}), time.Now()
		if _, err := p.stream.Recv(); status.Code(err) != codes.Unavailable || time.Since(began) != time.Minute {
			b.Errorf("after %s: %v", time.Since(began), err)
		}
		b.publish(texts("", "x")...)
		must(b, admin.DeleteTopic(b.ctx, &pubsubpb.DeleteTopicRequest{Topic: topic}))
		orphan, err := subs.GetSubscription(b.ctx, &pubsubpb.GetSubscriptionRequest{Subscription: name})
		if err != nil || orphan.Topic != "_deleted-topic_" {
			b.Errorf("%v, %v", orphan, err)
		}
		p = b.open(&pubsubpb.StreamingPullRequest{ProtocolVersion: 1})
		p.some(1)
		must(b, p.stream.Send(&pubsubpb.StreamingPullRequest{}))
		if in, err := p.stream.Recv(); err != nil || len(in.ReceivedMessages) != 0 {
			b.Errorf("the answer to a ping: %v, %v", in, err)
		}
		must(b, subs.DeleteSubscription(b.ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: name}))
		if _, err := p.stream.Recv(); status.Code(err) != codes.NotFound {
			b.Errorf("%v", err)
		}
		if err := b.server.Wait(b.ctx, name, func(pubsub.Stats) bool { return false }); status.Code(err) != codes.NotFound {
			b.Errorf("%v", err)
		}
	})
}

// Every response says what the subscription is like, the answer to a ping too: the SDK goes by the last.
func TestPingsTellProperties(t *testing.T) {
	for _, is := range []bool{true, false} {
		virtually(t, pubsub.Options{}, &pubsubpb.Subscription{EnableExactlyOnceDelivery: is, EnableMessageOrdering: is}, func(b *bed) {
			p := b.open(&pubsubpb.StreamingPullRequest{ProtocolVersion: 1})
			must(b, p.stream.Send(&pubsubpb.StreamingPullRequest{}))
			in, err := p.stream.Recv()
			must(b, err)
			if got := in.SubscriptionProperties; got == nil || got.ExactlyOnceDeliveryEnabled != is || got.MessageOrderingEnabled != is {
				b.Errorf("%v, want %v", got, is)
			}
		})
	}
}

// A client that closes its side gets the end, and not an error.
func TestHalfClose(t *testing.T) {
	virtually(t, pubsub.Options{}, nil, func(b *bed) {
		p := b.open(&pubsubpb.StreamingPullRequest{})
		must(b, p.stream.CloseSend())
		if _, err := p.stream.Recv(); !errors.Is(err, io.EOF) {
			b.Errorf("%v", err)
		}
	})
}

// Messages and Publish are for tests: they see everything.
func TestControl(t *testing.T) {
	virtually(t, pubsub.Options{}, &pubsubpb.Subscription{EnableMessageOrdering: true}, func(b *bed) {
		ids, err := b.server.Publish(topic, pubsub.Message{Data: []byte("a"), Attributes: map[string]string{"n": "1"}},
			pubsub.Message{Data: []byte("b"), OrderingKey: "k"}, pubsub.Message{Data: []byte("c"), OrderingKey: "k"})
		must(b, err)
		p := b.open(&pubsubpb.StreamingPullRequest{MaxOutstandingMessages: 1})
		p.some(1)
		held, err := b.server.Messages(name)
		must(b, err)
		got := make(map[string]pubsub.Message)
		for _, m := range held {
			got[m.ID] = m
		}
		if len(held) != 3 || got[ids[0]].Attributes["n"] != "1" || string(got[ids[2]].Data) != "c" || got[ids[1]].OrderingKey != "k" || got[ids[0]].Attempts+got[ids[1]].Attempts != 1 {
			b.Errorf("%+v", held)
		}
		if n, err := b.server.EndStreams(name, status.Error(codes.Unavailable, "maintenance")); n != 1 || err != nil {
			b.Errorf("%d, %v", n, err)
		}
		if _, err := p.stream.Recv(); status.Code(err) != codes.Unavailable {
			b.Errorf("%v", err)
		}
		_, err = b.server.Publish(topic+"x", pubsub.Message{Data: []byte("x")})
		if status.Code(err) != codes.NotFound {
			b.Errorf("%v", err)
		}
	})
}

// Over real connections the SDK gets everything, though all of them are reset again and again.
func TestDropConnections(t *testing.T) {
	server := pubsub.New(pubsub.Options{})
	defer server.Close()
	address, err := server.Start()
	must(t, err)
	if again, err := server.Start(); again != address || err != nil {
		t.Errorf("%s, %v", again, err)
	}
	must(t, server.CreateTopic(topic))
	must(t, server.CreateSubscription(&pubsubpb.Subscription{Name: name, Topic: topic}))
	t.Setenv("PUBSUB_EMULATOR_HOST", address)
	client, err := gcp.NewClient(t.Context(), "p")
	must(t, err)
	defer client.Close()
	publisher := client.Publisher("orders")
	var results []*gcp.PublishResult
	for _, text := range numbers(2000) {
		results = append(results, publisher.Publish(t.Context(), &gcp.Message{Data: []byte(text)}))
	}
	for _, r := range results {
		must(t, second(r.Get(t.Context())))
	}
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	var got collector
	var dropped, handled atomic.Int64
	must(t, client.Subscriber("orders").Receive(ctx, func(_ context.Context, m *gcp.Message) {
		m.Ack()
		times, _ := got.add(m)
		if n := handled.Add(1); n%500 == 0 && n <= 1500 {
			dropped.Add(int64(server.DropConnections()))
			must(t, second(server.Expire(name)))
		}
		got.mu.Lock()
		defer got.mu.Unlock()
		if len(got.times) == 2000 && times > 0 {
			stop()
		}
	}))
	if len(got.times) != 2000 || dropped.Load() == 0 {
		t.Errorf("%d messages, %d connections dropped", len(got.times), dropped.Load())
	}
}

func TestClosed(t *testing.T) {
	server := pubsub.New(pubsub.Options{})
	server.Close()
	server.Close()
	if _, err := server.Start(); err == nil {
		t.Error("a closed server starts")
	}
}
