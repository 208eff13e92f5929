package checkpoint

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/bucket/buckettest"
	"github.com/millstream/millstream/stream"
)

// fleet is a set of processes over one bucket; each sees it through wires of its own.
type fleet struct {
	t      *testing.T
	bucket bucket.Bucket
	src    partitions
	rules  rules

	mu     sync.Mutex
	owners map[string]string // who serves a partition now
}

type fleetMember struct {
	wires *ill
	stop  func() error
}

func newFleet(t *testing.T, partitions int, off rules) *fleet {
	f := &fleet{t: t, bucket: bucket.Memory(), rules: off, owners: make(map[string]string)}
	for i := range partitions {
		f.src = append(f.src, fmt.Sprintf("p%d", i))
	}
	return f
}

func (f *fleet) join(name string) *fleetMember {
	wires := newIll(f.bucket)
	cfg := config(wires)
	cfg.Member = name
	s := open(f.t, cfg)
	s.rules = f.rules
	w := newWorker(s, f.src...)
	return &fleetMember{wires, start(f.t, w, func(a *stream.Assignment) error {
		f.mu.Lock()
		f.owners[a.Partition] = name
		f.mu.Unlock()
		defer func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.owners[a.Partition] == name {
				delete(f.owners, a.Partition)
			}
		}()
		return w.serve(a)
	})}
}

// dies cuts a member off from the bucket for ever.
func (m *fleetMember) dies() {
	m.wires.spoil(func(string, string) buckettest.Fault { return buckettest.Fault{Err: errStore} })
}

// owned counts what each member serves, the merger included.
func (f *fleet) owned() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := make(map[string]int)
	for _, name := range f.owners {
		n[name]++
	}
	return n
}

// within waits until ok, and returns how long that took, or that it did not come.
func (f *fleet) within(limit time.Duration, ok func(map[string]int) bool) (time.Duration, error) {
	began := time.Now()
	for time.Since(began) <= limit {
		if ok(f.owned()) {
			return time.Since(began), nil
		}
		<-time.After(50 * time.Millisecond)
	}
	return limit, fmt.Errorf("not within %s: %v", limit, f.owned())
}

const fleetLease = 15 * time.Second // of config

// handOver runs two members, of which one leaves some time after it has its share, and returns how
// long the other took.
func handOver(t *testing.T, after time.Duration, off rules) (took time.Duration, err error) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 9, off)
		a, b := f.join("a"), f.join("b")
		if _, err = f.within(2*fleetLease, func(n map[string]int) bool { return n["a"] == 5 && n["b"] == 5 }); err == nil {
			<-time.After(after)
			err = a.stop()
		}
		if err == nil {
			took, err = f.within(2*time.Second, func(n map[string]int) bool { return n["b"] == 10 })
		}
		_ = b.stop()
	})
	return took, err
}

// A member that leaves is followed within two seconds, on the default lease, whenever that is; without
// the note that it leaves behind, it is not.
func TestHandOver(t *testing.T) {
	slow := 0
	for after := time.Second; after < fleetLease; after += 800 * time.Millisecond {
		if _, err := handOver(t, after, rules{}); err != nil {
			t.Errorf("after %s: %v", after, err)
		}
		if _, err := handOver(t, after, rules{noTurnover: true}); err != nil {
			slow++
		}
	}
	if slow == 0 {
		t.Error("it takes no note: the test shows nothing")
	}
}

// A member that joins has its share within two leases, and one that dies is replaced within a lease
// and five seconds.
func TestFairShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 17, rules{})
		a := f.join("a")
		if _, err := f.within(fleetLease, func(n map[string]int) bool { return n["a"] == 18 }); err != nil {
			t.Fatal(err)
		}
		b := f.join("b")
		took, err := f.within(2*fleetLease, func(n map[string]int) bool { return n["a"] == 9 && n["b"] == 9 })
		if err != nil {
			t.Error(err)
		}
		t.Logf("a second member has its share after %s", took)
		c := f.join("c")
		took, err = f.within(2*fleetLease, func(n map[string]int) bool { return n["a"] == 6 && n["b"] == 6 && n["c"] == 6 })
		if err != nil {
			t.Error(err)
		}
		t.Logf("a third member has its share after %s", took)
		b.dies()
		took, err = f.within(fleetLease+5*time.Second, func(n map[string]int) bool { return n["a"] == 9 && n["c"] == 9 })
		if err != nil {
			t.Error(err)
		}
		t.Logf("a dead member's share is taken after %s", took)
		for _, m := range []*fleetMember{a, c, b} {
			_ = m.stop()
		}
	})
}
