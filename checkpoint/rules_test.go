package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/stream"
)

// TestRules holds the protocol against its rules. Every row breaks something in the way that its rule
// is made for, twice: with the rule, which must hold, and with the rule switched off, which must not.
// A row whose second run also passes would show nothing.
func TestRules(t *testing.T) {
	for _, row := range []struct {
		rule string
		what string
		off  rules
		test func(t *testing.T, r rules) error
	}{
		{"A1", "the nonce and the bytes stay when an entry is offered again", rules{freshBytes: true}, testSameBytes},
		{"A1", "after an error the number is read back", rules{noReadBack: true}, testReadBack},
		{"A1", "newer state is never offered for the number after an unknown one", rules{noReadBack: true, skipNumber: true}, testUnknownNumber},
		{"A2", "a claim that is not the newest entry walks away", rules{noSecondList: true}, testClaimInHole},
		{"A2", "a crash loop slows down", rules{noCrashBackOff: true}, testCrashLoop},
		{"A3", "a living owner is not taken for dead", rules{hastyObserver: true}, testLivingOwner},
		{"A3", "a failed reading starts the observation over", rules{deafObserver: true}, testFailedReading},
		{"A4", "an owner without a heartbeat stops by itself", rules{noSelfStop: true}, testSelfStop},
		{"A4", "a process that was suspended looks at its lease first", rules{noSelfStop: true}, testSuspended},
		{"A5", "nothing follows a release, and it carries no output", rules{noOrder: true}, testOrder},
		{"A6", "what is younger than DedupeFor stays, and no wall clock says so", rules{noDedupe: true}, testDedupe},
		{"A6", "claims stay for ever: a zombie finds its number taken", rules{forgetClaims: true}, testZombie},
		{"A6", "what a kept entry names stays", rules{forgetNames: true}, testNamed},
		{"A7", "a reset is refused while a member lives", rules{resetAnyway: true}, testResetAlive},
		{"A7", "a reset reaches every log", rules{resetSparesMerger: true}, testReset},
		{"A7", "a claim that raced a reset is not served by the old roster", rules{oldRoster: true}, testResetRace},
		{"A8", "another plan is refused", rules{noPlan: true}, testPlan},
		{"A9", "a damaged entry stops the partition", rules{skipDamaged: true}, testDamaged},
		{"A9", "a merger's log without its newest entries is not taken for whole", rules{trustLogs: true}, testCutOff(false)},
		{"A9", "a merger's log that is gone is not taken for a new one", rules{trustLogs: true}, testCutOff(true)},
		{"A9", "what was seen of a merger's log is not forgotten by partitions that go on", rules{trustLogs: true}, testCutOffUnderLanes},
		{"A9", "a partition's log without its newest entries is not taken for whole", rules{trustLogs: true}, testLaneCutOff},
		{"A9", "a partition's lost end is not waited for in silence", rules{trustLogs: true}, testLostEnd},
		{"A10", "a store with two winners is refused", rules{noStoreCheck: true}, testStoreCheck},
		{"A11", "a follower that was left behind lists", rules{blindFollower: true}, testLeftBehind},
		{"A12", "objects of older claims that nothing names go", rules{noGarbage: true}, testOrphans},
		{"A12", "objects of ended partitions go", rules{noGarbage: true}, testEndedObjects},
		{"A12", "a dead member's file goes", rules{noGarbage: true}, testDeadMember},
	} {
		run := func(t *testing.T, r rules) (err error) {
			synctest.Test(t, func(t *testing.T) { err = row.test(t, r) })
			return err
		}
		t.Run(row.rule+"/"+row.what, func(t *testing.T) {
			if err := run(t, rules{}); err != nil {
				t.Error(err)
			}
			if err := run(t, row.off); err == nil {
				t.Error("the test passes without the rule: it shows nothing")
			}
		})
	}
}

// owner claims a partition by hand, without a group: a process that the test moves step by step.
type owner struct {
	*log
	lost   chan struct{}
	claims *claimed
}

