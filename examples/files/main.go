// Command files converts what is put below raw/ and writes it below processed/: rows of CSV and elements of
// JSON, in whatever files they come.
//
//	go run ./examples/files --source 'examples/files/raw?format=auto' --until-end --sink processed --checkpoint mem:
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/millstream/millstream/service"
	"github.com/millstream/millstream/stream"
)

// Record is an element of a JSON file, or a row of CSV, whose fields are all texts.
type Record struct {
	ID        *string          `json:"id"`
	Name      *string          `json:"name"` // of CSV
	Timestamp *string          `json:"timestamp"`
	Value     *json.RawMessage `json:"value"` // a number, or a text that holds one
	Category  *string          `json:"category"`

	cents float64
}

// Row is what both handlers make: a row of CSV keeps its name, another has a category.
type Row struct {
	ID        string  `json:"id"`
	Name      string  `json:"name,omitempty"`
	Timestamp string  `json:"timestamp"`
	Value     float64 `json:"value"`
	Category  string  `json:"category,omitempty"`
}

func main() { service.Main(files()) }

func files() *stream.Pipeline[Record, Row] {
	return &stream.Pipeline[Record, Row]{
		Name:     "files",
		Decode:   decode,
		Operator: &stream.Map[Record, Row]{Func: convert},
		Encode: func(r *Row) (stream.Row, error) {
			data, err := json.Marshal(r)
			return stream.Row{Key: r.ID, Data: data}, err
		},
	}
}

// decode reads a record. One that the handlers would fail on goes to the dead letter, alone.
func decode(r *stream.Record) (e stream.Event[Record], err error) {
	v := &e.Value
	if err := json.Unmarshal(r.Data, v); err != nil {
		return e, err
	}
	if v.ID == nil || v.Timestamp == nil || v.Value == nil {
		return e, errors.New("no id, timestamp or value")
	}
	text := strings.Trim(string(*v.Value), `"`)
	if v.cents, err = strconv.ParseFloat(text, 64); err != nil {
		return e, fmt.Errorf("value: %w", err)
	}
	e.Key, v.cents = *v.ID, v.cents*100
	return e, nil
}

func convert(e *stream.Event[Record]) (Row, error) {
	v := &e.Value
	row := Row{ID: *v.ID, Timestamp: *v.Timestamp, Value: v.cents}
	switch {
	case v.Name != nil:
		row.Name = *v.Name
	case v.Category != nil:
		row.Category = strings.ToUpper(*v.Category)
	default:
		row.Category = strings.ToUpper("unknown")
	}
	return row, nil
}
