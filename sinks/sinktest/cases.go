package sinktest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/millstream/millstream/stream"
)

// mostCalls bounds how many calls of one delivery are disturbed in turn.
const mostCalls = 50

// several rows take a stream sink several requests.
const several = 1200

// once: every row of every entry is seen, once, as it was.
func once(ctx context.Context, d *Destination) error {
	s, err := d.Open(nil)
	if err != nil {
		return err
	}
	entries := []entry{entryOf(idOf(1), 1, 0), entryOf(idOf(2), 7, 100), entryOf(idOf(20), several, 10)}
	part := idOf(20)
	part.Part = 1
	entries = append(entries, entryOf(part, 3, 0))
	for i, e := range entries {
		if err := deliver(ctx, s, e); err != nil {
			return err
		}
		if err := check(ctx, d, justOnce, entries[:i+1]...); err != nil {
			return err
		}
	}
	return nil
}

// again: the same entry by the same sink and by its successors.
func again(ctx context.Context, d *Destination) error {
	e, next := entryOf(idOf(1), several, 0), entryOf(idOf(2), 3, 0)
	for range 3 {
		s, err := d.Open(nil)
		if err != nil {
			return err
		}
		for range 2 {
			if err := deliver(ctx, s, e); err != nil {
				return fmt.Errorf("delivered again: %w", err)
			}
		}
		if err := deliver(ctx, s, next); err != nil {
			return err
		}
	}
	return check(ctx, d, asPromised, e, next)
}

// at disturbs one call, and tells whether there was one.
func at(call int, f Fault) (Hook, *atomic.Bool) {
	met := new(atomic.Bool)
	return func(n int) Fault {
		if n != call {
			return Fault{}
		}
		met.Store(true)
		return f
	}, met
}

// crash: the process dies before or after each of its calls. Until a successor comes nothing is seen
// that was not delivered, then everything; a delivery that returned nil needs no successor.
func crash(ctx context.Context, d *Destination) error {
	var past []entry
	number := uint64(0)
	for call := 1; call <= mostCalls; call++ {
		for _, after := range []bool{false, true} {
			number++
			e := entryOf(idOf(number), several, 0)
			past = append(past, e)
			hook, met := at(call, Fault{Killed: true, Lost: after})
			s, err := d.Open(hook)
			if err != nil {
				return err
			}
			how := asPromised
			if err := deliver(ctx, s, e); err != nil {
				how = someMissing
			}
			where := fmt.Sprintf("killed at call %d, the call done: %t", call, after)
			if err := check(ctx, d, how, past...); err != nil {
				return fmt.Errorf("%s: %w", where, err)
			}
			successor, err := d.Open(nil)
			if err != nil {
				return err
			}
			if err := deliver(ctx, successor, e); err != nil {
				return fmt.Errorf("%s, then a successor: %w", where, err)
			}
			if err := check(ctx, d, asPromised, past...); err != nil {
				return fmt.Errorf("%s, then a successor: %w", where, err)
			}
			if !met.Load() {
				return disturbed(call)
			}
		}
	}
	return fmt.Errorf("a delivery of %d rows takes more than %d calls", several, mostCalls)
}

// disturbed reports that no call was disturbed because the sink does not call through the Wire.
func disturbed(calls int) error {
	if calls == 1 {
		return errors.New("no call was disturbed: the sink does not use its Wire")
	}
	return nil
}

// lostReply: each call in turn is done, and its reply is lost.
func lostReply(ctx context.Context, d *Destination) error {
	var past []entry
	for call := 1; call <= mostCalls; call++ {
		e := entryOf(idOf(uint64(call)), several, 0)
		past = append(past, e)
		hook, met := at(call, Fault{Lost: true})
		s, err := d.Open(hook)
		if err != nil {
			return err
		}
		if err := delivered(ctx, s, e); err != nil {
			return err
		}
		if err := check(ctx, d, asPromised, past...); err != nil {
			return fmt.Errorf("the reply to call %d was lost: %w", call, err)
		}
		if !met.Load() {
			return disturbed(call)
		}
	}
	return fmt.Errorf("a delivery of %d rows takes more than %d calls", several, mostCalls)
}

