package stream_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/stream"
	"github.com/millstream/millstream/windows"
)

// Every rule of the protocol, the test that it is held by, and what breaks without it. The tests are
// run with the rule on elsewhere: TestSimulation, and TestScenarios below.
var ruleTests = []struct {
	rule   string
	breaks string
	test   func(t *testing.T, off ...string) error
}{
	{"freezeLate", "M1: the frontier passes a watermark whose slices are not all named: rows lack records", simulated},
	{"forgetFrozen", "M1, M6: the newest entry does not name a slice that the frontier has still to pass: rows lack records", simulated},
	{"frontierBehind", "M2: a merger that takes over merges slices again that are in its snapshot: it is stuck", simulated},
	{"childAtBeginning", "M3: a record older than what its parents have let go is counted in a row that is out", simulated},
	{"eagerChildren", "M3: a child is read beside its parents, from the frontier: its late records are not late", simulated},
	{"ignoreStart", "M3: a lane counts records below the frontier at which it was admitted", simulated},
	{"endedAtOnce", "M4: between a parent's last checkpoint and its children's admission the frontier runs ahead of them", scenario(split, killed)},
	{"ignoreUnread", "M4: the frontier does not wait for a partition that nobody has read yet", simulated},
	{"skipIdle", "M5: the frontier runs ahead of an idle lane, which still counts old records", simulated},
	{"raiseThrottled", "M5: a partition that may not be read loses its records as late", scenario(throttled, once)},
	{"idleWhileWaiting", "M5: records that wait to be enriched are late when their turn comes", scenario(waiting, once)},
	{"unordered", "M6: a window is out before its last slice is merged: the merge refuses the slice, for ever", simulated},
	{"missingIsEmpty", "M6: a slice whose object cannot be found is left out of the rows", scenario(missing, takenOver)},
	{"commitFirst", "M7, A5: rows are out that no entry knows of, and come again under another id", scenario(split, killed)},
	{"endUnfrozen", "M8: what is open when a partition ends is never merged", simulated},
	{"endUnlisted", "M8: a partition found by the last listing is never read", scenario(lastMinute, once)},
	{"readAncestors", "M3: after an import the records of a shard are counted that the other program had read", imported},
	{"ackFirst", "A5: a batch is acked whose rows are lost in a crash", scenario(direct, once)},
	{"forgetIDs", "§7: after a crash a record whose ack came too late is counted again", redelivered},
	{"dropKnown", "§7: a record whose ack was lost is counted again", redelivered},
	{"countEarly", "§7: after a crash a record is dropped as known that was decoded and never counted", redelivered},
	{"hastyWatermark", "§7: what a dead owner held is late when it comes again", redelivered},
	{"hastyEnriched", "§7: what a dead owner held, and waits to be enriched when the watermark moves, is late", redelivered},
	{"dropWaiting", "files: rows of a checkpoint that made no file are never in one", simulated},
	{"layoutOfToday", "files: after a crash the same rows are in two files, by the old layout and by the new", simulated},
	{"keepWaiting", "files: what waits when a partition ends is never in a file", simulated},
	{"noRecommit", "A5: what was saved but not committed before a crash is never delivered", scenario(split, killed)},
}

// attempts is how often a test may pass without its rule. A script says what happens when, not which
// of two goroutines that wake at the same instant runs first, and some rules hold only one order.
const attempts = 20

// TestRules switches each rule off and wants its test to fail.
func TestRules(t *testing.T) {
	names := stream.RuleNames()
	for _, r := range ruleTests {
		names = slices.DeleteFunc(names, func(n string) bool { return n == r.rule })
		t.Run(r.rule, func(t *testing.T) {
			err := r.test(t, r.rule)
			for n := 1; err == nil && n < attempts; n++ {
				err = r.test(t, r.rule)
			}
			if err == nil {
				t.Errorf("nothing broke without the rule; it should be %s", r.breaks)
			}
			t.Logf("%s\n%v", r.breaks, err)
		})
	}
	if len(names) > 0 {
		t.Errorf("rules without a test: %q", names)
	}
}

