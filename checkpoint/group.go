package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/stream"
)

// Group returns the group of this process. Every Run of it is a member of its own.
func (s *Store) Group() stream.Group { return group{s} }

type group struct{ s *Store }

// run is one Run: one process' part in leasing the partitions.
type run struct {
	s       *Store
	src     stream.Source
	serve   func(*stream.Assignment) error
	wake    chan struct{}
	janitor *janitor
	tasks   sync.WaitGroup // claiming and serving

	// Owned by the loop.
	watching map[string]*observer // other members, and owners of what we want
	listedAt time.Time
	lookAt   time.Time // when the heartbeats are due
	aim      aim
	turnover turnover

	mu      sync.Mutex
	member  *member
	ids     map[string]bool // every member that this run has been
	tenants map[string]*tenant
	blocked map[string]bool // owners that must be dead before we can claim what is ours
	dead    map[string]bool
	clocks  map[string]time.Time // of other live members
	stop    bool                 // everything drains
	freed   bool                 // partitions were let go that the others do not know of
	damage  map[string]error     // of logs that our merger cannot read
	fatal   error
}

// tenant is what a run does about one partition.
type tenant struct {
	partition string
	busy      bool // being claimed or served
	retryAt   time.Time
	ended     bool
	drain     func() // set while served
	moving    bool   // drained because it is another member's share
	again     bool   // partitions became free while it was being claimed
	failures  int
	damage    error // why it cannot be served at all; it is tried again all the same
}

// Run implements stream.Group.
func (g group) Run(ctx context.Context, src stream.Source, serve func(*stream.Assignment) error) error {
	s := g.s
	if s.plan == nil {
		return errors.New("checkpoint: a store that was opened without a plan cannot claim anything")
	}
	if !s.cfg.Checked && !s.rules.noStoreCheck {
		if err := bucket.Check(ctx, s.bucket); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
	r := &run{s: s, src: src, serve: serve, wake: make(chan struct{}, 1), ids: make(map[string]bool), watching: make(map[string]*observer),
		turnover: turnover{s: s}, tenants: make(map[string]*tenant), blocked: make(map[string]bool), dead: make(map[string]bool), clocks: make(map[string]time.Time), damage: make(map[string]error),
		janitor: &janitor{s: s, all: make(map[*retention]bool), done: make(map[string]bool)}}
	return r.run(ctx)
}

// run joins, works until there is nothing more to do, drains, and leaves.
func (r *run) run(ctx context.Context) error {
	merger := r.s.follow(stream.MergerPartition)
	if err := r.insist(ctx, "the merger's log", func() error { return merger.sync(ctx, 0) }); err != nil {
		return r.unlessDone(ctx, err)
	}
	if base := merger.state().base; base != nil && base.Kind == stream.KindEnd {
		return stream.ErrFinished
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var helpers sync.WaitGroup
	helpers.Go(func() { r.janitor.work(background) })
	err := r.join(ctx, background, &helpers)
	if err == nil {
		err = r.loop(ctx, background, &helpers)
	}
	r.drainAll()
	r.tasks.Wait()
	stop()
	helpers.Wait()
	r.mu.Lock()
	m, fatal, alone := r.member, r.fatal, r.alone()
	r.mu.Unlock()
	if m != nil {
		m.leave()
		if !alone {
			r.turnover.tell(context.WithoutCancel(ctx))
		}
	}
	if fatal != nil {
		return fatal
	}
	return r.unlessDone(ctx, err)
}

func (r *run) unlessDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// insist repeats f until it succeeds, ctx is done, or what it says cannot become better.
func (r *run) insist(ctx context.Context, what string, f func() error) error {
	for wait := r.s.backOff(); ; {
		err := f()
		var damaged *Damaged
		if err == nil || errors.As(err, &damaged) {
			return err
		}
		r.s.logger.Warn("the store does not answer: trying again", "what", what, "error", err)
		if err := wait.sleep(ctx); err != nil {
			return err
		}
	}
}

// join makes this process a member: its file is there before its first claim (A3).
func (r *run) join(ctx, background context.Context, helpers *sync.WaitGroup) error {
	m := newMember(r.s)
	if err := r.insist(ctx, "heartbeat", func() error { return m.write(ctx) }); err != nil {
		return err
	}
	r.mu.Lock()
	r.member = m
	r.ids[m.id] = true
	r.mu.Unlock()
	helpers.Go(func() { m.keep(background) })
	helpers.Go(func() { m.watch(background) })
	return nil
}

// loop looks at the world whenever something may have changed.
func (r *run) loop(ctx, background context.Context, helpers *sync.WaitGroup) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	merger := r.s.follow(stream.MergerPartition)
	for {
		r.mu.Lock()
		m := r.member
		r.mu.Unlock()
		if !m.check() {
			if err := r.join(ctx, background, helpers); err != nil {
				return err
			}
			continue
		}
		saved := merger.state().base
		done, err := r.step(ctx)
		if done || err != nil {
			return err
		}
		timer.Reset(r.pause())
		for waiting := true; waiting; {
			news := r.s.news.next()
			if merger.state().base != saved { // of all entries only the merger's say what there is to do
				break
			}
			select {
			case <-news:
				continue
			case <-timer.C:
			case <-r.wake:
			case <-m.lost:
			case <-ctx.Done():
				return nil
			}
			waiting = false
		}
	}
}

// tick is how often others are looked at: four times a lease, so that one slow reading leaves the
// gap below half of it.
func (r *run) tick() time.Duration { return r.s.lease / 4 }

// pause is how long nothing can become due.
func (r *run) pause() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	wait := min(r.s.pollEvery(), time.Until(r.lookAt))
	if !r.alone() {
		wait = min(wait, r.turnover.due())
		if r.freed {
			wait = min(wait, tellEvery)
		}
	}
	for _, t := range r.tenants {
		if left := time.Until(t.retryAt); !t.busy && !t.ended && left > 0 {
			wait = min(wait, left)
		}
	}
	return max(wait, time.Millisecond)
}

