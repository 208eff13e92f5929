package pubsub_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	gcp "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	cloud "github.com/millstream/millstream/cloud/gcp"
	"github.com/millstream/millstream/fakes/pubsub"
)

// Each fault does what it says, once, and is counted.
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault pubsub.Fault
		run   func(b *bed)
	}{
		{"a call fails", pubsub.Fault{Operation: "Publish", Resource: "orders", Code: codes.ResourceExhausted, Message: "quota"}, func(b *bed) {
			_, err := b.client.TopicAdminClient.Publish(b.ctx, &pubsubpb.PublishRequest{Topic: topic, Messages: texts("", "x")}, cloud.Once())
			if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "quota") || b.stats().Backlog != 0 {
				b.Errorf("%v", err)
			}
			b.publish(texts("", "x")...)
		}},
		{"the SDK's publisher tries again", pubsub.Fault{Operation: "Publish", Code: codes.Unavailable}, func(b *bed) {
			p := b.client.Publisher("orders")
			must(b, second(p.Publish(b.ctx, &gcp.Message{Data: []byte("x")}).Get(b.ctx)))
			p.Stop()
			if b.stats().Backlog != 1 {
				b.Errorf("%+v", b.stats())
			}
		}},
		{"a reply is lost", pubsub.Fault{Operation: "Publish", LoseReply: true}, func(b *bed) {
			_, err := b.client.TopicAdminClient.Publish(b.ctx, &pubsubpb.PublishRequest{Topic: topic, Messages: texts("", "x")}, cloud.Once())
			if status.Code(err) != codes.Unavailable || b.stats().Backlog != 1 {
				b.Errorf("%v, %+v", err, b.stats())
			}
		}},
		{"an answer is late", pubsub.Fault{Operation: "GetTopic", Resource: topic, Delay: time.Minute}, func(b *bed) {
			began := time.Now()
			ctx, stop := context.WithTimeout(b.ctx, time.Hour)
			defer stop()
			_, err := b.client.TopicAdminClient.GetTopic(ctx, &pubsubpb.GetTopicRequest{Topic: topic})
			if err != nil || time.Since(began) != time.Minute {
				b.Errorf("after %s: %v", time.Since(began), err)
			}
		}},
		{"a stream does not open", pubsub.Fault{Operation: pubsub.StreamingPull, Code: codes.Unavailable}, func(b *bed) {
			_, err := b.open(&pubsubpb.StreamingPullRequest{}).stream.Recv()
			if status.Code(err) != codes.Unavailable {
				b.Errorf("%v", err)
			}
		}},
		{"a stream ends in the middle", pubsub.Fault{Operation: pubsub.Deliver, Code: codes.Unavailable, Skip: 1}, func(b *bed) {
			b.publish(texts("", "x")...)
			p := b.open(&pubsubpb.StreamingPullRequest{})
			p.some(1)
			b.publish(texts("", "y")...)
			if _, err := p.stream.Recv(); status.Code(err) != codes.Unavailable {
				b.Errorf("%v", err)
			}
			began := time.Now()
			b.open(&pubsubpb.StreamingPullRequest{}).some(2)
			if d := time.Since(began); d < 9*time.Second {
				b.Errorf("what was outstanding came after %s", d)
			}
		}},
		{"a stream ends after a response", pubsub.Fault{Operation: pubsub.Deliver, LoseReply: true}, func(b *bed) {
			b.publish(texts("", "x")...)
			p := b.open(&pubsubpb.StreamingPullRequest{})
			p.some(1)
			if _, err := p.stream.Recv(); status.Code(err) != codes.Unavailable {
				b.Errorf("%v", err)
			}
		}},
		{"a slow response", pubsub.Fault{Operation: pubsub.Deliver, Delay: 5 * time.Second}, func(b *bed) {
			b.publish(texts("", "x")...)
			began := time.Now()
			b.open(&pubsubpb.StreamingPullRequest{}).some(1)
			if d := time.Since(began); d != 5*time.Second {
				b.Errorf("after %s", d)
			}
		}},
		{"acknowledgements on a stream are forgotten", pubsub.Fault{Operation: pubsub.Request, Forget: true}, func(b *bed) {
			b.publish(texts("", "x")...)
			p := b.open(&pubsubpb.StreamingPullRequest{})
			p.ack(p.some(1)...)
			p.ack(p.some(1)...)
			if s := b.stats(); s.Acked != 1 || s.Redelivered != 1 {
				b.Errorf("%+v", s)
			}
		}},
		{"a stream ends for an acknowledgement that counts", pubsub.Fault{Operation: pubsub.Request, LoseReply: true}, func(b *bed) {
			b.publish(texts("", "x")...)
			p := b.open(&pubsubpb.StreamingPullRequest{})
			p.ack(p.some(1)...)
			if _, err := p.stream.Recv(); status.Code(err) != codes.Unavailable || b.stats().Acked != 1 {
				b.Errorf("%v, %+v", err, b.stats())
			}
		}},
		{"messages come twice", pubsub.Fault{Operation: pubsub.Deliver, Duplicate: true}, func(b *bed) {
			b.publish(texts("", "x", "y")...)
			p := b.open(&pubsubpb.StreamingPullRequest{})
			got := p.some(4)
			if got[0].AckId == got[2].AckId || got[0].Message.MessageId != got[2].Message.MessageId {
				b.Errorf("%v", got)
			}
			p.ack(got[0], got[3]) // either ack id will do
			if s := b.stats(); s.Acked != 2 || s.Outstanding+s.Backlog != 0 || s.Redelivered != 2 {
				b.Errorf("%+v", s)
			}
		}},
		{"messages come out of order", pubsub.Fault{Operation: pubsub.Deliver, Reorder: true}, func(b *bed) {
			b.publish(texts("", numbers(5)...)...)
			if got := dataOf(b.open(&pubsubpb.StreamingPullRequest{}).some(5)); strings.Join(got, "") != "43210" {
				b.Errorf("%v", got)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			virtually(t, pubsub.Options{}, nil, func(b *bed) {
				other := b.server.Inject(pubsub.Fault{Operation: c.fault.Operation, Resource: "rders", Times: -1, Code: codes.DataLoss})
				hit := b.server.Inject(c.fault)
				c.run(b)
				if hit.Hits() != 1 || other.Hits() != 0 {
					b.Errorf("%d hits, and %d of another resource's", hit.Hits(), other.Hits())
				}
				select {
				case <-hit.Done():
				default:
					b.Error("it is armed still")
				}
				other.Stop()
				other.Stop()
			})
		})
	}
}

