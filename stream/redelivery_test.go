package stream_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/stream"
	"github.com/millstream/millstream/windows"
)

const (
	ackDeadline     = time.Minute
	queueOutOfOrder = 30 * time.Second
	queueHorizon    = 3 * time.Minute
)

// queue is a subscription in virtual time: messages are handed out in no strict order, stay with their
// reader while it extends their deadline, are gone once acked, and come again otherwise. Some acks are
// lost, so that what was counted comes again too.
type queue struct {
	mu       sync.Mutex
	rng      *rand.Rand
	name     string
	messages []*queued
	ends     time.Duration
	told     redeliveries
}

// redeliveries counts what a queue did to its readers.
type redeliveries struct{ expired, nacked, lostAcks, settledTwice int }

type queued struct {
	timed
	id     uint64
	acked  bool
	reader *queueReader // who holds it
	until  time.Time    // its deadline, once the reader extends no more
}

// queues is the source of a process.
type queues struct {
	start time.Time
	gate  *gate
	all   map[string]*queue
}

func (q queues) Identity() string                    { return "queues" }
func (q queues) Close() error                        { return nil }
func (q queues) Tip(context.Context) (string, error) { return "", nil }
func (q queues) RedeliversWithin() time.Duration     { return ackDeadline + 5*time.Second }

func (q queues) Partitions(context.Context) (ps []stream.Partition, err error) {
	for name := range q.all {
		ps = append(ps, stream.Partition{Name: name})
	}
	return ps, q.gate.pass()
}

func (q queues) Open(_ context.Context, partition string, _ stream.Position, _ string) (consumers.Reader, error) {
	r := &queueReader{queues: q, queue: q.all[partition], closed: make(chan struct{})}
	go r.extend()
	return r, q.gate.pass()
}

type queueReader struct {
	queues
	*queue
	closed chan struct{}
	state  stream.ReaderState
}

// extend keeps the deadlines of what the reader holds, for as long as its process runs.
func (r *queueReader) extend() {
	for {
		select {
		case <-r.closed:
			return
		case <-time.After(ackDeadline / 6):
		}
		r.gate.mu.Lock()
		runs, dead := r.gate.paused == nil && !r.gate.dead, r.gate.dead
		r.gate.mu.Unlock()
		if dead {
			return
		}
		r.mu.Lock()
		for _, m := range r.messages {
			if runs && m.reader == r && !m.acked {
				m.until = time.Now().Add(ackDeadline)
			}
		}
		r.mu.Unlock()
	}
}

func (r *queueReader) Close() error {
	if r.gate.pass() != nil {
		return errFault
	}
	close(r.closed)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.messages {
		if m.reader == r && !m.acked {
			m.reader = nil
			r.told.nacked++
		}
	}
	return nil
}

func (r *queueReader) Read(ctx context.Context) (consumers.Fetch, error) {
	for {
		if err := r.gate.pass(); err != nil {
			return consumers.Fetch{}, err
		}
		if f, ok := r.try(); ok {
			return f, nil
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return consumers.Fetch{}, context.Cause(ctx)
		}
	}
}

func (r *queueReader) try() (f consumers.Fetch, some bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	var held []*queued
	open := false
	for _, m := range r.messages {
		open = open || !m.acked
		if m.acked || now.Sub(r.start) < m.arrives || len(held) == 20 {
			continue
		}
		if m.reader != nil && now.Before(m.until) {
			continue
		}
		if m.reader != nil {
			r.told.expired++
		}
		m.reader, m.until = r, now.Add(ackDeadline)
		held = append(held, m)
	}
	if !open && now.Sub(r.start) >= r.ends {
		return consumers.Fetch{End: new(stream.PartitionEnd)}, true
	}
	old := r.state
	r.state = stream.CaughtUp
	if len(held) == 0 {
		return consumers.Fetch{State: r.state}, r.state != old
	}
	r.rng.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
	for _, m := range held {
		f.Records = append(f.Records, stream.Record{Data: []byte(m.String()), ID: m.id, Position: stream.Position{Token: strconv.FormatUint(m.id, 10)}})
	}
	settled := make([]bool, len(held))
	f.Settle = func(from, to int, err error) {
		r.gate.mu.Lock()
		dead := r.gate.dead
		r.gate.mu.Unlock()
		r.mu.Lock()
		defer r.mu.Unlock()
		for i, m := range held[from:to] {
			if settled[from+i] {
				r.told.settledTwice++
			}
			settled[from+i] = true
			switch {
			case dead || m.reader != r:
			case err != nil:
				m.reader = nil
				r.told.nacked++
			case r.rng.IntN(20) == 0:
				r.told.lostAcks++
				m.reader, m.until = new(queueReader), time.Now().Add(ackDeadline)
			default:
				m.acked = true
			}
		}
	}
	return f, true
}

