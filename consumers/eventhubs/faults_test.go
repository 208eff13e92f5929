package eventhubs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/consumers/consumertest"
	"github.com/millstream/millstream/stream"
)

// A receiver to which nothing comes although there is more is replaced, and counted. Negative control:
// with a detector that is as good as off, the partition stands still for ever.
func TestSilentReceiver(t *testing.T) {
	for _, c := range []struct {
		after          time.Duration
		read, replaced int
	}{{30 * time.Second, 20, 1}, {1000 * time.Hour, 10, 0}} {
		t.Run(fmt.Sprint("after ", c.after), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory(1)
				var log notes
				src := m.source(t, Options{SilentAfter: c.after, Logger: log.logger()})
				r := open(t, src, "0", stream.Position{}, "")
				defer r.Close()
				m.publish("0", numbers(0, 10)...)
				if err := r.all(time.Minute); err != nil {
					t.Fatal(err)
				}
				m.silence()
				m.publish("0", numbers(10, 20)...)
				began := time.Now()
				if err := r.next(6 * time.Second); err != nil || r.states[len(r.states)-1] != stream.Reading { // it must not count as idle
					t.Errorf("after %s: %v, %v", time.Since(began), r.states, err)
				}
				for time.Since(began) < time.Hour {
					if err := r.all(time.Minute); err != nil {
						t.Fatal(err)
					}
				}
				if r.text() != text(0, c.read) || src.Counters() != (Counters{Silent: int64(c.replaced)}) || len(m.links) != 1+c.replaced {
					t.Errorf("read %q, %+v, %d receivers", r.text(), src.Counters(), len(m.links))
				}
				if told := strings.Contains(log.String(), "the receiver is silent"); told != (c.replaced > 0) {
					t.Error(log.String())
				}
			})
		})
	}
}

// A quiet partition is not a silent one: nothing is replaced however long nothing comes, and the service
// is asked no more than once in CheckEvery.
func TestQuietPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(1)
		src := m.source(t, Options{})
		r := open(t, src, "0", stream.Position{}, "")
		defer r.Close()
		m.publish("0", numbers(0, 10)...)
		if err := r.all(10 * time.Minute); err != nil {
			t.Fatal(err)
		}
		if src.Counters() != (Counters{}) || len(m.links) != 1 || m.asked > 10*60/5+3 {
			t.Errorf("%+v, %d receivers, asked %d times", src.Counters(), len(m.links), m.asked)
		}
	})
}

// Throttling is a state, waited out for as long as it takes, whether receivers or questions are refused.
func TestThrottled(t *testing.T) {
	for name, refused := range map[string][2]error{
		"receivers": {errBusy, nil}, "questions": {nil, errBusy}, "both": {errBusy, errBusy},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory(1)
				src := m.source(t, Options{})
				r := open(t, src, "0", stream.Position{}, "")
				defer r.Close()
				m.publish("0", numbers(0, 10)...)
				if err := r.all(time.Minute); err != nil {
					t.Fatal(err)
				}
				m.refuse(refused[0], refused[1])
				if refused[0] != nil {
					m.breakLinks(refused[0])
				}
				r.states = nil
				if err := r.all(time.Hour); err != nil || !r.saw(stream.Throttled) {
					t.Fatal(err, r.states)
				}
				if c := src.Counters(); c.Throttled < 10 || c.Retried != 0 || c.Silent != 0 {
					t.Errorf("%+v", c)
				}
				m.publish("0", numbers(10, 20)...)
				m.refuse(nil, nil)
				if err := r.all(time.Minute); err != nil || r.text() != text(0, 20) {
					t.Error(err, r.text())
				}
				if last := r.states[len(r.states)-1]; last != stream.CaughtUp {
					t.Errorf("ends %v", last)
				}
			})
		})
	}
}

