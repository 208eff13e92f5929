package pubsub

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"

	"github.com/millstream/millstream/stream"
)

// attributeUUID is what sinks/pubsub and watermill-googlecloud put a message's UUID into.
const attributeUUID = "_watermill_message_uuid"

// recordOf makes a record of a message. Its data is the message's own.
func (s *Source) recordOf(m *pb.PubsubMessage) stream.Record {
	r := record(m.GetMessageId(), m.GetOrderingKey(), m.GetData(), m.GetPublishTime().AsTime())
	if s.options.Whole {
		r.Data = whole(m)
	}
	return r
}

func record(id, key string, data []byte, published time.Time) stream.Record {
	r := stream.Record{Data: data, Position: stream.Position{Token: id}, Key: key, ID: idOf(id)}
	if published.Unix() > 0 {
		r.Arrived, _ = stream.At(published)
	}
	return r
}

// whole encodes a message.
func whole(m *pb.PubsubMessage) []byte {
	data, err := proto.Marshal(m)
	if err != nil { // a string is no UTF-8, which the service does not let in
		return m.GetData()
	}
	return data
}

// idOf turns a message id into a number: the service's are decimal numbers, and others are hashed.
func idOf(id string) uint64 {
	if n, err := strconv.ParseUint(id, 10, 64); err == nil && n != 0 {
		return n
	}
	return max(1, xxhash.Sum64String(id))
}

// OpenMessage is a consumers.Config.Unmarshal for a Source with Options.Whole: attributes are the
// metadata, and the UUID is the one that a Watermill publisher gave, or else the service's message id.
func OpenMessage(_ string, r *stream.Record) (*message.Message, error) {
	var m pb.PubsubMessage
	if err := proto.Unmarshal(r.Data, &m); err != nil {
		return nil, fmt.Errorf("not a whole message: %w", err)
	}
	if m.MessageId == "" {
		return nil, errors.New("not a whole message: it has no id")
	}
	uuid, found := m.Attributes[attributeUUID]
	if !found {
		uuid = m.MessageId
	}
	out := message.NewMessage(uuid, m.Data)
	for name, value := range m.Attributes {
		if name != attributeUUID {
			out.Metadata.Set(name, value)
		}
	}
	return out, nil
}
