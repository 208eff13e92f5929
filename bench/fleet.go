package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/millstream/millstream/checkpoint"
	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/stream"
	"github.com/millstream/millstream/windows"
)

// fleetPlan is what to simulate.
type fleetPlan struct {
	Partitions int
	Instances  int
	Interval   time.Duration // between checkpoints
	Lease      time.Duration
	Watch      time.Duration // of steady running
}

// fleetResult is what a simulated fleet showed. Times are virtual seconds, but for CPU.
type fleetResult struct {
	Partitions int     `json:"partitions"`
	Instances  int     `json:"instances"`
	Interval   float64 `json:"checkpoint_interval_s"`
	Lease      float64 `json:"lease_s"`

	Started       float64  `json:"all_owned_after_s"`
	Requests      requests `json:"requests_a_day"`
	DollarsDay    float64  `json:"dollars_a_day"`
	MergerGets    float64  `json:"merger_gets_per_second"` // of the instance that merges
	MedianGets    float64  `json:"median_gets_per_second"` // of an instance
	MergerEntries float64  `json:"merger_entries_per_second"`
	Delay         float64  `json:"slowest_row_s"` // behind the end of its window
	CPU           float64  `json:"cpu_per_instance"`

	TakeOver   spread  `json:"crash_take_over_s"`
	HandOver   spread  `json:"drain_hand_over_s"`
	Rebalanced float64 `json:"join_rebalanced_s"`
	Unowned    int     `json:"unowned_at_the_end"`
	Result     string  `json:"result"`
}

// spread is the median and the largest of some times.
type spread struct {
	Partitions int     `json:"partitions"`
	Median     float64 `json:"p50"`
	Max        float64 `json:"max"`
}

func spreadOf(times []time.Duration) spread {
	if len(times) == 0 {
		return spread{}
	}
	slices.Sort(times)
	return spread{len(times), times[len(times)/2].Seconds(), times[len(times)-1].Seconds()}
}

// benchFleet simulates a fleet in another process.
func benchFleet(ctx context.Context, p fleetPlan) (*fleetResult, error) {
	r := &fleetResult{}
	return r, elsewhere(ctx, simulationFleet, p, r)
}

// simulated runs a fleet in the caller's bubble: the real leases, logs, lanes and merger over a store
// in memory.
func simulated(p fleetPlan) (*fleetResult, error) {
	s := &simulation{fleetPlan: p, store: newShelves(), source: newSteady(p.Partitions, p.Interval), began: time.Now(),
		owners: make(map[string]*fleetInstance), free: make(map[string]time.Time)}
	defer s.stop()
	return s.run()
}

// simulation is a fleet in virtual time.
type simulation struct {
	fleetPlan
	store  *shelves
	source *steady
	began  time.Time

	mu       sync.Mutex
	owners   map[string]*fleetInstance
	free     map[string]time.Time // since when a partition of the instance that left has had no owner
	took     []time.Duration      // how long they had none
	leaver   *fleetInstance
	delay    time.Duration // of the slowest row since watch began, behind its window's end
	all      []*fleetInstance
	failures []error
}

type fleetInstance struct {
	name   string
	wires  *wires
	cancel context.CancelFunc
	done   chan struct{}
	dead   bool
}

