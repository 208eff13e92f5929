package kinesis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	cloud "github.com/millstream/millstream/cloud/aws"
	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/stream"
)

const (
	// maxFetch is how many records one Read returns at most: as many as one GetRecords does. An
	// aggregate may be cut anywhere, since positions count its user records.
	maxFetch = 10_000
	// patience is how long a reader waits out failures in a row before it returns the last.
	patience = 2 * time.Minute

	// Limits of a shard (Kinesis Data Streams quotas): 5 GetRecords calls and 2 MB a second.
	paceCalls = 210 * time.Millisecond
	paceBytes = 2 << 20
	// warnEvery is how many failures in a row make one warning: about one a minute.
	warnEvery = 15
	// clockSlack is how far our clock may be ahead of the service's before it is worth an error.
	clockSlack = 5 * time.Second
	// eagerEmpty is the least wait after a reply that held nothing and yet says there is more.
	eagerEmpty = 20 * time.Millisecond
)

// reader reads one shard. One goroutine at a time.
type reader struct {
	src   *Source
	shard shard
	from  time.Time       // where to start when nothing was delivered; zero: the oldest record
	until time.Time       // records that arrived then or later are not read; zero: read for ever
	next  stream.Position // behind the last record delivered
	state stream.ReaderState
	paced bool // the service limits the rate, so keep below its limits

	iterator *string
	resuming bool           // the first record to come should be the one at next
	raw      []types.Record // of the last reply, not delivered yet
	units    []userRecord   // of raw[0] when it is an aggregate that was begun
	closed   bool           // the last reply was the shard's last
	told     []types.ChildShard
	finished *stream.PartitionEnd

	due      time.Time // of the next call
	failures int       // in a row
	failing  time.Time // since when
	refused  int       // iterators in a row that could not be read
}

// Close does nothing; a reader holds no resources between two Reads.
func (r *reader) Close() error { return nil }

