package pubsub

import (
	"container/heap"
	"time"
)

// tick is how exactly deadlines are kept: never early, at most one tick late.
const tick = 100 * time.Millisecond

// alarm lists slots by the tick in which somebody must look at them. A slot is listed once; when its
// deadline moves later it is listed again when it comes up, so that extending one costs nothing.
type alarm struct {
	at    map[int64][]uint32
	order ticks
	timer *time.Timer
	armed int64 // the tick that timer is set to, 0 if none
}

// watch makes sure that slot i is looked at when its deadline has passed. The caller holds mu.
func (s *subscription) watch(i uint32, sl *slot) {
	at := int64((sl.deadline + tick - 1) / tick)
	if sl.due != 0 && sl.due <= at {
		return
	}
	a := &s.timer
	if _, known := a.at[at]; !known {
		if a.at == nil {
			a.at = make(map[int64][]uint32)
		}
		heap.Push(&a.order, at)
	}
	a.at[at] = append(a.at[at], i)
	sl.due = at
	s.arm()
}

// arm sets the timer to the next tick. The caller holds mu.
func (s *subscription) arm() {
	a := &s.timer
	if len(a.order) == 0 {
		a.armed = 0
		return
	}
	next := a.order[0]
	if a.armed != 0 && a.armed <= next {
		return
	}
	a.armed = next
	after := time.Duration(next)*tick - s.server.now()
	if a.timer == nil {
		a.timer = time.AfterFunc(after, s.ring)
	} else {
		a.timer.Reset(after)
	}
}

// ring looks at the slots whose tick has come.
func (s *subscription) ring() {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.tell()
	if s.deleted {
		return
	}
	a, now := &s.timer, s.server.now()
	a.armed = 0
	for len(a.order) > 0 && a.order[0] <= int64(now/tick) {
		at := heap.Pop(&a.order).(int64)
		listed := a.at[at]
		delete(a.at, at)
		for _, i := range listed {
			sl := s.slots.get(i)
			if sl.due != at {
				continue // it was listed under an earlier tick since
			}
			sl.due = 0
			switch {
			case sl.state != out && sl.state != resting:
			case sl.deadline > now:
				s.watch(i, sl)
			case sl.state == resting:
				sl.state = waiting
				s.again.push(attempted{i, sl.delivery})
				s.wake()
			default:
				s.stats.Expired++
				s.redeliver(i, sl)
			}
		}
	}
	s.arm()
}

func (a *alarm) stop() {
	if a.timer != nil {
		a.timer.Stop()
	}
	a.at, a.order = nil, nil
}

// ticks is a heap, see container/heap.
type ticks []int64

func (t ticks) Len() int           { return len(t) }
func (t ticks) Less(i, j int) bool { return t[i] < t[j] }
func (t ticks) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *ticks) Push(v any)        { *t = append(*t, v.(int64)) }
func (t *ticks) Pop() any {
	last := len(*t) - 1
	v := (*t)[last]
	*t = (*t)[:last]
	return v
}
