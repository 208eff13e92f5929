package kinesis

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"

	"github.com/millstream/millstream/cloud/retry"
	"github.com/millstream/millstream/stream"
)

const (
	// Limits of a shard (Kinesis Data Streams quotas): 5 GetRecords calls and 2 MB a second, shared by
	// all that poll it. On-demand streams have the same: they grow by more shards.
	paceCalls = 210 * time.Millisecond
	paceBytes = 2 << 20
	// eagerEmpty is the least wait after a reply that held nothing and yet says there is more.
	eagerEmpty = 20 * time.Millisecond
)

// callGetRecords is the call that goes on; the other calls of a reader begin at a position.
const callGetRecords = "GetRecords"

// polling is a feed that takes an iterator and asks for records, as often as the shard's limits allow.
type polling struct {
	src      *Source
	shard    *string
	iterator *string
	began    bool      // at a place that the reader has not been told of yet
	paced    bool      // the service limits the rate, so keep below its limits
	due      time.Time // of the next call
}

// close does nothing: the service keeps nothing for an iterator.
func (f *polling) close() {}

func (f *polling) receive(ctx context.Context, p place) (reply, error) {
	if err := retry.Sleep(ctx, time.Until(f.due)); err != nil {
		return reply{}, err
	}
	if f.iterator == nil {
		if err := f.acquire(ctx, p); err != nil {
			return reply{}, &callError{"GetShardIterator", err}
		}
	}
	called := time.Now()
	var own aside
	bounded, cancel := context.WithTimeout(context.WithValue(ctx, asideKey{}, &own), callTimeout)
	out, err := f.src.api.GetRecords(bounded, &awskinesis.GetRecordsInput{ShardIterator: f.iterator, StreamARN: f.src.stream.ARN}, once, f.src.decoding)
	cancel()
	if err == nil && own.records == nil {
		own.records = fromSDK(out.Records)
	}
	if err == nil && out.NextShardIterator == nil && out.MillisBehindLatest == nil && len(own.records)+len(out.ChildShards) == 0 {
		err = errSaysNothing
	}
	if err != nil {
		switch classify(err) {
		case expired, invalid:
			f.iterator = nil
		case throttled:
			f.paced = true
		}
		return reply{}, &callError{callGetRecords, err}
	}
	in := reply{records: own.records, began: f.began, asked: clockOf(out.ResultMetadata, called)}
	f.iterator, f.began = out.NextShardIterator, false
	if aws.ToString(f.iterator) == "" {
		f.iterator, in.ended, in.children = nil, true, out.ChildShards
	}
	atTip := aws.ToInt64(out.MillisBehindLatest) == 0
	f.pace(called, in.records, atTip)
	// A reply with records may be cut short and still say that nothing is behind it (kinesalite
	// does), so only an empty one proves that the reader has caught up.
	in.caughtUp = atTip && len(in.records) == 0
	return in, nil
}

// pace sets when the next call is due: at once while behind, later at the tip, and never beyond the
// service's limits where it has some.
func (f *polling) pace(called time.Time, in []stream.Record, atTip bool) {
	wait := time.Duration(0)
	switch {
	case atTip:
		wait = f.src.options.PollEvery
	case len(in) == 0:
		wait = eagerEmpty
	}
	if f.paced {
		size := 0
		for i := range in {
			size += len(in[i].Data) + len(in[i].Key)
		}
		wait = max(wait, paceCalls, time.Duration(float64(size)/paceBytes*float64(time.Second)))
	}
	f.due = called.Add(wait)
}

// acquire takes an iterator for a place.
func (f *polling) acquire(ctx context.Context, p place) error {
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := f.src.api.GetShardIterator(bounded, &awskinesis.GetShardIteratorInput{
		StreamARN: f.src.stream.ARN, StreamName: f.src.stream.NameOnly(), ShardId: f.shard,
		ShardIteratorType: p.kind, StartingSequenceNumber: p.sequence, Timestamp: p.at,
	}, once)
	if err != nil {
		return err
	}
	if f.iterator = out.ShardIterator; aws.ToString(f.iterator) == "" {
		f.iterator = nil
		return errNoIterator
	}
	f.began = true
	return nil
}

var (
	errNoIterator = errors.New("the service returned no iterator")
	// errSaysNothing is of an empty reply, which must not be taken for the end of the shard.
	errSaysNothing = errors.New("the reply holds nothing, not even where to go on")
)
