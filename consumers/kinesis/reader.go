package kinesis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/millstream/millstream/cloud/retry"
	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/stream"
)

const (
	// maxFetch is how many records one Read returns at most: as many as one GetRecords does. An
	// aggregate may be cut anywhere, since positions count its user records.
	maxFetch = 10_000
	// patience is how long a reader waits out failures in a row before it returns the last.
	patience = 2 * time.Minute

	// warnEvery is how many failures in a row make one warning: about one a minute.
	warnEvery = 15
	// clockSlack is how far our clock may be ahead of the service's before it is worth an error.
	clockSlack = 5 * time.Second
)

// feed brings a shard's replies, one behind the other: [polling] asks for them, [subscription] is sent
// them. One goroutine at a time.
type feed interface {
	// receive waits for the reply that follows the last one. When there is none, or the service has
	// forgotten it, the feed begins at p. An error is a *callError, or the context's; afterwards receive
	// may be called again, and goes on where it was.
	receive(ctx context.Context, p place) (reply, error)
	// close gives back what the feed holds at the service. It may be called more than once.
	close()
}

// reply is what the service said at once. It may hold nothing.
type reply struct {
	records  []stream.Record    // as fromSDK makes them
	began    bool               // the feed has begun at the place it was given
	caughtUp bool               // nothing was behind the records
	asked    clock              // the service's time when this was found out, or earlier
	ended    bool               // nothing follows, ever: the shard is closed
	children []types.ChildShard // of a shard that has ended, when the service names them
}

// place is where a feed begins.
type place struct {
	kind     types.ShardIteratorType
	sequence *string    // for AT_SEQUENCE_NUMBER and AFTER_SEQUENCE_NUMBER
	at       *time.Time // for AT_TIMESTAMP
}

// callError is an error of one call of the service.
type callError struct {
	call string
	err  error
}

func (e *callError) Error() string { return e.call + ": " + e.err.Error() }
func (e *callError) Unwrap() error { return e.err }

// reader reads one shard. One goroutine at a time.
type reader struct {
	src   *Source
	shard shard
	from  time.Time       // where to start when nothing was delivered; zero: the oldest record
	until time.Time       // records that arrived then or later are not read; zero: read for ever
	next  stream.Position // behind the last record delivered
	state stream.ReaderState

	feed     feed
	resuming bool            // the first record to come should be the one at next
	raw      []stream.Record // of the last reply, not delivered yet
	units    []userRecord    // of raw[0] when it is an aggregate that was begun
	caughtUp bool            // nothing was behind the last reply
	closed   bool            // the last reply was the shard's last
	told     []types.ChildShard
	finished *stream.PartitionEnd

	due      time.Time // of the next try
	failures int       // in a row
	failing  time.Time // since when
	refused  int       // iterators in a row that could not be read
}

// Close gives back what the service keeps for the reader.
func (r *reader) Close() error {
	r.feed.close()
	return nil
}

// Read returns what comes next, as consumers.Reader says. Behind an end it returns the end again.
func (r *reader) Read(ctx context.Context) (consumers.Fetch, error) {
	f, err := r.read(ctx)
	if err != nil || f.End != nil {
		r.feed.close()
	}
	return f, err
}

func (r *reader) read(ctx context.Context) (consumers.Fetch, error) {
	for {
		if len(r.raw) > 0 {
			records, err := r.unpack()
			if err != nil {
				return consumers.Fetch{}, err
			}
			if len(records) > 0 {
				r.state = stream.Reading
				if r.caughtUp && !r.closed && len(r.raw) == 0 {
					r.state = stream.CaughtUp
				}
				return consumers.Fetch{Records: records, Next: r.next, State: r.state}, nil
			}
			continue
		}
		if r.finished == nil && r.closed {
			children, err := r.src.children(ctx, r.shard.partition.Name, r.told)
			if err != nil {
				return consumers.Fetch{}, err
			}
			r.finished = &stream.PartitionEnd{Children: children}
		}
		if r.finished != nil {
			return consumers.Fetch{Next: r.next, State: stream.CaughtUp, End: r.finished}, nil
		}
		state, err := r.receive(ctx)
		if err != nil {
			return consumers.Fetch{}, err
		}
		if state != r.state && len(r.raw) == 0 && !r.closed && r.finished == nil {
			r.state = state
			return consumers.Fetch{Next: r.next, State: state}, nil
		}
	}
}

