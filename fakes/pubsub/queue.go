package pubsub

import "time"

// queue is first in, first out, in an array that is moved when half of it is behind.
type queue[T any] struct {
	items []T
	head  int
}

func (q *queue[T]) len() int { return len(q.items) - q.head }

func (q *queue[T]) push(v T) {
	if q.head > 1024 && q.head > len(q.items)/2 {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, v)
}

func (q *queue[T]) pop() T {
	var none T
	v := q.items[q.head]
	q.items[q.head] = none
	if q.head++; q.head == len(q.items) {
		if cap(q.items) > 1<<16 {
			q.items = nil
		} else {
			q.items = q.items[:0]
		}
		q.head = 0
	}
	return v
}

// rest is what the queue holds, the oldest first.
func (q *queue[T]) rest() []T { return q.items[q.head:] }

// state is what a slot's message waits for.
type state uint8

const (
	free    state = iota // there is no message
	waiting              // for a client that takes it
	resting              // until the retry policy lets it go
	out                  // for its acknowledgement
	settled              // for the messages before it with the same ordering key
)

// slot holds a message from its first delivery until it is acknowledged.
type slot struct {
	message  *message
	stream   *stream       // that it is outstanding on
	key      *key          // its ordering key's, if the subscription is ordered
	deadline time.Duration // of the state, since the server began
	due      int64         // the tick that the slot is listed under, 0 if none
	// A delivery's number never comes again in a slot; first is the first of this message.
	delivery, first uint32
	state           state
	attempts        int32
}

const slotsEach = 1024

// slots are numbered, and used again when they are free.
type slots struct {
	all  []*[slotsEach]slot
	idle []uint32
	used int
}

func (s *slots) get(i uint32) *slot { return &s.all[i/slotsEach][i%slotsEach] }

func (s *slots) has(i uint32) bool { return int(i) < len(s.all)*slotsEach }

func (s *slots) take() (uint32, *slot) {
	if len(s.idle) == 0 {
		from := uint32(len(s.all) * slotsEach)
		s.all = append(s.all, new([slotsEach]slot))
		for i := range uint32(slotsEach) {
			s.idle = append(s.idle, from+slotsEach-1-i)
		}
	}
	i := s.idle[len(s.idle)-1]
	s.idle = s.idle[:len(s.idle)-1]
	s.used++
	return i, s.get(i)
}

func (s *slots) free(i uint32) {
	sl := s.get(i)
	sl.message, sl.stream, sl.key, sl.state, sl.attempts = nil, nil, nil, free, 0
	s.idle = append(s.idle, i)
	s.used--
}
