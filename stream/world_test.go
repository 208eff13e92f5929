package stream_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/checkpoint"
	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/stream"
	"github.com/millstream/millstream/stream/streamtest"
	"github.com/millstream/millstream/windows"
)

// sample is an event: n for a key. On the wire it is "key nanoseconds n".
type sample struct {
	key string
	at  stream.Instant
	n   int64
}

func (s sample) String() string { return fmt.Sprintf("%s %d %d", s.key, int64(s.at), s.n) }

func parseSample(r *stream.Record) (stream.Event[int64], error) {
	f := strings.Fields(string(r.Data))
	if len(f) != 3 {
		return stream.Event[int64]{}, errors.New("want three fields")
	}
	at, err1 := strconv.ParseInt(f[1], 10, 64)
	n, err2 := strconv.ParseInt(f[2], 10, 64)
	return stream.Event[int64]{Key: f[0], Time: stream.Instant(at), Value: n}, errors.Join(err1, err2)
}

// sum is an accumulator and a result.
type sum struct {
	Key  string
	W    stream.Window
	N, S int64
}

func (s sum) String() string {
	return fmt.Sprintf("%s [%s %s) %d %d", s.Key, s.W.Start, s.W.End, s.N, s.S)
}

// sums is a pipeline that sums up samples by key; without windows it passes them through.
func sums(w *windows.Windows) *stream.Pipeline[int64, sum] {
	p := &stream.Pipeline[int64, sum]{
		Decode: parseSample,
		Encode: func(s *sum) (stream.Row, error) {
			return stream.Row{Key: s.Key, Window: s.W, Data: []byte(s.String())}, nil
		},
		Logger: slog.New(slog.DiscardHandler),
	}
	if w == nil {
		p.Operator = &stream.Map[int64, sum]{Func: func(e *stream.Event[int64]) (sum, error) {
			return sum{strings.Clone(e.Key), stream.Window{Start: e.Time, End: e.Time}, 1, e.Value}, nil
		}}
		return p
	}
	p.Operator = &windows.Aggregation[int64, sum, sum]{
		Windows: *w,
		Add:     func(s *sum, e *stream.Event[int64]) { s.N++; s.S += e.Value },
		Merge:   func(dst, src *sum) { dst.N += src.N; dst.S += src.S },
		Emit:    func(key string, w stream.Window, s *sum) sum { return sum{key, w, s.N, s.S} },
	}
	return p
}

// scripted is a partition whose life is written beforehand.
type scripted struct {
	stream.Partition
	appears  time.Duration // listed from then on
	ends     time.Duration // no record comes after
	gone     time.Duration // not listed any more; 0: always
	children []stream.Partition
	records  []timed
	throttle [2]time.Duration // refuses to be read between
	sparse   bool             // goes idle now and then
}

// timed is a record that arrives at a time.
type timed struct {
	sample
	arrives time.Duration
	late    bool // it is late by its own partition's watermark, whatever happens
	mayBe   bool // it is late if the frontier was beyond it when its partition was found
}

// script is a source in virtual time.
type script struct {
	start time.Time
	parts map[string]*scripted
	fetch int
	read  atomic.Int64 // how far anybody has read a partition
}

func (s *script) now() time.Duration                  { return time.Since(s.start) }
func (s *script) Identity() string                    { return "script" }
func (s *script) Close() error                        { return nil }
func (s *script) Tip(context.Context) (string, error) { return "", nil }

func (s *script) Partitions(context.Context) ([]stream.Partition, error) {
	var ps []stream.Partition
	for _, p := range s.parts {
		if now := s.now(); p.appears <= now && (p.gone == 0 || now < p.gone) {
			ps = append(ps, p.Partition)
		}
	}
	return ps, nil
}

// process is a source as one process sees it: it stands still when the process is paused.
type process struct {
	*script
	gate *gate
}

