package pubsub

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	fake "github.com/millstream/millstream/fakes/pubsub"
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
