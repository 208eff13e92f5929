package kinesis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millstream/millstream/fakes/fault"
)

// Options configures a Server. The zero value serves an account in us-east-1
// with the service's defaults and without its rate limits.
type Options struct {
	// Region and AccountID appear in ARNs and messages. Any region and account
	// in a request's ARN is accepted. Defaults: us-east-1 and 000000000000.
	Region, AccountID string

	// Retention is how long a record, and a closed shard, stays. Default 24 h.
	Retention time.Duration

	// MaxBytes bounds what one stream holds: keys and data, 16 bytes a record,
	// and up to one chunk (a sixteenth of MaxBytes, at most 512 KiB) a shard that
	// is not full yet. Beyond it the oldest records of the stream vanish, a chunk
	// at a time, as if they had expired. Default 1 GiB.
	MaxBytes int64

	// MaxRecordBytes is the largest record, key and data, of streams whose
	// CreateStream does not say (MaxRecordSizeInKiB). Default 1 MiB, at most
	// 10 MiB.
	MaxRecordBytes int

	// ShardLimit bounds the open shards of all streams together; beyond it
	// CreateStream and resharding answer LimitExceededException. Default 500.
	ShardLimit int

	// IteratorLifetime is how long a shard iterator is good for. Default 5 min.
	IteratorLifetime time.Duration

	// SubscriptionLifetime is how long a SubscribeToShard call lasts. Default
	// 5 min.
	SubscriptionLifetime time.Duration

	// Transition is how long a stream stays CREATING, UPDATING or DELETING and a
	// consumer CREATING. New shards take effect at the beginning of UPDATING.
	// Default 0: the change is complete when the call returns.
	Transition time.Duration

	// EnforceLimits applies the service's limits to each shard: 5 GetRecords
	// calls and 2 MiB a second out (10 MiB at once, then nothing until they are
	// paid for), 1,000 records and 1 MiB a second in. Direct calls on the Server
	// are exempt.
	EnforceLimits bool

	// Logger receives one debug line a request. Default: none.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	if o.Region == "" {
		o.Region = "us-east-1"
	}
	if o.AccountID == "" {
		o.AccountID = "000000000000"
	}
	set(&o.Retention, 24*time.Hour)
	set(&o.IteratorLifetime, 5*time.Minute)
	set(&o.SubscriptionLifetime, 5*time.Minute)
	if o.MaxBytes <= 0 {
		o.MaxBytes = 1 << 30
	}
	if o.MaxRecordBytes <= 0 {
		o.MaxRecordBytes = 1 << 20
	}
	o.MaxRecordBytes = min(o.MaxRecordBytes, maxRecordBytes)
	if o.ShardLimit <= 0 {
		o.ShardLimit = 500
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Server is one account's Kinesis in one region. All methods may be called
// concurrently.
type Server struct {
	opts  Options
	epoch atomic.Uint32 // iterators of an older epoch have expired

	mu      sync.RWMutex
	streams map[string]*stream
	ids     map[uint64]*stream
	lastID  uint64
	lastSec int64 // largest creation second of deleted streams' shards, and of streams

	faults fault.List[Fault]

	web     sync.Mutex
	server  *http.Server
	pipes   *pipeListener
	address string
	closed  bool
	done    chan struct{} // closed by Close
}

// New returns a server without streams and without a listener.
func New(opts Options) *Server {
	return &Server{
		opts:    opts.withDefaults(),
		streams: make(map[string]*stream),
		ids:     make(map[uint64]*stream),
		done:    make(chan struct{}),
	}
}

// Start listens on a free port of 127.0.0.1 and returns the endpoint,
// "http://127.0.0.1:PORT". A second call returns the same endpoint.
func (s *Server) Start() (endpoint string, err error) {
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
		return "", fmt.Errorf("fake kinesis: listen: %w", err)
	}
	s.address = "http://" + listener.Addr().String()
	s.serve(listener)
	return s.address, nil
}

// Client returns an HTTP client whose every connection is an in-memory pipe to
// this server, whatever the host in the URL. It needs no listener, and inside a
// testing/synctest bubble lets virtual time advance. Close it with the Server.
func (s *Server) Client() *http.Client {
	s.web.Lock()
	defer s.web.Unlock()
	if s.pipes == nil {
		s.pipes = &pipeListener{conns: make(chan net.Conn), done: s.done}
		s.serve(s.pipes)
	}
	return &http.Client{Transport: DetachBody(&http.Transport{
		DialContext:        s.pipes.dial,
		DisableCompression: true,
	})}
}

// DetachBody returns a transport that takes the body off each request and sends
// its own copy. Give it to an AWS SDK for Go client that talks to [Server.Start]'s
// socket and is not to retry, as in
//
//	options.HTTPClient = &http.Client{Transport: kinesis.DetachBody(&http.Transport{})}
//
// The SDK closes a request's body as soon as the reply's header is there. On
// loopback that is sometimes before net/http has looked whether the body it just
// sent is at its end; smithy-go 1.28.8 then answers with an error in place of the
// end, and net/http drops the connection, and with it a large reply ("use of
// closed network connection"). The SDK's default retryer hides that.
func DetachBody(transport http.RoundTripper) http.RoundTripper { return detached{transport} }

