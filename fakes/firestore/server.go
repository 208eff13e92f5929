// Package firestore is an in-process Cloud Firestore for tests and demonstrations, as far as reading documents by
// their names goes: BatchGetDocuments, and Commit of whole documents, over gRPC, so that unmodified clients drive it.
//
//	server := firestore.New(firestore.Options{})
//	address, err := server.Start() // 127.0.0.1:PORT, gRPC without TLS; clients find it in FIRESTORE_EMULATOR_HOST
//	defer server.Close()
//	err = server.Put("projects/p/databases/(default)/documents/users/u1", map[string]*firestorepb.Value{…})
//
// Faults are armed with Inject: an error, a delay, a stream that ends after some documents, well or badly. Queries,
// listening, transactions and transforms are absent.
package firestore

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/millstream/millstream/fakes/fault"
)

// Options configures a Server.
type Options struct {
	// Project is the only one that is served. Default: any.
	Project string
}

// Server is Firestore. All methods may be called concurrently.
type Server struct {
	pb.UnimplementedFirestoreServer
	opts   Options
	faults fault.List[Fault]

	mu        sync.Mutex
	documents map[string]*pb.Document
	server    *grpc.Server
	address   string
	serving   sync.WaitGroup
}

// New returns a server without documents and without a listener.
func New(opts Options) *Server {
	return &Server{opts: opts, documents: map[string]*pb.Document{}}
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
		return "", fmt.Errorf("fake firestore: listen: %w", err)
	}
	s.address = listener.Addr().String()
	server := grpc.NewServer()
	pb.RegisterFirestoreServer(server, s)
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

// Put writes a document under its full name.
func (s *Server) Put(name string, fields map[string]*pb.Value) error {
	if err := s.serves(name); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.documents[name] = &pb.Document{Name: name, Fields: fields, CreateTime: timestamppb.Now(), UpdateTime: timestamppb.Now()}
	return nil
}

// Delete removes one.
func (s *Server) Delete(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.documents, name)
}

// serves refuses what is no document of this server: https://firebase.google.com/docs/firestore/quotas has the rules.
func (s *Server) serves(name string) error {
	parts := strings.Split(name, "/")
	if len(parts) < 7 || len(parts)%2 == 0 || parts[0] != "projects" || parts[2] != "databases" || parts[4] != "documents" {
		return status.Errorf(codes.InvalidArgument, "%q is not the name of a document", name)
	}
	if s.opts.Project != "" && parts[1] != s.opts.Project {
		return status.Errorf(codes.PermissionDenied, "the project %q is not this one", parts[1])
	}
	for _, id := range parts[5:] {
		if id == "" || id == "." || id == ".." || len(id) > 1500 || len(id) >= 4 && strings.HasPrefix(id, "__") && strings.HasSuffix(id, "__") {
			return status.Errorf(codes.InvalidArgument, "%q is not an id", id)
		}
	}
	return nil
}

// BatchGetDocuments implements the service: found and missing documents in any order, and a last answer with the
// time of reading.
func (s *Server) BatchGetDocuments(in *pb.BatchGetDocumentsRequest, out pb.Firestore_BatchGetDocumentsServer) error {
	f := s.taken("BatchGetDocuments")
	if err := f.begin(out.Context()); err != nil {
		return err
	}
	names := slices.Clone(in.Documents)
	slices.Sort(names)
	for n, name := range slices.Compact(names) {
		if err := s.serves(name); err != nil {
			return err
		}
		if f.After > 0 && n == f.After {
			if f.CutWell {
				return nil
			}
			return status.Error(codes.Unavailable, "a stream that was to be cut off")
		}
		s.mu.Lock()
		d := proto.CloneOf(s.documents[name])
		s.mu.Unlock()
		answer := &pb.BatchGetDocumentsResponse{ReadTime: timestamppb.Now()}
		if d.GetName() == "" {
			answer.Result = &pb.BatchGetDocumentsResponse_Missing{Missing: name}
		} else {
			if in.Mask != nil {
				all := d.Fields
				d.Fields = map[string]*pb.Value{}
				for _, path := range in.Mask.FieldPaths {
					if v, ok := all[strings.Trim(path, "`")]; ok {
						d.Fields[strings.Trim(path, "`")] = v
					}
				}
			}
			answer.Result = &pb.BatchGetDocumentsResponse_Found{Found: d}
		}
		if err := out.Send(answer); err != nil {
			return err
		}
	}
	return nil
}

// Commit implements the service for writes that replace or remove whole documents.
func (s *Server) Commit(ctx context.Context, in *pb.CommitRequest) (*pb.CommitResponse, error) {
	if err := s.taken("Commit").begin(ctx); err != nil {
		return nil, err
	}
	out := &pb.CommitResponse{CommitTime: timestamppb.Now()}
	for _, w := range in.Writes {
		switch op := w.Operation.(type) {
		case *pb.Write_Update:
			if err := s.Put(op.Update.Name, op.Update.Fields); err != nil {
				return nil, err
			}
		case *pb.Write_Delete:
			s.Delete(op.Delete)
		default:
			return nil, status.Error(codes.Unimplemented, "only documents are written here")
		}
		out.WriteResults = append(out.WriteResults, &pb.WriteResult{UpdateTime: out.CommitTime})
	}
	return out, nil
}

// Fault describes what goes wrong, and with which calls.
type Fault struct {
	Operation string // "BatchGetDocuments" or "Commit"; empty: all
	Skip      int    // calls that pass first
	Times     int    // how many are hit; 0 means 1, negative all until Stop

	Delay   time.Duration // before anything else; it ends early when the client hangs up
	Code    codes.Code    // answers with this error and does nothing else
	After   int           // ends a stream behind so many documents, with UNAVAILABLE
	CutWell bool          // or as if that had been all
}

// Injection is an armed Fault.
type Injection = fault.Injection

// Inject arms a fault. Faults apply in the order in which they were armed; the first that matches a call takes it.
func (s *Server) Inject(f Fault) *Injection {
	return s.faults.Inject(f, fault.Times{Skip: f.Skip, Most: f.Times})
}

func (s *Server) taken(operation string) Fault {
	return s.faults.Take(func(f *Fault) bool { return f.Operation == "" || f.Operation == operation })
}

func (f Fault) begin(ctx context.Context) error {
	if f.Delay > 0 {
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
	if f.Code != codes.OK {
		return status.Error(f.Code, "a fault that was asked for")
	}
	return nil
}
