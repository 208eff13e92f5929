// Package sinktest holds what every stream.Sink must pass: what its consumers see after crashes,
// repetitions, zombies, lost replies and outages.
//
// A Case is a function, not a test, so that a test can also show that it catches a sink which breaks
// the rule: see the package's own tests.
package sinktest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/millstream/millstream/stream"
)

// Promise is what a sink promises about rows that are delivered again.
type Promise int

const (
	// ExactlyOnce: a consumer sees each row once, at every moment.
	ExactlyOnce Promise = iota
	// AtLeastOnceByID: copies of a row bear the same _id, which no other row has.
	AtLeastOnceByID
	// AtLeastOnce: nothing tells the copies.
	AtLeastOnce
)

// Destination is one place that rows are delivered to. It is empty at first, and nobody else uses it.
type Destination struct {
	Promise Promise
	// Name is what the error of a destination that is down must contain, for the operator to know it.
	Name string
	// Open makes a sink, as a new process would, whose calls of the destination meet hook.
	Open func(hook Hook) (stream.Sink, error)
	// Seen returns every row that a consumer sees, in any order. It is called concurrently.
	Seen func(ctx context.Context) ([][]byte, error)
}

// Case is one rule.
type Case struct {
	Name string
	// Holds returns how the destination's sinks break the rule, nil when they keep it. It may run in a
	// bubble of testing/synctest.
	Holds func(ctx context.Context, d *Destination) error
}

// Cases returns every rule.
func Cases() []Case {
	return []Case{
		{"Once", once},
		{"Again", again},
		{"Crash", crash},
		{"LostReply", lostReply},
		{"Race", race},
		{"Zombie", zombie},
		{"Concurrent", concurrent},
		{"Big", big},
		{"Oversize", oversize},
		{"Empty", empty},
		{"Lines", lines},
		{"Names", names},
		{"Cancelled", cancelled},
		{"Stuck", stuck},
		{"Down", down},
		{"Abandoned", abandoned},
	}
}

