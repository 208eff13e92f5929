// Package bigquery writes rows into a table of Google BigQuery through its Storage Write API: a
// stream.Stager that shows each row once, a stream.Sink that keeps one row for each primary key, and a
// Watermill publisher.
//
// # The life of a row that is appended
//
// A [Stager] appends a partition's rows to a buffered stream of its own, where no query sees them, and
// names them in a token: the stream, the offset of the first row, and how many they are. The engine saves
// the token in the partition's log, and then Commit flushes the stream up to the last of these rows. A
// flush moves a mark that never goes back, so flushing again, by whomever and however late, changes
// nothing: rows become visible once.
//
// A flush shows everything in the stream before its offset. So nothing may lie there that was not saved.
// A stream therefore holds only rows that are committed, followed by rows of one entry of the log, all of
// which will be saved or none. Before anything else is staged the stream is left alone and a new one made:
// when a stage failed, when what was staged before was not committed, when another process stages. What an
// abandoned stream holds and nobody flushes disappears with it, after some days. A token of an abandoned
// stream stays good, because the rows it names lie before whatever went wrong later. A stream is made for
// each partition that a process takes over, not for each checkpoint: the service allows some ten thousand
// an hour.
//
// An append whose answer does not come within [Options].Deadline is sent again, the same bytes at the same
// offset, on a new connection. ALREADY_EXISTS then means that the first attempt was done. Where the bytes
// at that offset were never sent before, or where they differ because the service has refused a row
// meanwhile, it would mean something else, and so does OUT_OF_RANGE at any time: then the stream is
// abandoned, and everything of the stage is appended to a new one. Nothing of it was flushed, so nothing is
// seen twice.
//
// A stream that is gone with saved rows in it (the service deletes them some days after their last use) is
// an error of Commit, [ErrGone], and the partition waits: those rows can only be read again from the
// source.
//
// # The life of a row that is upserted
//
// An [Upserter] sends each row as a change to its primary key, through the table's default stream. The row
// carries _CHANGE_SEQUENCE_NUMBER made of its checkpoint's number, the part and its index: whatever comes
// twice or late loses against what is newer, so that nothing needs to be held back. A row has to have all
// columns of the key; of two rows of one key in different partitions the number alone decides. A log that
// was deleted starts to count from 1 again, and its changes lose against older ones until it has caught
// up: use a new table then, or delete the old rows. (A reset keeps the numbers.)
//
// # Rows and columns
//
// A row is a JSON object, whose fields are the columns by name; upper and lower case are the same. null and
// absent are NULL. Numbers keep all digits of an INT64; NUMERIC takes a JSON number rounded to its scale,
// and a text exactly. TIMESTAMP takes RFC 3339 or microseconds since 1970, BYTES base64, JSON anything,
// STRUCT an object, and what is REPEATED an array. A row that does not fit, lacks a REQUIRED column or is
// refused by the service is in the stream.Rejected, alone, with the reason. What becomes of a row with a
// field that the table has no column for says [Options].Unknown.
package bigquery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millstream/millstream/cloud/retry"
	"github.com/millstream/millstream/stream"
)

// Mode says how rows get into the table.
type Mode string

const (
	Append Mode = "append" // every row is added, once
	Upsert Mode = "upsert" // a row replaces the one with its primary key
)

// Unknown says what becomes of a row with a field that the table has no column for.
type Unknown string

const (
	DeadLetter Unknown = "dead-letter" // it is rejected
	Ignore     Unknown = "ignore"      // the field is left out
	Fail       Unknown = "fail"        // the partition waits, until the table has the column
)

// Options configures a sink. Only Project, Dataset and Table are required.
type Options struct {
	Project, Dataset, Table string
	// Write is Append or Upsert. Default: Upsert for a table whose primary key has a column window_end or
	// window_start, which tells the rows of windows apart; and otherwise Append.
	Write Mode
	// Unknown is DeadLetter by default.
	Unknown Unknown
	// Endpoint is the address of a server that stands in for BigQuery and answers gRPC and HTTP there,
	// without TLS: "127.0.0.1:9050". Default: the service.
	Endpoint string
	// Deadline is how long the answer to one request may take. Default 30 s.
	Deadline time.Duration
	Logger   *slog.Logger // default: slog.Default()
}

// Sink is what New returns: a *Stager or an *Upserter.
type Sink interface {
	stream.Sink
	// Mode is how rows get into the table.
	Mode() Mode
	// Fits says why rows with these columns could not all be written, nil if they can.
	Fits(columns []string) error
	// Writable asks the service whether rows may be written, and writes none.
	Writable(ctx context.Context) error
	// Counters returns what has been met so far.
	Counters() Counters
	// Close ends the connections. Nothing that was staged is lost by it.
	Close() error
}

