package kinesis

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/millstream/millstream/stream"
)

const (
	// maxReply bounds one reply or event as it comes: 10 MiB of data as base64, 10,000 keys of 256 bytes,
	// escaped, and what is around them.
	maxReply = 64 << 20
	// maxPooled is the largest buffer that is kept for the next reply.
	maxPooled = 16 << 20
)

// protocol is the SDK's, which the SDK's client goes on to use for everything, requests, signatures,
// errors, retries; only replies that carry records are read here, because the SDK spends most of a
// reader's time on them. What this package's decoder does not know it gives to the SDK's, which panics at
// some replies (a time that is "NaN"): here that is an error.
type protocol struct {
	smithyhttp.ClientProtocol
	sdkOnly bool // only the panics
}

// recovered turns a panic of the SDK's decoder into an error.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = &smithy.DeserializationError{Err: fmt.Errorf("the SDK's decoder: %v", p)}
	}
}

// buffers hold replies while they are decoded.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

func giveBack(buf *[]byte) {
	if cap(*buf) <= maxPooled {
		buffers.Put(buf)
	}
}

// aside takes the records that this package has decoded past the SDK's output: its shape would need each
// record to be taken apart once more. It travels in the context of the call.
type aside struct{ records []stream.Record }

type asideKey struct{}

// DeserializeResponse implements smithyhttp.ClientProtocol.
func (p protocol) DeserializeResponse(ctx context.Context, schema *smithy.OperationSchema, registry *smithy.TypeRegistry, resp *smithyhttp.Response, out smithy.Deserializable) (err error) {
	defer recovered(&err)
	to, ok := out.(*awskinesis.GetRecordsOutput)
	if !ok || p.sdkOnly || resp.StatusCode != 200 {
		return p.ClientProtocol.DeserializeResponse(ctx, schema, registry, resp, out)
	}
	buf := buffers.Get().(*[]byte)
	defer giveBack(buf)
	body, err := readBody((*buf)[:0], resp.Body, resp.ContentLength)
	*buf = body[:0]
	if err != nil {
		return &smithy.DeserializationError{Err: err}
	}
	if a, ok := decodeAnswer(body, "NextShardIterator"); ok {
		to.NextShardIterator, to.MillisBehindLatest = a.next, a.behind
		if past, ok := ctx.Value(asideKey{}).(*aside); ok {
			past.records = a.records
		} else {
			to.Records = toSDK(a.records)
		}
		return nil
	}
	if !json.Valid(body) {
		return &smithy.DeserializationError{Err: errNotJSON}
	}
	whole := resp.Body
	resp.Body = io.NopCloser(bytes.NewReader(body))
	defer func() { resp.Body = whole }()
	return p.ClientProtocol.DeserializeResponse(ctx, schema, registry, resp, out)
}

var (
	errNotJSON  = errors.New("the reply is not JSON")
	errTooLarge = fmt.Errorf("the reply is larger than %d bytes", maxReply)
)

// readBody appends what r holds to buf; size is what is known of that, or -1.
func readBody(buf []byte, r io.Reader, size int64) ([]byte, error) {
	if size > maxReply {
		return buf, errTooLarge
	}
	if need := int(size) + 1; need > cap(buf) { // one more, to see the end without growing
		buf = make([]byte, 0, need)
	}
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case err == io.EOF:
			return buf, nil
		case err != nil:
			return buf, err
		case len(buf) > maxReply:
			return buf, errTooLarge
		}
	}
}

// The frame of an event (the AWS event stream encoding): the length of all of it, the length of the
// headers, the CRC-32 of these eight bytes; headers, payload, and the CRC-32 of everything before.
const (
	preludeSize = 12
	trailerSize = 4
)

