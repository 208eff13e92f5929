// Command totals is a Lambda handler as a pipeline: records {id, timestamp, value} become
// {id, count, total_value, min_timestamp, max_timestamp}, per id and minute.
//
//	go run ./examples/totals --source examples/totals/records.ndjson --until-end --sink stdout: --checkpoint mem:
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/millstream/millstream/service"
	"github.com/millstream/millstream/stream"
	"github.com/millstream/millstream/windows"
)

// Record is what the stream holds. Value may be a number or a string that holds one.
type Record struct {
	ID        string  `json:"id"`
	Timestamp string  `json:"timestamp"` // RFC 3339, which compares as text
	Value     *Number `json:"value"`
}

// Number is a JSON number, or a string that holds one: what float(record['value']) takes.
type Number float64

// UnmarshalJSON implements json.Unmarshaler.
func (n *Number) UnmarshalJSON(data []byte) error {
	text := string(data)
	if data[0] == '"' {
		if err := json.Unmarshal(data, &text); err != nil {
			return err
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	*n = Number(f)
	return err
}

// Total is the handler's aggregate, and its row.
type Total struct {
	ID           string  `json:"id"`
	Count        int64   `json:"count"`
	TotalValue   float64 `json:"total_value"`
	MinTimestamp string  `json:"min_timestamp"`
	MaxTimestamp string  `json:"max_timestamp"`
}

func main() { service.Main(totals()) }

func totals() *stream.Pipeline[Record, Total] {
	return &stream.Pipeline[Record, Total]{
		Name:   "totals",
		Decode: decode,
		Operator: &windows.Aggregation[Record, Total, Total]{
			Windows: windows.Tumbling(time.Minute),
			Add: func(t *Total, e *stream.Event[Record]) {
				one := Total{Count: 1, TotalValue: float64(*e.Value.Value), MinTimestamp: e.Value.Timestamp, MaxTimestamp: e.Value.Timestamp}
				merge(t, &one)
			},
			Merge: merge,
			Emit: func(id string, _ stream.Window, t *Total) Total {
				row := *t
				row.ID = id
				return row
			},
		},
		Encode: func(t *Total) (stream.Row, error) {
			data, err := json.Marshal(t)
			return stream.Row{Key: t.ID, Data: data}, err
		},
	}
}

// merge adds src to dst, of which either may be empty.
func merge(dst, src *Total) {
	if dst.Count == 0 {
		dst.MinTimestamp = src.MinTimestamp
	}
	dst.Count += src.Count
	dst.TotalValue += src.TotalValue
	dst.MinTimestamp, dst.MaxTimestamp = min(dst.MinTimestamp, src.MinTimestamp), max(dst.MaxTimestamp, src.MaxTimestamp)
}

// decode reads a record. Producers that encode twice are forgiven, as json.loads(json.loads(data)) did.
func decode(r *stream.Record) (e stream.Event[Record], err error) {
	data := r.Data
	if len(data) > 0 && data[0] == '"' {
		var inner string
		if err := json.Unmarshal(data, &inner); err != nil {
			return e, err
		}
		data = []byte(inner)
	}
	if err := json.Unmarshal(data, &e.Value); err != nil {
		return e, err
	}
	if e.Key = e.Value.ID; e.Key == "" {
		return e, fmt.Errorf("%w: id", stream.ErrNoKey)
	}
	if e.Value.Value == nil {
		return e, errors.New("no value")
	}
	t, err := time.Parse(time.RFC3339Nano, e.Value.Timestamp)
	if err != nil {
		return e, errors.Join(stream.ErrNoTime, err)
	}
	var ok bool
	if e.Time, ok = stream.At(t); !ok {
		return e, stream.ErrNoTime
	}
	return e, nil
}
