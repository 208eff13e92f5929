package pubsub

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millstream/millstream/consumers"
	fake "github.com/millstream/millstream/fakes/pubsub"
	"github.com/millstream/millstream/stream"
)

// offbeat keeps clear of the SDK's pings, every 30 s: one that begins while a stream is closed waits with
// a mutex held, and time in a bubble stands still.
const offbeat = 7 * time.Second

// What is durable is acknowledged, what failed is given back, and what nobody has settled is given back
// by Close.
func TestSettle(t *testing.T) {
	both(t, func(t *testing.T, sdk bool) {
		s := newService(t)
		o := s.options()
		o.SDK = sdk
		src := s.source(o)
		s.publish("", numbered(100)...)
		r := s.open(src, "orders")
		fetches := s.read(r, 100)
		seen := make(map[uint64]bool)
		for _, f := range fetches {
			for _, record := range f.Records {
				if record.ID == 0 || seen[record.ID] || record.Position.Token == "" || record.Arrived == 0 {
					t.Errorf("%+v", record)
				}
				seen[record.ID] = true
			}
		}
		if len(seen) != 100 || s.stats().Acked != 0 {
			t.Errorf("%d records, %+v", len(seen), s.stats())
		}
		n := len(fetches[0].Records)
		fetches[0].Settle(0, 1, nil)
		fetches[0].Settle(1, 2, errors.New("lost"))
		fetches[0].Settle(2, n, nil)
		s.wait("acks", func(st fake.Stats) bool { return st.Acked == int64(n-1) && st.Nacked == 1 })
		for _, f := range s.read(r, 1) {
			for _, record := range f.Records {
				if string(record.Data) != string(fetches[0].Records[1].Data) || record.ID != fetches[0].Records[1].ID {
					t.Errorf("%s came again, with id %d", record.Data, record.ID)
				}
			}
		}
		began := time.Now()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > closeWithin/2 {
			t.Errorf("Close takes %s", took)
		}
		s.wait("what Close gives back", func(st fake.Stats) bool { return st.Outstanding == 0 && st.Backlog == 100-n+1 })
		settle(fetches, nil) // too late
		synctest.Wait()
		if st := s.stats(); st.Acked != int64(n-1) || st.Expired != 0 && !sdk {
			t.Errorf("%+v", st)
		}
		if c := src.Counters(); c.Received != 101 || c.Acked != int64(n-1) || c.Nacked != int64(100-n+2) {
			t.Errorf("%+v", c)
		}
	})
}