func (p process) Open(_ context.Context, partition string, from stream.Position, _ string) (consumers.Reader, error) {
	return &scriptReader{p, p.parts[partition], int(from.Number), stream.Reading, false}, nil
}

type scriptReader struct {
	process
	p     *scripted
	at    int
	state stream.ReaderState
	told  bool
}

func (r *scriptReader) Close() error { return nil }

func (r *scriptReader) Read(ctx context.Context) (consumers.Fetch, error) {
	for {
		if err := r.gate.pass(); err != nil {
			return consumers.Fetch{}, err
		}
		f, wait := r.try()
		if wait == 0 {
			return f, nil
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return consumers.Fetch{}, context.Cause(ctx)
		}
	}
}

// try returns a fetch, or how long there is none.
func (r *scriptReader) try() (f consumers.Fetch, wait time.Duration) {
	now, old := r.now(), r.state
	if r.p.throttle[0] <= now && now < r.p.throttle[1] {
		if r.state = stream.Throttled; old == r.state {
			return f, r.p.throttle[1] - now
		}
		return consumers.Fetch{State: r.state}, 0
	}
	for len(f.Records) < r.fetch && r.at < len(r.p.records) && r.p.records[r.at].arrives <= now {
		r.at++
		f.Records = append(f.Records, stream.Record{Data: []byte(r.p.records[r.at-1].String()), Position: stream.Position{Number: int64(r.at)}})
	}
	if len(f.Records) > 0 { // a driver need not know its place before the first record
		f.Next.Number = int64(r.at)
		r.read.Store(max(r.read.Load(), f.Next.Number))
	}
	next := r.p.ends
	if r.at < len(r.p.records) {
		next = r.p.records[r.at].arrives
	} else if now >= r.p.ends {
		f.End = &stream.PartitionEnd{Children: r.p.children}
		return f, 0
	}
	r.state = stream.CaughtUp
	if next <= now {
		r.state = stream.Reading
	}
	f.State = r.state
	if len(f.Records) > 0 || r.state != old {
		return f, 0
	}
	if r.p.throttle[0] > now {
		next = min(next, r.p.throttle[0])
	}
	return f, max(next-now, 1)
}

// faults counts what was done to the processes of a run.
type faults struct {
	mu                                         sync.Mutex
	failed, lost, later, slow, crashes, pauses int
}

// gate stands between one process and the world.
type gate struct {
	mu      sync.Mutex
	rng     *rand.Rand
	noisy   time.Time // until then calls go wrong
	noise   float64
	paused  chan struct{} // closed when the process goes on; nil: it runs
	dead    bool
	killAt  int // the process dies at this write; 0: never
	writes  int
	died    chan struct{}
	frozen  time.Duration // how long it was paused on a boot clock that stands still then
	skew    time.Duration // how far its wall clock is ahead of the others'
	missing int           // how many readings of a slice's object still find nothing
	faults  *faults
}

var errFault = errors.New("injected fault")

// pass waits while the process is paused. The dead stay dead.
func (g *gate) pass() error {
	for {
		g.mu.Lock()
		paused, dead := g.paused, g.dead
		g.mu.Unlock()
		switch {
		case dead:
			return errFault
		case paused == nil:
			return nil
		}
		<-paused
	}
}

