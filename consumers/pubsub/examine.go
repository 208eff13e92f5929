package pubsub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"cloud.google.com/go/iam/apiv1/iampb"
	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	cloud "github.com/millstream/millstream/cloud/gcp"
	"github.com/millstream/millstream/cloud/retry"
)

// askPatience is how long New asks a service that does not answer.
const askPatience = 3 * time.Second

// consume is the permission that reading needs.
const consume = "pubsub.subscriptions.consume"

// examine asks the service for a subscription, refuses one that cannot be read to exact totals, and
// returns the longest pause before a message is delivered again.
func (s *Source) examine(ctx context.Context, sub *subscription) (time.Duration, error) {
	config, err := ask(ctx, func(ctx context.Context) (*pb.Subscription, error) {
		return s.client.SubscriptionAdminClient.GetSubscription(ctx, &pb.GetSubscriptionRequest{Subscription: sub.name}, cloud.Once())
	})
	switch {
	case err == nil:
		return s.accept(sub, config)
	case cloud.Classify(err) == cloud.Missing:
		return 0, fmt.Errorf("subscription %s does not exist", sub.name)
	case status.Code(err) == codes.PermissionDenied:
		return 0, s.unseen(ctx, sub, err)
	}
	return 0, fmt.Errorf("subscription %s: %w", sub.name, cloud.Explain(err))
}

// unseen accepts a subscription that may be read and not looked at: the role Pub/Sub Subscriber does not
// contain pubsub.subscriptions.get.
func (s *Source) unseen(ctx context.Context, sub *subscription, denied error) error {
	allowed, err := ask(ctx, func(ctx context.Context) (*iampb.TestIamPermissionsResponse, error) {
		return s.client.SubscriptionAdminClient.TestIamPermissions(ctx, &iampb.TestIamPermissionsRequest{Resource: sub.name, Permissions: []string{consume}}, cloud.Once())
	})
	if err != nil || len(allowed.Permissions) == 0 {
		return fmt.Errorf("subscription %s: %w", sub.name, cloud.Explain(denied))
	}
	s.logger.Warn("the subscription's settings cannot be seen: grant pubsub.subscriptions.get (role Pub/Sub Viewer) to have them checked; it is taken for a pull subscription without a retry policy",
		"subscription", sub.name)
	return nil
}

// ask repeats a question while what is wrong passes by itself, for a few seconds.
func ask[T any](ctx context.Context, question func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	var last error
	for n := 1; ; n++ {
		answer, err := question(ctx)
		if err == nil {
			return answer, nil
		}
		if last == nil || ctx.Err() == nil { // the reason, not that time is up
			last = err
		}
		if kind := cloud.Classify(err); kind != cloud.Transient && kind != cloud.Throttled || retry.Sleep(ctx, retry.Backoff(n)) != nil {
			return answer, last
		}
	}
}

// accept looks at a subscription's settings.
func (s *Source) accept(sub *subscription, c *pb.Subscription) (time.Duration, error) {
	refuse := func(format string, args ...any) (time.Duration, error) {
		return 0, fmt.Errorf("subscription %s %w", sub.name, fmt.Errorf(format, args...))
	}
	switch {
	case c.Detached:
		return refuse("is detached from its topic: make another one")
	case c.PushConfig.GetPushEndpoint() != "":
		return refuse("pushes to %s: only pull subscriptions can be read; clear its push endpoint or make another one", c.PushConfig.PushEndpoint)
	case c.BigqueryConfig != nil:
		return refuse("writes to BigQuery: only pull subscriptions can be read; make another one")
	case c.CloudStorageConfig != nil:
		return refuse("writes to Cloud Storage: only pull subscriptions can be read; make another one")
	}
	sub.exact = c.EnableExactlyOnceDelivery
	var pause time.Duration
	if c.RetryPolicy != nil {
		pause = 10 * time.Minute // the service's default
		if most := c.RetryPolicy.MaximumBackoff; most != nil {
			pause = most.AsDuration()
		}
		if within := AckDeadline + pause + slack; within > s.options.DedupeFor {
			return refuse("may deliver a message again %s after it was read (its retry policy's maximum backoff is %s), when its id is remembered for %s: lower the backoff, or raise --dedupe-for to %s",
				within, pause, s.options.DedupeFor, within.Truncate(time.Minute)+time.Minute)
		}
	}
	if d := c.DeadLetterPolicy; d != nil {
		s.logger.Warn("the subscription has a dead-letter policy: every restart and every lost lease is a delivery attempt for the messages on their way, and after the last one Pub/Sub moves a good message out of the pipeline's sight",
			"subscription", sub.name, "max_delivery_attempts", d.MaxDeliveryAttempts, "dead_letter_topic", d.DeadLetterTopic)
	}
	sub.topic, sub.filter = c.Topic, c.Filter
	s.logger.Info("subscription", "name", sub.name, "topic", c.Topic, "filter", c.Filter, "ordering", c.EnableMessageOrdering,
		"exactly_once_delivery", c.EnableExactlyOnceDelivery, "retry_pause", pause)
	return pause, nil
}

// overlapping warns of subscriptions whose filters cannot exclude each other.
func (s *Source) overlapping(subscriptions map[string]*subscription) {
	byTopic := make(map[string][]*subscription)
	for _, name := range slices.Sorted(maps.Keys(subscriptions)) {
		sub := subscriptions[name]
		for _, other := range byTopic[sub.topic] {
			if sub.topic != "" && (sub.filter == "" || other.filter == "" || sub.filter == other.filter) {
				s.logger.Warn("two subscriptions of a topic have filters that do not exclude each other: a message that both hold is counted once for each",
					"topic", sub.topic, "first", other.name, "first_filter", other.filter, "second", sub.name, "second_filter", sub.filter)
			}
		}
		byTopic[sub.topic] = append(byTopic[sub.topic], sub)
	}
}

// explain makes one line of an error that a reader cannot wait out.
func (s *Source) explain(sub *subscription, err error) error {
	if cloud.Classify(err) == cloud.Missing {
		return fmt.Errorf("pubsub: subscription %s does not exist any more: %w", sub.name, cloud.Explain(err))
	}
	return fmt.Errorf("pubsub: subscription %s: %w", sub.name, cloud.Explain(err))
}

// errReturned is why leases of a closed reader are given back.
var errReturned = errors.New("the reader is closed")
