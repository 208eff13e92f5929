package pubsub

import (
	"context"

	"github.com/millstream/millstream/consumers"
)

// NewSubscriber returns a Watermill subscriber whose topics are subscriptions, by id or full name.
// o.Subscriptions is ignored; c.Source must be nil, and c.Group or c.Join says where the ids of what was
// read are kept. For the attributes and UUIDs of Watermill messages set o.Whole and c.Unmarshal to
// [OpenMessage].
//
// In plain mode a message is acknowledged at the service as soon as its handler has acked it.
func NewSubscriber(o Options, c consumers.Config) (*consumers.Subscriber, error) {
	c.Open = func(ctx context.Context, topic string) (consumers.Source, error) {
		of := o
		of.Subscriptions = []string{topic}
		return New(ctx, of)
	}
	return consumers.New(c)
}
