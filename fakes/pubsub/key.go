package pubsub

// key is one ordering key of an ordered subscription. Its messages are sent in their order, many at a
// time, to one stream as long as any of them is outstanding. When one is sent again, so is everything
// after it, what is acknowledged already too.
type key struct {
	name   string
	window []uint32 // slots that were sent, in order; the first is not acknowledged
	next   int      // of window, the first that is to be sent (again); its length if all are sent
	fresh  queue[*message]
	owner  *stream
	listed bool // in owner's keys, or in ready
}

// keyTurn is how many messages of a key go before another key's turn.
const keyTurn = 100

// pending says that something may be sent: not what follows messages that a lost client still holds.
func (k *key) pending() bool {
	if k.owner != nil && k.owner.closed && k.next > 0 {
		return false
	}
	return k.next < len(k.window) || k.fresh.len() > 0
}

// list puts k where the streams look that may take it. The caller holds mu.
func (s *subscription) list(k *key) {
	if k.listed || !k.pending() {
		return
	}
	k.listed = true
	if k.owner != nil && !k.owner.closed {
		k.owner.keys.push(k)
		k.owner.wake()
		return
	}
	k.owner = nil
	s.ready.push(k)
	s.wake()
}

// takeKey sends what one key has.
func (s *subscription) takeKey(st *stream, f *frame, most int) bool {
	from := &st.keys
	if from.len() == 0 {
		from = &s.ready
	}
	if from.len() == 0 {
		return false
	}
	k := from.pop()
	k.listed, k.owner = false, st
	most = min(most, len(f.delivered)+keyTurn)
	for len(f.delivered) < most && f.bytes < s.server.opts.ResponseBytes && !st.full() {
		if k.next == len(k.window) {
			if k.fresh.len() == 0 {
				break
			}
			i, sl := s.slots.take()
			sl.message, sl.first, sl.key = k.fresh.pop(), sl.delivery+1, k
			k.window = append(k.window, i)
		}
		i := k.window[k.next]
		k.next++
		s.deliver(i, s.slots.get(i), st, f)
	}
	s.tidy(k)
	return true
}

// tidy forgets a key without messages, and otherwise lists it. The caller holds mu.
func (s *subscription) tidy(k *key) {
	if len(k.window) == 0 && !k.listed {
		k.window, k.next, k.owner = nil, 0, nil
		if k.fresh.len() == 0 {
			delete(s.keys, k.name)
			return
		}
	}
	s.list(k)
}

// settle acknowledges a message that was sent, and lets go of those at the head of its key that are.
func (s *subscription) settle(sl *slot) {
	k := sl.key
	s.back(sl)
	sl.state = settled
	for len(k.window) > 0 {
		head := s.slots.get(k.window[0])
		if head.state != settled {
			break
		}
		if k.next == 0 {
			s.waits-- // it was about to be sent again
		}
		s.release(k.window[0], head)
		k.window = k.window[1:]
		k.next = max(k.next-1, 0)
	}
	s.tidy(k)
}

// resend makes a message and all that follow it wait again. If nothing before them is outstanding, any
// stream may have them.
func (s *subscription) resend(k *key, i uint32) {
	from := 0
	for k.window[from] != i {
		from++
	}
	for _, j := range k.window[from:k.next] {
		sl := s.slots.get(j)
		s.back(sl)
		s.waits++
		sl.state = waiting // what was acknowledged is to be acknowledged again
	}
	k.next = from
	if from == 0 && !k.listed {
		k.owner = nil
	}
	s.list(k)
}
