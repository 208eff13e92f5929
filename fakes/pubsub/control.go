package pubsub

import (
	"context"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/protobuf/proto"
)

// CreateTopic creates a topic, by its full name projects/PROJECT/topics/ID.
func (s *Server) CreateTopic(name string) error {
	_, err := (&publisher{Server: s}).CreateTopic(context.Background(), &pb.Topic{Name: name})
	return err
}

// CreateSubscription creates a subscription, whose Name and Topic are full names. AckDeadlineSeconds,
// EnableMessageOrdering, EnableExactlyOnceDelivery, Filter and RetryPolicy mean what they mean to the
// service.
func (s *Server) CreateSubscription(config *pb.Subscription) error {
	_, err := (&subscriber{Server: s}).CreateSubscription(context.Background(), config)
	return err
}

// Publish stores messages in order, any number of them, of which it keeps copies, and returns their
// ids. It is not subject to faults. After an error none are stored.
func (s *Server) Publish(topic string, messages ...Message) (ids []string, err error) {
	t, err := s.topic(topic)
	if err != nil {
		return nil, err
	}
	first, err := s.publish(t, messages)
	if err != nil {
		return nil, err
	}
	return idsFrom(first, len(messages)), nil
}

// Messages returns what a subscription holds: first what was sent and is not acknowledged, then what
// waits to be sent, each in no promised order except that messages which were never sent are in order
// of publishing, those of each ordering key by themselves.
func (s *Server) Messages(subscription string) ([]Message, error) {
	sub, err := s.subscription(subscription)
	if err != nil {
		return nil, err
	}
	sub.mu.Lock()
	defer sub.mu.Unlock()
	var out []Message
	add := func(m *message, attempts int32) {
		var read pb.PubsubMessage
		unmarshal(m.encoded, &read)
		out = append(out, Message{ID: read.MessageId, Data: read.Data, Attributes: read.Attributes, OrderingKey: read.OrderingKey, Attempts: int(attempts)})
	}
	for c := range sub.slots.all {
		for i := range sub.slots.all[c] {
			if sl := &sub.slots.all[c][i]; sl.state != free && sl.state != settled {
				add(sl.message, sl.attempts)
			}
		}
	}
	for _, m := range sub.fresh.rest() {
		add(m, 0)
	}
	for _, name := range sorted(sub.keys) {
		for _, m := range sub.keys[name].fresh.rest() {
			add(m, 0)
		}
	}
	return out, nil
}

// unmarshal reads what the server itself has encoded.
func unmarshal(b []byte, into proto.Message) {
	if err := proto.Unmarshal(b, into); err != nil {
		panic("fake pubsub: its own encoding: " + err.Error())
	}
}

// Stats returns what a subscription has done so far.
func (s *Server) Stats(subscription string) (Stats, error) {
	sub, err := s.subscription(subscription)
	if err != nil {
		return Stats{}, err
	}
	sub.mu.Lock()
	defer sub.mu.Unlock()
	return sub.count(), nil
}

func (s *subscription) count() Stats {
	stats := s.stats
	stats.Backlog, stats.Outstanding = s.waits, s.out
	return stats
}

// Wait returns when a subscription's Stats are as until wants, with nil, or when ctx is done or the
// subscription deleted. until is asked after each change, and must not call the Server.
func (s *Server) Wait(ctx context.Context, subscription string, until func(Stats) bool) error {
	sub, err := s.subscription(subscription)
	if err != nil {
		return err
	}
	for {
		sub.mu.Lock()
		if until(sub.count()) {
			sub.mu.Unlock()
			return nil
		}
		if sub.deleted {
			sub.mu.Unlock()
			return notFound("subscription", subscription)
		}
		if sub.changed == nil {
			sub.changed = make(chan struct{})
		}
		changed := sub.changed
		sub.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Bytes returns what is held of Options.MaxBytes.
func (s *Server) Bytes() int64 { return s.bytes.Load() }

// Expire lets the deadline of everything outstanding pass at once, so that it is sent again, and
// returns how many messages that are.
func (s *Server) Expire(subscription string) (int, error) {
	sub, err := s.subscription(subscription)
	if err != nil {
		return 0, err
	}
	sub.mu.Lock()
	defer sub.mu.Unlock()
	defer sub.tell()
	n := 0
	for c := range sub.slots.all {
		for i := range sub.slots.all[c] {
			if sl := &sub.slots.all[c][i]; sl.state == out {
				n++
				sub.stats.Expired++
				sub.redeliver(uint32(c*slotsEach+i), sl)
			}
		}
	}
	return n, nil
}

// EndStreams ends every StreamingPull of a subscription with err, a status such as
// status.Error(codes.Unavailable, "…"), and returns how many there were. What they were sent stays
// outstanding until its deadline.
func (s *Server) EndStreams(subscription string, err error) (int, error) {
	sub, unknown := s.subscription(subscription)
	if unknown != nil {
		return 0, unknown
	}
	sub.mu.Lock()
	defer sub.mu.Unlock()
	for _, st := range sub.streams {
		st.end(err)
	}
	return len(sub.streams), nil
}
