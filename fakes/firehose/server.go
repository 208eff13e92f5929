package firehose

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// The service's limits (Amazon Data Firehose quota).
const (
	MaxEntries = 500
	MaxCall    = 4 << 20     // bytes of all entries together
	MaxRecord  = 1000 * 1024 // bytes, before base64
	// BilledStep is what a record's size is rounded up to on the bill.
	BilledStep = 5 << 10
)

const (
	contentType = "application/x-amz-json-1.1"
	target      = "Firehose_20150804."
	maxBody     = 8 << 20
)

// Options configures a Server. The zero value is ready.
type Options struct {
	// Folder receives what is delivered: DELIVERY-STREAM/…, in files of BufferBytes, or of what has come
	// within BufferFor. Empty: nothing is delivered, Records alone shows what came.
	Folder      string
	BufferBytes int           // default 1 MiB
	BufferFor   time.Duration // default 60 s
	// Fault says what goes wrong with a call. calls counts those of the operation, this one included. It is
	// called by many goroutines at once. Nil: nothing goes wrong.
	Fault func(operation string, calls int) Fault
}

// Fault is what goes wrong with one call. The zero Fault is nothing.
type Fault struct {
	// Code answers with an error of this type, ServiceUnavailableException for example, and does nothing
	// else. With FailEntries it is those entries' code instead.
	Code string
	// FailEntries makes a PutRecordBatch fail in part: the entries, numbered from 0, for which it returns
	// true are not taken.
	FailEntries func(entry int) bool
	LoseReply   bool // the call is done, and its reply never comes
}

// Stats counts what one delivery stream has taken.
type Stats struct {
	Calls       int64
	Records     int64
	Bytes       int64
	BilledBytes int64 // each record rounded up to 5 KB
}

// Server is one account's Firehose in one region. All methods may be called concurrently.
type Server struct {
	o Options

	mu      sync.Mutex
	streams map[string]*deliveryStream
	calls   map[string]int
	web     *http.Server
	address string
}

type deliveryStream struct {
	destination map[string]json.RawMessage // its description
	stats       Stats
	records     [][]byte
	buffer      buffer
}

// New returns a server without delivery streams and without a listener.
func New(o Options) *Server {
	o.BufferBytes, o.BufferFor = cmp.Or(o.BufferBytes, 1<<20), cmp.Or(o.BufferFor, time.Minute)
	return &Server{o: o, streams: make(map[string]*deliveryStream), calls: make(map[string]int)}
}

// Start listens on a free port of 127.0.0.1 and returns the endpoint, "http://127.0.0.1:PORT".
func (s *Server) Start() (endpoint string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.address != "" {
		return s.address, nil
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("fake firehose: %w", err)
	}
	s.address = "http://" + listener.Addr().String()
	s.web = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.web.Serve(listener) }() // its error is that it was closed
	return s.address, nil
}

// Close delivers what is buffered and closes the listener.
func (s *Server) Close() error {
	s.mu.Lock()
	web := s.web
	s.mu.Unlock()
	var err error
	if web != nil {
		err = web.Close()
	}
	return errors.Join(err, s.Flush())
}

// Client returns an HTTP client whose requests the server answers itself, whatever their host, without a
// network: it works in the bubbles of testing/synctest.
func (s *Server) Client() *http.Client { return &http.Client{Transport: direct{s}} }

type direct struct{ s *Server }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	w := &answer{header: make(http.Header), status: http.StatusOK}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	if lost := d.s.answer(w, r); lost {
		return nil, io.ErrUnexpectedEOF
	}
	return &http.Response{StatusCode: w.status, Status: http.StatusText(w.status), Header: w.header, ContentLength: int64(w.body.Len()),
		Body: io.NopCloser(&w.body), Request: r, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}, nil
}

// answer is a reply in memory.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }

// CreateDeliveryStream makes one that delivers to a bucket, as it is. It is an error when there is one of
// that name.
func (s *Server) CreateDeliveryStream(name string) error {
	return s.create(name, described([]byte(`{"ExtendedS3DestinationConfiguration":{}}`)))
}

func (s *Server) create(name string, destination map[string]json.RawMessage) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[name] != nil {
		return fmt.Errorf("fake firehose: delivery stream %s exists", name)
	}
	s.streams[name] = &deliveryStream{destination: destination}
	return nil
}

// Records returns what a delivery stream has taken, record by record, and Stats how much that is.
func (s *Server) Records(name string) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.streams[name]; d != nil {
		return append([][]byte(nil), d.records...)
	}
	return nil
}

// Stats returns the counts of a delivery stream.
func (s *Server) Stats(name string) Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.streams[name]; d != nil {
		return d.stats
	}
	return Stats{}
}

// ServeHTTP answers one request of the Firehose API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if lost := s.answer(w, r); lost {
		panic(http.ErrAbortHandler) // cuts the connection
	}
}

// answer reports whether the reply is to be lost.
func (s *Server) answer(w http.ResponseWriter, r *http.Request) (lost bool) {
	operation := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), target)
	w.Header().Set("Content-Type", contentType)
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err == nil && len(body) > maxBody {
		err = failure("RequestEntityTooLargeException", "The request is larger than %d bytes.", maxBody)
	}
	var fault Fault
	var reply any
	if err == nil {
		fault = s.fault(operation)
		if fault.Code != "" && fault.FailEntries == nil {
			err = failure(fault.Code, "Injected fault.")
		} else {
			reply, err = s.do(operation, body, fault)
		}
	}
	if fault.LoseReply {
		return true
	}
	if err != nil {
		f := new(serviceError)
		if !errors.As(err, &f) {
			f = failure("SerializationException", "%v", err)
		}
		status := http.StatusBadRequest
		if strings.HasPrefix(f.code, "ServiceUnavailable") {
			status = http.StatusServiceUnavailable
		} else if strings.HasPrefix(f.code, "Internal") {
			status = http.StatusInternalServerError
		}
		w.Header().Set("X-Amzn-ErrorType", f.code)
		w.WriteHeader(status)
		reply = map[string]string{"__type": f.code, "message": f.message}
	}
	_ = json.NewEncoder(w).Encode(reply) // the client hung up
	return false
}

func (s *Server) fault(operation string) Fault {
	s.mu.Lock()
	s.calls[operation]++
	n := s.calls[operation]
	s.mu.Unlock()
	if s.o.Fault == nil {
		return Fault{}
	}
	return s.o.Fault(operation, n)
}

// serviceError is an error of the protocol.
type serviceError struct{ code, message string }

func (e *serviceError) Error() string { return e.code + ": " + e.message }

func failure(code, format string, args ...any) *serviceError {
	return &serviceError{code, fmt.Sprintf(format, args...)}
}