// Counters says what writing has met.
type Counters struct {
	Requests  int64 // appends
	Bytes     int64 // of rows in them, which the service bills
	Flushes   int64
	Streams   int64 // made
	Ambiguous int64 // calls without a clear answer, which are repeated
	Rejected  int64 // rows that the table does not take
}

// table is what the sinks share. Safe for concurrent use.
type table struct {
	name     string // projects/P/datasets/D/tables/T
	shown    string // P.D.T
	service  backend
	unknown  Unknown
	deadline time.Duration
	logger   *slog.Logger
	full     int // bytes of rows from which on a request takes no more
	pause    func(ctx context.Context, attempt int) error

	requests, bytes, flushes, streams, ambiguous, rejected atomic.Int64

	changes bool
	mu      sync.Mutex
	current *plan // nil: to be read again
}

var (
	projectName = regexp.MustCompile(`^([a-z0-9.-]+:)?[a-z0-9][a-z0-9-]*$`)
	datasetName = regexp.MustCompile(`^[A-Za-z0-9_]+$`)
	tableName   = regexp.MustCompile(`^[\pL\pM\pN\p{Pc}\p{Pd} ]+$`)
)

// New makes a sink and reads the table's schema, so that a table that is missing or cannot take rows is
// an error here.
func New(ctx context.Context, o Options) (Sink, error) {
	service, err := dial(ctx, o.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("bigquery: %w", err)
	}
	s, err := newSink(ctx, o, service)
	if err != nil {
		_ = service.close() // the error that matters is err
	}
	return s, err
}

func newSink(ctx context.Context, o Options, service backend) (Sink, error) {
	t, err := newTable(o, service)
	if err != nil {
		return nil, err
	}
	p, err := t.plan(ctx)
	if err != nil {
		return nil, err
	}
	keyed := len(p.primaryKey) > 0
	windowed := slices.ContainsFunc(p.primaryKey, func(name string) bool {
		return strings.EqualFold(name, "window_start") || strings.EqualFold(name, "window_end")
	})
	switch {
	case o.Write == Upsert && !keyed:
		return nil, fmt.Errorf("bigquery: table %s has no primary key, which upsert needs: ALTER TABLE … ADD PRIMARY KEY (…) NOT ENFORCED, or append", t.shown)
	case o.Write == Upsert, o.Write == "" && windowed:
		t.changes = true
		t.stale() // rows are encoded as changes
		if _, err := t.plan(ctx); err != nil {
			return nil, err
		}
		return &Upserter{t}, nil
	}
	return newStager(t), nil
}

func newTable(o Options, service backend) (*table, error) {
	t := &table{service: service, full: packRequest, unknown: o.Unknown, deadline: o.Deadline, logger: o.Logger}
	t.shown = o.Project + "." + o.Dataset + "." + o.Table
	t.name = "projects/" + o.Project + "/datasets/" + o.Dataset + "/tables/" + o.Table
	switch {
	case !projectName.MatchString(o.Project):
		return nil, fmt.Errorf("bigquery: project %q: want an id such as orders-prod", o.Project)
	case !datasetName.MatchString(o.Dataset) || len(o.Dataset) > 1024:
		return nil, fmt.Errorf("bigquery: data set %q: want a name of letters, digits and _", o.Dataset)
	case !tableName.MatchString(o.Table) || len(o.Table) > 1024:
		return nil, fmt.Errorf("bigquery: table %q: want a name of letters, digits, - and _", o.Table)
	case o.Write != "" && o.Write != Append && o.Write != Upsert:
		return nil, fmt.Errorf("bigquery: write %q: want append or upsert", o.Write)
	}
	switch o.Unknown {
	case "":
		t.unknown = DeadLetter
	case DeadLetter, Ignore, Fail:
	default:
		return nil, fmt.Errorf("bigquery: unknown %q: want dead-letter, ignore or fail", o.Unknown)
	}
	if t.deadline <= 0 {
		t.deadline = 30 * time.Second
	}
	if t.logger == nil {
		t.logger = slog.Default()
	}
	t.pause = func(ctx context.Context, attempt int) error { return retry.Sleep(ctx, retry.Backoff(attempt)) }
	return t, nil
}

// attempts is how often a call is made before its error is returned; the engine repeats what it asked for,
// and tells people.
const attempts = 4

// plan returns the table's schema, read anew if the last one is stale.
func (t *table) plan(ctx context.Context) (*plan, error) {
	t.mu.Lock()
	p := t.current
	t.mu.Unlock()
	if p != nil {
		return p, nil
	}
	for n := 1; ; n++ {
		bounded, cancel := context.WithTimeout(ctx, t.deadline)
		description, err := t.service.table(bounded, t.name)
		cancel()
		if err == nil {
			if p, err = newPlan(description, t.changes); err != nil {
				return nil, fmt.Errorf("bigquery: table %s: %w", t.shown, err)
			}
			t.mu.Lock()
			t.current = p
			t.mu.Unlock()
			return p, nil
		}
		if missing(err) {
			return nil, &reason{fmt.Errorf("bigquery: table %s does not exist", t.shown), err}
		}
		if err := t.again(ctx, n, err); err != nil {
			return nil, fmt.Errorf("bigquery: table %s: %w", t.shown, err)
		}
	}
}