func (s *simulation) run() (r *fleetResult, err error) {
	r = &fleetResult{Partitions: s.Partitions, Instances: s.Instances, Interval: s.Interval.Seconds(), Lease: s.Lease.Seconds(), Result: "failed"}
	for range s.Instances {
		s.join()
		<-time.After(20 * time.Millisecond)
	}
	if err := s.until("every partition is owned", time.Hour, func() bool { return len(s.owners) == s.Partitions+1 }); err != nil {
		return r, err
	}
	r.Started = time.Since(s.began).Seconds()
	if err := s.until("shares are fair", time.Hour, func() bool { return s.fair() }); err != nil {
		return r, err
	}
	<-time.After(2 * s.Lease)
	s.watch(r)

	victim := s.chosen()
	s.mu.Lock()
	victim.wires.die()
	victim.dead = true
	for partition, owner := range s.owners {
		if owner == victim {
			delete(s.owners, partition)
			s.free[partition] = time.Now()
		}
	}
	s.mu.Unlock()
	if r.TakeOver, err = s.followed("a dead instance's partitions are owned"); err != nil {
		return r, err
	}

	<-time.After(2 * s.Lease)
	leaver := s.chosen()
	leaver.cancel()
	<-leaver.done
	leaver.dead = true
	if r.HandOver, err = s.followed("a drained instance's partitions are owned"); err != nil {
		return r, err
	}

	<-time.After(2 * s.Lease)
	joined := time.Now()
	newcomer := s.join()
	if err := s.until("a new instance has its share", 20*s.Lease, func() bool { return s.share(newcomer) >= s.Partitions/s.living() && len(s.owners) == s.Partitions+1 }); err != nil {
		return r, err
	}
	r.Rebalanced = time.Since(joined).Seconds()
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Unowned = s.Partitions + 1 - len(s.owners)
	if err := errors.Join(s.failures...); err != nil {
		return r, err
	}
	if limit := (s.Lease + 5*time.Second).Seconds(); r.TakeOver.Max > limit {
		return r, fmt.Errorf("a take-over took %.1f s, and may take %.1f", r.TakeOver.Max, limit)
	}
	r.Result = "ok"
	return r, nil
}

// watch counts what the fleet does for a while.
func (s *simulation) watch(r *fleetResult) {
	before, cpu := make(map[*fleetInstance]requests), cpuTime()
	for _, i := range s.all {
		before[i] = i.wires.counted()
	}
	s.mu.Lock()
	s.delay = 0
	s.mu.Unlock()
	<-time.After(s.Watch)
	all := make(requests)
	var gets []float64
	s.mu.Lock()
	merging := s.owners[stream.MergerPartition]
	s.mu.Unlock()
	for _, i := range s.all {
		did := i.wires.counted().minus(before[i])
		all = all.plus(did)
		n := int64(0)
		for what, times := range did {
			if strings.HasPrefix(what, "GET ") {
				n += times
			}
		}
		gets = append(gets, float64(n)/s.Watch.Seconds())
		if i == merging {
			r.MergerGets = gets[len(gets)-1]
		}
	}
	slices.Sort(gets)
	r.MedianGets = gets[len(gets)/2]
	r.CPU = (cpuTime() - cpu).Seconds() / s.Watch.Seconds() / float64(s.Instances)
	r.MergerEntries = float64(all["PUT log"]) / s.Watch.Seconds()
	r.Requests = make(requests)
	for what, n := range all {
		r.Requests[what] = int64(float64(n) * (24 * time.Hour).Seconds() / s.Watch.Seconds())
	}
	r.DollarsDay = r.Requests.dollars()
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Delay = s.delay.Seconds()
}