// race: several processes deliver the same entries at once, while consumers look.
func race(ctx context.Context, d *Destination) error {
	const writers, count = 6, 4
	entries := make([]entry, count)
	for i := range entries {
		entries[i] = entryOf(idOf(uint64(i+1)), 40, 200)
	}
	errs := make([]error, writers)
	start := make(chan struct{})
	var wait sync.WaitGroup
	for w := range writers {
		s, err := d.Open(nil)
		if err != nil {
			return err
		}
		wait.Go(func() {
			<-start
			for _, e := range entries {
				if errs[w] = delivered(ctx, s, e); errs[w] == nil {
					errs[w] = check(ctx, d, someMissing, entries...)
				}
				if errs[w] != nil {
					return
				}
			}
		})
	}
	close(start)
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return check(ctx, d, asPromised, entries...)
}

// zombie: a process is held up at each of its calls; its successor delivers that entry and later ones;
// then the call goes through, with or without somebody who still waits for it. At last a process that
// was held up before it began delivers the old entry.
func zombie(ctx context.Context, d *Destination) error {
	var past []entry
	number := uint64(0)
	for call := 1; call <= mostCalls; call++ {
		for _, givenUp := range []bool{false, true} {
			number += 2
			e, next := entryOf(idOf(number), several, 0), entryOf(idOf(number+1), 3, 0)
			past = append(past, e, next)
			reached, err := heldUp(ctx, d, call, givenUp, e, next)
			if err == nil {
				err = check(ctx, d, asPromised, past...)
			}
			if err != nil {
				return fmt.Errorf("a zombie held up at call %d, its delivery given up: %t: %w", call, givenUp, err)
			}
			if !reached {
				s, err := d.Open(nil)
				if err != nil {
					return err
				}
				if err := deliver(ctx, s, past[0]); err != nil {
					return err
				}
				if err := check(ctx, d, asPromised, past...); err != nil {
					return fmt.Errorf("an old entry after newer ones: %w", err)
				}
				return disturbed(call)
			}
		}
	}
	return fmt.Errorf("a delivery of %d rows takes more than %d calls", several, mostCalls)
}

func heldUp(ctx context.Context, d *Destination, call int, givenUp bool, e, next entry) (reached bool, err error) {
	gate := newGate()
	hook, _ := at(call, Fault{Gate: gate})
	s, err := d.Open(hook)
	if err != nil {
		return false, err
	}
	zombieCtx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	ended := make(chan error, 1)
	go func() { ended <- deliver(zombieCtx, s, e) }()
	select {
	case <-gate.reached:
	case err := <-ended:
		if err != nil {
			return false, err
		}
		successor, err := d.Open(nil)
		if err != nil {
			return false, err
		}
		return false, deliver(ctx, successor, next)
	}
	if givenUp {
		giveUp()
	}
	successor, err := d.Open(nil)
	for _, e := range []entry{e, next} {
		if err == nil {
			err = deliver(ctx, successor, e)
		}
	}
	close(gate.release)
	<-gate.done
	gone := <-ended
	if err == nil && gone != nil && !givenUp {
		err = fmt.Errorf("the zombie: %w", gone)
	}
	return true, err
}

