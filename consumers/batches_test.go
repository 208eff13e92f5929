package consumers_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/consumers/consumertest"
	"github.com/millstream/millstream/stream"
)

func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := consumertest.NewMemory(2, 100)
		memory.Append(topic, "0", numbers(0, 1000)...)
		memory.Append(topic, "1", numbers(0, 10)...)
		ls := newLanes()
		r := start(t, memory, consumers.Config{BatchRecords: 30}, ls.Handle)
		<-time.After(time.Second)
		memory.Append(topic, "1", numbers(10, 20)...)
		synctest.Wait()
		memory.Throttle(topic, "1", true)
		synctest.Wait()
		if ls.got("0") != text(1000) || ls.got("1") != text(20) {
			t.Errorf("got %s\n%s", ls.got("0"), ls.got("1"))
		}
		if most := slices.Max(ls.sizes); most > 30 {
			t.Errorf("a batch of %d records", most)
		}
		if !slices.Contains(ls.states, stream.CaughtUp) {
			t.Error("nobody said that the reader had caught up")
		}
		if !slices.Contains(ls.states, stream.Throttled) {
			t.Error("nobody said that the reader was throttled")
		}
		r.stop()
		for _, p := range []string{"0", "1", stream.MergerPartition} {
			if kinds := r.kinds(p); !strings.HasPrefix(kinds, "claim ") || !strings.HasSuffix(kinds, " release") || r.claims(p) != 1 {
				t.Errorf("log of %s: %s", p, kinds)
			}
		}
		if err := r.sub.Err(); err != nil {
			t.Error(err)
		}
		if err := r.sub.Close(); err != nil {
			t.Error(err)
		}
		if _, err := r.sub.Batches().Subscribe(t.Context(), topic); !errors.Is(err, consumers.ErrClosed) {
			t.Errorf("subscribed after Close: %v", err)
		}
	})
}

// Whatever the fetches and the batch bounds are, the records are the same, and the log's position
// resumes behind every batch.
func TestBatchBounds(t *testing.T) {
	for _, c := range []struct{ fetch, records, bytes int }{{1, 1000, 1000}, {7, 3, 1000}, {50, 1000, 10}, {1000, 1, 1}, {1000, 4096, 1 << 20}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := consumertest.NewMemory(1, c.fetch)
				data := numbers(0, 200)
				data[100] = []byte(strings.Repeat("x", 5000)) // larger than a batch, and than the bound
				memory.Append(topic, "0", data...)
				memory.End(topic, "0")
				ls := newLanes()
				n := 0
				ls.refuse = func(b *stream.Batch) error {
					if n++; n%5 == 0 { // every fifth batch begins another claim
						return errRefused
					}
					return nil
				}
				r := start(t, memory, consumers.Config{BatchRecords: c.records, BatchBytes: c.bytes, MaxInFlight: 4096}, ls.Handle)
				<-r.ran // the topic has ended, so the router has too
				if ls.got("0") != string(joined(data)) {
					t.Errorf("got %s", ls.got("0"))
				}
				if most := slices.Max(ls.sizes); most > c.records {
					t.Errorf("a batch of %d records", most)
				}
				if n >= 5 && r.claims("0") < 2 {
					t.Error("nothing was refused")
				}
			})
		})
	}
}

