package checkpointtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/checkpoint"
	"github.com/millstream/millstream/stream"
)

// Options say how to run the suite.
type Options struct {
	// Open returns an empty bucket, or an empty corner of one. The suite closes it.
	Open func(t *testing.T) bucket.Bucket
	// Virtual runs everything in virtual time: for buckets that never wait for anything real.
	Virtual bool
	// Lease in real time. Default 1 s. Several times the slowest request.
	Lease time.Duration
	// Every is how many calls lie between two crash points. Default 1 in virtual time, 13 in real time.
	Every int
	// Seeds is how many simulations to run. Default 20 in virtual time, 1 in real time. They are
	// numbered from First on.
	Seeds, First int
}

// suite is one run of the suite over one kind of bucket.
type suite struct{ Options }

// Suite runs the whole suite.
func Suite(t *testing.T, o Options) {
	if o.Lease == 0 {
		o.Lease = time.Second
	}
	if o.Virtual {
		o.Lease = 15 * time.Second
	}
	seeds, every := 1, 13
	if o.Virtual {
		seeds, every = 20, 1
	}
	if o.Seeds == 0 {
		o.Seeds = seeds
	}
	if o.Every == 0 {
		o.Every = every
	}
	s := suite{o}
	for _, c := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"store", s.store},
		{"one process", s.one},
		{"drain and go on", s.drain},
		{"ids stay", s.ids},
		{"single winner", s.winner},
		{"take-over", s.takeOver},
		{"zombie", s.zombie},
		{"retention", s.retention},
	} {
		t.Run(c.name, func(t *testing.T) { s.in(t, c.run) })
	}
	t.Run("crash between any two calls", s.crashes)
	t.Run("simulation", s.simulations)
}

// in runs f in the suite's kind of time.
func (s suite) in(t *testing.T, f func(t *testing.T)) {
	if !s.Virtual {
		t.Parallel() // most of real time is waiting for leases
	}
	s.alone(t, f)
}

func (s suite) alone(t *testing.T, f func(t *testing.T)) {
	if s.Virtual {
		synctest.Test(t, f)
		return
	}
	f(t)
}

func (s suite) world(t *testing.T, until int64, partitions ...string) *world {
	t.Helper()
	b := s.Open(t)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{bucket: b, src: partitions, until: until, every: s.Lease / 15, lease: s.Lease, keep: 1 << 30, blob: 100}
}

// finish runs one more process to the pipeline's end.
func (w *world) finish(ctx context.Context) error {
	p := w.process()
	if err := p.start(ctx); err != nil {
		return err
	}
	<-p.done
	if errors.Is(p.err, stream.ErrFinished) {
		return nil
	}
	return p.err
}

// check reads all the logs and makes sure that each tells one story to its end.
func (w *world) check(ctx context.Context) error {
	w.late.Wait()
	s, err := checkpoint.Open(ctx, checkpoint.Config{Bucket: w.bucket, Name: "test"})
	if err != nil {
		return err
	}
	infos, err := s.List(ctx)
	if err != nil {
		return err
	}
	if len(infos) != len(w.src)+1 {
		return fmt.Errorf("%d logs of %d", len(infos), len(w.src)+1)
	}
	for _, info := range infos {
		if err := story(ctx, s, info); err != nil {
			return fmt.Errorf("log %s: %w", info.Partition, err)
		}
		if info.Partition != stream.MergerPartition && info.Saved.Position.Number != w.until {
			return fmt.Errorf("log %s ends at %d", info.Partition, info.Saved.Position.Number)
		}
	}
	l, err := s.Ledger(ctx)
	if want := w.until * int64(len(w.src)); err != nil || l.RecordsIn != want || l.Imbalance() != 0 {
		return fmt.Errorf("ledger %+v, %w; records in should be %d", l, err, want)
	}
	return nil
}