func (g *gate) decide(op streamtest.Op) streamtest.Fate {
	if err := g.pass(); err != nil {
		return streamtest.Fate{Fail: err}
	}
	g.mu.Lock()
	if op.Kind == "create" || op.Kind == "deliver" {
		if g.writes++; g.writes == g.killAt {
			g.dead = true
			close(g.died)
			g.mu.Unlock()
			return streamtest.Fate{Fail: errFault}
		}
	}
	if g.missing > 0 && op.Kind == "get" && strings.HasSuffix(op.Name, "-slice") {
		g.missing--
		g.mu.Unlock()
		return streamtest.Fate{Fail: bucket.ErrNotFound}
	}
	x, d := g.rng.Float64(), time.Duration(g.rng.Int64N(int64(30*time.Second)))
	noisy := time.Now().Before(g.noisy)
	g.mu.Unlock()
	x /= g.noise
	if !noisy || x >= 1 {
		return streamtest.Fate{}
	}
	g.faults.mu.Lock()
	defer g.faults.mu.Unlock()
	switch {
	case x < 0.3:
		g.faults.failed++
		return streamtest.Fate{Fail: errFault}
	case x < 0.5:
		g.faults.lost++
		return streamtest.Fate{Reply: errFault}
	case x < 0.6:
		g.faults.later++
		return streamtest.Fate{Reply: errFault, Later: d}
	}
	g.faults.slow++
	g.faults.mu.Unlock()
	<-time.After(d / 100)
	defer g.faults.mu.Lock()
	if err := g.pass(); err != nil {
		return streamtest.Fate{Fail: err}
	}
	return streamtest.Fate{}
}

func (g *gate) kill() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dead = true
	if g.paused != nil {
		close(g.paused)
		g.paused = nil
	}
}

// pause stops the process for d. With a boot clock that stands still it does not notice.
func (g *gate) pause(d time.Duration, still bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dead || g.paused != nil {
		return
	}
	c := make(chan struct{})
	g.paused = c
	if still {
		g.frozen += d
	}
	time.AfterFunc(d, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.paused == c {
			close(c)
			g.paused = nil
		}
	})
}

func (g *gate) bootTime(start time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Since(start) - g.frozen
}

// world is what processes share.
type world struct {
	*script
	bucket bucket.Bucket
	source func(*gate) consumers.Source // default: the script
	sink   streamtest.Sink
	dead   streamtest.Sink
	faults faults
	said   said
	early  atomic.Int64 // acks of batches whose rows are not delivered

	// A second sink, of files.
	roll     time.Duration // 0: there is none
	rollSize int64         // default 10,000
	files    streamtest.Sink
	layout   atomic.Int64 // every process has another

	stages bool // a third sink holds rows itself
	staged staged

	another     func(*gate) stream.Sink // one more sink of a process; nil: there is none
	maxInFlight int64                   // of a partition; 0: the default
}

// files is a sink of files that wait for a while.
type files struct {
	w      *world
	layout string
}

func (f *files) Name() string                 { return "files" }
func (f *files) Roll() (time.Duration, int64) { return f.w.roll, cmp.Or(f.w.rollSize, 10_000) }
func (f *files) Layout() []byte               { return []byte(f.layout) }

func (f *files) Deliver(ctx context.Context, id stream.CheckpointID, rows []stream.Row) error {
	return errors.New("rows past the roll")
}

// Write takes a file of another layout for another file.
func (f *files) Write(ctx context.Context, id stream.CheckpointID, layout []byte, parts iter.Seq2[[]stream.Row, error]) error {
	var whole []stream.Row
	for rows, err := range parts {
		if err != nil {
			return err
		}
		whole = append(whole, rows...)
	}
	id.Kind = string(layout)
	return f.w.files.Deliver(ctx, id, whole)
}

// staged is a sink that holds rows until they are committed. Rows of the key "refused" it never takes.
type staged struct {
	streamtest.Sink // what is visible

	mu   sync.Mutex
	held map[string]heldRows
}

type heldRows struct {
	id   stream.CheckpointID
	rows []stream.Row
}

func (s *staged) Name() string { return "staged" }

func (s *staged) Deliver(context.Context, stream.CheckpointID, []stream.Row) error {
	return errors.New("rows past the stage")
}

func (s *staged) Stage(_ context.Context, id stream.CheckpointID, rows []stream.Row) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		s.held = make(map[string]heldRows)
	}
	var err error
	h, refused := heldRows{id: id}, &stream.Rejected{}
	for i, r := range rows {
		if r.Key == "refused" {
			refused.Rows = append(refused.Rows, stream.RejectedRow{Index: i, Reason: "refused by its key"})
			err = refused
			continue
		}
		h.rows = append(h.rows, stream.Row{Key: strings.Clone(r.Key), Window: r.Window, Data: bytes.Clone(r.Data)})
	}
	if len(h.rows) == 0 {
		return nil, err
	}
	token := strconv.Itoa(len(s.held)) // each staging has one of its own, though its id comes again
	s.held[token] = h
	return []byte(token), err
}

