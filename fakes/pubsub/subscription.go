package pubsub

import (
	"sync"
	"time"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

// Stats counts what a subscription has done.
type Stats struct {
	Backlog     int // messages that wait to be sent, redeliveries included
	Outstanding int // messages that are sent and not acknowledged
	Streams     int // open StreamingPull calls

	Delivered   int64 // sent, each time counted
	Redelivered int64 // of these, sent before
	Acked       int64 // acknowledged
	Nacked      int64 // given back
	Expired     int64 // not acknowledged in time
	Invalid     int64 // ack ids that were refused or ignored: expired, unknown, of another subscription
}

// subscription holds the messages of a topic that are not acknowledged by its clients.
type subscription struct {
	server *Server
	name   string
	serial uint32
	topic  *topic

	mu      sync.Mutex
	config  *pb.Subscription // replaced, never changed
	filter  filter           // nil takes all
	deleted bool

	fresh queue[*message]  // never sent, without an ordering key or order
	again queue[attempted] // to be sent again
	keys  map[string]*key  // of an ordered subscription, those that have messages
	ready queue[*key]      // those that any stream may take
	slots slots
	turn  bool // whose turn it is, the ready keys' or the fresh messages'

	streams []*stream
	timer   alarm
	waits   int // messages that wait in again, keys and fresh
	out     int // messages in state out
	stats   Stats
	changed chan struct{} // closed at the next change, nil when nobody waits for one
}

// attempted is a slot and the delivery that failed: when the slot has moved on the entry is stale.
type attempted struct{ slot, delivery uint32 }

// stream is a client that messages are sent to: a StreamingPull call, or for a moment a Pull.
type stream struct {
	notify   chan struct{} // holds one: there may be something to send
	cut      chan error    // holds one: the stream is to end so
	deadline time.Duration
	most     int   // outstanding messages, 0 for no limit
	mostSize int64 // outstanding bytes, 0 for no limit

	// Guarded by the subscription's mu.
	messages int
	size     int64
	closed   bool // nothing more is sent
	waiting  bool // for notify
	keys     queue[*key]
	replies  []*pb.StreamingPullResponse
}

func newStream(deadline time.Duration) *stream {
	return &stream{notify: make(chan struct{}, 1), cut: make(chan error, 1), deadline: deadline}
}

// wake tells st to look again. The caller holds mu.
func (st *stream) wake() {
	if st.waiting {
		st.waiting = false
		select {
		case st.notify <- struct{}{}:
		default:
		}
	}
}

func (s *subscription) wake() {
	for _, st := range s.streams {
		st.wake()
	}
}

// tell tells those who wait for a change. The caller holds mu.
func (s *subscription) tell() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// store takes over messages, whose attributes are in originals.
func (s *subscription) store(messages []message, originals []Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.tell()
	for i := range messages {
		m := &messages[i]
		if s.deleted || s.filter != nil && !s.filter(originals[i].Attributes) {
			m.batch.release(1)
			continue
		}
		s.waits++
		if m.key == "" || !s.config.EnableMessageOrdering {
			s.fresh.push(m)
			continue
		}
		k := s.keys[m.key]
		if k == nil {
			k = &key{name: m.key}
			s.keys[m.key] = k
		}
		k.fresh.push(m)
		s.list(k)
	}
	s.wake()
}

// join lets a stream take messages.
func (s *subscription) join(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.tell()
	s.streams = append(s.streams, st)
	s.stats.Streams++
}

// leave ends that. What the stream was sent stays outstanding until its deadline.
func (s *subscription) leave(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.tell()
	for i := range s.streams {
		if s.streams[i] == st {
			s.streams = append(s.streams[:i], s.streams[i+1:]...)
			s.stats.Streams--
			break
		}
	}
	st.closed = true
	for st.keys.len() > 0 {
		k := st.keys.pop()
		k.listed = false
		s.tidy(k)
	}
	s.wake()
}

// full says that flow control forbids to send more. The caller holds mu.
func (st *stream) full() bool {
	return st.most > 0 && st.messages >= st.most || st.mostSize > 0 && st.size >= st.mostSize
}

// take moves messages that st may have into f, up to most. When there are none, the stream waits to be
// told.
func (s *subscription) take(st *stream, f *frame, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.tell()
	f.exactlyOnce, f.ordered = s.config.EnableExactlyOnceDelivery, s.config.EnableMessageOrdering
	for len(f.delivered) < most && f.bytes < s.server.opts.ResponseBytes && !st.full() && s.takeOne(st, f, most) {
	}
	st.waiting = len(f.delivered) == 0
}

// takeOne takes one message, or several of one ordering key.
func (s *subscription) takeOne(st *stream, f *frame, most int) bool {
	for s.again.len() > 0 {
		a := s.again.pop()
		if sl := s.slots.get(a.slot); sl.state == waiting && sl.delivery == a.delivery {
			s.deliver(a.slot, sl, st, f)
			return true
		}
	}
	s.turn = !s.turn
	if s.turn && s.takeKey(st, f, most) {
		return true
	}
	if s.fresh.len() > 0 {
		i, sl := s.slots.take()
		sl.message, sl.first = s.fresh.pop(), sl.delivery+1
		s.deliver(i, sl, st, f)
		return true
	}
	return !s.turn && s.takeKey(st, f, most)
}

// deliver sends a slot's message once more.
func (s *subscription) deliver(i uint32, sl *slot, st *stream, f *frame) {
	sl.delivery++
	sl.attempts++
	sl.state, sl.stream = out, st
	sl.deadline = s.server.now() + st.deadline
	s.watch(i, sl)
	st.messages++
	st.size += int64(len(sl.message.encoded))
	s.waits--
	s.out++
	s.stats.Delivered++
	if sl.attempts > 1 {
		s.stats.Redelivered++
	}
	f.delivered = append(f.delivered, delivered{at: i, ack: ackID{s.serial, i, sl.delivery}, message: sl.message})
	f.bytes += len(sl.message.encoded)
}

// repeat sends what is in f a second time, under ack ids of its own, as the service may at any time
// unless it promised not to.
func (s *subscription) repeat(f *frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deleted || s.config.EnableExactlyOnceDelivery {
		return
	}
	for _, d := range f.delivered {
		sl := s.slots.get(d.at)
		if sl.state != out || sl.delivery != d.ack.delivery {
			continue // acknowledged meanwhile, or sent again to another
		}
		sl.delivery++
		sl.attempts++
		s.stats.Delivered++
		s.stats.Redelivered++
		d.ack.delivery = sl.delivery
		f.delivered = append(f.delivered, d)
		f.bytes += len(d.message.encoded)
	}
}

// back ends the outstanding time of a slot. The caller holds mu.
func (s *subscription) back(sl *slot) {
	if sl.state != out {
		return
	}
	s.out--
	st := sl.stream
	sl.stream = nil
	st.messages--
	st.size -= int64(len(sl.message.encoded))
	st.wake()
}

// redeliver makes a message that is out wait again. The caller holds mu.
func (s *subscription) redeliver(i uint32, sl *slot) {
	if sl.key != nil {
		s.resend(sl.key, i)
		return
	}
	s.back(sl)
	s.waits++
	if pause := s.pause(sl); pause > 0 {
		sl.state, sl.deadline = resting, s.server.now()+pause
		s.watch(i, sl)
		return
	}
	sl.state = waiting
	s.again.push(attempted{i, sl.delivery})
	s.wake()
}

// pause is what the retry policy says before the next attempt.
func (s *subscription) pause(sl *slot) time.Duration {
	p := s.config.RetryPolicy
	if p == nil {
		return 0
	}
	least, most := 10*time.Second, 600*time.Second
	if p.MinimumBackoff != nil {
		least = p.MinimumBackoff.AsDuration()
	}
	if p.MaximumBackoff != nil {
		most = p.MaximumBackoff.AsDuration()
	}
	for range min(sl.attempts-1, 20) {
		least *= 2
	}
	return min(least, most)
}

// release forgets a message. The caller holds mu, and has told who waits for it.
func (s *subscription) release(i uint32, sl *slot) {
	sl.message.batch.release(1)
	s.slots.free(i)
}

// close forgets everything.
func (s *subscription) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.tell()
	if s.deleted {
		return
	}
	s.deleted = true
	s.timer.stop()
	for s.fresh.len() > 0 {
		s.fresh.pop().batch.release(1)
	}
	for _, k := range s.keys {
		for k.fresh.len() > 0 {
			k.fresh.pop().batch.release(1)
		}
	}
	for c := range s.slots.all {
		for j := range s.slots.all[c] {
			if m := s.slots.all[c][j].message; m != nil {
				m.batch.release(1)
			}
		}
	}
	s.slots, s.keys, s.again, s.ready, s.waits, s.out = slots{}, nil, queue[attempted]{}, queue[*key]{}, 0, 0
	for _, st := range s.streams {
		st.end(notFound("subscription", s.name))
	}
}

// end makes a StreamingPull return err.
func (st *stream) end(err error) {
	select {
	case st.cut <- err:
	default:
	}
}
