package checkpoint

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/millstream/millstream/stream"
)

// heartbeat is the content of members/ID. Others only ask whether it changed; people and fleet-wide
// commands read the rest.
type heartbeat struct {
	ID         string                   `json:"id"`
	Beat       uint64                   `json:"beat"`
	Clock      time.Time                `json:"clock"` // wall clock of the member
	Partitions map[string]stream.Status `json:"partitions"`
	Failed     map[string]Failure       `json:"failed,omitempty"`
}

// Failure is how the member's last assignment of a partition ended, or its last try to get one.
type Failure struct {
	Error  string    `json:"error"`
	At     time.Time `json:"at"`
	Newest uint64    `json:"newest"` // entry of the log when it happened: a later checkpoint means that it is over
}

// member is this process as the others see it, for as long as it keeps its lease. A process that
// lost its lease joins again as a new member.
type member struct {
	s    *Store
	id   string
	lost chan struct{} // closed when the lease is lost

	mu     sync.Mutex
	beat   uint64
	good   time.Duration // on the boot clock: when the last heartbeat that was saved began
	over   bool
	leases map[*stream.Assignment]func(error)
	failed map[string]Failure
}

func newMember(s *Store) *member {
	name := s.cfg.Member
	if name == "" {
		name, _ = os.Hostname() // it only helps people
	}
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return -1
	}, strings.ToLower(name))
	id := strings.TrimLeft(name[:min(len(name), 40)]+"-"+strings.ToLower(rand.Text()[:10]), "-")
	return &member{s: s, id: id, lost: make(chan struct{}), leases: make(map[*stream.Assignment]func(error)), failed: make(map[string]Failure)}
}

// write saves one heartbeat. The lease counts from before the write began.
func (m *member) write(ctx context.Context) error {
	began := m.s.boot()
	m.mu.Lock()
	m.beat++
	h := heartbeat{ID: m.id, Beat: m.beat, Clock: m.s.cfg.WallClock().UTC(), Partitions: make(map[string]stream.Status, len(m.leases))}
	for a := range m.leases {
		if s := a.Status(); s != nil {
			h.Partitions[a.Partition] = *s
		} else {
			h.Partitions[a.Partition] = stream.Status{Watermark: a.Start, Newest: a.Claim, At: h.Clock}
		}
	}
	h.Failed = maps.Clone(m.failed)
	m.mu.Unlock()
	data, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, m.s.lease/4)
	defer cancel()
	if err := m.s.bucket.Put(ctx, m.s.path(memberName(m.id)), data); err != nil {
		return fmt.Errorf("heartbeat %s: %w", m.s.path(memberName(m.id)), err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.good = max(m.good, began)
	return nil
}

// keep writes heartbeats until ctx is done, or the lease is lost.
func (m *member) keep(ctx context.Context) {
	timer := time.NewTimer(m.s.lease / 4)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-m.lost:
			return
		case <-ctx.Done():
			return
		}
		if !m.check() {
			return
		}
		wait := m.s.lease / 4
		if err := m.write(ctx); err != nil && ctx.Err() == nil {
			m.s.logger.Warn("the heartbeat cannot be saved: trying again", "member", m.id, "error", err)
			wait = m.s.lease / 16
		}
		timer.Reset(wait)
	}
}

// watch looks at the lease on time, whatever the heartbeat's write is waiting for.
func (m *member) watch(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-m.lost:
			return
		case <-ctx.Done():
			return
		}
		if !m.check() {
			return
		}
		m.mu.Lock()
		left := m.good + m.s.lease/2 - m.s.boot()
		m.mu.Unlock()
		// The boot clock and the timer's may differ: look at least eight times a lease.
		timer.Reset(max(min(left, m.s.lease/8), time.Millisecond))
	}
}

// check is A4: it reports whether the lease holds, and ends everything when it does not. A process
// that wakes from a pause calls it before anything else, since every use of a log does.
func (m *member) check() bool {
	m.mu.Lock()
	ok := !m.over && m.s.boot()-m.good <= m.s.lease/2 || m.s.rules.noSelfStop
	m.mu.Unlock()
	if !ok {
		m.end()
	}
	return ok
}

// end gives everything up: the lease is lost.
func (m *member) end() {
	m.mu.Lock()
	if m.over {
		m.mu.Unlock()
		return
	}
	m.over = true
	close(m.lost)
	leases := make([]func(error), 0, len(m.leases))
	for _, lose := range m.leases {
		leases = append(leases, lose)
	}
	m.mu.Unlock()
	for _, lose := range leases {
		lose(stream.ErrLeaseLost)
	}
	m.s.logger.Error("lease lost: no heartbeat was saved in time; joining again", "member", m.id, "lease", m.s.lease)
}

// add ties an assignment to the lease. It reports false when that is lost already.
func (m *member) add(a *stream.Assignment, lose func(error)) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over {
		return false
	}
	m.leases[a] = lose
	return true
}

// note keeps the reason of a failure for the heartbeat, for people; nil forgets it.
func (m *member) note(partition string, newest uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		delete(m.failed, partition)
		return
	}
	text := err.Error()
	m.failed[partition] = Failure{Error: text[:min(len(text), failureMax)], At: time.Now().UTC(), Newest: newest}
}

// failureMax bounds the text of a failure.
const failureMax = 1 << 10

func (m *member) remove(a *stream.Assignment) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.leases, a)
}

// leave deletes the heartbeat of a member that owns nothing any more.
func (m *member) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), m.s.lease/2)
	defer cancel()
	if err := m.s.bucket.Delete(ctx, m.s.path(memberName(m.id))); err != nil {
		m.s.logger.Info("the heartbeat file of a member that left stays behind; others delete it", "member", m.id, "error", err)
	}
}
