package pubsub

import (
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Limits of https://cloud.google.com/pubsub/quotas#resource_limits.
const (
	maxPublish        = 1000
	maxPublishBytes   = 10_000_000
	maxAttributes     = 100
	maxAttributeName  = 256
	maxAttributeValue = 1024
	maxOrderingKey    = 1024
	maxAckBytes       = 512 << 10 // of a request with ack ids
)

// Message is a message to publish, and what [Server.Messages] returns.
type Message struct {
	Data        []byte
	Attributes  map[string]string
	OrderingKey string

	// ID and Attempts, how often it was sent, are set by Messages and ignored by Publish.
	ID       string
	Attempts int
}

// message is one that is held by a subscription at least. It is never changed.
type message struct {
	batch   *batch
	encoded []byte // a PubsubMessage
	key     string // the ordering key
}

// batch is what was published together. Its memory is let go as a whole.
type batch struct {
	server *Server
	size   int64
	held   atomic.Int64 // messages times subscriptions that hold them
}

// release says that a subscription no longer holds n messages of the batch.
func (b *batch) release(n int64) {
	if b.held.Add(-n) == 0 {
		b.server.bytes.Add(-b.size)
	}
}

// check returns why the service does not take a message.
func (m *Message) check() error {
	if len(m.Data) == 0 && len(m.Attributes) == 0 {
		return invalid("A message must have data or at least one attribute.")
	}
	if len(m.Attributes) > maxAttributes {
		return invalid("%d attributes: a message has at most %d.", len(m.Attributes), maxAttributes)
	}
	for _, name := range sorted(m.Attributes) {
		value := m.Attributes[name]
		switch {
		case name == "" || len(name) > maxAttributeName || strings.HasPrefix(name, "goog") || !utf8.ValidString(name):
			return invalid("attribute %.40q: want 1 to %d bytes of UTF-8 that do not begin with goog.", name, maxAttributeName)
		case len(value) > maxAttributeValue || !utf8.ValidString(value):
			return invalid("attribute %q: want a value of at most %d bytes of UTF-8.", name, maxAttributeValue)
		}
	}
	if len(m.OrderingKey) > maxOrderingKey || !utf8.ValidString(m.OrderingKey) {
		return invalid("The ordering key has %d bytes: want at most %d of UTF-8.", len(m.OrderingKey), maxOrderingKey)
	}
	return nil
}

// size is an upper bound of the encoded message.
func (m *Message) size() int {
	n := len(m.Data) + len(m.OrderingKey) + 64
	for name, value := range m.Attributes {
		n += len(name) + len(value) + 12
	}
	return n
}

// publish stores messages in the topic's subscriptions and returns the number of the first id.
func (s *Server) publish(t *topic, messages []Message) (first int64, err error) {
	size := 0
	for i := range messages {
		if err := messages[i].check(); err != nil {
			return 0, err
		}
		size += messages[i].size()
	}
	n := int64(len(messages))
	first = s.ids.Add(n) - n
	subs := t.list()
	if len(subs) == 0 {
		return first, nil // nobody will ever ask for them
	}
	b := &batch{server: s, size: int64(size) + n*perMessage*int64(len(subs))}
	if s.bytes.Add(b.size) > s.opts.MaxBytes {
		s.bytes.Add(-b.size)
		return 0, status.Errorf(codes.ResourceExhausted, "The subscriptions hold too much: this server keeps at most %d bytes.", s.opts.MaxBytes)
	}
	// One more than they are, so that nothing is let go before all is handed over.
	b.held.Store(n*int64(len(subs)) + 1)
	defer b.release(1)
	var (
		at      = time.Now()
		encoded = make([]byte, 0, size)
		stored  = make([]message, n)
	)
	for i := range messages {
		m := &messages[i]
		from := len(encoded)
		encoded = appendMessage(encoded, m, first+int64(i), at)
		stored[i] = message{batch: b, encoded: encoded[from:len(encoded):len(encoded)], key: m.OrderingKey}
	}
	for _, sub := range subs {
		sub.store(stored, messages)
	}
	return first, nil
}

// Publish is the RPC.
func (p *publisher) publish(in *pb.PublishRequest) (*pb.PublishResponse, error) {
	t, err := p.topic(in.Topic)
	if err != nil {
		return nil, err
	}
	switch n := len(in.Messages); {
	case n == 0:
		return nil, invalid("The request has no messages.")
	case n > maxPublish:
		return nil, invalid("The request has %d messages: at most %d are allowed.", n, maxPublish)
	}
	if n := proto.Size(in); n > maxPublishBytes {
		return nil, invalid("Request payload size exceeds the limit: %d bytes, at most %d are allowed.", n, maxPublishBytes)
	}
	messages := make([]Message, len(in.Messages))
	for i, m := range in.Messages {
		messages[i] = Message{Data: m.Data, Attributes: m.Attributes, OrderingKey: m.OrderingKey}
	}
	first, err := p.Server.publish(t, messages)
	if err != nil {
		return nil, err
	}
	return &pb.PublishResponse{MessageIds: idsFrom(first, len(messages))}, nil
}

func idsFrom(first int64, n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = strconv.FormatInt(firstID+first+int64(i), 10)
	}
	return ids
}

func invalid(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}
