package consumers

import (
	"context"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millstream/millstream/stream"
)

// delivery sends the batches of one assignment.
type delivery struct {
	sub   *subscription
	a     *stream.Assignment
	watch *watcher
	seq   uint64
	next  stream.Position    // of the last batch
	state stream.ReaderState // of the last batch

	settledAll chan struct{} // closed when every message is settled
}

// serveBatches serves an assignment in batch mode until it has ended.
func (sub *subscription) serveBatches(a *stream.Assignment) error {
	a.Flow = stream.NewFlow(sub.cfg.MaxInFlight)
	d := &delivery{sub: sub, a: a, watch: newWatcher(sub.Subscriber, a), next: resume(a), settledAll: make(chan struct{})}
	sub.flights.Go(func() { defer close(d.settledAll); d.watch.run() })
	err := d.serve()
	d.watch.close(err)
	if err != nil {
		return fmt.Errorf("partition %s: %w", a.Partition, err)
	}
	return nil
}

func (d *delivery) serve() error {
	// The first batch is empty: it starts the lane, which may have to commit what its predecessor
	// saved, whether or not there is anything to read. The merger's is the only one.
	first := d.batch()
	if !d.publish(first, d.a.Draining, nil) {
		return d.leave()
	}
	if d.a.Partition == stream.MergerPartition {
		return d.settled(first)
	}
	ctx, stop := stopping(context.Background(), d.a, d.watch.failed)
	defer stop()
	fetches := d.sub.read(ctx, d.a, d.settledAll)
	for {
		var f fetched
		select {
		case f = <-fetches:
		case <-ctx.Done():
			return d.leave()
		}
		f = d.gather(f, fetches)
		last, ok := d.send(ctx, f.Fetch)
		switch {
		case !ok:
			return d.leave()
		case f.err != nil:
			return f.err
		case f.End != nil:
			return d.settled(last)
		}
	}
}

// gather adds what is there already to a small fetch; it never waits. A fetch of an eighth of a batch
// goes as it is: a message costs less than to move its records. So does one that is to be settled.
func (d *delivery) gather(f fetched, fetches <-chan fetched) fetched {
	size := bytesOf(f.Records)
	for f.err == nil && f.End == nil && f.Settle == nil && size < d.sub.cfg.BatchBytes/8 && len(f.Records) < d.sub.cfg.BatchRecords/8 {
		select {
		case more := <-fetches:
			if more.err != nil {
				f.err = more.err
				return f
			}
			size += bytesOf(more.Records)
			if len(f.Records) == 0 {
				f.Records, f.Settle = more.Records, more.Settle
			} else {
				f.Records = append(f.Records, more.Records...)
			}
			if more.Next != (stream.Position{}) {
				f.Next = more.Next
			}
			f.State, f.End = more.State, more.End
		default:
			return f
		}
	}
	return f
}

func bytesOf(records []stream.Record) (n int) {
	for i := range records {
		n += len(records[i].Data)
	}
	return n
}

// send cuts a fetch into batches and publishes them, each as soon as there is room for it. It
// returns the last one, which carries the fetch's state and end. A fetch that changes nothing is not
// sent. It reports false when the assignment is to be read no further.
func (d *delivery) send(ctx context.Context, f Fetch) (last *stream.Batch, ok bool) {
	if f.Next == (stream.Position{}) {
		f.Next = d.next
	}
	if len(f.Records) == 0 && f.End == nil && f.State == d.state && f.Next == d.next {
		return nil, true
	}
	from := 0
	for {
		b := d.batch()
		n := d.cut(f.Records)
		b.Records, f.Records = f.Records[:n:n], f.Records[n:]
		if len(f.Records) > 0 {
			b.Next, b.State = b.Records[n-1].Position, stream.Reading
		} else {
			b.Next, b.State, b.End = f.Next, f.State, f.End
		}
		to := from + n
		if b.Hold(ctx) != nil || !d.publish(b, ctx.Done(), func(err error) { f.settle(to-n, to, err) }) {
			f.settle(from, to+len(f.Records), errUnread)
			return nil, false
		}
		from = to
		d.next, d.state = b.Next, b.State
		if len(f.Records) == 0 {
			return b, true
		}
	}
}

// cut is how many of the records make one batch.
func (d *delivery) cut(records []stream.Record) int {
	size := 0
	for i := range records {
		size += len(records[i].Data)
		if i == d.sub.cfg.BatchRecords || i > 0 && size > d.sub.cfg.BatchBytes {
			return i
		}
	}
	return len(records)
}

func (d *delivery) batch() *stream.Batch {
	b := stream.NewBatch(d.a, d.seq)
	b.Next, b.State = d.next, d.state
	return b
}

// publish sends a batch, unless the assignment ends, or stop is closed, before somebody takes it.
// settle, if there is one, is called with the batch's outcome.
func (d *delivery) publish(b *stream.Batch, stop <-chan struct{}, settle func(error)) bool {
	if done(d.a.Lost) || done(d.a.Over()) || done(d.watch.failed) {
		return false
	}
	m := b.Message(d.sub.ctx)
	select {
	case d.sub.out <- m:
	case <-d.a.Lost:
		return false
	case <-d.a.Over():
		return false
	case <-d.watch.failed:
		return false
	case <-stop:
		return false
	}
	d.seq++
	d.watch.add(flight{m, b, settle})
	return true
}

// leave ends an assignment that is to be read no further: by a last batch when it drains.
func (d *delivery) leave() error {
	switch {
	case done(d.a.Over()):
		return nil
	case done(d.a.Lost):
		return d.a.Cause()
	case done(d.watch.failed):
		return d.watch.err
	}
	b := d.batch()
	b.Last = true
	if !d.publish(b, nil, nil) {
		return d.leave()
	}
	return d.settled(b)
}

// settled waits for the batch that ends the assignment.
func (d *delivery) settled(b *stream.Batch) error {
	select {
	case <-b.Durable():
		return nil
	case <-d.a.Over():
		return nil
	case <-b.Failed():
		return b.Err()
	case <-d.watch.failed:
	case <-d.a.Lost:
	}
	switch {
	case b.IsDurable() || done(d.a.Over()):
		return nil
	case done(d.a.Lost):
		return d.a.Cause()
	}
	return d.watch.err
}

// flight is a batch on its way.
type flight struct {
	m       *message.Message
	b       *stream.Batch
	settled func(error) // hears the batch's outcome; may be nil
}