// Questions that are refused do not keep a link that works from bringing events.
func TestUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(1)
		src := m.source(t, Options{})
		r := open(t, src, "0", stream.Position{}, "")
		defer r.Close()
		m.refuse(nil, errBusy)
		m.publish("0", numbers(0, 10)...)
		if err := r.all(time.Minute); err != nil || r.text() != text(0, 10) || len(m.links) != 1 {
			t.Error(err, r.text(), len(m.links))
		}
	})
}

// Lost connections are counted, repeat nothing and leave nothing out, wherever they break.
func TestLostConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(1)
		src := m.source(t, Options{})
		r := open(t, src, "0", stream.Position{}, "")
		defer r.Close()
		for i := range 50 {
			m.publish("0", numbers(2*i, 2*i+1)...)
			if i%2 == 0 {
				if err := r.all(10 * time.Millisecond); err != nil {
					t.Fatal(err)
				}
			}
			m.breakLinks(errLost)
			m.publish("0", numbers(2*i+1, 2*i+2)...)
			if err := r.all(time.Second); err != nil {
				t.Fatal(err)
			}
		}
		if c := src.Counters(); r.text() != text(0, 100) || c.Retried < 25 || c.Repeated != 0 {
			t.Errorf("%+v: %s", c, r.text())
		}
	})
}

// A connection that takes longer than CheckEvery is waited for: given up and begun again, it would never
// stand.
func TestSlowConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(1)
		src := m.source(t, Options{})
		m.attaching = 8 * time.Second
		r := open(t, src, "0", stream.Position{}, "")
		defer r.Close()
		m.publish("0", numbers(0, 10)...)
		if err := r.all(time.Minute); err != nil || r.text() != text(0, 10) || len(m.links) != 1 {
			t.Error(err, r.text(), len(m.links))
		}
	})
}

// What a service brings again on a new connection is left out and counted.
func TestRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(1)
		m.repeat = 3
		src := m.source(t, Options{})
		r := open(t, src, "0", stream.Position{}, "")
		defer r.Close()
		m.publish("0", numbers(0, 10)...)
		if err := r.all(time.Minute); err != nil {
			t.Fatal(err)
		}
		m.breakLinks(errLost)
		m.publish("0", numbers(10, 20)...)
		if err := r.all(time.Minute); err != nil {
			t.Fatal(err)
		}
		if c := src.Counters(); r.text() != text(0, 20) || c.Repeated != 3 {
			t.Errorf("%+v: %s", c, r.text())
		}
	})
}

// A connection that cannot be had is waited for two minutes, and then is an error that says so: also
// when questions are answered all the while.
func TestUnreachable(t *testing.T) {
	for name, ask := range map[string]error{"answered": nil, "unanswered": errLost} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory(1)
				var log notes
				src := m.source(t, Options{Logger: log.logger()})
				r := open(t, src, "0", stream.Position{}, "")
				defer r.Close()
				m.publish("0", numbers(0, 10)...)
				m.refuse(errLost, ask)
				began := time.Now()
				err := r.all(time.Hour)
				if took := time.Since(began); err == nil || !errors.Is(err, errLost) || took < patience || took > patience+time.Minute {
					t.Errorf("after %s: %v", took, err)
				}
				if want := "event hubs: orders-prod/orders: partition 0: read tcp 10.0.0.1:5671: connection reset by peer, for 2m0s"; fmt.Sprint(err) != want {
					t.Errorf("%v", err)
				}
				warned := strings.Count(log.String(), "reading failed: trying again")
				if n := src.Counters().Retried; n < 20 || n > 100 || warned < 1 || warned > 3 {
					t.Errorf("%d attempts, %d warnings", n, warned)
				}
			})
		})
	}
}

