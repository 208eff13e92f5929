package consumers_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/checkpoint"
	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/consumers/consumertest"
	"github.com/millstream/millstream/stream"
)

// Watermill's universal suite with the real group and its logs in a bucket. Every consumer group and
// topic is a pipeline of its own.
func TestWatermillSuiteWithCheckpoints(t *testing.T) {
	memory := consumertest.NewMemory(1, 100)
	state := bucket.Memory()
	quiet := slog.New(slog.DiscardHandler)
	construct := func(t *testing.T, group string) (message.Publisher, message.Subscriber) {
		sub, err := consumers.New(consumers.Config{
			Open: func(_ context.Context, topic string) (consumers.Source, error) { return memory.Source(topic), nil },
			Join: func(topic string) (stream.Group, error) {
				store, err := checkpoint.Open(context.Background(), checkpoint.Config{Bucket: state, Name: group + "." + topic,
					Plan: stream.Plan{}, Lease: time.Second, Checked: true, Logger: quiet})
				if err != nil {
					return nil, err
				}
				return store.Group(), nil
			},
			Unmarshal:    consumertest.Unmarshal,
			CloseTimeout: time.Second,
			Logger:       quiet,
		})
		if err != nil {
			t.Fatal(err)
		}
		return memory.Publisher(), sub
	}
	features := tests.Features{ConsumerGroups: true, GuaranteedOrder: true, Persistent: true}
	tests.TestPubSub(t, features,
		func(t *testing.T) (message.Publisher, message.Subscriber) { return construct(t, "group") }, construct)
}
