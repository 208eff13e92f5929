package checkpointtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/checkpoint"
	"github.com/millstream/millstream/stream"
)

var (
	errDead = errors.New("the process is dead")
	errIll  = errors.New("the store is ill")
)

// wire is the way from one process to the bucket. It can be cut, frozen and made unreliable.
type wire struct {
	bucket.Bucket

	mu      sync.Mutex
	calls   int
	crashAt int  // the call that does not return any more, and
	before  bool // whether it is not even carried out
	crashed func()
	dead    bool
	frozen  chan struct{} // closed to thaw
	random  *rand.Rand    // nil: reliable
	lease   time.Duration // the measure of delays
	late    *sync.WaitGroup
}

// do carries out one call, in whatever way is due.
func (w *wire) do(ctx context.Context, write bool, call func(ctx context.Context) error) error {
	w.mu.Lock()
	if w.dead {
		w.mu.Unlock()
		return errDead
	}
	w.calls++
	crash := w.calls == w.crashAt
	frozen := w.frozen
	fate, delay, late := 1.0, time.Duration(0), time.Duration(0)
	if w.random != nil {
		fate = w.random.Float64()
		delay = time.Duration(w.random.ExpFloat64() * float64(w.lease) / 750)
		late = time.Duration(w.random.ExpFloat64() * float64(w.lease))
	}
	w.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
	if delay > 0 {
		if err := pause(ctx, delay); err != nil {
			return err
		}
	}
	switch {
	case crash:
		if !w.before {
			_ = call(ctx) // nobody will learn how it went
		}
		w.mu.Lock()
		w.dead = true
		w.mu.Unlock()
		w.crashed()
		return errDead
	case fate < 0.03:
		return fmt.Errorf("%w: not carried out", errIll)
	case fate < 0.06:
		if err := call(ctx); err != nil {
			return err
		}
		return fmt.Errorf("%w: the answer is lost", errIll)
	case fate < 0.08 && write: // carried out long after the answer
		w.late.Go(func() {
			_ = pause(context.Background(), late)
			_ = call(context.Background())
		})
		return fmt.Errorf("%w: the request is somewhere", errIll)
	}
	return call(ctx)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *wire) Create(ctx context.Context, name string, data []byte) error {
	return w.do(ctx, true, func(ctx context.Context) error { return w.Bucket.Create(ctx, name, data) })
}

func (w *wire) Put(ctx context.Context, name string, data []byte) error {
	return w.do(ctx, true, func(ctx context.Context) error { return w.Bucket.Put(ctx, name, data) })
}

func (w *wire) Get(ctx context.Context, name string) (data []byte, err error) {
	err = w.do(ctx, false, func(ctx context.Context) (err error) { data, err = w.Bucket.Get(ctx, name); return err })
	return data, err
}

func (w *wire) List(ctx context.Context, prefix string) (names []string, err error) {
	err = w.do(ctx, false, func(ctx context.Context) (err error) { names, err = w.Bucket.List(ctx, prefix); return err })
	return names, err
}

func (w *wire) Delete(ctx context.Context, name string) error {
	return w.do(ctx, true, func(ctx context.Context) error { return w.Bucket.Delete(ctx, name) })
}

// source is a source of nothing but names.
type source []string

func (s source) Partitions(context.Context) ([]stream.Partition, error) {
	ps := make([]stream.Partition, len(s))
	for i := range s {
		ps[i].Name = s[i]
	}
	return ps, nil
}

func (s source) Tip(context.Context) (string, error) { return "", nil }

// process is one instance, with the smallest of engines: the merger admits every partition; a
// partition counts to until, one checkpoint a number, and ends.
type process struct {
	world  *world
	wire   *wire
	store  *checkpoint.Store
	cancel context.CancelFunc
	done   chan struct{}
	err    error // valid when done is closed

	mu   sync.Mutex
	skew time.Duration // of the boot clock: a crash ends all leases
	seen []claim
}

// claim is what a process was served.
type claim struct {
	*stream.Assignment
	at time.Time
}

// world is what the processes of one test share.
type world struct {
	bucket  bucket.Bucket
	src     source
	until   int64
	every   time.Duration // between two checkpoints
	lease   time.Duration
	keep    int
	blob    int // size of the snapshots
	late    sync.WaitGroup
	claimed chan claim // every claim, as long as somebody reads it
}

var plan = stream.Plan{{Name: "--window", Value: "1m"}}

// process prepares one; start starts it.
func (w *world) process() *process {
	p := &process{world: w, wire: &wire{Bucket: w.bucket, late: &w.late, lease: w.lease}, done: make(chan struct{})}
	p.wire.crashed = p.crash
	return p
}

func (p *process) start(ctx context.Context) error {
	w := p.world
	started := time.Now()
	store, err := checkpoint.Open(ctx, checkpoint.Config{Bucket: p.wire, Name: "test", Plan: plan, Lease: w.lease, Keep: w.keep, Checked: true, Member: "m",
		Logger: slog.New(slog.DiscardHandler),
		BootTime: func() time.Duration {
			p.mu.Lock()
			defer p.mu.Unlock()
			return time.Since(started) + p.skew
		}})
	p.store = store
	ctx, p.cancel = context.WithCancel(ctx)
	if err != nil {
		p.err = err
		close(p.done)
		return err
	}
	go func() {
		defer close(p.done)
		p.err = store.Group().Run(ctx, w.src, p.serve)
	}()
	return nil
}