// stale has the schema read again before the next rows.
func (t *table) stale() {
	t.mu.Lock()
	t.current = nil
	t.mu.Unlock()
}

// again waits before the next attempt at a call that failed, or returns what to tell.
func (t *table) again(ctx context.Context, attempt int, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case attempt >= attempts || hopeless(err):
		return explain(err)
	}
	t.logger.Debug("a call failed: making it again", "table", t.shown, "attempt", attempt, "error", err)
	return t.pause(ctx, attempt)
}

// Fits compares the columns of rows with the table's.
func (t *table) Fits(columns []string) error {
	t.mu.Lock()
	p := t.current
	t.mu.Unlock()
	if p == nil {
		return nil
	}
	for _, name := range columns {
		switch c := find(p.columns, name); {
		case c == nil && t.unknown != Ignore:
			return fmt.Errorf("bigquery: table %s has no column %s: add it, or leave it out of the rows with unknown=ignore", t.shown, name)
		case c != nil && wireTypes[c.kind] == 0:
			return fmt.Errorf("bigquery: table %s: column %s is %s: %w", t.shown, name, c.kind, errUnwritable)
		}
	}
	for _, c := range p.columns {
		if c.required && !slices.ContainsFunc(columns, func(name string) bool { return strings.EqualFold(name, c.name) }) {
			return fmt.Errorf("bigquery: table %s requires the column %s, and rows have none", t.shown, c.name)
		}
	}
	return nil
}

// Writable makes a stream that stays empty: only who may write rows may do that.
func (t *table) Writable(ctx context.Context) error {
	if _, err := t.create(ctx); err != nil {
		return fmt.Errorf("bigquery: table %s: %w", t.shown, err)
	}
	return nil
}

// create makes a buffered stream.
func (t *table) create(ctx context.Context) (string, error) {
	for n := 1; ; n++ {
		bounded, cancel := context.WithTimeout(ctx, t.deadline)
		name, err := t.service.create(bounded, t.name)
		cancel()
		if err == nil {
			t.streams.Add(1)
			return name, nil
		}
		if err := t.again(ctx, n, err); err != nil { // a stream that was made all the same stays empty
			return "", err
		}
	}
}

// Counters returns what has been met so far.
func (t *table) Counters() Counters {
	return Counters{t.requests.Load(), t.bytes.Load(), t.flushes.Load(), t.streams.Load(), t.ambiguous.Load(), t.rejected.Load()}
}

// Close ends the connections.
func (t *table) Close() error {
	if err := t.service.close(); err != nil {
		return fmt.Errorf("bigquery: table %s: close: %w", t.shown, err)
	}
	return nil
}

// batch is rows that go into one request, and where they stand among those the caller gave.
type batch struct {
	rows [][]byte
	at   []int
}

// frozen is encoded rows, and those that cannot be.
type frozen struct {
	plan    *plan
	batches []batch
	refused []stream.RejectedRow
}

// freeze encodes rows. An error says that the partition has to wait.
func (t *table) freeze(ctx context.Context, n int, encode func(p *plan, i int) ([]byte, error)) (*frozen, error) {
	p, err := t.plan(ctx)
	if err != nil {
		return nil, err
	}
	f := &frozen{plan: p}
	size := 0
	for i := range n {
		data, err := encode(p, i)
		if err != nil {
			var unknown *unknownField
			if errors.As(err, &unknown) && t.unknown == Fail {
				t.stale() // somebody may add it
				return nil, fmt.Errorf("bigquery: table %s: a row has the field %s, and the table has no such column: add it, or let such rows be dead letters with unknown=dead-letter", t.shown, unknown.name)
			}
			f.refused = append(f.refused, stream.RejectedRow{Index: i, Reason: fmt.Sprintf("table %s: %v", t.shown, err)})
			continue
		}
		if each := len(data) + 6; len(f.batches) == 0 || size+each > min(t.full, p.maxRow) {
			f.batches, size = append(f.batches, batch{}), each
		} else {
			size += each
		}
		b := &f.batches[len(f.batches)-1]
		b.rows, b.at = append(b.rows, data), append(b.at, i)
	}
	return f, nil
}

// rejection returns the error for the rows that were refused, nil if there are none.
func (t *table) rejection(f *frozen) error {
	if len(f.refused) == 0 {
		return nil
	}
	t.rejected.Add(int64(len(f.refused)))
	slices.SortFunc(f.refused, func(a, b stream.RejectedRow) int { return a.Index - b.Index })
	return &stream.Rejected{Rows: f.refused}
}
