package enrich

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/stream"
)

// backend is a table in virtual time.
type backend struct {
	mu     sync.Mutex
	rows   map[string]string
	takes  time.Duration
	down   error
	bad    map[string]error // keys that fail
	calls  int
	asked  []string
	most   int // keys of the largest call
	active int
	peak   int
}

func (b *backend) Lookup(ctx context.Context, keys []string) (map[string]string, error) {
	b.mu.Lock()
	b.calls++
	b.active++
	b.peak = max(b.peak, b.active)
	b.asked = append(b.asked, keys...)
	b.most = max(b.most, len(keys))
	takes := b.takes
	b.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.active--
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if b.down != nil {
		return nil, b.down
	}
	found, failed := map[string]string{}, map[string]error{}
	for _, k := range keys {
		if err := b.bad[k]; err != nil {
			failed[k] = err
		} else if v, ok := b.rows[k]; ok {
			found[k] = v
		}
	}
	if len(failed) > 0 {
		return found, &Failed[string]{failed}
	}
	return found, nil
}

func (b *backend) set(do func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	do()
}

func numbered(n int) map[string]string {
	rows := map[string]string{}
	for i := range n {
		rows[strconv.Itoa(i)] = "v" + strconv.Itoa(i)
	}
	return rows
}

func open(t *testing.T, b *backend, cfg Config[string, string]) *Cache[string, string] {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	c, err := NewCache[string, string](b, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func want(t *testing.T, c *Cache[string, string], keys []string, expect map[string]string) {
	t.Helper()
	got, err := c.Lookup(t.Context(), keys)
	if err != nil || !maps.Equal(got, expect) {
		t.Errorf("%v: got %v, %v; want %v", keys, got, err, expect)
	}
}

func keys(from, to int) (out []string) {
	for i := from; i < to; i++ {
		out = append(out, strconv.Itoa(i))
	}
	return out
}

// What is there is asked for once, what is not there too, and each for as long as it is good.
func TestLifetimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{rows: numbered(2), takes: time.Millisecond}
		c := open(t, b, Config[string, string]{TTL: 5 * time.Minute, AbsentTTL: 30 * time.Second})
		all := map[string]string{"0": "v0", "1": "v1"}
		want(t, c, []string{"0", "1", "x", "0"}, all)
		want(t, c, []string{"0", "1", "x", "0"}, all)
		if b.calls != 1 || len(b.asked) != 3 {
			t.Errorf("%d calls for %v", b.calls, b.asked)
		}
		b.set(func() { b.rows["x"], b.rows["0"] = "new", "changed" })
		<-time.After(31 * time.Second)
		want(t, c, []string{"x", "0"}, map[string]string{"x": "new", "0": "v0"})
		<-time.After(5 * time.Minute)
		want(t, c, []string{"0"}, map[string]string{"0": "changed"})
		b.set(func() { delete(b.rows, "0") })
		<-time.After(6 * time.Minute)
		want(t, c, []string{"0"}, map[string]string{})
	})
}

// A row that is read all the time is looked up anew before its time is up, so that nobody waits; and a changed
// one is seen within its time to live.
func TestRefreshAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{rows: numbered(1), takes: 50 * time.Millisecond}
		c := open(t, b, Config[string, string]{TTL: time.Minute})
		want(t, c, []string{"0"}, map[string]string{"0": "v0"})
		changed := time.Now()
		b.set(func() { b.rows["0"] = "v1" })
		seen := time.Time{}
		for range 2400 {
			<-time.After(100 * time.Millisecond)
			began := time.Now()
			got, err := c.Lookup(t.Context(), []string{"0"})
			if err != nil || time.Since(began) > 0 {
				t.Fatalf("waited %s, %v", time.Since(began), err)
			}
			if got["0"] == "v1" && seen.IsZero() {
				seen = time.Now()
			}
			if !seen.IsZero() && got["0"] != "v1" {
				t.Fatal("an older row after a newer one")
			}
		}
		if seen.IsZero() || seen.Sub(changed) > time.Minute {
			t.Errorf("seen after %s", seen.Sub(changed))
		}
		if s := c.Stats(); s.Misses != 1 || s.Refreshes < 4 || b.calls > 7 {
			t.Errorf("%+v, %d calls", s, b.calls)
		}
	})
}