// step looks once. It reports true when the pipeline has ended and nothing is served any more.
func (r *run) step(ctx context.Context) (bool, error) {
	r.mu.Lock()
	fatal := r.fatal
	r.mu.Unlock()
	if fatal != nil {
		return true, fatal
	}
	merger := r.s.follow(stream.MergerPartition)
	if err := merger.sync(ctx, r.s.pollEvery()); err != nil {
		var damaged *Damaged
		if errors.As(err, &damaged) {
			return false, err
		}
		r.s.logger.Warn("the merger's log cannot be read: going on with what is known", "error", err)
	}
	t := merger.state()
	if err := r.s.checkPlan(t.base); err != nil {
		return false, err
	}
	if t.base != nil && t.base.Kind == stream.KindEnd {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, t := range r.tenants {
			if t.busy {
				return false, nil
			}
		}
		return true, nil
	}
	told := r.turned(ctx)
	gone := r.members(ctx)
	r.distribute(ctx, told || gone)
	return false, r.hopeless()
}

// distribute starts what is our share and not started, and drains what has become another's. fresh
// says that partitions have become free just now.
func (r *run) distribute(ctx context.Context, fresh bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stop {
		return
	}
	waited := r.blocked
	r.blocked = make(map[string]bool)
	members := []string{r.member.id}
	for id := range r.clocks {
		members = append(members, id)
	}
	r.aim.take(r.s.merged(), r.member.id, members)
	rows, ours, tip := r.aim.rows, r.aim.ours, r.aim.tip
	now := time.Now()
	for _, name := range append(r.unreleased(rows, ours), ours...) {
		t := r.tenants[name]
		if t == nil {
			t = &tenant{partition: name}
			r.tenants[name] = t
		}
		f := r.s.follow(name)
		if owner := f.state().owner(); owner != "" && !r.ids[owner] {
			if !waited[owner] && !r.blocked[owner] {
				r.s.logger.Info("waiting for another member, which lets go or is dead once it has been silent for the lease",
					"member", owner, "partition", name, "lease", r.s.lease.String())
			}
			r.blocked[owner] = true
		}
		if fresh && t.failures == 0 {
			f.refresh()
			t.retryAt, t.again = time.Time{}, t.busy
		}
		if t.busy || t.ended || now.Before(t.retryAt) {
			continue
		}
		t.busy, t.damage = true, nil
		m := r.member
		r.tasks.Go(func() { r.tend(ctx, t, m, rows[name], tip) })
	}
	r.letGo(rows, ours)
}

