package enrich_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/enrich"
	"github.com/millstream/millstream/stream"
	"github.com/millstream/millstream/stream/streamtest"
	"github.com/millstream/millstream/windows"
)

// order is an event, and what is known of its user.
type order struct{ user, tier string }

// perTier is a row.
type perTier struct {
	tier string
	n    int64
}

const (
	users   = 500
	records = 40_000
)

// pipeline totals orders per tier of their users and minute.
func pipeline(lookup enrich.Lookup[string, string]) *stream.Pipeline[order, perTier] {
	return &stream.Pipeline[order, perTier]{
		Decode: func(r *stream.Record) (stream.Event[order], error) {
			user, at, _ := strings.Cut(string(r.Data), " ")
			when, err := time.Parse(time.RFC3339Nano, at)
			t, _ := stream.At(when)
			return stream.Event[order]{Time: t, Value: order{user: user}}, err
		},
		Enrich: []stream.Enricher[order]{enrich.With(lookup, func(e *stream.Event[order]) (string, bool) { return e.Value.user, true },
			func(e *stream.Event[order], tier string, found bool) error {
				if !found {
					tier = "nobody"
				}
				e.Value.tier, e.Key = tier, tier
				return nil
			})},
		Operator: &windows.Aggregation[order, int64, perTier]{
			Windows: windows.Tumbling(time.Minute),
			Add:     func(n *int64, _ *stream.Event[order]) { *n++ },
			Merge:   func(dst, src *int64) { *dst += *src },
			Emit:    func(key string, _ stream.Window, n *int64) perTier { return perTier{key, *n} },
		},
		Encode: func(r *perTier) (stream.Row, error) {
			return stream.Row{Key: r.tier, Data: fmt.Appendf(nil, `{"tier":%q,"n":%d}`, r.tier, r.n)}, nil
		},
		CheckpointEvery: 10 * time.Second,
		Logger:          slog.New(slog.DiscardHandler),
	}
}

// troubled is a table of users, a tenth of whom are nobody, with a trouble of its own at every time.
type troubled struct {
	mu    sync.Mutex
	start time.Time
	seen  map[string]int
}

func (b *troubled) Lookup(ctx context.Context, keys []string) (map[string]string, error) {
	pause := 5 * time.Millisecond
	since := time.Since(b.start)
	trouble := ""
	switch {
	case since > 2*time.Minute && since < 32*time.Minute:
		trouble = "down"
	case since > 40*time.Minute && since < 45*time.Minute:
		trouble, pause = "slow", 10*time.Second
	case since > 50*time.Minute && since < 55*time.Minute:
		trouble = "malformed"
	case since > 60*time.Minute && since < 65*time.Minute:
		trouble = "throttled"
	case since > 70*time.Minute && since < 75*time.Minute:
		trouble = "half"
	}
	b.mu.Lock()
	b.seen[trouble]++
	n := b.seen[trouble]
	b.mu.Unlock()
	select {
	case <-time.After(pause):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	found, failed := map[string]string{}, map[string]error{}
	for i, key := range keys {
		switch {
		case trouble == "down":
			return nil, errors.New("connection refused")
		case trouble == "malformed" && (i+n)%7 == 0:
			failed[key] = enrich.ErrMalformed
		case trouble == "throttled" && n%3 > 0:
			failed[key] = errors.New("throttled")
		case trouble == "half" && i%2 == n%2:
			failed[key] = errors.New("not processed")
		default:
			if tier := tierOf(key); tier != "nobody" {
				found[key] = tier
			}
		}
	}
	if len(failed) > 0 {
		return found, &enrich.Failed[string]{Keys: failed}
	}
	return found, nil
}

func tierOf(user string) string {
	n := 0
	_, _ = fmt.Sscanf(user, "u%d", &n)
	if n%10 == 0 {
		return "nobody"
	}
	return []string{"free", "gold", "silver"}[n%3]
}

// A backend that is down for half an hour, then slow, malformed, throttled, half-answering, each in its time:
// nothing is lost, and events are what the policy says. Waiting gives the totals of a backend that is well.
func TestTroubles(t *testing.T) {
	for _, policy := range []enrich.OnError{enrich.Wait, enrich.Stale, enrich.Missing, enrich.DeadLetter} {
		t.Run(policy.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &troubled{start: time.Now(), seen: map[string]int{}}
				c, err := enrich.NewCache[string, string](b, enrich.Config[string, string]{TTL: time.Minute, AbsentTTL: 20 * time.Second, MaxStale: time.Hour, OnError: policy,
					Timeout: 5 * time.Second, Max: 400, Logger: slog.New(slog.DiscardHandler)})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				want := map[string]int64{}
				partitions := map[string][]stream.Record{}
				first := time.Now().Add(-24 * time.Hour)
				for i := range records {
					user := fmt.Sprintf("u%d", (i*i+i/3)%users)
					want[tierOf(user)]++
					p := fmt.Sprint(i % 2)
					partitions[p] = append(partitions[p], stream.Record{Data: []byte(user + " " + first.Add(time.Duration(i)*10*time.Millisecond).Format(time.RFC3339Nano))})
				}
				out, err := streamtest.Do(pipeline(c), streamtest.Run{Partitions: partitions, BatchRecords: 10, Pace: 2500 * time.Millisecond})
				if err != nil {
					t.Fatal(err)
				}
				got := map[string]int64{}
				for _, r := range out.Rows {
					var tier string
					var n int64
					if _, err := fmt.Sscanf(string(r.Data), `{"tier":%q,"n":%d}`, &tier, &n); err != nil {
						t.Fatal(err)
					}
					got[tier] += n
				}
				l := out.Ledger
				if l.RecordsIn != records || l.RecordsIn != l.Contributed+l.DeadLettered {
					t.Errorf("ledger %+v", l)
				}
				for _, trouble := range []string{"", "down", "slow", "malformed", "throttled", "half"} {
					if b.seen[trouble] == 0 {
						t.Errorf("nobody asked in the time of %q", trouble)
					}
				}
				<-time.After(10 * time.Second) // rows that were looked up anew for nobody
				s := c.Stats()
				switch policy {
				case enrich.Wait, enrich.Stale:
					if fmt.Sprint(got) != fmt.Sprint(want) || l.DeadLettered > 0 {
						t.Errorf("%v instead of %v, %d dead letters", got, want, l.DeadLettered)
					}
					if policy == enrich.Stale && s.StaleServed == 0 {
						t.Error("nothing stale was served")
					}
				case enrich.Missing:
					if got["nobody"] <= want["nobody"] || l.DeadLettered > 0 || s.Unanswered == 0 {
						t.Errorf("%v instead of more nobodies than in %v", got, want)
					}
				case enrich.DeadLetter:
					if l.DeadLettered == 0 || len(out.DeadLetters) != int(l.DeadLettered) || got["nobody"] > want["nobody"] {
						t.Errorf("%d letters, %v, %v", len(out.DeadLetters), l, got)
					}
					for _, d := range out.DeadLetters {
						if d.Reason != "enrich lookup: the lookup failed" || d.Stage != "enrich" {
							t.Fatalf("%+v", d)
						}
					}
				}
				if s.Errors == 0 || s.InFlight > 0 || s.Entries > 500 {
					t.Errorf("%+v", s)
				}
				t.Logf("%s after %s: %+v", policy, time.Since(b.start).Round(time.Second), s)
				if n := runtime.NumGoroutine(); n > 200 {
					t.Errorf("%d goroutines", n)
				}
			})
		})
	}
}
