package stream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/stream"
)

// TestDamagedPartition damages the newest entry of one partition while nobody runs: the other one's child
// is admitted and read all the same, no window passes the damaged one, and once the object is restored
// every total is exact.
func TestDamagedPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		child := stream.Partition{Name: "c", Parents: []string{"p"}}
		pl := written(
			&scripted{Partition: stream.Partition{Name: "p"}, records: every("p", 0, 40), ends: 40 * time.Second, children: []stream.Partition{child}},
			&scripted{Partition: stream.Partition{Name: "q"}, records: every("q", 0, 60), ends: 60 * time.Second},
			&scripted{Partition: child, appears: 40 * time.Second, records: every("c", 41, 60), ends: 60 * time.Second})
		w := begin(pl)
		first := w.launch(pl.pipeline(nil), newGate(w))
		<-time.After(20 * time.Second)
		first.kill()
		name, whole := newestObject(t, w, "q")
		if err := w.bucket.Put(t.Context(), name, whole[:len(whole)/2]); err != nil {
			t.Fatal(err)
		}
		before, err := w.merged()
		if err != nil {
			t.Fatal(err)
		}
		second := w.launch(pl.pipeline(nil), newGate(w))
		<-time.After(10 * time.Minute)
		m, err := w.merged()
		if err != nil {
			t.Fatal(err)
		}
		if m == nil {
			t.Error("the merger has stopped")
			m = before
		}
		for _, name := range []string{"p", "c"} {
			if i := slices.IndexFunc(m.Roster, func(r stream.RosterRow) bool { return r.Name == name }); i < 0 || !m.Roster[i].Ended {
				t.Errorf("%s has not ended in the roster: %+v", name, m.Roster)
			}
		}
		if m.Frontier != before.Frontier {
			t.Errorf("the frontier went from %s to %s", before.Frontier, m.Frontier)
		}
		if w.said.about("a partition's log cannot be read: its windows wait, and it is tried again") == 0 {
			t.Error("nobody was told")
		}
		if err := w.bucket.Put(t.Context(), name, whole); err != nil {
			t.Fatal(err)
		}
		if err := finish(pl, w, second, first); err != nil {
			t.Error(err)
		}
	})
}

// newestObject is the newest object of a partition's log.
func newestObject(t *testing.T, w *world, partition string) (name string, data []byte) {
	t.Helper()
	names, err := w.bucket.List(context.Background(), "sim/log/"+partition+"/")
	if err != nil || len(names) == 0 {
		t.Fatal(errors.Join(err, fmt.Errorf("%s has no log", partition)))
	}
	name = slices.Max(names)
	if data, err = w.bucket.Get(context.Background(), name); err != nil {
		t.Fatal(err)
	}
	return name, data
}