// Whatever goes wrong, every message arrives, and in the end nothing is held: faults, and clients that
// give back and forget messages, at random.
func TestNothingIsLost(t *testing.T) {
	for _, c := range []struct {
		name   string
		config *pubsubpb.Subscription
	}{
		{"plain", &pubsubpb.Subscription{}},
		{"ordered", &pubsubpb.Subscription{EnableMessageOrdering: true}},
		{"exactly once", &pubsubpb.Subscription{EnableExactlyOnceDelivery: true}},
		{"both", &pubsubpb.Subscription{EnableMessageOrdering: true, EnableExactlyOnceDelivery: true}},
		{"retry policy", &pubsubpb.Subscription{RetryPolicy: backoff(time.Second, time.Minute)}},
	} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprint(c.name, " ", seed), func(t *testing.T) {
				virtually(t, pubsub.Options{StreamLifetime: 7 * time.Minute, ResponseMessages: 20}, clone(c.config), func(b *bed) {
					lossless(b, rand.New(rand.NewPCG(seed, 1)))
				})
			})
		}
	}
}

func lossless(b *bed, dice *rand.Rand) {
	const n, keys = 400, 5
	var armed []*pubsub.Injection
	for _, f := range []pubsub.Fault{
		{Operation: pubsub.StreamingPull, Code: codes.Unavailable},
		{Operation: pubsub.Deliver, Code: codes.Unavailable},
		{Operation: pubsub.Deliver, LoseReply: true},
		{Operation: pubsub.Deliver, Duplicate: true},
		{Operation: pubsub.Deliver, Reorder: true},
		{Operation: pubsub.Deliver, Delay: 20 * time.Second},
		{Operation: "Acknowledge", Code: codes.Unavailable},
		{Operation: "Acknowledge", LoseReply: true},
		{Operation: "Acknowledge", Forget: true},
		{Operation: "ModifyAckDeadline", Forget: true},
		{Operation: pubsub.Request, Forget: true},
		{Operation: pubsub.Request, Code: codes.Unavailable},
	} {
		f.Skip, f.Times = dice.IntN(3), 1+dice.IntN(2)
		armed = append(armed, b.server.Inject(f))
	}
	for i := 0; i < n; i += 40 {
		for k := range keys {
			var data []string
			for j := i + k; j < i+40; j += keys {
				data = append(data, strconv.Itoa(j))
			}
			b.publish(texts(fmt.Sprint("key", k), data...)...)
		}
	}
	ctx, stop := context.WithTimeout(b.ctx, 2*time.Hour)
	defer stop()
	var (
		mu      sync.Mutex // of dice and seen
		seen    = make(map[string]bool)
		clients sync.WaitGroup
	)
	for range 3 {
		clients.Go(func() {
			for ctx.Err() == nil {
				careless(ctx, b, func(m *pubsubpb.ReceivedMessage) int {
					mu.Lock()
					defer mu.Unlock()
					seen[string(m.Message.Data)] = true
					return dice.IntN(20)
				})
				<-time.After(time.Second)
			}
		})
	}
	if err := b.server.Wait(ctx, name, func(s pubsub.Stats) bool { return s.Backlog+s.Outstanding == 0 }); err != nil {
		b.Errorf("%v: %+v", err, b.stats())
	}
	stop()
	clients.Wait()
	if len(seen) != n {
		b.Errorf("%d messages of %d: %+v", len(seen), n, b.stats())
	}
	if held := b.server.Bytes(); held != 0 {
		b.Errorf("%d bytes are held for nothing", held)
	}
	hits := 0
	for _, i := range armed {
		hits += i.Hits()
	}
	if hits < 6 {
		b.Errorf("%d faults have happened", hits)
	}
}

