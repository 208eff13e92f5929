package pubsub

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers what newCodec asks for
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of google/pubsub/v1/pubsub.proto.
const (
	fieldData, fieldAttributes, fieldMessageID, fieldPublishTime, fieldOrderingKey = 1, 2, 3, 4, 5 // PubsubMessage

	fieldAckID, fieldMessage, fieldDeliveryAttempt = 1, 2, 3 // ReceivedMessage

	fieldReceived, fieldProperties               = 1, 4 // StreamingPullResponse
	fieldExactlyOnceEnabled, fieldOrderedEnabled = 1, 2 // its SubscriptionProperties
)

// firstID makes message ids look like the service's.
const firstID = 1_000_000_000_000_000

// appendMessage appends a stored message as the service sends it.
func appendMessage(b []byte, m *Message, id int64, at time.Time) []byte {
	if len(m.Data) > 0 {
		b = protowire.AppendTag(b, fieldData, protowire.BytesType)
		b = protowire.AppendBytes(b, m.Data)
	}
	for name, value := range m.Attributes {
		b = protowire.AppendTag(b, fieldAttributes, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(2+protowire.SizeBytes(len(name))+protowire.SizeBytes(len(value))))
		b = protowire.AppendTag(b, 1, protowire.BytesType)
		b = protowire.AppendString(b, name)
		b = protowire.AppendTag(b, 2, protowire.BytesType)
		b = protowire.AppendString(b, value)
	}
	var digits [20]byte
	b = protowire.AppendTag(b, fieldMessageID, protowire.BytesType)
	b = protowire.AppendBytes(b, strconv.AppendInt(digits[:0], firstID+id, 10))
	seconds, nanos := uint64(at.Unix()), uint64(at.Nanosecond())
	b = protowire.AppendTag(b, fieldPublishTime, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(2+protowire.SizeVarint(seconds)+protowire.SizeVarint(nanos)))
	b = protowire.AppendTag(b, 1, protowire.VarintType)
	b = protowire.AppendVarint(b, seconds)
	b = protowire.AppendTag(b, 2, protowire.VarintType)
	b = protowire.AppendVarint(b, nanos)
	if m.OrderingKey != "" {
		b = protowire.AppendTag(b, fieldOrderingKey, protowire.BytesType)
		b = protowire.AppendString(b, m.OrderingKey)
	}
	return b
}

// frame is a StreamingPullResponse in the making. Stored messages are copied into it as they are: a
// message is encoded once in its life.
type frame struct {
	delivered []delivered
	bytes     int // of the messages
	properties
}

// delivered is one message on its way, under the ack id of this delivery.
type delivered struct {
	at      uint32
	ack     ackID
	message *message
	attempt int32 // 0 unless the subscription has a dead-letter policy
}

// properties are those of the subscription, which each response repeats.
type properties struct{ exactlyOnce, ordered bool }

// append appends a delivery as a ReceivedMessage.
func (d *delivered) append(b []byte) []byte {
	b = protowire.AppendTag(b, fieldAckID, protowire.BytesType)
	b = protowire.AppendVarint(b, ackIDLength)
	b = d.ack.append(b)
	b = protowire.AppendTag(b, fieldMessage, protowire.BytesType)
	b = protowire.AppendBytes(b, d.message.encoded)
	if d.attempt > 0 {
		b = protowire.AppendTag(b, fieldDeliveryAttempt, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(d.attempt))
	}
	return b
}

func (d *delivered) size() int {
	n := 1 + protowire.SizeBytes(ackIDLength) + 1 + protowire.SizeBytes(len(d.message.encoded))
	if d.attempt > 0 {
		n += 1 + protowire.SizeVarint(uint64(d.attempt))
	}
	return n
}

func (f *frame) append(b []byte) []byte {
	for i := range f.delivered {
		d := &f.delivered[i]
		b = protowire.AppendTag(b, fieldReceived, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(d.size()))
		b = d.append(b)
	}
	b = protowire.AppendTag(b, fieldProperties, protowire.BytesType)
	var p []byte
	if f.exactlyOnce {
		p = protowire.AppendVarint(protowire.AppendTag(p, fieldExactlyOnceEnabled, protowire.VarintType), 1)
	}
	if f.ordered {
		p = protowire.AppendVarint(protowire.AppendTag(p, fieldOrderedEnabled, protowire.VarintType), 1)
	}
	return protowire.AppendBytes(b, p)
}

// size is an upper bound of what append appends.
func (f *frame) size() int { return f.bytes + len(f.delivered)*(ackIDLength+24) + 16 }

// messages returns the deliveries as Pull answers them.
func (f *frame) messages() []*pb.ReceivedMessage {
	out := make([]*pb.ReceivedMessage, len(f.delivered))
	for i := range f.delivered {
		out[i] = &pb.ReceivedMessage{}
		unmarshal(f.delivered[i].append(nil), out[i])
	}
	return out
}

// codec is gRPC's own, and knows frames.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*frame)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	pool := mem.DefaultBufferPool()
	buf := pool.Get(f.size())
	*buf = f.append((*buf)[:0])
	return mem.BufferSlice{mem.NewBuffer(buf, pool)}, nil
}

// sorted returns the names of attributes, for errors that come out the same each time.
func sorted[K cmp.Ordered, V any](m map[K]V) []K {
	names := make([]K, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