// No middleware makes a batch count that failed. Each is given a handler that refuses the batch of
// record 50 until its third claim.
func TestMiddlewares(t *testing.T) {
	poison := gochannel.NewGoChannel(gochannel.Config{}, watermill.NopLogger{})
	poisonQueue, err := middleware.PoisonQueue(poison, "poison")
	if err != nil {
		t.Fatal(err)
	}
	// A retry that takes hours must not hold the next claim up.
	retry := middleware.Retry{MaxRetries: 3, InitialInterval: time.Hour, MaxInterval: time.Hour, Multiplier: 1}
	for _, c := range []struct {
		name       string
		middleware message.HandlerMiddleware
		falseAcks  bool
		cause      string
	}{
		{"none", func(h message.HandlerFunc) message.HandlerFunc { return h }, false, ""},
		{"Recoverer", middleware.Recoverer, false, ""},
		{"Timeout", middleware.Timeout(time.Millisecond), false, ""},
		{"Retry", retry.Middleware, false, ""},
		{"CorrelationID", middleware.CorrelationID, false, ""},
		{"Throttle", middleware.NewThrottle(1000, time.Second).Middleware, false, ""},
		{"Duplicator", middleware.Duplicator, false, ""},
		{"PoisonQueue", poisonQueue, true, "PoisonQueue"},
		{"IgnoreErrors", middleware.NewIgnoreErrors([]error{errRefused}).Middleware, true, "IgnoreErrors"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := consumertest.NewMemory(1, 10)
				memory.Append(topic, "0", numbers(0, 100)...)
				ls := newLanes()
				refused := 0
				ls.refuse = func(b *stream.Batch) error {
					if len(b.Records) > 0 && b.Records[0].Position.Number <= 51 && b.Next.Number > 50 && refused < 2 {
						refused++
						return errRefused
					}
					return nil
				}
				r := start(t, memory, consumers.Config{BatchRecords: 10}, ls.Handle, c.middleware)
				<-time.After(time.Minute)
				synctest.Wait()
				if ls.got("0") != text(100) {
					t.Errorf("got %s", ls.got("0"))
				}
				if refused != 2 || r.claims("0") != 3 {
					t.Errorf("refused %d times, %d claims", refused, r.claims("0"))
				}
				stats := r.sub.Stats()
				if c.falseAcks != (stats.FalseAcks > 0) {
					t.Errorf("%+v", stats)
				}
				if n := r.said.about("likely_cause"); c.falseAcks && (n != 1 || r.said.about(c.cause) != 1) || !c.falseAcks && n != 0 {
					t.Errorf("logged %d times: %q", n, r.said.lines)
				}
				r.stop()
			})
		})
	}
}

// A middleware that fails by itself, before the handler sees the batch.
func TestNackFromOutside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := consumertest.NewMemory(1, 10)
		memory.Append(topic, "0", numbers(0, 100)...)
		ls := newLanes()
		var failed atomic.Int64
		r := start(t, memory, consumers.Config{BatchRecords: 10}, ls.Handle, func(h message.HandlerFunc) message.HandlerFunc {
			return func(m *message.Message) ([]*message.Message, error) {
				if b, err := stream.BatchOf(m); err == nil && b.Next.Number == 50 && failed.Add(1) <= 3 {
					return nil, errRefused
				}
				return h(m)
			}
		})
		<-time.After(time.Minute)
		if ls.got("0") != text(100) || r.claims("0") != 4 || r.sub.Stats().Nacks < 3 {
			t.Errorf("got %s, %d claims, %+v", ls.got("0"), r.claims("0"), r.sub.Stats())
		}
		r.stop()
	})
}

// Middlewares that ack a batch before its lane has settled it: nothing that they ack is believed.
func TestAckBeforeDurable(t *testing.T) {
	deduplicator := middleware.Deduplicator{Timeout: time.Second}
	for _, c := range []struct {
		name       string
		middleware message.HandlerMiddleware
		hold       bool // the lane is slow
	}{
		{"InstantAck", middleware.InstantAck, true},
		{"Deduplicator", deduplicator.Middleware, false},
		{"handler not called", func(message.HandlerFunc) message.HandlerFunc {
			return func(*message.Message) ([]*message.Message, error) { return nil, nil }
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			// Deduplicator's map is cleaned by a goroutine that never ends, which a bubble would refuse.
			memory := consumertest.NewMemory(1, 10)
			memory.Append(topic, "0", numbers(0, 100)...)
			ls := newLanes()
			if c.hold {
				ls.hold = make(chan struct{})
			}
			r := start(t, memory, consumers.Config{BatchRecords: 10}, ls.Handle, c.middleware)
			for changed := r.logs.Changed(); r.claims("0") < 3; changed = r.logs.Changed() {
				if r.claims("0") < 3 { // the group claims again and again, and says so by its log
					<-changed
				}
			}
			r.stop()
			if got := ls.got("0"); got != "" {
				t.Errorf("processed %s", got)
			}
			if e := r.logs.Newest("0"); e != nil {
				t.Errorf("saved %+v", e)
			}
			if n := r.sub.Stats().FalseAcks; n < 2 {
				t.Errorf("%d false acks", n)
			}
			if n := r.said.about("InstantAck, Deduplicator"); n != 1 {
				t.Errorf("logged %d times", n)
			}
		})
	}
}

