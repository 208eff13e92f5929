package streamtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/checkpoint"
	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/stream"
)

// Run says what a pipeline is fed with.
type Run struct {
	// Partitions are the records of each partition, in order. A record without a position gets its
	// number, from 1 on. Event times more than a minute after now make dead letters.
	Partitions map[string][]stream.Record
	// BatchRecords is the largest number of records a batch. Default 4,096.
	BatchRecords int
	// Pace is how long a partition pauses between two batches, so that there is a checkpoint between
	// them. Default: it does not.
	Pace time.Duration
	// CheckpointEvery replaces the pipeline's. Default: the pipeline's.
	CheckpointEvery time.Duration
}

// Result is what a run leaves behind.
type Result struct {
	// Rows of a pipeline with windows come by window end, window start and key; without windows by
	// partition, then in order of the records.
	Rows        []stream.Row
	DeadLetters []stream.DeadLetter // by partition, then in order of the records
	Ledger      stream.Ledger
}

// Feed runs records as one partition through a copy of the pipeline and returns the rows, in the
// order of Result, and the ledger. It panics when the pipeline is invalid, or cannot go on.
func Feed[E, R any](p *stream.Pipeline[E, R], records ...stream.Record) (rows []stream.Row, ledger stream.Ledger) {
	result, err := Do(p, Run{Partitions: map[string][]stream.Record{"0": records}})
	if err != nil {
		panic("streamtest.Feed: " + err.Error())
	}
	return result.Rows, result.Ledger
}

// Do runs partitions to their ends through a copy of the pipeline, p itself is not touched. An error
// means that the pipeline is invalid, or what stopped a partition: nothing is tried again.
func Do[E, R any](p *stream.Pipeline[E, R], r Run) (Result, error) {
	if len(r.Partitions) == 0 {
		return Result{}, errors.New("no partitions to run")
	}
	w := newWorld(r)
	i, err := launch(p, w, instance{strict: true})
	if err != nil {
		return Result{}, err
	}
	if err := <-i.done; err != nil {
		return Result{}, err
	}
	return w.result()
}

// world is what outlives a process: the source, the store, and what is behind the sinks.
type world struct {
	run    Run
	source *source
	bucket bucket.Bucket
	sink   *Sink
	dead   *Sink
	start  time.Time
}

func newWorld(r Run) *world {
	if r.BatchRecords <= 0 {
		r.BatchRecords = 4096
	}
	return &world{run: r, source: newSource(r.Partitions, r.BatchRecords, r.Pace), bucket: bucket.Memory(), sink: new(Sink), dead: new(Sink), start: time.Now()}
}

// result reads what is left behind.
func (w *world) result() (Result, error) {
	store, err := checkpoint.Open(context.Background(), checkpoint.Config{Bucket: w.bucket, Name: pipelineName})
	if err != nil {
		return Result{}, err
	}
	r := Result{Rows: w.sink.Rows()}
	if r.Ledger, err = store.Ledger(context.Background()); err != nil {
		return r, err
	}
	if r.DeadLetters, err = w.dead.DeadLetters(); err != nil {
		return r, err
	}
	// A batch's undecodable records come before its late ones: bring them into the records' order.
	if len(r.DeadLetters) > 1 {
		at := w.source.order()
		slices.SortStableFunc(r.DeadLetters, func(a, b stream.DeadLetter) int {
			return cmp.Or(strings.Compare(a.Partition, b.Partition), at[[2]string{a.Partition, a.Position}]-at[[2]string{b.Partition, b.Position}])
		})
	}
	return r, errors.Join(w.sink.Err(), w.dead.Err())
}

const pipelineName = "streamtest"

// instance is one process. Its functions stand between it and the world.
type instance struct {
	strict bool            // the first error of a partition ends it
	decide func(Op) Fate   // nil: everything passes
	handle func() error    // before every batch
	logger *slog.Logger    // default: the pipeline's, or none
	sink   stream.Sink     // in place of the world's
	done   chan error      // set by launch: how it ended
	cancel func(err error) // set by launch: drain and stop
}

