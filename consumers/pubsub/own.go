package pubsub

import (
	"context"
	"crypto/rand"
	"errors"
	"net/url"
	"strings"
	"sync"
	"time"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	cloud "github.com/millstream/millstream/cloud/gcp"
	"github.com/millstream/millstream/cloud/retry"
	"github.com/millstream/millstream/stream"
)

const (
	// renewAfter is the age at which a lease is renewed: two attempts may fail before it runs out.
	renewAfter = AckDeadline / 3
	renewEvery = AckDeadline / 12
	// sendEvery is how long settled messages wait for others, sendMost how many a request tells, and
	// sendBytes how large it gets: the service takes 512 KiB.
	sendEvery = 100 * time.Millisecond
	sendMost  = 2500
	sendBytes = 400 << 10
	// senders is how many requests are on their way at once.
	senders = 4
	// callWithin bounds one attempt of a request, callAttempts how often it is tried.
	callWithin   = 10 * time.Second
	callAttempts = 6
	// hangUpAfter is how long a stream that was told to end may go on.
	hangUpAfter = time.Second
	// maxResponse is the largest response, as the SDK has it.
	maxResponse = 20 << 20
)

// own speaks the service's protocol of https://cloud.google.com/pubsub/docs/reference/rpc itself: streams
// bring messages, and leases are renewed and ended by calls of their own, so that they outlive the stream
// that brought them. It knows a message by its ack id.
type own struct {
	source  *Source
	sub     *subscription
	reader  *reader[string]
	client  string // the same for all streams of a reader, so that ordering keys stay with it
	pulling sync.WaitGroup

	mu      sync.Mutex
	acks    []string
	nacks   []string
	wake    chan struct{} // holds one: there is enough to send
	closing chan struct{} // closed when nothing more is settled
	sent    chan struct{} // closed when everything is sent
	ctx     context.Context
	abandon context.CancelFunc
}

func openOwn(s *Source, sub *subscription) *reader[string] {
	r := newReader[string](s, sub)
	p := &own{source: s, sub: sub, reader: r, client: rand.Text(), wake: make(chan struct{}, 1),
		closing: make(chan struct{}), sent: make(chan struct{})}
	p.ctx, p.abandon = context.WithCancel(context.Background())
	p.pulling.Add(1) // for pull, which begins later than close may
	go p.send()
	go p.renew()
	return r.start(p)
}

func (p *own) pull(ctx context.Context) error {
	defer p.pulling.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for range p.source.options.Streams {
		p.pulling.Go(func() { p.stream(ctx, cancel) })
	}
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// stream keeps one stream going.
func (p *own) stream(ctx context.Context, fail context.CancelCauseFunc) {
	for n := 1; ; n++ {
		brought, err := p.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if kind := cloud.Classify(err); kind != cloud.Transient && kind != cloud.Throttled {
			fail(p.source.explain(p.sub, err))
			return
		}
		if brought {
			n = 1
		}
		if retry.Sleep(ctx, retry.Backoff(n)) != nil {
			return
		}
	}
}

// session is one stream from its opening to its end, for which there is always an error. brought says
// whether the service had anything to say.
func (p *own) session(ctx context.Context) (brought bool, err error) {
	streaming, hangUp := context.WithCancel(metadata.AppendToOutgoingContext(context.WithoutCancel(ctx),
		"x-goog-request-params", "subscription="+url.QueryEscape(p.sub.name)))
	defer hangUp()
	open, err := p.source.client.SubscriptionAdminClient.StreamingPull(streaming, cloud.Once(), gax.WithGRPCOptions(grpc.MaxCallRecvMsgSize(maxResponse)))
	if err != nil {
		return false, err
	}
	o := p.source.options
	if err := open.Send(&pb.StreamingPullRequest{
		Subscription:             p.sub.name,
		ClientId:                 p.client,
		StreamAckDeadlineSeconds: int32(AckDeadline / time.Second),
		MaxOutstandingMessages:   int64(max(1, o.MaxMessages/o.Streams)),
		MaxOutstandingBytes:      max(1, o.MaxBytes/int64(o.Streams)),
		ProtocolVersion:          protocolVersion,
	}); err != nil {
		_, err = open.Recv() // which knows why
		return false, err
	}
	pulse := &pulse{sub: p.sub, stream: open}
	go pulse.keep(streaming, hangUp)
	// Told to end, the service sends what is under way, so that it can be given back at once, and ends
	// the stream; it is given a moment for that.
	defer context.AfterFunc(ctx, func() {
		if pulse.closeSend() != nil {
			hangUp()
		}
		time.AfterFunc(hangUpAfter, hangUp)
	})()
	for {
		pulse.listen()
		response, err := open.Recv()
		if err != nil {
			if err = pulse.why(err); errors.Is(err, errSilent) {
				p.source.met(p.sub, err)
			}
			return brought, err
		}
		pulse.hear(response)
		brought = true
		if len(response.ReceivedMessages) > 0 {
			p.deliver(response.ReceivedMessages)
		}
	}
}

func (p *own) deliver(messages []*pb.ReceivedMessage) {
	records := make([]stream.Record, len(messages))
	leases := make([]string, len(messages))
	for i, m := range messages {
		records[i], leases[i] = p.source.recordOf(m.GetMessage()), m.GetAckId()
	}
	if !p.reader.deliver(records, leases) {
		p.settle(leases, false)
	}
}

func (p *own) settle(leases []string, ack bool) {
	p.mu.Lock()
	if ack {
		p.acks = append(p.acks, leases...)
	} else {
		p.nacks = append(p.nacks, leases...)
	}
	n := len(p.acks) + len(p.nacks)
	p.mu.Unlock()
	if n == len(leases) || n >= sendMost {
		p.poke()
	}
}

func (p *own) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// send tells the service what is settled, until close.
func (p *own) send() {
	defer close(p.sent)
	for {
		select {
		case <-p.wake:
			p.mu.Lock()
			few := len(p.acks)+len(p.nacks) < sendMost
			p.mu.Unlock()
			if few {
				p.gather()
			}
			p.flush()
		case <-p.closing:
			p.flush()
			return
		}
	}
}

// gather waits for more to send.
func (p *own) gather() {
	t := time.NewTimer(sendEvery)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.wake:
	case <-p.closing:
	}
}