// A thousand lanes whose keys expire in one moment make the calls that their distinct keys need.
func TestNoStampede(t *testing.T) {
	if calls := stampede(t, rules{}); calls > 60 {
		t.Errorf("%d calls for 5,000 keys", calls)
	}
	if calls := stampede(t, rules{flightEach: true}); calls < 500 {
		t.Errorf("%d calls without one flight for each key: the test shows nothing", calls)
	}
}

// stampede returns the most calls of a round.
func stampede(t *testing.T, r rules) (most int) {
	synctest.Test(t, func(t *testing.T) {
		const distinct, lanes = 5000, 1000
		b := &backend{rows: numbered(distinct), takes: 5 * time.Millisecond}
		c := open(t, b, Config[string, string]{TTL: time.Minute, Max: 1 << 20})
		c.rules = r
		all := keys(0, distinct)
		for round := range 3 {
			b.set(func() { b.calls, b.peak = 0, 0 })
			var wg sync.WaitGroup
			for lane := range lanes {
				wg.Go(func() {
					mine := all[(lane*37)%(distinct-500):][:500]
					if got, err := c.Lookup(t.Context(), mine); err != nil || len(got) != 500 {
						t.Errorf("lane %d: %d, %v", lane, len(got), err)
					}
				})
			}
			wg.Wait()
			most = max(most, b.calls)
			if b.peak > 8 || b.most > 100 {
				t.Errorf("round %d: %d calls at once, of %d keys at most", round, b.peak, b.most)
			}
			<-time.After(2 * time.Minute)
		}
	})
	return most
}

// A reader that was held up between finding an entry and putting it into the front does not bring it back to
// those who have seen the next one.
func TestNeverOlder(t *testing.T) {
	for _, off := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := &backend{rows: map[string]string{"a": "old"}, takes: time.Millisecond}
			c := open(t, b, Config[string, string]{TTL: time.Hour})
			c.rules.serveGone = off
			want(t, c, []string{"a"}, map[string]string{"a": "old"})
			slow := c.load("a", c.now())
			b.set(func() { b.rows["a"] = "new" })
			c.refresh("a")
			<-time.After(time.Second)
			want(t, c, []string{"a"}, map[string]string{"a": "new"})
			c.front.slot("a").Store(slow)
			got, err := c.Lookup(t.Context(), []string{"a"})
			if older := got["a"] == "old"; err != nil || older != off {
				t.Errorf("the mechanism off %t: %v, %v", off, got, err)
			}
		})
	}
}

// A backend that is down for half an hour: what becomes of events is the policy's, and all is well seconds
// after it is back.
func TestOutage(t *testing.T) {
	for _, c := range []struct {
		policy OnError
		known  string // what is served for a key that was known when the backend went down
		other  string // and for one that was not: "waits", "missing" or "failed"
	}{{Wait, "waits", "waits"}, {Stale, "v0", "waits"}, {Missing, "missing", "missing"}, {DeadLetter, "failed", "failed"}} {
		t.Run(c.policy.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &backend{rows: numbered(10), takes: time.Millisecond}
				cache := open(t, b, Config[string, string]{TTL: time.Minute, OnError: c.policy})
				want(t, cache, []string{"0"}, map[string]string{"0": "v0"})
				b.set(func() { b.down = errors.New("connection refused") })
				<-time.After(2 * time.Minute) // beyond its time
				var told atomic.Int64
				ask := func(key string) chan string {
					out := make(chan string, 1)
					go func() {
						ctx := stream.WithDelays(t.Context(), func(err error) {
							if err != nil {
								told.Add(1)
							}
						})
						got, err := cache.Lookup(ctx, []string{key})
						switch v, ok := got[key]; {
						case err != nil:
							out <- "failed"
						case ok:
							out <- v
						default:
							out <- "missing"
						}
					}()
					return out
				}
				verdict := func(answer chan string) string {
					select {
					case v := <-answer:
						return v
					case <-time.After(time.Minute):
						return "waits"
					}
				}
				known, other := ask("0"), ask("1")
				if got := verdict(known); got != c.known {
					t.Errorf("a known key: %s", got)
				}
				if got := verdict(other); got != c.other {
					t.Errorf("another: %s", got)
				}
				<-time.After(28 * time.Minute)
				if told.Load() == 0 {
					t.Error("nobody was told")
				}
				if s := cache.Stats(); s.Errors == 0 || (c.other == "waits") != (s.Outages > 0) || b.calls > 1500 {
					t.Errorf("%+v, %d calls", s, b.calls)
				}
				b.set(func() { b.down = nil })
				began := time.Now()
				if c.other == "waits" {
					if got := <-other; got != "v1" {
						t.Errorf("afterwards: %s", got)
					}
				} else {
					<-time.After(breakFor)
				}
				for got := ""; got != "v2"; got = <-ask("2") {
					if time.Since(began) > 10*time.Second {
						t.Fatalf("still %s after %s", got, time.Since(began))
					}
					<-time.After(time.Second)
				}
				if c.known == "waits" {
					<-known
				}
				if n := cache.Stats().InFlight; n > 0 {
					t.Errorf("%d flights are left", n)
				}
			})
		})
	}
}