// The claim is the owner level: a later claim puts out an earlier reader, which stops at once, is not
// tried again, and names the reason.
func TestStolen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(1)
		src := m.source(t, Options{})
		m.publish("0", numbers(0, 10)...)
		var rs []*session
		for _, claim := range []uint64{7, 8} {
			r, err := src.OpenClaimed(t.Context(), "0", stream.Position{}, "", claim)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			rs = append(rs, &session{Reader: r})
			if err := rs[len(rs)-1].all(time.Minute); err != nil {
				t.Fatal(err)
			}
		}
		m.publish("0", numbers(10, 20)...)
		err := rs[0].all(time.Minute)
		const want = "event hubs: orders-prod/orders: partition 0: another reader of consumer group $Default has the partition: " +
			"a newer claim of this pipeline, or another program, which needs a consumer group of its own"
		if fmt.Sprint(err) != want || rs[0].text() != text(0, 10) || src.Counters() != (Counters{}) {
			t.Errorf("%v\n%+v %s", err, src.Counters(), rs[0].text())
		}
		if err := rs[1].all(time.Minute); err != nil || rs[1].text() != text(0, 20) {
			t.Error(err, rs[1].text())
		}
		if *m.opened[0].OwnerLevel != 7 || *m.opened[1].OwnerLevel != 8 || len(m.opened) != 2 {
			t.Errorf("%+v", m.opened)
		}
		// A zombie is refused from then on, and so is a reader without a level.
		late, err := src.OpenClaimed(t.Context(), "0", stream.Position{}, "", 7)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range []*session{{Reader: late}, open(t, src, "0", stream.Position{}, "")} {
			if err := r.all(time.Minute); fmt.Sprint(err) != want {
				t.Error(err)
			}
		}
	})
}

// outcomes is a group that notes how assignments ended.
type outcomes struct {
	stream.Group
	mu   sync.Mutex
	errs []error
}

func (o *outcomes) Run(ctx context.Context, src stream.Source, serve func(*stream.Assignment) error) error {
	return o.Group.Run(ctx, src, func(a *stream.Assignment) error {
		err := serve(a)
		o.mu.Lock()
		defer o.mu.Unlock()
		o.errs = append(o.errs, err)
		return err
	})
}

// A stolen partition stops its lane with the reason, and is claimed anew with a higher level.
func TestStolenLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(1)
		logs := consumertest.NewLogs()
		group := &outcomes{Group: logs.Group()}
		sub, err := consumers.New(consumers.Config{Source: m.source(t, Options{}), Group: group})
		if err != nil {
			t.Fatal(err)
		}
		messages, err := sub.Subscribe(t.Context(), "orders")
		if err != nil {
			t.Fatal(err)
		}
		m.publish("0", numbers(0, 10)...)
		for i := 0; i < 20; {
			msg := <-messages
			if n := fmt.Sprint(i); string(msg.Payload) == n {
				i++
			}
			msg.Ack()
			if i == 10 { // everything is acked, and saved before long
				<-time.After(time.Minute)
				m.breakLinks(errStolen)
				m.publish("0", numbers(10, 20)...)
			}
		}
		if err := sub.Close(); err != nil {
			t.Error(err)
		}
		if err := group.errs[0]; !strings.Contains(fmt.Sprint(err), "another reader of consumer group $Default has the partition") {
			t.Error(err)
		}
		var claims []int64
		for _, e := range logs.Entries("0") {
			if e.Kind == stream.KindClaim {
				claims = append(claims, int64(e.Number))
			}
		}
		if len(claims) != 2 || len(m.opened) != 2 || *m.opened[0].OwnerLevel != claims[0] || *m.opened[1].OwnerLevel != claims[1] {
			t.Errorf("claims %v, receivers %+v", claims, m.opened)
		}
	})
}