func (p *own) flush() {
	p.mu.Lock()
	acks, nacks := p.acks, p.nacks
	p.acks, p.nacks = nil, nil
	p.mu.Unlock()
	p.each(nacks, func(ctx context.Context, ids []string) error { return p.modify(ctx, ids, 0) }, func(int) {})
	p.each(acks, func(ctx context.Context, ids []string) error {
		return p.source.client.SubscriptionAdminClient.Acknowledge(ctx, &pb.AcknowledgeRequest{Subscription: p.sub.name, AckIds: ids}, cloud.Once())
	}, func(lost int) { p.source.counters.lostAcks.Add(int64(lost)) })
}

func (p *own) modify(ctx context.Context, ids []string, deadline time.Duration) error {
	return p.source.client.SubscriptionAdminClient.ModifyAckDeadline(ctx, &pb.ModifyAckDeadlineRequest{
		Subscription: p.sub.name, AckIds: ids, AckDeadlineSeconds: int32(deadline / time.Second)}, cloud.Once())
}

// renew keeps what is held until close.
func (p *own) renew() {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.each(p.reader.due(time.Now().Add(-renewAfter)), func(ctx context.Context, ids []string) error { return p.modify(ctx, ids, AckDeadline) }, func(int) {})
		case <-p.closing:
			return
		}
	}
}

// each makes calls of ids, several at once, and returns when all have been made. lost is told how many
// ids a call did not take in the end.
func (p *own) each(ids []string, call func(context.Context, []string) error, lost func(int)) {
	var calls sync.WaitGroup
	free := make(chan struct{}, senders)
	for len(ids) > 0 {
		n, size := 0, 0
		for n < len(ids) && n < sendMost && size < sendBytes {
			size += len(ids[n]) + 3 // its tag and length
			n++
		}
		some := ids[:n:n]
		ids = ids[n:]
		free <- struct{}{}
		calls.Go(func() {
			if left := p.persist(some, call); left > 0 {
				lost(left)
			}
			<-free
		})
	}
	calls.Wait()
}

// persist repeats a call while what is wrong passes by itself, and returns how many ids it did not take.
func (p *own) persist(ids []string, call func(context.Context, []string) error) (lost int) {
	for n := 1; ; n++ {
		ctx, cancel := context.WithTimeout(p.ctx, callWithin)
		err := call(ctx, ids)
		cancel()
		if err == nil {
			return lost
		}
		again, gone, told := unsettled(ids, err)
		lost += gone
		if ids = again; len(ids) == 0 {
			return lost
		}
		p.source.met(p.sub, err)
		kind := cloud.Classify(err)
		if !told && kind != cloud.Transient && kind != cloud.Throttled || n == callAttempts || retry.Sleep(p.ctx, retry.Backoff(n)) != nil {
			p.source.logger.Debug("messages are not settled at the service: they come again, and are known", "subscription", p.sub.name, "messages", len(ids), "error", cloud.Explain(err))
			return lost + len(ids)
		}
	}
}

// unsettled reads which ids an error is about: a subscription with exactly-once delivery says for each
// what became of it (https://cloud.google.com/pubsub/docs/exactly-once-delivery). again are those that
// may be offered once more, gone how many are beyond it, and the others are done. told says that the
// error is about the ids, and again are worth another attempt whatever its code is.
func unsettled(ids []string, err error) (again []string, gone int, told bool) {
	var details *errdetails.ErrorInfo
	if s, ok := status.FromError(err); ok {
		for _, d := range s.Details() {
			if info, ok := d.(*errdetails.ErrorInfo); ok && len(info.Metadata) > 0 {
				details = info
			}
		}
	}
	if details == nil {
		return ids, 0, false
	}
	for _, id := range ids {
		switch verdict := details.Metadata[id]; {
		case strings.HasPrefix(verdict, "PERMANENT_FAILURE_"):
			gone++
			told = true
		case strings.HasPrefix(verdict, "TRANSIENT_FAILURE_"):
			again = append(again, id)
			told = true
		}
	}
	if !told { // it is about something else
		return ids, 0, false
	}
	return again, gone, true
}

func (p *own) close(ctx context.Context, unsettled []string) {
	pulled := make(chan struct{})
	go func() { p.pulling.Wait(); close(pulled) }()
	defer p.abandon()
	select {
	case <-pulled:
	case <-ctx.Done():
	}
	p.settle(unsettled, false)
	close(p.closing)
	select {
	case <-p.sent:
	case <-ctx.Done():
	}
}
