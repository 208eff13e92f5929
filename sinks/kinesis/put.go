package kinesis

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	cloud "github.com/millstream/millstream/cloud/aws"
	"github.com/millstream/millstream/cloud/retry"
	"github.com/millstream/millstream/sinks"
)

// Limits of PutRecords (Kinesis Data Streams API reference).
const (
	maxEntries = 500
	// maxRequest is below the 10 MiB that a request may have since 2025: servers that stand in for
	// the service still allow 5 MiB only, and less is sent again after a lost reply.
	maxRequest = 5 << 20
	// defaultRecord is the largest record, key and data, of streams that do not say.
	defaultRecord = 1 << 20
	maxKeyRunes   = 256

	callTimeout = 20 * time.Second
	// startPatience is how long New waits out a service that does not answer.
	startPatience = 15 * time.Second
)

// Counters says what writing has met.
type Counters struct {
	Requests  int64 // PutRecords calls
	Throttled int64 // calls and entries refused because of their rate
	Failed    int64 // entries that failed for another passing reason
	Ambiguous int64 // calls without a reply: their records may be in the stream twice
	Rejected  int64 // records that the stream can never take
}

type counters struct{ requests, throttled, failed, ambiguous, rejected atomic.Int64 }

func (c *counters) read() Counters {
	return Counters{c.requests.Load(), c.throttled.Load(), c.failed.Load(), c.ambiguous.Load(), c.rejected.Load()}
}

// api is what the package uses of the SDK's client.
type api interface {
	PutRecords(context.Context, *awskinesis.PutRecordsInput, ...func(*awskinesis.Options)) (*awskinesis.PutRecordsOutput, error)
	ListShards(context.Context, *awskinesis.ListShardsInput, ...func(*awskinesis.Options)) (*awskinesis.ListShardsOutput, error)
	DescribeStreamSummary(context.Context, *awskinesis.DescribeStreamSummaryInput, ...func(*awskinesis.Options)) (*awskinesis.DescribeStreamSummaryOutput, error)
}

// putter writes entries to one stream. Safe for concurrent use.
type putter struct {
	api       api
	stream    cloud.KinesisStream
	region    string
	maxRecord int
	counters  *counters
	logger    *slog.Logger
	shards    *shardMap // nil: records are not aggregated
}

// newPutter asks for the stream once, to learn its largest record, and that it exists. Without the
// permission to ask, the service's default is assumed.
func newPutter(ctx context.Context, a api, region, name string, c *counters, l *slog.Logger) (*putter, error) {
	st, err := cloud.ParseKinesisStream(name)
	if err != nil {
		return nil, fmt.Errorf("kinesis: %w", err)
	}
	p := &putter{api: a, stream: st, region: region, maxRecord: defaultRecord, counters: c, logger: l}
	began := time.Now()
	for n := 1; ; n++ {
		bounded, cancel := context.WithTimeout(ctx, callTimeout)
		out, err := a.DescribeStreamSummary(bounded, &awskinesis.DescribeStreamSummaryInput{StreamName: st.NameOnly(), StreamARN: st.ARN}, once)
		cancel()
		switch {
		case err == nil:
			if d := out.StreamDescriptionSummary; d != nil && aws.ToInt32(d.MaxRecordSizeInKiB) > 0 {
				p.maxRecord = int(*d.MaxRecordSizeInKiB) << 10
			}
			return p, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(cloud.Explain(err), cloud.ErrDenied):
			l.Debug("the stream's record limit is unknown: assuming 1 MiB", "stream", st.Name, "error", err)
			return p, nil
		case cloud.Classify(err) == cloud.Permanent || time.Since(began) > startPatience:
			return nil, p.explain("DescribeStreamSummary", err)
		}
		if err := retry.Sleep(ctx, retry.Backoff(n)); err != nil {
			return nil, err
		}
	}
}

// once switches the SDK's own retries off: a call that it repeats in silence is a duplicate that
// nobody counts.
func once(o *awskinesis.Options) { o.Retryer = aws.NopRetryer{} }