// concurrent: one sink, many partitions.
func concurrent(ctx context.Context, d *Destination) error {
	const partitions, each = 12, 3
	s, err := d.Open(nil)
	if err != nil {
		return err
	}
	var entries []entry
	errs := make([]error, partitions)
	var wait sync.WaitGroup
	for p := range partitions {
		mine := make([]entry, each)
		for i := range mine {
			id := idOf(uint64(i + 1))
			id.Partition = fmt.Sprint("partition-", p)
			mine[i] = entryOf(id, 30, 500)
		}
		entries = append(entries, mine...)
		wait.Go(func() {
			for _, e := range mine {
				if errs[p] = deliver(ctx, s, e); errs[p] != nil {
					return
				}
			}
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return check(ctx, d, justOnce, entries...)
}

// big: many rows and large ones, several MB together.
func big(ctx context.Context, d *Destination) error {
	s, err := d.Open(nil)
	if err != nil {
		return err
	}
	e, large := entryOf(idOf(1), 10_000, 300), entryOf(idOf(2), 5, 900<<10)
	for range 2 {
		for _, e := range []entry{e, large} {
			if err := deliver(ctx, s, e); err != nil {
				return err
			}
		}
	}
	return check(ctx, d, asPromised, e, large)
}

// oversize: a row that the destination does not take, among 10,000, is rejected alone, every time.
func oversize(ctx context.Context, d *Destination) error {
	const bad = 7_777
	e := entryOf(idOf(1), 10_000, 0)
	e.rows[bad] = entryOf(idOf(2), 1, 11<<20).rows[0]
	want := e
	for range 2 {
		s, err := d.Open(nil)
		if err != nil {
			return err
		}
		if want, err = deliverSome(ctx, s, e, bad); err != nil {
			return err
		}
	}
	return check(ctx, d, asPromised, want)
}

// deliverSome returns what is to be seen of e when the sink may reject one row.
func deliverSome(ctx context.Context, s stream.Sink, e entry, row int) (entry, error) {
	rejected, err := rejectedRows(deliver(ctx, s, e))
	switch {
	case err != nil:
		return e, err
	case len(rejected) == 0:
		return e, nil
	case len(rejected) != 1 || rejected[row] == "":
		return e, fmt.Errorf("rejected are %v, only row %d is to blame", rejected, row)
	}
	rows := append([]stream.Row(nil), e.rows[:row]...)
	return entry{id: e.id, rows: append(rows, e.rows[row+1:]...)}, nil
}

// empty: no rows are nothing to see, and no error.
func empty(ctx context.Context, d *Destination) error {
	s, err := d.Open(nil)
	if err != nil {
		return err
	}
	e := entryOf(idOf(2), 1, 0)
	for _, e := range []entry{{id: idOf(1)}, {id: idOf(1), rows: []stream.Row{}}, e, {id: idOf(3)}} {
		if err := deliver(ctx, s, e); err != nil {
			return fmt.Errorf("%d rows: %w", len(e.rows), err)
		}
	}
	return check(ctx, d, justOnce, e)
}

// lines: rows with line breaks, which an Encode may hand in against the rule, break no other row:
// they are seen as one row each, or rejected alone.
func lines(ctx context.Context, d *Destination) error {
	s, err := d.Open(nil)
	if err != nil {
		return err
	}
	var all []entry
	for i, c := range []struct{ data, compact string }{
		{"{\"row\":\"a\"}\n", `{"row":"a"}`}, // json.Encoder ends so
		{"{\n  \"row\": \"b\",\n  \"n\": 1\n}", `{"row":"b","n":1}`},
	} {
		e := entryOf(idOf(uint64(i+1)), 3, 0)
		e.rows[1].Data = []byte(c.data)
		e, err := deliverSome(ctx, s, e, 1)
		if err != nil {
			return err
		}
		if len(e.rows) == 3 {
			e.rows[1].Data = []byte(c.compact)
		}
		all = append(all, e)
	}
	return check(ctx, d, justOnce, all...)
}

// names: whatever a pipeline, a partition or a kind of row is called, its rows are seen, and are not
// taken for another's.
func names(ctx context.Context, d *Destination) error {
	s, err := d.Open(nil)
	if err != nil {
		return err
	}
	var entries []entry
	add := func(change func(id *stream.CheckpointID)) {
		id := idOf(7)
		change(&id)
		entries = append(entries, entryOf(id, 2, 0))
	}
	long := strings.Repeat("long name ", 30)
	for _, partition := range []string{
		"", ".", "..", "../up", "/", "a/b", "a%2Fb", "a b", "a%20b", "a+b", "a_b", "a-b", `a\b`, "_merger", "_x", ".hidden", ".tmp-x", "-", "~",
		"shardId-000000000000", "ns.servicebus.windows.net:hub$Default:0", "projects/p/subscriptions/s", "a?b#c&d=e", `"a"`, "a*b", "a:b", "a|b<c>d",
		"été", "e\u0301te\u0301", "日本語", "a\nb", "a\x00b", "a\xff", "a\xfe", "a__0x2f__b", "___0x", "100%", "x..",
		long + "a", long + "b", strings.Repeat("ä", 400), strings.Repeat("ä", 400) + "b",
	} {
		add(func(id *stream.CheckpointID) { id.Partition = partition })
	}
	for _, pipeline := range []string{"main2", "mai", "_x", "__x", ".x", "..", ".tmp-x", "-", "a__0x2f", "main-other", strings.Repeat("p", 250), strings.Repeat("p", 251)} {
		add(func(id *stream.CheckpointID) { id.Pipeline = pipeline })
	}
	for _, kind := range []string{"dead", "rejected-0", "rejected-1"} {
		add(func(id *stream.CheckpointID) { id.Kind = kind })
		add(func(id *stream.CheckpointID) { id.Kind, id.Part = kind, 1 })
	}
	add(func(id *stream.CheckpointID) { id.Genesis = "ZYXWVUTSRQPONMLKJIHGFEDCBA" })
	add(func(id *stream.CheckpointID) { id.Part = 10_000 })
	add(func(id *stream.CheckpointID) { id.Number = 1 << 63 })
	for _, e := range entries {
		if err := deliver(ctx, s, e); err != nil {
			return fmt.Errorf("%q: %w", fmt.Sprint(e.id), err)
		}
	}
	if err := check(ctx, d, justOnce, entries...); err != nil {
		return err
	}
	if s, err = d.Open(nil); err != nil {
		return err
	}
	for _, e := range entries {
		if err := deliver(ctx, s, e); err != nil {
			return fmt.Errorf("%q again: %w", fmt.Sprint(e.id), err)
		}
	}
	return check(ctx, d, asPromised, entries...)
}

// cancelled: a context that is done delivers nothing, is no outcome, and is what the error says.
func cancelled(ctx context.Context, d *Destination) error {
	s, err := d.Open(nil)
	if err != nil {
		return err
	}
	e := entryOf(idOf(1), several, 0)
	done, cancel := context.WithCancel(ctx)
	cancel()
	if err := deliver(done, s, e); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("Deliver with a cancelled context returned %v", err)
	}
	if err := check(ctx, d, justOnce); err != nil {
		return err
	}
	if err := deliver(ctx, s, e); err != nil {
		return err
	}
	return check(ctx, d, justOnce, e)
}

// stuck: a destination that does not answer holds nobody beyond the context, and the sink works again
// when it does.
func stuck(ctx context.Context, d *Destination) error {
	e, next := entryOf(idOf(1), 10, 0), entryOf(idOf(2), 10, 0)
	gate := newGate()
	hook, met := at(1, Fault{Gate: gate})
	s, err := d.Open(hook)
	if err != nil {
		return err
	}
	waiting, giveUp := context.WithCancel(ctx)
	defer giveUp()
	go func() {
		select {
		case <-gate.reached:
			giveUp()
		case <-waiting.Done():
		}
	}()
	err = in("a delivery whose context is done", func() error { return deliver(waiting, s, e) })
	if met.Load() {
		close(gate.release)
		<-gate.done
	}
	if !errors.Is(err, context.Canceled) {
		return fmt.Errorf("Deliver returned %v, not that its context is done", err)
	}
	for _, e := range []entry{e, next} {
		if err := in("a later delivery", func() error { return deliver(ctx, s, e) }); err != nil {
			return err
		}
	}
	return check(ctx, d, asPromised, e, next)
}

// down: a destination that refuses everything is an error that names it, loses nothing, and the sink
// needs no restart when it is up again.
func down(ctx context.Context, d *Destination) error {
	var isUp atomic.Bool
	s, err := d.Open(func(int) Fault { return Fault{Refused: !isUp.Load()} })
	if err != nil {
		return err
	}
	e, other := entryOf(idOf(1), several, 0), entryOf(idOf(2), 3, 0)
	for range 2 {
		switch err := deliver(ctx, s, e); {
		case err == nil:
			return errors.New("Deliver to a destination that is down returned nil")
		case !errors.Is(err, ErrRefused):
			return fmt.Errorf("the error does not wrap the destination's: %w", err)
		case !strings.Contains(err.Error(), d.Name):
			return fmt.Errorf("the error does not name %s: %w", d.Name, err)
		}
	}
	if err := check(ctx, d, justOnce); err != nil {
		return err
	}
	isUp.Store(true)
	for _, e := range []entry{other, e} {
		if err := deliver(ctx, s, e); err != nil {
			return fmt.Errorf("the destination is up again: %w", err)
		}
	}
	return check(ctx, d, justOnce, e, other)
}

// abandoned: what a Stager was given and nobody saved is never seen, whatever is committed before and
// after it, by the same process or by its successor.
func abandoned(ctx context.Context, d *Destination) error {
	var past []entry
	for n := uint64(1); n <= 9; n += 3 {
		s, err := d.Open(nil)
		if err != nil {
			return err
		}
		stager, ok := s.(stream.Stager)
		if !ok {
			return nil // it has nothing to abandon
		}
		first, lost, next := entryOf(idOf(n), 5, 0), entryOf(idOf(n+1), 4, 0), entryOf(idOf(n+2), 3, 0)
		past = append(past, first, next)
		if err := deliver(ctx, s, first); err != nil {
			return err
		}
		err = handing(lost, func(rows []stream.Row) error {
			_, _, err := stage(ctx, stager, lost.id, rows)
			return err
		})
		if err != nil {
			return err
		}
		if n == 4 { // the successor is another process
			if s, err = d.Open(nil); err != nil {
				return err
			}
		}
		if n == 7 { // and may stage other rows under the id that the dead one had in mind
			next.id = lost.id
			past[len(past)-1].id = lost.id
		}
		if err := deliver(ctx, s, next); err != nil {
			return err
		}
		if err := check(ctx, d, justOnce, past...); err != nil {
			return err
		}
	}
	return nil
}
