package firehose

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// record is an entry of a request.
type record struct{ Data []byte }

type request struct {
	DeliveryStreamName string
	Record             *record
	Records            []record
}

// result is an entry of a reply.
type result struct {
	RecordID     string `json:"RecordId,omitempty"`
	ErrorCode    string `json:",omitempty"`
	ErrorMessage string `json:",omitempty"`
}

// do does what a request asks for.
func (s *Server) do(operation string, body []byte, fault Fault) (any, error) {
	var in request
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	if in.DeliveryStreamName == "" {
		return nil, failure("ValidationException", "1 validation error detected: Value null at 'deliveryStreamName' failed to satisfy constraint: Member must not be null")
	}
	switch operation {
	case "CreateDeliveryStream":
		if s.create(in.DeliveryStreamName, described(body)) != nil {
			return nil, failure("ResourceInUseException", "Firehose %s under account 000000000000 already exists", in.DeliveryStreamName)
		}
		return map[string]string{"DeliveryStreamARN": arn(in.DeliveryStreamName)}, nil
	case "DescribeDeliveryStream", "PutRecord", "PutRecordBatch":
	default:
		return nil, failure("UnknownOperationException", "%s is not an operation that this server knows.", operation)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.streams[in.DeliveryStreamName]
	if d == nil {
		return nil, failure("ResourceNotFoundException", "Firehose %s under account 000000000000 not found.", in.DeliveryStreamName)
	}
	switch operation {
	case "DescribeDeliveryStream":
		return map[string]any{"DeliveryStreamDescription": map[string]any{
			"DeliveryStreamName": in.DeliveryStreamName, "DeliveryStreamARN": arn(in.DeliveryStreamName), "DeliveryStreamStatus": "ACTIVE",
			"DeliveryStreamType": "DirectPut", "VersionId": "1", "HasMoreDestinations": false, "Destinations": []any{d.destination},
		}}, nil
	case "PutRecord":
		if in.Record == nil {
			return nil, failure("ValidationException", "1 validation error detected: Value null at 'record' failed to satisfy constraint: Member must not be null")
		}
		in.Records = []record{*in.Record}
	}
	results, failed, err := s.take(in, d, fault)
	if err != nil || operation == "PutRecordBatch" {
		return map[string]any{"FailedPutCount": failed, "Encrypted": false, "RequestResponses": results}, err
	}
	if failed > 0 {
		return nil, failure(results[0].ErrorCode, "%s", results[0].ErrorMessage)
	}
	return map[string]any{"RecordId": results[0].RecordID, "Encrypted": false}, nil
}

// described makes a description of the destination that a CreateDeliveryStream request configures: it has
// what was configured, under the description's name.
func described(body []byte) map[string]json.RawMessage {
	var all map[string]json.RawMessage
	_ = json.Unmarshal(body, &all) // which has just succeeded, into another type
	destination := map[string]json.RawMessage{"DestinationId": json.RawMessage(`"destinationId-000000000001"`)}
	for name, value := range all {
		if of, is := strings.CutSuffix(name, "DestinationConfiguration"); is {
			destination[of+"DestinationDescription"] = value
		}
	}
	return destination
}

func arn(name string) string {
	return "arn:aws:firehose:us-east-1:000000000000:deliverystream/" + name
}

// take stores a batch. The caller holds the mutex.
func (s *Server) take(in request, d *deliveryStream, fault Fault) (results []result, failed int, err error) {
	if n := len(in.Records); n == 0 || n > MaxEntries {
		return nil, 0, failure("ValidationException", "1 validation error detected: Value at 'records' failed to satisfy constraint: Member must have length less than or equal to %d and greater than 0", MaxEntries)
	}
	total := 0
	for i, r := range in.Records {
		if len(r.Data) > MaxRecord {
			return nil, 0, failure("ValidationException", "1 validation error detected: Value at 'records.%d.member.data' failed to satisfy constraint: Member must have length less than or equal to %d", i+1, MaxRecord)
		}
		total += len(r.Data)
	}
	if total > MaxCall {
		return nil, 0, failure("InvalidArgumentException", "Records size exceeds 4 MB limit")
	}
	d.stats.Calls++
	for i, r := range in.Records {
		if fault.FailEntries != nil && fault.FailEntries(i) {
			code := fault.Code
			if code == "" {
				code = "ServiceUnavailableException"
			}
			results = append(results, result{ErrorCode: code, ErrorMessage: "Slow down."})
			failed++
			continue
		}
		size := int64(len(r.Data))
		d.stats.Records++
		d.stats.Bytes += size
		d.stats.BilledBytes += max(1, (size+BilledStep-1)/BilledStep) * BilledStep
		d.records = append(d.records, r.Data)
		results = append(results, result{RecordID: rand.Text()})
		if err := s.buffered(in.DeliveryStreamName, d, r.Data); err != nil {
			return nil, 0, failure("InternalFailure", "%v", err)
		}
	}
	return results, failed, nil
}

// buffer is what waits to be delivered.
type buffer struct {
	data  []byte
	timer *time.Timer
	files int
}

// buffered adds a record to what is to be delivered. The caller holds the mutex.
func (s *Server) buffered(name string, d *deliveryStream, data []byte) error {
	if s.o.Folder == "" {
		return nil
	}
	b := &d.buffer
	if len(b.data) == 0 {
		b.timer = time.AfterFunc(s.o.BufferFor, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			_ = s.deliver(name, d) // stays buffered: the next record, or Flush, tells
		})
	}
	if b.data = append(b.data, data...); len(b.data) < s.o.BufferBytes {
		return nil
	}
	return s.deliver(name, d)
}

// deliver writes what is buffered. The caller holds the mutex.
func (s *Server) deliver(name string, d *deliveryStream) error {
	b := &d.buffer
	if len(b.data) == 0 {
		return nil
	}
	now := time.Now().UTC()
	dir := filepath.Join(s.o.Folder, name, now.Format("2006"), now.Format("01"), now.Format("02"), now.Format("15"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	file := filepath.Join(dir, fmt.Sprintf("%s-1-%s-%06d", name, now.Format("2006-01-02-15-04-05"), b.files))
	if err := os.WriteFile(file, b.data, 0o644); err != nil {
		return err
	}
	b.timer.Stop()
	b.files++
	b.data = b.data[:0]
	return nil
}

// Flush delivers what is buffered.
func (s *Server) Flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for name, d := range s.streams {
		errs = append(errs, s.deliver(name, d))
	}
	return errors.Join(errs...)
}
