package pubsub

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/stream"
)

const (
	// linger is how long a fetch waits to grow, up to enoughRecords or enoughBytes.
	linger        = 5 * time.Millisecond
	enoughRecords = 2048
	enoughBytes   = 1 << 20
	// inboxBytes is what may wait to be read.
	inboxBytes = 8 << 20
	// quiet is how long nothing comes from a subscription that has nothing more.
	quiet = time.Second
	// patience is how long a reader waits out failures in a row before it returns the last.
	patience = 2 * time.Minute
	// closeWithin bounds how long Close tells the service what is given back.
	closeWithin = 5 * time.Second
)

// puller is a way to the messages of a subscription. L is what it knows a message by, the zero L none.
type puller[L comparable] interface {
	// pull passes what comes to the reader's deliver until ctx is done, and returns early when it cannot
	// go on. Messages it has taken are settled later.
	pull(ctx context.Context) error
	// settle acknowledges messages or gives them back. It does not wait, and does not keep leases.
	settle(leases []L, ack bool)
	// close gives back what was never settled, once no stream is left that it would come to again, and
	// returns when the service knows of everything, or ctx is done. pull was told to end before.
	close(ctx context.Context, unsettled []L)
}

// reader holds the leases of one partition between a puller and the pipeline.
type reader[L comparable] struct {
	source *Source
	sub    *subscription
	puller puller[L]
	cancel context.CancelFunc // of pull
	wake   chan struct{}      // holds one: look at the inbox again

	mu      sync.Mutex
	room    *sync.Cond
	inbox   *parcel[L] // what was not read yet
	bytes   int        // in the inbox
	out     map[*parcel[L]]struct{}
	waiting map[*parcel[L]]struct{} // have come, and there is no room for them
	held    int                     // messages in inbox and out
	arrived time.Time               // when the last message came, or the reader was opened
	err     error                   // why pulling ended
	stopped bool                    // nothing more is taken
	closed  bool                    // nothing more is settled

	state stream.ReaderState // of the last fetch; Read's own
}

// parcel is what became one fetch: its records, and their leases until they are settled.
type parcel[L comparable] struct {
	records []stream.Record
	leases  []L
	open    int       // leases that are not settled
	renewed time.Time // no lease is older than this
}

func newReader[L comparable](s *Source, sub *subscription) *reader[L] {
	r := &reader[L]{source: s, sub: sub, wake: make(chan struct{}, 1), inbox: new(parcel[L]), out: make(map[*parcel[L]]struct{}), waiting: make(map[*parcel[L]]struct{}), arrived: time.Now()}
	r.room = sync.NewCond(&r.mu)
	return r
}

// start begins to pull.
func (r *reader[L]) start(p puller[L]) *reader[L] {
	ctx, cancel := context.WithCancel(context.Background())
	r.puller, r.cancel = p, cancel
	go func() {
		err := p.pull(ctx)
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.err = err; r.err == nil {
			r.err = errReturned
		}
		r.poke()
	}()
	return r
}