// Errors that waiting does not lift end reading at once, and say what to do.
func TestHopeless(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"denied": {condition("amqp:unauthorized-access", "Unauthorized access. 'Listen' claim(s) are required."),
			"event hubs: orders-prod/orders: partition 0: access denied: reading needs the role Azure Event Hubs Data Receiver"},
		"readers": {condition("amqp:resource-limit-exceeded", "Exceeded the maximum number of allowed receivers per partition in a consumer group which is 5. TrackingId:1"),
			"event hubs: orders-prod/orders: partition 0: amqp:resource-limit-exceeded: Exceeded the maximum number of allowed receivers per partition in a consumer group which is 5."},
		"group": {condition("amqp:not-found", "The messaging entity 'sb://orders-prod/orders/ConsumerGroups/$default' could not be found"),
			"event hubs: orders-prod/orders has no consumer group $Default"},
		"hub": {condition("amqp:not-found", "The messaging entity 'sb://orders-prod/orders' could not be found"),
			"event hubs: there is no event hub orders in namespace orders-prod"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory(1)
				src := m.source(t, Options{})
				m.refuse(c.err, nil)
				r := open(t, src, "0", stream.Position{}, "")
				defer r.Close()
				began := time.Now()
				err := r.all(time.Hour)
				if err == nil || !strings.HasPrefix(err.Error(), c.want) || !errors.Is(err, c.err) || time.Since(began) > time.Second {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

// New says in one line what is not there.
func TestNewRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		o         Options
		open, ask error
		want      string
	}{
		"start":     {Options{Start: "soon"}, nil, nil, "event hubs: start=soon: want earliest, latest or an RFC 3339 time"},
		"future":    {Options{Start: "2999-01-01T00:00:00Z"}, nil, nil, "event hubs: start=2999-01-01T00:00:00Z is in the future"},
		"group":     {Options{ConsumerGroup: "a/b"}, nil, nil, `event hubs: consumer group "a/b": want at most 50 letters`},
		"no group":  {Options{ConsumerGroup: "mine"}, condition("amqp:not-found", "The messaging entity 'orders/ConsumerGroups/mine/Partitions/0' could not be found"), nil, "event hubs: orders-prod/orders has no consumer group mine"},
		"no hub":    {Options{}, nil, condition("amqp:not-found", "The messaging entity 'orders' could not be found"), "event hubs: there is no event hub orders in namespace orders-prod"},
		"no access": {Options{}, nil, condition("amqp:unauthorized-access", "no"), "event hubs: orders-prod/orders: access denied"},
		"nobody":    {Options{}, nil, errLost, "event hubs: orders-prod/orders: read tcp 10.0.0.1:5671: connection reset by peer"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory(1)
				m.refuse(c.open, c.ask)
				_, err := m.try(t, c.o)
				if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%v", err)
				}
			})
		})
	}
	for _, o := range []Options{{}, {Namespace: "n"}, {Hub: "h"}, {Namespace: "n", Hub: "h", Endpoint: "//"}, {Namespace: "n/x", Hub: "h"}} {
		if _, err := New(t.Context(), o); err == nil || !strings.HasPrefix(err.Error(), "event hubs: ") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// A hub that is empty, and a group that is busy, can be read: New does not refuse them.
func TestNewAccepts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, refused := range []error{nil, errStolen, errBusy, errLost} {
			m := newMemory(1)
			m.refuse(refused, nil)
			if _, err := m.try(t, Options{Logger: slog.New(slog.DiscardHandler)}); err != nil {
				t.Errorf("%v: %v", refused, err)
			}
		}
	})
}

// Questions of many readers stay below the service's limit.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		t.Setenv("EVENTHUBS_CONNECTION_STRING", "Endpoint=sb://orders-prod.servicebus.windows.net/;SharedAccessKeyName=n;SharedAccessKey=k")
		m := newMemory(1)
		src, err := New(t.Context(), Options{Namespace: "orders-prod", Hub: "orders", service: m})
		if err != nil {
			t.Fatal(err)
		}
		if src.Identity() != "eventhubs://orders-prod.servicebus.windows.net/orders" {
			t.Error(src.Identity())
		}
		may := 0
		for range 1000 {
			if src.mayAsk() {
				may++
			}
			<-time.After(time.Millisecond)
		}
		if may != 20 {
			t.Errorf("%d questions a second", may)
		}
	})
}