// story checks one whole log.
func story(ctx context.Context, s *checkpoint.Store, info checkpoint.Info) error {
	var base, claim *stream.Entry
	var genesis string
	nonces := make(map[string]bool)
	count := func() int64 {
		if base == nil || base.Kind == stream.KindReset {
			return 0
		}
		return base.Position.Number
	}
	for n := uint64(1); n <= info.Newest; n++ {
		e, err := s.Show(ctx, info.Partition, n)
		if err != nil {
			return err
		}
		at := fmt.Sprintf("entry %d (%s of %s)", n, e.Kind, e.Owner)
		if n == 1 {
			genesis = e.Nonce
		}
		switch {
		case nonces[e.Nonce]:
			return errors.New(at + " has the nonce of another")
		case e.Genesis != genesis:
			return errors.New(at + " is of another genesis")
		case base != nil && base.Kind == stream.KindEnd:
			return errors.New(at + " comes after the end")
		}
		nonces[e.Nonce] = true
		switch e.Kind {
		case stream.KindClaim:
			want := uint64(0)
			if base != nil {
				want = base.Number
			}
			if e.Base != want {
				return fmt.Errorf("%s restores %d, not %d", at, e.Base, want)
			}
			claim = e
			continue
		case stream.KindReset:
			base, claim = e, nil
			continue
		}
		if claim == nil || claim.Owner != e.Owner {
			return errors.New(at + " has no claim")
		}
		switch e.Kind {
		case stream.KindCheckpoint:
			if e.Position.Number != count()+1 {
				return fmt.Errorf("%s counts %d after %d", at, e.Position.Number, count())
			}
			base = e
		case stream.KindRelease:
			claim = nil
		case stream.KindEnd:
			base = e
		}
	}
	if base == nil || base.Kind != stream.KindEnd {
		return errors.New("no end")
	}
	return nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s suite) store(t *testing.T) {
	b := s.Open(t)
	must(t, bucket.Check(t.Context(), b))
	must(t, b.Close())
}

func (s suite) one(t *testing.T) {
	w := s.world(t, 20, "a", "b/c", "..", "d e%", "é")
	must(t, w.finish(t.Context()))
	must(t, w.check(t.Context()))
	p := w.process()
	must(t, p.start(t.Context()))
	if <-p.done; !errors.Is(p.err, stream.ErrFinished) {
		t.Errorf("a finished pipeline, run again: %v", p.err)
	}
}

// drain stops and starts processes in good order: each goes on at once where the last one was.
func (s suite) drain(t *testing.T) {
	w := s.world(t, 30, "a", "b")
	w.claimed = make(chan claim, 1000)
	started := time.Now()
	for range 3 {
		p := w.process()
		must(t, p.start(t.Context()))
		for seen := make(map[string]bool); len(seen) < 3; {
			c := <-w.claimed
			seen[c.Partition] = true
			if c.Base != nil && !c.Committed {
				t.Errorf("%s, claim %d: a release stands between, and the base does not count as committed", c.Partition, c.Claim)
			}
		}
		must(t, p.stop())
	}
	if took := time.Since(started); s.Virtual && took > s.Lease {
		t.Errorf("three orderly restarts took %s: somebody waited for a lease", took)
	}
	must(t, w.finish(t.Context()))
	must(t, w.check(t.Context()))
}

// ids makes sure that an id means one entry for ever.
func (s suite) ids(t *testing.T) {
	w := s.world(t, 1000, "a")
	w.claimed = make(chan claim, 1000)
	next := func() (stream.CheckpointID, *process) {
		p := w.process()
		must(t, p.start(t.Context()))
		for c := range w.claimed {
			if c.Partition == "a" {
				return c.Log.Next(), p
			}
		}
		panic("unreachable")
	}
	first, p := next()
	must(t, p.stop())
	second, p := next()
	must(t, p.stop())
	if first.Genesis != second.Genesis || second.Number <= first.Number {
		t.Errorf("a restart goes from %s to %s", first, second)
	}
	reset, err := p.store.Reset(t.Context())
	if err != nil || len(reset) != 2 {
		t.Fatal(reset, err)
	}
	third, p := next()
	must(t, p.stop())
	if third.Genesis != first.Genesis || third.Number <= second.Number {
		t.Errorf("a reset goes from %s to %s", second, third)
	}
	names, err := w.bucket.List(t.Context(), "test/")
	must(t, err)
	for _, name := range names {
		must(t, w.bucket.Delete(t.Context(), name))
	}
	fourth, p := next()
	must(t, p.stop())
	if fourth.Genesis == first.Genesis {
		t.Errorf("a wiped log goes from %s to %s: ids come again", third, fourth)
	}
}

