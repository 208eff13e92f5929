package pubsub

import (
	"context"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2"
	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	cloud "github.com/millstream/millstream/cloud/gcp"
	"github.com/millstream/millstream/cloud/retry"
	"github.com/millstream/millstream/stream"
)

// sdk pulls with the SDK's Subscriber. Each stream is a Receive of its own, so that one which fails does
// not end the others. A message is acknowledged long after its callback has returned.
//
// A Receive that only waits for its messages to be settled goes on to take new ones. So the streams go on
// until close, and then give back what they hold at once. That is before the service knows that they have
// ended: some of it may come to them once more, and stay there for the deadline.
type sdk struct {
	source *Source
	sub    *subscription
	reader *reader[*pubsub.Message]

	ctx     context.Context // of the streams
	cancel  context.CancelCauseFunc
	streams sync.WaitGroup
	results sync.WaitGroup

	mu    sync.Mutex
	late  []*pubsub.Message // came when nothing was wanted any more
	acked time.Time         // when the last message was
}

// sdkSends is how long the SDK keeps to itself what it is told, and more.
const sdkSends = 250 * time.Millisecond

func openSDK(s *Source, sub *subscription) *reader[*pubsub.Message] {
	r := newReader[*pubsub.Message](s, sub)
	p := &sdk{source: s, sub: sub, reader: r}
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	for range s.options.Streams {
		p.streams.Go(p.stream)
	}
	return r.start(p)
}

func (p *sdk) pull(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
}

// stream keeps one stream going. The SDK itself opens it again after most failures.
func (p *sdk) stream() {
	o := p.source.options
	for n := 1; ; n++ {
		began := time.Now()
		client := p.source.client.Subscriber(p.sub.name)
		client.ReceiveSettings = pubsub.ReceiveSettings{
			MaxExtension:               7 * 24 * time.Hour,
			MaxDurationPerAckExtension: AckDeadline,
			MinDurationPerAckExtension: AckDeadline, // or the SDK goes by how fast acks were, down to 10 s
			MaxOutstandingMessages:     max(1, o.MaxMessages/o.Streams),
			MaxOutstandingBytes:        int(max(1, o.MaxBytes/int64(o.Streams))),
			NumGoroutines:              1,
			ShutdownOptions:            &pubsub.ShutdownOptions{Timeout: closeWithin, Behavior: pubsub.ShutdownBehaviorNackImmediately},
		}
		err := client.Receive(p.ctx, p.deliver)
		if p.ctx.Err() != nil {
			return
		}
		if err != nil {
			if kind := cloud.Classify(err); kind != cloud.Transient && kind != cloud.Throttled {
				p.cancel(p.source.explain(p.sub, err))
				return
			}
		}
		if time.Since(began) > time.Minute {
			n = 1
		}
		if retry.Sleep(p.ctx, retry.Backoff(n)) != nil {
			return
		}
	}
}

// deliver is called by the SDK, for many messages at once.
func (p *sdk) deliver(_ context.Context, m *pubsub.Message) {
	r := record(m.ID, m.OrderingKey, m.Data, m.PublishTime)
	if p.source.options.Whole {
		r.Data = whole(&pb.PubsubMessage{Data: m.Data, Attributes: m.Attributes, MessageId: m.ID,
			OrderingKey: m.OrderingKey, PublishTime: timestamppb.New(m.PublishTime)})
	}
	m.Data, m.Attributes = nil, nil // the lease lasts longer than the record
	if !p.reader.deliver([]stream.Record{r}, []*pubsub.Message{m}) {
		p.mu.Lock()
		p.late = append(p.late, m)
		p.mu.Unlock()
	}
}

func (p *sdk) settle(messages []*pubsub.Message, ack bool) {
	if ack {
		p.mu.Lock()
		p.acked = time.Now()
		p.mu.Unlock()
	}
	switch {
	case !ack:
		for _, m := range messages {
			m.Nack()
		}
	case !p.sub.exact:
		for _, m := range messages {
			m.Ack()
		}
	default:
		results := make([]*pubsub.AckResult, len(messages))
		for i, m := range messages {
			results[i] = m.AckWithResult()
		}
		p.results.Go(func() {
			for _, r := range results {
				if _, err := r.Get(context.Background()); err != nil {
					p.source.counters.lostAcks.Add(1)
				}
			}
		})
	}
}

func (p *sdk) close(ctx context.Context, unsettled []*pubsub.Message) {
	p.mu.Lock()
	acked := p.acked
	p.mu.Unlock()
	_ = retry.Sleep(ctx, time.Until(acked.Add(sdkSends))) // or the acknowledgements may never be sent
	p.await(ctx, &p.results)
	p.cancel(nil)
	p.await(ctx, &p.streams)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range append(unsettled, p.late...) {
		m.Nack() // which is done, and lets the SDK forget it
	}
}

func (p *sdk) await(ctx context.Context, group *sync.WaitGroup) {
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
