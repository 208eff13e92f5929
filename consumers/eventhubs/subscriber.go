package eventhubs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/stream"
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

// OpenEnvelope is a consumers.Config.Unmarshal for events that sinks/eventhubs.Envelope made:
//
//	{"uuid":"…","metadata":{…},"payload":"<base64>"}
//
// Anything else is an error.
func OpenEnvelope(_ string, r *stream.Record) (*message.Message, error) {
	var e struct {
		UUID     *string          `json:"uuid"`
		Metadata message.Metadata `json:"metadata"`
		Payload  []byte           `json:"payload"`
	}
	if err := json.Unmarshal(r.Data, &e); err != nil {
		return nil, fmt.Errorf("envelope: %w", err)
	}
	if e.UUID == nil {
		return nil, errors.New("envelope: no uuid")
	}
	m := message.NewMessage(*e.UUID, e.Payload)
	if e.Metadata != nil {
		m.Metadata = e.Metadata
	}
	return m, nil
}