func (s *staged) Commit(ctx context.Context, token []byte) error {
	s.mu.Lock()
	h := s.held[string(token)]
	s.mu.Unlock()
	return s.Sink.Deliver(ctx, h.id, h.rows)
}

// instance is one process.
type instance struct {
	*gate
	cancel context.CancelFunc
	done   chan error
}

// launch starts a process. Its pipeline's sinks, dead letter and logger are set here.
func (w *world) launch(p *stream.Pipeline[int64, sum], g *gate) *instance {
	g.faults = &w.faults
	p.Sinks = []stream.Sink{streamtest.DisturbSink(&w.sink, g.decide)}
	if w.roll > 0 {
		p.Sinks = append(p.Sinks, streamtest.DisturbSink(&files{w, fmt.Sprint(w.layout.Add(1))}, g.decide))
	}
	if w.stages {
		p.Sinks = append(p.Sinks, streamtest.DisturbSink(&w.staged, g.decide))
	}
	if w.another != nil {
		p.Sinks = append(p.Sinks, w.another(g))
	}
	p.DeadLetter = streamtest.DisturbSink(&w.dead, g.decide)
	p.Logger = slog.New(&w.said)
	ctx, cancel := context.WithCancel(context.Background())
	i := &instance{g, cancel, make(chan error, 1)}
	go func() { i.done <- w.serve(ctx, p, g) }()
	return i
}

func (w *world) serve(ctx context.Context, p *stream.Pipeline[int64, sum], g *gate) error {
	cfg := checkpoint.Config{Bucket: streamtest.Disturb(w.bucket, g.decide), Name: "sim", Plan: append(stream.Plan{{Name: "--source", Value: "script"}}, p.Plan()...), Checked: true, Logger: p.Logger, Keep: 2,
		BootTime: func() time.Duration { return g.bootTime(w.start) }, WallClock: func() time.Time { return time.Now().Add(g.skew) }}
	if w.source != nil {
		cfg.DedupeFor = 10 * time.Minute
	}
	store, err := checkpoint.Open(ctx, cfg)
	for ; err != nil && ctx.Err() == nil; store, err = checkpoint.Open(ctx, cfg) { // a program would be started again
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
	if err != nil {
		return err
	}
	var src consumers.Source = process{w.script, g}
	if w.source != nil {
		src = w.source(g)
	}
	sub, err := consumers.New(consumers.Config{Source: src, Group: store.Group(), MaxInFlight: w.maxInFlight, Logger: p.Logger})
	if err != nil {
		return err
	}
	messages, err := sub.Batches().Subscribe(ctx, "sim")
	if err != nil {
		return err
	}
	for m := range messages {
		go func() {
			if g.pass() == nil && p.Handle(m) == nil {
				if b, err := stream.BatchOf(m); p.Operator.Slice() == 0 && w.source == nil && err == nil && int64(w.delivered(b.Assignment.Partition)) < b.Next.Number {
					w.early.Add(1)
				}
				m.Ack()
			} else {
				m.Nack()
			}
		}()
	}
	return sub.Err()
}

// delivered is how many rows of a partition are in the sink.
func (w *world) delivered(partition string) (n int) {
	for _, r := range w.sink.Rows() {
		if strings.HasPrefix(r.Key, partition+".") || r.Key == partition {
			n++
		}
	}
	return n
}

// newest returns the newest entry of a partition.
func (w *world) newest(partition string) (*stream.Entry, error) {
	store, err := checkpoint.Open(context.Background(), checkpoint.Config{Bucket: w.bucket, Name: "sim"})
	if err != nil {
		return nil, err
	}
	names, err := w.bucket.List(context.Background(), "sim/log/"+partition+"/")
	if err != nil || len(names) == 0 {
		return nil, fmt.Errorf("%s has no log: %w", partition, err)
	}
	newest, err := strconv.ParseUint(path.Base(names[len(names)-1]), 10, 64)
	if err != nil {
		return nil, err
	}
	return store.Show(context.Background(), partition, newest)
}

// merged returns the merger's part of its newest entry.
func (w *world) merged() (*stream.MergerEntry, error) {
	e, err := w.newest(stream.MergerPartition)
	if err != nil {
		return nil, err
	}
	return e.Merger, nil
}

func (w *world) ledger() (stream.Ledger, error) {
	store, err := checkpoint.Open(context.Background(), checkpoint.Config{Bucket: w.bucket, Name: "sim"})
	if err != nil {
		return stream.Ledger{}, err
	}
	return store.Ledger(context.Background())
}

// said keeps what a run logged, the newest lines.
type said struct {
	mu    sync.Mutex
	lines []string
	count map[string]int
}

func (s *said) Enabled(context.Context, slog.Level) bool { return true }
func (s *said) WithAttrs([]slog.Attr) slog.Handler       { return s }
func (s *said) WithGroup(string) slog.Handler            { return s }

func (s *said) Handle(_ context.Context, r slog.Record) error {
	line := r.Time.UTC().Format("15:04:05.000 ") + r.Message
	r.Attrs(func(a slog.Attr) bool { line += fmt.Sprintf(" %s=%v", a.Key, a.Value); return true })
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count == nil {
		s.count = make(map[string]int)
	}
	s.count[r.Message]++
	if strings.Contains(line, stream.ErrFenced.Error()) {
		s.count["fenced"]++
	}
	if s.lines = append(s.lines, line); len(s.lines) > 400 {
		s.lines = s.lines[200:]
	}
	return nil
}

func (s *said) about(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count[what]
}

func (s *said) tail(n int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.lines[max(0, len(s.lines)-n):], "\n")
}

