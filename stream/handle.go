package stream

import (
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
)

// engine is the running part of a Pipeline: the lanes of the partitions that are assigned now.
type engine[E, R any] struct {
	mu    sync.Mutex
	lanes map[string]*lane[E, R]
}

// Handle is what a Watermill router calls: a message.NoPublishHandlerFunc. It gives the message's
// batch to the partition's lane and returns when everything the batch led to is saved and committed,
// or with the error that ended the assignment. It is safe for concurrent use, may be called again
// with the same message, and does not look at the message's context for cancellation: an ack that
// comes because somebody gave up waiting would be a lie.
//
// The message of the merger's assignment makes Handle run the merger until the assignment ends.
func (p *Pipeline[E, R]) Handle(m *message.Message) error {
	b, err := BatchOf(m)
	if err != nil {
		return err
	}
	if b.Assignment.Partition == MergerPartition {
		if p.engine.claimOnce(b) {
			b.Settle(newMerger(p, b.Assignment).run())
		}
	} else if err := p.offer(b); err != nil {
		return err
	}
	select {
	case <-b.Durable():
		return nil
	case <-b.Failed():
		return b.Err()
	}
}

// claimOnce reports whether this is the first time that the batch is offered.
func (e *engine[E, R]) claimOnce(b *Batch) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	first := !b.offered
	b.offered = true
	return first
}

// offer puts the batch into its lane's inbox, starting the lane with the assignment's first batch.
func (p *Pipeline[E, R]) offer(b *Batch) error {
	e := &p.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	if b.offered {
		return nil
	}
	select {
	case <-b.Assignment.Over(): // the lane ended by itself while the batch was on its way
		b.offered = true
		b.Settle(nil)
		return nil
	default:
	}
	l := e.lanes[b.Assignment.Partition]
	if l == nil || l.a.Claim < b.Assignment.Claim {
		if b.Assignment.Flow == nil {
			b.Assignment.Flow = NewFlow(0)
		}
		l = newLane(p, b.Assignment)
		if e.lanes == nil {
			e.lanes = make(map[string]*lane[E, R])
		}
		e.lanes[b.Assignment.Partition] = l
		go l.run()
	}
	if l.a != b.Assignment {
		return fmt.Errorf("partition %s: batch of claim %d, but the lane belongs to claim %d", b.Assignment.Partition, b.Assignment.Claim, l.a.Claim)
	}
	b.offered = true
	l.put(b)
	return nil
}

// retire forgets a lane that has ended, unless a later claim has already replaced it.
func (e *engine[E, R]) retire(l *lane[E, R]) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lanes[l.a.Partition] == l {
		delete(e.lanes, l.a.Partition)
	}
}