// letGo drains partitions that are another member's share, a few at a time. One that is in the roster
// no more is about to end by itself.
func (r *run) letGo(rows map[string]stream.RosterRow, ours []string) {
	moving, served := 0, 0
	for _, t := range r.tenants {
		if t.drain != nil {
			served++
			if t.moving {
				moving++
			}
		}
	}
	for name, t := range r.tenants {
		if _, listed := rows[name]; t.drain == nil || t.moving || !listed || slices.Contains(ours, name) || moving >= max(1, served/8) {
			continue
		}
		t.moving = true
		moving++
		r.s.logger.Info("the partition moves to another member", "partition", name)
		t.drain()
	}
}

// drainAll asks everything that is served to finish.
func (r *run) drainAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stop = true
	for _, t := range r.tenants {
		if t.drain != nil {
			t.drain()
		}
	}
}

// clock is the smallest wall clock of the live members (M5).
// unreleased are partitions that are another member's share, and that none but us may claim: an assignment of
// ours failed while they were to move. They are claimed again, so that what was saved is committed, and let go.
func (r *run) unreleased(rows map[string]stream.RosterRow, ours []string) (names []string) {
	for name, t := range r.tenants {
		if _, listed := rows[name]; listed && !t.busy && !slices.Contains(ours, name) && r.s.follow(name).state().owner() == r.member.id {
			names = append(names, name)
		}
	}
	return names
}

func (r *run) clock() time.Time {
	now := r.s.cfg.WallClock()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.clocks {
		if c.Before(now) {
			now = c
		}
	}
	return now
}

// tend claims a partition if it may, and serves it until the assignment has ended.
func (r *run) tend(ctx context.Context, t *tenant, m *member, row stream.RosterRow, tip string) {
	retry, err := r.claimAndServe(ctx, t, m, row, tip)
	r.mu.Lock()
	r.freed = r.freed || t.moving && err == nil
	t.busy, t.moving, t.drain = false, false, nil
	if t.partition == stream.MergerPartition {
		clear(r.damage)
	}
	t.retryAt = time.Now().Add(retry)
	if t.again && t.failures == 0 {
		t.retryAt = time.Time{}
	}
	t.again = false
	var changed *PlanChanged
	if errors.As(err, &changed) && r.fatal == nil {
		r.fatal = err
	}
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// claimAndServe returns when to look at the partition again.
func (r *run) claimAndServe(ctx context.Context, t *tenant, m *member, row stream.RosterRow, tip string) (time.Duration, error) {
	f := r.s.follow(row.Name)
	c, wait, err := r.tryClaim(ctx, m, f, row)
	switch {
	case ctx.Err() != nil && c == nil:
		return 0, nil
	case errors.Is(err, errNotNow):
		return wait, nil
	case err != nil:
		var changed *PlanChanged
		if !errors.As(err, &changed) {
			r.s.logger.Error("the partition cannot be claimed: trying again", "partition", row.Name, "error", err)
			m.note(row.Name, f.state().number(), err)
		}
		return r.failed(t, err), err
	case c == nil: // ended
		r.mu.Lock()
		t.ended = true
		r.mu.Unlock()
		return 0, nil
	}
	r.s.logger.Info("claimed", "partition", row.Name, "claim", c.entry.Number, "member", m.id)
	err = r.serveClaim(t, m, f, c, row, tip)
	switch {
	case err == nil:
		r.mu.Lock()
		t.failures = 0
		r.mu.Unlock()
		m.note(row.Name, 0, nil)
		return 0, nil
	case errors.Is(err, stream.ErrFenced), errors.Is(err, stream.ErrLeaseLost):
		r.s.logger.Warn("the assignment has ended", "partition", row.Name, "claim", c.entry.Number, "error", err)
		return r.s.lease / 20, nil
	}
	if base := f.state().base; base != nil && base.Number > c.entry.Number {
		r.mu.Lock()
		t.failures = 0 // it came forward before it failed
		r.mu.Unlock()
	}
	m.note(row.Name, f.state().number(), err)
	retry := r.failed(t, err)
	r.s.logger.Error("the assignment has failed: claiming again", "partition", row.Name, "claim", c.entry.Number, "in", retry, "error", err)
	return retry, nil
}

// failed spaces the attempts of one partition in this process; the crash loop's own back-off, which
// the log remembers, comes on top (A2).
func (r *run) failed(t *tenant, err error) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	t.failures++
	if damaged := (*Damaged)(nil); errors.As(err, &damaged) {
		t.damage = err
	}
	return min(100*time.Millisecond<<min(t.failures-1, 10), 30*time.Second)
}

// unread notes whether our merger can read a partition's log.
func (r *run) unread(partition string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if damaged := (*Damaged)(nil); errors.As(err, &damaged) {
		r.damage[partition] = err
	} else if err == nil {
		delete(r.damage, partition)
	}
}