// A batch that a middleware acks unread comes again. The control is a middleware that makes the ack
// look true: then the batch is gone.
func TestAckIsNotBelieved(t *testing.T) {
	for _, believed := range []bool{false, true} {
		t.Run(fmt.Sprintf("believed=%t", believed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := consumertest.NewMemory(1, 10)
				memory.Append(topic, "0", numbers(0, 100)...)
				ls := newLanes()
				var swallowed atomic.Bool
				r := start(t, memory, consumers.Config{BatchRecords: 10}, func(m *message.Message) error {
					b, err := stream.BatchOf(m)
					if err == nil && b.Next.Number == 50 && len(b.Records) > 0 && !swallowed.Swap(true) {
						if believed {
							b.Settle(nil)
						}
						return nil
					}
					return ls.Handle(m)
				})
				<-time.After(time.Minute)
				if complete := ls.got("0") == text(100); complete == believed {
					t.Errorf("complete: %t, got %s", complete, ls.got("0"))
				}
				if n := r.sub.Stats().FalseAcks; believed != (n == 0) {
					t.Errorf("%d false acks", n)
				}
				if believed {
					r.logs.Lose("0", consumertest.ErrTaken) // its lane waits for the batch for ever
				}
				<-time.After(time.Second)
				r.stop()
			})
		})
	}
}

// An ack or a nack after durability changes nothing.
func TestDurableIsDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := consumertest.NewMemory(1, 10)
		memory.Append(topic, "0", numbers(0, 100)...)
		ls := newLanes()
		r := start(t, memory, consumers.Config{}, func(m *message.Message) error {
			if err := ls.Handle(m); err != nil {
				return err
			}
			return errRefused
		})
		synctest.Wait()
		if ls.got("0") != text(100) || r.claims("0") != 1 || r.sub.Stats().Nacks == 0 {
			t.Errorf("got %s, %d claims, %+v", ls.got("0"), r.claims("0"), r.sub.Stats())
		}
		r.stop()
		if kinds := r.kinds("0"); !strings.HasSuffix(kinds, "release") {
			t.Error(kinds)
		}
	})
}

// A drain that comes while the flow is full, a handler works, and contexts are cancelled: what was
// sent is finished, nothing is poisoned, the partition is released.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := consumertest.NewMemory(1, 10)
		memory.Append(topic, "0", numbers(0, 1000)...)
		ls := newLanes()
		ls.hold = make(chan struct{})
		poison := &publishes{}
		poisonQueue, err := middleware.PoisonQueue(poison, "poison")
		if err != nil {
			t.Fatal(err)
		}
		retry := middleware.Retry{MaxRetries: 3, InitialInterval: time.Second}
		r := start(t, memory, consumers.Config{BatchRecords: 10, MaxInFlight: 2000}, ls.Handle, poisonQueue, retry.Middleware)
		synctest.Wait()
		stopped := make(chan struct{})
		go func() {
			r.stop()
			close(stopped)
		}()
		<-time.After(10 * time.Second)
		select {
		case <-stopped:
			t.Fatal("stopped before the handlers had finished")
		default:
		}
		close(ls.hold)
		<-stopped
		n := ls.count()
		if n == 0 || n >= 1000 || ls.got("0") != text(n) {
			t.Errorf("got %s", ls.got("0"))
		}
		if e := r.logs.Newest("0"); e == nil || e.Position.Number != int64(n) || !strings.HasSuffix(r.kinds("0"), "checkpoint release") {
			t.Errorf("%d records, newest %+v, log %s", n, e, r.kinds("0"))
		}
		if n := poison.n.Load(); n > 0 || r.sub.Stats() != (consumers.Stats{}) {
			t.Errorf("%d poisoned, %+v", n, r.sub.Stats())
		}
	})
}

