package firehose

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsfirehose "github.com/aws/aws-sdk-go-v2/service/firehose"
	"github.com/aws/aws-sdk-go-v2/service/firehose/types"

	cloud "github.com/millstream/millstream/cloud/aws"
	"github.com/millstream/millstream/cloud/retry"
	"github.com/millstream/millstream/sinks"
)

// Limits of PutRecordBatch (Amazon Data Firehose quota).
const (
	maxEntries = 500
	maxCall    = 4 << 20
	maxRecord  = 1000 * 1024

	callTimeout = 20 * time.Second
	// startPatience is how long New waits out a service that does not answer.
	startPatience = 15 * time.Second
)

// Counters says what writing has met.
type Counters struct {
	Calls     int64 // PutRecordBatch
	Records   int64 // stored
	Throttled int64 // calls and entries refused because of their rate
	Failed    int64 // entries that failed for another passing reason
	Ambiguous int64 // calls without a reply: their records may be delivered twice
	Rejected  int64 // rows that Firehose can never take
}

type counters struct{ calls, records, throttled, failed, ambiguous, rejected atomic.Int64 }

func (c *counters) read() Counters {
	return Counters{c.calls.Load(), c.records.Load(), c.throttled.Load(), c.failed.Load(), c.ambiguous.Load(), c.rejected.Load()}
}

// api is what the package uses of the SDK's client.
type api interface {
	PutRecordBatch(context.Context, *awsfirehose.PutRecordBatchInput, ...func(*awsfirehose.Options)) (*awsfirehose.PutRecordBatchOutput, error)
	DescribeDeliveryStream(context.Context, *awsfirehose.DescribeDeliveryStreamInput, ...func(*awsfirehose.Options)) (*awsfirehose.DescribeDeliveryStreamOutput, error)
}

// putter writes entries to one delivery stream. Safe for concurrent use.
type putter struct {
	api      api
	stream   string
	region   string
	most     int // as in packer
	rows     int
	counters *counters
	logger   *slog.Logger
}

// newPutter asks for the delivery stream once, to learn that it exists and what it lets a record hold.
// Whoever may only put may not ask; then the first call tells whether there is one.
func newPutter(ctx context.Context, a api, region, name string, pack int, c *counters, l *slog.Logger) (*putter, error) {
	if !streamName.MatchString(name) {
		return nil, fmt.Errorf("firehose: delivery stream %q: %w", name, errName)
	}
	p := &putter{api: a, stream: name, region: region, counters: c, logger: l}
	began := time.Now()
	for n := 1; ; n++ {
		bounded, cancel := context.WithTimeout(ctx, callTimeout)
		out, err := a.DescribeDeliveryStream(bounded, &awsfirehose.DescribeDeliveryStreamInput{DeliveryStreamName: &name}, once)
		cancel()
		switch {
		case err == nil:
			p.shape(pack, out.DeliveryStreamDescription)
			return p, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(cloud.Explain(err), cloud.ErrDenied):
			l.Debug("what the delivery stream does with records is unknown: it may not be described", "stream", name, "error", err)
			p.shape(pack, nil)
			return p, nil
		case cloud.Classify(err) == cloud.Permanent || time.Since(began) > startPatience:
			return nil, p.explain("DescribeDeliveryStream", err)
		}
		if err := retry.Sleep(ctx, retry.Backoff(n)); err != nil {
			return nil, err
		}
	}
}

// once switches the SDK's own retries off: a call that it repeats in silence is a duplicate that nobody
// counts.
func once(o *awsfirehose.Options) { o.Retryer = aws.NopRetryer{} }

func (p *putter) explain(what string, err error) error {
	var missing *types.ResourceNotFoundException
	if errors.As(err, &missing) {
		return fmt.Errorf("firehose: delivery stream %s does not exist in %s: %w", p.stream, p.region, err)
	}
	if told := cloud.Explain(err); told != nil {
		return fmt.Errorf("firehose: delivery stream %s: %w", p.stream, told)
	}
	return fmt.Errorf("firehose: delivery stream %s: %s: %w", p.stream, what, err)
}

// entry is one record on its way.
type entry struct {
	data []byte
	at   []int // the caller's indexes of what it holds
}

// put writes entries and calls done with the indexes of each as soon as it is stored.
func (p *putter) put(ctx context.Context, pending []entry, done func(at []int)) error {
	r := sinks.Resending[entry]{
		Fits: func(pending []entry) int {
			n, size := 0, 0
			for n < len(pending) && n < maxEntries && (n == 0 || size+len(pending[n].data) <= maxCall) {
				size += len(pending[n].data)
				n++
			}
			return n
		},
		Call:     p.call,
		Stored:   func(e *entry) { p.counters.records.Add(1); done(e.at) },
		Hopeless: func(err error) bool { return cloud.Classify(err) == cloud.Permanent },
		Explain:  func(err error) error { return p.explain("PutRecordBatch", err) },
		Logger:   p.logger.With("stream", p.stream),
	}
	return r.Send(ctx, pending)
}

// call makes one call and returns the error code of each entry, empty for those that are stored.
func (p *putter) call(ctx context.Context, entries []entry) ([]string, error) {
	in := &awsfirehose.PutRecordBatchInput{DeliveryStreamName: &p.stream, Records: make([]types.Record, len(entries))}
	for i := range entries {
		in.Records[i].Data = entries[i].data
	}
	p.counters.calls.Add(1)
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := p.api.PutRecordBatch(bounded, in, once)
	if err != nil {
		var busy *types.ServiceUnavailableException // which is how Firehose says that the rate is too high
		switch {
		case errors.As(err, &busy), cloud.Classify(err) == cloud.Throttled:
			p.counters.throttled.Add(1)
		case cloud.Classify(err) == cloud.Transient:
			p.counters.ambiguous.Add(1)
		}
		return nil, err
	}
	codes := make([]string, len(entries))
	if aws.ToInt32(out.FailedPutCount) == 0 {
		return codes, nil
	}
	if len(out.RequestResponses) != len(entries) {
		p.counters.ambiguous.Add(1)
		return nil, fmt.Errorf("a reply about %d records to a call with %d", len(out.RequestResponses), len(entries))
	}
	for i := range out.RequestResponses {
		codes[i] = aws.ToString(out.RequestResponses[i].ErrorCode)
		switch codes[i] {
		case "":
		case "ServiceUnavailableException":
			p.counters.throttled.Add(1)
		default:
			p.counters.failed.Add(1)
		}
	}
	return codes, nil
}
