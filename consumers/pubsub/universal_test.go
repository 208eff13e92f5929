package pubsub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/consumers/consumertest"
	fake "github.com/millstream/millstream/fakes/pubsub"
	sink "github.com/millstream/millstream/sinks/pubsub"
	"github.com/millstream/millstream/stream"
)

// The plain mode, with messages published by sinks/pubsub, passes Watermill's universal suite.
//
// The Features, honestly: a consumer group is a subscription, and gets what was published after it was
// made. Messages have no order without an ordering key. What a subscriber had taken comes again when it
// closes. Contexts do not travel.
func TestUniversal(t *testing.T) {
	server := fake.New(fake.Options{})
	t.Cleanup(server.Close)
	endpoint, err := server.Start()
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	var mu sync.Mutex
	logs := make(map[string]*consumertest.Logs) // by subscription
	existing := func(err error) error {
		if status.Code(err) == codes.AlreadyExists {
			return nil
		}
		return err
	}
	create := func(topic, group string) error {
		err := existing(server.CreateTopic("projects/p/topics/t" + topic))
		if group != "" {
			err = errors.Join(err, existing(server.CreateSubscription(&pb.Subscription{
				Name: "projects/p/subscriptions/" + named(group, topic), Topic: "projects/p/topics/t" + topic})))
		}
		return err
	}
	withGroup := func(t *testing.T, group string) (message.Publisher, message.Subscriber) {
		pub, err := sink.NewPublisher(t.Context(), sink.PublisherOptions{Project: project, Endpoint: endpoint, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		sub, err := NewSubscriber(Options{Project: project, Endpoint: endpoint, Streams: 1, Whole: true, Logger: quiet}, consumers.Config{
			Unmarshal: OpenMessage,
			Join: func(topic string) (stream.Group, error) {
				mu.Lock()
				defer mu.Unlock()
				if logs[topic] == nil {
					logs[topic] = consumertest.NewLogs()
				}
				return logs[topic].Group(), nil
			},
			CloseTimeout: time.Second,
			Logger:       quiet,
		})
		if err != nil {
			t.Fatal(err)
		}
		return creatingPublisher{pub, create}, creatingSubscriber{sub, group, create}
	}
	tests.TestPubSub(t, tests.Features{
		ConsumerGroups:      true,
		ExactlyOnceDelivery: false,
		GuaranteedOrder:     false,
		Persistent:          true,
	}, func(t *testing.T) (message.Publisher, message.Subscriber) {
		return withGroup(t, "group")
	}, withGroup)
}

func named(group, topic string) string { return fmt.Sprintf("s-%s-%s", group, topic) }

// The suite invents topics; neither side of ours creates any.
type creatingPublisher struct {
	message.Publisher
	create func(topic, group string) error
}

func (p creatingPublisher) Publish(topic string, ms ...*message.Message) error {
	if err := p.create(topic, ""); err != nil {
		return err
	}
	return p.Publisher.Publish("t"+topic, ms...)
}

type creatingSubscriber struct {
	message.Subscriber
	group  string
	create func(topic, group string) error
}

func (s creatingSubscriber) SubscribeInitialize(topic string) error { return s.create(topic, s.group) }

func (s creatingSubscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	if err := s.create(topic, s.group); err != nil {
		return nil, err
	}
	return s.Subscriber.Subscribe(ctx, named(s.group, topic))
}