// Router.Close drains too, if slower: it holds new messages back while handlers run.
func TestRouterClose(t *testing.T) {
	memory := consumertest.NewMemory(1, 10)
	memory.Append(topic, "0", numbers(0, 1000)...)
	ls := newLanes()
	r := start(t, memory, consumers.Config{BatchRecords: 10}, ls.Handle)
	for changed := r.logs.Changed(); r.logs.Newest("0") == nil; changed = r.logs.Changed() {
		if r.logs.Newest("0") == nil {
			<-changed
		}
	}
	if err := r.router.Close(); err != nil {
		t.Error(err)
	}
	if err := <-r.ran; err != nil {
		t.Error(err)
	}
	if n := ls.count(); ls.got("0") != text(n) || r.logs.Newest("0").Position.Number != int64(n) || !strings.HasSuffix(r.kinds("0"), " release") {
		t.Errorf("%d records, log %s", n, r.kinds("0"))
	}
}

type publishes struct{ n atomic.Int64 }

func (p *publishes) Publish(string, ...*message.Message) error { p.n.Add(1); return nil }
func (p *publishes) Close() error                              { return nil }

// Only one partition is to be let go: it is claimed again, and goes on where it was.
func TestDrainOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := consumertest.NewMemory(1, 10)
		memory.Append(topic, "0", numbers(0, 50)...)
		ls := newLanes()
		r := start(t, memory, consumers.Config{}, ls.Handle)
		synctest.Wait()
		r.logs.Drain("0")
		<-time.After(time.Second)
		memory.Append(topic, "0", numbers(50, 100)...)
		synctest.Wait()
		if ls.got("0") != text(100) || r.claims("0") != 2 || !strings.Contains(r.kinds("0"), "release claim") {
			t.Errorf("got %s, log %s", ls.got("0"), r.kinds("0"))
		}
		r.stop()
	})
}

// A lost assignment publishes nothing more, and the next one resumes from the log.
func TestLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := consumertest.NewMemory(1, 1)
		memory.Append(topic, "0", numbers(0, 10)...)
		ls := newLanes()
		var mu sync.Mutex
		var after int
		var first *stream.Assignment
		r := start(t, memory, consumers.Config{BatchRecords: 1}, func(m *message.Message) error {
			b, _ := stream.BatchOf(m)
			mu.Lock()
			if b.Assignment.Partition == "0" && first == nil {
				first = b.Assignment
			}
			if b.Assignment == first {
				select {
				case <-first.Lost:
					after++
				default:
				}
			}
			mu.Unlock()
			return ls.Handle(m)
		})
		synctest.Wait()
		r.logs.Lose("0", consumertest.ErrTaken)
		memory.Append(topic, "0", numbers(10, 20)...)
		<-time.After(time.Second)
		synctest.Wait()
		if ls.got("0") != text(20) || r.claims("0") != 2 || after > 0 {
			t.Errorf("got %s, %d claims, %d messages after the loss", ls.got("0"), r.claims("0"), after)
		}
		r.stop()
	})
}

// What a reader returns: an error ends the assignment, a partition that is gone ends as lost, a split
// ends with its children.
func TestReaderOutcomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := consumertest.NewMemory(1, 10)
		memory.Append(topic, "0", numbers(0, 10)...)
		ls := newLanes()
		r := start(t, memory, consumers.Config{}, ls.Handle)
		synctest.Wait()
		memory.Fail(topic, "0", errRefused)
		<-time.After(time.Second)
		memory.Append(topic, "0", numbers(10, 20)...)
		synctest.Wait()
		if ls.got("0") != text(20) || r.claims("0") != 2 {
			t.Errorf("got %s, %d claims", ls.got("0"), r.claims("0"))
		}
		memory.End(topic, "0", stream.Partition{Name: "0a", Parents: []string{"0"}})
		memory.Append(topic, "0a", []byte("child"))
		<-time.After(time.Second)
		synctest.Wait()
		if e := r.logs.Newest("0"); e.Kind != stream.KindEnd || e.Lost || len(e.Children) != 1 || ls.got("0a") != "child" {
			t.Errorf("end %+v, child %s", e, ls.got("0a"))
		}
		memory.Gone(topic, "0a")
		<-r.ran
		if e := r.logs.Newest("0a"); e.Kind != stream.KindEnd || !e.Lost {
			t.Errorf("end %+v", e)
		}
	})
}

