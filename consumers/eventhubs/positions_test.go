package eventhubs

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	"github.com/millstream/millstream/stream"
)

// Reading goes on exactly behind any record, by its offset.
func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(1)
		src := m.source(t, Options{})
		m.publish("0", numbers(0, 20)...)
		whole := open(t, src, "0", stream.Position{}, "")
		defer whole.Close()
		if err := whole.all(time.Minute); err != nil {
			t.Fatal(err)
		}
		for i, rec := range whole.records {
			r := open(t, src, "0", rec.Position, "")
			defer r.Close()
			if err := r.all(time.Minute); err != nil || r.text() != text(i+1, 20) {
				t.Errorf("behind %d: %q, %v", i, r.text(), err)
			}
			if at := m.opened[len(m.opened)-1].StartPosition; at.Offset == nil || *at.Offset != offsetOf(i) || at.Inclusive {
				t.Errorf("opened at %+v", at)
			}
		}
		if c := src.Counters(); c != (Counters{}) {
			t.Errorf("%+v", c)
		}
	})
}

// Where a partition is begun that nothing was saved of.
func TestStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(1)
		m.publish("0", numbers(0, 10)...)
		<-time.After(time.Hour)
		between := time.Now().Add(-time.Minute)
		m.publish("0", numbers(10, 20)...)
		<-time.After(time.Hour)
		for start, first := range map[string]int{
			"": 0, "earliest": 0, "latest": 20, between.Format(time.RFC3339): 10,
			time.Now().Format(time.RFC3339): 20, time.Now().Add(-time.Hour).Format(time.RFC3339): 10,
		} {
			src := m.source(t, Options{Start: start})
			tip, err := src.Tip(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if (tip != "") != (start == "latest") {
				t.Errorf("start=%s: tip %q", start, tip)
			}
			r := open(t, src, "0", stream.Position{}, tip)
			if err := r.all(time.Minute); err != nil || r.text() != text(first, 20) || !r.saw(stream.CaughtUp) {
				t.Errorf("start=%s: %q, %v, %v", start, r.text(), r.states, err)
			}
			more := len(m.parts["0"].events)
			m.publish("0", []byte("more"))
			if err := r.all(time.Minute); err != nil || !strings.HasSuffix(r.text(), "more") {
				t.Errorf("start=%s: %q, %v", start, r.text(), err)
			}
			r.Close()
			m.change(func() { m.parts["0"].events = m.parts["0"].events[:more] })
		}
	})
}

// "latest" stays the moment of the first start: by the tip across restarts, without one in a process.
func TestLatestStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(1)
		m.publish("0", numbers(0, 10)...)
		src := m.source(t, Options{Start: "latest"})
		tip, err := src.Tip(t.Context())
		if err != nil || tip != "from=0:9" {
			t.Fatal(tip, err)
		}
		first := open(t, src, "0", stream.Position{}, "")
		defer first.Close()
		m.publish("0", numbers(10, 15)...)
		m.grow("1")
		m.publish("1", []byte("added"))
		again := m.source(t, Options{Start: "latest"})
		for _, c := range []struct {
			src       *Source
			partition string
			tip, want string
		}{
			{again, "0", tip, text(10, 15)}, // after a restart
			{again, "1", tip, "added"},      // a partition that the tip does not know is read from its first event
			{again, "0", "", ""},            // a process without a tip starts now
			{src, "0", "", text(10, 15)},    // but not once more in the same process
		} {
			r := open(t, c.src, c.partition, stream.Position{}, c.tip)
			defer r.Close()
			if err := r.all(time.Minute); err != nil || r.text() != c.want {
				t.Errorf("%s, tip %q: %q, %v", c.partition, c.tip, r.text(), err)
			}
		}
	})
}

