package kinesis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/schemas"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go/transport/http/protocol/awsjson"

	"github.com/millstream/millstream/cloud/retry"
)

const callSubscribe = "SubscribeToShard"

const (
	// renewAfter is the age at which a subscription is replaced. The service ends it after five minutes
	// (SubscribeToShard, API reference).
	renewAfter = 4*time.Minute + 30*time.Second
	// respite is the least time between two subscriptions to one shard by one consumer; the service
	// refuses an earlier one with ResourceInUseException.
	respite = 5 * time.Second
	// silence is how long a subscription may say nothing. A shard without records sends an empty event
	// every few seconds.
	silence = 30 * time.Second
)

// subscription is a feed that the service pushes: enhanced fan-out, 2 MB a second for each consumer and
// shard. A call of SubscribeToShard is a connection on which events come for up to five minutes. Each
// event says behind which sequence number the next call has to begin, also when it holds no record, so
// that a subscription that ends, at its age or because its connection was lost, is followed by one that
// repeats nothing and leaves out nothing: half an event is none, and what was sent behind the last event
// that was received is sent again.
//
// The service pushes ahead of a reader that is slow: two events and what a connection buffers, then it
// waits.
type subscription struct {
	src   *Source
	shard *string

	events *awskinesis.SubscribeToShardEventStream // nil between two calls
	cancel context.CancelFunc
	called time.Time
	asked  clock
	begins bool    // at a place that the reader has not been told of yet
	heard  bool    // an event of this call
	after  *string // the sequence number behind which to go on
}

// close ends the connection. What it still held comes again.
func (f *subscription) close() {
	if f.events == nil {
		return
	}
	f.cancel()
	// What goes wrong while a connection is thrown away is of no use to anybody.
	_ = f.events.Close()
	f.events = nil
}

func (f *subscription) receive(ctx context.Context, p place) (reply, error) {
	if f.events != nil && f.heard && time.Since(f.called) >= renewAfter {
		f.close()
	}
	if f.events == nil {
		if f.after != nil {
			p = place{kind: types.ShardIteratorTypeAfterSequenceNumber, sequence: f.after}
		}
		if err := f.subscribe(ctx, p); err != nil {
			return reply{}, err
		}
	}
	quiet := time.NewTimer(silence)
	defer quiet.Stop()
	select {
	case e, more := <-f.events.Events():
		if !more {
			return reply{}, f.over()
		}
		event, ok := e.(*types.SubscribeToShardEventStreamMemberSubscribeToShardEvent)
		if !ok { // of a kind that this version does not know
			return reply{}, nil
		}
		return f.take(&event.Value)
	case <-quiet.C:
		f.close()
		return reply{}, &callError{callSubscribe, errSilent}
	case <-ctx.Done():
		return reply{}, ctx.Err()
	}
}

var (
	errSilent = fmt.Errorf("nothing for %s, not even an empty event", silence)
	errAstray = errors.New("an event that says neither where to go on nor which shards do")
)

// take reads one event.
func (f *subscription) take(e *types.SubscribeToShardEvent) (reply, error) {
	in := reply{records: fromSDK(e.Records), began: f.begins, caughtUp: aws.ToInt64(e.MillisBehindLatest) == 0, asked: f.asked}
	switch {
	case aws.ToString(e.ContinuationSequenceNumber) != "":
		f.after = e.ContinuationSequenceNumber
	case len(e.ChildShards) > 0:
		in.ended, in.children = true, e.ChildShards
	default:
		f.close()
		return reply{}, &callError{callSubscribe, errAstray}
	}
	f.heard, f.begins = true, false
	return in, nil
}

// over says why the events ended: nil when the subscription's time was over.
func (f *subscription) over() error {
	err := f.events.Err()
	age := time.Since(f.called)
	f.close()
	if err == nil {
		return nil
	}
	if inUse(err) {
		f.src.logger.Warn("another reader has subscribed to this shard in the name of the same consumer: give each pipeline a consumer of its own",
			"stream", f.src.stream.Name, "shard", *f.shard, "consumer", f.src.options.Consumer, "after", age)
	}
	return &callError{callSubscribe, err}
}

// subscribe makes the call, not sooner than the service takes another one.
func (f *subscription) subscribe(ctx context.Context, p place) error {
	if err := retry.Sleep(ctx, time.Until(f.src.mayFollow(*f.shard))); err != nil {
		return err
	}
	// The connection outlives this Read, but not this attempt when nothing comes of it.
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	attempt := context.AfterFunc(ctx, cancel)
	bound := time.AfterFunc(callTimeout, cancel)
	f.called = time.Now()
	out, err := f.src.api.SubscribeToShard(lasting, &awskinesis.SubscribeToShardInput{
		ConsumerARN: &f.src.consumer, ShardId: f.shard,
		StartingPosition: &types.StartingPosition{Type: p.kind, SequenceNumber: p.sequence, Timestamp: p.at},
	}, once, alone, f.src.decoding)
	bound.Stop()
	if !attempt() && err == nil {
		_ = out.GetStream().Close()
		err = ctx.Err()
	}
	if err == nil || inUse(err) {
		f.src.followed(*f.shard)
	}
	if err != nil {
		cancel()
		return &callError{callSubscribe, err}
	}
	f.events, f.cancel = out.GetStream(), cancel
	f.asked, f.heard, f.begins = clockOf(out.ResultMetadata, f.called), false, f.after == nil
	return nil
}

// alone gives a call a protocol of its own: subscriptions of one client share a decoder that is set up
// without a lock (smithy-go 1.28.8).
func alone(o *awskinesis.Options) { o.Protocol = awsjson.New11(schemas.Kinesis_20131202) }

// inUse reports whether another subscription is why a call was refused, or a subscription ended.
func inUse(err error) bool {
	var taken *types.ResourceInUseException
	return errors.As(err, &taken)
}

// mayFollow is when the service takes another subscription to the shard: readers that follow one another
// count together.
func (s *Source) mayFollow(shard string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.subscribed[shard].Add(respite)
}

// followed notes that there is a subscription to the shard, ours or another's, since now.
func (s *Source) followed(shard string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.subscribed, func(_ string, at time.Time) bool { return time.Since(at) > respite })
	s.subscribed[shard] = time.Now()
}