// Run runs every case as a subtest over a destination of its own; open registers with t.Cleanup what
// is to be undone.
func Run(t *testing.T, open func(t *testing.T) *Destination) {
	for _, c := range Cases() {
		t.Run(c.Name, func(t *testing.T) {
			if err := c.Holds(t.Context(), open(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// patience is how long a delivery may take on a slow machine.
const patience = time.Minute

// entry is the output of one saved entry: what is delivered, under its id.
type entry struct {
	id   stream.CheckpointID
	rows []stream.Row
	save *saved // nil: nothing comes of it
}

// saved is what the log says of an entry whose rows a Stager holds: the first to stage them has saved the
// entry, and whoever stages them later is fenced.
type saved struct {
	mu       sync.Mutex
	staged   bool
	token    []byte
	rejected *stream.Rejected
}

// entryOf makes an entry of n rows that know where they belong, each padded by some bytes.
func entryOf(id stream.CheckpointID, n, padding int) entry {
	e := entry{id: id, rows: make([]stream.Row, n), save: new(saved)}
	pad := bytes.Repeat([]byte("x"), padding)
	for i := range e.rows {
		label, _ := json.Marshal(fmt.Sprintf("%q row %d", fmt.Sprint(id), i)) // a string has no way to fail
		e.rows[i] = stream.Row{Key: fmt.Sprint("key ", i%7), Data: fmt.Appendf(nil, `{"row":%s,"n":%d,"pad":"%s"}`, label, i, pad)}
	}
	return e
}

func idOf(number uint64) stream.CheckpointID {
	return stream.CheckpointID{Pipeline: "main", Genesis: "ABCDEFGHIJKLMNOPQRSTUVWXYZ", Partition: "partition-0", Number: number}
}

// deliver hands a sink the entry's rows as the engine does, whose they stay: the sink may not change
// them, and afterwards they are overwritten.
func deliver(ctx context.Context, s stream.Sink, e entry) error {
	return handing(e, func(rows []stream.Row) error {
		switch s := s.(type) {
		case stream.Stager:
			return stageAndCommit(ctx, s, e, rows)
		case stream.Roller:
			if e.id.Number%3 != 0 {
				return s.Write(ctx, e.id, s.Layout(), halves(rows))
			}
		}
		return s.Deliver(ctx, e.id, rows)
	})
}

// handing lends an entry's rows to f.
func handing(e entry, f func([]stream.Row) error) error {
	rows := slices.Clone(e.rows)
	for i := range rows {
		rows[i].Data = bytes.Clone(rows[i].Data)
	}
	err := f(rows)
	for i := range rows {
		if !bytes.Equal(rows[i].Data, e.rows[i].Data) || rows[i].Key != e.rows[i].Key {
			return fmt.Errorf("the sink changed row %d of the caller", i)
		}
		clear(rows[i].Data)
	}
	return err
}

// halves yields rows in two parts, each in memory that is used again for the next.
func halves(rows []stream.Row) iter.Seq2[[]stream.Row, error] {
	return func(yield func([]stream.Row, error) bool) {
		for _, part := range [][]stream.Row{rows[:len(rows)/2], rows[len(rows)/2:]} {
			lent := slices.Clone(part)
			if len(part) > 0 && !yield(lent, nil) {
				return
			}
			clear(lent)
		}
	}
}

// stageAndCommit takes rows through a Stager as a process does that may follow another: what is saved is
// committed, and only who comes first saves.
func stageAndCommit(ctx context.Context, s stream.Stager, e entry, rows []stream.Row) error {
	if len(rows) == 0 {
		return nil // the engine stages none
	}
	e.save.mu.Lock()
	known := e.save.staged
	e.save.mu.Unlock()
	if !known {
		token, rejected, err := stage(ctx, s, e.id, rows)
		if err != nil {
			return err
		}
		e.save.mu.Lock()
		if !e.save.staged {
			e.save.staged, e.save.token, e.save.rejected = true, token, rejected
		}
		e.save.mu.Unlock()
	}
	e.save.mu.Lock()
	token, rejected := e.save.token, e.save.rejected
	e.save.mu.Unlock()
	if token != nil {
		if err := s.Commit(ctx, token); err != nil {
			return err
		}
	}
	if rejected != nil {
		return rejected
	}
	return nil
}

// stage is Stage, whose error may be rows that the sink can never take.
func stage(ctx context.Context, s stream.Stager, id stream.CheckpointID, rows []stream.Row) ([]byte, *stream.Rejected, error) {
	token, err := s.Stage(ctx, id, rows)
	var rejected *stream.Rejected
	if errors.As(err, &rejected) {
		err = nil
	}
	return token, rejected, err
}

// delivered is deliver, repeated as the engine repeats it.
func delivered(ctx context.Context, s stream.Sink, e entry) error {
	var err error
	for range 10 {
		if err = deliver(ctx, s, e); err == nil {
			return nil
		}
	}
	return fmt.Errorf("entry %v is not delivered after ten attempts: %w", e.id, err)
}

// in runs f, and gives up on it when it takes too long.
func in(what string, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case err := <-done:
		return err
	case <-t.C:
		return fmt.Errorf("%s did not end within %s", what, patience)
	}
}

// label tells rows apart: by what entryOf wrote, others by their bytes.
func label(data []byte) string {
	var r struct{ Row string }
	_, rest, _ := bytes.Cut(data, []byte(`"row":`)) // the quick way, past the padding
	if name, _, found := bytes.Cut(rest, []byte(`,"n":`)); found && json.Unmarshal(name, &r.Row) == nil {
		return r.Row
	}
	if json.Unmarshal(data, &r) != nil || r.Row == "" {
		return string(data)
	}
	return r.Row
}

// How often a row may be seen.
const (
	asPromised  = iota // at least once, and once if that is the promise
	justOnce           // nothing happened that excuses a second copy
	someMissing        // nothing said yet that all are there; a promise to see them once holds all the time
)

// check compares what a consumer sees with entries, and returns the first difference.
func check(ctx context.Context, d *Destination, how int, entries ...entry) error {
	want := make(map[string][]byte)
	for _, e := range entries {
		for i := range e.rows {
			want[label(e.rows[i].Data)] = e.rows[i].Data
		}
	}
	seen, err := d.Seen(ctx)
	if err != nil {
		return fmt.Errorf("reading the destination: %w", err)
	}
	copies, ids, owner := make(map[string]int), make(map[string]string), make(map[string]string)
	for _, got := range seen {
		l := label(got)
		data, ok := want[l]
		if !ok {
			return fmt.Errorf("a consumer sees what nobody delivered: %.200q", got)
		}
		copies[l]++
		if d.Promise != AtLeastOnceByID {
			if !bytes.Equal(got, data) {
				return fmt.Errorf("%s: a consumer sees %.200q, delivered was %.200q", l, got, data)
			}
			continue
		}
		id, err := sameButID(got, data)
		if err != nil {
			return fmt.Errorf("%s: %w", l, err)
		}
		if before, ok := ids[l]; ok && before != id {
			return fmt.Errorf("two copies of %s have the _ids %s and %s", l, before, id)
		}
		if other, ok := owner[id]; ok && other != l {
			return fmt.Errorf("%s and %s have the same _id %s: one would be taken for the other's copy", l, other, id)
		}
		ids[l], owner[id] = id, l
	}
	for _, l := range slices.Sorted(maps.Keys(want)) {
		switch n := copies[l]; {
		case n == 0 && how != someMissing:
			return fmt.Errorf("%.200s was delivered, and a consumer does not see it; it sees %d rows of %d", l, len(copies), len(want))
		case n > 1 && (how == justOnce || d.Promise == ExactlyOnce):
			return fmt.Errorf("a consumer sees %.200s %d times", l, n)
		}
	}
	return nil
}

// sameButID compares a row that got an _id with what was delivered, and returns the _id.
func sameButID(got, delivered []byte) (string, error) {
	var a, b map[string]json.RawMessage
	if err := json.Unmarshal(got, &a); err != nil {
		return "", fmt.Errorf("a consumer sees %.200q: %w", got, err)
	}
	if err := json.Unmarshal(delivered, &b); err != nil {
		return "", fmt.Errorf("%.200q: %w", delivered, err)
	}
	id := string(a["_id"])
	if id == "" || id == `""` || id == "null" {
		return "", fmt.Errorf("a consumer sees a row without an _id: %.200q", got)
	}
	delete(a, "_id")
	if !reflect.DeepEqual(a, b) {
		return "", fmt.Errorf("a consumer sees %.200q, delivered was %.200q", got, delivered)
	}
	return id, nil
}

// rejectedRows returns which rows a sink rejected; other errors come back.
func rejectedRows(err error) (map[int]string, error) {
	var rejected *stream.Rejected
	if !errors.As(err, &rejected) {
		return nil, err
	}
	if len(rejected.Rows) == 0 {
		return nil, errors.New("a Rejected error without a row")
	}
	out := make(map[int]string)
	for _, r := range rejected.Rows {
		if r.Reason == "" {
			return nil, fmt.Errorf("row %d is rejected without a reason", r.Index)
		}
		out[r.Index] = r.Reason
	}
	return out, nil
}
