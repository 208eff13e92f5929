package pubsub

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/millstream/millstream/fakes/fault"
)

// Options configures a Server. The zero value serves one project after the other without quotas.
type Options struct {
	// MaxBytes bounds what all topics hold for their subscriptions, encoded messages and what is kept
	// for each. Beyond it Publish answers RESOURCE_EXHAUSTED, which clients try again. The messages of
	// one Publish call are let go together, when the last of them is acknowledged everywhere.
	// Default 1 GiB.
	MaxBytes int64

	// StreamLifetime ends each StreamingPull with UNAVAILABLE after so long, as the service does after
	// about half an hour. Default 0: never.
	StreamLifetime time.Duration

	// ResponseMessages and ResponseBytes bound one response of StreamingPull. Defaults 500 and 256 KiB.
	ResponseMessages, ResponseBytes int
}

// perMessage is what a message costs beside its bytes, in each subscription that holds it.
const perMessage = 96

func (o Options) withDefaults() Options {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 1 << 30
	}
	if o.ResponseMessages <= 0 {
		o.ResponseMessages = 500
	}
	if o.ResponseBytes <= 0 {
		o.ResponseBytes = 256 << 10
	}
	return o
}

// Server is Pub/Sub, with any projects. All methods may be called concurrently.
type Server struct {
	opts  Options
	began time.Time    // instants are counted from here, by the monotonic clock
	bytes atomic.Int64 // held, see Options.MaxBytes
	ids   atomic.Int64 // of messages

	mu            sync.RWMutex
	topics        map[string]*topic
	subscriptions map[string]*subscription
	serial        uint32 // of subscriptions

	faults fault.List[Fault]

	web     sync.Mutex
	server  *grpc.Server
	pipes   *bufconn.Listener
	address string
	closed  bool
	serving sync.WaitGroup
	conns   connections
}

var errClosed = errors.New("fake pubsub: the server is closed")

// New returns a server without topics and without a listener.
func New(opts Options) *Server {
	return &Server{
		opts:          opts.withDefaults(),
		began:         time.Now(),
		topics:        make(map[string]*topic),
		subscriptions: make(map[string]*subscription),
		conns:         connections{open: make(map[net.Conn]struct{})},
	}
}

// now is the time since the server was made.
func (s *Server) now() time.Duration { return time.Since(s.began) }

// Start listens on a free port of 127.0.0.1 and returns the address, "127.0.0.1:PORT", which clients
// find in PUBSUB_EMULATOR_HOST. A second call returns the same address.
func (s *Server) Start() (address string, err error) {
	s.web.Lock()
	defer s.web.Unlock()
	if s.address != "" {
		return s.address, nil
	}
	if s.closed {
		return "", errClosed
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("fake pubsub: listen: %w", err)
	}
	s.address = listener.Addr().String()
	s.serve(listener)
	return s.address, nil
}

// serve answers on a listener. The caller holds web.
func (s *Server) serve(listener net.Listener) {
	if s.server == nil {
		s.server = grpc.NewServer(
			grpc.ForceServerCodecV2(newCodec()),
			grpc.MaxRecvMsgSize(2*maxPublishBytes), // larger ones get an answer with a reason
			grpc.InitialWindowSize(1<<20), grpc.InitialConnWindowSize(4<<20),
			grpc.UnaryInterceptor(s.intercept),
		)
		pb.RegisterPublisherServer(s.server, &publisher{Server: s})
		pb.RegisterSubscriberServer(s.server, &subscriber{Server: s})
	}
	server := s.server
	s.serving.Go(func() {
		_ = server.Serve(&tracked{listener, &s.conns}) // ends with the server
	})
}

// ClientOptions returns what makes a client of the SDK reach this server, over connections in memory:
//
//	client, err := pubsub.NewClient(ctx, "project", server.ClientOptions()...)
//
// It needs no listener, and inside a testing/synctest bubble lets virtual time advance. Close the
// client before the Server.
func (s *Server) ClientOptions() []option.ClientOption {
	return []option.ClientOption{
		option.WithEndpoint("passthrough:///fake"),
		option.WithoutAuthentication(),
		option.WithTelemetryDisabled(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
		option.WithGRPCDialOption(grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			s.web.Lock()
			if s.closed {
				s.web.Unlock()
				return nil, errClosed
			}
			if s.pipes == nil {
				s.pipes = bufconn.Listen(1 << 20)
				s.serve(s.pipes)
			}
			pipes := s.pipes
			s.web.Unlock()
			return pipes.DialContext(ctx)
		})),
	}
}

// DropConnections resets every connection, as a network does, and returns how many there were.
// Messages that clients hold stay outstanding until their deadline.
func (s *Server) DropConnections() int { return s.conns.drop() }

// Close ends all calls and waits for them. It may be called twice.
func (s *Server) Close() {
	s.web.Lock()
	s.closed = true
	server := s.server
	s.web.Unlock()
	if server != nil {
		server.Stop()
	}
	s.serving.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sub := range s.subscriptions {
		sub.close()
	}
}

// connections are those that are open.
type connections struct {
	mu   sync.Mutex
	open map[net.Conn]struct{}
}

func (c *connections) drop() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		_ = conn.Close() // the client sees a reset, whatever this says
	}
	return len(c.open)
}

// tracked is a listener that knows its connections.
type tracked struct {
	net.Listener
	to *connections
}

func (t *tracked) Accept() (net.Conn, error) {
	conn, err := t.Listener.Accept()
	if err != nil {
		return nil, err
	}
	t.to.mu.Lock()
	defer t.to.mu.Unlock()
	c := &trackedConn{conn, t.to}
	t.to.open[c] = struct{}{}
	return c, nil
}

type trackedConn struct {
	net.Conn
	to *connections
}

// Close is called by drop, which holds the lock, and by the server.
func (c *trackedConn) Close() error {
	go c.forget()
	return c.Conn.Close()
}

func (c *trackedConn) forget() {
	c.to.mu.Lock()
	defer c.to.mu.Unlock()
	delete(c.to.open, c)
}
