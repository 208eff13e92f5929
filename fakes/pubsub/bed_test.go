package pubsub_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	gcp "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/millstream/millstream/fakes/pubsub"
)

const (
	topic = "projects/p/topics/orders"
	name  = "projects/p/subscriptions/orders"
)

// bed is a server with one topic and one subscription, and the official client, in a bubble of virtual
// time.
type bed struct {
	*testing.T
	server *pubsub.Server // nil when it is Google's pstest
	client *gcp.Client
	ctx    context.Context
}

// virtually runs f against this package's server.
func virtually(t *testing.T, o pubsub.Options, config *pubsubpb.Subscription, f func(*bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		server := pubsub.New(o)
		run(t, server, server.ClientOptions(), config, f, server.Close)
	})
}

// virtuallyGoogle runs f against Google's fake: made outside of the bubble, because its listener would
// stop the clock, and served inside.
func virtuallyGoogle(t *testing.T, config *pubsubpb.Subscription, f func(*bed)) {
	t.Helper()
	google := pstest.NewServer() // closed by the process's end: what was begun in the bubble may not be ended here
	synctest.Test(t, func(t *testing.T) {
		listener, server, served := bufconn.Listen(1<<20), grpc.NewServer(), make(chan struct{})
		pubsubpb.RegisterPublisherServer(server, &google.GServer)
		pubsubpb.RegisterSubscriberServer(server, &google.GServer)
		go func() {
			defer close(served)
			server.Serve(listener)
		}()
		options := []option.ClientOption{option.WithEndpoint("passthrough:///google"), option.WithoutAuthentication(), option.WithTelemetryDisabled(),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
			option.WithGRPCDialOption(grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))}
		run(t, nil, options, config, f, func() {
			server.Stop()
			<-served
		})
	})
}

func run(t *testing.T, server *pubsub.Server, options []option.ClientOption, config *pubsubpb.Subscription, f func(*bed), end func()) {
	t.Helper()
	client, err := gcp.NewClient(t.Context(), "p", options...)
	must(t, err)
	b := &bed{T: t, server: server, client: client, ctx: t.Context()}
	if config == nil {
		config = &pubsubpb.Subscription{}
	}
	config.Name, config.Topic = name, topic
	_, err = client.TopicAdminClient.CreateTopic(b.ctx, &pubsubpb.Topic{Name: topic})
	must(t, err)
	_, err = client.SubscriptionAdminClient.CreateSubscription(b.ctx, config)
	must(t, err)
	defer func() {
		err := client.SubscriptionAdminClient.DeleteSubscription(b.ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: name})
		if err != nil && status.Code(err) != codes.NotFound {
			t.Error(err)
		}
		if server != nil && server.Bytes() != 0 {
			t.Errorf("%d bytes are held without a subscription", server.Bytes())
		}
		<-time.After(11 * time.Second) // the SDK's Receive leaves a goroutine behind that looks up every 10 s
		client.Close()
		end()
		synctest.Wait()
	}()
	f(b)
}

// publish publishes by one call.
func (b *bed) publish(messages ...*pubsubpb.PubsubMessage) []string {
	b.Helper()
	out, err := b.client.TopicAdminClient.Publish(b.ctx, &pubsubpb.PublishRequest{Topic: topic, Messages: messages})
	must(b, err)
	return out.MessageIds
}

// texts makes messages of strings, with an ordering key.
func texts(key string, data ...string) []*pubsubpb.PubsubMessage {
	out := make([]*pubsubpb.PubsubMessage, len(data))
	for i := range data {
		out[i] = &pubsubpb.PubsubMessage{Data: []byte(data[i]), OrderingKey: key}
	}
	return out
}

// pulling is an open stream, read by a test.
type pulling struct {
	*bed
	stream pubsubpb.Subscriber_StreamingPullClient
	stop   context.CancelFunc
}

func (b *bed) open(first *pubsubpb.StreamingPullRequest) *pulling {
	b.Helper()
	ctx, stop := context.WithCancel(b.ctx)
	stream, err := b.client.SubscriptionAdminClient.StreamingPull(ctx)
	must(b, err)
	first.Subscription = name
	if first.StreamAckDeadlineSeconds == 0 {
		first.StreamAckDeadlineSeconds = 10
	}
	must(b, stream.Send(first))
	b.Cleanup(stop)
	return &pulling{b, stream, stop}
}

// some reads n messages.
func (p *pulling) some(n int) []*pubsubpb.ReceivedMessage {
	p.Helper()
	var got []*pubsubpb.ReceivedMessage
	for len(got) < n {
		in, err := p.stream.Recv()
		if err != nil {
			p.Fatalf("after %d of %d messages: %v", len(got), n, err)
		}
		got = append(got, in.ReceivedMessages...)
	}
	if len(got) > n {
		p.Fatalf("%d messages, want %d: %v", len(got), n, dataOf(got))
	}
	return got
}

func dataOf(messages []*pubsubpb.ReceivedMessage) (data []string) {
	for _, m := range messages {
		data = append(data, string(m.Message.Data))
	}
	return data
}

func idsOf(messages []*pubsubpb.ReceivedMessage) (ids []string) {
	for _, m := range messages {
		ids = append(ids, m.AckId)
	}
	return ids
}

func (p *pulling) ack(messages ...*pubsubpb.ReceivedMessage) {
	p.Helper()
	must(p, p.stream.Send(&pubsubpb.StreamingPullRequest{AckIds: idsOf(messages)}))
	synctest.Wait()
}

func (p *pulling) modify(seconds int32, messages ...*pubsubpb.ReceivedMessage) {
	p.Helper()
	in := &pubsubpb.StreamingPullRequest{ModifyDeadlineAckIds: idsOf(messages)}
	for range messages {
		in.ModifyDeadlineSeconds = append(in.ModifyDeadlineSeconds, seconds)
	}
	must(p, p.stream.Send(in))
	synctest.Wait()
}

// acknowledge and modack are the calls.
func (b *bed) acknowledge(messages ...*pubsubpb.ReceivedMessage) error {
	return b.client.SubscriptionAdminClient.Acknowledge(b.ctx, &pubsubpb.AcknowledgeRequest{Subscription: name, AckIds: idsOf(messages)})
}

func (b *bed) modack(seconds int32, messages ...*pubsubpb.ReceivedMessage) error {
	return b.client.SubscriptionAdminClient.ModifyAckDeadline(b.ctx, &pubsubpb.ModifyAckDeadlineRequest{Subscription: name, AckIds: idsOf(messages), AckDeadlineSeconds: seconds})
}

// pull takes what is there at once.
func (b *bed) pull(n int32) []*pubsubpb.ReceivedMessage {
	b.Helper()
	in := &pubsubpb.PullRequest{Subscription: name, MaxMessages: n}
	in.ReturnImmediately = true //nolint:staticcheck // deprecated, and both servers know it
	out, err := b.client.SubscriptionAdminClient.Pull(b.ctx, in)
	must(b, err)
	return out.ReceivedMessages
}

func (b *bed) stats() pubsub.Stats {
	b.Helper()
	s, err := b.server.Stats(name)
	must(b, err)
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
