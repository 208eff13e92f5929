package streamtest

import (
	"context"
	"iter"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/stream"
)

// Op is one call that leaves the process: of the store, or of a sink.
type Op struct {
	Kind string // create, put, get, list, delete; deliver, stage, commit
	Name string // of the object, or the checkpoint's id
}

// Fate is what becomes of a call. The zero Fate lets it pass.
type Fate struct {
	Fail  error         // it has no effect, and this is the answer
	Reply error         // it takes effect, but this is the answer
	Later time.Duration // with Reply: it takes effect only so much later
}

// Disturb returns b with a fate for every call. decide may wait, as a paused process or a slow network
// does; it is called concurrently. A call that waits sees its context's end only when it goes on.
func Disturb(b bucket.Bucket, decide func(Op) Fate) bucket.Bucket { return &disturbed{b, decide} }

type disturbed struct {
	bucket.Bucket
	decide func(Op) Fate
}

// act makes f's effect come when its fate says, and the answer with it.
func act(ctx context.Context, fate Fate, f func(context.Context) error) error {
	switch {
	case fate.Fail != nil:
		return fate.Fail
	case fate.Later > 0:
		time.AfterFunc(fate.Later, func() { _ = f(context.WithoutCancel(ctx)) }) // nobody is there for its answer
		return fate.Reply
	case fate.Reply != nil:
		_ = f(context.WithoutCancel(ctx)) // its answer is what gets lost
		return fate.Reply
	}
	return f(ctx)
}

func (d *disturbed) Create(ctx context.Context, name string, data []byte) error {
	return act(ctx, d.decide(Op{"create", name}), func(ctx context.Context) error { return d.Bucket.Create(ctx, name, data) })
}

func (d *disturbed) Put(ctx context.Context, name string, data []byte) error {
	return act(ctx, d.decide(Op{"put", name}), func(ctx context.Context) error { return d.Bucket.Put(ctx, name, data) })
}

func (d *disturbed) Delete(ctx context.Context, name string) error {
	return act(ctx, d.decide(Op{"delete", name}), func(ctx context.Context) error { return d.Bucket.Delete(ctx, name) })
}

func (d *disturbed) Get(ctx context.Context, name string) (data []byte, err error) {
	fate := d.decide(Op{"get", name})
	fate.Later = 0
	err = act(ctx, fate, func(ctx context.Context) error { data, err = d.Bucket.Get(ctx, name); return err })
	return data, err
}

func (d *disturbed) List(ctx context.Context, prefix string) (names []string, err error) {
	fate := d.decide(Op{"list", prefix})
	fate.Later = 0
	err = act(ctx, fate, func(ctx context.Context) error { names, err = d.Bucket.List(ctx, prefix); return err })
	return names, err
}

// DisturbSink returns s with a fate for every call, as Disturb does for a store. A Stager stays one, and a
// Roller, whose Write is "deliver" too.
func DisturbSink(s stream.Sink, decide func(Op) Fate) stream.Sink {
	d := disturbedSink{s, decide}
	switch s := s.(type) {
	case stream.Stager:
		return &disturbedStager{d, s}
	case stream.Roller:
		return &disturbedRoller{s, d}
	}
	return &d
}

type disturbedSink struct {
	stream.Sink
	decide func(Op) Fate
}

func (d *disturbedSink) Deliver(ctx context.Context, id stream.CheckpointID, rows []stream.Row) error {
	fate := d.decide(Op{"deliver", id.String()})
	if fate.Later > 0 {
		rows = cloneRows(rows) // the caller's memory is used again
	}
	return act(ctx, fate, func(ctx context.Context) error { return d.Sink.Deliver(ctx, id, rows) })
}

type disturbedStager struct {
	disturbedSink
	stager stream.Stager
}

func (d *disturbedStager) Name() string { return d.stager.Name() }

func (d *disturbedStager) Stage(ctx context.Context, id stream.CheckpointID, rows []stream.Row) (token []byte, err error) {
	fate := d.decide(Op{"stage", id.String()})
	fate.Later = 0
	err = act(ctx, fate, func(ctx context.Context) error { token, err = d.stager.Stage(ctx, id, rows); return err })
	return token, err
}

func (d *disturbedStager) Commit(ctx context.Context, token []byte) error {
	return act(ctx, d.decide(Op{"commit", ""}), func(ctx context.Context) error { return d.stager.Commit(ctx, token) })
}

type disturbedRoller struct {
	stream.Roller
	disturbedSink
}

func (d *disturbedRoller) Deliver(ctx context.Context, id stream.CheckpointID, rows []stream.Row) error {
	return d.disturbedSink.Deliver(ctx, id, rows)
}

func (d *disturbedRoller) Write(ctx context.Context, id stream.CheckpointID, layout []byte, parts iter.Seq2[[]stream.Row, error]) error {
	fate := d.decide(Op{"deliver", id.String()})
	if fate.Later > 0 {
		var whole []stream.Row // the caller's parts cannot be read then
		for rows, err := range parts {
			if err != nil {
				return err
			}
			whole = append(whole, cloneRows(rows)...)
		}
		parts = func(yield func([]stream.Row, error) bool) { yield(whole, nil) }
	}
	return act(ctx, fate, func(ctx context.Context) error { return d.Roller.Write(ctx, id, layout, parts) })
}
