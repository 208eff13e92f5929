package enrich

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millstream/millstream/stream"
)

// memory is a table that is there already.
type memory map[string][]Row

func (m memory) Limit() int   { return 10 }
func (m memory) Close() error { return nil }
func (m memory) Lookup(_ context.Context, keys []string) (map[string][]Row, error) {
	found, failed := map[string][]Row{}, map[string]error{}
	for _, k := range keys {
		if k == "throttled" {
			failed[k] = errors.New("slow down")
		} else if rows, ok := m[k]; ok {
			found[k] = rows
		}
	}
	if len(failed) > 0 {
		return found, &Failed[string]{failed}
	}
	return found, nil
}

type price struct {
	Value int `json:"value"`
}

func TestTyped(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
	table := memory{
		"EUR":     {{JSON: []byte(`{"value":1}`), To: day(2)}, {JSON: []byte(`{"value":2}`), From: day(2)}},
		"ended":   {{JSON: []byte(`{"value":1}`), To: day(2)}},
		"strange": {{JSON: []byte(`{"value":"x"}`)}},
	}
	found, err := JSON[price](table).Lookup(t.Context(), []string{"EUR", "ended", "strange", "none", "throttled"})
	var failed *Failed[string]
	if !errors.As(err, &failed) || len(failed.Keys) != 2 || !errors.Is(failed.Keys["strange"], ErrMalformed) || len(found) != 1 || found["EUR"].Value != 2 {
		t.Errorf("%v, %v", found, err)
	}
	e := With(Versions[price](table), func(e *stream.Event[click]) (string, bool) { return e.Value.user, true },
		AsOf(func(e *stream.Event[click], r price, found bool) error {
			if e.Value.tier = "none"; found {
				e.Value.tier = string(rune('0' + r.Value))
			}
			return nil
		}))
	at := func(when time.Time) stream.Instant { i, _ := stream.At(when); return i }
	events := []stream.Event[click]{{Time: at(day(1)), Value: click{user: "EUR"}}, {Time: at(day(2)), Value: click{user: "EUR"}},
		{Time: at(day(2)), Value: click{user: "ended"}}, {Time: at(day(1)), Value: click{user: "ended"}}, {Value: click{user: "none"}}}
	if err := e.Enrich(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"1", "2", "none", "1", "none"} {
		if got := events[i].Value.tier; got != want {
			t.Errorf("event %d: %s, not %s", i, got, want)
		}
	}
}

// Messages that are handled at once share the cache's calls; what is not answered is the handler's error.
func TestMiddleware(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{rows: numbered(1000), takes: 5 * time.Millisecond, bad: map[string]error{"bad": ErrMalformed}}
		c := open(t, b, Config[string, string]{OnError: DeadLetter})
		var mu sync.Mutex
		seen := map[string]string{}
		handler := Middleware(c, func(m *message.Message) (string, bool) { return string(m.Payload), len(m.Payload) > 0 },
			func(m *message.Message, v string, found bool) error {
				if !found && string(m.Payload) == "nobody" {
					return errors.New("nobody")
				}
				m.Metadata.Set("row", v)
				return nil
			})(func(m *message.Message) ([]*message.Message, error) {
			mu.Lock()
			defer mu.Unlock()
			seen[string(m.Payload)] = m.Metadata.Get("row")
			return nil, nil
		})
		var wg sync.WaitGroup
		for _, key := range keys(0, 1000) {
			wg.Go(func() {
				if _, err := handler(message.NewMessage("", message.Payload(key))); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(seen) != 1000 || seen["7"] != "v7" || b.calls > 20 {
			t.Errorf("%d messages, %q, %d calls", len(seen), seen["7"], b.calls)
		}
		if _, err := handler(message.NewMessage("", nil)); err != nil {
			t.Error(err)
		}
		if _, err := handler(message.NewMessage("", message.Payload("nobody"))); err == nil {
			t.Error("set's error was lost")
		}
		if _, err := handler(message.NewMessage("", message.Payload("bad"))); !errors.Is(err, ErrMalformed) {
			t.Error(err)
		}
	})
}
