package kinesis

import (
	"context"

	"github.com/millstream/millstream/consumers"
)

// NewSubscriber returns a Watermill subscriber whose topics are streams, by name or ARN. o.Stream is
// ignored; c.Source must be nil, and c.Group or c.Join says where positions are kept.
func NewSubscriber(o Options, c consumers.Config) (*consumers.Subscriber, error) {
	c.Open = func(ctx context.Context, topic string) (consumers.Source, error) {
		of := o
		of.Stream = topic
		return New(ctx, of)
	}
	return consumers.New(c)
}
