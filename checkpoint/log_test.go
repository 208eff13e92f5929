package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/bucket/buckettest"
	"github.com/millstream/millstream/stream"
)

// start runs a worker until the returned function, or the test, stops it.
func start(t *testing.T, w *worker, serve func(*stream.Assignment) error) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.store.Group().Run(ctx, w.src, serve) }()
	return func() error { cancel(); return <-done }
}

func TestDoubtEndsTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newIll(bucket.Memory())
		o := mustClaim(t, open(t, config(b)), "a")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		b.spoil(fail("create", "log/a/", -1))
		if err := o.Append(ctx, checkpointAt(1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("in doubt: %v", err)
		}
		b.spoil()
		if err := o.Append(t.Context(), checkpointAt(2)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after a doubt: %v", err)
		}
		if _, err := o.WriteObject(t.Context(), "rows", bytesTo("x")); err == nil {
			t.Error("an object for a log that is over")
		}
	})
}

func TestElapsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, config(bucket.Memory()))
		o := mustClaim(t, s, "a")
		for _, d := range []time.Duration{0, time.Second, 5 * time.Second} {
			<-time.After(d)
			e := checkpointAt(1)
			if err := o.Append(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			if saved, err := s.read(t.Context(), "a", e.Number); err != nil || saved.Elapsed != d || saved.Nonce == "" || saved.Genesis != o.genesis || saved.Plan.Changed(plan) != "" {
				t.Errorf("%+v, %v", saved, err)
			}
		}
	})
}

// TestDeletingHoldsNothingUp lets every delete hang for ever.
func TestDeletingHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newIll(bucket.Memory())
		b.spoil(func(op, name string) buckettest.Fault {
			if op == "delete" && strings.Contains(name, "/log/") {
				return buckettest.Fault{Hold: make(chan struct{})}
			}
			return buckettest.Fault{}
		})
		cfg := config(b)
		cfg.Keep = 1
		w := newWorker(open(t, cfg), "a", "b")
		stop := start(t, w, w.serve)
		<-time.After(100 * time.Second)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if b.Met("delete") == 0 {
			t.Fatal("nothing was deleted: the test shows nothing")
		}
		if p := w.store.follow("b").state().base.Position.Number; p < 95 {
			t.Errorf("only %d checkpoints in 100 s", p)
		}
	})
}

// TestStuckSibling lets one partition hang in a call that knows no context.
func TestStuckSibling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newIll(bucket.Memory())
		w := newWorker(open(t, config(b)), "a", "b")
		unstick := make(chan struct{})
		var stuck atomic.Pointer[stream.Assignment]
		stop := start(t, w, func(a *stream.Assignment) error {
			if a.Partition == "a" && stuck.CompareAndSwap(nil, a) {
				<-unstick
				return errStore
			}
			return w.serve(a)
		})
		<-time.After(20 * time.Second)
		b.spoil(fail("put", "members/", 20)) // and then the lease is lost
		<-time.After(100 * time.Second)
		select {
		case <-stuck.Load().Lost:
		default:
			t.Error("the stuck assignment is not lost")
		}
		if as := w.claimed("b"); len(as) != 2 {
			t.Errorf("b was claimed %d times", len(as))
		}
		if as := w.claimed("a"); len(as) != 0 {
			t.Error("a was claimed while it was still being served")
		}
		close(unstick)
		<-time.After(10 * time.Second)
		if as := w.claimed("a"); len(as) != 1 {
			t.Errorf("a was claimed %d times after it came loose", len(as))
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestFollowing counts what it costs to follow logs.
func TestFollowing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newIll(bucket.Memory())
		s := open(t, config(b))
		mine, _ := mustClaim(t, s, "mine"), mustClaim(t, open(t, config(b)), "other")
		mine.follower.own(1)
		ask := func(partition string, times int) (gets int) {
			before := b.count("get") + b.count("list")
			for range times {
				if _, err := mine.Newest(t.Context(), partition); err != nil {
					t.Fatal(err)
				}
			}
			return b.count("get") + b.count("list") - before
		}
		if n := ask("mine", 100); n != 0 {
			t.Errorf("what this process owns costs %d requests", n)
		}
		if n := ask("other", 100); n > 4 {
			t.Errorf("100 questions at once about another's partition cost %d requests", n)
		}
		mine.fill(t, 1, 1)
		if e, err := mine.Newest(t.Context(), "mine"); err != nil || e.Position.Number != 1 {
			t.Errorf("%+v, %v", e, err)
		}
		// A store that does not answer changes nothing about what is saved.
		b.spoil(fail("get", "log/", -1), fail("list", "log/", -1))
		<-time.After(time.Minute)
		if e, err := mine.Newest(t.Context(), "other"); err != nil || e != nil {
			t.Errorf("%+v, %v", e, err)
		}
	})
}

func TestChangedWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mustClaim(t, open(t, config(bucket.Memory())), "a")
		news := o.Changed()
		select {
		case <-news:
			t.Fatal("news of nothing")
		default:
		}
		o.fill(t, 1, 1)
		<-news
	})
}

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bucket.Memory()
		w := newWorker(open(t, config(b)), "a")
		stop := start(t, w, w.serve)
		<-time.After(20 * time.Second)
		clock := w.claimed("a")[0].Log.Clock
		if d := time.Since(clock()); d != 0 {
			t.Errorf("alone, the clock is %s old", d)
		}
		other := newMember(open(t, config(b)))
		if err := other.write(t.Context()); err != nil {
			t.Fatal(err)
		}
		wrote := time.Now()
		<-time.After(14 * time.Second)
		if got := clock(); !got.Equal(wrote) {
			t.Errorf("the clock is %s, not the other member's %s", got, wrote)
		}
		<-time.After(time.Minute)
		if d := time.Since(clock()); d != 0 {
			t.Errorf("with a dead member the clock is %s old", d)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestDamagedMerger: nothing can go on without the merger's log, so the run ends, and says which
// object it is.
func TestDamagedMerger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bucket.Memory()
		s := open(t, config(b))
		runFor(t, s, 5*time.Second, "a")
		opened := open(t, config(b))
		name := "p/" + entryName(stream.MergerPartition, s.follow(stream.MergerPartition).state().number()+1)
		if err := b.Put(t.Context(), name, []byte("MSE\x01 and nothing that makes sense")); err != nil {
			t.Fatal(err)
		}
		var damaged *Damaged
		if _, err := Open(t.Context(), config(b)); !errors.As(err, &damaged) || damaged.Object != name {
			t.Errorf("open: %v", err)
		}
		if err := newWorker(opened, "a").run(t.Context()); !errors.As(err, &damaged) || damaged.Object != name {
			t.Errorf("run: %v", err)
		}
	})
}

func TestCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bucket.Memory()
		w := newWorker(open(t, config(b)), "a", "b")
		stop := start(t, w, func(a *stream.Assignment) error {
			a.Report(stream.Status{RecordsIn: 42, Newest: 3})
			return w.serve(a)
		})
		<-time.After(10 * time.Second)
		// Looking needs no plan, and sees what everybody sees.
		s := open(t, Config{Bucket: b, Name: "p"})
		infos, err := s.List(t.Context())
		if err != nil || len(infos) != 3 || infos[0].Partition != stream.MergerPartition {
			t.Fatalf("%+v, %v", infos, err)
		}
		a := infos[1]
		if a.Partition != "a" || a.Kind != stream.KindCheckpoint || a.Saved.Number != a.Newest || a.Status == nil || a.Status.RecordsIn != 42 || a.Age > 5*time.Second || a.Owner == "" {
			t.Errorf("%+v", a)
		}
		if e, err := s.Show(t.Context(), "a", 1); err != nil || e.Kind != stream.KindClaim {
			t.Errorf("%+v, %v", e, err)
		}
		for _, bad := range []struct {
			partition string
			number    uint64
			want      string
		}{{"a", 99, "has no entry 99: it has"}, {"z", 1, "partition z has no log in mem:/p"}} {
			if _, err := s.Show(t.Context(), bad.partition, bad.number); err == nil || !strings.Contains(err.Error(), bad.want) {
				t.Errorf("show %s %d: %v", bad.partition, bad.number, err)
			}
		}
		if ended, err := s.Ended(t.Context()); ended || err != nil {
			t.Error(ended, err)
		}
		if err := s.Group().Run(t.Context(), partitions{"a"}, nil); err == nil {
			t.Error("a store without a plan claims")
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		ends, err := s.Ends(t.Context())
		if err != nil || len(ends) != 2 || ends["a"].Number < 8 {
			t.Errorf("%+v, %v", ends, err)
		}
	})
}

