package kinesis

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	contentType = "application/x-amz-json-1.1"
	target      = "Kinesis_20131202."

	// maxRecordBytes is the service's largest record, maxRequestBytes bounds a
	// body: 10 MiB of records as base64, their keys and some JSON around them.
	maxRecordBytes  = 10 << 20
	maxRequestBytes = 16 << 20
)

// call is one request on its way through an operation.
type call struct {
	ctx    context.Context
	body   []byte
	fault  Fault
	reply  []byte                          // what the operation answers
	stream func(http.ResponseWriter) error // replaces reply by an event stream
}

// operations maps the name behind the target's dot to its implementation.
var operations = map[string]func(*Server, *call) error{
	"CreateStream":             (*Server).createStream,
	"DeleteStream":             (*Server).deleteStream,
	"DescribeStream":           (*Server).describeStream,
	"DescribeStreamSummary":    (*Server).describeStreamSummary,
	"ListStreams":              (*Server).listStreams,
	"ListShards":               (*Server).listShards,
	"SplitShard":               (*Server).splitShard,
	"MergeShards":              (*Server).mergeShards,
	"UpdateShardCount":         (*Server).updateShardCount,
	"PutRecord":                (*Server).putRecord,
	"PutRecords":               (*Server).putRecords,
	"GetShardIterator":         (*Server).getShardIterator,
	"GetRecords":               (*Server).getRecords,
	"RegisterStreamConsumer":   (*Server).registerStreamConsumer,
	"DescribeStreamConsumer":   (*Server).describeStreamConsumer,
	"DeregisterStreamConsumer": (*Server).deregisterStreamConsumer,
	"ListStreamConsumers":      (*Server).listStreamConsumers,
	"SubscribeToShard":         (*Server).subscribeToShard,
}

// buffers are reused for request bodies and replies.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

var requests atomic.Uint64

// ServeHTTP answers one request of the Kinesis API. It may be mounted on any
// HTTP server.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	id := requestID(requests.Add(1))
	w.Header().Set("x-amzn-RequestId", id)
	name := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), target)

	in, out := buffers.Get().(*[]byte), buffers.Get().(*[]byte)
	defer buffers.Put(in)
	defer buffers.Put(out)
	c := &call{ctx: r.Context(), reply: (*out)[:0]}
	err := s.run(c, name, r, w, in)
	if err != nil {
		c.reply = appendError(c.reply[:0], err)
	}
	*out = c.reply

	s.opts.Logger.LogAttrs(r.Context(), slog.LevelDebug, "request", slog.String("operation", name),
		slog.Int("reply_bytes", len(c.reply)), slog.Duration("took", time.Since(start)), slog.Any("err", err))
	switch {
	case err != nil:
		var e *serviceError
		status := http.StatusInternalServerError
		if errors.As(err, &e) {
			status = e.status
			w.Header().Set("X-Amzn-ErrorType", e.code)
		}
		write(w, status, c.reply)
	case c.fault.LoseReply:
		cut(w, nil)
	case c.stream != nil:
		if c.stream(w) != nil {
			panic(http.ErrAbortHandler) // cuts the connection
		}
	case c.fault.CutReply:
		cut(w, c.reply)
	default:
		write(w, http.StatusOK, c.reply)
	}
}

// run checks the request's form, applies the faults that come before the work,
// and does the work.
func (s *Server) run(c *call, name string, r *http.Request, w http.ResponseWriter, buf *[]byte) error {
	operation := operations[name]
	if r.Method != http.MethodPost || operation == nil {
		return failure(codeUnknownOperation, "Operation %q is not one this server knows.", r.Header.Get("X-Amz-Target"))
	}
	if media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); media != contentType && media != "application/json" {
		return failure(codeSerialization, "Content type %q is not spoken here, only %s.", media, contentType)
	}
	var err error
	if *buf, err = readAll(http.MaxBytesReader(w, r.Body, maxRequestBytes), (*buf)[:0]); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			e := failure("RequestEntityTooLargeException", "The request is larger than %d bytes.", maxRequestBytes)
			e.status = http.StatusRequestEntityTooLarge
			return e
		}
		return failure(codeSerialization, "Reading the request: %v", err)
	}
	c.body = *buf
	c.fault = s.take(name, c.body)
	if err := s.delay(c); err != nil {
		return err
	}
	if c.fault.Code != "" && c.fault.FailEntries == nil {
		message := c.fault.Message
		if message == "" {
			message = "Injected fault."
		}
		return failure(c.fault.Code, "%s", message)
	}
	return operation(s, c)
}

// delay waits as long as the fault says.
func (s *Server) delay(c *call) error {
	if c.fault.Delay <= 0 {
		return nil
	}
	timer := time.NewTimer(c.fault.Delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-c.ctx.Done():
		return failure(InternalFailure, "The client hung up.")
	case <-s.done:
		return failure(ServiceUnavailable, "The server is closing.")
	}
}

func write(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	// A client that hung up is no error of ours.
	_, _ = w.Write(body)
}

// cut sends half of body, if there is one, and resets the connection.
func cut(w http.ResponseWriter, body []byte) {
	if body != nil {
		h := w.Header()
		h.Set("Content-Type", contentType)
		h.Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body[:len(body)/2])
		_ = http.NewResponseController(w).Flush()
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2: resets the stream
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // closing sends RST
	}
	_ = conn.Close()
}

func readAll(r io.Reader, buf []byte) ([]byte, error) {
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
}

// decode reads the request into v.
func (c *call) decode(v any) error {
	if err := json.Unmarshal(c.body, v); err != nil {
		return failure(codeSerialization, "%v", err)
	}
	return nil
}

// answer makes v the reply.
func (c *call) answer(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return failure(InternalFailure, "%v", err)
	}
	c.reply = append(c.reply, b...)
	return nil
}

func appendError(dst []byte, err error) []byte {
	code, message := InternalFailure, err.Error()
	var e *serviceError
	if errors.As(err, &e) {
		code, message = e.code, e.message
	}
	dst = append(dst, `{"__type":`...)
	dst = appendString(dst, []byte(code))
	dst = append(dst, `,"message":`...)
	dst = appendString(dst, []byte(message))
	return append(dst, '}')
}

// epoch is a time as the protocol writes it: seconds with milliseconds behind
// the point.
type epoch int64 // Unix milliseconds

func (e epoch) MarshalJSON() ([]byte, error) { return appendEpoch(nil, int64(e)), nil }

func (e *epoch) UnmarshalJSON(b []byte) error {
	seconds, err := strconv.ParseFloat(string(b), 64)
	if err != nil || math.Abs(seconds) > 1e12 {
		return errors.New("a timestamp must be a number of seconds since 1970")
	}
	*e = epoch(math.Round(seconds * 1000))
	return nil
}

func appendEpoch(dst []byte, ms int64) []byte {
	dst = strconv.AppendInt(dst, ms/1000, 10)
	dst = append(dst, '.')
	return appendDigits(dst, uint64(ms%1000), 3)
}

// appendString writes a JSON string. text is valid UTF-8.
func appendString(dst, text []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i, c := range text {
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, text[start:i]...)
		if c < ' ' {
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		} else {
			dst = append(dst, '\\', c)
		}
		start = i + 1
	}
	dst = append(dst, text[start:]...)
	return append(dst, '"')
}

// requestID looks like the service's.
func requestID(n uint64) string {
	return "00000000-0000-4000-8000-" + string(appendDigits(nil, n%1e12, 12))
}