// crash cuts the process off for ever: whatever of it still runs can only come to an end.
func (p *process) crash() {
	p.wire.mu.Lock()
	p.wire.dead = true
	p.wire.mu.Unlock()
	p.mu.Lock()
	p.skew = time.Hour
	p.mu.Unlock()
	if p.cancel != nil {
		p.cancel()
	}
}

// stop drains the process and waits for it.
func (p *process) stop() error {
	p.cancel()
	<-p.done
	return p.err
}

// freeze holds every call of the process until thaw, as SIGSTOP would.
func (p *process) freeze() (thaw func()) {
	c := make(chan struct{})
	p.wire.mu.Lock()
	defer p.wire.mu.Unlock()
	p.wire.frozen = c
	return func() {
		p.wire.mu.Lock()
		defer p.wire.mu.Unlock()
		p.wire.frozen = nil
		close(c)
	}
}

func (p *process) serve(a *stream.Assignment) error {
	c := claim{a, time.Now()}
	p.mu.Lock()
	p.seen = append(p.seen, c)
	p.mu.Unlock()
	select {
	case p.world.claimed <- c:
	default:
	}
	ctx, cancel := a.Context(context.Background())
	defer cancel()
	if a.Partition == stream.MergerPartition {
		return p.merge(ctx, a)
	}
	return p.count(ctx, a)
}

func (p *process) count(ctx context.Context, a *stream.Assignment) error {
	n := int64(0)
	if a.Base != nil && a.Base.Kind != stream.KindReset {
		n = a.Base.Position.Number
		for _, b := range a.Base.Snapshot {
			data, err := a.Log.ReadBlob(ctx, b)
			if err != nil {
				return err
			}
			if want := text(n, p.world.blob); string(data) != want {
				return fmt.Errorf("the snapshot of %d holds something else", n)
			}
		}
	}
	for n < p.world.until {
		select {
		case <-a.Draining:
			return a.Log.Append(ctx, &stream.Entry{Kind: stream.KindRelease})
		default:
		}
		if err := pause(ctx, p.world.every); err != nil {
			return context.Cause(ctx)
		}
		n++
		e := entryAt(n)
		if n == p.world.until {
			e.Watermark = stream.EndOfTime
		}
		blob, err := a.Log.WriteObject(ctx, "snapshot", strings.NewReader(text(n, p.world.blob)))
		if err != nil {
			return err
		}
		e.Snapshot = []stream.Blob{blob}
		if err := a.Log.Append(ctx, e); err != nil {
			return err
		}
	}
	e := entryAt(n)
	e.Kind, e.Watermark = stream.KindEnd, stream.EndOfTime
	return a.Log.Append(ctx, e)
}

func entryAt(n int64) *stream.Entry {
	return &stream.Entry{Kind: stream.KindCheckpoint, Position: stream.Position{Number: n}, Watermark: stream.Instant(n), Ledger: stream.Ledger{RecordsIn: n, Contributed: n}}
}

// text is a snapshot that does not compress well, and differs from every other.
func text(n int64, size int) string {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

func (p *process) merge(ctx context.Context, a *stream.Assignment) error {
	m := &stream.MergerEntry{Frontier: stream.Beginning, Target: stream.Beginning}
	for _, name := range p.world.src {
		m.Roster = append(m.Roster, stream.RosterRow{Partition: stream.Partition{Name: name}, Start: 1})
	}
	// Its own story: a count of its checkpoints, so that it can be checked like the others'.
	n := int64(0)
	if a.Base != nil && a.Base.Kind != stream.KindReset {
		n = a.Base.Position.Number
	}
	save := func() error {
		n++
		e := entryAt(n)
		e.Ledger, e.Merger = stream.Ledger{}, m
		return a.Log.Append(ctx, e)
	}
	if n == 0 {
		if err := save(); err != nil {
			return err
		}
	}
	for {
		news := a.Log.Changed()
		ended := 0
		for _, name := range p.world.src {
			e, err := a.Log.Newest(ctx, name)
			if err != nil {
				return err
			}
			if e != nil && e.Kind == stream.KindEnd {
				ended++
			}
		}
		if err := save(); err != nil {
			return err
		}
		if ended == len(p.world.src) {
			e := entryAt(n)
			e.Kind, e.Ledger, e.Merger = stream.KindEnd, stream.Ledger{}, m
			return a.Log.Append(ctx, e)
		}
		if err := pause(ctx, p.world.every); err != nil {
			return context.Cause(ctx)
		}
		select {
		case <-a.Draining:
			return a.Log.Append(ctx, &stream.Entry{Kind: stream.KindRelease})
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-news:
		case <-time.After(p.world.lease):
		}
	}
}
