package eventhubs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/ThreeDotsLabs/watermill/message"

	cloud "github.com/millstream/millstream/cloud/azure"
	"github.com/millstream/millstream/sinks"
	"github.com/millstream/millstream/sinks/sinktest"
	"github.com/millstream/millstream/stream"
)

func TestSuite(t *testing.T) {
	for _, c := range sinktest.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub()
				h.largest = 1 << 20
				err := c.Holds(t.Context(), &sinktest.Destination{
					Promise: sinktest.AtLeastOnceByID, Name: "rows",
					Open: func(hook sinktest.Hook) (stream.Sink, error) {
						wire := new(sinktest.Wire)
						s := sinkOf(t, &memory{hub: h, wire: wire})
						wire.Begin(hook)
						return s, nil
					},
					Seen: func(context.Context) ([][]byte, error) { return h.bodies(), nil },
				})
				if err != nil {
					t.Error(err)
				}
			})
		})
	}
}

var first = stream.CheckpointID{Pipeline: "p", Genesis: "G", Partition: "a", Number: 7}

// some makes rows of n keys in turn.
func some(n, keys int) (rows []stream.Row) {
	for i := range n {
		rows = append(rows, stream.Row{Key: fmt.Sprint("k", i%keys), Data: fmt.Appendf(nil, `{"n":%d}`, i)})
	}
	return rows
}

// ids returns the distinct _ids, and how many rows there are.
func ids(t *testing.T, bodies [][]byte) (distinct map[string]int, rows int) {
	t.Helper()
	distinct = make(map[string]int)
	for _, body := range bodies {
		var row struct {
			ID string `json:"_id"`
		}
		if err := json.Unmarshal(body, &row); err != nil || row.ID == "" {
			t.Fatalf("%s: %v", body, err)
		}
		distinct[row.ID]++
		rows++
	}
	return distinct, rows
}

// A key's rows are in one partition and in their order, a batch is as full as the hub allows, and an
// event carries its _id as its message id too.
func TestPacking(t *testing.T) {
	h := newHub()
	if err := sinkOf(t, &memory{hub: h}).Deliver(t.Context(), first, some(300, 10)); err != nil {
		t.Fatal(err)
	}
	partitions := make(map[string]string)
	last := make(map[string]int)
	total := 0
	for partition, events := range h.events {
		for _, e := range events {
			var row struct {
				N  int    `json:"n"`
				ID string `json:"_id"`
			}
			if err := json.Unmarshal(e.Body, &row); err != nil || *e.MessageID != row.ID {
				t.Fatalf("%s, message id %s: %v", e.Body, *e.MessageID, err)
			}
			total += len(e.Body)
			key := fmt.Sprint("k", row.N%10)
			if before, seen := partitions[key]; seen && before != partition {
				t.Errorf("key %s is in partitions %s and %s", key, before, partition)
			}
			if row.N <= last[key] && last[key] != 0 {
				t.Errorf("row %d behind row %d", row.N, last[key])
			}
			partitions[key], last[key] = partition, row.N
		}
	}
	if len(partitions) != 10 || h.batches > total/h.largest+3*len(h.names) {
		t.Errorf("%d keys, %d batches of %d bytes", len(partitions), h.batches, total)
	}
}

// An answer that is lost makes its rows come twice, under the same _id.
func TestLostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if distinct, rows := lostAnswer(t, func(m *memory) service { return m }); distinct != 100 || rows <= 100 {
			t.Errorf("%d rows, %d distinct", rows, distinct)
		}
	})
}

// The negative control: with an _id of its own for each attempt the copies cannot be told apart.
func TestFreshIDsAreCaught(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if distinct, rows := lostAnswer(t, func(m *memory) service { return &fresh{memory: m} }); distinct != rows || rows <= 100 {
			t.Errorf("%d rows, %d distinct", rows, distinct)
		}
	})
}

// fresh gives the rows of every attempt ids of their own.
type fresh struct {
	*memory
	attempts atomic.Int64
}

