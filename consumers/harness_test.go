package consumers_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/consumers/consumertest"
	"github.com/millstream/millstream/stream"
)

// lanes is a stand-in for a pipeline: it takes the batches of each assignment in order of Seq, notes
// their records, saves a checkpoint for each batch, and settles it.
type lanes struct {
	refuse func(b *stream.Batch) error // called in order, before a batch is processed
	hold   chan struct{}               // when set, nothing is processed before it is closed

	mu      sync.Mutex
	state   map[*stream.Assignment]*laneState
	records map[string][]string // processed and saved, by partition
	sizes   []int               // records of every batch
	states  []stream.ReaderState
	lost    bool // a partition ended as lost
	calls   int
}

type laneState struct {
	next  uint64
	ahead map[uint64]*stream.Batch
	err   error
}

func newLanes() *lanes {
	return &lanes{state: make(map[*stream.Assignment]*laneState), records: make(map[string][]string)}
}

func (ls *lanes) Handle(m *message.Message) error {
	b, err := stream.BatchOf(m)
	if err != nil {
		return err
	}
	a := b.Assignment
	if a.Partition == stream.MergerPartition {
		select {
		case <-a.Draining:
			b.Settle(a.Log.Append(context.Background(), &stream.Entry{Kind: stream.KindRelease}))
		case <-a.Lost:
			b.Settle(a.Cause())
		}
		return b.Err()
	}
	if ls.hold != nil {
		select {
		case <-ls.hold:
		case <-a.Lost:
		}
	}
	ls.put(b)
	select {
	case <-b.Durable():
		return nil
	case <-b.Failed():
		return b.Err()
	case <-a.Lost:
		b.Settle(a.Cause())
		return a.Cause()
	}
}

func (ls *lanes) put(b *stream.Batch) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.calls++
	s := ls.state[b.Assignment]
	if s == nil {
		s = &laneState{ahead: make(map[uint64]*stream.Batch)}
		ls.state[b.Assignment] = s
	}
	if b.Seq < s.next {
		return // offered before
	}
	s.ahead[b.Seq] = b
	for b := s.ahead[s.next]; b != nil; b = s.ahead[s.next] {
		delete(s.ahead, s.next)
		s.next++
		if s.err == nil {
			s.err = ls.process(b)
		}
		b.Settle(s.err)
	}
}

func (ls *lanes) process(b *stream.Batch) error {
	a := b.Assignment
	if ls.refuse != nil {
		if err := ls.refuse(b); err != nil {
			return err
		}
	}
	e := &stream.Entry{Kind: stream.KindCheckpoint, Position: b.Next}
	switch {
	case b.End != nil:
		e.Kind, e.Children, e.Lost = stream.KindEnd, b.End.Children, b.End.Lost
	case b.Last:
		e.Kind = stream.KindRelease
	}
	var held int64 = 64
	for _, r := range b.Records {
		held += int64(len(r.Data)) + 72
	}
	if len(b.Records) > 0 || b.End != nil || b.Last {
		if err := a.Log.Append(context.Background(), e); err != nil {
			return err
		}
	}
	for _, r := range b.Records {
		ls.records[a.Partition] = append(ls.records[a.Partition], string(r.Data))
	}
	ls.sizes = append(ls.sizes, len(b.Records))
	ls.states = append(ls.states, b.State)
	ls.lost = ls.lost || e.Lost
	if b.Seq > 0 && !b.Last { // the first and the last hold nothing
		a.Flow.Release(held, 1)
	}
	return nil
}

func (ls *lanes) got(partition string) string {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return strings.Join(ls.records[partition], " ")
}

func (ls *lanes) count() int {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	n := 0
	for _, r := range ls.records {
		n += len(r)
	}
	return n
}

// rig is a topic in memory, read by a subscriber through a real router.
type rig struct {
	t      *testing.T
	memory *consumertest.Memory
	logs   *consumertest.Logs
	sub    *consumers.Subscriber
	router *message.Router
	cancel context.CancelFunc
	said   *said
	ran    chan error
}

const topic = "orders"

// start runs handle on a topic of one partition, "0". It belongs into a synctest bubble.
func start(t *testing.T, memory *consumertest.Memory, cfg consumers.Config, handle message.NoPublishHandlerFunc, middlewares ...message.HandlerMiddleware) *rig {
	t.Helper()
	r := &rig{t: t, memory: memory, logs: consumertest.NewLogs(), said: &said{}, ran: make(chan error, 1)}
	if cfg.Source == nil {
		cfg.Source = memory.Source(topic)
	}
	cfg.Group, cfg.Logger = r.logs.Group(), slog.New(r.said)
	var err error
	if r.sub, err = consumers.New(cfg); err != nil {
		t.Fatal(err)
	}
	r.router, err = message.NewRouter(message.RouterConfig{CloseTimeout: 100 * time.Second}, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	r.router.AddMiddleware(middlewares...)
	r.router.AddConsumerHandler("pipeline", topic, r.sub.Batches(), handle)
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() { r.ran <- r.router.Run(ctx) }()
	<-r.router.Running()
	return r
}

// stop ends the router as a program does at SIGTERM.
func (r *rig) stop() {
	r.t.Helper()
	r.cancel()
	if err := <-r.ran; err != nil {
		r.t.Errorf("router: %v", err)
	}
}

// kinds is the partition's log in one word an entry.
func (r *rig) kinds(partition string) string {
	var kinds []string
	for _, e := range r.logs.Entries(partition) {
		kinds = append(kinds, string(e.Kind))
	}
	return strings.Join(kinds, " ")
}

func (r *rig) claims(partition string) int {
	return strings.Count(r.kinds(partition), string(stream.KindClaim))
}

// said keeps the messages of a logger.
type said struct {
	mu    sync.Mutex
	lines []string
}

func (s *said) Enabled(context.Context, slog.Level) bool { return true }
func (s *said) WithAttrs([]slog.Attr) slog.Handler       { return s }
func (s *said) WithGroup(string) slog.Handler            { return s }
func (s *said) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += fmt.Sprintf(" %s=%v", a.Key, a.Value); return true })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, line)
	return nil
}

func (s *said) about(text string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.lines {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

func numbers(from, to int) (data [][]byte) {
	for i := from; i < to; i++ {
		data = append(data, fmt.Append(nil, i))
	}
	return data
}

// text is what numbers(0, n) becomes.
func text(n int) string { return string(joined(numbers(0, n))) }

func joined(data [][]byte) []byte {
	var all []byte
	for i, d := range data {
		if i > 0 {
			all = append(all, ' ')
		}
		all = append(all, d...)
	}
	return all
}

var errRefused = errors.New("refused by the test")