// until waits until ok, which is called with s.mu held.
func (s *simulation) until(what string, limit time.Duration, ok func() bool) error {
	for began := time.Now(); time.Since(began) < limit; <-time.After(50 * time.Millisecond) {
		s.mu.Lock()
		done := ok()
		s.mu.Unlock()
		if done {
			return nil
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Errorf("not within %s: %s; %d of %d are owned", limit, what, len(s.owners), s.Partitions+1)
}

func (s *simulation) living() (n int) {
	for _, i := range s.all {
		if !i.dead {
			n++
		}
	}
	return n
}

// share is how many partitions an instance serves. s.mu is held.
func (s *simulation) share(of *fleetInstance) (n int) {
	for _, owner := range s.owners {
		if owner == of {
			n++
		}
	}
	return n
}

// fair reports whether everybody has a share, give or take one partition. s.mu is held.
func (s *simulation) fair() bool {
	shares := make(map[*fleetInstance]int)
	for _, owner := range s.owners {
		shares[owner]++
	}
	low, high := s.Partitions, 0
	for _, n := range shares {
		low, high = min(low, n), max(high, n)
	}
	return len(s.owners) == s.Partitions+1 && len(shares) == s.living() && high-low <= 1+s.Partitions/s.Instances/10
}

// chosen is the instance that is to leave: the one that joined last, and is not the merger's.
func (s *simulation) chosen() *fleetInstance {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.free)
	s.took, s.leaver = nil, s.all[0]
	for _, i := range slices.Backward(s.all) {
		if !i.dead && s.owners[stream.MergerPartition] != i {
			s.leaver = i
			break
		}
	}
	return s.leaver
}

// followed waits until everything that the leaver had is owned, and says how long that took.
func (s *simulation) followed(what string) (spread, error) {
	err := s.until(what, 10*s.Lease, func() bool { return len(s.free) == 0 && len(s.owners) == s.Partitions+1 })
	s.mu.Lock()
	defer s.mu.Unlock()
	return spreadOf(slices.Clone(s.took)), err
}

func (s *simulation) join() *fleetInstance {
	ctx, cancel := context.WithCancel(context.Background())
	i := &fleetInstance{name: fmt.Sprintf("i%03d", len(s.all)), wires: newWires(s.store), cancel: cancel, done: make(chan struct{})}
	s.all = append(s.all, i)
	go func() {
		defer close(i.done)
		if err := s.serve(ctx, i); err != nil && !i.wires.isCut() && ctx.Err() == nil {
			s.mu.Lock()
			s.failures = append(s.failures, fmt.Errorf("%s: %w", i.name, err))
			s.mu.Unlock()
		}
	}()
	return i
}

func (s *simulation) stop() {
	for _, i := range s.all {
		i.cancel()
	}
	for _, i := range s.all {
		<-i.done
	}
}

// owned is a group that tells the simulation who serves what.
type owned struct {
	stream.Group
	s *simulation
	i *fleetInstance
}

func (g owned) Run(ctx context.Context, src stream.Source, serve func(*stream.Assignment) error) error {
	return g.Group.Run(ctx, src, func(a *stream.Assignment) error {
		g.s.mu.Lock()
		g.s.owners[a.Partition] = g.i
		if since, was := g.s.free[a.Partition]; was {
			g.s.took = append(g.s.took, time.Since(since))
			delete(g.s.free, a.Partition)
		}
		g.s.mu.Unlock()
		defer func() {
			g.s.mu.Lock()
			defer g.s.mu.Unlock()
			if g.s.owners[a.Partition] == g.i {
				delete(g.s.owners, a.Partition)
				if g.i == g.s.leaver {
					g.s.free[a.Partition] = time.Now()
				}
			}
		}()
		return serve(a)
	})
}

// Deliver is the simulated pipeline's sink.
func (s *simulation) Deliver(_ context.Context, _ stream.CheckpointID, rows []stream.Row) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range rows {
		s.delay = max(s.delay, time.Since(rows[i].Window.End.Time()))
	}
	return nil
}

// fleetWindow is the width of the simulated pipeline's windows.
const fleetWindow = time.Minute

// tally is the simulated pipeline's accumulator and result.
type tally struct {
	Key string
	W   stream.Window
	N   int64
}

// serve is one instance: the whole engine, but for the router.
func (s *simulation) serve(ctx context.Context, i *fleetInstance) error {
	quiet := slog.New(slog.DiscardHandler)
	p := &stream.Pipeline[int64, tally]{
		Name: "fleet", Logger: quiet, CheckpointEvery: s.Interval, Sinks: []stream.Sink{s},
		Decode: func(r *stream.Record) (stream.Event[int64], error) {
			return stream.Event[int64]{Key: string(r.Data), Time: r.Arrived, Value: 1}, nil
		},
		Encode: func(t *tally) (stream.Row, error) {
			return stream.Row{Key: t.Key, Window: t.W, Data: []byte(strconv.FormatInt(t.N, 10))}, nil
		},
		Operator: &windows.Aggregation[int64, tally, tally]{
			Windows: windows.Tumbling(fleetWindow),
			Add:     func(t *tally, _ *stream.Event[int64]) { t.N++ },
			Merge:   func(dst, src *tally) { dst.N += src.N },
			Emit:    func(key string, w stream.Window, t *tally) tally { return tally{key, w, t.N} },
		},
	}
	began := time.Now()
	store, err := checkpoint.Open(ctx, checkpoint.Config{Bucket: i.wires, Name: "fleet", Lease: s.Lease, Member: i.name, Checked: true, Logger: quiet,
		Plan: append(stream.Plan{{Name: "--source", Value: "fleet"}}, p.Plan()...), BootTime: func() time.Duration { return time.Since(began) }})
	if err != nil {
		return err
	}
	sub, err := consumers.New(consumers.Config{Source: s.source, Group: owned{store.Group(), s, i}, Logger: quiet})
	if err != nil {
		return err
	}
	messages, err := sub.Batches().Subscribe(ctx, "fleet")
	if err != nil {
		return err
	}
	for m := range messages {
		go func() {
			if p.Handle(m) == nil {
				m.Ack()
			} else {
				m.Nack()
			}
		}()
	}
	return sub.Err()
}

