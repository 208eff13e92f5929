package stream_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/stream"
	"github.com/millstream/millstream/stream/streamtest"
)

// unwell runs a pipeline without windows whose second sink is not well, over a record a second for records
// seconds, killed and followed in the middle of it. It returns how far reading was ahead of that sink at
// most, and what is wrong with either sink's rows.
func unwell(t *testing.T, records int, inFlight int64, second func(w *world, sick *streamtest.Sink) func(*gate) stream.Sink) (ahead int, err error) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		pl := written(&scripted{Partition: stream.Partition{Name: "p"}, records: every("p", 0, records), ends: time.Duration(records) * time.Second})
		pl.windows = nil
		w := begin(pl)
		var sick streamtest.Sink
		w.another, w.maxInFlight = second(w, &sick), inFlight
		watch, stop := context.WithCancel(context.Background())
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			for watch.Err() == nil {
				ahead = max(ahead, int(w.read.Load())-len(sick.Rows()))
				select {
				case <-time.After(10 * time.Second):
				case <-watch.Done():
				}
			}
		}()
		first := w.launch(pl.pipeline(nil), newGate(w))
		<-time.After(time.Duration(records/2) * time.Second)
		first.kill()
		err = finish(pl, w, w.launch(pl.pipeline(nil), newGate(w)), first)
		stop()
		<-watched
		if n := len(sick.Rows()); err == nil && n != records {
			err = fmt.Errorf("the sick sink has %d rows of %d", n, records)
		}
		if err == nil {
			err = sick.Err()
		}
	})
	return ahead, err
}

// A sink that is down for half an hour holds its partition back and nothing else: reading pauses, so that
// what is in flight stays within its bound, and when it is up again it gets every row once, as the sink
// beside it does.
func TestOutage(t *testing.T) {
	const records, outage = 40 * 60, 30 * 60
	down := func(w *world, sick *streamtest.Sink) func(*gate) stream.Sink {
		return func(g *gate) stream.Sink {
			return streamtest.DisturbSink(sick, func(op streamtest.Op) streamtest.Fate {
				if at := w.now(); 5*time.Minute <= at && at < 35*time.Minute {
					return streamtest.Fate{Fail: errFault}
				}
				return g.decide(op)
			})
		}
	}
	if ahead, err := unwell(t, records, 8_000, down); err != nil || ahead > outage/3 {
		t.Errorf("reading was %d records ahead: %v", ahead, err)
	}
	if ahead, err := unwell(t, records, 1<<20, down); err != nil || ahead < outage/2 { // what the bound is for
		t.Errorf("without a bound reading was %d records ahead: %v", ahead, err)
	}
}

// crawling takes a byte a second.
type crawling struct{ stream.Sink }

func (c crawling) Deliver(ctx context.Context, id stream.CheckpointID, rows []stream.Row) error {
	size := 0
	for _, r := range rows {
		size += len(r.Data)
	}
	select {
	case <-time.After(time.Duration(size) * time.Second):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return c.Sink.Deliver(ctx, id, rows)
}

// So does one that takes a byte a second.
func TestCrawlingSink(t *testing.T) {
	crawl := func(_ *world, sick *streamtest.Sink) func(*gate) stream.Sink {
		return func(g *gate) stream.Sink { return crawling{streamtest.DisturbSink(sick, g.decide)} }
	}
	if ahead, err := unwell(t, 100, 8_000, crawl); err != nil || ahead > 120 {
		t.Errorf("reading was %d records ahead: %v", ahead, err)
	}
}
