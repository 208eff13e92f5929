package eventhubs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	cloud "github.com/millstream/millstream/cloud/azure"
	"github.com/millstream/millstream/cloud/retry"
	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/stream"
)

const (
	// fetchBytes is about how much a receiver is lent credit for, and so what a fetch holds.
	fetchBytes = 4 << 20
	// firstRoom is how many events a receiver is lent credit for until their size is known; mostRoom is
	// the SDK's own bound.
	firstRoom = 300
	mostRoom  = 5000
	// linger is how long a fetch that is not full waits for more, so that a lively partition does not
	// come in fetches of one event.
	linger = 5 * time.Millisecond
	// attachWithin is the least that a new receiver is given for its first events: the SDK connects in
	// that call, and begins anew in the next one when it is cancelled.
	attachWithin = 10 * time.Second
	// quiet is how long nothing must come before the service is asked whether anything will.
	quiet = 300 * time.Millisecond
	// patience is how long a reader waits out failures in a row before it returns the last.
	patience = 2 * time.Minute
	// warnEvery is how many failures in a row make one warning: about one a minute.
	warnEvery = 15
)

// reader reads one partition. One goroutine at a time.
type reader struct {
	src       *Source
	partition string
	level     *int64
	start     azeventhubs.StartPosition // where the next receiver begins
	since     time.Time                 // start is this time, and nothing was read yet
	next      stream.Position           // behind the last event delivered
	sequence  int64                     // of the last event delivered, or that reading began behind
	resumed   bool                      // the next event is the first behind a saved position
	until     int64                     // the last event to read; -2: read for ever
	state     stream.ReaderState
	finished  *stream.PartitionEnd

	receiver receiver
	asked    bool      // whether anything is there, since the receiver was opened
	proven   bool      // the receiver has waited without an error
	flowing  bool      // the last wait brought events
	silent   time.Time // since when nothing comes although there is more
	room     int       // how many events the receiver is lent credit for

	due      time.Time // of the next attempt
	failures int       // in a row
	failing  time.Time // since when
}

// Close ends the link and the connection, so that the service lets others read the partition.
func (r *reader) Close() error {
	if r.receiver == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	err := r.receiver.Close(ctx)
	r.receiver = nil
	return err
}

// Read returns what comes next, as consumers.Reader says. Behind an end it returns the end again.
func (r *reader) Read(ctx context.Context) (consumers.Fetch, error) {
	for {
		if r.until >= -1 && r.sequence >= r.until {
			r.finished = &stream.PartitionEnd{}
		}
		if r.finished != nil {
			return consumers.Fetch{Next: r.next, State: stream.CaughtUp, End: r.finished}, nil
		}
		if err := retry.Sleep(ctx, time.Until(r.due)); err != nil {
			return consumers.Fetch{}, err
		}
		records, state, err := r.step(ctx)
		if err != nil {
			return consumers.Fetch{}, err
		}
		if len(records) > 0 || state != r.state && r.finished == nil {
			r.state = state
			return consumers.Fetch{Records: records, Next: r.next, State: state}, nil
		}
	}
}

// step opens a receiver, asks a question, or waits for events, whichever is due.
func (r *reader) step(ctx context.Context) ([]stream.Record, stream.ReaderState, error) {
	if r.receiver == nil {
		// Without prefetching: the SDK counts credit in events, whatever their size.
		o := &azeventhubs.PartitionClientOptions{StartPosition: r.start, OwnerLevel: r.level, Prefetch: -1}
		receiver, err := r.src.service.open(r.partition, o)
		if err != nil {
			return r.failed(ctx, err)
		}
		r.receiver, r.asked, r.proven, r.flowing, r.silent = receiver, false, false, false, time.Time{}
	}
	if !r.asked {
		return r.ask(ctx)
	}
	events, err := r.receive(ctx)
	if err != nil {
		return r.failed(ctx, err)
	}
	r.proven = true
	switch {
	case len(events) == 0 && r.src.mayAsk():
		r.asked = false
		return nil, r.state, nil
	case len(events) == 0:
		return nil, r.state, nil
	}
	r.failures, r.flowing, r.silent = 0, true, time.Time{}
	records, err := r.take(events)
	return records, stream.Reading, err
}

