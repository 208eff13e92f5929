package kinesis

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"

	cloud "github.com/millstream/millstream/cloud/aws"
	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/consumers/consumertest"
	fake "github.com/millstream/millstream/fakes/kinesis"
	"github.com/millstream/millstream/sinks"
	sink "github.com/millstream/millstream/sinks/kinesis"
	"github.com/millstream/millstream/stream"
)

// The plain mode, records published by sinks/kinesis as envelopes, passes Watermill's universal suite.
//
// The Features, honestly: records of one shard, and so of one partition key, come in order, to however
// many subscribers of a group; topics here have one shard, hence GuaranteedOrder. What is read stays
// readable, and a new group begins at the oldest record. Delivery in plain mode is at least once: what
// was acked since the last save comes again after a crash. Contexts do not travel.
func TestUniversal(t *testing.T) {
	server := fake.New(fake.Options{})
	t.Cleanup(func() { server.Close() })
	endpoint, err := server.Start()
	if err != nil {
		t.Fatal(err)
	}
	configured, err := cloud.Load(t.Context(), cloud.Options{Endpoint: endpoint})
	if err != nil {
		t.Fatal(err)
	}
	client := awskinesis.NewFromConfig(configured)
	quiet := slog.New(slog.DiscardHandler)
	var mu sync.Mutex
	logs := make(map[string]*consumertest.Logs) // by group and topic
	create := func(topic string) error {
		mu.Lock()
		defer mu.Unlock()
		if _, err := server.Shards(topic); err == nil {
			return nil
		}
		return server.CreateStream(topic, 1)
	}
	withGroup := func(t *testing.T, group string) (message.Publisher, message.Subscriber) {
		pub, err := sink.NewPublisher(t.Context(), sink.PublisherOptions{Client: client, Marshal: sinks.Envelope, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		sub, err := NewSubscriber(Options{Client: client, PollEvery: 20 * time.Millisecond, Logger: quiet}, consumers.Config{
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
			Logger:       quiet,
		})
		if err != nil {
			t.Fatal(err)
		}
		return creatingPublisher{pub, create}, creatingSubscriber{sub, create}
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

// The suite invents topics; neither side of ours creates streams.
type creatingPublisher struct {
	message.Publisher
	create func(topic string) error
}

func (p creatingPublisher) Publish(topic string, ms ...*message.Message) error {
	if err := p.create(topic); err != nil {
		return err
	}
	return p.Publisher.Publish(topic, ms...)
}

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