// winner starts many processes at once.
func (s suite) winner(t *testing.T) {
	w := s.world(t, 40, "a", "b", "c", "d", "e")
	var wait sync.WaitGroup
	for range 5 {
		wait.Go(func() {
			if err := w.finish(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	must(t, w.check(t.Context()))
}

// takeOver kills an owner: others wait a lease, and not much longer.
func (s suite) takeOver(t *testing.T) {
	w := s.world(t, 1000, "a")
	w.claimed = make(chan claim, 1000)
	first := w.process()
	must(t, first.start(t.Context()))
	for c := range w.claimed {
		if c.Partition == "a" {
			break
		}
	}
	second := w.process()
	must(t, second.start(t.Context()))
	first.crash()
	died := time.Now()
	<-first.done
	for c := range w.claimed {
		if c.Partition != "a" || c.Base == nil && c.Claim == 1 {
			continue
		}
		if c.Committed {
			t.Error("nobody released, but the base counts as committed")
		}
		break
	}
	if took := time.Since(died); took < s.Lease/2 || s.Virtual && took > 2*s.Lease {
		t.Errorf("the take-over came %s after the death, with a lease of %s", took, s.Lease)
	}
	must(t, second.stop())
}

// zombie freezes an owner in the middle of its work until another has taken over, and wakes it.
func (s suite) zombie(t *testing.T) {
	at := []int{5, 9, 15, 21, 30}
	if !s.Virtual {
		at = at[3:4]
	}
	for _, calls := range at {
		w := s.world(t, 40, "a")
		w.claimed = make(chan claim, 1000)
		first := w.process()
		must(t, first.start(t.Context()))
		<-w.claimed
		for first.calls() < calls {
			must(t, pause(t.Context(), w.every/4))
		}
		thaw := first.freeze()
		second := w.process()
		must(t, second.start(t.Context()))
		for taken := map[string]bool{}; len(taken) < 2; {
			second.mu.Lock()
			for _, c := range second.seen {
				taken[c.Partition] = true
			}
			second.mu.Unlock()
			must(t, pause(t.Context(), w.every))
		}
		thaw()
		<-first.done
		<-second.done
		must(t, first.err)
		must(t, second.err)
		must(t, w.check(t.Context()))
	}
}

func (p *process) calls() int {
	p.wire.mu.Lock()
	defer p.wire.mu.Unlock()
	return p.wire.calls
}

// retention deletes nothing that is named, and no claim.
func (s suite) retention(t *testing.T) {
	w := s.world(t, 30, "a")
	w.keep, w.blob = 3, 64<<10
	w.claimed = make(chan claim, 1000)
	claims := make(map[string]bool)
	for range 3 {
		p := w.process()
		must(t, p.start(t.Context()))
		for c := range w.claimed {
			if c.Partition == "a" {
				claims[fmt.Sprintf("test/log/a/%020d", c.Claim)] = true
				break
			}
		}
		must(t, pause(t.Context(), 5*w.every))
		must(t, p.stop())
	}
	must(t, w.finish(t.Context()))
	store, err := checkpoint.Open(t.Context(), checkpoint.Config{Bucket: w.bucket, Name: "test"})
	must(t, err)
	names, err := w.bucket.List(t.Context(), "test/")
	must(t, err)
	there := make(map[string]bool)
	for _, name := range names {
		there[name] = true
	}
	for name := range claims {
		if !there[name] {
			t.Errorf("claim %s is gone", name)
		}
	}
	entries := 0
	for name := range there {
		if !strings.HasPrefix(name, "test/log/a/") {
			continue
		}
		entries++
		var n uint64
		if _, err := fmt.Sscanf(strings.TrimPrefix(name, "test/log/a/"), "%d", &n); err != nil {
			t.Fatal(err)
		}
		e, err := store.Show(t.Context(), "a", n)
		must(t, err)
		e.Blobs(func(b *stream.Blob) {
			if b.Object != "" && !there["test/"+b.Object] {
				t.Errorf("entry %d names %s, which is gone", n, b.Object)
			}
		})
	}
	if entries > 25 {
		t.Errorf("%d entries are kept of 30 checkpoints, with keep 3", entries)
	}
}

// crashes lets a process die at every single call to the store, once before the call is carried out
// and once after, and another one go on.
func (s suite) crashes(t *testing.T) {
	calls := 0
	s.alone(t, func(t *testing.T) {
		w := s.world(t, 12, "a", "b")
		p := w.process()
		must(t, p.start(t.Context()))
		<-p.done
		must(t, p.err)
		calls = p.calls()
	})
	// The number of calls varies a little: the last ones may not be reached.
	calls -= 5
	for _, before := range []bool{true, false} {
		for at := 1; at <= calls; at += s.Every {
			t.Run(fmt.Sprintf("call %d, carried out %v", at, !before), func(t *testing.T) {
				s.in(t, func(t *testing.T) {
					w := s.world(t, 12, "a", "b")
					p := w.process()
					p.wire.crashAt, p.wire.before = at, before
					if p.start(t.Context()) == nil {
						<-p.done
					}
					if !p.wire.dead {
						t.Error("the crash did not take place")
					}
					must(t, w.finish(t.Context()))
					must(t, w.check(t.Context()))
				})
			})
		}
	}
}

// simulations run processes over unreliable wires, which come and go in good order and in bad.
func (s suite) simulations(t *testing.T) {
	for seed := range s.Seeds {
		t.Run(fmt.Sprintf("seed %d", s.First+seed), func(t *testing.T) {
			s.in(t, func(t *testing.T) { s.simulate(t, uint64(s.First+seed)) })
		})
	}
}

func (s suite) simulate(t *testing.T, seed uint64) {
	w := s.world(t, 60, "a", "b", "c", "d")
	ill := 20 * s.Lease
	if !s.Virtual {
		w.until, ill = 30, 4*s.Lease
	}
	r := rand.New(rand.NewPCG(seed, 7))
	var mu sync.Mutex
	random := func(d time.Duration) time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return time.Duration(r.ExpFloat64() * float64(d))
	}
	wires := func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		return r.Uint64()
	}
	crashed, frozen, drained := 0, 0, 0
	did := func(n *int) { mu.Lock(); *n++; mu.Unlock() }
	ctx, healthy := context.WithTimeout(t.Context(), ill)
	defer healthy()
	var wait sync.WaitGroup
	for slot := range 3 {
		wait.Go(func() {
			for life := uint64(0); ctx.Err() == nil; life++ {
				p := w.process()
				p.wire.random = rand.New(rand.NewPCG(seed, wires()))
				if p.start(ctx) != nil {
					life-- // the store did not answer
					continue
				}
				_ = pause(ctx, random(ill/5))
				switch (life + uint64(slot)) % 3 {
				case 0:
					p.crash()
					did(&crashed)
				case 1:
					thaw := p.freeze()
					_ = pause(ctx, random(2*s.Lease))
					thaw()
					_ = pause(ctx, random(s.Lease))
					did(&frozen)
				default:
					did(&drained)
				}
				if err := p.stop(); err != nil && !errors.Is(err, stream.ErrFinished) {
					t.Errorf("slot %d: %v", slot, err)
				}
			}
		})
	}
	wait.Wait()
	must(t, w.finish(t.Context()))
	if err := w.check(t.Context()); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	if crashed == 0 || frozen == 0 || drained == 0 {
		t.Errorf("seed %d: %d crashes, %d freezes, %d drains: a fault did not take place", seed, crashed, frozen, drained)
	}
}