func claimBy(t *testing.T, s *Store, partition string) (*owner, error) {
	t.Helper()
	m := newMember(s)
	if err := m.write(t.Context()); err != nil {
		t.Fatal(err)
	}
	f := s.follow(partition)
	if err := f.sync(t.Context(), 0); err != nil {
		return nil, err
	}
	c, err := s.claim(t.Context(), m, f)
	if err != nil {
		return nil, err
	}
	o := &owner{lost: make(chan struct{}), claims: c}
	var once sync.Once
	o.log = &log{s: s, member: m, follower: f, retention: newRetention(s, partition, c), partition: partition, claim: c.entry.Number,
		genesis: c.entry.Genesis, lose: func(error) { once.Do(func() { close(o.lost) }) }, busy: make(chan struct{}, 1), next: c.entry.Number + 1, last: time.Now()}
	return o, nil
}

func mustClaim(t *testing.T, s *Store, partition string) *owner {
	t.Helper()
	o, err := claimBy(t, s, partition)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// fill appends checkpoints at positions from to to.
func (o *owner) fill(t *testing.T, from, to int64) {
	t.Helper()
	for p := from; p <= to; p++ {
		if err := o.Append(t.Context(), checkpointAt(p)); err != nil {
			t.Fatal(err)
		}
	}
}

func with(b bucket.Bucket, r rules) Config {
	cfg := config(b)
	cfg.rules = r
	return cfg
}

// A1.

func testSameBytes(t *testing.T, r rules) error {
	b := newIll(bucket.Memory())
	o := mustClaim(t, open(t, with(b, r)), "a")
	// The first attempt is carried out, but neither its answer nor the reading back arrives.
	b.spoil(fail("get", "log/a/00000000000000000002", 1), hide("create", "log/a/", 1))
	return o.Append(t.Context(), checkpointAt(1))
}

func testReadBack(t *testing.T, r rules) error {
	b := newIll(bucket.Memory())
	o := mustClaim(t, open(t, with(b, r)), "a")
	b.spoil(hide("create", "log/a/", 1))
	return o.Append(t.Context(), checkpointAt(1))
}

func testUnknownNumber(t *testing.T, r rules) error {
	b := newIll(bucket.Memory())
	first := mustClaim(t, open(t, with(b, r)), "a")
	other := open(t, config(b.Bucket))
	// The attempt fails, and before it is repeated somebody else claims that very number.
	b.spoil(once("create", "log/a/", func() error {
		mustClaim(t, other, "a")
		return errStore
	}))
	for p := range int64(3) {
		err := first.Append(t.Context(), checkpointAt(p))
		switch {
		case errors.Is(err, stream.ErrFenced):
			return nil
		case err == nil:
			return errors.New("the old owner appended behind the new one's claim")
		}
	}
	return errors.New("the old owner was not fenced")
}

// A2.

func testClaimInHole(t *testing.T, r rules) error {
	b := newIll(bucket.Memory())
	cfg := config(b.Bucket)
	cfg.Keep = 2
	o := mustClaim(t, open(t, cfg), "a")
	o.fill(t, 1, 3)
	// A claimant lists, and then is held up for long: its number is used, and deleted, meanwhile.
	b.spoil(once("create", "log/a/", func() error {
		o.fill(t, 4, 20)
		return o.retention.sweep(t.Context())
	}))
	late, err := claimBy(t, open(t, with(b, r)), "a")
	if errors.Is(err, errNotNow) {
		return nil
	}
	return fmt.Errorf("a claim below the newest entry stands: %+v, %w", late, err)
}

func testCrashLoop(t *testing.T, r rules) error {
	b := bucket.Memory()
	var at []time.Time
	for len(at) < 8 { // every round is a process that crashes as soon as it is served
		cfg := with(b, r)
		cfg.Lease = 3 * time.Second
		ctx, crash := context.WithCancel(t.Context())
		w := newWorker(open(t, cfg), "a")
		err := w.store.Group().Run(ctx, w.src, func(a *stream.Assignment) error {
			if a.Partition == "a" {
				at = append(at, time.Now())
				crash()
				return errStore
			}
			return w.serve(a)
		})
		crash()
		if err != nil {
			return err
		}
	}
	for i, d := range []time.Duration{0, 0, 0, 1, 2, 4, 8, 16} {
		if i > 0 && at[i].Sub(at[i-1]) < d*time.Second {
			return fmt.Errorf("claim %d came %s after the one before", i+1, at[i].Sub(at[i-1]))
		}
	}
	return nil
}

// A3.

func testLivingOwner(t *testing.T, r rules) error {
	b := bucket.Memory()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var errs []error
	var mu sync.Mutex
	var wait sync.WaitGroup
	for i := range 2 {
		w := newWorker(open(t, with(b, r)), "a", "b", "c")
		wait.Go(func() {
			select {
			case <-time.After(time.Duration(i) * 20 * time.Second):
			case <-ctx.Done():
			}
			err := w.store.Group().Run(ctx, w.src, func(a *stream.Assignment) error {
				err := w.serve(a)
				if err != nil {
					mu.Lock()
					errs = append(errs, fmt.Errorf("%s: %w", a.Partition, err))
					mu.Unlock()
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

func testFailedReading(_ *testing.T, r rules) error {
	var o observer
	lease, start := 15*time.Second, time.Now()
	saw := func(at time.Duration) { o.saw([]byte("beat 1"), start.Add(at), lease, r) }
	// The same content before and after the store did not answer for long proves nothing: nobody
	// could have written either.
	saw(0)
	o.failed(r)
	o.failed(r)
	saw(20 * time.Second)
	saw(20*time.Second + 1)
	if o.dead(lease, r) {
		return errors.New("dead by readings with a failed one between")
	}
	// Nor do readings with too long a gap.
	o = observer{}
	saw(0)
	saw(time.Second)
	saw(20 * time.Second)
	if o.dead(lease, r) {
		return errors.New("dead by readings with a long gap")
	}
	return nil
}

// A4.

func testSelfStop(t *testing.T, r rules) error {
	b := newIll(bucket.Memory())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := newWorker(open(t, with(b, r)), "a")
	done := make(chan error, 1)
	go func() { done <- w.run(ctx) }()
	<-time.After(10 * time.Second)
	synctest.Wait()
	first := w.claimed("a")[0]
	b.spoil(fail("put", "members/", 20))
	var lost error
	select {
	case <-first.Lost:
		if !errors.Is(first.Cause(), stream.ErrLeaseLost) {
			lost = fmt.Errorf("lost for another reason: %w", first.Cause())
		}
	case <-time.After(15 * time.Second):
		lost = errors.New("the owner goes on a lease after its last heartbeat")
	}
	if lost == nil { // it joins again, as another member, and goes on
		<-time.After(time.Minute)
		as := w.claimed("a")
		if last := as[len(as)-1]; len(as) < 2 || last.Base == nil || last.Log.(*log).member.id == first.Log.(*log).member.id {
			lost = errors.New("the process did not join again under a new id")
		}
	}
	cancel()
	return errors.Join(lost, <-done)
}

func testSuspended(t *testing.T, r rules) error {
	b := newIll(bucket.Memory())
	cfg := with(b, r)
	var asleep time.Duration
	boot := cfg.BootTime
	cfg.BootTime = func() time.Duration { return boot() + asleep }
	o := mustClaim(t, open(t, cfg), "a")
	o.fill(t, 1, 3)
	before := b.count("create")
	asleep = time.Minute // while no other clock of the process moved
	err := o.Append(t.Context(), checkpointAt(4))
	if !errors.Is(err, stream.ErrLeaseLost) || b.count("create") != before {
		return fmt.Errorf("after a minute of sleep: %w, %d writes", err, b.count("create")-before)
	}
	return nil
}

// A5.

func testOrder(t *testing.T, r rules) error {
	o := mustClaim(t, open(t, with(bucket.Memory(), r)), "a")
	ctx := t.Context()
	if err := o.Append(ctx, &stream.Entry{Kind: stream.KindRelease, Rows: stream.Staged{Parts: []stream.Blob{{}}, Count: 1}}); err == nil {
		return errors.New("a release with rows was appended: restoring from it commits nothing, so they would be lost")
	}
	if err := o.Append(ctx, &stream.Entry{Kind: stream.KindRelease}); err != nil {
		t.Fatal(err)
	}
	if err := o.Append(ctx, checkpointAt(1)); err == nil {
		return errors.New("a checkpoint was appended behind the release: the next owner takes its output for committed")
	}
	return nil
}

// A6.

func testDedupe(t *testing.T, r rules) error {
	b := bucket.Memory()
	var o *owner
	for range 3 { // three processes, an hour between them
		cfg := with(b, r)
		cfg.Keep, cfg.DedupeFor = 2, 10*time.Minute
		cfg.BootTime = func() time.Duration { return 0 } // its heartbeats are no matter here
		o = mustClaim(t, open(t, cfg), "a")
		for p := range int64(4) {
			<-time.After(time.Minute)
			o.fill(t, p, p)
		}
		if err := o.retention.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Hour)
	}
	// 4 minutes of the last claim, 4 of the one before, 2 of the first: the hours do not count.
	numbers, err := o.s.list(t.Context(), "a")
	if want := []uint64{1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}; !slices.Equal(numbers, want) {
		return fmt.Errorf("kept %v instead of %v, %w", numbers, want, err)
	}
	return nil
}

func testZombie(t *testing.T, r rules) error {
	b := bucket.Memory()
	cfg := with(b, r)
	cfg.Keep = 2
	zombie := mustClaim(t, open(t, config(b)), "a")
	zombie.fill(t, 1, 5)
	owner := mustClaim(t, open(t, cfg), "a")
	owner.fill(t, 6, 20)
	if err := owner.retention.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := zombie.Append(t.Context(), checkpointAt(6)); !errors.Is(err, stream.ErrFenced) {
		return fmt.Errorf("the old owner woke up and appended: %w", err)
	}
	return nil
}

// incompressible returns n bytes that zstd cannot make smaller.
func incompressible(n int) bytesTo {
	b := make(bytesTo, n)
	x := uint64(88172645463325252)
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}

func testNamed(t *testing.T, r rules) error {
	cfg := with(bucket.Memory(), r)
	cfg.Keep = 2
	o := mustClaim(t, open(t, cfg), "a")
	blob, err := o.WriteObject(t.Context(), "slice", incompressible(100<<10))
	if err != nil {
		t.Fatal(err)
	}
	if blob.Object == "" {
		t.Fatal("the blob is inline: the test shows nothing")
	}
	for p := range int64(20) {
		e := checkpointAt(p)
		e.Frozen = []stream.Frozen{{Data: blob}}
		if err := o.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if err := o.retention.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	fresh := open(t, cfg) // one without the object in its memory
	if _, err := fresh.readBlob(t.Context(), blob); err != nil {
		return err
	}
	// And once nothing names it any more it goes.
	o.fill(t, 21, 30)
	if err := o.retention.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := fresh.readBlob(t.Context(), blob); !errors.Is(err, stream.ErrMissing) {
		return fmt.Errorf("an object that nothing names is still there: %w", err)
	}
	return nil
}

// A7.

func testResetAlive(t *testing.T, r rules) error {
	b := bucket.Memory()
	ctx, cancel := context.WithCancel(t.Context())
	w := newWorker(open(t, config(b)), "a")
	done := make(chan error, 1)
	go func() { done <- w.run(ctx) }()
	<-time.After(10 * time.Second)
	_, err := open(t, with(b, r)).Reset(t.Context())
	cancel()
	if runErr := <-done; runErr != nil {
		t.Fatal(runErr)
	}
	if err == nil || !strings.Contains(err.Error(), "stop it first") {
		return fmt.Errorf("reset beside a running member: %w", err)
	}
	return nil
}

func runFor(t *testing.T, s *Store, d time.Duration, src ...string) *worker {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	w := newWorker(s, src...)
	if err := w.run(ctx); err != nil {
		t.Fatal(err)
	}
	return w
}

func testReset(t *testing.T, r rules) error {
	b := bucket.Memory()
	runFor(t, open(t, config(b)), 10*time.Second, "a", "b")
	s := open(t, with(b, r))
	before, _ := s.List(t.Context())
	reset, err := s.Reset(t.Context())
	if err != nil {
		return err
	}
	if l, err := s.Ledger(t.Context()); err != nil || l != (stream.Ledger{}) {
		return fmt.Errorf("the ledger after a reset: %+v, %w", l, err)
	}
	cfg := config(b)
	cfg.Plan = stream.Plan{{Name: "--window", Value: "5m"}} // a reset is also how to change the plan
	fresh, err := Open(t.Context(), cfg)
	if err != nil {
		return err
	}
	w := runFor(t, fresh, 10*time.Second, "a", "b")
	for _, info := range before {
		as := w.claimed(info.Partition)
		if len(as) != 1 || as[0].Base == nil || as[0].Base.Kind != stream.KindReset || as[0].Base.Position != (stream.Position{}) || as[0].Claim <= info.Newest {
			return fmt.Errorf("%s after a reset of %v: %+v", info.Partition, reset, as)
		}
	}
	return nil
}

func testResetRace(t *testing.T, r rules) error {
	b := newIll(bucket.Memory())
	runFor(t, open(t, config(b)), 10*time.Second, "a")
	served := make(chan struct{}, 100)
	resetter := open(t, config(b.Bucket))
	// Another process claims the partition by the roster that it knows; its claim reaches the log when
	// the reset is through.
	b.spoil(once("create", "log/a/", func() error {
		_, err := resetter.resetAll(t.Context())
		return err
	}))
	s := open(t, with(b, r))
	run := &run{s: s, ids: make(map[string]bool), blocked: make(map[string]bool), dead: make(map[string]bool)}
	m := newMember(s)
	if err := m.write(t.Context()); err != nil {
		t.Fatal(err)
	}
	row := stream.RosterRow{Partition: stream.Partition{Name: "a"}, Start: 7}
	for range 3 {
		if c, _, err := run.tryClaim(t.Context(), m, s.follow("a"), row); err == nil && c != nil {
			served <- struct{}{}
		}
	}
	if len(served) > 0 {
		return errors.New("a partition was claimed by a roster that was reset")
	}
	return nil
}

// A8.

func testPlan(t *testing.T, r rules) error {
	b := bucket.Memory()
	w := runFor(t, open(t, config(b)), 10*time.Second, "a")
	numbers, _ := w.store.list(t.Context(), stream.MergerPartition)
	saved := w.store.follow(stream.MergerPartition).state().base.Number
	cfg := with(b, r)
	cfg.Plan = stream.Plan{{Name: "--window", Value: "5m"}, {Name: "--key", Value: "user"}}
	_, err := Open(t.Context(), cfg)
	var changed *PlanChanged
	want := fmt.Sprintf("--window changed (1m → 5m) since entry %d: use a new --name, set it back, or checkpoints reset", saved)
	if !errors.As(err, &changed) || err.Error() != want {
		return fmt.Errorf("opened with another plan: %w (want %s)", err, want)
	}
	// Two instances that start with different plans at once: the one that comes second finds out at
	// its first claim.
	fresh := bucket.Memory()
	first, cfg2 := open(t, config(fresh)), cfg
	cfg2.Bucket = fresh
	second := open(t, cfg2)
	runFor(t, first, 10*time.Second, "a")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := newWorker(second, "a").run(ctx); !errors.As(err, &changed) {
		return fmt.Errorf("ran with another plan: %w", err)
	}
	if after, _ := w.store.list(t.Context(), stream.MergerPartition); !slices.Equal(numbers, after) {
		return errors.New("a refused plan wrote to the log")
	}
	return nil
}

// A9.

func testDamaged(t *testing.T, r rules) error {
	b := bucket.Memory()
	w := runFor(t, open(t, config(b)), 10*time.Second, "a")
	name := "p/" + entryName("a", w.store.follow("a").state().base.Number)
	data, err := b.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := b.Put(t.Context(), name, data); err != nil {
		t.Fatal(err)
	}
	again := runFor(t, open(t, with(b, r)), 10*time.Second, "a", "b")
	if as := again.claimed("a"); len(as) != 0 {
		return fmt.Errorf("started from %+v, not from the damaged entry", as[0].Base)
	}
	if _, err := again.store.Ledger(t.Context()); err == nil || !strings.Contains(err.Error(), name) {
		return fmt.Errorf("the damaged object is not named: %w", err)
	}
	return nil
}

// testCutOff takes entries of the merger's log away that a partition has seen, or all.
func testCutOff(all bool) func(*testing.T, rules) error {
	return func(t *testing.T, r rules) error {
		b := bucket.Memory()
		w := runFor(t, open(t, config(b)), 10*time.Second, "a", "b")
		seen := w.store.follow("a").state().base.Seen
		if seen == nil || seen.Number < 2 {
			t.Fatalf("seen is %+v", seen)
		}
		first := seen.Number
		if all {
			first = 1
		}
		cutLog(t, b, stream.MergerPartition, first)
		facts, err := open(t, config(b)).Facts(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		if x := Explain(facts); x.State != StateUnknown || !strings.Contains(x.Paragraph("p"), "it is gone") && !strings.Contains(x.Paragraph("p"), "log is gone") {
			t.Errorf("explained as %s", x.Paragraph("p"))
		}
		again := runFor(t, open(t, with(b, r)), time.Minute, "a", "b")
		if as := again.claimed(stream.MergerPartition); len(as) != 0 {
			return fmt.Errorf("the merger started from %+v", as[0].Base)
		}
		return resets(t, b, w.store, stream.MergerPartition, seen.Number)
	}
}

// testCutOffUnderLanes leaves the merger's log a roster, so that partitions go on reading, and saving, while
// nobody may claim the merger.
func testCutOffUnderLanes(t *testing.T, r rules) error {
	b := bucket.Memory()
	runFor(t, open(t, config(b)), 10*time.Second, "a", "b")
	w := runFor(t, open(t, config(b)), 10*time.Second, "a", "b")
	seen := w.store.follow("a").state().base.Seen.Number
	if roster := w.store.merged(); roster == nil || seen < 5 {
		t.Fatalf("seen is %d, the roster %+v", seen, roster)
	}
	cutLog(t, b, stream.MergerPartition, seen)
	again := runFor(t, open(t, with(b, r)), time.Minute, "a", "b")
	if len(again.claimed("a")) == 0 {
		t.Fatal("no partition went on: nothing was tried")
	}
	if as := again.claimed(stream.MergerPartition); len(as) != 0 {
		return fmt.Errorf("the merger started from %+v", as[0].Base)
	}
	return resets(t, b, w.store, stream.MergerPartition, seen)
}

// testLaneCutOff takes entries of a partition's log away that the roster vouches for.
func testLaneCutOff(t *testing.T, r rules) error {
	b := bucket.Memory()
	w := runFor(t, open(t, config(b)), 10*time.Second, "a", "b")
	known := w.store.merged().Roster[0].Newest
	if known < 2 {
		t.Fatalf("%+v", w.store.merged().Roster)
	}
	cutLog(t, b, "a", known)
	facts, err := open(t, config(b)).Facts(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if x := Explain(facts); x.verdict("a").Reason != ReasonDamaged || x.verdict("b").Reason == ReasonDamaged {
		t.Errorf("explained as %s", x.Paragraph("p"))
	}
	again := runFor(t, open(t, with(b, r)), time.Minute, "a", "b")
	if as := again.claimed("a"); len(as) != 0 {
		return fmt.Errorf("a started from %+v", as[0].Base)
	}
	if len(again.claimed("b")) == 0 {
		t.Fatal("the other partition stands still too")
	}
	return resets(t, b, w.store, "a", known)
}

// testLostEnd takes the end of a partition away that the roster says has ended: nobody is to claim it
// again, so that only the merger can notice.
func testLostEnd(t *testing.T, r rules) error {
	b := bucket.Memory()
	w := newWorker(open(t, config(b)), "a", "b")
	w.until, w.endless = 5, "b"
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := w.run(ctx); err != nil {
		t.Fatal(err)
	}
	end := w.store.follow("a").state().base
	if row := w.store.merged().Roster[0]; end.Kind != stream.KindEnd || !row.Ended || row.Newest != end.Number {
		t.Fatalf("%+v has ended with %+v", row, end)
	}
	cutLog(t, b, "a", end.Number)
	facts, err := open(t, config(b)).Facts(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if v := Explain(facts).verdict("a"); v == nil || v.Reason != ReasonDamaged || !strings.Contains(v.Text, entryName("a", end.Number)) {
		t.Errorf("explained as %+v", v)
	}
	again := newWorker(open(t, with(b, r)), "a", "b")
	again.endless = "b"
	ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := again.run(ctx); err != nil {
		t.Fatal(err)
	}
	var damaged *Damaged
	if err := again.unread["a"]; !errors.As(err, &damaged) || !strings.Contains(err.Error(), entryName("a", end.Number)) {
		return fmt.Errorf("the merger is told %w of the lost end", err)
	}
	return resets(t, b, w.store, "a", end.Number)
}

// A pipeline that has an end gives up when damage keeps it from there, and not before the rest is read;
// one that has none goes on, and takes the partition up once its log is restored.
func TestDamageEndsABoundedRun(t *testing.T) {
	for _, bounded := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := bucket.Memory()
			w := runFor(t, open(t, config(b)), 10*time.Second, "a", "b")
			name := "p/" + entryName("a", w.store.follow("a").state().base.Number)
			whole, err := b.Get(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Put(t.Context(), name, whole[:len(whole)-1]); err != nil {
				t.Fatal(err)
			}
			cfg := config(b)
			cfg.Bounded = bounded
			again := newWorker(open(t, cfg), "a", "b")
			again.until = 100
			began := time.Now()
			if !bounded {
				time.AfterFunc(5*time.Minute, func() {
					if err := b.Put(t.Context(), name, whole); err != nil {
						t.Error(err)
					}
				})
			}
			err = again.run(t.Context())
			var damaged *Damaged
			if !bounded {
				if err != nil || time.Since(began) < 5*time.Minute || len(again.claimed("a")) != 1 {
					t.Errorf("after %s, restored: %v, %+v", time.Since(began), err, again.claimed("a"))
				}
				return
			}
			if !errors.As(err, &damaged) || !strings.Contains(err.Error(), "partition a is damaged") || !strings.Contains(err.Error(), name) {
				t.Errorf("it ends with %v", err)
			}
			if e := again.store.follow("b").state().base; e.Kind != stream.KindEnd || len(again.claimed("a")) != 0 {
				t.Errorf("b was read to %+v, a claimed %+v", e, again.claimed("a"))
			}
		})
	}
}

// cutLog deletes a log's entries from a number on.
func cutLog(t *testing.T, b bucket.Bucket, partition string, from uint64) {
	t.Helper()
	names, err := b.List(t.Context(), "p/"+logDir(partition))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if n, ok := number(strings.TrimPrefix(name, "p/"+logDir(partition))); ok && n >= from {
			if err := b.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// resets wants a reset to work, and to use no number again that somebody has seen.
func resets(t *testing.T, b bucket.Bucket, s *Store, partition string, seen uint64) error {
	t.Helper()
	if _, err := open(t, config(b)).Reset(t.Context()); err != nil {
		return err
	}
	numbers, err := s.list(t.Context(), partition)
	if err != nil || len(numbers) == 0 || numbers[len(numbers)-1] <= seen {
		return fmt.Errorf("after a reset the log of %s has %d, %w", partition, numbers, err)
	}
	w := runFor(t, open(t, config(b)), 10*time.Second, "a", "b")
	for _, p := range []string{"a", "b", stream.MergerPartition} {
		if len(w.claimed(p)) == 0 {
			return fmt.Errorf("after a reset nobody claims %s", p)
		}
	}
	return nil
}

// A10.

// twoWinners is a bucket that ignores the condition.
type twoWinners struct{ bucket.Bucket }

func (b twoWinners) Create(ctx context.Context, name string, data []byte) error {
	return b.Put(ctx, name, data)
}

func testStoreCheck(t *testing.T, r rules) error {
	cfg := with(twoWinners{bucket.Memory()}, r)
	cfg.Checked = false
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w := newWorker(open(t, cfg), "a")
	if err := w.run(ctx); err == nil || len(w.claimed("a")) > 0 {
		return errors.New("a store that ignores conditional writes was used")
	}
	return nil
}

// A11.

func testLeftBehind(t *testing.T, r rules) error {
	b := newIll(bucket.Memory())
	cfg := config(b.Bucket)
	cfg.Keep = 2
	o := mustClaim(t, open(t, cfg), "a")
	o.fill(t, 1, 2)
	s := open(t, with(b, r))
	f := s.follow("a")
	if err := f.sync(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	// It follows by reading the next number.
	lists, gets := b.count("list"), b.count("get")
	for p := range int64(20) {
		o.fill(t, 3+p, 3+p)
		if err := f.sync(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	if b.count("list") != lists || b.count("get")-gets > 40 {
		return fmt.Errorf("20 entries were followed with %d lists and %d gets", b.count("list")-lists, b.count("get")-gets)
	}
	// Then it is away for long: its next number is deleted.
	o.fill(t, 23, 60)
	if err := o.retention.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.hint(o.next - 1)
	if err := f.sync(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if got := f.state().number(); got != o.next-1 {
		return fmt.Errorf("stands at entry %d, with %d as the newest", got, o.next-1)
	}
	// The same without anybody to tell: the list comes by itself in the end, and not often.
	o.fill(t, 61, 90)
	if err := o.retention.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	lists = b.count("list")
	for range 3600 {
		<-time.After(time.Second)
		if err := f.sync(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.state().number(); got != o.next-1 {
		return fmt.Errorf("stands at entry %d, with %d as the newest, an hour later", got, o.next-1)
	}
	if n := b.count("list") - lists; n > 12 {
		return fmt.Errorf("listed %d times in an hour", n)
	}
	return nil
}

// A12.

func testOrphans(t *testing.T, r rules) error {
	b := bucket.Memory()
	first := mustClaim(t, open(t, config(b)), "a")
	named, err := first.WriteObject(t.Context(), "snapshot", incompressible(100<<10))
	if err != nil {
		t.Fatal(err)
	}
	e := checkpointAt(1)
	e.Snapshot = []stream.Blob{named}
	if err := first.Append(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	orphan, err := first.WriteObject(t.Context(), "snapshot", incompressible(100<<10))
	if err != nil {
		t.Fatal(err) // and then it crashes
	}
	s := open(t, with(b, r))
	second := mustClaim(t, s, "a")
	if err := second.retention.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.readBlob(t.Context(), named); err != nil {
		t.Error(err)
	}
	if _, err := s.readBlob(t.Context(), orphan); !errors.Is(err, stream.ErrMissing) {
		return fmt.Errorf("the orphan is still there: %w", err)
	}
	return nil
}

func testEndedObjects(t *testing.T, r rules) error {
	b := bucket.Memory()
	s := open(t, with(b, r))
	o := mustClaim(t, s, "a")
	blob, err := o.WriteObject(t.Context(), "slice", incompressible(100<<10))
	if err != nil {
		t.Fatal(err)
	}
	frozen := []stream.Frozen{{End: 50, Data: blob}}
	end := &stream.Entry{Kind: stream.KindEnd, Frozen: frozen, Watermark: stream.EndOfTime}
	if err := o.Append(t.Context(), end); err != nil {
		t.Fatal(err)
	}
	merger := mustClaim(t, s, stream.MergerPartition)
	j := &janitor{s: s, all: map[*retention]bool{merger.retention: true}, done: make(map[string]bool)}
	for _, frontier := range []stream.Instant{49, 50} {
		roster := []stream.RosterRow{{Partition: stream.Partition{Name: "a"}, Ended: true}}
		if err := merger.Append(t.Context(), &stream.Entry{Kind: stream.KindCheckpoint, Merger: &stream.MergerEntry{Frontier: frontier, Roster: roster}}); err != nil {
			t.Fatal(err)
		}
		j.round(t.Context())
		names, err := b.List(t.Context(), "p/objects/a/")
		if err != nil || len(names) != map[stream.Instant]int{49: 1, 50: 0}[frontier] {
			return fmt.Errorf("with the frontier at %d there are %v, %w", frontier, names, err)
		}
	}
	return nil
}

func testDeadMember(t *testing.T, r rules) error {
	b := bucket.Memory()
	dead := newMember(open(t, config(b)))
	if err := dead.write(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, run := range []struct {
		d    time.Duration
		left int
	}{{100 * time.Second, 1}, {200 * time.Second, 0}} { // ten leases are 150 s
		s := open(t, with(b, r))
		runFor(t, s, run.d, "a")
		if ids, err := s.members(t.Context()); err != nil || len(ids) != run.left {
			return fmt.Errorf("after %s: %v, %w", run.d, ids, err)
		}
	}
	return nil
}