func (w *wires) isCut() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut
}

// steady is a source of which every partition has a record now and then, for ever.
type steady struct {
	partitions []stream.Partition
	every      time.Duration
}

func newSteady(n int, every time.Duration) *steady {
	s := &steady{every: every}
	for i := range n {
		s.partitions = append(s.partitions, stream.Partition{Name: fmt.Sprintf("p%05d", i)})
	}
	return s
}

func (s *steady) Identity() string                                       { return "fleet" }
func (s *steady) Close() error                                           { return nil }
func (s *steady) Tip(context.Context) (string, error)                    { return "", nil }
func (s *steady) Partitions(context.Context) ([]stream.Partition, error) { return s.partitions, nil }

func (s *steady) Open(_ context.Context, partition string, from stream.Position, _ string) (consumers.Reader, error) {
	n, err := strconv.Atoi(strings.TrimPrefix(partition, "p"))
	return &steadyReader{every: s.every, key: "k" + strconv.Itoa(n%10), offset: s.every * time.Duration(n%97) / 97, at: from.Number}, err
}

type steadyReader struct {
	every, offset time.Duration
	key           string
	at            int64
}

func (r *steadyReader) Close() error { return nil }

// Read returns a record in every interval, at a moment of the partition's own.
func (r *steadyReader) Read(ctx context.Context) (consumers.Fetch, error) {
	now := time.Now()
	next := now.Truncate(r.every).Add(r.offset)
	if !next.After(now) {
		next = next.Add(r.every)
	}
	t := time.NewTimer(next.Sub(now))
	select {
	case <-t.C:
	case <-ctx.Done():
		t.Stop()
		return consumers.Fetch{}, ctx.Err()
	}
	r.at++
	arrived, _ := stream.At(next)
	at := stream.Position{Number: r.at}
	return consumers.Fetch{Records: []stream.Record{{Data: []byte(r.key), Position: at, Arrived: arrived}}, Next: at, State: stream.CaughtUp}, nil
}

func (r *fleetResult) print(w io.Writer) {
	fmt.Fprintf(w, "%d partitions on %d instances, a checkpoint every %gs, lease %gs: %s\n", r.Partitions, r.Instances, r.Interval, r.Lease, r.Result)
	fmt.Fprintf(w, "  everything owned after %.1fs\n", r.Started)
	for _, what := range slices.SortedFunc(maps.Keys(r.Requests), func(a, b string) int { return cmp.Compare(r.Requests[b], r.Requests[a]) }) {
		op, _, _ := strings.Cut(what, " ")
		n := float64(r.Requests[what])
		fmt.Fprintf(w, "  %-22s %9.1f a second   $%8.2f a day\n", what, n/86400, n*prices[op])
	}
	fmt.Fprintf(w, "  in all                                      $%8.2f a day\n", r.DollarsDay)
	fmt.Fprintf(w, "  merger: %.0f entries a second; its instance reads %.0f objects a second, the median instance %.0f; the slowest row comes %.1fs behind its window\n", r.MergerEntries, r.MergerGets, r.MedianGets, r.Delay)
	fmt.Fprintf(w, "  processor time: %.4f cores an instance\n", r.CPU)
	fmt.Fprintf(w, "  crash: %d partitions owned again after %.1fs (median), %.1fs (last)\n", r.TakeOver.Partitions, r.TakeOver.Median, r.TakeOver.Max)
	fmt.Fprintf(w, "  drain: %d partitions owned again after %.2fs (median), %.2fs (last)\n", r.HandOver.Partitions, r.HandOver.Median, r.HandOver.Max)
	fmt.Fprintf(w, "  join: the new instance has its share after %.1fs\n", r.Rebalanced)
}