// unpack turns raw records into records, at most maxFetch, and moves next behind them.
func (r *reader) unpack() ([]stream.Record, error) {
	if n := r.plain(); n > 0 {
		records := r.raw[:n:n]
		r.raw, r.next = r.raw[n:], records[n-1].Position
		return records, nil
	}
	records := make([]stream.Record, 0, min(len(r.raw), maxFetch))
	for len(r.raw) > 0 && len(records) < maxFetch {
		k := &r.raw[0]
		sequence := k.Position.Token
		if sequence == "" {
			return nil, fmt.Errorf("%s: a record without a sequence number behind %s", r.subject(), r.next)
		}
		if r.isOver(k) {
			r.finished, r.raw, r.units = &stream.PartitionEnd{}, nil, nil
			break
		}
		if r.resuming {
			r.resuming = false
			r.checkResumed(sequence)
		}
		if r.units == nil {
			if r.next == k.Position { // delivered before
				r.drop()
				continue
			}
			units, ok := deaggregate(k.Data, r.shard.hashes)
			if !ok && r.next.Token == sequence { // done, as other libraries count: see Behind
				r.next.Number = 0
				r.drop()
				continue
			}
			if !ok {
				r.next = k.Position
				records = append(records, *k)
				r.drop()
				continue
			}
			r.units = units
			if r.next.Token != sequence { // else this aggregate was begun before the position was saved
				r.next = k.Position
				r.src.counters.deaggregated.Add(1)
			}
		}
		i := int(min(r.next.Number, int64(len(r.units))))
		for ; i < len(r.units) && len(records) < maxFetch; i++ {
			r.next.Number = int64(i) + 1
			if record, ok := r.userRecord(&r.units[i]); ok {
				record.Position, record.Arrived = r.next, k.Arrived
				records = append(records, record)
			}
		}
		if i == len(r.units) {
			r.next.Number = 0 // the whole record is done
			r.drop()
		}
	}
	return records, nil
}

// plain counts the raw records that come first and are delivered just as they are: most replies hold
// nothing else. What needs a closer look goes the long way.
func (r *reader) plain() (n int) {
	if r.resuming || r.units != nil {
		return 0
	}
	before := r.next.Token
	for ; n < len(r.raw) && n < maxFetch; n++ {
		k := &r.raw[n]
		if k.Position.Token == before || k.Position.Token == "" || r.isOver(k) || bytes.HasPrefix(k.Data, aggregateMagic) {
			break
		}
		before = k.Position.Token
	}
	return n
}

// isOver reports whether a record and what follows are not to be read.
func (r *reader) isOver(k *stream.Record) bool {
	return !r.until.IsZero() && k.Arrived != 0 && !k.Arrived.Time().Before(r.until)
}

// checkResumed tells when the record at the position has expired.
func (r *reader) checkResumed(first string) {
	if first == r.next.Token {
		return
	}
	r.src.counters.expired.Add(1)
	r.src.logger.Warn("the record at the saved position is older than the stream keeps records: some behind it may have expired unread",
		"stream", r.src.stream.Name, "shard", r.shard.partition.Name, "position", r.next.String(), "first", first)
}

func (r *reader) userRecord(u *userRecord) (stream.Record, bool) {
	c := &r.src.counters
	if u.fate == foreign {
		c.foreign.Add(1)
		return stream.Record{}, false
	}
	c.userRecords.Add(1)
	if u.fate == broken {
		c.broken.Add(1)
	}
	return stream.Record{Data: u.data, Key: u.key}, true
}

// drop forgets the first raw record, so that its bytes live only as long as the records made of it.
func (r *reader) drop() {
	r.raw[0] = stream.Record{}
	r.raw, r.units = r.raw[1:], nil
}

