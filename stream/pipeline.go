package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"time"
)

// Filtered is returned by Decode or by a Decoder for a record that the pipeline does not want. The
// record is counted as filtered.
var Filtered = errors.New("filtered")

// ErrNoTime as the error of a Decoder means that the record has no usable event time.
var (
	ErrNoTime = errors.New("no event time")
	ErrNoKey  = errors.New("no key")
)

// Event is a decoded record. Key may point into the record's bytes (they never change): whoever
// keeps it beyond the batch clones it.
type Event[E any] struct {
	Key   string  // any string; the empty one is a key like others
	Time  Instant // with windows 0 counts as forgotten, when a Decode func returns it: see At
	Value E

	refused error
}

// Refuse is for enrichers: it takes the event out of the pipeline. With Filtered it is counted as
// filtered, with any other error it is dead-lettered, under the error's reason if it is Reasoned. The
// first call counts.
func (e *Event[E]) Refuse(err error) {
	if e.refused == nil {
		e.refused = err
	}
}

// Refused is the error that the event was refused with; nil if it was not.
func (e *Event[E]) Refused() error { return e.refused }

// Window is a half-open interval of event time.
type Window struct{ Start, End Instant }

// MarshalJSON writes {"start":…,"end":…} in RFC 3339.
func (w Window) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, `{"start":%q,"end":%q}`, w.Start, w.End), nil
}

// UnmarshalJSON is its inverse.
func (w *Window) UnmarshalJSON(data []byte) error {
	var t struct{ Start, End time.Time }
	if err := json.Unmarshal(data, &t); err != nil {
		return err
	}
	w.Start, w.End = Instant(t.Start.UnixNano()), Instant(t.End.UnixNano())
	return nil
}

// Row is an encoded result.
type Row struct {
	Key    string // the group key: the default partition key of stream sinks
	Window Window // zero without windows
	Data   []byte // one JSON object without a newline
}

// Decoder decodes the records of one lane. It may keep scratch memory: the events of a batch are
// not used any more when Reset is called. One goroutine at a time.
type Decoder[E any] interface {
	Reset()
	Decode(r *Record, e *Event[E]) error // Filtered, or an error that becomes the dead letter's reason
}

// Enricher adds to the events of a whole batch what is known elsewhere. It is called by many lanes at once,
// and by one lane for several batches at once, in their order: the next batches' lookups are on their way
// while one is processed. Events are the caller's and must not be kept. It may take as long as it needs,
// and should say what it waits for (Delayed); meanwhile the partition's windows stay open, checkpoints go
// on, and reading pauses when the batches that wait fill their bound. An error ends the partition's
// assignment, which starts again from its last checkpoint. A key that it changes counts, a time does not:
// the watermark has seen it.
type Enricher[E any] interface {
	Enrich(ctx context.Context, events []Event[E]) error
}

// LaneEnricher is an Enricher that keeps something for each lane, such as its hottest keys.
type LaneEnricher[E any] interface {
	Enricher[E]
	// Lane returns the enricher for one lane.
	Lane() Enricher[E]
}

// Sink makes saved rows visible. Deliver may be repeated with the same id and the same rows, also by
// another process; rows belong to the caller and must not be kept. It is called by many goroutines,
// for different ids. An error is retried with back-off for as long as it takes; a *Rejected error
// names rows that can never be delivered: they are dead-lettered alone, and the rest counts as
// delivered.
type Sink interface {
	Deliver(ctx context.Context, id CheckpointID, rows []Row) error
}

// Roller is a sink of files that may span checkpoints: rows wait in the log until there are enough of them
// for a file, or until they have waited for long enough, and none is visible before. Rows of windows do
// not wait, nor does anything when a partition is released.
type Roller interface {
	Sink
	// Name tells this sink from the pipeline's others, across restarts.
	Name() string
	// Roll says when a file is due: when its first row is this old, or it has this many bytes of rows; 0
	// leaves a bound out. Without bounds every checkpoint makes a file.
	Roll() (every time.Duration, size int64)
	// Layout is what the names and bytes of files depend on beside the rows: it is saved with the decision
	// to make a file, so that a changed setting cannot deliver rows a second time under another name.
	Layout() []byte
	// Write makes the file, or files, of rows. It may be repeated with the same id, layout and rows, as
	// Deliver may. parts yields some MiB of rows at a time, which are valid until the next; it may be ranged
	// over again. An error that it yields ends Write. The indexes of a *Rejected count the rows of all parts.
	Write(ctx context.Context, id CheckpointID, layout []byte, parts iter.Seq2[[]Row, error]) error
}

// Stager is a sink that can hold rows invisible itself until they are committed.
type Stager interface {
	Sink
	// Name tells this sink from the pipeline's others, across restarts.
	Name() string
	// Stage holds rows back under the id and returns the token with which to commit them, nil when there
	// is nothing to commit. A *Rejected error names rows that can never be delivered: the others are staged.
	Stage(ctx context.Context, id CheckpointID, rows []Row) (token []byte, err error)
	// Commit makes staged rows visible. Twice equals once.
	Commit(ctx context.Context, token []byte) error
}

