package consumertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/millstream/millstream/stream"
)

// Logs are the logs of one pipeline in memory, and the groups that share them: what package
// checkpoint does with a bucket, without leases, members, or crashes. Whoever asks first owns a
// partition until it lets go. Safe for concurrent use.
type Logs struct {
	mu      sync.Mutex
	logs    map[string][]*stream.Entry
	owner   map[string]*lease
	objects map[string][]byte
	changed chan struct{}
}

// lease is one assignment while it lasts.
type lease struct {
	assignment *stream.Assignment
	lost       chan struct{}
	draining   chan struct{}
	drainOnce  sync.Once
}

func (l *lease) drain() { l.drainOnce.Do(func() { close(l.draining) }) }

func (l *lease) isLost() bool {
	select {
	case <-l.lost:
		return true
	default:
		return false
	}
}

// NewLogs returns empty logs.
func NewLogs() *Logs {
	return &Logs{logs: make(map[string][]*stream.Entry), owner: make(map[string]*lease), objects: make(map[string][]byte), changed: make(chan struct{})}
}

// Group returns a new member of the group that shares the logs.
func (ls *Logs) Group() stream.Group { return &group{ls} }

// Entries returns a partition's log.
func (ls *Logs) Entries(partition string) []*stream.Entry {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return append([]*stream.Entry(nil), ls.logs[partition]...)
}

// Newest returns a partition's newest checkpoint or end, nil when there is none.
func (ls *Logs) Newest(partition string) *stream.Entry {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.newest(partition)
}

func (ls *Logs) newest(partition string) *stream.Entry {
	log := ls.logs[partition]
	for i := len(log) - 1; i >= 0; i-- {
		if log[i].Restorable() {
			return log[i]
		}
	}
	return nil
}

// Changed returns a channel that is closed when the next entry is appended to any log.
func (ls *Logs) Changed() <-chan struct{} {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.changed
}

// Drain asks the owner of a partition to let go; it may be claimed again at once.
func (ls *Logs) Drain(partition string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l := ls.owner[partition]; l != nil {
		l.drain()
	}
}

// Lose takes a partition from its owner.
func (ls *Logs) Lose(partition string, why error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l := ls.owner[partition]; l != nil {
		ls.lose(l, why)
	}
}

func (ls *Logs) lose(l *lease, why error) {
	if !l.isLost() {
		l.assignment.Fail(why)
		close(l.lost)
	}
}

func (ls *Logs) append(partition string, e *stream.Entry) {
	e.Number = uint64(len(ls.logs[partition]) + 1)
	ls.logs[partition] = append(ls.logs[partition], e)
	close(ls.changed)
	ls.changed = make(chan struct{})
}

func (ls *Logs) ended(partition string) bool {
	e := ls.newest(partition)
	return e != nil && e.Kind == stream.KindEnd
}

type group struct{ ls *Logs }

// retryEvery is how often a group looks for something to claim.
const retryEvery = 10 * time.Millisecond

// Run implements stream.Group. It returns once ctx is done, or every partition that the source
// lists has ended, and everything is served.
func (g *group) Run(ctx context.Context, src stream.Source, serve func(*stream.Assignment) error) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	var mine sync.Map
	defer mine.Range(func(k, _ any) bool { k.(*lease).drain(); return true })
	tip, err := src.Tip(ctx)
	if err != nil {
		return err
	}
	for {
		partitions, err := src.Partitions(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		all := true
		for _, p := range append(partitions, stream.Partition{Name: stream.MergerPartition}) {
			ready := true
			g.ls.mu.Lock()
			for _, parent := range p.Parents {
				// A parent that is not listed any more has expired; one that nobody has claimed yet has not ended.
				expired := len(g.ls.logs[parent]) == 0 &&
					!slices.ContainsFunc(partitions, func(q stream.Partition) bool { return q.Name == parent })
				ready = ready && (g.ls.ended(parent) || expired)
			}
			if p.Name != stream.MergerPartition {
				all = all && g.ls.ended(p.Name)
			}
			var l *lease
			if ready && !g.ls.ended(p.Name) && g.ls.owner[p.Name] == nil {
				l = g.claim(p.Name, tip, src)
			}
			g.ls.mu.Unlock()
			if l == nil {
				continue
			}
			mine.Store(l, nil)
			serving.Go(func() {
				err := serve(l.assignment)
				g.ls.mu.Lock()
				defer g.ls.mu.Unlock()
				if err != nil {
					g.ls.lose(l, err)
				}
				delete(g.ls.owner, l.assignment.Partition)
				mine.Delete(l)
			})
		}
		if all && len(partitions) > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryEvery):
		}
	}
}