// receive waits for events, and returns none when none came in time.
func (r *reader) receive(ctx context.Context) ([]*azeventhubs.ReceivedEventData, error) {
	wait := r.src.options.CheckEvery
	switch {
	case !r.proven:
		wait = max(wait, attachWithin)
	case r.flowing:
		wait = quiet
	case !r.silent.IsZero():
		wait = min(wait, max(r.src.options.SilentAfter/4, linger))
	}
	r.flowing = false
	bounded, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	events, err := r.receiver.ReceiveEvents(bounded, 1, nil)
	if err != nil {
		if ctx.Err() == nil && bounded.Err() != nil {
			err = nil // nothing came
		}
		return nil, err
	}
	brief, cancelBrief := context.WithTimeout(ctx, linger)
	defer cancelBrief()
	// What fails here fails again in the next receive, and events that were under way come again.
	more, err := r.receiver.ReceiveEvents(brief, r.room, nil)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return append(events, more...), nil
}

// ask learns whether there is anything to come: the state, the end, or that the receiver is silent.
func (r *reader) ask(ctx context.Context) ([]stream.Record, stream.ReaderState, error) {
	p, err := r.src.service.partition(ctx, r.partition)
	r.asked = true // reading goes on without an answer, too
	if err != nil {
		return r.unanswered(ctx, err)
	}
	if r.proven {
		r.failures = 0
	}
	last := p.LastEnqueuedSequenceNumber
	early := !r.since.IsZero() && p.LastEnqueuedOn.Before(r.since)
	if r.until >= -1 && (p.IsEmpty || early && last >= r.until) {
		r.finished = &stream.PartitionEnd{} // what was to be read has expired, or came before the start
		return nil, r.state, nil
	}
	if r.resumed && !p.IsEmpty && last < r.sequence {
		return nil, 0, fmt.Errorf("%s: cannot resume at position %s: the last event is number %d: the hub was made anew, or the state is another hub's",
			r.src.subject(r.partition), r.next, last)
	}
	if p.IsEmpty || last <= r.sequence || early {
		r.silent = time.Time{}
		if r.failures > 0 {
			return nil, r.state, nil // the receiver has yet to show that it works
		}
		return nil, stream.CaughtUp, nil
	}
	if r.silent.IsZero() {
		r.silent = time.Now()
		return nil, stream.Reading, nil
	}
	if still := time.Since(r.silent); still >= r.src.options.SilentAfter {
		r.src.counters.silent.Add(1)
		r.src.logger.Warn("the receiver is silent although there are events: opening another", "hub", r.src.name, "partition", r.partition,
			"for", still.Round(time.Millisecond), "read", r.sequence, "last", last)
		r.drop()
	}
	return nil, stream.Reading, nil
}

// drop gives the receiver up; the next one begins behind the last event delivered.
func (r *reader) drop() {
	discard(r.receiver)
	r.receiver = nil
}

// take turns events into records, and moves on behind them.
func (r *reader) take(events []*azeventhubs.ReceivedEventData) ([]stream.Record, error) {
	records := make([]stream.Record, 0, len(events))
	size := 0
	for _, e := range events {
		if e.Offset == "" {
			return nil, fmt.Errorf("%s: %w", r.src.subject(r.partition), errNoOffset)
		}
		if r.until >= -1 && e.SequenceNumber > r.until {
			r.finished = &stream.PartitionEnd{}
			break
		}
		if e.SequenceNumber <= r.sequence {
			if r.resumed {
				return nil, fmt.Errorf("%s: cannot resume at position %s: event %d follows: the hub was made anew, or the state is another hub's",
					r.src.subject(r.partition), r.next, e.SequenceNumber)
			}
			r.src.counters.repeated.Add(1)
			continue
		}
		if r.resumed {
			r.resumed = false
			r.checkResumed(e.SequenceNumber)
		}
		record := recordOf(e)
		size += len(record.Data)
		records = append(records, record)
		r.next, r.sequence = record.Position, e.SequenceNumber
	}
	if n := len(records); n > 0 {
		r.since = time.Time{}
		r.start = azeventhubs.StartPosition{Offset: &r.next.Token}
		fit := min(max(fetchBytes/(size/n+1), 1), mostRoom)
		r.room = min(fit, (3*r.room+fit+3)/4) // smaller at once, larger by and by
	}
	return records, nil
}