// Rejected is returned by Sink.Deliver for rows that the sink will never take.
type Rejected struct {
	Rows []RejectedRow
}

// RejectedRow is one row of a Rejected error.
type RejectedRow struct {
	Index  int // into the rows given to Deliver
	Reason string
}

func (r *Rejected) Error() string { return "the sink rejected rows: " + r.Rows[0].Reason }

// Operator makes the state that events are folded into: one lane state a partition, one merge state
// for the merger. windows.Aggregation is one; Map, for pipelines without windows, is another.
type Operator[E, R any] interface {
	Lane() LaneState[E, R]
	// Merger returns an empty merge state, or nil when rows leave the lanes directly.
	Merger() MergeState[R]
	// Slice is the width of the slices that lanes freeze; 0 without windows.
	Slice() time.Duration
	// Plan describes the operator for Pipeline.Plan; a change refuses the saved state (A8).
	Plan() Plan
	// Validate reports a configuration that cannot work.
	Validate() error
}

// LaneState is the operator's state of one partition. One goroutine at a time calls it; what
// Snapshot and Freeze returned may be written on another while the lane goes on.
type LaneState[E, R any] interface {
	// Add folds one event. It reports false for a late one: its slice's end ≤ watermark.
	Add(e *Event[E], watermark Instant) (bool, error)
	// Rows returns, and forgets, the results that are complete in the lane itself.
	Rows() []R
	// Ripe reports whether Freeze(w) would return anything.
	Ripe(w Instant) bool
	// Freeze removes and returns every non-empty slice that ends at or before w, by end (M1).
	Freeze(w Instant) []FrozenSlice
	// Snapshot copies the state; Restore is its inverse, on an empty state.
	Snapshot() io.WriterTo
	Restore(snapshot []byte) error
	// Open is the number of slices that hold something.
	Open() int
}

// FrozenSlice is a slice as it leaves a lane. Write may be called once, on any goroutine.
type FrozenSlice struct {
	Start, End Instant
	Count      int64
	Data       io.WriterTo
}

// MergeState is the operator's state in the merger. One goroutine at a time.
type MergeState[R any] interface {
	// Merge folds one frozen slice of a partition. Slices come by end, then by partition name.
	Merge(s Frozen, data []byte) error
	// Advance says that every slice ending at or before to has been merged, and emits the rows of the
	// windows that are complete by then, in order of (end, start, key). Rows are valid during emit.
	Advance(to Instant, emit func(*R) error) error
	// Snapshot copies the state between passes; Restore is its inverse, on an empty state.
	Snapshot() io.WriterTo
	Restore(snapshot []byte) error
	Open() int
}

// LatePolicy says what becomes of a late record, which is counted as late in any case.
type LatePolicy uint8

const (
	LateDeadLetter LatePolicy = iota // written to the dead letter with reason "late"
	LateDrop                         // not written
)

// Pipeline is the whole of a user's program: what to do with a record, and where results go. Fill
// in the literal and give Handle to a Watermill router; nothing may be changed afterwards. Zero
// fields have useful meanings. One Pipeline value serves any number of partitions at once.
type Pipeline[E, R any] struct {
	Name    string // [a-z0-9._-]+; default "main". Names the state: another name starts afresh
	Version string // change it when Decode, Add, Merge or Emit change meaning: saved state is then refused

	// Decode turns a record into an event; Filtered skips it, another error sends it to the dead
	// letter. It is called by many lanes at once. A panic is that record's dead letter.
	Decode func(*Record) (Event[E], error)
	// NewDecoder is used instead of Decode when set: one decoder a lane, with scratch of its own.
	NewDecoder func() Decoder[E]

	Enrich  []Enricher[E]         // whole batches, one after the other; enrich.Together runs independent ones at once
	Keep    func(*Event[E]) bool  // after Enrich; false: filtered
	Require func(*Event[E]) error // after Keep; the error is the dead letter's reason

	Operator   Operator[E, R]        // windows.Aggregation, Map; nil only where nothing but the roster is kept
	Encode     func(*R) (Row, error) // called by many goroutines
	Sinks      []Sink
	DeadLetter Sink // nil: dead letters are logged and counted, and gone

	CheckpointEvery time.Duration // default 10 s
	OutOfOrder      time.Duration // how late a record may be: the watermark is this far behind; Unbounded: nothing is late
	IdleAfter       time.Duration // default 1 m; a partition with nothing new for so long no longer holds windows back
	Late            LatePolicy
	From, Until     time.Time // event time; records outside are filtered; a partition whose watermark reaches Until ends
	Logger          *slog.Logger

	engine engine[E, R]
	rules  rules
}