func (g *group) claim(partition, tip string, src stream.Source) *lease {
	entries := g.ls.logs[partition]
	l := &lease{lost: make(chan struct{}), draining: make(chan struct{})}
	base := g.ls.newest(partition)
	released := len(entries) > 0 && entries[len(entries)-1].Kind == stream.KindRelease
	g.ls.append(partition, &stream.Entry{Kind: stream.KindClaim})
	l.assignment = &stream.Assignment{Partition: partition, Claim: uint64(len(entries) + 1), Base: base, Committed: released,
		Start: stream.Beginning, Tip: tip, Source: src, Lost: l.lost, Draining: l.draining}
	l.assignment.Log = &log{ls: g.ls, lease: l}
	g.ls.owner[partition] = l
	return l
}

// log implements stream.Log for one claim.
type log struct {
	ls    *Logs
	lease *lease
}

func (g *log) Next() stream.CheckpointID {
	g.ls.mu.Lock()
	defer g.ls.mu.Unlock()
	p := g.lease.assignment.Partition
	return stream.CheckpointID{Pipeline: "test", Genesis: "genesis", Partition: p, Number: uint64(len(g.ls.logs[p]) + 1)}
}

func (g *log) Append(ctx context.Context, e *stream.Entry) error {
	g.ls.mu.Lock()
	defer g.ls.mu.Unlock()
	p := g.lease.assignment.Partition
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case g.ls.owner[p] != g.lease || g.lease.isLost():
		return stream.ErrFenced
	}
	g.ls.append(p, e)
	return nil
}

func (g *log) WriteObject(_ context.Context, kind string, from io.WriterTo) (stream.Blob, error) {
	var buf bytes.Buffer
	if _, err := from.WriteTo(&buf); err != nil {
		return stream.Blob{}, err
	}
	g.ls.mu.Lock()
	defer g.ls.mu.Unlock()
	name := fmt.Sprintf("%s-%d", kind, len(g.ls.objects))
	g.ls.objects[name] = buf.Bytes()
	return stream.Blob{Object: name, Size: int64(buf.Len())}, nil
}

func (g *log) ReadBlob(_ context.Context, b stream.Blob) ([]byte, error) {
	g.ls.mu.Lock()
	defer g.ls.mu.Unlock()
	data, ok := g.ls.objects[b.Object]
	if !ok {
		return nil, fmt.Errorf("%s: %w", b.Object, stream.ErrMissing)
	}
	return data, nil
}

func (g *log) Newest(_ context.Context, partition string) (*stream.Entry, error) {
	return g.ls.Newest(partition), nil
}

func (g *log) merged() *stream.MergerEntry {
	if e := g.ls.Newest(stream.MergerPartition); e != nil {
		return e.Merger
	}
	return nil
}

// History remembers ids for ever.
func (g *log) History(context.Context) (past []stream.Past, keep time.Duration, err error) {
	g.ls.mu.Lock()
	defer g.ls.mu.Unlock()
	log := g.ls.logs[g.lease.assignment.Partition]
	for i := len(log) - 1; i >= 0; i-- {
		past = append(past, stream.Past{Entry: log[i]})
	}
	return past, 1<<63 - 1, nil
}

func (g *log) Frontier() stream.Instant {
	if m := g.merged(); m != nil {
		return m.Frontier
	}
	return stream.Beginning
}

func (g *log) Target() stream.Instant {
	if m := g.merged(); m != nil {
		return m.Target
	}
	return stream.Beginning
}

func (g *log) Clock() time.Time { return time.Now() }

func (g *log) Changed() <-chan struct{} { return g.ls.Changed() }

// ErrTaken is a reason for Logs.Lose.
var ErrTaken = errors.New("taken by the test")
