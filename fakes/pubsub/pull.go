package pubsub

import (
	"context"
	"errors"
	"io"
	"time"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

const (
	minDeadline = 10 * time.Second
	maxDeadline = 600 * time.Second
	// pullPatience is how long Pull waits for a first message.
	pullPatience = 10 * time.Second
)

// subscriber answers the Subscriber service.
type subscriber struct {
	pb.UnimplementedSubscriberServer
	*Server
}

// StreamingPull sends messages until the client hangs up. Calls with ack ids come over the same stream.
func (s *subscriber) StreamingPull(g pb.Subscriber_StreamingPullServer) error {
	first, err := g.Recv()
	if err != nil {
		return err
	}
	if fault := s.taken(StreamingPull, first.Subscription); fault.happens(g.Context()) {
		return fault.err()
	}
	sub, err := s.subscription(first.Subscription)
	if err != nil {
		return err
	}
	deadline := time.Duration(first.StreamAckDeadlineSeconds) * time.Second
	if deadline < minDeadline || deadline > maxDeadline {
		return invalid("stream_ack_deadline_seconds is %d: want 10 to 600.", first.StreamAckDeadlineSeconds)
	}
	st := newStream(deadline)
	st.most, st.mostSize = int(max(0, first.MaxOutstandingMessages)), max(0, first.MaxOutstandingBytes)
	call := &call{server: s.Server, sub: sub, st: st, stream: g, pings: first.ProtocolVersion >= 1}
	sub.join(st)
	defer sub.leave(st)
	if len(first.AckIds)+len(first.ModifyDeadlineAckIds) > 0 {
		first.Subscription, first.MaxOutstandingBytes, first.MaxOutstandingMessages, first.ProtocolVersion = "", 0, 0, 0
		if err := call.request(first); err != nil {
			return err
		}
	}
	go call.receive()
	return call.send()
}

// call is one StreamingPull.
type call struct {
	server *Server
	sub    *subscription
	st     *stream
	stream pb.Subscriber_StreamingPullServer
	pings  bool // the client wants answers to empty requests
}

// errHangUp ends a call that the client has ended.
var errHangUp = errors.New("the client hung up")

// receive reads what the client sends until it hangs up.
func (c *call) receive() {
	for {
		in, err := c.stream.Recv()
		if errors.Is(err, io.EOF) {
			err = errHangUp
		}
		if err == nil {
			err = c.request(in)
		}
		if err != nil {
			c.st.end(err)
			return
		}
	}
}

// request does what a request on an open stream asks for.
func (c *call) request(in *pb.StreamingPullRequest) error {
	switch {
	case in.Subscription != "" || in.MaxOutstandingMessages != 0 || in.MaxOutstandingBytes != 0 || in.ProtocolVersion != 0:
		return invalid("Only the first request of a stream may have subscription, max_outstanding_messages, max_outstanding_bytes and protocol_version.")
	case len(in.ModifyDeadlineAckIds) != len(in.ModifyDeadlineSeconds):
		return invalid("%d modify_deadline_ack_ids with %d modify_deadline_seconds.", len(in.ModifyDeadlineAckIds), len(in.ModifyDeadlineSeconds))
	case proto.Size(in) > maxAckBytes:
		return tooManyAcks(proto.Size(in))
	}
	for _, ids := range [2][]string{in.AckIds, in.ModifyDeadlineAckIds} {
		if err := wellFormed(ids); err != nil {
			return err
		}
	}
	for _, seconds := range in.ModifyDeadlineSeconds {
		if err := checkSeconds(seconds); err != nil {
			return err
		}
	}
	if d := time.Duration(in.StreamAckDeadlineSeconds) * time.Second; d != 0 {
		if d < minDeadline || d > maxDeadline {
			return invalid("stream_ack_deadline_seconds is %d: want 10 to 600.", in.StreamAckDeadlineSeconds)
		}
		c.sub.mu.Lock()
		c.st.deadline = d
		c.sub.mu.Unlock()
	}
	if len(in.AckIds)+len(in.ModifyDeadlineAckIds) == 0 {
		if c.pings {
			c.reply(&pb.StreamingPullResponse{SubscriptionProperties: c.sub.properties().message()})
		}
		return nil
	}
	fault := c.server.taken(Request, c.sub.name)
	if fault.happens(c.stream.Context()) {
		return fault.err()
	}
	reply := c.pretend(in)
	if !fault.Forget {
		reply = c.confirm(in)
	}
	if reply != nil {
		c.reply(reply)
	}
	return fault.lost()
}

// pretend says of all that it is done, where that is said.
func (c *call) pretend(in *pb.StreamingPullRequest) *pb.StreamingPullResponse {
	p := c.sub.properties()
	if !p.exactlyOnce {
		return nil
	}
	return &pb.StreamingPullResponse{
		AcknowledgeConfirmation:       &pb.StreamingPullResponse_AcknowledgeConfirmation{AckIds: in.AckIds},
		ModifyAckDeadlineConfirmation: &pb.StreamingPullResponse_ModifyAckDeadlineConfirmation{AckIds: in.ModifyDeadlineAckIds},
		SubscriptionProperties:        p.message(),
	}
}

// confirm does the work, and with exactly-once delivery says what became of it.
func (c *call) confirm(in *pb.StreamingPullRequest) *pb.StreamingPullResponse {
	out := &pb.StreamingPullResponse{}
	if o := c.sub.acknowledge(in.AckIds); len(o.done)+len(o.expired)+len(o.unordered) > 0 {
		out.AcknowledgeConfirmation = &pb.StreamingPullResponse_AcknowledgeConfirmation{AckIds: o.done, InvalidAckIds: o.expired, UnorderedAckIds: o.unordered}
	}
	var done, expired []string
	for from := 0; from < len(in.ModifyDeadlineAckIds); {
		to := from + 1
		for to < len(in.ModifyDeadlineAckIds) && in.ModifyDeadlineSeconds[to] == in.ModifyDeadlineSeconds[from] {
			to++
		}
		o := c.sub.modify(in.ModifyDeadlineAckIds[from:to], in.ModifyDeadlineSeconds[from])
		done, expired, from = append(done, o.done...), append(expired, o.expired...), to
	}
	if len(done)+len(expired) > 0 {
		out.ModifyAckDeadlineConfirmation = &pb.StreamingPullResponse_ModifyAckDeadlineConfirmation{AckIds: done, InvalidAckIds: expired}
	}
	if out.AcknowledgeConfirmation == nil && out.ModifyAckDeadlineConfirmation == nil {
		return nil
	}
	out.SubscriptionProperties = c.sub.properties().message()
	return out
}

func (s *subscription) properties() properties {
	s.mu.Lock()
	defer s.mu.Unlock()
	return properties{s.config.EnableExactlyOnceDelivery, s.config.EnableMessageOrdering}
}

func (p properties) message() *pb.StreamingPullResponse_SubscriptionProperties {
	return &pb.StreamingPullResponse_SubscriptionProperties{ExactlyOnceDeliveryEnabled: p.exactlyOnce, MessageOrderingEnabled: p.ordered}
}

func (c *call) reply(r *pb.StreamingPullResponse) {
	c.sub.mu.Lock()
	defer c.sub.mu.Unlock()
	c.st.replies = append(c.st.replies, r)
	c.st.waiting = true
	c.st.wake()
}

// send sends what there is, and waits for more.
func (c *call) send() error {
	var lifetime <-chan time.Time
	if d := c.server.opts.StreamLifetime; d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		lifetime = t.C
	}
	for {
		f := &frame{}
		c.sub.take(c.st, f, c.server.opts.ResponseMessages)
		if len(f.delivered) > 0 {
			if err := c.deliver(f); err != nil {
				return err
			}
		}
		c.sub.mu.Lock()
		replies := c.st.replies
		c.st.replies = nil
		c.sub.mu.Unlock()
		for _, r := range replies {
			if err := c.stream.Send(r); err != nil {
				return err
			}
		}
		if len(f.delivered) > 0 {
			select {
			case err := <-c.st.cut:
				return ended(err)
			case <-lifetime:
				return errLifetime
			default:
				continue
			}
		}
		select {
		case <-c.st.notify:
		case err := <-c.st.cut:
			return ended(err)
		case <-lifetime:
			return errLifetime
		case <-c.stream.Context().Done():
			return c.stream.Context().Err()
		}
	}
}