// Rows that cannot be read, and keys that are throttled, are the affair of those keys alone.
func TestSomeKeysFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{rows: numbered(10), bad: map[string]error{"3": ErrMalformed}, takes: time.Millisecond}
		c := open(t, b, Config[string, string]{OnError: DeadLetter})
		for range 20 {
			got, err := c.Lookup(t.Context(), []string{"1", "3"})
			var failed *Failed[string]
			if !errors.As(err, &failed) || !errors.Is(failed.Keys["3"], ErrMalformed) || got["1"] != "v1" {
				t.Fatalf("%v, %v", got, err)
			}
		}
		if s := c.Stats(); s.Outages > 0 {
			t.Error("a malformed row opened the breaker")
		}
		b.set(func() { b.bad = nil })
		want(t, c, []string{"3"}, map[string]string{"3": "v3"})
	})
}

// Whoever gives up waits no longer, and what only they wanted is not asked for any more.
func TestGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{down: errors.New("down")}
		c := open(t, b, Config[string, string]{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := c.Lookup(ctx, []string{"a"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		<-time.After(time.Minute)
		b.set(func() { b.calls = 0 })
		<-time.After(time.Hour)
		if s := c.Stats(); b.calls > 0 || s.InFlight > 0 {
			t.Errorf("%d calls, %d flights", b.calls, s.InFlight)
		}
		done := make(chan error)
		go func() {
			_, err := c.Lookup(t.Context(), []string{"b"})
			done <- err
		}()
		synctest.Wait()
		_ = c.Close()
		if err := <-done; !errors.Is(err, errClosed) {
			t.Error(err)
		}
	})
}

// A slow backend is cut off, a panicking one survived.
func TestSlowAndPanicking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{rows: numbered(1), takes: 15 * time.Second}
		c := open(t, b, Config[string, string]{OnError: DeadLetter})
		began := time.Now()
		if _, err := c.Lookup(t.Context(), []string{"0"}); err == nil || time.Since(began) > 25*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		p, err := NewCache[string, int](LookupFunc[string, int](func(context.Context, []string) (map[string]int, error) { panic("no") }), Config[string, int]{OnError: Missing,
			Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if got, err := p.Lookup(t.Context(), []string{"a"}); err != nil || len(got) > 0 {
			t.Error(got, err)
		}
	})
}

// The bound in entries, and the one in bytes.
func TestBounded(t *testing.T) {
	for name, cfg := range map[string]Config[string, string]{
		"entries": {Max: 1000},
		"bytes":   {MaxBytes: 1000 * (overhead + 10), Size: func(k, v string) int { return len(k) + len(v) }},
	} {
		t.Run(name, func(t *testing.T) {
			b := &backend{rows: numbered(20_000)}
			c := open(t, b, cfg)
			for chunk := range slices.Chunk(keys(0, 20_000), 1000) {
				if got, err := c.Lookup(t.Context(), chunk); err != nil || len(got) != len(chunk) {
					t.Fatal(len(got), err)
				}
			}
			c.kept.CleanUp()
			if n := c.Stats().Entries; n < 500 || n > 1100 {
				t.Errorf("%d entries", n)
			}
		})
	}
}