func TestNames(t *testing.T) {
	for _, name := range []string{"", "Orders", "a/b", "a b", ".", "..", "ä"} {
		if _, err := Open(t.Context(), Config{Bucket: bucket.Memory(), Name: name}); err == nil {
			t.Errorf("pipeline name %q", name)
		}
	}
	for _, bad := range []string{"1", "00000000000000000001.tmp", "0000000000000000000x", "+0000000000000000001", "99999999999999999999", ""} {
		if n, ok := number(bad); ok {
			t.Errorf("%q is entry %d", bad, n)
		}
	}
	if n, ok := number("00000000000000000041"); !ok || n != 41 {
		t.Error(n, ok)
	}
}

func TestShare(t *testing.T) {
	var all, members []string
	for i := range 37 {
		all = append(all, fmt.Sprintf("shard-%d", i))
	}
	before := make(map[string]string)
	for n := 1; n <= 6; n++ {
		members = append(members, fmt.Sprintf("member-%d", n))
		now := make(map[string]string)
		for i, m := range members {
			turned := append(slices.Clone(members[i:]), members[:i]...) // the order does not matter
			ours := share(m, turned, all)
			if len(ours) < len(all)/n || len(ours) > len(all)/n+1 {
				t.Errorf("%d members: one has %d of %d", n, len(ours), len(all))
			}
			for _, p := range ours {
				if now[p] != "" {
					t.Errorf("%s is both %s's and %s's", p, now[p], m)
				}
				now[p] = m
			}
		}
		if len(now) != len(all) {
			t.Errorf("%d members: %d of %d partitions are anybody's", n, len(now), len(all))
		}
		moved := 0
		for p, m := range now {
			if before[p] != "" && before[p] != m {
				moved++
			}
		}
		if n > 1 && moved > 2*len(all)/n {
			t.Errorf("the member number %d moves %d of %d partitions", n, moved, len(all))
		}
		before = now
	}
}

// TestMoves: a second member gets its share, one orderly move after the other.
func TestMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bucket.Memory()
		src := []string{"a", "b", "c", "d", "e"}
		first, second := newWorker(open(t, config(b)), src...), newWorker(open(t, config(b)), src...)
		stopFirst := start(t, first, first.serve)
		<-time.After(20 * time.Second)
		stopSecond := start(t, second, second.serve)
		<-time.After(time.Minute)
		moved := 0
		for _, p := range append(src, stream.MergerPartition) {
			for _, a := range second.claimed(p) {
				moved++
				if !a.Committed {
					t.Errorf("%s was taken, not released", p)
				}
			}
		}
		if moved != 3 {
			t.Errorf("the second member got %d of 6 partitions", moved)
		}
		if err := errors.Join(stopSecond(), stopFirst()); err != nil {
			t.Error(err)
		}
	})
}

func TestBootTime(t *testing.T) {
	before := bootTime()
	done := time.After(2 * time.Millisecond)
	<-done
	if d := bootTime() - before; d < 2*time.Millisecond || d > time.Minute {
		t.Errorf("the boot clock went on by %s in 2 ms", d)
	}
}
