package pubsub

import (
	"context"
	"strings"
	"time"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millstream/millstream/fakes/fault"
)

// Operations that are not calls of their own but happen on a StreamingPull. All other operations are
// named as the service names them: "Publish", "Acknowledge", "GetTopic".
const (
	StreamingPull = "StreamingPull" // the opening of a stream
	Deliver       = "Deliver"       // a response with messages on an open stream
	Request       = "Request"       // a request with ack ids on an open stream
)

// Fault describes what goes wrong, and with which operations. A Fault without an effect only counts
// the operations it matches.
type Fault struct {
	// Operation and Resource narrow what is hit; empty matches all. Resource is the full name of the
	// topic or the subscription, or its last part.
	Operation, Resource string

	// Skip lets that many matching operations pass first.
	Skip int

	// Times is how many are hit; 0 means 1, negative all until Stop.
	Times int

	// Delay holds the operation back before anything else happens. It ends early when the client hangs
	// up.
	Delay time.Duration

	// Code answers with this error and does nothing else, for example codes.Unavailable or
	// codes.ResourceExhausted. It ends a stream; messages of the response that is not sent then stay
	// outstanding until their deadline. Message is optional.
	Code    codes.Code
	Message string

	// LoseReply does the work and then answers UNAVAILABLE in place of the reply; of a Deliver the
	// messages arrive, and then the stream ends.
	LoseReply bool

	// Forget answers Acknowledge, ModifyAckDeadline and Request as if all were well, and does nothing:
	// the service's acknowledgements are best effort too.
	Forget bool

	// Duplicate sends the messages of a Deliver twice, in one response and under different ack ids,
	// unless the subscription has exactly-once delivery.
	Duplicate bool

	// Reorder turns around the messages of a Deliver that have no ordering key.
	Reorder bool
}

// Injection is an armed Fault.
type Injection = fault.Injection

// Inject arms a fault. Faults apply in the order in which they were armed; the first that matches an operation
// takes it.
func (s *Server) Inject(f Fault) *Injection {
	return s.faults.Inject(f, fault.Times{Skip: f.Skip, Most: f.Times})
}

// taken returns the fault that hits an operation, or an empty one.
func (s *Server) taken(operation, resource string) Fault {
	return s.faults.Take(func(f *Fault) bool {
		return (f.Operation == "" || f.Operation == operation) &&
			(f.Resource == "" || f.Resource == resource || strings.HasSuffix(resource, "/"+f.Resource))
	})
}

// happens waits as the fault says, and reports whether the operation is not to be done.
func (f *Fault) happens(ctx context.Context) bool {
	if f.Delay > 0 {
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	return f.Code != codes.OK
}

func (f *Fault) err() error {
	message := f.Message
	if message == "" {
		message = "a fault that was asked for"
	}
	return status.Error(f.Code, message)
}

// lost is the error in place of a reply that is lost.
func (f *Fault) lost() error {
	if !f.LoseReply {
		return nil
	}
	return status.Error(codes.Unavailable, "a reply that was to be lost")
}

// intercept applies faults to calls that are not streams.
func (s *Server) intercept(ctx context.Context, in any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if !s.faults.Any() {
		return handle(ctx, in)
	}
	operation := info.FullMethod[strings.LastIndexByte(info.FullMethod, '/')+1:]
	fault := s.taken(operation, subject(in))
	if fault.happens(ctx) {
		return nil, fault.err()
	}
	if fault.Forget {
		if operation == "Acknowledge" || operation == "ModifyAckDeadline" {
			return empty, nil
		}
	}
	out, err := handle(ctx, in)
	if err == nil {
		err = fault.lost()
	}
	return out, err
}

// subject is the resource that a request is about.
func subject(in any) string {
	switch r := in.(type) {
	case interface{ GetSubscription() string }:
		return r.GetSubscription()
	case interface{ GetTopic() string }:
		if sub, ok := in.(*pb.Subscription); ok {
			return sub.Name
		}
		return r.GetTopic()
	case interface{ GetName() string }:
		return r.GetName()
	}
	return ""
}
