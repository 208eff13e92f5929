package stream

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// Errors that end an assignment. The next owner restores from the log.
var (
	// ErrFenced means that another claim stands in the log: this one must stop at once (A1).
	ErrFenced = errors.New("fenced: another instance owns the partition")
	// ErrLeaseLost means that the heartbeat failed for too long (A4).
	ErrLeaseLost = errors.New("lease lost: no heartbeat was saved in time")
	// ErrPartitionGone is returned by a reader for a partition that the source no longer has.
	ErrPartitionGone = errors.New("the partition no longer exists at the source")
	// ErrFinished is returned by Group.Run when the pipeline had ended before it was started.
	ErrFinished = errors.New("the pipeline has ended: nothing is new")
)

// Source is what a group and the merger need to know of a source.
type Source interface {
	// Partitions lists every partition that the source has now, closed ones that still hold data
	// included. Order does not matter.
	Partitions(ctx context.Context) ([]Partition, error)
	// Tip returns an opaque mark of the source's end now, kept in the merger's first entry and
	// handed to every reader (Assignment.Tip). Only the source reads it; empty means that there is none.
	Tip(ctx context.Context) (string, error)
}

// Group leases the partitions of one pipeline among the instances that share its logs.
type Group interface {
	// Run claims partitions and calls serve for each, on its own goroutine, until ctx is done and
	// everything has drained, or the pipeline has ended; both return nil. The merger is served like
	// a partition, under the name MergerPartition. serve returns when the assignment has ended:
	// nil after a release or an end was appended, otherwise the error that ended it. A group claims
	// a partition again after an error, with back-off (A2).
	Run(ctx context.Context, src Source, serve func(*Assignment) error) error
}

// Assignment is one claim of one partition: the right to read it and to write its log, until it is
// released, ended, or taken over. Fields are set by the group before it serves the assignment,
// except Flow, which the subscriber sets before it sends the first batch.
type Assignment struct {
	Partition string
	Claim     uint64          // number of the claim entry
	Base      *Entry          // what to restore; nil: nothing was ever saved
	Committed bool            // the base's output is known to be committed: a release stands behind it (A2)
	Start     Instant         // the watermark to start from when Base has no state: the roster's (M3)
	From      Position        // where to read from when there is no Base: the roster's, zero unless imported
	Tip       string          // where a bounded source ends, see Source.Tip
	Source    Source          // for the merger
	Log       Log             // the only way to write
	Flow      *Flow           // bounds memory between reader and log
	Lost      <-chan struct{} // closed when the assignment is over without having been released: stop at once
	Draining  <-chan struct{} // closed when the reader should stop, send a Last batch, and let go

	status atomic.Pointer[Status]
	mu     sync.Mutex
	cause  error
	over   chan struct{}
}

// Over is closed when the lane has appended the assignment's release or end: the reader stops, and
// what it has read beyond belongs to nobody. A lane ends by itself at Pipeline.Until.
func (a *Assignment) Over() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over == nil {
		a.over = make(chan struct{})
	}
	return a.over
}

// finish closes Over.
func (a *Assignment) finish() {
	over := a.Over()
	select {
	case <-over:
	default:
		close(a.over)
	}
}

// Fail records why the assignment is lost. The group calls it before it closes Lost; the first
// cause counts.
func (a *Assignment) Fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cause == nil {
		a.cause = err
	}
}

// Cause is why the assignment was lost, ErrLeaseLost when nobody said.
func (a *Assignment) Cause() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cause == nil {
		return ErrLeaseLost
	}
	return a.cause
}

// Context returns a context that is done when parent is, or when the assignment is lost. Lane and
// store I/O run under it.
func (a *Assignment) Context(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	stop := make(chan struct{})
	go func() {
		select {
		case <-a.Lost:
			cancel(a.Cause())
		case <-ctx.Done():
		case <-stop:
		}
	}()
	var once sync.Once
	return ctx, func() { once.Do(func() { close(stop); cancel(context.Canceled) }) }
}