// Read returns what comes next, as consumers.Reader says. Behind an end it returns the end again.
func (r *reader) Read(ctx context.Context) (consumers.Fetch, error) {
	for {
		if len(r.raw) > 0 {
			records, err := r.unpack()
			if err != nil {
				return consumers.Fetch{}, err
			}
			if len(records) > 0 {
				r.state = stream.Reading
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
		state, err := r.poll(ctx)
		if err != nil {
			return consumers.Fetch{}, err
		}
		if state != r.state && len(r.raw) == 0 && !r.closed && r.finished == nil {
			r.state = state
			return consumers.Fetch{Next: r.next, State: state}, nil
		}
	}
}

// unpack turns raw Kinesis records into records, at most maxFetch, and moves next behind them.
func (r *reader) unpack() ([]stream.Record, error) {
	records := make([]stream.Record, 0, min(len(r.raw), maxFetch))
	for len(r.raw) > 0 && len(records) < maxFetch {
		k := &r.raw[0]
		sequence := aws.ToString(k.SequenceNumber)
		if sequence == "" {
			return nil, fmt.Errorf("%s: a record without a sequence number behind %s", r.subject(), r.next)
		}
		var arrived stream.Instant
		if t := k.ApproximateArrivalTimestamp; t != nil {
			if !r.until.IsZero() && !t.Before(r.until) {
				r.finished, r.raw, r.units = &stream.PartitionEnd{}, nil, nil
				break
			}
			arrived, _ = stream.At(*t)
		}
		if r.resuming {
			r.resuming = false
			r.checkResumed(sequence)
		}
		if r.units == nil {
			if r.next == (stream.Position{Token: sequence}) { // delivered before
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
				r.next = stream.Position{Token: sequence}
				records = append(records, stream.Record{Data: k.Data, Position: r.next, Key: aws.ToString(k.PartitionKey), Arrived: arrived})
				r.drop()
				continue
			}
			r.units = units
			if r.next.Token != sequence { // else this aggregate was begun before the position was saved
				r.next = stream.Position{Token: sequence}
				r.src.counters.deaggregated.Add(1)
			}
		}
		i := int(min(r.next.Number, int64(len(r.units))))
		for ; i < len(r.units) && len(records) < maxFetch; i++ {
			r.next.Number = int64(i) + 1
			if record, ok := r.userRecord(&r.units[i]); ok {
				record.Position, record.Arrived = r.next, arrived
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
	r.raw[0] = types.Record{}
	r.raw, r.units = r.raw[1:], nil
}

// poll waits until a call is due, makes it, and takes in the reply.
func (r *reader) poll(ctx context.Context) (stream.ReaderState, error) {
	if err := cloud.Sleep(ctx, time.Until(r.due)); err != nil {
		return 0, err
	}
	if r.iterator == nil {
		if err := r.acquire(ctx); err != nil {
			return r.failed(ctx, "GetShardIterator", err)
		}
	}
	began := time.Now()
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	out, err := r.src.api.GetRecords(bounded, &awskinesis.GetRecordsInput{ShardIterator: r.iterator, StreamARN: r.src.stream.ARN}, once)
	cancel()
	if err != nil {
		return r.failed(ctx, "GetRecords", err)
	}
	r.failures, r.refused = 0, 0
	r.iterator, r.raw = out.NextShardIterator, out.Records
	if aws.ToString(r.iterator) == "" {
		r.iterator, r.closed, r.told = nil, true, out.ChildShards
	}
	atTip := aws.ToInt64(out.MillisBehindLatest) == 0
	r.pace(began, atTip)
	if len(r.raw) > 0 || !atTip {
		// A reply with records may be cut short and still say that nothing is behind it (kinesalite
		// does), so only an empty one proves that the reader has caught up.
		return stream.Reading, nil
	}
	if !r.until.IsZero() && !r.closed && !clockOf(out.ResultMetadata, began).from.Before(r.until) {
		r.finished = &stream.PartitionEnd{}
	}
	return stream.CaughtUp, nil
}

// pace sets when the next call is due: at once while behind, later at the tip, and never beyond the
// service's limits where it has some.
func (r *reader) pace(began time.Time, atTip bool) {
	wait := time.Duration(0)
	switch {
	case atTip:
		wait = r.src.options.PollEvery
	case len(r.raw) == 0:
		wait = eagerEmpty
	}
	if r.paced {
		size := 0
		for i := range r.raw {
			size += len(r.raw[i].Data) + len(aws.ToString(r.raw[i].PartitionKey))
		}
		wait = max(wait, paceCalls, time.Duration(float64(size)/paceBytes*float64(time.Second)))
	}
	r.due = began.Add(wait)
}

// acquire takes an iterator for what follows r.next.
func (r *reader) acquire(ctx context.Context) error {
	in := &awskinesis.GetShardIteratorInput{
		StreamARN: r.src.stream.ARN, StreamName: r.src.stream.NameOnly(), ShardId: &r.shard.partition.Name,
	}
	switch {
	case r.next.Token != "":
		// At the last record delivered rather than behind it: an aggregate may be half done, and if it
		// is not there any more, what followed it may have expired too.
		in.ShardIteratorType, in.StartingSequenceNumber = types.ShardIteratorTypeAtSequenceNumber, &r.next.Token
	case !r.from.IsZero():
		// For a shard opened by a reshard after from this is its first record; for an older one it
		// leaves out what the user does not want, whatever its parents are.
		in.ShardIteratorType, in.Timestamp = types.ShardIteratorTypeAtTimestamp, &r.from
	default:
		in.ShardIteratorType = types.ShardIteratorTypeTrimHorizon
	}
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := r.src.api.GetShardIterator(bounded, in, once)
	if err != nil {
		return err
	}
	if r.iterator = out.ShardIterator; aws.ToString(r.iterator) == "" {
		return errNoIterator
	}
	r.resuming = r.next.Token != ""
	return nil
}

var errNoIterator = errors.New("the service returned no iterator")

// failed decides what an error means: nil when the reader goes on later, in the returned state.
func (r *reader) failed(ctx context.Context, what string, err error) (stream.ReaderState, error) {
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	kind := classify(err)
	if kind == invalid && what == "GetShardIterator" && r.next.Token == "" && time.Since(r.from) < clockSlack {
		kind = transient // "latest" a moment ahead of the service's clock
	}
	r.src.count(kind)
	switch kind {
	case missing:
		return 0, r.gone(ctx, what, err)
	case invalid:
		// A server that was restarted cannot read the iterators of before; a position that does not
		// fit the shard stays wrong.
		if what != "GetRecords" || r.refused > 2 {
			if r.next.Token != "" {
				err = fmt.Errorf("the stream was made anew, or the state is another stream's: %w", err)
			}
			return 0, fmt.Errorf("%s: cannot resume at position %s: %w", r.subject(), r.next, err)
		}
		r.refused++
		fallthrough
	case expired:
		r.iterator = nil
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
	wait := cloud.Backoff(r.failures)
	r.due = time.Now().Add(wait)
	if kind == throttled {
		r.paced = true
		return stream.Throttled, nil
	}
	level := slog.LevelDebug
	if r.failures%warnEvery == 1 {
		level = slog.LevelWarn
	}
	r.src.logger.Log(ctx, level, "reading failed: trying again", "stream", r.src.stream.Name, "shard", r.shard.partition.Name, "call", what, "in", wait, "error", err)
	return stream.Reading, nil
}

// gone tells a shard that has expired from a stream that does not exist.
func (r *reader) gone(ctx context.Context, what string, err error) error {
	shards, listErr := r.src.list(ctx)
	if listErr != nil {
		return listErr
	}
	if _, ok := shards[r.shard.partition.Name]; ok {
		return fmt.Errorf("%s: %s: %w", r.subject(), what, err)
	}
	return fmt.Errorf("%s: %w: %w", r.subject(), stream.ErrPartitionGone, err)
}

func (r *reader) subject() string { return r.src.subject(r.shard.partition.Name) }
