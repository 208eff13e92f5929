package enrich

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
	"golang.org/x/time/rate"
)

// gate is what every call to the backend passes: rate limit, circuit breaker, time-out.
type gate[K comparable, V any] struct {
	lookup  Lookup[K, V]
	limiter *rate.Limiter // nil: none
	breaker *gobreaker.CircuitBreaker[map[K]V]
	timeout time.Duration
	stats   *counters
	last    atomic.Pointer[error] // of a call that was made
}

// The breaker opens after so many calls in a row have failed, and lets one through after a while.
const (
	failuresInARow = 5
	breakFor       = 2 * time.Second
)

func newGate[K comparable, V any](lookup Lookup[K, V], cfg *Config[K, V], stats *counters) *gate[K, V] {
	g := &gate[K, V]{lookup: lookup, timeout: cfg.Timeout, stats: stats}
	if cfg.Rate > 0 {
		g.limiter = rate.NewLimiter(rate.Limit(cfg.Rate), max(1, int(cfg.Rate)))
	}
	g.breaker = gobreaker.NewCircuitBreaker[map[K]V](gobreaker.Settings{
		Name:         cfg.Name,
		Timeout:      breakFor,
		ReadyToTrip:  func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= failuresInARow },
		IsSuccessful: answered[K],
		IsExcluded:   func(err error) bool { return errors.Is(err, errClosed) },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			switch {
			case to == gobreaker.StateOpen && from == gobreaker.StateClosed:
				stats.outages.Add(1)
				cfg.Logger.Warn("lookups fail: the backend is asked only now and then", "enrich", cfg.Name, "on_error", cfg.OnError.String())
			case to == gobreaker.StateClosed:
				cfg.Logger.Info("lookups succeed again", "enrich", cfg.Name)
			}
		},
	})
	return g
}

// answered reports whether the backend is well: a row that cannot be read is not its failure.
func answered[K comparable](err error) bool {
	var some *Failed[K]
	switch {
	case err == nil:
		return true
	case errors.Is(err, errSilent), !errors.As(err, &some):
		return false
	}
	return true
}

// errSilent marks a call that answered nothing.
var errSilent = errors.New("no key was answered")

// ask makes one call. asked is when it began, after it was let through.
func (g *gate[K, V]) ask(ctx context.Context, keys []K, now func() instant) (found map[K]V, asked instant, err error) {
	if g.limiter != nil {
		if err := g.limiter.Wait(ctx); err != nil {
			return nil, 0, fmt.Errorf("%w: %w", errClosed, err)
		}
	}
	found, err = g.breaker.Execute(func() (map[K]V, error) {
		g.stats.calls.Add(1)
		g.stats.keys.Add(int64(len(keys)))
		asked = now()
		began := time.Now()
		found, err := g.guarded(ctx, keys)
		g.stats.took(time.Since(began))
		if err != nil {
			g.stats.errors.Add(1)
			g.last.Store(&err)
		}
		return found, err
	})
	if last := g.last.Load(); last != nil && (errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests)) {
		err = fmt.Errorf("not asked again yet: %w", *last)
	}
	return found, asked, err
}

// guarded is the Lookup itself, within its time, and without its panics.
func (g *gate[K, V]) guarded(ctx context.Context, keys []K) (found map[K]V, err error) {
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			found, err = nil, fmt.Errorf("panic in the lookup: %v\n%s", v, debug.Stack())
		}
	}()
	found, err = g.lookup.Lookup(ctx, keys)
	var some *Failed[K]
	if errors.As(err, &some) && len(some.Keys) >= len(keys) && !allMalformed(some) {
		return nil, fmt.Errorf("%w: %w", errSilent, err)
	}
	if err != nil && some == nil && ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, fmt.Errorf("no answer within %s: %w", g.timeout, err)
	}
	return found, err
}

func allMalformed[K comparable](f *Failed[K]) bool {
	for _, err := range f.Keys {
		if !errors.Is(err, ErrMalformed) {
			return false
		}
	}
	return true
}

// shut reports whether calls are not made now.
func (g *gate[K, V]) shut() bool { return g.breaker.State() == gobreaker.StateOpen }
