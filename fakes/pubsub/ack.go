package pubsub

import (
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// outcomes is what became of ack ids, by kind.
type outcomes struct {
	done, expired, unordered []string
}

const errMalformed = "You have passed an invalid ack ID to the service (ack_id=%.200s)."

// wellFormed checks all ids before any is used.
func wellFormed(ids []string) error {
	for _, id := range ids {
		if _, ok := parseAckID(id); !ok {
			return invalid(errMalformed, id)
		}
	}
	return nil
}

// find returns the slot whose message an ack id names, nil when it was acknowledged already, is of
// another subscription, or, with exactly-once delivery, when another delivery has begun or this one's
// deadline has passed.
func (s *subscription) find(id ackID, now time.Duration) *slot {
	if id.subscription != s.serial || !s.slots.has(id.slot) {
		return nil
	}
	sl := s.slots.get(id.slot)
	switch {
	case sl.state == free, id.delivery < sl.first, id.delivery > sl.delivery:
		return nil
	case s.config.EnableExactlyOnceDelivery && (sl.state != out || id.delivery != sl.delivery || sl.deadline < now):
		return nil
	}
	return sl
}

// acknowledge takes well-formed ids. Without exactly-once delivery one whose deadline has passed is
// still good, as long as the message is not acknowledged otherwise. Outcomes are told with it only.
func (s *subscription) acknowledge(ids []string) (o outcomes) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.tell()
	now, tell := s.server.now(), s.config.EnableExactlyOnceDelivery
	for _, text := range ids {
		id, _ := parseAckID(text)
		sl := s.find(id, now)
		switch {
		case sl == nil, sl.state == settled:
			s.stats.Invalid++
			if tell {
				o.expired = append(o.expired, text)
			}
			continue
		case sl.key != nil && sl.key.window[0] != id.slot && tell:
			s.stats.Invalid++
			o.unordered = append(o.unordered, text)
			continue
		case sl.key != nil && sl.state == waiting && sl.key.window[0] != id.slot:
			s.stats.Invalid++ // it is sent again behind what is before it
			continue
		}
		s.stats.Acked++
		if tell {
			o.done = append(o.done, text)
		}
		if sl.key != nil {
			s.settle(sl)
			continue
		}
		if sl.state == out {
			s.back(sl)
		} else {
			s.waits--
		}
		s.release(id.slot, sl)
	}
	return o
}

// modify sets the deadline of messages that are out to seconds from now, or with 0 gives them back.
func (s *subscription) modify(ids []string, seconds int32) (o outcomes) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.tell()
	now, tell := s.server.now(), s.config.EnableExactlyOnceDelivery
	for _, text := range ids {
		id, _ := parseAckID(text)
		sl := s.find(id, now)
		if sl == nil || sl.state != out || sl.delivery != id.delivery {
			s.stats.Invalid++
			if tell {
				o.expired = append(o.expired, text)
			}
			continue
		}
		if tell {
			o.done = append(o.done, text)
		}
		if seconds == 0 {
			s.stats.Nacked++
			s.redeliver(id.slot, sl)
			continue
		}
		sl.deadline = now + time.Duration(seconds)*time.Second
		s.watch(id.slot, sl)
	}
	return o
}

// err is how a call says which of its ack ids failed: by details that clients read.
func (o *outcomes) err() error {
	if len(o.expired)+len(o.unordered) == 0 {
		return nil
	}
	info := &errdetails.ErrorInfo{Reason: "EXACTLY_ONCE_ACKID_FAILURE", Domain: "pubsub.googleapis.com", Metadata: make(map[string]string)}
	for _, id := range o.expired {
		info.Metadata[id] = "PERMANENT_FAILURE_INVALID_ACK_ID"
	}
	for _, id := range o.unordered {
		info.Metadata[id] = "TRANSIENT_FAILURE_UNORDERED_ACK_ID"
	}
	st := status.New(codes.InvalidArgument, "Some acknowledgement ids in the request were invalid. "+
		"This could be because the acknowledgement ids have expired or the acknowledgement ids were malformed.")
	detailed, err := st.WithDetails(info)
	if err != nil {
		return st.Err()
	}
	return detailed.Err()
}