// checkResumed tells when events behind the saved position are gone. In a compacted hub numbers are
// left out by design.
func (r *reader) checkResumed(first int64) {
	if first == r.sequence+1 {
		return
	}
	r.src.counters.expired.Add(1)
	r.src.logger.Warn("events behind the saved position are gone: they may have expired unread",
		"hub", r.src.name, "partition", r.partition, "position", r.next.String(), "first", first)
}

// recordOf makes a record of an event. The bytes are the event's own.
func recordOf(e *azeventhubs.ReceivedEventData) stream.Record {
	record := stream.Record{Data: body(e), Position: stream.Position{Token: e.Offset, Number: e.SequenceNumber}}
	if e.PartitionKey != nil {
		record.Key = *e.PartitionKey
	}
	if e.EnqueuedTime != nil {
		record.Arrived, _ = stream.At(*e.EnqueuedTime)
	}
	return record
}

// body is what an event carries: nearly always one Data section. Several are joined. Other clients of
// AMQP may send a value: a string or bytes are taken as they are, anything else as JSON.
func body(e *azeventhubs.ReceivedEventData) []byte {
	if e.Body != nil || e.RawAMQPMessage == nil {
		return e.Body
	}
	raw := &e.RawAMQPMessage.Body
	switch v := raw.Value.(type) {
	case nil:
	case []byte:
		return v
	case string:
		return []byte(v)
	default:
		return inJSON(v)
	}
	if len(raw.Sequence) > 0 {
		return inJSON(raw.Sequence)
	}
	return bytes.Join(raw.Data, nil)
}

// inJSON writes a value of AMQP. What JSON has no words for, such as a map whose keys are numbers, is
// written as Go prints it: one such event is no reason to stop, and whoever decodes it will say no.
func inJSON(v any) []byte {
	if data, err := json.Marshal(v); err == nil {
		return data
	}
	return fmt.Append(nil, v)
}

// failed gives up a receiver that failed. The error is nil when another is opened later.
func (r *reader) failed(ctx context.Context, err error) ([]stream.Record, stream.ReaderState, error) {
	_, state, err := r.unanswered(ctx, err)
	if err == nil && r.receiver != nil {
		r.drop()
	}
	return nil, state, err
}

// unanswered decides what an error means: nil when the reader goes on later, in the returned state.
func (r *reader) unanswered(ctx context.Context, err error) ([]stream.Record, stream.ReaderState, error) {
	if ctx.Err() != nil {
		return nil, 0, ctx.Err()
	}
	kind := r.src.count(err)
	switch kind {
	case cloud.Transient, cloud.Throttled:
	case cloud.Invalid, cloud.Missing:
		return nil, 0, r.gone(ctx, err)
	default:
		return nil, 0, r.src.explain(r.partition, err)
	}
	if r.failures++; r.failures == 1 {
		r.failing = time.Now()
	}
	if kind == cloud.Transient && time.Since(r.failing) > patience {
		return nil, 0, fmt.Errorf("%w, for %s", r.src.explain(r.partition, err), patience)
	}
	wait := retry.Backoff(r.failures)
	r.due = time.Now().Add(wait)
	if kind == cloud.Throttled {
		return nil, stream.Throttled, nil
	}
	level := slog.LevelDebug
	if r.failures%warnEvery == 1 && r.failures > 1 {
		level = slog.LevelWarn
	}
	r.src.logger.Log(ctx, level, "reading failed: trying again", "hub", r.src.name, "partition", r.partition, "in", wait, "error", cloud.Explain(err))
	return nil, stream.Reading, nil
}

// gone tells a partition that the hub has no more, and a position that does not fit, from a hub or a
// consumer group that does not exist.
func (r *reader) gone(ctx context.Context, err error) error {
	ps, listErr := r.src.Partitions(ctx)
	if listErr != nil {
		return listErr
	}
	for _, p := range ps {
		if p.Name != r.partition {
			continue
		}
		if cloud.Classify(err) == cloud.Invalid && r.resumed {
			return fmt.Errorf("%s: cannot resume at position %s: the hub was made anew, or the state is another hub's: %w",
				r.src.subject(r.partition), r.next, cloud.Explain(err))
		}
		return r.src.explain(r.partition, err)
	}
	return fmt.Errorf("%s: %w", r.src.subject(r.partition), stream.ErrPartitionGone)
}
