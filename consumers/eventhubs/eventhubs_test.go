package eventhubs

import (
	"bytes"
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
	"github.com/millstream/millstream/stream"
)

// notes is a log that tests read.
type notes struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (n *notes) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.Write(b)
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.String()
}

func (n *notes) logger() *slog.Logger { return slog.New(slog.NewTextHandler(n, nil)) }

// session reads with one reader and keeps everything.
type session struct {
	consumers.Reader
	records []stream.Record
	states  []stream.ReaderState
	end     *stream.PartitionEnd
}

func open(t *testing.T, src *Source, partition string, from stream.Position, tip string) *session {
	t.Helper()
	r, err := src.Open(t.Context(), partition, from, tip)
	if err != nil {
		t.Fatal(err)
	}
	return &session{Reader: r}
}

// next reads one fetch, within d.
func (s *session) next(d time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	f, err := s.Read(ctx)
	if err == nil {
		s.records, s.states, s.end = append(s.records, f.Records...), append(s.states, f.State), f.End
	}
	return err
}

// all reads until nothing has come for d, or there is an error or an end.
func (s *session) all(d time.Duration) error {
	for s.end == nil {
		err := s.next(d)
		if errors.Is(err, context.DeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *session) text() string {
	var all []string
	for _, r := range s.records {
		all = append(all, string(r.Data))
	}
	return strings.Join(all, " ")
}

func (s *session) saw(state stream.ReaderState) bool {
	for _, other := range s.states {
		if state == other {
			return true
		}
	}
	return false
}

// numbers are the data of events, and text what reading them gives.
func numbers(from, to int) (all [][]byte) {
	for i := from; i < to; i++ {
		all = append(all, fmt.Append(nil, i))
	}
	return all
}

func text(from, to int) string { return string(bytes.Join(numbers(from, to), []byte(" "))) }

// Every event comes once and in order, with its own key, time and position.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(2)
		src := m.source(t, Options{})
		r := open(t, src, "1", stream.Position{}, "")
		defer r.Close()
		m.publish("0", []byte("of the other partition"))
		for i := range 10 {
			m.publish("1", numbers(i*1000, i*1000+1000)...)
			if err := r.all(time.Minute); err != nil {
				t.Fatal(err)
			}
		}
		if r.text() != text(0, 10000) {
			t.Errorf("%d records, the last is %s", len(r.records), r.records[len(r.records)-1].Data)
		}
		for i, rec := range r.records {
			if rec.Key != fmt.Sprint("key ", i) || rec.Position.Token != offsetOf(i) || rec.Position.Number != int64(i) || rec.Arrived == 0 {
				t.Fatalf("%+v", rec)
			}
		}
		if c := src.Counters(); c != (Counters{}) || len(m.links) != 1 || !r.saw(stream.CaughtUp) {
			t.Errorf("%+v, %d receivers, states %v", c, len(m.links), r.states)
		}
	})
}