// receive waits until the next try is due, takes in a reply, and says in which state the reader is.
func (r *reader) receive(ctx context.Context) (stream.ReaderState, error) {
	if err := retry.Sleep(ctx, time.Until(r.due)); err != nil {
		return 0, err
	}
	in, err := r.feed.receive(ctx, r.place())
	if err != nil {
		return r.failed(ctx, err)
	}
	r.failures, r.refused = 0, 0
	r.raw, r.caughtUp, r.closed, r.told = in.records, in.caughtUp, in.ended, in.children
	if in.began {
		r.resuming = r.next.Token != ""
	}
	if !r.caughtUp {
		return stream.Reading, nil
	}
	if len(r.raw) == 0 && !r.until.IsZero() && !r.closed && !in.asked.from.Before(r.until) {
		r.finished = &stream.PartitionEnd{}
	}
	return stream.CaughtUp, nil
}

// place is where a feed begins for what follows r.next.
func (r *reader) place() place {
	switch {
	case r.next.Token != "":
		// At the last record delivered rather than behind it: an aggregate may be half done, and if it
		// is not there any more, what followed it may have expired too.
		return place{kind: types.ShardIteratorTypeAtSequenceNumber, sequence: &r.next.Token}
	case !r.from.IsZero():
		// For a shard opened by a reshard after from this is its first record; for an older one it
		// leaves out what the user does not want, whatever its parents are.
		return place{kind: types.ShardIteratorTypeAtTimestamp, at: &r.from}
	}
	return place{kind: types.ShardIteratorTypeTrimHorizon}
}

// failed decides what an error means: nil when the reader goes on later, in the returned state.
func (r *reader) failed(ctx context.Context, err error) (stream.ReaderState, error) {
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	what := "reading"
	var of *callError
	if errors.As(err, &of) {
		what, err = of.call, of.err
	}
	begins := what != callGetRecords
	kind := classify(err)
	if what == callSubscribe && inUse(err) {
		kind = throttled // asked again within the respite, by us or by who read the shard before
	}
	if kind == invalid && begins && r.next.Token == "" && time.Since(r.from) < clockSlack {
		kind = transient // "latest" a moment ahead of the service's clock
	}
	r.src.count(kind)
	switch kind {
	case missing:
		return 0, r.gone(ctx, what, err)
	case invalid:
		// A server that was restarted cannot read the iterators of before; a position that does not
		// fit the shard stays wrong.
		if begins || r.refused > 2 {
			if r.next.Token != "" {
				err = fmt.Errorf("the stream was made anew, or the state is another stream's: %w", err)
			}
			return 0, fmt.Errorf("%s: cannot resume at position %s: %w", r.subject(), r.next, err)
		}
		r.refused++
		fallthrough
	case expired:
		r.src.counters.reacquired.Add(1)
		r.src.logger.Debug("iterator expired: taking a new one", "stream", r.src.stream.Name, "shard", r.shard.partition.Name, "position", r.next.String())
		return r.state, nil
	case permanent:
		return 0, r.src.explain(r.shard.partition.Name+": "+what, err)
	}
	if r.failures++; r.failures == 1 {
		r.failing = time.Now()
	}
	if kind == transient && time.Since(r.failing) > patience {
		return 0, fmt.Errorf("%s: %s has failed for %s: %w", r.subject(), what, patience, err)
	}
	wait := retry.Backoff(r.failures)
	r.due = time.Now().Add(wait)
	level := slog.LevelDebug
	if kind != throttled && r.failures%warnEvery == 1 {
		level = slog.LevelWarn
	}
	r.src.logger.Log(ctx, level, "reading failed: trying again", "stream", r.src.stream.Name, "shard", r.shard.partition.Name, "call", what, "in", wait, "error", err)
	if kind == throttled {
		return stream.Throttled, nil
	}
	return stream.Reading, nil
}

// gone tells a shard that has expired from a stream that does not exist.
func (r *reader) gone(ctx context.Context, what string, err error) error {
	shards, listErr := r.src.list(ctx)
	if listErr != nil {
		return listErr
	}
	if _, ok := shards[r.shard.partition.Name]; ok && what == callSubscribe {
		return fmt.Errorf("%s: consumer %s is not registered any more: %w", r.subject(), r.src.options.Consumer, err)
	} else if ok {
		return fmt.Errorf("%s: %s: %w", r.subject(), what, err)
	}
	return fmt.Errorf("%s: %w: %w", r.subject(), stream.ErrPartitionGone, err)
}

func (r *reader) subject() string { return r.src.subject(r.shard.partition.Name) }
