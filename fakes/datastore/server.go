// Package datastore is an in-process Firestore in Datastore mode for tests and demonstrations, as far as looking
// entities up goes: Lookup, and Commit of whole entities, over gRPC, so that unmodified clients drive it.
//
//	server := datastore.New(datastore.Options{})
//	address, err := server.Start() // 127.0.0.1:PORT, gRPC without TLS; clients find it in DATASTORE_EMULATOR_HOST
//	defer server.Close()
//	server.Put("User", "u1", map[string]any{"tier": "gold"})
//
// Faults are armed with Inject: an error, a delay, a reply that is lost, keys that are left out of an answer as
// deferred, as the service does with large ones. Queries, transactions, indexes and versions are absent.
package datastore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	pb "cloud.google.com/go/datastore/apiv1/datastorepb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/millstream/millstream/fakes/fault"
)

// MaxKeys is the most keys of a Lookup, https://cloud.google.com/datastore/docs/concepts/limits.
const MaxKeys = 1000

// Options configures a Server.
type Options struct {
	// Project is the only one that is served. Default: any.
	Project string
}

// Server is Datastore. All methods may be called concurrently.
type Server struct {
	pb.UnimplementedDatastoreServer
	opts   Options
	faults fault.List[Fault]

	mu       sync.Mutex
	entities map[string]*pb.Entity // by key and database, as text
	lookups  int
	server   *grpc.Server
	address  string
	serving  sync.WaitGroup
}

// New returns a server without entities and without a listener.
func New(opts Options) *Server {
	return &Server{opts: opts, entities: map[string]*pb.Entity{}}
}

// Start listens on a free port of 127.0.0.1 and returns the address. A second call returns the same one.
func (s *Server) Start() (address string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.address != "" {
		return s.address, nil
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("fake datastore: listen: %w", err)
	}
	s.address = listener.Addr().String()
	server := grpc.NewServer(grpc.UnaryInterceptor(s.intercept))
	pb.RegisterDatastoreServer(server, s)
	s.server = server
	s.serving.Go(func() { _ = server.Serve(listener) }) // ends with the server
	return s.address, nil
}

// Close ends all calls. It may be called twice.
func (s *Server) Close() {
	s.mu.Lock()
	server := s.server
	s.mu.Unlock()
	if server != nil {
		server.Stop()
	}
	s.serving.Wait()
}

// Put writes an entity of the default database and namespace. Name is a string, or an int64 for an id. Properties
// are nil, bool, int64, float64, string, []byte, time.Time, []any and map[string]any; any other panics.
func (s *Server) Put(kind string, name any, properties map[string]any) {
	e := &pb.Entity{Key: keyOf(kind, name), Properties: propertiesOf(properties)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entities[place("", e.Key)] = e
}

// Delete removes one.
func (s *Server) Delete(kind string, name any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.entities, place("", keyOf(kind, name)))
}

// Lookups is how many Lookup calls were answered.
func (s *Server) Lookups() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lookups
}

func keyOf(kind string, name any) *pb.Key {
	element := &pb.Key_PathElement{Kind: kind}
	switch name := name.(type) {
	case string:
		element.IdType = &pb.Key_PathElement_Name{Name: name}
	case int64:
		element.IdType = &pb.Key_PathElement_Id{Id: name}
	default:
		panic(fmt.Sprintf("fake datastore: a key of type %T", name))
	}
	return &pb.Key{Path: []*pb.Key_PathElement{element}}
}

// place is where an entity is kept. The project of a partition may be left out.
func place(database string, k *pb.Key) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%q/%q", database, k.GetPartitionId().GetNamespaceId())
	for _, e := range k.Path {
		fmt.Fprintf(&s, "/%q:%d:%q", e.Kind, e.GetId(), e.GetName())
	}
	return s.String()
}

func propertiesOf(in map[string]any) map[string]*pb.Value {
	out := make(map[string]*pb.Value, len(in))
	for name, v := range in {
		out[name] = valueOf(v)
	}
	return out
}

func valueOf(v any) *pb.Value {
	switch v := v.(type) {
	case nil:
		return &pb.Value{ValueType: &pb.Value_NullValue{}}
	case bool:
		return &pb.Value{ValueType: &pb.Value_BooleanValue{BooleanValue: v}}
	case int64:
		return &pb.Value{ValueType: &pb.Value_IntegerValue{IntegerValue: v}}
	case float64:
		return &pb.Value{ValueType: &pb.Value_DoubleValue{DoubleValue: v}}
	case string:
		return &pb.Value{ValueType: &pb.Value_StringValue{StringValue: v}}
	case []byte:
		return &pb.Value{ValueType: &pb.Value_BlobValue{BlobValue: v}}
	case time.Time:
		return &pb.Value{ValueType: &pb.Value_TimestampValue{TimestampValue: timestamppb.New(v)}}
	case []any:
		list := &pb.ArrayValue{}
		for _, e := range v {
			list.Values = append(list.Values, valueOf(e))
		}
		return &pb.Value{ValueType: &pb.Value_ArrayValue{ArrayValue: list}}
	case map[string]any:
		return &pb.Value{ValueType: &pb.Value_EntityValue{EntityValue: &pb.Entity{Properties: propertiesOf(v)}}}
	}
	panic(fmt.Sprintf("fake datastore: a property of type %T", v))
}

