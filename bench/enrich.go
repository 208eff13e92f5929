package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/enrich"
	"github.com/millstream/millstream/query"
	"github.com/millstream/millstream/service"
	"github.com/millstream/millstream/stream"
)

// enrichPlan is what bench enrich measures.
type enrichPlan struct {
	Events     int
	Keys       int
	Partitions int
	Latency    time.Duration // of the backend
	PerCall    int           // keys
	Rounds     int
}

func (p *enrichPlan) check() error {
	if p.Events < 1000 || p.Keys < 100 || p.Partitions < 1 || p.Rounds < 1 || p.PerCall < 1 {
		return errors.New("want at least 1,000 events, 100 keys, a partition, a round and a key a call")
	}
	return nil
}

// enrichResult is one cache beside a map that holds all rows.
type enrichResult struct {
	Workload string  `json:"workload"`
	Capacity int     `json:"cache_entries"`
	HitRatio float64 `json:"hit_ratio"`
	Calls    float64 `json:"calls_per_million_events"`
	Fullness float64 `json:"calls_over_needed"` // calls ÷ (distinct misses ÷ keys a call)
	Map      float64 `json:"map_events_per_core_second"`
	Cache    float64 `json:"cache_events_per_core_second"`
	Ratio    float64 `json:"ratio"`
	AddedP50 float64 `json:"added_p50_ms"` // that a batch spends in enrichment, less the map's, at half the speed
	AddedP99 float64 `json:"added_p99_ms"`
	Result   string  `json:"result"`
}

func (r *enrichResult) text() string {
	return fmt.Sprintf("%-16s cache of %7d  hits %.3f  calls %5.0f per million events (%.2f of what full calls need)  map %4.2f M events/core-second  cache %4.2f M  ratio %.2f  added p50 %.1f ms  p99 %.1f ms  result %s\n",
		r.Workload, r.Capacity, r.HitRatio, r.Calls, r.Fullness, r.Map/1e6, r.Cache/1e6, r.Ratio, r.AddedP50, r.AddedP99, r.Result)
}

// benchEnrich measures a cache of a tenth of the keys, and one that hits nearly always.
func benchEnrich(ctx context.Context, p enrichPlan, emit func(*enrichResult)) error {
	load := newEnrichLoad(&p)
	for _, c := range []struct {
		name     string
		capacity int
	}{{"a tenth", p.Keys / 10}, {"99 of 100", p.Keys * 19 / 20}} {
		r, err := load.compare(ctx, c.name, c.capacity)
		if err != nil {
			return err
		}
		emit(r)
		if r.Result != "exact" {
			return errors.New(c.name + ": " + r.Result)
		}
	}
	return nil
}

// enrichLoad is a stream of events whose users are drawn by a zipf law of exponent 1, and the table of users.
type enrichLoad struct {
	plan       *enrichPlan
	partitions [][]stream.Record
	users      []string
	exact      map[string]int64 // events by tier
	query      *query.Query
	rows       map[string]*query.Rows
}

// tiers of users, by their number.
var tiers = []string{"free", "silver", "gold", "platinum"}

func newEnrichLoad(p *enrichPlan) *enrichLoad {
	r := rand.New(rand.NewPCG(1, 1))
	l := &enrichLoad{plan: p, partitions: make([][]stream.Record, p.Partitions), users: make([]string, p.Keys), exact: map[string]int64{}}
	cumulated, sum := make([]float64, p.Keys), 0.0
	for i := range l.users {
		l.users[i] = fmt.Sprintf("user-%016x", r.Uint64())
		sum += 1 / float64(i+1)
		cumulated[i] = sum
	}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	for i := range p.Events {
		user := sort.SearchFloat64s(cumulated, r.Float64()*sum)
		l.exact[tiers[user%len(tiers)]]++
		to := i % p.Partitions
		data := fmt.Appendf(nil, `{"user_id":"%s","page_id":"%08x","type":"view","at":%d,"amount":%d,"agent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36","session":"%016x"}`,
			l.users[user], r.Uint32(), start+int64(i/20), r.IntN(10_000), r.Uint64())
		l.partitions[to] = append(l.partitions[to], stream.Record{Data: data, Position: stream.Position{Number: int64(len(l.partitions[to]) + 1)}})
	}
	return l
}