// TestScenarios runs the scenarios with every rule on.
func TestScenarios(t *testing.T) {
	for name, test := range map[string]func(*testing.T, ...string) error{"split": scenario(split, killed), "throttled": scenario(throttled, once),
		"waiting": scenario(waiting, once),
		"missing": scenario(missing, takenOver), "last minute": scenario(lastMinute, once), "direct": scenario(direct, once)} {
		t.Run(name, func(t *testing.T) {
			if err := test(t); err != nil {
				t.Error(err)
			}
		})
	}
}

// simulated runs seeds until one fails.
func simulated(t *testing.T, off ...string) error {
	for seed := uint64(1); seed <= 60; seed++ {
		if err := run(t, seed, nil, off...); err != nil {
			return fmt.Errorf("seed %d: %w", seed, err)
		}
	}
	return nil
}

// scenario is a script that is run in a certain way.
func scenario(write func() *plan, run func(*testing.T, func() *plan, ...string) error) func(*testing.T, ...string) error {
	return func(t *testing.T, off ...string) error { return run(t, write, off...) }
}

// every makes records of a partition, one a second, on time.
func every(key string, from, to int) (records []timed) {
	for i := from; i < to; i++ {
		records = append(records, at(key, i, i))
	}
	return records
}

// at is a record with an event time and an arrival, in seconds.
func at(key string, event, arrives int) timed {
	return timed{sample: sample{key, epoch.Add(time.Duration(event) * time.Second), int64(1 + event)}, arrives: time.Duration(arrives) * time.Second}
}

func written(parts ...*scripted) *plan {
	w := windows.Tumbling(slice)
	pl := &plan{rng: rand.New(rand.NewPCG(1, 1)), windows: &w, script: &script{parts: make(map[string]*scripted), fetch: 100}}
	for _, p := range parts {
		pl.script.parts[p.Name] = p
	}
	return pl
}

// split: p falls behind and ends; its child begins with a slow record that is not late.
func split() *plan {
	child := stream.Partition{Name: "c", Parents: []string{"p"}}
	return written(
		&scripted{Partition: stream.Partition{Name: "p"}, records: every("p", 0, 13), ends: 20 * time.Second, children: []stream.Partition{child}},
		&scripted{Partition: stream.Partition{Name: "q"}, records: every("q", 0, 30), ends: 30 * time.Second},
		&scripted{Partition: child, appears: 20 * time.Second, records: append([]timed{at("c", 11, 20)}, every("c", 21, 30)...), ends: 30 * time.Second})
}

// throttled: p is idle, then throttled while records come.
func throttled() *plan {
	return written(
		&scripted{Partition: stream.Partition{Name: "p"}, records: append(every("p", 0, 5), every("p", 26, 60)...), ends: 60 * time.Second,
			throttle: [2]time.Duration{25 * time.Second, 45 * time.Second}},
		&scripted{Partition: stream.Partition{Name: "q"}, records: every("q", 0, 60), ends: 60 * time.Second})
}

// waiting: p is idle, then a batch of it waits to be enriched for longer than makes a partition idle.
func waiting() *plan {
	pl := written(
		&scripted{Partition: stream.Partition{Name: "p"}, records: append(every("p", 0, 5), every("p", 26, 60)...), ends: 60 * time.Second},
		&scripted{Partition: stream.Partition{Name: "q"}, records: every("q", 0, 60), ends: 60 * time.Second})
	pl.enrich = &dawdler{from: epoch.Add(26 * time.Second), to: epoch.Add(27 * time.Second), key: "p", takes: 20 * time.Second}
	return pl
}

// lastMinute: r is found by nobody until everything else has ended.
func lastMinute() *plan {
	return written(
		&scripted{Partition: stream.Partition{Name: "p"}, records: every("p", 0, 18), ends: 18 * time.Second},
		&scripted{Partition: stream.Partition{Name: "r"}, appears: 15 * time.Second, records: every("r", 15, 30), ends: 30 * time.Second})
}

