package checkpoint

import (
	"context"
	"time"

	"github.com/millstream/millstream/stream"
)

// What a run knows of the other members: who lives, who is dead, who has let go.

// alone reports whether no other member is known of. Called with the mutex held.
func (r *run) alone() bool { return len(r.clocks) == 0 && len(r.blocked) == 0 }

// turned tells the others what they can have, and reports whether they have told us so.
func (r *run) turned(ctx context.Context) bool {
	r.mu.Lock()
	alone := r.alone()
	tell := r.freed && !alone && r.turnover.may()
	if tell {
		r.freed = false
	}
	r.mu.Unlock()
	if tell {
		r.turnover.tell(ctx)
	}
	if alone || !r.turnover.changed(ctx) {
		return false
	}
	r.listedAt, r.lookAt = time.Time{}, time.Time{}
	return true
}

// members looks at the other members' files when it is time, and reports whether one of them has gone.
func (r *run) members(ctx context.Context) (gone bool) {
	now := time.Now()
	if now.Before(r.lookAt) {
		return false
	}
	r.mu.Lock()
	for id := range r.blocked {
		if r.watching[id] == nil {
			r.watching[id] = &observer{}
		}
	}
	r.mu.Unlock()
	if r.listedAt.IsZero() || now.Sub(r.listedAt) >= r.s.lease*9/10 {
		r.listMembers(ctx)
	}
	dead, clocks := make(map[string]bool), make(map[string]time.Time)
	r.lookAt = now.Add(r.tick())
	for id, o := range r.watching {
		if err := r.s.look(ctx, o, id); err != nil && ctx.Err() == nil {
			r.s.logger.Warn("a heartbeat cannot be read", "member", id, "error", err)
		}
		for partition, status := range o.beat.Partitions {
			r.s.follow(partition).hint(status.Newest)
		}
		if o.live(r.s.lease, r.s.rules) {
			clocks[id] = o.beat.Clock
		}
		if o.dead(r.s.lease, r.s.rules) {
			dead[id] = true
		} else if last := o.first.Add(r.s.lease); o.reads > 1 && last.Before(r.lookAt) {
			r.lookAt = last // and not a tick later, whenever the readings before were
		}
		r.forgetMember(ctx, id, o)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.clocks {
		_, still := clocks[id]
		gone = gone || !still
	}
	r.dead, r.clocks = dead, clocks
	return gone
}

// listMembers finds the files of members not watched yet.
func (r *run) listMembers(ctx context.Context) {
	ids, err := r.s.members(ctx)
	if err != nil {
		if ctx.Err() == nil {
			r.s.logger.Warn("the members cannot be listed", "error", err)
		}
		return
	}
	r.listedAt = time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		if r.watching[id] == nil && !r.ids[id] {
			r.watching[id] = &observer{}
		}
	}
}

// forgetMember drops what is of no use any more: the observer of a file that is gone, and the file
// itself when it stood still for ten leases and its member owns nothing (A12).
func (r *run) forgetMember(ctx context.Context, id string, o *observer) {
	r.mu.Lock()
	blocked := r.blocked[id]
	r.mu.Unlock()
	if blocked || !o.dead(r.s.lease, r.s.rules) {
		return
	}
	if !o.present {
		delete(r.watching, id)
		return
	}
	if !o.still(10*r.s.lease, r.s.rules) || r.s.rules.noGarbage {
		return
	}
	partitions := []string{stream.MergerPartition}
	if m := r.s.merged(); m != nil {
		for i := range m.Roster {
			partitions = append(partitions, m.Roster[i].Name)
		}
	}
	for _, p := range partitions {
		f := r.s.follow(p)
		if err := f.sync(ctx, r.s.pollEvery()); err != nil || f.state().owner() == id {
			return
		}
	}
	if err := r.s.bucket.Delete(ctx, r.s.path(memberName(id))); err != nil && ctx.Err() == nil {
		r.s.logger.Info("the heartbeat file of a dead member cannot be deleted", "member", id, "error", err)
	}
}
