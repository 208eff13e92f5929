package pubsub

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/api/option"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/stream"
)

// A pipeline that stands still for minutes keeps its leases, those too of what has come and has no room
// yet: each that runs out is a delivery attempt.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		o := s.options()
		o.Streams, o.MaxMessages = 1, 9
		large := strings.Repeat("x", 1<<20)
		for range o.MaxMessages { // the inbox has room for one less
			s.publish("", large)
		}
		r := s.open(s.source(o), "orders")
		<-time.After(5 * time.Minute)
		if st := s.stats(); st.Expired != 0 || st.Outstanding != o.MaxMessages {
			t.Errorf("%+v", st)
		}
		settle(s.read(r, o.MaxMessages), nil)
		s.must(r.Close())
		if st := s.stats(); st.Acked != int64(o.MaxMessages) || st.Redelivered != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// What the service says passes by itself is offered again, whatever code the error has: with ordering
// and exactly-once delivery, acknowledgements that overtook those of earlier messages of their key.
func TestTransientVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		src := s.source(s.options())
		p := &own{source: src, sub: src.subscriptions["orders"], ctx: t.Context()}
		var calls []string
		lost := p.persist([]string{"done", "unordered", "expired"}, func(_ context.Context, ids []string) error {
			calls = append(calls, strings.Join(ids, " "))
			if len(calls) > 2 {
				return nil
			}
			info := &errdetails.ErrorInfo{Metadata: map[string]string{"unordered": "TRANSIENT_FAILURE_UNORDERED_ACK_ID"}}
			if len(calls) == 1 {
				info.Metadata["expired"] = "PERMANENT_FAILURE_INVALID_ACK_ID"
			}
			st, err := status.New(codes.InvalidArgument, "some ids are wrong").WithDetails(info)
			s.must(err)
			return st.Err()
		})
		if want := "done unordered expired, unordered, unordered"; strings.Join(calls, ", ") != want || lost != 1 {
			t.Errorf("%q, want %s; %d are lost", calls, want, lost)
		}
	})
}

// network is one that loses everything while it is cut, and tells nobody.
type network struct{ cut atomic.Bool }

func (n *network) dialing() option.ClientOption {
	return option.WithGRPCDialOption(grpc.WithChainStreamInterceptor(func(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		inner, err := open(ctx, d, cc, method, opts...)
		return &wire{ClientStream: inner, network: n}, err
	}))
}

type wire struct {
	grpc.ClientStream
	network *network
	dead    atomic.Bool // something was lost, and is not made up for
}

func (w *wire) SendMsg(m any) error {
	if w.network.cut.Load() {
		w.dead.Store(true)
	}
	if w.dead.Load() {
		return nil
	}
	return w.ClientStream.SendMsg(m)
}

// A connection that is dead without a word does not make a subscription look like one that has nothing
// more, which would let windows close without what it holds: the streams are opened again, and in the
// end the reader says why.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		var n network
		o := s.options()
		o.ClientOptions = append(o.ClientOptions, n.dialing())
		src := s.source(o)
		r := s.open(src, "orders")
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
		defer cancel()
		until := func(state stream.ReaderState) {
			t.Helper()
			for {
				f, err := r.Read(ctx)
				s.must(err)
				if settle([]consumers.Fetch{f}, nil); f.State == state {
					return
				}
			}
		}
		until(stream.CaughtUp)
		<-time.After(time.Minute)
		if c := src.Counters(); c.Retried != 0 {
			t.Errorf("while all is well: %+v", c)
		}

		n.cut.Store(true)
		began := time.Now()
		until(stream.Reading)
		if after := time.Since(began); after > pingEvery+pingWithin+time.Second {
			t.Errorf("noticed after %s", after)
		}
		n.cut.Store(false)
		s.publish("", "message")
		settle(s.read(r, 1), nil)
		until(stream.CaughtUp)

		n.cut.Store(true)
		until(stream.Reading)
		if f, err := r.Read(ctx); err == nil || !strings.Contains(err.Error(), "silent") {
			t.Errorf("%v, %v", f.State, err)
		}
		s.must(r.Close())
	})
}