// simulateQueues runs two subscriptions with crashes and pauses, and returns what is wrong with the outcome.
func simulateQueues(seed uint64, told *redeliveries, off ...string) (err error) {
	rng := rand.New(rand.NewPCG(seed, 11))
	w := windows.Tumbling(slice)
	var samples []sample
	all := make(map[string]*queue)
	for _, name := range []string{"a", "b"} {
		q := &queue{rng: rand.New(rand.NewPCG(seed, 13)), name: name, ends: queueHorizon}
		for at := time.Duration(0); at < q.ends; at += time.Duration(rng.Int64N(int64(time.Second))) {
			s := sample{"k" + strconv.Itoa(rng.IntN(5)), epoch.Add(at - time.Duration(rng.Int64N(int64(2*time.Second)))), rng.Int64N(1 << 40)}
			samples = append(samples, s)
			q.messages = append(q.messages, &queued{timed: timed{sample: s, arrives: at}, id: uint64(len(samples))})
		}
		all[name] = q
	}
	wd := &world{script: &script{start: time.Now()}, bucket: bucket.Memory()}
	wd.source = func(g *gate) consumers.Source { return queues{wd.start, g, all} }
	started := uint64(0)
	launch := func() *instance {
		started++
		p := sums(&w)
		p.OutOfOrder, p.IdleAfter, p.CheckpointEvery = queueOutOfOrder, time.Hour, 2*time.Second
		if seed%2 == 0 {
			p.Enrich = []stream.Enricher[int64]{&dawdler{rng: rand.New(rand.NewPCG(seed, 17+started))}}
		}
		for _, rule := range off {
			p.Off(rule)
		}
		return wd.launch(p, &gate{rng: rand.New(rand.NewPCG(seed, started)), noise: 0.03, noisy: time.Now().Add(queueHorizon)})
	}
	running := launch()
	instances := []*instance{running}
	for range 1 + rng.IntN(3) {
		<-time.After(time.Duration(rng.Int64N(int64(queueHorizon / 3))))
		if rng.IntN(3) == 0 {
			// Never on a boot clock that stands still: the hold's clock would stand still with it, and a
			// bubble's does not.
			running.pause(time.Duration(rng.Int64N(int64(2*time.Minute))), false)
			continue
		}
		running.kill()
		running = launch()
		instances = append(instances, running)
	}
	select {
	case err = <-running.done:
		running.done <- nil
	case <-time.After(virtualEnd):
		err = errors.New("it does not finish")
	}
	for _, i := range instances {
		i.kill()
		i.cancel()
		<-i.done
	}
	if err != nil && !errors.Is(err, stream.ErrFinished) {
		return err
	}
	if told != nil {
		for _, q := range all {
			told.expired += q.told.expired
			told.nacked += q.told.nacked
			told.lostAcks += q.told.lostAcks
			told.settledTwice += q.told.settledTwice
		}
	}
	return wd.judgeOnce(&w, samples)
}

// judgeOnce wants every sample counted once.
func (w *world) judgeOnce(ws *windows.Windows, samples []sample) error {
	var rows []string
	for _, r := range w.sink.Rows() {
		rows = append(rows, string(r.Data))
	}
	slices.Sort(rows)
	if want := exact(ws, samples); !slices.Equal(rows, want) {
		return fmt.Errorf("rows are wrong: %d, exact are %d%s\n%s", len(rows), len(want), firstDifference(rows, want), w.said.tail(30))
	}
	n := int64(len(samples))
	want := stream.Ledger{RecordsIn: n, Contributed: n, RowsOut: int64(len(rows))}
	if ledger, err := w.ledger(); err != nil || ledger != want {
		return fmt.Errorf("ledger %+v, exact is %+v (%w)", ledger, want, err)
	}
	return nil
}

// redelivered runs seeds until one fails.
func redelivered(t *testing.T, off ...string) error {
	for seed := uint64(1); seed <= 20; seed++ {
		var err error
		synctest.Test(t, func(*testing.T) { err = simulateQueues(seed, nil, off...) })
		if err != nil {
			return fmt.Errorf("seed %d: %w", seed, err)
		}
	}
	return nil
}

// TestRedelivery is the engine over subscriptions that deliver again what was not acked in time, what
// a dead process held, and some of what was acked.
func TestRedelivery(t *testing.T) {
	var told redeliveries
	for seed := uint64(1); seed <= *allSeeds/2; seed++ {
		synctest.Test(t, func(t *testing.T) {
			if err := simulateQueues(seed, &told); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
		})
	}
	t.Logf("injected: %+v", told)
	if told.settledTwice > 0 {
		t.Errorf("%d records were settled twice", told.settledTwice)
	}
	if told.expired == 0 || told.nacked == 0 || told.lostAcks == 0 {
		t.Errorf("not every fault was injected: %+v", told)
	}
}