// careless is a client that takes what one stream brings, and acknowledges, gives back or forgets it as
// the dice fall.
func careless(ctx context.Context, b *bed, dice func(*pubsubpb.ReceivedMessage) int) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	stream, err := b.client.SubscriptionAdminClient.StreamingPull(ctx)
	if err == nil {
		err = stream.Send(&pubsubpb.StreamingPullRequest{Subscription: name, StreamAckDeadlineSeconds: 30, MaxOutstandingMessages: 50})
	}
	for err == nil {
		var in *pubsubpb.StreamingPullResponse
		if in, err = stream.Recv(); err != nil {
			return
		}
		var byCall, byStream, back []*pubsubpb.ReceivedMessage
		for _, m := range in.ReceivedMessages {
			switch d := dice(m); {
			case d == 0:
				back = append(back, m)
			case d == 1: // forgotten
			case d%2 == 0:
				byCall = append(byCall, m)
			default:
				byStream = append(byStream, m)
			}
		}
		if len(byCall) > 0 {
			_ = b.acknowledge(byCall...) // it may fail: then the message comes again
		}
		if len(back) > 0 {
			_ = b.modack(0, back...)
		}
		if len(byStream) > 0 {
			err = stream.Send(&pubsubpb.StreamingPullRequest{AckIds: idsOf(byStream)})
		}
	}
}