type shelf struct{ data []byte }

func (s *shelf) Load(context.Context) ([]byte, error)      { return s.data, nil }
func (s *shelf) Save(_ context.Context, data []byte) error { s.data = slices.Clone(data); return nil }

// The next process looks the hot keys up before anybody asks.
func TestWarmStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{rows: numbered(1000), takes: time.Millisecond}
		hot := &shelf{}
		first := open(t, b, Config[string, string]{Hot: hot})
		if _, err := first.Lookup(t.Context(), keys(0, 250)); err != nil {
			t.Fatal(err)
		}
		_ = first.Close()
		b.set(func() { b.calls, b.rows["7"] = 0, "newer" })
		second := open(t, b, Config[string, string]{Hot: hot})
		<-time.After(time.Second)
		if b.calls != 3 {
			t.Errorf("%d calls for 250 keys", b.calls)
		}
		began := time.Now()
		got, err := second.Lookup(t.Context(), keys(0, 250))
		if err != nil || len(got) != 250 || got["7"] != "newer" || time.Since(began) > 0 || second.Stats().Misses > 0 {
			t.Errorf("%d, %v after %s", len(got), err, time.Since(began))
		}
		_ = second.Close()
		hot.data = []byte("{broken")
		open(t, b, Config[string, string]{Hot: hot})
	})
}

type click struct {
	user, tier string
}

// Events are enriched in place, and refused where set says so.
func TestWith(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{rows: map[string]string{"a": "gold", "b": "free"}, takes: time.Millisecond}
		c := open(t, b, Config[string, string]{})
		for name, lookup := range map[string]Lookup[string, string]{"cache": c, "direct": b} {
			e := With(lookup, func(e *stream.Event[click]) (string, bool) { return e.Value.user, e.Value.user != "" },
				func(e *stream.Event[click], tier string, found bool) error {
					switch {
					case e.Value.user == "c":
						return stream.Filtered
					case !found:
						return fmt.Errorf("%q is nobody", e.Value.user)
					}
					e.Value.tier = tier
					return nil
				})
			for _, enricher := range []stream.Enricher[click]{e, Together(e)} {
				events := []stream.Event[click]{{Value: click{user: "a"}}, {Value: click{user: "b"}}, {Value: click{user: "x"}}, {Value: click{}}, {Value: click{user: "c"}}, {Value: click{user: "a"}}}
				for range 2 {
					if err := enricher.Enrich(t.Context(), events); err != nil {
						t.Fatal(err)
					}
				}
				if events[0].Value.tier != "gold" || events[1].Value.tier != "free" || events[5].Value.tier != "gold" || events[0].Refused() != nil {
					t.Errorf("%s: %+v", name, events)
				}
				if events[2].Refused() == nil || events[3].Refused() == nil || !errors.Is(events[4].Refused(), stream.Filtered) {
					t.Errorf("%s: not refused: %+v", name, events)
				}
			}
		}
	})
}

// Independent lookups wait at once.
func TestTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all []stream.Enricher[click]
		for range 5 {
			c := open(t, &backend{takes: time.Second}, Config[string, string]{})
			all = append(all, With(c, func(e *stream.Event[click]) (string, bool) { return e.Value.user, true },
				func(e *stream.Event[click], _ string, _ bool) error { e.Value.tier += "."; return nil }))
		}
		events := []stream.Event[click]{{Value: click{user: "a"}}}
		began := time.Now()
		if err := Together(all...).Enrich(t.Context(), events); err != nil || time.Since(began) != time.Second || events[0].Value.tier != "....." {
			t.Errorf("%v after %s: %+v", err, time.Since(began), events)
		}
		defer func() {
			if recover() == nil {
				t.Error("a panic was swallowed")
			}
		}()
		_ = Together(all[0], With(&backend{}, func(*stream.Event[click]) (string, bool) { panic("no key") }, nil)).Enrich(t.Context(), events)
	})
}

func TestConfig(t *testing.T) {
	for _, cfg := range []Config[string, string]{{TTL: -1}, {Max: -1}, {MaxBytes: 1}, {OnError: 9}, {Rate: -1}} {
		if c, err := NewCache[string, string](&backend{}, cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
			_ = c.Close()
		}
	}
}
