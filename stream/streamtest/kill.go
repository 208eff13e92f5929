package streamtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/stream"
)

// KillEverywhere runs records, dealt to two partitions, through the pipeline once undisturbed, then
// again for every step of that run: every call of the store or of a sink, and every batch handled. In
// such a run the process dies at its n-th step: this and every later call fails without effect, or,
// in a second round, the n-th call takes effect and its answer is lost. Another process waits for the
// lease, takes over and runs to the end. The rows, the dead letters and the ledger must be those of
// the undisturbed run.
//
// Time is virtual: it makes bubbles of its own, and must not be called inside one. The functions of
// the pipeline are called from several bubbles, one after the other.
func KillEverywhere[E, R any](t *testing.T, p *stream.Pipeline[E, R], records ...stream.Record) {
	t.Helper()
	for _, failure := range killEverywhere(t, p, records, nil) {
		t.Error(failure)
	}
}

var errKilled = errors.New("the process is dead")

// killer counts steps, and kills at one of them.
type killer struct {
	at    int  // 0: never
	lost  bool // the last call takes effect
	mu    sync.Mutex
	steps int
	last  string        // the step at which the process died
	dead  chan struct{} // closed then
}

func (k *killer) step(what string) Fate {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.steps++
	switch {
	case k.at == 0 || k.steps < k.at:
		return Fate{}
	case k.steps > k.at:
		return Fate{Fail: errKilled}
	}
	k.last = what
	close(k.dead)
	if k.lost {
		return Fate{Reply: errKilled}
	}
	return Fate{Fail: errKilled}
}

const maxFailures = 5

// killEverywhere returns what went wrong. wrap stands between the pipeline and the sink.
func killEverywhere[E, R any](t *testing.T, p *stream.Pipeline[E, R], records []stream.Record, wrap func(*Sink) stream.Sink) (failures []string) {
	t.Helper()
	run := Run{Partitions: deal(records), BatchRecords: max(1, len(records)/8), Pace: time.Second, CheckpointEvery: time.Second}
	want, k, err := killOnce(t, p, run, &killer{}, wrap)
	if err != nil {
		return []string{fmt.Sprintf("undisturbed: %v", err)}
	}
	killed := 0
	for _, lost := range []bool{false, true} {
		for at := 1; at <= k.steps && len(failures) < maxFailures; at++ {
			got, k, err := killOnce(t, p, run, &killer{at: at, lost: lost}, wrap)
			if k.last == "" {
				continue // this run was a step shorter
			}
			killed++
			if err == nil {
				err = compare(want, got)
			}
			if err != nil {
				failures = append(failures, fmt.Sprintf("killed at step %d (%s, answer lost: %t): %v", at, k.last, lost, err))
			}
		}
	}
	if len(failures) == 0 && killed < k.steps {
		failures = append(failures, fmt.Sprintf("this showed little: only %d of %d runs came to the step at which they were to die; do the pipeline's functions give the same answers each time?", killed, 2*k.steps))
	}
	return failures
}

// deal gives every other record to the second partition.
func deal(records []stream.Record) map[string][]stream.Record {
	ps := map[string][]stream.Record{"0": nil, "1": nil}
	for i, r := range records {
		name := fmt.Sprint(i % 2)
		ps[name] = append(ps[name], r)
	}
	return ps
}

// killOnce is one run in a bubble.
func killOnce[E, R any](t *testing.T, p *stream.Pipeline[E, R], run Run, k *killer, wrap func(*Sink) stream.Sink) (result Result, _ *killer, err error) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		k.dead = make(chan struct{})
		<-time.After(time.Until(latest(p, run.Partitions)))
		w := newWorld(run)
		quiet := slog.New(slog.DiscardHandler)
		process := func(i instance) (*instance, error) {
			i.logger = quiet
			if wrap != nil {
				i.sink = wrap(w.sink)
			}
			return launch(p, w, i)
		}
		first, launched := process(instance{decide: func(op Op) Fate { return k.step(op.Kind + " " + op.Name) },
			handle: func() error { return k.step("batch").Fail }})
		if launched == nil {
			defer func() { _ = first.stop() }() // its errors are those of the dying
			select {
			case err = <-first.done:
				first.done <- nil
			case <-k.dead:
			}
		} else if err = launched; errors.Is(err, errKilled) {
			err = nil // it died while it started
		}
		if err == nil && k.last != "" {
			err = takeOver(process)
		}
		if err == nil {
			result, err = w.result()
		}
	})
	return result, k, err
}

// takeOver runs a second process to the end.
func takeOver(process func(instance) (*instance, error)) error {
	second, err := process(instance{strict: true})
	if err != nil {
		return err
	}
	select {
	case err := <-second.done:
		if errors.Is(err, stream.ErrFinished) { // the first one had come to the end
			return nil
		}
		return err
	case <-time.After(time.Hour):
		return errors.Join(errors.New("the process that took over did not finish within an hour"), second.stop())
	}
}

// latest is the largest event time, so that nothing lies in the future of a bubble.
func latest[E, R any](p *stream.Pipeline[E, R], partitions map[string][]stream.Record) time.Time {
	decode := p.Decode
	if p.NewDecoder != nil {
		d := p.NewDecoder()
		decode = func(r *stream.Record) (e stream.Event[E], err error) { d.Reset(); err = d.Decode(r, &e); return e, err }
	}
	last := time.Now()
	for _, records := range partitions {
		for i := range records {
			func() {
				defer func() { _ = recover() }() // a panic is that record's dead letter
				if e, err := decode(&records[i]); err == nil && e.Time.Finite() && e.Time.Time().After(last) && e.Time.Time().Before(last.AddDate(100, 0, 0)) {
					last = e.Time.Time()
				}
			}()
		}
	}
	return last
}

// compare says what is missing, and what is there too often.
func compare(want, got Result) error {
	if want.Ledger != got.Ledger {
		return fmt.Errorf("ledger %+v, undisturbed %+v", got.Ledger, want.Ledger)
	}
	count := make(map[string]int)
	for n, r := range map[int]Result{-1: want, 1: got} {
		for _, row := range r.Rows {
			count[fmt.Sprintf("row %s %s", row.Key, row.Data)] += n
		}
		for _, d := range r.DeadLetters {
			text, err := json.Marshal(d)
			if err != nil {
				return err
			}
			count["dead letter "+string(text)] += n
		}
	}
	for _, what := range slices.Sorted(maps.Keys(count)) {
		switch n := count[what]; {
		case n > 0:
			return fmt.Errorf("%d times too often: %s", n, what)
		case n < 0:
			return fmt.Errorf("%d times missing: %s", -n, what)
		}
	}
	return nil
}