// exact is what a single thread makes of the samples.
func exact(w *windows.Windows, samples []sample) (rows []string) {
	kind := "none"
	if w != nil {
		kind = w.String()
	}
	switch {
	case w == nil:
		for _, s := range samples {
			rows = append(rows, sum{s.key, stream.Window{Start: s.at, End: s.at}, 1, s.n}.String())
		}
	case strings.HasPrefix(kind, "session"):
		gap := w.Slice()
		slices.SortFunc(samples, func(a, b sample) int { return cmp.Or(strings.Compare(a.key, b.key), cmp.Compare(a.at, b.at)) })
		var open sum
		flush := func() {
			if open.N > 0 {
				open.W.End = open.W.End.Add(gap)
				rows = append(rows, open.String())
			}
		}
		for _, s := range samples {
			if s.key != open.Key || s.at >= open.W.End.Add(gap) || open.N == 0 {
				flush()
				open = sum{Key: s.key, W: stream.Window{Start: s.at}}
			}
			open.W.End, open.N, open.S = s.at, open.N+1, open.S+s.n
		}
		flush()
	default:
		size, hop := w.Slice(), w.Slice()
		if strings.HasPrefix(kind, "hopping") {
			size = 2 * hop // as the tests have it
		}
		totals := make(map[string]*sum)
		for _, s := range samples {
			for start := s.at.Floor(hop); start.Add(size) > s.at; start = start.Add(-hop) {
				id := fmt.Sprint(s.key, start)
				if totals[id] == nil {
					totals[id] = &sum{Key: s.key, W: stream.Window{Start: start, End: start.Add(size)}}
				}
				totals[id].N++
				totals[id].S += s.n
			}
		}
		for _, t := range totals {
			rows = append(rows, t.String())
		}
	}
	slices.Sort(rows)
	return rows
}