// deliver sends one response, and does to it what a fault says.
func (c *call) deliver(f *frame) error {
	fault := c.server.taken(Deliver, c.sub.name)
	if fault.happens(c.stream.Context()) {
		return fault.err()
	}
	if fault.Duplicate {
		c.sub.repeat(f)
	}
	if fault.Reorder {
		f.reverse()
	}
	if err := c.stream.SendMsg(f); err != nil {
		return err
	}
	return fault.lost()
}

// reverse turns the order around of messages without an ordering key.
func (f *frame) reverse() {
	var at []int
	for i := range f.delivered {
		if !f.ordered || f.delivered[i].message.key == "" {
			at = append(at, i)
		}
	}
	for i, j := 0, len(at)-1; i < j; i, j = i+1, j-1 {
		f.delivered[at[i]], f.delivered[at[j]] = f.delivered[at[j]], f.delivered[at[i]]
	}
}

var errLifetime = status.Error(codes.Unavailable, "The service was unable to fulfill your request. Please try again. [code=8a75]")

func ended(err error) error {
	if errors.Is(err, errHangUp) {
		return nil
	}
	return err
}

// Pull answers with what there is, or waits for a first message.
func (s *subscriber) Pull(ctx context.Context, in *pb.PullRequest) (*pb.PullResponse, error) {
	sub, err := s.subscription(in.Subscription)
	if err != nil {
		return nil, err
	}
	if in.MaxMessages < 1 {
		return nil, invalid("max_messages is %d: want 1 or more.", in.MaxMessages)
	}
	sub.mu.Lock()
	st := newStream(time.Duration(sub.config.AckDeadlineSeconds) * time.Second)
	sub.mu.Unlock()
	sub.join(st)
	defer sub.leave(st)
	patience := time.NewTimer(pullPatience)
	defer patience.Stop()
	for {
		f := &frame{}
		sub.take(st, f, int(min(in.MaxMessages, maxPublish)))
		if len(f.delivered) > 0 || in.ReturnImmediately { //nolint:staticcheck // deprecated, and still asked for
			return &pb.PullResponse{ReceivedMessages: f.messages()}, nil
		}
		select {
		case <-st.notify:
		case err := <-st.cut:
			return nil, err
		case <-patience.C:
			return &pb.PullResponse{}, nil
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}

// Acknowledge takes messages out of the subscription.
func (s *subscriber) Acknowledge(_ context.Context, in *pb.AcknowledgeRequest) (*emptypb.Empty, error) {
	sub, err := s.ackable(in.Subscription, in.AckIds, proto.Size(in))
	if err != nil {
		return nil, err
	}
	o := sub.acknowledge(in.AckIds)
	return &emptypb.Empty{}, o.err()
}

// ModifyAckDeadline extends deadlines, or gives messages back.
func (s *subscriber) ModifyAckDeadline(_ context.Context, in *pb.ModifyAckDeadlineRequest) (*emptypb.Empty, error) {
	sub, err := s.ackable(in.Subscription, in.AckIds, proto.Size(in))
	if err != nil {
		return nil, err
	}
	if err := checkSeconds(in.AckDeadlineSeconds); err != nil {
		return nil, err
	}
	o := sub.modify(in.AckIds, in.AckDeadlineSeconds)
	return &emptypb.Empty{}, o.err()
}

// ackable checks what calls with ack ids have in common.
func (s *subscriber) ackable(name string, ids []string, size int) (*subscription, error) {
	if size > maxAckBytes {
		return nil, tooManyAcks(size)
	}
	if len(ids) == 0 {
		return nil, invalid("No ack ids specified.")
	}
	if err := wellFormed(ids); err != nil {
		return nil, err
	}
	return s.subscription(name)
}

func checkSeconds(n int32) error {
	if n < 0 || time.Duration(n)*time.Second > maxDeadline {
		return invalid("The ack deadline is %d s: want 0 to 600.", n)
	}
	return nil
}

func tooManyAcks(size int) error {
	return invalid("Request payload size exceeds the limit: %d bytes, at most %d are allowed.", size, maxAckBytes)
}
