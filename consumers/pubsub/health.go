package pubsub

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	cloud "github.com/millstream/millstream/cloud/gcp"
)

// Counters says what a Source has met since it was made.
type Counters struct {
	Received  int64 // messages, as often as they came
	Acked     int64 // messages whose acknowledgement was sent
	Nacked    int64 // messages that were given back
	LostAcks  int64 // messages that the service would not let be acknowledged: they come again, and are known
	Throttled int64 // refusals because of a quota
	Retried   int64 // failures that pass by themselves: streams that ended, lost connections, time-outs
}

type counters struct {
	received, acked, nacked, lostAcks, throttled, retried atomic.Int64
}

func (c *counters) read() Counters {
	return Counters{c.received.Load(), c.acked.Load(), c.nacked.Load(), c.lostAcks.Load(), c.throttled.Load(), c.retried.Load()}
}

// health is what the streams of a subscription have met lately.
type health struct {
	mu        sync.Mutex
	failing   time.Time // when the first failure in a row was; zero when there is none
	last      time.Time // when the last was
	throttled bool      // by the last
	err       error     // the last
}

// forgotten is how long after its last failure a subscription from which nothing came is well again: the
// SDK's longest pause between attempts, and more.
const forgotten = 35 * time.Second

// heard notes that the service speaks.
func (h *health) heard() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failing, h.throttled, h.err = time.Time{}, false, nil
}

func (h *health) failed(err error, throttled bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if h.failing.IsZero() || now.Sub(h.last) > forgotten {
		h.failing = now
	}
	h.last, h.throttled, h.err = now, throttled, err
}

// now returns whether streams fail, whether that is for a quota, for how long, and with what.
func (h *health) now() (ill, throttled bool, since time.Duration, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failing.IsZero() || time.Since(h.last) > forgotten {
		return false, false, 0, nil
	}
	return true, h.throttled, h.last.Sub(h.failing), h.err
}

// watch is an interceptor that sees how the streams of the subscriptions fare, the SDK's own retries
// included, which the SDK tells nobody.
func (s *Source) watch(subscriptions map[string]*subscription) grpc.StreamClientInterceptor {
	return func(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		inner, err := open(ctx, d, cc, method, opts...)
		if err != nil {
			for _, sub := range subscriptions { // whose it would have been is in the first request
				s.met(sub, err)
			}
			return nil, err
		}
		return &watched{ClientStream: inner, source: s, subscriptions: subscriptions}, nil
	}
}

// met notes an error of a stream. That a client hung up, and the regular end of a stream, are none.
func (s *Source) met(sub *subscription, err error) {
	if errors.Is(err, io.EOF) || status.Code(err) == codes.Canceled {
		return
	}
	switch cloud.Classify(err) {
	case cloud.Throttled:
		s.counters.throttled.Add(1)
		sub.health.failed(err, true)
	case cloud.Transient:
		s.counters.retried.Add(1)
		sub.health.failed(err, false)
	}
}

// watched is a stream.
type watched struct {
	grpc.ClientStream
	source        *Source
	subscriptions map[string]*subscription
	sub           atomic.Pointer[subscription]
}

func (w *watched) SendMsg(m any) error {
	if r, ok := m.(*pb.StreamingPullRequest); ok && r.Subscription != "" {
		w.sub.Store(w.subscriptions[r.Subscription])
	}
	return w.ClientStream.SendMsg(m)
}

func (w *watched) RecvMsg(m any) error {
	err := w.ClientStream.RecvMsg(m)
	sub := w.sub.Load()
	switch {
	case sub == nil:
	case err == nil:
		sub.health.heard()
	default:
		w.source.met(sub, err)
	}
	return err
}
