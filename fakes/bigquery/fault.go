package bigquery

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millstream/millstream/fakes/fault"
)

// Operations that faults tell apart, beside the gRPC calls by their names: "CreateWriteStream",
// "GetWriteStream", "FlushRows", "FinalizeWriteStream".
const (
	Connect    = "Connect"    // the opening of a connection for AppendRows
	AppendRows = "AppendRows" // one request on such a connection
	REST       = "REST"       // any call that is not gRPC; its resource is the URL's path
)

// Fault describes what goes wrong, and with which operations. A Fault without an effect only counts
// the operations it matches.
type Fault struct {
	// Operation and Resource narrow what is hit; empty matches all. Resource is part of the full name
	// of the stream or the table.
	Operation, Resource string

	// Skip lets that many matching operations pass first.
	Skip int

	// Times is how many are hit; 0 means 1, negative all until Stop.
	Times int

	// Every hits only each so-manieth of the operations that come after Skip, 0 and 1 each of them.
	Every int

	// Delay holds the operation back before anything else happens. It ends early when the client hangs
	// up.
	Delay time.Duration

	// Code answers with this error and does nothing else, for example codes.ResourceExhausted. An
	// AppendRows request is answered in its turn, and the connection lives on unless Break is set.
	// Message is optional.
	Code    codes.Code
	Message string

	// Break ends the connection of an AppendRows request with Code (default UNAVAILABLE) in place of
	// an answer.
	Break bool

	// LoseReply does the work and then answers UNAVAILABLE in place of the reply, which ends a
	// connection.
	LoseReply bool

	// Stall never answers: the call ends when the client hangs up. The work is done only with LoseReply.
	Stall bool
}

// Injection is an armed Fault.
type Injection = fault.Injection

// Inject arms a fault. Faults apply in the order in which they were armed; the first that matches an operation
// takes it.
func (s *Server) Inject(f Fault) *Injection {
	return s.faults.Inject(f, fault.Times{Skip: f.Skip, Every: f.Every, Most: f.Times})
}

// taken returns the fault that hits an operation, or an empty one.
func (s *Server) taken(operation, resource string) Fault {
	return s.faults.Take(func(f *Fault) bool {
		return (f.Operation == "" || f.Operation == operation) && strings.Contains(resource, f.Resource)
	})
}

// before waits as the fault says, and returns the error that comes in place of the work.
func (f *Fault) before(ctx context.Context) error {
	if f.Delay > 0 {
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	if f.Stall && !f.LoseReply {
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	}
	code := f.Code
	if f.Break && code == codes.OK {
		code = codes.Unavailable
	}
	if code == codes.OK {
		return nil
	}
	message := f.Message
	if message == "" {
		message = "a fault that was asked for"
	}
	return status.Error(code, message)
}

// after returns the error in place of a reply that is lost.
func (f *Fault) after(ctx context.Context) error {
	if !f.LoseReply {
		return nil
	}
	if f.Stall {
		<-ctx.Done()
	}
	return status.Error(codes.Unavailable, "a reply that was to be lost")
}

// intercept applies faults to calls that are not streams.
func (s *Server) intercept(ctx context.Context, in any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	operation := info.FullMethod[strings.LastIndexByte(info.FullMethod, '/')+1:]
	fault := s.taken(operation, subject(in))
	if err := fault.before(ctx); err != nil {
		return nil, err
	}
	out, err := handle(ctx, in)
	if lost := fault.after(ctx); lost != nil {
		return nil, lost
	}
	return out, err
}

// subject is the resource that a request is about.
func subject(in any) string {
	switch r := in.(type) {
	case interface{ GetParent() string }:
		return r.GetParent()
	case interface{ GetName() string }:
		return r.GetName()
	case interface{ GetWriteStream() string }:
		return r.GetWriteStream()
	}
	return ""
}