// compile makes the query and the table's rows as it reads them.
func (l *enrichLoad) compile() (err error) {
	l.query, err = query.Compile(query.Config{Key: []string{"user.tier"}, Time: "at", Window: "tumbling:10s", Aggregate: "count() as n",
		Enrich: []query.Enrichment{{Name: "user", On: "user_id"}}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	join := l.query.Joins()[0]
	l.rows = make(map[string]*query.Rows, len(l.users))
	for i, user := range l.users {
		if l.rows[user], err = join.Parse([]query.Version{{JSON: fmt.Appendf(nil, `{"tier":%q,"country":"CH"}`, tiers[i%len(tiers)])}}); err != nil {
			return err
		}
	}
	return nil
}

// Lookup implements enrich.Lookup as a backend does that is not here.
func (l *enrichLoad) Lookup(ctx context.Context, keys []string) (map[string]*query.Rows, error) {
	t := time.NewTimer(l.plan.Latency)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	found := make(map[string]*query.Rows, len(keys))
	for _, key := range keys {
		found[key] = l.rows[key]
	}
	return found, nil
}

// inMemory is the same enrichment from a plain map.
type inMemory struct{ l *enrichLoad }

// Enrich implements stream.Enricher.
func (m inMemory) Enrich(_ context.Context, events []stream.Event[query.Event]) error {
	join := m.l.query.Joins()[0]
	for i := range events {
		e := &events[i]
		key, _ := join.Key(e)
		rows, found := m.l.rows[key]
		if err := join.Set(e, rows, found); err != nil {
			e.Refuse(err)
		}
	}
	return nil
}

// compare measures map and cache in turn and keeps the best of each; then both once more, at half the cache's
// speed, for the time that batches spend.
func (l *enrichLoad) compare(ctx context.Context, name string, capacity int) (*enrichResult, error) {
	if err := l.compile(); err != nil {
		return nil, err
	}
	cache, err := enrich.NewCache[string, *query.Rows](l, enrich.Config[string, *query.Rows]{Name: "user", TTL: time.Hour, Max: capacity, Limit: l.plan.PerCall,
		Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	defer cache.Close()
	join := l.query.Joins()[0]
	cached := enrich.With(cache, join.Key, join.Set)
	r := &enrichResult{Workload: name, Capacity: capacity, Result: "exact"}
	events := float64(l.plan.Events)
	if err := l.fill(ctx, cache, capacity); err != nil {
		return nil, err
	}
	var before enrich.Stats
	rates := map[bool]float64{}
	for round := range l.plan.Rounds {
		for _, e := range []stream.Enricher[query.Event]{inMemory{l}, cached} {
			if round == 0 && e == cached {
				before = cache.Stats()
			}
			cpu, err := measure(func() error { return l.run(ctx, e, 0) })
			if err != nil {
				return nil, err
			}
			rates[e == cached] = max(rates[e == cached], events/cpu.Seconds())
		}
	}
	after := cache.Stats()
	hits, misses, calls := float64(after.Hits-before.Hits), float64(after.Misses-before.Misses), float64(after.Calls-before.Calls)
	all := events * float64(l.plan.Rounds)
	r.HitRatio, r.Calls, r.Fullness = hits/all, calls/all*1e6, calls/max(1, misses/float64(l.plan.PerCall))
	r.Map, r.Cache = rates[false], rates[true]
	r.Ratio = r.Cache / r.Map
	of := map[bool]*timed{}
	for _, e := range []stream.Enricher[query.Event]{inMemory{l}, cached} {
		t := &timed{Enricher: e}
		if err := l.run(ctx, t, r.Cache/2); err != nil {
			return nil, err
		}
		of[e == cached] = t
	}
	r.AddedP50 = (of[true].at(0.5) - of[false].at(0.5)).Seconds() * 1e3
	r.AddedP99 = (of[true].at(0.99) - of[false].at(0.99)).Seconds() * 1e3
	return r, nil
}

// fill asks for the keys that a cache of this size would have after a while.
func (l *enrichLoad) fill(ctx context.Context, cache *enrich.Cache[string, *query.Rows], capacity int) error {
	for from := 0; from < capacity; from += 10_000 {
		if _, err := cache.Lookup(ctx, l.users[from:min(from+10_000, capacity)]); err != nil {
			return err
		}
	}
	return nil
}

// timed notes how long every batch is in enrichment, by its events.
type timed struct {
	stream.Enricher[query.Event]
	mu    sync.Mutex
	spent []spent
}

type spent struct {
	took   time.Duration
	events int
}

// Enrich implements stream.Enricher.
func (t *timed) Enrich(ctx context.Context, events []stream.Event[query.Event]) error {
	began := time.Now()
	err := t.Enricher.Enrich(ctx, events)
	took := time.Since(began)
	t.mu.Lock()
	t.spent = append(t.spent, spent{took, len(events)})
	t.mu.Unlock()
	return err
}

// at is the time within which a share of the events was enriched.
func (t *timed) at(share float64) time.Duration {
	slices.SortFunc(t.spent, func(a, b spent) int { return int(a.took - b.took) })
	all := 0
	for _, s := range t.spent {
		all += s.events
	}
	left := int(math.Ceil(share * float64(all)))
	for _, s := range t.spent {
		if left -= s.events; left <= 0 {
			return s.took
		}
	}
	return 0
}

// run takes the whole load through a pipeline, as fast as it goes or at a rate of events a second, and
// compares its rows with the exact ones.
func (l *enrichLoad) run(ctx context.Context, e stream.Enricher[query.Event], rate float64) error {
	dir, err := os.MkdirTemp("", "millstream-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &service.Settings{}
	f := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	s.Register(f)
	if err := f.Parse([]string{"--sink", filepath.Join(dir, "rows"), "--dead-letter", filepath.Join(dir, "dead"),
		"--checkpoint", "mem:", "--checkpoint-every", "1s", "--until-end", "--http", ""}); err != nil {
		return err
	}
	var source consumers.Source = &memorySource{partitions: l.partitions}
	if rate > 0 {
		source = &pacedSource{memorySource: memorySource{partitions: l.partitions}, every: time.Duration(float64(pacedBatch*len(l.partitions)) / rate * 1e9)}
	}
	s.Driver = source
	p := l.query.Pipeline()
	p.Enrich = []stream.Enricher[query.Event]{e, l.query.Finish()}
	if err := service.Run(ctx, p, s, io.Discard); err != nil {
		return err
	}
	got, err := sumRows(filepath.Join(dir, "rows"), "user_tier")
	if err != nil {
		return err
	}
	for tier, n := range l.exact {
		if got[tier] != n {
			return fmt.Errorf("tier %s: %d events instead of %d", tier, got[tier], n)
		}
	}
	return nil
}

// pacedSource serves batches of its records at a steady pace.
type pacedSource struct {
	memorySource
	every time.Duration
}

const pacedBatch = 500

// Open implements consumers.Source.
func (p *pacedSource) Open(_ context.Context, partition string, from stream.Position, _ string) (consumers.Reader, error) {
	i, err := strconv.Atoi(partition)
	if err != nil {
		return nil, err
	}
	return &pacedReader{memoryReader: memoryReader{p.partitions[i][from.Number:]}, every: p.every, next: time.Now()}, nil
}

type pacedReader struct {
	memoryReader
	every time.Duration
	next  time.Time
}

// Read implements consumers.Reader.
func (r *pacedReader) Read(ctx context.Context) (consumers.Fetch, error) {
	t := time.NewTimer(time.Until(r.next))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return consumers.Fetch{}, ctx.Err()
	}
	r.next = r.next.Add(r.every)
	return r.read(pacedBatch)
}