// DeserializeEventMessage implements smithyhttp.ClientProtocol. Calls for one stream come one behind the
// other. It returns io.EOF at the end of a stream, and not for half an event.
func (p protocol) DeserializeEventMessage(schema *smithy.Schema, registry *smithy.TypeRegistry, r io.Reader) (event smithy.Deserializable, err error) {
	defer recovered(&err)
	if p.sdkOnly {
		return p.ClientProtocol.DeserializeEventMessage(schema, registry, r)
	}
	buf := buffers.Get().(*[]byte)
	defer giveBack(buf)
	frame, err := readFrame((*buf)[:0], r)
	*buf = frame[:0]
	if err != nil {
		return nil, err
	}
	headers := frame[preludeSize : preludeSize+binary.BigEndian.Uint32(frame[4:])]
	payload := frame[preludeSize+len(headers) : len(frame)-trailerSize]
	if isEvent(headers) {
		if a, ok := decodeAnswer(payload, "ContinuationSequenceNumber"); ok {
			return &types.SubscribeToShardEvent{Records: toSDK(a.records), ContinuationSequenceNumber: a.next, MillisBehindLatest: a.behind}, nil
		}
		if !json.Valid(payload) {
			return nil, &smithy.DeserializationError{Err: errNotJSON}
		}
	}
	return p.ClientProtocol.DeserializeEventMessage(schema, registry, bytes.NewReader(frame))
}

// readFrame appends the next frame to buf, and checks its checksums.
func readFrame(buf []byte, r io.Reader) ([]byte, error) {
	buf = append(buf, make([]byte, preludeSize)...)
	if _, err := io.ReadFull(r, buf); err != nil {
		return buf, err
	}
	size, headers := binary.BigEndian.Uint32(buf), binary.BigEndian.Uint32(buf[4:])
	if crc32.ChecksumIEEE(buf[:8]) != binary.BigEndian.Uint32(buf[8:]) {
		return buf, errDamaged
	}
	if size > maxReply || size < preludeSize+trailerSize || headers > size-preludeSize-trailerSize {
		return buf, fmt.Errorf("an event of %d bytes with %d bytes of headers", size, headers)
	}
	if int(size) > cap(buf) {
		buf = append(make([]byte, 0, size), buf...)
	}
	buf = buf[:size]
	if _, err := io.ReadFull(r, buf[preludeSize:]); err == io.EOF {
		return buf, io.ErrUnexpectedEOF
	} else if err != nil {
		return buf, err
	}
	if crc32.ChecksumIEEE(buf[:size-trailerSize]) != binary.BigEndian.Uint32(buf[size-trailerSize:]) {
		return buf, errDamaged
	}
	return buf, nil
}

var errDamaged = errors.New("an event whose checksum is wrong")

// isEvent reports whether the headers, each a name and a text, are those of an event with records.
func isEvent(headers []byte) bool {
	const text = 7
	var message, event string
	for len(headers) > 0 {
		n := 1 + int(headers[0])
		if len(headers) < n+3 || headers[n] != text {
			return false
		}
		name, value := string(headers[1:n]), headers[n+3:]
		size := int(binary.BigEndian.Uint16(headers[n+1:]))
		if size > len(value) {
			return false
		}
		switch name {
		case ":message-type":
			message = string(value[:size])
		case ":event-type":
			event = string(value[:size])
		}
		headers = value[size:]
	}
	return message == "event" && event == "SubscribeToShardEvent"
}

// decoding has a call's records read by this package, unless Options.SDKDecoder says otherwise.
func (s *Source) decoding(o *awskinesis.Options) {
	o.Protocol = protocol{o.Protocol, s.options.SDKDecoder}
}

// fromSDK gives records the shape in which readers have them: Position.Token is the sequence number, and
// empty when there was none.
func fromSDK(in []types.Record) []stream.Record {
	out := make([]stream.Record, len(in))
	for i := range in {
		k, r := &in[i], &out[i]
		r.Data, r.Position.Token, r.Key = k.Data, aws.ToString(k.SequenceNumber), aws.ToString(k.PartitionKey)
		if t := k.ApproximateArrivalTimestamp; t != nil {
			r.Arrived, _ = stream.At(*t)
		}
	}
	return out
}

// toSDK is its inverse, for events, which the SDK hands on in its own shape alone.
func toSDK(in []stream.Record) []types.Record {
	out, times := make([]types.Record, len(in)), make([]time.Time, len(in))
	for i := range in {
		r, k := &in[i], &out[i]
		k.Data, k.SequenceNumber, k.PartitionKey = r.Data, &r.Position.Token, &r.Key
		if r.Arrived != 0 {
			times[i] = r.Arrived.Time()
			k.ApproximateArrivalTimestamp = &times[i]
		}
	}
	return out
}
