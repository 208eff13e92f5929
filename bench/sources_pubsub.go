package main

import (
	"context"
	"fmt"
	"sync/atomic"

	"cloud.google.com/go/pubsub/v2"
	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	cloud "github.com/millstream/millstream/cloud/gcp"
	fake "github.com/millstream/millstream/fakes/pubsub"
)

const (
	benchProject      = "bench"
	benchSubscription = "events"
)

// What the server of a subscription is asked for.
const (
	askFill    = "fill"    // publish everything
	askEmptied = "emptied" // wait until everything is acknowledged
)

// pubsubBed is a subscription, which is filled again for every reading.
func pubsubBed(ctx context.Context, load sourceLoad) (*sourceBed, error) {
	server, err := startServer(ctx, load)
	if err != nil {
		return nil, err
	}
	url := "pubsub://" + benchProject + "/" + benchSubscription + "?endpoint=" + server.endpoint
	// An answer may never come. Then ctx is done, and the process of those who wait is at its end.
	ask := func(what string) func(context.Context) error {
		return func(ctx context.Context) error {
			answer := make(chan error, 1)
			go func() { answer <- server.ask(what) }()
			select {
			case err := <-answer:
				return err
			case <-ctx.Done():
				return fmt.Errorf("%s: %w", what, ctx.Err())
			}
		}
	}
	return &sourceBed{
		ways:    []sourceWay{{"own", url, 2}, {"sdk", url + "&client=sdk", 0.8}},
		drain:   func(ctx context.Context) (int, error) { return drainPubSub(ctx, server.endpoint, load.Events) },
		refill:  ask(askFill),
		emptied: ask(askEmptied),
		close:   server.close,
	}, nil
}

// servePubSub has one subscription, which is full or empty.
func servePubSub(load sourceLoad) (endpoint string, do func(string) error, err error) {
	const topic = "projects/" + benchProject + "/topics/events"
	const subscription = "projects/" + benchProject + "/subscriptions/" + benchSubscription
	server := fake.New(fake.Options{MaxBytes: int64(load.Events)*4*ysbSize + 64<<20})
	if err := server.CreateTopic(topic); err != nil {
		return "", nil, err
	}
	if err := server.CreateSubscription(&pb.Subscription{Name: subscription, Topic: topic}); err != nil {
		return "", nil, err
	}
	messages := make([]fake.Message, 0, load.Events)
	for _, records := range load.generate().partitions {
		for _, r := range records {
			messages = append(messages, fake.Message{Data: r.Data})
		}
	}
	endpoint, err = server.Start()
	return endpoint, func(what string) error {
		empty := func(s fake.Stats) bool { return s.Backlog+s.Outstanding == 0 }
		if err := server.Wait(context.Background(), subscription, empty); err != nil || what == askEmptied {
			return err
		}
		for rest := messages; len(rest) > 0; {
			n := min(1000, len(rest))
			if _, err := server.Publish(topic, rest[:n]...); err != nil {
				return err
			}
			rest = rest[n:]
		}
		return nil
	}, err
}

// drainPubSub receives and acknowledges so many messages.
func drainPubSub(ctx context.Context, endpoint string, events int) (int, error) {
	client, err := cloud.PubSub(ctx, cloud.Options{Project: benchProject, Endpoint: endpoint})
	if err != nil {
		return 0, err
	}
	defer client.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var got atomic.Int64
	subscriber := client.Subscriber(benchSubscription)
	subscriber.ReceiveSettings.MaxOutstandingMessages = 100_000 // by default it waits more often
	err = subscriber.Receive(ctx, func(_ context.Context, m *pubsub.Message) {
		m.Ack()
		if got.Add(1) == int64(events) {
			stop()
		}
	})
	return int(got.Load()), err
}
