package bigquery

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"

	pb "cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/millstream/millstream/fakes/fault"
)

// Options configures a Server.
type Options struct {
	// MaxBytes bounds the encoded rows that all tables and streams hold. Beyond it AppendRows answers
	// RESOURCE_EXHAUSTED. Default 1 GiB.
	MaxBytes int64
}

// Server is BigQuery, with any projects. All methods may be called concurrently.
type Server struct {
	opts   Options
	faults fault.List[Fault]

	mu      sync.Mutex
	tables  map[string]*table // by full name, projects/P/datasets/D/tables/T
	sets    map[string]bool   // data sets, projects/P/datasets/D
	streams map[string]*writeStream
	serial  int // of streams
	bytes   int64

	web     sync.Mutex
	address string
	server  *http.Server
	grpc    *grpc.Server
	conns   map[net.Conn]struct{}
	serving sync.WaitGroup
	closed  bool
}

// New returns a server without tables and without a listener.
func New(opts Options) *Server {
	if opts.MaxBytes <= 0 {
		opts.MaxBytes = 1 << 30
	}
	return &Server{
		opts:    opts,
		tables:  make(map[string]*table),
		sets:    make(map[string]bool),
		streams: make(map[string]*writeStream),
		conns:   make(map[net.Conn]struct{}),
	}
}

// maxRequest is the largest AppendRowsRequest, see https://cloud.google.com/bigquery/quotas#write-api-limits.
const maxRequest = 10_000_000

// Start listens on a free port of 127.0.0.1 and returns the address, "127.0.0.1:PORT", where both gRPC
// and HTTP are answered. A second call returns the same address.
func (s *Server) Start() (address string, err error) {
	s.web.Lock()
	defer s.web.Unlock()
	if s.closed {
		return "", errors.New("fake bigquery: the server is closed")
	}
	if s.address != "" {
		return s.address, nil
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("fake bigquery: listen: %w", err)
	}
	s.address = listener.Addr().String()
	s.grpc = grpc.NewServer(
		grpc.MaxRecvMsgSize(3*maxRequest), // larger ones get an answer with a reason
		grpc.UnaryInterceptor(s.intercept),
	)
	pb.RegisterBigQueryWriteServer(s.grpc, &writeServer{Server: s})
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s.server = &http.Server{Protocols: protocols, Handler: http.HandlerFunc(s.answer), ConnState: s.track}
	s.serving.Go(func() {
		_ = s.server.Serve(listener) // ends with the server
	})
	return s.address, nil
}

// answer tells gRPC from REST by what the request says it is.
func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		s.grpc.ServeHTTP(w, r)
		return
	}
	s.rest(w, r)
}

func (s *Server) track(c net.Conn, state http.ConnState) {
	s.web.Lock()
	defer s.web.Unlock()
	switch state {
	case http.StateNew:
		s.conns[c] = struct{}{}
	case http.StateClosed, http.StateHijacked:
		delete(s.conns, c)
	}
}

// WriteOptions returns what makes a client of the Storage Write API reach this server, once it is
// started: storage.NewBigQueryWriteClient, managedwriter.NewClient.
func (s *Server) WriteOptions() []option.ClientOption {
	return []option.ClientOption{
		option.WithEndpoint(s.Address()),
		option.WithoutAuthentication(),
		option.WithTelemetryDisabled(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
}

// RESTOptions returns what makes a client of the REST API reach this server, once it is started:
// bigquery.NewClient, bigquery.NewService.
func (s *Server) RESTOptions() []option.ClientOption {
	return []option.ClientOption{
		option.WithEndpoint("http://" + s.Address() + "/bigquery/v2/"),
		option.WithoutAuthentication(),
		option.WithTelemetryDisabled(),
	}
}

// Address returns where the server listens, empty before Start.
func (s *Server) Address() string {
	s.web.Lock()
	defer s.web.Unlock()
	return s.address
}

// DropConnections resets every connection, as a network does, and returns how many there were.
func (s *Server) DropConnections() int {
	s.web.Lock()
	open := make([]net.Conn, 0, len(s.conns))
	for c := range s.conns {
		open = append(open, c)
	}
	s.web.Unlock()
	for _, c := range open {
		_ = c.Close() // the client sees a reset, whatever this says
	}
	return len(open)
}

// Close ends all calls and waits for the listener. It may be called twice.
func (s *Server) Close() {
	s.web.Lock()
	s.closed = true
	server, g := s.server, s.grpc
	s.web.Unlock()
	if server != nil {
		_ = server.Close() // connections that end badly end
		g.Stop()
	}
	s.serving.Wait()
}