// missing: a slice so large that it is an object of its own waits for q.
func missing() *plan {
	var big []timed
	rng := rand.New(rand.NewPCG(2, 2))
	for range 5000 {
		r := at(fmt.Sprintf("%x", rng.Uint64()), 1, 1)
		big = append(big, r)
	}
	return written(
		&scripted{Partition: stream.Partition{Name: "p"}, records: append(big, every("p", 10, 60)...), ends: 60 * time.Second},
		&scripted{Partition: stream.Partition{Name: "q"}, records: append(every("q", 0, 2), every("q", 50, 60)...), ends: 60 * time.Second})
}

// direct: rows leave the lanes without windows.
func direct() *plan {
	pl := written(&scripted{Partition: stream.Partition{Name: "p"}, records: every("p", 0, 20), ends: 20 * time.Second})
	pl.windows = nil
	return pl
}

// begin starts the script in the caller's bubble.
func begin(pl *plan) *world {
	w := &world{script: pl.script, bucket: bucket.Memory(), roll: pl.roll, stages: pl.stages}
	w.start = time.Now()
	return w
}

func newGate(w *world) *gate {
	return &gate{rng: rand.New(rand.NewPCG(1, 1)), noise: 1, noisy: w.start, died: make(chan struct{})}
}

// finish waits for processes, buries them, and looks at the outcome.
func finish(pl *plan, w *world, last *instance, others ...*instance) (err error) {
	select {
	case err = <-last.done:
		last.done <- nil
	case <-time.After(virtualEnd):
		err = errors.New("it does not finish")
	}
	for _, i := range append(others, last) {
		i.kill()
		i.cancel()
		<-i.done
	}
	if err == nil || errors.Is(err, stream.ErrFinished) {
		err = pl.judge(w, nil)
	}
	if n := w.early.Load(); n > 0 && err == nil {
		err = fmt.Errorf("%d batches were acked before their rows were delivered", n)
	}
	return err
}

// once runs a script with one process, undisturbed.
func once(t *testing.T, write func() *plan, off ...string) (err error) {
	synctest.Test(t, func(*testing.T) {
		pl := write()
		w := begin(pl)
		err = finish(pl, w, w.launch(pl.pipeline(off), newGate(w)))
	})
	return err
}

// takenOver kills the process in mid-run; the next one does not find a slice's object at first.
func takenOver(t *testing.T, write func() *plan, off ...string) (err error) {
	synctest.Test(t, func(*testing.T) {
		pl := write()
		w := begin(pl)
		launch := func(missing int) *instance {
			p := pl.pipeline(off)
			p.IdleAfter = time.Hour
			g := newGate(w)
			g.missing = missing
			return w.launch(p, g)
		}
		first := launch(0)
		<-time.After(20 * time.Second)
		first.kill()
		second := launch(3)
		err = finish(pl, w, second, first)
		if err == nil && second.missing > 0 {
			err = errors.New("no object was missing")
		}
	})
	return err
}

// killed kills the process at each of its writes in turn; another one takes over.
func killed(t *testing.T, write func() *plan, off ...string) (err error) {
	for n := 1; err == nil; n++ {
		died := false
		synctest.Test(t, func(*testing.T) {
			pl := write()
			w := begin(pl)
			g := newGate(w)
			g.killAt = n
			first := w.launch(pl.pipeline(off), g)
			select {
			case <-g.died:
				died = true
				err = finish(pl, w, w.launch(pl.pipeline(off), newGate(w)), first)
			case e := <-first.done:
				first.done <- e
				err = finish(pl, w, first)
			}
		})
		if err != nil {
			return fmt.Errorf("killed at write %d: %w", n, err)
		}
		if !died {
			if n < 30 {
				return fmt.Errorf("only %d writes", n)
			}
			return nil
		}
	}
	return err
}