type detached struct{ http.RoundTripper }

func (d detached) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		if err := errors.Join(err, r.Body.Close()); err != nil {
			return nil, err
		}
		r = r.Clone(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	return d.RoundTripper.RoundTrip(r)
}

// CloseIdleConnections is what http.Client's method of that name calls.
func (d detached) CloseIdleConnections() {
	if c, ok := d.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// serve answers on listener until Close. The caller holds web.
func (s *Server) serve(listener net.Listener) {
	if s.server == nil {
		s.server = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	}
	server := s.server
	go func() { _ = server.Serve(listener) }() // ends with http.ErrServerClosed
}

// Close stops listening and cuts every connection. The records stay readable by
// direct calls.
func (s *Server) Close() error {
	s.web.Lock()
	defer s.web.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	close(s.done)
	if s.server == nil {
		return nil
	}
	return s.server.Close()
}

var errClosed = errors.New("fake kinesis: server is closed")

// pipeListener hands one end of a net.Pipe to the HTTP server for every dial.
type pipeListener struct {
	conns chan net.Conn
	done  <-chan struct{}
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.done:
		return nil, errClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { return nil }
func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

// stream returns the stream of that name, completing a deletion whose time has
// come.
func (s *Server) stream(name string) (*stream, error) {
	s.mu.RLock()
	st := s.streams[name]
	s.mu.RUnlock()
	if st != nil && st.state(time.Now().UnixMilli()) == "" {
		s.drop(st)
		st = nil
	}
	if st == nil {
		return nil, notFound("Stream %s under account %s not found.", name, s.opts.AccountID)
	}
	return st, nil
}

// streamByID is for iterators and tokens; nil when the stream is gone.
func (s *Server) streamByID(id uint64) *stream {
	s.mu.RLock()
	st := s.ids[id]
	s.mu.RUnlock()
	if st == nil || st.state(time.Now().UnixMilli()) == "" {
		return nil
	}
	return st
}

// openShards counts the open shards of all streams.
func (s *Server) openShards() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := 0
	for _, st := range s.streams {
		st.mu.RLock()
		n += len(st.open)
		st.mu.RUnlock()
	}
	return n
}

// allow refuses more additional shards than the limit leaves.
func (s *Server) allow(additional int) error {
	if n := s.openShards(); n+additional > s.opts.ShardLimit {
		return failure(codeLimitExceeded, "This request would exceed the shard limit for the account %s in %s. Current shard count for the account: %d. Limit: %d. Number of additional shards that would have resulted from this request: %d.",
			s.opts.AccountID, s.opts.Region, n, s.opts.ShardLimit, additional)
	}
	return nil
}

// create adds a stream of shards equal ranges. maxRecord 0 is the default.
func (s *Server) create(name string, shards, maxRecord int, mode string) error {
	if err := s.allow(shards); err != nil {
		return err
	}
	now := time.Now().UnixMilli()
	if st, err := s.stream(name); err == nil {
		return failure(codeInUse, "Stream %s under account %s already exists.", st.name, s.opts.AccountID)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[name] != nil {
		return failure(codeInUse, "Stream %s under account %s already exists.", name, s.opts.AccountID)
	}
	if maxRecord == 0 {
		maxRecord = s.opts.MaxRecordBytes
	}
	s.lastID++
	// A stream created again under its old name gets larger sequence numbers.
	s.lastSec = max(now/1000, s.lastSec+1)
	st := &stream{
		id: s.lastID, name: name, mode: mode, created: now, maxRecord: maxRecord,
		arn:       fmt.Sprintf("arn:aws:kinesis:%s:%s:stream/%s", s.opts.Region, s.opts.AccountID, name),
		retention: s.opts.Retention,
		maxBytes:  s.opts.MaxBytes,
		chunkSize: int(min(max(s.opts.MaxBytes/16, minChunk), maxChunk)),
		status:    statusActive,
		consumers: make(map[string]*consumer),
	}
	starts := boundaries(shards)
	for i, lo := range starts {
		hi := maxHash
		if i+1 < len(starts) {
			hi = starts[i+1].previous()
		}
		st.addShard(lo, hi, now, s.lastSec)
	}
	if s.opts.Transition > 0 {
		st.enter(statusCreating, now, s.opts.Transition)
	}
	s.streams[name] = st
	s.ids[st.id] = st
	return nil
}

// remove deletes a stream.
func (s *Server) remove(st *stream) {
	if s.opts.Transition > 0 {
		st.mu.Lock()
		st.enter(statusDeleting, time.Now().UnixMilli(), s.opts.Transition)
		st.mu.Unlock()
		return
	}
	s.drop(st)
}

// drop forgets a stream.
func (s *Server) drop(st *stream) {
	st.mu.RLock()
	newest := st.newest
	st.mu.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[st.name] == st {
		delete(s.streams, st.name)
		delete(s.ids, st.id)
		s.lastSec = max(s.lastSec, newest)
	}
}