// With UntilEnd every partition ends with the last event of the moment at which the tip was taken, one
// that came later at once, and one whose events have expired, or came before the start, as well.
func TestUntilEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(6)
		m.publish("0", numbers(0, 10)...)
		m.publish("1", numbers(0, 1)...)
		m.publish("3", numbers(0, 10)...)
		m.publish("5", numbers(0, 10)...)
		<-time.After(time.Hour)
		since := time.Now().Format(time.RFC3339)
		src := m.source(t, Options{UntilEnd: true})
		tip, err := src.Tip(t.Context())
		if err != nil || tip != "until=0:9,1:0,2:-1,3:9,4:-1,5:9" {
			t.Fatal(tip, err)
		}
		later := m.source(t, Options{UntilEnd: true, Start: since})
		latest := m.source(t, Options{UntilEnd: true, Start: "latest"})
		both, err := latest.Tip(t.Context())
		if err != nil || both != "from=0:9,1:0,2:-1,3:9,4:-1,5:9&until=0:9,1:0,2:-1,3:9,4:-1,5:9" {
			t.Fatal(both, err)
		}
		early := open(t, later, "0", stream.Position{}, tip)
		defer early.Close()
		if err := early.all(time.Hour); err != nil || early.end == nil || len(early.records) != 0 {
			t.Error("nothing since the start:", err, early.end, early.text())
		}
		for _, p := range []string{"0", "1", "2", "3"} {
			m.publish(p, []byte("behind the tip"))
		}
		m.grow("6")
		m.publish("6", []byte("behind the tip"))
		m.trim("3", 10) // all but the last
		m.trim("5", 10) // all
		at := stream.Position{Token: offsetOf(4), Number: 4}
		last := stream.Position{Token: offsetOf(9), Number: 9}
		for i, c := range []struct {
			src       *Source
			partition string
			from      stream.Position
			tip, want string
		}{
			{src, "0", stream.Position{}, tip, text(0, 10)}, {src, "0", at, tip, text(5, 10)}, {src, "0", last, tip, ""},
			{src, "1", stream.Position{}, tip, "0"}, {src, "2", stream.Position{}, tip, ""},
			{src, "3", stream.Position{}, tip, ""}, {src, "4", stream.Position{}, tip, ""},
			{src, "5", stream.Position{}, tip, ""}, {src, "6", stream.Position{}, tip, ""},
			{later, "0", stream.Position{}, tip, ""}, {latest, "0", stream.Position{}, both, ""}, {latest, "2", stream.Position{}, both, ""},
		} {
			r := open(t, c.src, c.partition, c.from, c.tip)
			defer r.Close()
			if err := r.all(time.Hour); err != nil || r.end == nil || r.end.Lost || r.text() != c.want {
				t.Errorf("%d: partition %s: %q, %+v, %v", i, c.partition, r.text(), r.end, err)
			}
			if r.end = nil; r.all(time.Minute) != nil || r.end == nil { // the end again
				t.Errorf("%d: no end any more", i)
			}
		}
	})
}

// A raised number of partitions is seen, and the new ones can be read at once.
func TestRelist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(2)
		src := m.source(t, Options{})
		m.grow("2")
		m.publish("2", numbers(0, 3)...)
		r := open(t, src, "2", stream.Position{}, "")
		defer r.Close()
		if err := r.all(time.Minute); err != nil || r.text() != text(0, 3) {
			t.Error(r.text(), err)
		}
		ps, err := src.Partitions(t.Context())
		if err != nil || fmt.Sprint(ps) != fmt.Sprint([]stream.Partition{{Name: "0"}, {Name: "1"}, {Name: "2"}}) {
			t.Errorf("%+v, %v", ps, err)
		}
	})
}

// A partition that the hub does not have is gone, when it is opened and while it is read.
func TestGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(2)
		src := m.source(t, Options{})
		if _, err := src.Open(t.Context(), "7", stream.Position{}, ""); !errors.Is(err, stream.ErrPartitionGone) {
			t.Error(err)
		}
		r := open(t, src, "1", stream.Position{}, "")
		defer r.Close()
		m.publish("1", numbers(0, 3)...)
		if err := r.all(time.Minute); err != nil {
			t.Fatal(err)
		}
		m.change(func() { delete(m.parts, "1") })
		if err := r.all(time.Minute); !errors.Is(err, stream.ErrPartitionGone) {
			t.Error(err)
		}
	})
}

// Events that expired behind a saved position are said to be missing, and only those.
func TestExpired(t *testing.T) {
	for trimmed, missing := range map[int]bool{0: false, 5: false, 6: true, 9: true} {
		synctest.Test(t, func(t *testing.T) {
			m := newMemory(1)
			m.publish("0", numbers(0, 10)...)
			m.trim("0", trimmed)
			var log notes
			src := m.source(t, Options{Logger: log.logger()})
			r := open(t, src, "0", stream.Position{Token: offsetOf(4), Number: 4}, "")
			defer r.Close()
			if err := r.all(time.Minute); err != nil || r.text() != text(max(5, trimmed), 10) {
				t.Error(r.text(), err)
			}
			told := strings.Contains(log.String(), "events behind the saved position are gone") && strings.Contains(log.String(), fmt.Sprint("first=", trimmed))
			if c := src.Counters(); told != missing || (c.Expired == 1) != missing {
				t.Errorf("trimmed %d: %+v\n%s", trimmed, c, log.String())
			}
		})
	}
}