// What is held stays held, for as long as it takes; a reader that is gone holds nothing longer than the
// deadline.
func TestLeases(t *testing.T) {
	both(t, func(t *testing.T, sdk bool) {
		s := newService(t)
		o := s.options()
		o.SDK = sdk
		src := s.source(o)
		s.publish("", numbered(50)...)
		r := s.open(src, "orders")
		fetches := s.read(r, 50)
		<-time.After(20*time.Minute + offbeat)
		if st := s.stats(); st.Expired != 0 || st.Outstanding != 50 {
			t.Errorf("leases are not renewed: %+v", st)
		}
		settle(fetches, nil)
		s.wait("acks", func(st fake.Stats) bool { return st.Acked == 50 })
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if st := s.stats(); st.Invalid != 0 || st.Nacked != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// A Read that is cancelled ends the pulling: what was not read is given back, what was read is still
// held and can be settled.
func TestDrain(t *testing.T) {
	both(t, func(t *testing.T, sdk bool) {
		s := newService(t)
		o := s.options()
		o.SDK = sdk
		src := s.source(o)
		s.publish("", numbered(30)...)
		r := s.open(src, "orders")
		fetches := s.read(r, 30)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.Read(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		<-time.After(2*time.Minute + offbeat)
		s.publish("", "too late")
		<-time.After(time.Second)
		if st := s.stats(); st.Acked != 0 || st.Expired != 0 {
			t.Errorf("%+v", st)
		}
		settle(fetches, nil)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if st := s.stats(); st.Acked != 30 || st.Expired != 0 {
			t.Errorf("what was settled before Close is not told: %+v", st)
		}
		s.wait("the late message", func(st fake.Stats) bool { return st.Backlog == 1 && st.Outstanding == 0 })
	})
}

// Messages of an ordering key keep their order.
func TestOrdering(t *testing.T) {
	both(t, func(t *testing.T, sdk bool) {
		s := newService(t, &pb.Subscription{Name: orders, EnableMessageOrdering: true})
		o := s.options()
		o.SDK, o.Streams = sdk, 4
		src := s.source(o)
		r := s.open(src, "orders")
		for range 10 {
			for _, key := range []string{"a", "b", "c", "d"} {
				s.publish(key, numbered(50)...)
			}
			next := make(map[string]int)
			fetches := s.read(r, 200)
			for _, f := range fetches {
				for _, record := range f.Records {
					if want := fmt.Sprint("message ", next[record.Key]); string(record.Data) != want {
						t.Fatalf("key %s: %s instead of %s", record.Key, record.Data, want)
					}
					next[record.Key]++
				}
			}
			settle(fetches, nil)
			s.wait("acks", func(st fake.Stats) bool { return st.Outstanding == 0 })
		}
		s.must(r.Close())
	})
}

// With exactly-once delivery an acknowledgement that comes too late is an error, and counted.
func TestExactlyOnce(t *testing.T) {
	both(t, func(t *testing.T, sdk bool) {
		s := newService(t, &pb.Subscription{Name: orders, EnableExactlyOnceDelivery: true})
		o := s.options()
		o.SDK = sdk
		src := s.source(o)
		if !src.subscriptions["orders"].exact {
			t.Error("not seen")
		}
		r := s.open(src, "orders")
		s.publish("", numbered(100)...)
		fetches := s.read(r, 100)
		settle(fetches, nil)
		s.wait("acks", func(st fake.Stats) bool { return st.Acked == 100 })
		s.publish("", numbered(10)...)
		fetches = s.read(r, 10)
		if n, err := s.Expire(orders); n != 10 || err != nil {
			t.Error(n, err)
		}
		again := s.read(r, 10)
		settle(fetches, nil)
		<-time.After(time.Second)
		settle(again, nil)
		s.wait("acks", func(st fake.Stats) bool { return st.Acked == 110 })
		s.must(r.Close())
		if c := src.Counters(); c.LostAcks != 10 || c.Acked != 120 {
			t.Errorf("%+v", c)
		}
	})
}

// Two partitions of one subscription share its messages.
func TestShared(t *testing.T) {
	both(t, func(t *testing.T, sdk bool) {
		s := newService(t)
		o := s.options()
		o.SDK, o.Shared, o.MaxMessages = sdk, 2, 20
		src := s.source(o)
		s.publish("", numbered(400)...)
		a, b := s.open(src, "orders/0"), s.open(src, "orders/1")
		seen := make(map[uint64]int)
		for len(seen) < 400 {
			for name, r := range map[string]consumers.Reader{"a": a, "b": b} {
				f, err := r.Read(t.Context())
				s.must(err)
				for _, record := range f.Records {
					seen[record.ID]++
				}
				if len(f.Records) == 0 && f.State == stream.CaughtUp && len(seen) == 0 {
					t.Errorf("%s brings nothing", name)
				}
				settle([]consumers.Fetch{f}, nil)
			}
		}
		s.must(a.Close())
		s.must(b.Close())
		for id, n := range seen {
			if n != 1 {
				t.Errorf("%d came %d times", id, n)
			}
		}
	})
}

// What is wrong with the streams is waited out, counted and told as a state; a subscription that is gone
// ends the reader.
func TestFailures(t *testing.T) {
	both(t, func(t *testing.T, sdk bool) {
		s := newService(t)
		o := s.options()
		o.SDK = sdk
		src := s.source(o)
		r := s.open(src, "orders")
		until := func(state stream.ReaderState) {
			t.Helper()
			for {
				f, err := r.Read(t.Context())
				s.must(err)
				if settle([]consumers.Fetch{f}, nil); f.State == state {
					return
				}
			}
		}
		until(stream.CaughtUp)

		quota := s.Inject(fake.Fault{Operation: fake.StreamingPull, Code: codes.ResourceExhausted, Times: -1})
		ended, err := s.EndStreams(orders, status.Error(codes.ResourceExhausted, "quota"))
		if ended != 2 || err != nil {
			t.Error(ended, err)
		}
		until(stream.Throttled)
		quota.Stop()
		s.publish("", numbered(10)...)
		settle(s.read(r, 10), nil)
		until(stream.CaughtUp)

		s.DropConnections()
		s.publish("", numbered(10)...)
		settle(s.read(r, 10), nil)
		until(stream.CaughtUp)
		if c := src.Counters(); c.Throttled < 2 || c.Retried < 2 {
			t.Errorf("%+v", c)
		}
		s.must(r.Close())
	})
}

// A service that stays away ends the reader, after a while, with its reason; so does what does not pass.
func TestFailuresThatStay(t *testing.T) {
	both(t, func(t *testing.T, sdk bool) {
		for code, within := range map[codes.Code][2]time.Duration{
			codes.Unavailable:      {patience, patience + 2*time.Minute},
			codes.NotFound:         {0, 10 * time.Second},
			codes.PermissionDenied: {0, 10 * time.Second},
		} {
			if sdk && code == codes.Unavailable {
				continue // its pings wait for a stream with a mutex held, and time in a bubble stands still
			}
			s := newService(t)
			o := s.options()
			o.SDK = sdk
			src := s.source(o)
			fault := s.Inject(fake.Fault{Operation: fake.StreamingPull, Code: code, Message: "so it is", Times: -1})
			began := time.Now()
			r := s.open(src, "orders")
			var err error
			for err == nil {
				_, err = r.Read(t.Context())
			}
			if took := time.Since(began); !strings.Contains(err.Error(), "so it is") || !strings.Contains(err.Error(), orders) || took < within[0] || took > within[1] {
				t.Errorf("%s: %v, after %s", code, err, took)
			}
			fault.Stop()
			s.must(r.Close())
		}
	})
}

// What is held is bounded, though the service sends more: then the reader says that it is held back.
func TestBound(t *testing.T) {
	both(t, func(t *testing.T, sdk bool) {
		s := newService(t)
		o := s.options()
		o.SDK, o.MaxMessages = sdk, 100
		src := s.source(o)
		s.publish("", numbered(1000)...)
		r := s.open(src, "orders")
		var held []consumers.Fetch
		n := 0
		for read := 0; read < 1000; {
			f, err := r.Read(t.Context())
			s.must(err)
			held = append(held, f)
			n += len(f.Records)
			read += len(f.Records)
			if f.State == stream.CaughtUp {
				t.Fatal("caught up, with messages left")
			}
			if n > 200 {
				t.Fatalf("%d are held", n)
			}
			if f.State == stream.Paused {
				settle(held, nil)
				held, n = nil, 0
			}
		}
		settle(held, nil)
		s.must(r.Close())
		s.wait("acks", func(st fake.Stats) bool { return st.Acked == 1000 })
	})
}