// deliver takes messages that have come, once there is room; until then their leases are renewed like
// those of any other. It returns false when the reader wants none any more: the puller has them to give
// back.
func (r *reader[L]) deliver(records []stream.Record, leases []L) bool {
	size := 0
	for i := range records {
		size += len(records[i].Data)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	renewed := time.Now()
	if r.full() {
		p := &parcel[L]{leases: leases, open: len(leases), renewed: renewed}
		r.waiting[p] = struct{}{}
		for r.full() {
			r.room.Wait()
		}
		delete(r.waiting, p)
		renewed = p.renewed
	}
	if r.stopped {
		return false
	}
	r.arrived = time.Now()
	switch {
	case len(r.inbox.records) == 0:
		r.inbox.renewed = renewed
		r.poke()
	case renewed.Before(r.inbox.renewed):
		r.inbox.renewed = renewed
	}
	r.inbox.records = append(r.inbox.records, records...)
	r.inbox.leases = append(r.inbox.leases, leases...)
	r.inbox.open += len(leases)
	r.held += len(leases)
	if r.bytes += size; r.enough() {
		r.poke()
	}
	return true
}

// full says that what comes has to wait. The caller holds mu.
func (r *reader[L]) full() bool {
	return !r.stopped && r.held > 0 && (r.held >= r.source.options.MaxMessages || r.bytes >= inboxBytes)
}

func (r *reader[L]) enough() bool {
	return len(r.inbox.records) >= enoughRecords || r.bytes >= enoughBytes
}

func (r *reader[L]) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Read returns what has come, or a change of state.
func (r *reader[L]) Read(ctx context.Context) (consumers.Fetch, error) {
	var full time.Time // when the fetch has waited to grow
	for {
		if ctx.Err() != nil {
			r.stop()
			return consumers.Fetch{}, context.Cause(ctx)
		}
		now := time.Now()
		r.mu.Lock()
		n, err := len(r.inbox.records), r.err
		switch {
		case n > 0 && full.IsZero() && err == nil && !r.enough():
			full = now.Add(linger)
		case n > 0 && (r.enough() || err != nil || !now.Before(full)):
			f := r.take()
			r.mu.Unlock()
			return f, nil
		}
		state := r.look(now)
		r.mu.Unlock()
		if n == 0 {
			switch {
			case err != nil:
				r.stop()
				return consumers.Fetch{}, err
			case state != r.state:
				r.state = state
				return consumers.Fetch{State: state}, nil
			}
			if ill, throttled, since, err := r.sub.health.now(); ill && !throttled && since > patience {
				r.stop()
				return consumers.Fetch{}, fmt.Errorf("%w, for %s", r.source.explain(r.sub, err), since.Round(time.Second))
			}
		}
		wait := quiet / 4
		if n > 0 {
			wait = full.Sub(now)
		}
		t := time.NewTimer(wait)
		select {
		case <-r.wake:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// look says why nothing comes. The caller holds mu.
func (r *reader[L]) look(now time.Time) stream.ReaderState {
	ill, throttled, _, _ := r.sub.health.now()
	switch {
	case throttled:
		return stream.Throttled
	case r.held >= max(1, r.source.options.MaxMessages/r.source.options.Streams):
		return stream.Paused // a stream may be full
	case ill || now.Sub(r.arrived) < quiet:
		return stream.Reading
	}
	return stream.CaughtUp
}

// take makes a fetch of the inbox. The caller holds mu.
func (r *reader[L]) take() consumers.Fetch {
	p := r.inbox
	r.inbox, r.bytes = &parcel[L]{records: make([]stream.Record, 0, len(p.records)), leases: make([]L, 0, len(p.leases))}, 0
	r.out[p] = struct{}{}
	r.room.Broadcast()
	records := p.records
	p.records = nil // they are the pipeline's now
	r.state = stream.Reading
	r.source.counters.received.Add(int64(len(records)))
	return consumers.Fetch{
		Records: records,
		Next:    records[len(records)-1].Position,
		Settle:  func(from, to int, err error) { r.settle(p, from, to, err) },
	}
}

// settle tells the service what became of records of a fetch.
func (r *reader[L]) settle(p *parcel[L], from, to int, err error) {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return
	}
	leases := slices.Clone(p.leases[from:to])
	clear(p.leases[from:to])
	if p.open -= to - from; p.open == 0 {
		delete(r.out, p)
	}
	r.held -= to - from
	r.room.Broadcast()
	r.mu.Unlock()
	if err == nil {
		r.source.counters.acked.Add(int64(len(leases)))
	} else {
		r.source.counters.nacked.Add(int64(len(leases)))
	}
	r.puller.settle(leases, err == nil)
}

// due returns the leases of the parcels that were last renewed before the time given, which is taken for
// renewal now.
func (r *reader[L]) due(before time.Time) (leases []L) {
	var none L
	r.mu.Lock()
	defer r.mu.Unlock()
	renew := func(p *parcel[L]) {
		if p.open == 0 || p.renewed.After(before) {
			return
		}
		p.renewed = time.Now()
		for _, l := range p.leases {
			if l != none {
				leases = append(leases, l)
			}
		}
	}
	renew(r.inbox)
	for p := range r.waiting {
		renew(p)
	}
	for p := range r.out {
		renew(p)
	}
	return leases
}

// stop ends the pulling. What has come is held until Close.
func (r *reader[L]) stop() {
	r.mu.Lock()
	r.stopped = true
	if r.inbox.open > 0 {
		r.inbox.records = nil
		r.out[r.inbox] = struct{}{}
		r.inbox, r.bytes = new(parcel[L]), 0
	}
	r.room.Broadcast()
	r.mu.Unlock()
	r.cancel()
}

// Close gives back everything that is not settled.
func (r *reader[L]) Close() error {
	r.stop()
	var none L
	var held []L
	r.mu.Lock()
	r.closed = true
	for p := range r.out {
		for _, l := range p.leases {
			if l != none {
				held = append(held, l)
			}
		}
	}
	clear(r.out)
	r.held = 0
	r.mu.Unlock()
	r.source.counters.nacked.Add(int64(len(held)))
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	r.puller.close(ctx, held)
	return nil
}
