package main

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"os"
	"strconv"
	"strings"
	"testing"
)

// total is the handler's aggregate of one id and minute.
type total struct {
	Count int64   `json:"count"`
	Total float64 `json:"total_value"`
	Min   string  `json:"min_timestamp"`
	Max   string  `json:"max_timestamp"`
}

// byHand sums the file up as the handler does, minute by minute.
func byHand(t *testing.T) map[string]total {
	t.Helper()
	data, err := os.ReadFile("orders.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]total)
	for line := range strings.Lines(string(data)) {
		var o struct {
			ID, Timestamp string
			Value         any
		}
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatal(err)
		}
		value, ok := o.Value.(float64)
		if !ok {
			if value, err = strconv.ParseFloat(o.Value.(string), 64); err != nil {
				t.Fatal(err)
			}
		}
		key := o.ID + " " + o.Timestamp[:16]
		sum, known := all[key]
		if !known {
			sum.Min, sum.Max = o.Timestamp, o.Timestamp
		}
		all[key] = total{sum.Count + 1, sum.Total + value, min(sum.Min, o.Timestamp), max(sum.Max, o.Timestamp)}
	}
	return all
}

func TestOrderTotals(t *testing.T) {
	var out, log bytes.Buffer
	if err := run(t.Context(), ".", &out, &log); err != nil {
		t.Fatal(err, log.String())
	}
	_, rows, _ := strings.Cut(out.String(), "\n")
	got := make(map[string]total)
	for lines := json.NewDecoder(strings.NewReader(rows)); ; {
		var row struct {
			ID, Start string
			total
		}
		var raw map[string]any
		if err := lines.Decode(&raw); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		data, _ := json.Marshal(raw)
		if err := json.Unmarshal(data, &row); err != nil {
			t.Fatal(err)
		}
		row.Start, _ = raw["window_start"].(string)
		key := row.ID + " " + row.Start[:16]
		if _, twice := got[key]; twice {
			t.Errorf("%s comes twice", key)
		}
		got[key] = row.total
	}
	if want := byHand(t); !maps.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}