// A position of another hub, or of one that was made anew, is refused, and never read from elsewhere.
func TestWrongHub(t *testing.T) {
	for name, from := range map[string]stream.Position{
		"ahead":            {Token: offsetOf(40), Number: 40},
		"another's":        {Token: "18", Number: 2},
		"numbers differ":   {Token: offsetOf(2), Number: 7},
		"not an event hub": {Number: 7},
		"negative":         {Token: offsetOf(2), Number: -1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory(1)
				m.publish("0", numbers(0, 10)...)
				src := m.source(t, Options{})
				r, err := src.Open(t.Context(), "0", from, "")
				if err == nil {
					defer r.Close()
					s := &session{Reader: r}
					err = s.all(time.Minute)
					if len(s.records) > 0 {
						t.Errorf("read %s", s.text())
					}
				}
				if err == nil || !strings.Contains(err.Error(), "cannot resume at position "+from.String()) && !strings.Contains(err.Error(), "is not of an event hub") {
					t.Error(err)
				}
			})
		})
	}
}

// A tip that cannot be read is refused.
func TestMark(t *testing.T) {
	for _, m := range []mark{
		{}, {from: map[string]int64{}}, {until: map[string]int64{"0": -1, "10": math.MaxInt64, "9": 3}},
		{from: map[string]int64{"a:b,c=d&e%": 1, "": 2}, until: map[string]int64{"0": 0}},
	} {
		again, err := parseMark(m.String())
		if err != nil || !maps.Equal(again.from, m.from) || !maps.Equal(again.until, m.until) || (again.until == nil) != (m.until == nil) {
			t.Errorf("%+v: %q: %+v, %v", m, m.String(), again, err)
		}
	}
	m := newMemory(1)
	src := m.source(t, Options{})
	for _, tip := range []string{"x", "from=0", "from=0:x", "until=%zz:1", "from=0:1&x=2"} {
		if _, err := src.Open(t.Context(), "0", stream.Position{}, tip); err == nil || !strings.Contains(err.Error(), "tip") {
			t.Errorf("%q: %v", tip, err)
		}
	}
}

// What other clients of AMQP send is read too, and nothing of it stops a partition.
func TestBody(t *testing.T) {
	value := func(v any) *azeventhubs.ReceivedEventData {
		return &azeventhubs.ReceivedEventData{RawAMQPMessage: &azeventhubs.AMQPAnnotatedMessage{Body: azeventhubs.AMQPAnnotatedMessageBody{Value: v}}}
	}
	raw := func(b azeventhubs.AMQPAnnotatedMessageBody) *azeventhubs.ReceivedEventData {
		return &azeventhubs.ReceivedEventData{RawAMQPMessage: &azeventhubs.AMQPAnnotatedMessage{Body: b}}
	}
	for want, e := range map[string]*azeventhubs.ReceivedEventData{
		"data":          {EventData: azeventhubs.EventData{Body: []byte("data")}},
		"":              {},
		"two sections":  raw(azeventhubs.AMQPAnnotatedMessageBody{Data: [][]byte{[]byte("two "), []byte("sections")}}),
		"bytes":         value([]byte("bytes")),
		"a string":      value("a string"),
		`{"a":1}`:       value(map[string]any{"a": 1}),
		"map[1:one]":    value(map[any]any{1: "one"}),
		"NaN":           value(math.NaN()),
		`[["x",2],[3]]`: raw(azeventhubs.AMQPAnnotatedMessageBody{Sequence: [][]any{{"x", 2}, {3}}}),
	} {
		if got := recordOf(e); string(got.Data) != want {
			t.Errorf("%q instead of %q", got.Data, want)
		}
	}
}

// Credit follows the size of events, so that a fetch holds about four megabytes.
func TestRoom(t *testing.T) {
	for size, room := range map[int]int{1: mostRoom, 1 << 10: 4 << 10, 1 << 20: 3} {
		synctest.Test(t, func(t *testing.T) {
			m := newMemory(1)
			src := m.source(t, Options{})
			s := open(t, src, "0", stream.Position{}, "")
			defer s.Close()
			one := make([]byte, size)
			for range 20 {
				m.publish("0", one, one)
				if err := s.all(time.Second); err != nil {
					t.Fatal(err)
				}
			}
			if got := s.Reader.(*reader).room; got < room*9/10 || got > room*11/10 {
				t.Errorf("events of %d bytes: room for %d instead of %d", size, got, room)
			}
		})
	}
}

func FuzzParseMark(f *testing.F) {
	for _, s := range []string{"", "from=0:17,1:-1&until=0:17", "until=", "from=a%3Ab:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := parseMark(s)
		if err != nil {
			return
		}
		again, err := parseMark(m.String())
		if err != nil || !maps.Equal(m.from, again.from) || !maps.Equal(m.until, again.until) {
			t.Errorf("%q: %+v, then %+v, %v", s, m, again, err)
		}
	})
}