// launch starts a process with a copy of the pipeline.
func launch[E, R any](p *stream.Pipeline[E, R], w *world, i instance) (*instance, error) {
	b, sink, dead := w.bucket, i.sink, stream.Sink(w.dead)
	if sink == nil {
		sink = w.sink
	}
	if i.decide != nil {
		b, sink, dead = Disturb(b, i.decide), DisturbSink(sink, i.decide), DisturbSink(dead, i.decide)
	}
	q := copyOf(p)
	q.Name, q.Sinks, q.DeadLetter = pipelineName, []stream.Sink{sink}, dead
	if w.run.CheckpointEvery > 0 {
		q.CheckpointEvery = w.run.CheckpointEvery
	}
	if i.logger != nil {
		q.Logger = i.logger
	} else if q.Logger == nil {
		q.Logger = slog.New(slog.DiscardHandler)
	}
	if err := q.Validate(); err != nil {
		return nil, err
	}
	plan := append(stream.Plan{{Name: "--source", Value: w.source.Identity()}}, q.Plan()...)
	ctx, cancel := context.WithCancelCause(context.Background())
	i.cancel, i.done = cancel, make(chan error, 1)
	store, err := checkpoint.Open(ctx, checkpoint.Config{Bucket: b, Name: q.Name, Plan: plan, Checked: true, Logger: q.Logger,
		BootTime: func() time.Duration { return time.Since(w.start) }})
	if err == nil {
		err = i.run(ctx, q.Handle, store.Group(), w, q.Logger)
	}
	if err != nil {
		cancel(err)
		return nil, err
	}
	return &i, nil
}

// run gives every batch to handle, each on its own goroutine, as a router does.
func (i *instance) run(ctx context.Context, handle message.NoPublishHandlerFunc, group stream.Group, w *world, logger *slog.Logger) error {
	sub, err := consumers.New(consumers.Config{Source: w.source, Group: &watchedGroup{group, i}, BatchRecords: w.run.BatchRecords, Logger: logger})
	if err != nil {
		return err
	}
	messages, err := sub.Batches().Subscribe(ctx, pipelineName)
	if err != nil {
		return err
	}
	go func() {
		for m := range messages {
			go func() {
				if i.handle != nil {
					if err := i.handle(); err != nil {
						m.Nack()
						return
					}
				}
				if err := handle(m); err != nil {
					m.Nack()
					return
				}
				m.Ack()
			}()
		}
		err := sub.Err()
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
			err = cause
		}
		i.cancel(nil)
		i.done <- err
	}()
	return nil
}

// stop ends an instance that was launched, and waits for it.
func (i *instance) stop() error {
	i.cancel(nil)
	return <-i.done
}

// watchedGroup ends a strict instance with the first error of a partition.
type watchedGroup struct {
	stream.Group
	i *instance
}

func (g *watchedGroup) Run(ctx context.Context, src stream.Source, serve func(*stream.Assignment) error) error {
	return g.Group.Run(ctx, src, func(a *stream.Assignment) error {
		err := serve(a)
		if err != nil && g.i.strict {
			g.i.cancel(fmt.Errorf("the pipeline cannot go on: %w", err))
		}
		return err
	})
}

// copyOf copies the configuration; the running part of a pipeline cannot be copied.
func copyOf[E, R any](p *stream.Pipeline[E, R]) *stream.Pipeline[E, R] {
	return &stream.Pipeline[E, R]{
		Name: p.Name, Version: p.Version, Decode: p.Decode, NewDecoder: p.NewDecoder, Enrich: p.Enrich, Keep: p.Keep, Require: p.Require,
		Operator: p.Operator, Encode: p.Encode, Sinks: p.Sinks, DeadLetter: p.DeadLetter, CheckpointEvery: p.CheckpointEvery,
		OutOfOrder: p.OutOfOrder, IdleAfter: p.IdleAfter, Late: p.Late, From: p.From, Until: p.Until, Logger: p.Logger,
	}
}