// A partition that vanished while nobody read it ends as lost, too.
func TestGoneBeforeOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := consumertest.NewMemory(1, 10)
		src := &vanished{memory.Source(topic)}
		ls := newLanes()
		r := start(t, memory, consumers.Config{Source: src}, ls.Handle)
		<-r.ran
		if e := r.logs.Newest("0"); e == nil || e.Kind != stream.KindEnd || !e.Lost {
			t.Errorf("end %+v", e)
		}
	})
}

type vanished struct{ consumers.Source }

func (v *vanished) Open(context.Context, string, stream.Position, string) (consumers.Reader, error) {
	return nil, fmt.Errorf("shard: %w", stream.ErrPartitionGone)
}

// With a lane that does not move, what is read ahead is bounded: the flow, the fetch that waits for
// it, and the one behind.
func TestReadAheadIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := consumertest.NewMemory(1, 10)
		memory.Append(topic, "0", numbers(100, 999)...)
		src := &counting{Source: memory.Source(topic)}
		ls := newLanes()
		ls.hold = make(chan struct{})
		const held = 64 + 10*(3+72)
		r := start(t, memory, consumers.Config{Source: src, BatchRecords: 10, MaxInFlight: 3 * held}, ls.Handle)
		<-time.After(time.Minute)
		synctest.Wait()
		if n := src.reads(); n < 4 || n > 6 {
			t.Errorf("%d fetches were read with room for 3", n)
		}
		close(ls.hold)
		synctest.Wait()
		if n := ls.count(); n != 899 {
			t.Errorf("%d records", n)
		}
		r.stop()
	})
}

type counting struct {
	consumers.Source
	mu sync.Mutex
	n  int
}

func (c *counting) reads() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func (c *counting) Open(ctx context.Context, p string, from stream.Position, tip string) (consumers.Reader, error) {
	r, err := c.Source.Open(ctx, p, from, tip)
	return &countingReader{r, c}, err
}

type countingReader struct {
	consumers.Reader
	c *counting
}

func (r *countingReader) Read(ctx context.Context) (consumers.Fetch, error) {
	f, err := r.Reader.Read(ctx)
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	r.c.n++
	return f, err
}

func TestConfig(t *testing.T) {
	memory, logs := consumertest.NewMemory(1, 1), consumertest.NewLogs()
	for _, cfg := range []consumers.Config{{}, {Source: memory.Source(topic)}, {Group: logs.Group()}} {
		if _, err := consumers.New(cfg); err == nil {
			t.Errorf("accepted %+v", cfg)
		}
	}
	closed := 0
	sub, err := consumers.New(consumers.Config{
		Open: func(context.Context, string) (consumers.Source, error) {
			return closes{memory.Source(topic), &closed}, nil
		},
		Join:  func(string) (stream.Group, error) { return nil, errRefused },
		Group: nil,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sub.Subscribe(t.Context(), topic); !errors.Is(err, errRefused) || closed != 1 {
		t.Errorf("%v, closed %d times", err, closed)
	}
	if err := sub.Close(); err != nil {
		t.Error(err)
	}
}

type closes struct {
	consumers.Source
	n *int
}

func (c closes) Close() error { *c.n++; return nil }

// The error that ends a group's run is the subscriber's.
func TestErr(t *testing.T) {
	memory := consumertest.NewMemory(1, 1)
	sub, err := consumers.New(consumers.Config{Source: memory.Source(topic), Group: finished{}})
	if err != nil {
		t.Fatal(err)
	}
	messages, err := sub.Batches().Subscribe(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	for range messages {
		t.Error("a message")
	}
	if err := sub.Err(); !errors.Is(err, stream.ErrFinished) {
		t.Error(err)
	}
}

type finished struct{}

func (finished) Run(context.Context, stream.Source, func(*stream.Assignment) error) error {
	return stream.ErrFinished
}
