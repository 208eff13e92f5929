package consumers_test

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/consumers/consumertest"
	"github.com/millstream/millstream/stream"
)

// sink keeps what is delivered to it, once for each id.
type sink struct {
	mu   sync.Mutex
	rows map[stream.CheckpointID][]string
	fail bool
	slow time.Duration
}

func (s *sink) Deliver(_ context.Context, id stream.CheckpointID, rows []stream.Row) error {
	<-time.After(s.slow)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail {
		return errRefused
	}
	if s.rows == nil {
		s.rows = make(map[stream.CheckpointID][]string)
	}
	s.rows[id] = nil
	for _, r := range rows {
		s.rows[id] = append(s.rows[id], string(r.Data))
	}
	return nil
}

// sum adds the delivered numbers up.
func (s *sink) sum() (n, sum int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rows := range s.rows {
		for _, row := range rows {
			i, _ := strconv.Atoi(row)
			n, sum = n+1, sum+i
		}
	}
	return n, sum
}

// pipeline passes numbers through; the event time of n is n seconds.
func pipeline(s *sink) *stream.Pipeline[int, int] {
	return &stream.Pipeline[int, int]{
		Decode: func(r *stream.Record) (stream.Event[int], error) {
			n, err := strconv.Atoi(string(r.Data))
			return stream.Event[int]{Time: stream.Instant(n) * stream.Instant(time.Second), Value: n}, err
		},
		Operator:        &stream.Map[int, int]{Func: func(e *stream.Event[int]) (int, error) { return e.Value, nil }},
		Encode:          func(n *int) (stream.Row, error) { return stream.Row{Data: []byte(strconv.Itoa(*n))}, nil },
		Sinks:           []stream.Sink{s},
		CheckpointEvery: time.Second,
		Logger:          slog.New(slog.DiscardHandler),
	}
}

// The real engine behind the subscriber, through losses, drains, reader errors and the end.
func TestEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := consumertest.NewMemory(1, 10)
		s := &sink{}
		r := start(t, memory, consumers.Config{BatchRecords: 7}, pipeline(s).Handle, middleware.Recoverer)
		for i := range 10 {
			memory.Append(topic, "0", numbers(100*i, 100*(i+1))...)
			switch i % 4 {
			case 0:
				r.logs.Lose("0", consumertest.ErrTaken)
			case 1:
				r.logs.Drain("0")
			case 2:
				memory.Fail(topic, "0", errRefused)
			}
			<-time.After(700 * time.Millisecond)
		}
		memory.End(topic, "0")
		<-r.ran
		if n, sum := s.sum(); n != 1000 || sum != 999*1000/2 {
			t.Errorf("%d rows, sum %d", n, sum)
		}
		e := r.logs.Newest("0")
		if e.Kind != stream.KindEnd || e.Ledger.RecordsIn != 1000 || e.Ledger.Imbalance() != 0 {
			t.Errorf("%+v", e)
		}
		if r.claims("0") < 7 {
			t.Errorf("%d claims", r.claims("0"))
		}
		if err := r.sub.Err(); err != nil {
			t.Error(err)
		}
	})
}

// A lane that ends by itself stops its reader: what was read behind Until is settled, not processed.
func TestEngineUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := consumertest.NewMemory(1, 10)
		memory.Append(topic, "0", numbers(0, 5000)...)
		s := &sink{slow: time.Second} // while it works the reader reads on
		p := pipeline(s)
		p.Until = time.Unix(500, 0)
		late := 0
		r := start(t, memory, consumers.Config{BatchRecords: 7}, p.Handle, func(h message.HandlerFunc) message.HandlerFunc {
			return func(m *message.Message) ([]*message.Message, error) {
				if b, _ := stream.BatchOf(m); b.Seq == 200 {
					<-time.After(time.Minute) // the lane has ended when this one comes
					late++
				}
				return h(m)
			}
		})
		<-r.ran
		if late != 1 {
			t.Error("no batch came late")
		}
		if n, sum := s.sum(); n != 500 || sum != 499*500/2 {
			t.Errorf("%d rows, sum %d", n, sum)
		}
		if e := r.logs.Newest("0"); e.Kind != stream.KindEnd || r.claims("0") != 1 {
			t.Errorf("%s, %+v", r.kinds("0"), e)
		}
	})
}

// A sink that is down holds the partition; a drain waits for it, and what was read is delivered once.
func TestEngineDrainWaitsForSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := consumertest.NewMemory(1, 10)
		memory.Append(topic, "0", numbers(0, 100)...)
		s := &sink{fail: true}
		r := start(t, memory, consumers.Config{}, pipeline(s).Handle)
		<-time.After(10 * time.Second)
		go func() {
			<-time.After(time.Minute)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.fail = false
		}()
		r.stop()
		if n, _ := s.sum(); n != 100 || !strings.HasSuffix(r.kinds("0"), "release") {
			t.Errorf("%d rows, log %s", n, r.kinds("0"))
		}
	})
}

// Poisoning middlewares in front of the real engine: the totals are right in spite of them.
func TestEngineBehindPoisonQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		poisonQueue, err := middleware.PoisonQueue(&publishes{}, "poison")
		if err != nil {
			t.Fatal(err)
		}
		memory := consumertest.NewMemory(1, 10)
		memory.Append(topic, "0", numbers(0, 100)...)
		s := &sink{}
		p := pipeline(s)
		var calls atomic.Int64 // batches are enriched ahead of each other
		p.Enrich = []stream.Enricher[int]{enrich(func() error {
			if calls.Add(1) <= 3 {
				return errors.New("the lookup is down")
			}
			return nil
		})}
		r := start(t, memory, consumers.Config{}, p.Handle, poisonQueue)
		<-time.After(time.Minute)
		r.stop()
		if n, sum := s.sum(); n != 100 || sum != 99*100/2 {
			t.Errorf("%d rows, sum %d", n, sum)
		}
		if r.sub.Stats().FalseAcks == 0 || r.claims("0") < 2 {
			t.Errorf("%+v, %d claims", r.sub.Stats(), r.claims("0"))
		}
	})
}

type enrich func() error

func (e enrich) Enrich(context.Context, []stream.Event[int]) error { return e() }
