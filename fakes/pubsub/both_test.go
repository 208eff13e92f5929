package pubsub_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	gcp "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/googleapis/gax-go/v2/apierror"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/millstream/millstream/fakes/pubsub"
)

// collector gathers what the SDK's Receive hands out.
type collector struct {
	mu    sync.Mutex
	data  []string
	times map[string]int
}

func (c *collector) add(m *gcp.Message) (times, total int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.times == nil {
		c.times = make(map[string]int)
	}
	c.data = append(c.data, string(m.Data))
	c.times[string(m.Data)]++
	return c.times[string(m.Data)], len(c.data)
}

func numbers(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = strconv.Itoa(i)
	}
	return out
}

// Each case holds for this server; and for Google's pstest, unless google says in what it is wrong. It
// writes an ack id while it sends it, so the race detector is spared it.
func TestLikeGoogle(t *testing.T) {
	for _, c := range []struct {
		name   string
		google string
		config *pubsubpb.Subscription
		run    func(b *bed)
	}{
		{"a message arrives as it was published", "", nil, func(b *bed) {
			ids := b.publish(&pubsubpb.PubsubMessage{Data: []byte("x"), Attributes: map[string]string{"a": "1", "ü": ""}, OrderingKey: "k"})
			published := time.Now()
			p := b.open(&pubsubpb.StreamingPullRequest{})
			m := p.some(1)[0]
			if g := m.Message; string(g.Data) != "x" || g.MessageId != ids[0] || g.Attributes["a"] != "1" || len(g.Attributes) != 2 || g.OrderingKey != "k" || m.DeliveryAttempt != 0 {
				b.Errorf("%v", g)
			}
			if at := m.Message.PublishTime.AsTime(); published.Sub(at).Abs() > time.Second {
				b.Errorf("published at %s, now is %s", at, published)
			}
		}},
		{"the SDK receives and acknowledges each message once", "", nil, func(b *bed) {
			for i := range 3 {
				b.publish(texts("", numbers(100 * (i + 1))[100*i:]...)...)
			}
			var got collector
			ctx, stop := context.WithCancel(b.ctx)
			must(b, b.client.Subscriber("orders").Receive(ctx, func(_ context.Context, m *gcp.Message) {
				m.Ack()
				if _, total := got.add(m); total == 300 {
					stop()
				}
			}))
			again := b.pull(10)
			if len(got.times) != 300 || len(again) != 0 {
				b.Errorf("%d messages, and %d after they were acknowledged", len(got.times), len(again))
			}
		}},
		{"a message that is given back comes again at once", "", nil, func(b *bed) {
			b.publish(texts("", "x")...)
			var got collector
			began := time.Now()
			ctx, stop := context.WithCancel(b.ctx)
			must(b, b.client.Subscriber("orders").Receive(ctx, func(_ context.Context, m *gcp.Message) {
				if times, _ := got.add(m); times < 4 {
					m.Nack()
					return
				}
				m.Ack()
				stop()
			}))
			if d := time.Since(began); d > 3*time.Second {
				b.Errorf("after %s", d)
			}
		}},
		{"a message that is not acknowledged comes again after the deadline, under another ack id", "", nil, func(b *bed) {
			b.publish(texts("", "x")...)
			p := b.open(&pubsubpb.StreamingPullRequest{StreamAckDeadlineSeconds: 20})
			first, began := p.some(1), time.Now()
			second := p.some(1)
			if d := time.Since(began); d < 20*time.Second || d > 20*time.Second+200*time.Millisecond {
				b.Errorf("after %s", d)
			}
			if first[0].AckId == second[0].AckId || first[0].Message.MessageId != second[0].Message.MessageId {
				b.Errorf("%v and then %v", first, second)
			}
		}},
		{"a deadline is extended, and shortened", "", nil, func(b *bed) {
			b.publish(texts("", "x")...)
			p := b.open(&pubsubpb.StreamingPullRequest{})
			first, began := p.some(1), time.Now()
			for range 3 {
				<-time.After(8 * time.Second)
				p.modify(10, first...)
			}
			must(b, b.modack(600, first...))
			must(b, b.modack(15, first...))
			p.some(1)
			if d := time.Since(began); d < 39*time.Second || d > 39*time.Second+200*time.Millisecond {
				b.Errorf("after %s", d)
			}
		}},
		{"a late acknowledgement is still good", "only the newest delivery's is", nil, func(b *bed) {
			b.publish(texts("", "x")...)
			p := b.open(&pubsubpb.StreamingPullRequest{})
			first := p.some(1)
			p.some(1)
			must(b, b.acknowledge(first...))
			p.stop()
			<-time.After(time.Minute)
			out := b.pull(10)
			if len(out) != 0 {
				b.Errorf("%v", out)
			}
		}},
		{"what a stream was sent comes to another when it has gone", "", nil, func(b *bed) {
			b.publish(texts("", "x", "y")...)
			p := b.open(&pubsubpb.StreamingPullRequest{})
			p.some(2)
			p.stop()
			if got := dataOf(b.open(&pubsubpb.StreamingPullRequest{}).some(2)); !slices.Contains(got, "x") || !slices.Contains(got, "y") {
				b.Errorf("%v", got)
			}
		}},
		{"pull", "", nil, func(b *bed) {
			b.publish(texts("", numbers(10)...)...)
			seen := make(map[string]bool)
			for len(seen) < 10 {
				out, err := b.client.SubscriptionAdminClient.Pull(b.ctx, &pubsubpb.PullRequest{Subscription: name, MaxMessages: 4})
				must(b, err)
				if len(out.ReceivedMessages) > 4 {
					b.Fatalf("%d messages", len(out.ReceivedMessages))
				}
				must(b, b.acknowledge(out.ReceivedMessages...))
				for _, text := range dataOf(out.ReceivedMessages) {
					seen[text] = true
				}
			}
		}},
		{"only what the filter takes", "", &pubsubpb.Subscription{Filter: `attributes.kind = "a" OR hasPrefix(attributes.kind, "b")`}, func(b *bed) {
			for _, kind := range []string{"a", "b1", "c", "ab"} {
				b.publish(&pubsubpb.PubsubMessage{Data: []byte(kind), Attributes: map[string]string{"kind": kind}})
			}
			b.publish(texts("", "none")...)
			p := b.open(&pubsubpb.StreamingPullRequest{})
			got := dataOf(p.some(2))
			slices.Sort(got)
			if strings.Join(got, " ") != "a b1" {
				b.Errorf("%v", got)
			}
		}},
		{"the SDK receives the messages of a key in their order", "", &pubsubpb.Subscription{EnableMessageOrdering: true}, func(b *bed) {
			for i := range 20 {
				for k := range 5 {
					b.publish(texts(fmt.Sprint("key", k), fmt.Sprint(k, " ", i))...)
				}
				<-time.After(time.Millisecond) // pstest orders by the time of publishing
			}
			var got collector
			ctx, stop := context.WithCancel(b.ctx)
			must(b, b.client.Subscriber("orders").Receive(ctx, func(_ context.Context, m *gcp.Message) {
				if _, total := got.add(m); total == 100 {
					stop()
				}
				m.Ack()
			}))
			next := make(map[string]int)
			for _, text := range got.data {
				key, n, _ := strings.Cut(text, " ")
				if n != strconv.Itoa(next[key]) {
					b.Fatalf("%s of key %s, want %d: %v", n, key, next[key], got.data)
				}
				next[key]++
			}
		}},
		{"the SDK acknowledges exactly once", "", &pubsubpb.Subscription{EnableExactlyOnceDelivery: true}, func(b *bed) {
			b.publish(texts("", numbers(50)...)...)
			var got collector
			ctx, stop := context.WithCancel(b.ctx)
			must(b, b.client.Subscriber("orders").Receive(ctx, func(_ context.Context, m *gcp.Message) {
				if status, err := m.AckWithResult().Get(b.ctx); status != gcp.AcknowledgeStatusSuccess || err != nil {
					b.Errorf("%d, %v", status, err)
				}
				if _, total := got.add(m); total == 50 {
					stop()
				}
			}))
			if len(got.times) != 50 {
				b.Errorf("%v", got.times)
			}
		}},
		{"an expired ack id is an error with exactly-once delivery", "acknowledgements always succeed", &pubsubpb.Subscription{EnableExactlyOnceDelivery: true}, func(b *bed) {
			b.publish(texts("", "x")...)
			p := b.open(&pubsubpb.StreamingPullRequest{})
			first := p.some(1)
			second := p.some(1)
			if err := b.acknowledge(first...); status.Code(err) != codes.InvalidArgument || failure(b, err)[first[0].AckId] != "PERMANENT_FAILURE_INVALID_ACK_ID" {
				b.Errorf("%v", err)
			}
			if err := b.modack(20, append(first, second...)...); len(failure(b, err)) != 1 {
				b.Errorf("%v", err)
			}
			must(b, b.acknowledge(second...))
			if err := b.acknowledge(second...); len(failure(b, err)) != 1 {
				b.Errorf("twice: %v", err)
			}
		}},
		{"flow control holds a stream back", "it does not", nil, func(b *bed) {
			b.publish(texts("", numbers(10)...)...)
			p := b.open(&pubsubpb.StreamingPullRequest{MaxOutstandingMessages: 3})
			first := p.some(3)
			p.ack(first[0])
			if got := p.some(1); got[0].Message.MessageId == first[1].Message.MessageId {
				b.Errorf("%v again", got)
			}
			q := b.open(&pubsubpb.StreamingPullRequest{MaxOutstandingBytes: 1})
			q.some(1)
			if s := b.stats(); s.Outstanding != 4 || s.Backlog != 5 {
				b.Errorf("%+v", s)
			}
		}},
		{"messages come in the order of publishing when nothing disturbs it", "it keeps them in a map", nil, func(b *bed) {
			for i := range 5 {
				b.publish(texts("", numbers(300 * (i + 1))[300*i:]...)...)
			}
			got := dataOf(b.open(&pubsubpb.StreamingPullRequest{}).some(1500))
			if !slices.Equal(got, numbers(1500)) {
				b.Errorf("%v", got)
			}
		}},
		{"many messages of a key are outstanding at once, and a failure brings all that follow again", "it sends one at a time", &pubsubpb.Subscription{EnableMessageOrdering: true}, func(b *bed) {
			b.publish(texts("k", numbers(5)...)...)
			p := b.open(&pubsubpb.StreamingPullRequest{StreamAckDeadlineSeconds: 600})
			first := p.some(5)
			p.ack(first[0], first[3]) // 3 is acknowledged, and comes again too
			p.modify(0, first[1])
			if got := dataOf(p.some(4)); strings.Join(got, "") != "1234" {
				b.Errorf("%v", got)
			}
			if s := b.stats(); s.Outstanding != 4 || s.Backlog != 0 {
				b.Errorf("%+v", s)
			}
		}},
		{"a retry policy lets a message rest", "it ignores them", &pubsubpb.Subscription{RetryPolicy: backoff(5*time.Second, 15*time.Second)}, func(b *bed) {
			b.publish(texts("", "x")...)
			p := b.open(&pubsubpb.StreamingPullRequest{})
			m := p.some(1)
			for _, pause := range []time.Duration{5 * time.Second, 10 * time.Second, 15 * time.Second, 15 * time.Second} {
				p.modify(0, m...)
				began := time.Now()
				m = p.some(1)
				if d := time.Since(began); d < pause || d > pause+200*time.Millisecond {
					b.Errorf("after %s, want %s", d, pause)
				}
			}
		}},
		{"errors have the service's codes", "", nil, func(b *bed) {
			admin, subs := b.client.TopicAdminClient, b.client.SubscriptionAdminClient
			for what, want := range map[string]struct {
				code codes.Code
				err  error
			}{
				"topic":     {codes.NotFound, second(admin.GetTopic(b.ctx, &pubsubpb.GetTopicRequest{Topic: topic + "x"}))},
				"publish":   {codes.NotFound, second(admin.Publish(b.ctx, &pubsubpb.PublishRequest{Topic: topic + "x", Messages: texts("", "x")}))},
				"subscribe": {codes.NotFound, second(subs.CreateSubscription(b.ctx, &pubsubpb.Subscription{Name: name + "x", Topic: topic + "x"}))},
				"get":       {codes.NotFound, second(subs.GetSubscription(b.ctx, &pubsubpb.GetSubscriptionRequest{Subscription: name + "x"}))},
				"pull":      {codes.NotFound, second(subs.Pull(b.ctx, &pubsubpb.PullRequest{Subscription: name + "x", MaxMessages: 1}))},
				"delete":    {codes.NotFound, subs.DeleteSubscription(b.ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: name + "x"})},
				"twice":     {codes.AlreadyExists, second(admin.CreateTopic(b.ctx, &pubsubpb.Topic{Name: topic}))},
				"twice too": {codes.AlreadyExists, second(subs.CreateSubscription(b.ctx, &pubsubpb.Subscription{Name: name, Topic: topic}))},
				"filter":    {codes.InvalidArgument, second(subs.CreateSubscription(b.ctx, &pubsubpb.Subscription{Name: name + "y", Topic: topic, Filter: "("}))},
			} {
				if status.Code(want.err) != want.code {
					b.Errorf("%s: %v, want %s", what, want.err, want.code)
				}
			}
			err := b.client.Subscriber("absent").Receive(b.ctx, func(context.Context, *gcp.Message) {})
			if status.Code(err) != codes.NotFound {
				b.Errorf("receive: %v", err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			virtually(t, optionsZero, clone(c.config), c.run)
		})
		if c.google == "" && google {
			t.Run("google/"+c.name, func(t *testing.T) {
				virtuallyGoogle(t, clone(c.config), c.run)
			})
		}
	}
}

var optionsZero pubsub.Options

func clone(c *pubsubpb.Subscription) *pubsubpb.Subscription {
	if c == nil {
		return nil
	}
	return proto.Clone(c).(*pubsubpb.Subscription)
}

func second[T any](_ T, err error) error { return err }

func backoff(least, most time.Duration) *pubsubpb.RetryPolicy {
	return &pubsubpb.RetryPolicy{MinimumBackoff: durationpb.New(least), MaximumBackoff: durationpb.New(most)}
}

// failure returns what an error says of each ack id.
func failure(b *bed, err error) map[string]string {
	b.Helper()
	info, ok := apierror.FromError(err)
	if !ok {
		b.Fatalf("%v has no details", err)
	}
	return info.Metadata()
}
