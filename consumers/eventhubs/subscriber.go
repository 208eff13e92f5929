package eventhubs

import (
	"context"

	"github.com/millstream/millstream/consumers"
)

// NewSubscriber returns a Watermill subscriber whose topics are hubs of o.Namespace. o.Hub is ignored;
// c.Source must be nil, and c.Group or c.Join says where positions are kept.
func NewSubscriber(o Options, c consumers.Config) (*consumers.Subscriber, error) {
	c.Open = func(ctx context.Context, topic string) (consumers.Source, error) {
		of := o
		of.Hub = topic
		return New(ctx, of)
	}
	return consumers.New(c)
}