func (p *putter) explain(what string, err error) error {
	var missing *types.ResourceNotFoundException
	if errors.As(err, &missing) {
		return &reason{fmt.Sprintf("kinesis: stream %s does not exist in %s", p.stream.Name, p.region), err}
	}
	if told := cloud.Explain(err); told != nil {
		return fmt.Errorf("kinesis: stream %s: %w", p.stream.Name, told)
	}
	return fmt.Errorf("kinesis: stream %s: %s: %w", p.stream.Name, what, err)
}

// reason is an error whose text stands alone; its cause is for errors.Is and errors.As.
type reason struct {
	text  string
	cause error
}

func (e *reason) Error() string { return e.text }
func (e *reason) Unwrap() error { return e.cause }

// entry is one record on its way.
type entry struct {
	record types.PutRecordsRequestEntry
	at     []int  // the caller's indexes of what it holds
	shard  string // where it should go; empty: who knows
}

func (e *entry) size() int { return len(e.record.Data) + len(*e.record.PartitionKey) }

// tooLarge says why the stream can never take the entry, or nothing.
func (p *putter) tooLarge(e *entry) string {
	if n := e.size(); n > p.maxRecord {
		return fmt.Sprintf("%d bytes with its key, and stream %s takes at most %d", n, p.stream.Name, p.maxRecord)
	}
	return ""
}

// put writes entries and calls done with the indexes of each as soon as it is stored.
func (p *putter) put(ctx context.Context, pending []entry, done func(at []int)) error {
	r := sinks.Resending[entry]{
		Fits: func(pending []entry) int {
			n, size := 0, 0
			for n < len(pending) && n < maxEntries && (n == 0 || size+pending[n].size() <= maxRequest) {
				size += pending[n].size()
				n++
			}
			return n
		},
		Call:     p.call,
		Stored:   func(e *entry) { done(e.at) },
		Hopeless: func(err error) bool { return cloud.Classify(err) == cloud.Permanent },
		Explain:  func(err error) error { return p.explain("PutRecords", err) },
		Logger:   p.logger.With("stream", p.stream.Name),
	}
	return r.Send(ctx, pending)
}

// call makes one request and returns the error code of each entry, empty for those that are stored.
func (p *putter) call(ctx context.Context, entries []entry) ([]string, error) {
	in := &awskinesis.PutRecordsInput{StreamName: p.stream.NameOnly(), StreamARN: p.stream.ARN, Records: make([]types.PutRecordsRequestEntry, len(entries))}
	for i := range entries {
		in.Records[i] = entries[i].record
	}
	p.counters.requests.Add(1)
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := p.api.PutRecords(bounded, in, once)
	if err != nil {
		switch cloud.Classify(err) {
		case cloud.Throttled:
			p.counters.throttled.Add(1)
		case cloud.Transient:
			p.counters.ambiguous.Add(1)
		}
		return nil, err
	}
	if len(out.Records) != len(in.Records) {
		p.counters.ambiguous.Add(1)
		return nil, fmt.Errorf("a reply about %d records to a request with %d", len(out.Records), len(in.Records))
	}
	codes := make([]string, len(out.Records))
	for i := range out.Records {
		codes[i] = aws.ToString(out.Records[i].ErrorCode)
		switch codes[i] {
		case "":
			if p.shards != nil {
				p.shards.went(entries[i].shard, aws.ToString(out.Records[i].ShardId))
			}
		case "ProvisionedThroughputExceededException":
			p.counters.throttled.Add(1)
		default:
			p.counters.failed.Add(1)
		}
	}
	return codes, nil
}

// partitionKey makes a key that the service accepts: 1 to 256 characters of UTF-8. Another key, an
// empty one aside, is replaced by its SHA-256, which keeps equal keys together.
func partitionKey(key, otherwise string) string {
	if key == "" {
		key = otherwise
	}
	if utf8.ValidString(key) && utf8.RuneCountInString(key) <= maxKeyRunes {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}