func (f *fresh) send(ctx context.Context, partition string, events []*azeventhubs.EventData) (int, error) {
	mark := fmt.Appendf(nil, `{"_id":"attempt-%d-`, f.attempts.Add(1))
	changed := make([]*azeventhubs.EventData, len(events))
	for i, e := range events {
		other := *e
		other.Body = bytes.Replace(e.Body, []byte(`{"_id":"`), mark, 1)
		changed[i] = &other
	}
	return f.memory.send(ctx, partition, changed)
}

// lostAnswer delivers 100 rows, with one answer lost, and returns what a consumer can tell apart, and
// how many rows there are.
func lostAnswer(t *testing.T, through func(*memory) service) (distinct, rows int) {
	t.Helper()
	h, wire := newHub(), new(sinktest.Wire)
	h.largest = 1 << 20 // one batch for each partition
	s := sinkOf(t, &memory{hub: h, wire: wire})
	s.writer.service = through(s.writer.service.(*memory))
	wire.Begin(func(call int) sinktest.Fault { return sinktest.Fault{Lost: call == 2} })
	if err := s.Deliver(t.Context(), first, some(100, 50)); err != nil {
		t.Fatal(err)
	}
	if c := s.Counters(); c.Ambiguous != 1 {
		t.Errorf("%+v", c)
	}
	seen, rows := ids(t, h.bodies())
	return len(seen), rows
}

// One partition's failure does not keep the others' rows back, and the next Deliver sends only the rest.
func TestOnePartitionFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		broken := true
		m := &memory{hub: h, fails: func(partition string) error {
			if broken && partition == "1" {
				return condition("com.microsoft:server-busy", "too many requests")
			}
			return nil
		}}
		s := sinkOf(t, m)
		began := time.Now()
		err := s.Deliver(t.Context(), first, some(60, 9))
		if err == nil || !strings.Contains(err.Error(), "nothing stored in partition 1 for 1m0s") || time.Since(began) > 2*patience {
			t.Fatal(time.Since(began), err)
		}
		if c := s.Counters(); c.Throttled < 5 || c.Ambiguous != 0 {
			t.Errorf("%+v", c)
		}
		if _, rows := ids(t, h.bodies()); rows == 0 || len(h.events["1"]) > 0 {
			t.Errorf("%d rows, %d of them in the broken partition", rows, len(h.events["1"]))
		}
		broken = false
		if err := s.Deliver(t.Context(), first, some(60, 9)); err != nil {
			t.Fatal(err)
		}
		if distinct, rows := ids(t, h.bodies()); len(distinct) != 60 || rows != 60 {
			t.Errorf("%d rows, %d distinct", rows, len(distinct))
		}
	})
}

func TestTooLarge(t *testing.T) {
	h := newHub()
	s := sinkOf(t, &memory{hub: h})
	rows := some(5, 1)
	rows[2].Data = fmt.Appendf(nil, `{"x":"%s"}`, bytes.Repeat([]byte("y"), 2<<10))
	var rejected *stream.Rejected
	if err := s.Deliver(t.Context(), first, rows); !errors.As(err, &rejected) || len(rejected.Rows) != 1 || rejected.Rows[0].Index != 2 ||
		!strings.Contains(rejected.Rows[0].Reason, "2056 bytes, more than event hub rows takes in one event") {
		t.Fatal(err, rejected)
	}
	if _, n := ids(t, h.bodies()); n != 4 || s.Counters().Rejected != 1 {
		t.Errorf("%d rows, %+v", n, s.Counters())
	}
}

func TestErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		missing := condition("amqp:not-found", "The messaging entity 'sb://x/rows' could not be found. TrackingId:1")
		for _, c := range []struct {
			lists error
			hub   string
			want  string
		}{
			{missing, "rows", "event hubs: there is no event hub rows in namespace orders"},
			{condition("amqp:unauthorized-access", "no"), "rows", "event hubs: orders/rows: access denied: reading needs"},
			{errors.New("read tcp: connection reset"), "rows", "event hubs: orders/rows: read tcp: connection reset"},
			{nil, "no/hub", `event hubs: event hub "no/hub": want a name`},
		} {
			m := &memory{hub: newHub(), wire: new(sinktest.Wire), lists: c.lists}
			_, err := New(t.Context(), Options{Namespace: "orders", Hub: c.hub, Endpoint: "127.0.0.1", service: m})
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v\nwant %s", err, c.want)
			}
			if c.lists != nil && (!errors.Is(err, c.lists) || !m.closed) {
				t.Errorf("%v: closed %t", err, m.closed)
			}
		}
		// A hub that is deleted under a run is not waited for.
		s := sinkOf(t, &memory{hub: newHub(), fails: func(string) error { return missing }})
		if err := s.Deliver(t.Context(), first, some(3, 3)); err == nil || err.Error() != "event hubs: there is no event hub rows in namespace orders" {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s = sinkOf(t, &memory{hub: newHub(), fails: func(string) error { return errors.New("reset") }})
		if err := s.Deliver(ctx, first, some(3, 3)); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestPublisher(t *testing.T) {
	h := newHub()
	p, err := NewPublisher(t.Context(), PublisherOptions{Namespace: "orders", Endpoint: "127.0.0.1", Marshal: sinks.Envelope, Logger: slog.New(slog.DiscardHandler),
		service: func(string) service { return &memory{hub: h, wire: new(sinktest.Wire)} }})
	if err != nil {
		t.Fatal(err)
	}
	var messages []*message.Message
	for i := range 20 {
		m := message.NewMessage(fmt.Sprint(i), fmt.Appendf(nil, "payload %d", i))
		m.Metadata.Set(MetadataKey, "one")
		messages = append(messages, m)
	}
	if err := p.Publish("rows", messages...); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, events := range h.events {
		if len(events) != 20 {
			t.Errorf("one key is in several partitions: %d", len(events))
		}
		for _, e := range events {
			got = append(got, *e.MessageID)
		}
	}
	if len(got) != 20 || got[0] != "0" || !slices.Contains(got, "19") {
		t.Error(got)
	}
	huge := message.NewMessage("huge", bytes.Repeat([]byte("x"), 4<<10))
	if err := p.Publish("rows", huge); err == nil || !strings.Contains(err.Error(), "the first is message huge") {
		t.Error(err)
	}
	if err := errors.Join(p.Close(), p.Close()); err != nil {
		t.Error(err)
	}
	if err := p.Publish("rows", messages...); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// A batch that was refused for its rate leaves its link usable; the links of the other partitions are not
// to be cut for it.
func TestBreaks(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{fmt.Errorf("first: %w", errTooLarge), false},
		{condition("com.microsoft:server-busy", "too many requests"), false},
		{&azeventhubs.Error{Code: azeventhubs.ErrorCodeConnectionLost}, true},
		{errors.Join(condition("com.microsoft:server-busy", "too many requests"), &azeventhubs.Error{Code: azeventhubs.ErrorCodeConnectionLost}), true},
		{condition("amqp:not-found", "gone"), true},
		{errors.New("read tcp: connection reset"), true},
	} {
		if got := breaks(c.err); got != c.want {
			t.Errorf("%v: %t", c.err, got)
		}
	}
}

// A client that is given up is closed when the last of its calls has ended, and not before; the next
// call has another one.
func TestClientIsShared(t *testing.T) { synctest.Test(t, clientIsShared) }

func clientIsShared(t *testing.T) {
	at, err := cloud.Find(cloud.Options{Namespace: "n", Hub: "h", Endpoint: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	s := &sdk{at: at}
	closed := func(c *client) bool {
		_, err := c.NewEventDataBatch(t.Context(), nil)
		return err != nil && strings.Contains(err.Error(), "closed by user")
	}
	take := func() *client {
		t.Helper()
		c, err := s.take()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	a, b := take(), take()
	if a != b {
		t.Fatal("two partitions have two connections")
	}
	s.put(a, true)
	next := take()
	synctest.Wait()
	if next == a || closed(a) {
		t.Errorf("new client: %t; the old one closed under a call: %t", next != a, closed(a))
	}
	s.put(b, true)
	synctest.Wait()
	if !closed(a) {
		t.Error("a client that was given up stays open")
	}
	s.put(next, false)
	synctest.Wait()
	if closed(next) {
		t.Error("a client that works is closed")
	}
	s.close()
	synctest.Wait()
	if !closed(next) {
		t.Error("a client is open after the end")
	}
}