// hopeless is an error when the pipeline has an end that damage keeps it from, and nothing else of ours
// is under way. Where there is no end the damaged partition is tried again for ever: somebody may restore
// the object.
func (r *run) hopeless() error {
	if !r.s.cfg.Bounded {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	name, because := "", error(nil)
	for _, p := range r.aim.ours {
		switch t := r.tenants[p]; {
		case t == nil:
			return nil
		case !t.busy && t.damage != nil:
			name, because = p, t.damage
		case p != stream.MergerPartition && !t.ended:
			return nil
		}
	}
	if because == nil {
		for _, p := range slices.Sorted(maps.Keys(r.damage)) {
			name, because = p, r.damage[p]
			break
		}
	}
	if because == nil {
		return nil
	}
	return fmt.Errorf("partition %s is damaged, and nothing else is left to do: %w", name, because)
}

// tryClaim claims the partition if A3 lets us. A nil claim without an error means that it has ended.
func (r *run) tryClaim(ctx context.Context, m *member, f *follower, row stream.RosterRow) (*claimed, time.Duration, error) {
	poll := r.s.pollEvery()
	if err := f.sync(ctx, poll); err != nil {
		return nil, poll, err
	}
	tail := f.state()
	if tail.base != nil && tail.base.Kind == stream.KindEnd {
		return nil, 0, nil
	}
	if owner := tail.owner(); owner != "" {
		r.mu.Lock()
		may := r.ids[owner] || r.dead[owner] // what was ours is free: we serve it no more
		if !may {
			r.blocked[owner] = true
		}
		r.mu.Unlock()
		if !may {
			return nil, poll, errNotNow
		}
	}
	if wait := r.s.crashWait(tail.claims) - time.Since(f.since()); wait > 0 {
		return nil, wait, errNotNow
	}
	if !m.check() {
		return nil, 0, errNotNow
	}
	if err := r.s.whole(ctx, f, row); err != nil {
		return nil, 0, err
	}
	c, err := r.s.claim(ctx, m, f)
	if err != nil {
		return nil, 0, err
	}
	if row.Name == stream.MergerPartition || r.s.rules.oldRoster {
		return c, 0, nil
	}
	// The roster may have been reset while we claimed (A7).
	merger := r.s.follow(stream.MergerPartition)
	if err := merger.sync(context.WithoutCancel(ctx), 0); err != nil {
		return nil, 0, fmt.Errorf("the merger's log after claim %d: %w", c.entry.Number, err)
	}
	if now := r.s.merged(); now == nil || !slices.ContainsFunc(now.Roster, func(r stream.RosterRow) bool { return r.Name == row.Name && r.Start == row.Start }) {
		return nil, poll, errNotNow
	}
	return c, 0, nil
}

// serveClaim serves a claim that stands until the assignment has ended.
func (r *run) serveClaim(t *tenant, m *member, f *follower, c *claimed, row stream.RosterRow, tip string) error {
	lost, draining := make(chan struct{}), make(chan struct{})
	var lostOnce, drainOnce sync.Once
	a := &stream.Assignment{Partition: row.Name, Claim: c.entry.Number, Base: c.base, Committed: c.committed, Start: row.Start, From: row.From,
		Tip: tip, Source: r.src, Lost: lost, Draining: draining}
	lose := func(err error) { lostOnce.Do(func() { a.Fail(err); close(lost) }) }
	drain := func() { drainOnce.Do(func() { close(draining) }) }
	keep := newRetention(r.s, row.Name, c)
	l := &log{run: r, s: r.s, member: m, follower: f, retention: keep, partition: row.Name, claim: c.entry.Number,
		genesis: c.entry.Genesis, lose: lose, busy: make(chan struct{}, 1), next: c.entry.Number + 1, last: time.Now()}
	if c.base != nil {
		l.seen = c.base.Seen
	}
	a.Log = l
	if !m.add(a, lose) {
		return stream.ErrLeaseLost
	}
	defer m.remove(a)
	f.own(1)
	defer f.own(-1)
	r.janitor.add(keep)
	defer r.janitor.remove(keep)
	r.mu.Lock()
	t.drain = drain
	if r.stop {
		drain()
	}
	r.mu.Unlock()
	err := r.serve(a)
	if err != nil {
		lose(err) // whatever of it still runs stops now
	}
	return err
}
