package pubsub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/checkpoint"
	"github.com/millstream/millstream/consumers"
	fake "github.com/millstream/millstream/fakes/pubsub"
	"github.com/millstream/millstream/stream"
	"github.com/millstream/millstream/stream/streamtest"
	"github.com/millstream/millstream/windows"
)

var errDead = errors.New("the process is dead")

// process is a program that reads a subscription and can be killed: from then on nothing leaves it.
type process struct {
	dead   atomic.Bool
	mu     sync.Mutex
	hangUp []context.CancelFunc // of its streams
	stop   context.CancelFunc
	done   chan error
}

func (p *process) kill() {
	p.dead.Store(true)
	p.mu.Lock()
	for _, hangUp := range p.hangUp {
		hangUp()
	}
	p.mu.Unlock()
	p.stop()
}

func (p *process) decide(streamtest.Op) streamtest.Fate {
	if p.dead.Load() {
		return streamtest.Fate{Fail: errDead}
	}
	return streamtest.Fate{}
}

// dialing are options of a client whose calls end with the process.
func (p *process) dialing() []option.ClientOption {
	dead := status.Error(codes.Unavailable, errDead.Error())
	return []option.ClientOption{
		option.WithGRPCDialOption(grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, in, out any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if p.dead.Load() {
				return dead
			}
			return call(ctx, method, in, out, cc, opts...)
		})),
		option.WithGRPCDialOption(grpc.WithChainStreamInterceptor(func(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			if p.dead.Load() {
				return nil, dead
			}
			ctx, hangUp := context.WithCancel(ctx)
			p.mu.Lock()
			p.hangUp = append(p.hangUp, hangUp)
			p.mu.Unlock()
			return open(ctx, d, cc, method, opts...)
		})),
	}
}

// order is a message's data, and what the pipeline sums up by minute.
type order struct {
	At time.Time
	N  int
}

// without takes from a source what makes its totals exact.
type without struct {
	*Source
	ids, hold bool
}

func (w without) RedeliversWithin() time.Duration {
	if w.hold {
		return 0
	}
	return w.Source.RedeliversWithin()
}

func (w without) Open(ctx context.Context, partition string, from stream.Position, tip string) (consumers.Reader, error) {
	r, err := w.Source.Open(ctx, partition, from, tip)
	if err == nil && w.ids {
		r = anonymous{r}
	}
	return r, err
}

type anonymous struct{ consumers.Reader }

func (a anonymous) Read(ctx context.Context) (consumers.Fetch, error) {
	f, err := a.Reader.Read(ctx)
	for i := range f.Records {
		f.Records[i].ID = 0
	}
	return f, err
}

const window = 10 * time.Second

// run starts a process that sums up orders until a time.
func (s *service) run(store bucket.Bucket, sink *streamtest.Sink, until time.Time, take without) *process {
	s.t.Helper()
	p := &process{done: make(chan error, 1)}
	o := s.options()
	o.ClientOptions = append(o.ClientOptions, p.dialing()...)
	take.Source = s.source(o)
	logger := slog.New(slog.DiscardHandler)
	w := windows.Tumbling(window)
	pipeline := &stream.Pipeline[int, string]{
		Decode: func(r *stream.Record) (stream.Event[int], error) {
			var o order
			err := json.Unmarshal(r.Data, &o)
			at, _ := stream.At(o.At)
			return stream.Event[int]{Key: "all", Time: at, Value: o.N}, err
		},
		Operator: &windows.Aggregation[int, [2]int, string]{
			Windows: w,
			Add:     func(a *[2]int, e *stream.Event[int]) { a[0]++; a[1] += e.Value },
			Merge:   func(dst, src *[2]int) { dst[0] += src[0]; dst[1] += src[1] },
			Emit:    func(_ string, w stream.Window, a *[2]int) string { return fmt.Sprintf("%s %d %d", w.Start, a[0], a[1]) },
		},
		Encode:     func(s *string) (stream.Row, error) { return stream.Row{Data: []byte(*s)}, nil },
		Sinks:      []stream.Sink{streamtest.DisturbSink(sink, p.decide)},
		DeadLetter: streamtest.DisturbSink(new(streamtest.Sink), p.decide),
		OutOfOrder: 20 * time.Second, IdleAfter: time.Hour, CheckpointEvery: 2 * time.Second,
		Until:  until,
		Logger: logger,
	}
	var ctx context.Context
	ctx, p.stop = context.WithCancel(s.t.Context())
	began := time.Now()
	at, err := checkpoint.Open(ctx, checkpoint.Config{BootTime: func() time.Duration { return time.Since(began) },
		Bucket: streamtest.Disturb(store, p.decide), Name: "sim", Checked: true,
		Plan: stream.Plan{{Name: "--source", Value: take.Identity()}}, DedupeFor: 10 * time.Minute, Logger: logger})
	s.must(err)
	sub, err := consumers.New(consumers.Config{Source: take, Group: at.Group(), Logger: logger})
	s.must(err)
	messages, err := sub.Batches().Subscribe(ctx, "sim")
	s.must(err)
	go func() {
		for m := range messages {
			go func() {
				if !p.dead.Load() && pipeline.Handle(m) == nil {
					m.Ack()
				} else {
					m.Nack()
				}
			}()
		}
		p.done <- sub.Err()
	}()
	return p
}

