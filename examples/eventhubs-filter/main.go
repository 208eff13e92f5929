// Command eventhubs-filter is an Azure Functions handler as a pipeline: events without a timestamp are
// skipped and counted, the others are passed on as they came.
//
//	go run ./examples/eventhubs-filter --source examples/eventhubs-filter/events.ndjson --until-end --sink stdout: --checkpoint mem:
package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/millstream/millstream/service"
	"github.com/millstream/millstream/stream"
)

func main() { service.Main(filter()) }

func filter() *stream.Pipeline[[]byte, []byte] {
	return &stream.Pipeline[[]byte, []byte]{
		Name:   "eventhubs-filter",
		Decode: decode,
		Operator: &stream.Map[[]byte, []byte]{
			Func: func(e *stream.Event[[]byte]) ([]byte, error) { return process(e.Value) },
		},
		Encode: func(data *[]byte) (stream.Row, error) { return stream.Row{Data: *data}, nil },
	}
}

// decode is json.loads(event.get_body()) and event.get('timestamp') of the handler.
func decode(r *stream.Record) (stream.Event[[]byte], error) {
	var event struct {
		Timestamp any `json:"timestamp"`
	}
	if err := json.Unmarshal(r.Data, &event); err != nil {
		return stream.Event[[]byte]{}, fmt.Errorf("not a JSON object: %w", err)
	}
	if event.Timestamp == nil {
		return stream.Event[[]byte]{}, stream.Filtered
	}
	return stream.Event[[]byte]{Value: r.Data}, nil
}

// process is where the business logic goes. The event's bytes are used again after the call.
func process(event []byte) ([]byte, error) { return bytes.Clone(event), nil }