// Status is what an owner tells others about a partition, in its heartbeat.
type Status struct {
	Position    Position    `json:"position,omitzero"`
	Watermark   Instant     `json:"watermark"`
	State       ReaderState `json:"state"`
	Idle        bool        `json:"idle,omitempty"`
	Newest      uint64      `json:"newest"` // number of the newest saved entry
	RecordsIn   int64       `json:"records_in"`
	OpenWindows int         `json:"open_windows,omitempty"`
	LastArrived Instant     `json:"last_arrived,omitempty"` // of the last record read, for lag
	Error       string      `json:"error,omitempty"`        // what the owner is stuck on
	IdleAt      time.Time   `json:"idle_at,omitzero"`       // when it counts as idle if nothing comes, by the owner's clock; zero: not while it is read
	HeldBy      string      `json:"held_by,omitempty"`      // of the merger: see MergerEntry
	HeldSince   time.Time   `json:"held_since,omitzero"`
	At          time.Time   `json:"at"`
}

// Report publishes the assignment's status. Safe for concurrent use. Of a position with a long Token it
// publishes the words, since a heartbeat is written every few seconds.
func (a *Assignment) Report(s Status) {
	if len(s.Position.Token) > longToken {
		words := s.Position.String()
		if p, ok := a.Source.(Placer); ok {
			words = p.Place(s.Position)
		}
		s.Position = Position{Token: words}
	}
	a.status.Store(&s)
}

// Status returns what was last reported, or nil.
func (a *Assignment) Status() *Status { return a.status.Load() }

// Log is a partition's log as its owner sees it, together with what an owner may read of others.
// Only Append and WriteObject are bound to the claim. Append is called by one goroutine at a time;
// everything else is safe for concurrent use.
type Log interface {
	// Next is the id of the entry that the next Append will write. Staged output carries it.
	Next() CheckpointID
	// Append saves e as the next entry, once, whatever the store does meanwhile (A1). It retries
	// until the outcome is known and returns an error only when the entry is not in the log and will
	// never be: ErrFenced, or ctx is done (then the outcome may be unknown, and the log refuses
	// every later Append). On success e.Number is set and e belongs to the log.
	Append(ctx context.Context, e *Entry) error
	// WriteObject stores what from writes, compressed, as a blob of this claim: inline when small.
	// It returns only after the bytes are safe (retrying), or when ctx is done. kind is a word for
	// the object's name: "snapshot", "slice", "rows", "dead".
	WriteObject(ctx context.Context, kind string, from io.WriterTo) (Blob, error)
	// ReadBlob returns the bytes given to WriteObject. A missing object is ErrMissing; damaged bytes
	// are an error that names the object (A9).
	ReadBlob(ctx context.Context, b Blob) ([]byte, error)
	// Newest returns the newest checkpoint, end or reset entry of any partition's log, nil when
	// there is none. It follows logs with one read an entry (A11), and costs nothing for partitions
	// owned by this process.
	Newest(ctx context.Context, partition string) (*Entry, error)
	// History returns this log's checkpoints that may hold ids which are still to be remembered, newest
	// first, and for how long an id is. A reset ends it: what it let go is counted again.
	History(ctx context.Context) ([]Past, time.Duration, error)
	// Frontier and Target are those of the merger's newest saved entry, as far as it is known here:
	// Beginning before there is one.
	Frontier() Instant
	Target() Instant
	// Clock is the smallest wall clock among the live members, by their last heartbeats (M5).
	Clock() time.Time
	// Changed returns a channel that is closed at the next moment at which something may be new:
	// an entry appended in this process, or a poll that found one.
	Changed() <-chan struct{}
}

// ErrMissing is returned by Log.ReadBlob for an object that is not there: it was dropped because a
// newer entry no longer names it. Read the logs again; it never means empty (M6).
var ErrMissing = errors.New("object missing")