// totals runs two processes, the first of which is killed at some time, over a subscription that forgets some
// acknowledgements and delivers some messages twice, and returns what is wrong with the totals.
func (s *service) totals(seed uint64, take without) error {
	rng := rand.New(rand.NewPCG(seed, 3))
	began := time.Now()
	until := began.Add(2 * time.Minute)
	want := make(map[stream.Instant]*[2]int)
	n := 0
	forgotten := s.Inject(fake.Fault{Operation: "Acknowledge", Forget: true, Skip: rng.IntN(10), Times: 5})
	twice := s.Inject(fake.Fault{Operation: fake.Deliver, Duplicate: true, Skip: rng.IntN(40), Times: 20})
	put := func() {
		var messages []fake.Message
		for range 5 {
			o := order{time.Now(), n}
			n++
			data, err := json.Marshal(o)
			s.must(err)
			messages = append(messages, fake.Message{Data: data})
			if at, _ := stream.At(o.At); o.At.Before(until) {
				start := at.Floor(window)
				if want[start] == nil {
					want[start] = new([2]int)
				}
				want[start][0]++
				want[start][1] += o.N
			}
		}
		_, err := s.Publish(topic, messages...)
		s.must(err)
	}
	store, sink := bucket.Memory(), new(streamtest.Sink)
	running := s.run(store, sink, until, take)
	dies := 20*time.Second + time.Duration(rng.Int64N(int64(40*time.Second)))
	for time.Since(began) < dies {
		put()
		<-time.After(250 * time.Millisecond)
	}
	if s.stats().Outstanding == 0 {
		return errors.New("nothing is on its way when the process is killed")
	}
	running.kill()
	defer func(first *process) { <-first.done }(running)
	running = s.run(store, sink, until, take)
	for time.Since(began) < 10*time.Minute {
		put()
		select {
		case err := <-running.done:
			running.stop()
			if err != nil && !errors.Is(err, stream.ErrFinished) {
				return err
			}
			st := s.stats()
			if st.Expired == 0 || forgotten.Hits() != 5 || twice.Hits() != 20 {
				return fmt.Errorf("not every fault happened: %+v, %d, %d", st, forgotten.Hits(), twice.Hits())
			}
			return compare(want, sink)
		case <-time.After(250 * time.Millisecond):
		}
	}
	running.kill()
	<-running.done
	return errors.New("it does not finish")
}

func compare(want map[stream.Instant]*[2]int, sink *streamtest.Sink) error {
	var got, exact []string
	for _, r := range sink.Rows() {
		got = append(got, string(r.Data))
	}
	for start, a := range want {
		exact = append(exact, fmt.Sprintf("%s %d %d", start, a[0], a[1]))
	}
	slices.Sort(got)
	slices.Sort(exact)
	if !slices.Equal(got, exact) {
		return fmt.Errorf("totals are %q\nexact are  %q", got, exact)
	}
	return nil
}

// Totals are exact although a process dies with messages in its hands, acknowledgements are forgotten, and
// messages come twice; and they are not without ids, or without the watermark held back after a claim.
func TestTotals(t *testing.T) {
	for _, c := range []struct {
		name  string
		take  without
		exact bool
	}{
		{"exact", without{}, true},
		{"without ids", without{ids: true}, false},
		{"without a held watermark", without{hold: true}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var wrong error
			for seed := uint64(1); seed <= 4; seed++ {
				synctest.Test(t, func(t *testing.T) {
					if err := newService(t, &pb.Subscription{Name: orders}).totals(seed, c.take); err != nil {
						wrong = fmt.Errorf("seed %d: %w", seed, err)
					}
				})
			}
			if (wrong == nil) != c.exact {
				t.Error(wrong)
			}
		})
	}
}