// Lookup implements the service.
func (s *Server) Lookup(_ context.Context, in *pb.LookupRequest) (*pb.LookupResponse, error) {
	if err := s.serves(in.ProjectId); err != nil {
		return nil, err
	}
	if len(in.Keys) == 0 || len(in.Keys) > MaxKeys {
		return nil, status.Errorf(codes.InvalidArgument, "%d keys in one lookup, 1 to %d are allowed", len(in.Keys), MaxKeys)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookups++
	out := &pb.LookupResponse{}
	seen := map[string]bool{}
	for _, key := range in.Keys {
		at := place(in.DatabaseId, key)
		if err := complete(key); err != nil {
			return nil, err
		}
		if seen[at] {
			return nil, status.Errorf(codes.InvalidArgument, "a key stands twice: %s", at)
		}
		seen[at] = true
		e, ok := s.entities[at]
		if !ok {
			out.Missing = append(out.Missing, &pb.EntityResult{Entity: &pb.Entity{Key: key}})
			continue
		}
		e = proto.CloneOf(e)
		e.Key = key
		if mask := in.GetPropertyMask(); mask != nil {
			all := e.Properties
			e.Properties = map[string]*pb.Value{}
			for _, path := range mask.Paths {
				if v, ok := all[path]; ok {
					e.Properties[path] = v
				}
			}
		}
		out.Found = append(out.Found, &pb.EntityResult{Entity: e, Version: 1})
	}
	return out, nil
}

// Commit implements the service for mutations that replace or remove whole entities.
func (s *Server) Commit(_ context.Context, in *pb.CommitRequest) (*pb.CommitResponse, error) {
	if err := s.serves(in.ProjectId); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &pb.CommitResponse{CommitTime: timestamppb.Now()}
	for _, m := range in.Mutations {
		e := m.GetUpsert()
		if e == nil {
			e = m.GetInsert()
		}
		if e == nil {
			e = m.GetUpdate()
		}
		key := m.GetDelete()
		if e != nil {
			key = e.Key
		}
		if err := complete(key); err != nil {
			return nil, err
		}
		if e != nil {
			s.entities[place(in.DatabaseId, key)] = proto.CloneOf(e)
		} else {
			delete(s.entities, place(in.DatabaseId, key))
		}
		out.MutationResults = append(out.MutationResults, &pb.MutationResult{Version: 1})
	}
	return out, nil
}

func (s *Server) serves(project string) error {
	if s.opts.Project != "" && project != s.opts.Project {
		return status.Errorf(codes.PermissionDenied, "the project %q is not this one", project)
	}
	return nil
}

func complete(k *pb.Key) error {
	if k == nil || len(k.Path) == 0 {
		return status.Error(codes.InvalidArgument, "a key has no path")
	}
	for _, e := range k.Path {
		if e.Kind == "" || e.GetId() == 0 && e.GetName() == "" {
			return status.Errorf(codes.InvalidArgument, "the key is not complete: %s", prototext.Format(k))
		}
		if len(e.GetName()) > 1500 {
			return status.Error(codes.InvalidArgument, "a name is longer than 1500 bytes")
		}
	}
	return nil
}

// Fault describes what goes wrong, and with which calls.
type Fault struct {
	Operation string // "Lookup" or "Commit"; empty: all
	Skip      int    // calls that pass first
	Times     int    // how many are hit; 0 means 1, negative all until Stop

	Delay     time.Duration // before anything else; it ends early when the client hangs up
	Code      codes.Code    // answers with this error and does nothing else
	LoseReply bool          // does the work and answers UNAVAILABLE
	Defer     int           // so many keys of a Lookup are left out as deferred, from its end
}

// Injection is an armed Fault.
type Injection = fault.Injection

// Inject arms a fault. Faults apply in the order in which they were armed; the first that matches a call takes it.
func (s *Server) Inject(f Fault) *Injection {
	return s.faults.Inject(f, fault.Times{Skip: f.Skip, Most: f.Times})
}

func (s *Server) intercept(ctx context.Context, in any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if !s.faults.Any() {
		return handle(ctx, in)
	}
	operation := info.FullMethod[strings.LastIndexByte(info.FullMethod, '/')+1:]
	f := s.faults.Take(func(f *Fault) bool { return f.Operation == "" || f.Operation == operation })
	if f.Delay > 0 {
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	if f.Code != codes.OK {
		return nil, status.Error(f.Code, "a fault that was asked for")
	}
	var deferred []*pb.Key
	if lookup, ok := in.(*pb.LookupRequest); ok && f.Defer > 0 {
		n := max(0, len(lookup.Keys)-f.Defer)
		if n == 0 {
			return &pb.LookupResponse{Deferred: lookup.Keys}, nil
		}
		deferred = lookup.Keys[n:]
		lookup.Keys = lookup.Keys[:n]
	}
	out, err := handle(ctx, in)
	if answer, ok := out.(*pb.LookupResponse); ok && err == nil {
		answer.Deferred = deferred
	}
	if err == nil && f.LoseReply {
		return nil, status.Error(codes.Unavailable, "a reply that was to be lost")
	}
	return out, err
}

// Address is the listener's, empty before Start.
func (s *Server) Address() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.address == "" {
		return "", errors.New("fake datastore: not started")
	}
	return s.address, nil
}
