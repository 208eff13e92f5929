// Command files converts what is put below raw/ and writes it below processed/: rows of CSV and elements of
// JSON, in whatever files they come.
//
//	go run ./examples/files --source 'examples/files/raw?format=auto' --until-end --sink processed --checkpoint mem:
package main

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/millstream/millstream/service"
	"github.com/millstream/millstream/stream"
)

// Record is an element of a JSON file, or a row of CSV, whose fields are all texts.
type Record struct {
	ID        json.RawMessage `json:"id"` // of any type, as it comes
	Name      *string         `json:"name"`
	Timestamp json.RawMessage `json:"timestamp"`
	Value     json.RawMessage `json:"value"` // a number, or a text that holds one
	Category  *string         `json:"category"`

	cents float64
	text  bool // Value is a text
}

// Row is what both handlers make: a row of CSV keeps its name, another has a category.
type Row struct {
	ID        json.RawMessage `json:"id"`
	Name      string          `json:"name,omitempty"`
	Timestamp json.RawMessage `json:"timestamp"`
	Value     float64         `json:"value"`
	Category  string          `json:"category,omitempty"`
}

func main() { service.Main(files()) }

func files() *stream.Pipeline[Record, Row] {
	return &stream.Pipeline[Record, Row]{
		Name:     "files",
		Decode:   decode,
		Operator: &stream.Map[Record, Row]{Func: convert},
		Encode: func(r *Row) (stream.Row, error) {
			data, err := json.Marshal(r)
			return stream.Row{Key: string(r.ID), Data: data}, err
		},
	}
}

// decode reads a record. One that the handlers would fail on goes to the dead letter, alone.
func decode(r *stream.Record) (e stream.Event[Record], err error) {
	v := &e.Value
	if err := json.Unmarshal(r.Data, v); err != nil {
		return e, err
	}
	for field, raw := range map[string]json.RawMessage{"id": v.ID, "timestamp": v.Timestamp, "value": v.Value} {
		if raw == nil || string(raw) == "null" {
			return e, fmt.Errorf("no %s", field)
		}
	}
	text := string(v.Value)
	if v.text = text[0] == '"'; v.text {
		if err := json.Unmarshal(v.Value, &text); err != nil {
			return e, err
		}
	}
	if v.cents, err = strconv.ParseFloat(strings.TrimSpace(text), 64); err != nil {
		return e, fmt.Errorf("value: %w", err)
	}
	v.cents *= 100
	if math.IsNaN(v.cents) || math.IsInf(v.cents, 0) {
		return e, fmt.Errorf("value: %s is no number of JSON", text)
	}
	e.Key = string(v.ID)
	return e, nil
}

// convert tells a row of CSV by its name and by its value, which is a text.
func convert(e *stream.Event[Record]) (Row, error) {
	v := &e.Value
	row := Row{ID: v.ID, Timestamp: v.Timestamp, Value: v.cents}
	switch {
	case v.Name != nil && v.text:
		row.Name = *v.Name
	case v.Category != nil:
		row.Category = strings.ToUpper(*v.Category)
	default:
		row.Category = "UNKNOWN"
	}
	return row, nil
}
