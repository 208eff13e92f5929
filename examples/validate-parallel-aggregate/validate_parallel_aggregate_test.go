package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"
)

// byHand does what the state machine does, one order after the other.
func byHand(t *testing.T) map[string][3]int {
	t.Helper()
	data, err := os.ReadFile("orders.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][3]int{}
	for line := range strings.Lines(string(data)) {
		var o struct {
			Customer, Product, At string
			Quantity              any
		}
		if json.Unmarshal([]byte(line), &o) != nil {
			continue
		}
		quantity, ok := o.Quantity.(float64)
		if o.Customer == "" || !ok || quantity <= 0 { // ValidateInput
			continue
		}
		segment, known := segments[o.Customer] // ProcessPart1
		switch {
		case o.Customer == "c10":
			segment = "other"
		case !known:
			segment = "unknown"
		}
		price := prices[o.Product] // ProcessPart2
		key := o.At[:16] + " " + segment
		sum := all[key] // AggregateResults
		all[key] = [3]int{sum[0] + 1, sum[1] + int(quantity), sum[2] + int(quantity)*price}
	}
	return all
}

func TestValidateParallelAggregate(t *testing.T) {
	var out, log bytes.Buffer
	if err := run(t.Context(), ".", &out, &log); err != nil {
		t.Fatal(err, log.String())
	}
	got := map[string][3]int{}
	requests := 0
	for line := range strings.Lines(out.String()) {
		var row struct {
			Start                 string `json:"window_start"`
			Segment               string
			Orders, Pieces, Cents int
		}
		if json.Unmarshal([]byte(line), &row) == nil {
			got[row.Start[:16]+" "+row.Segment] = [3]int{row.Orders, row.Pieces, row.Cents}
			continue
		}
		var customers, products int
		if _, err := fmt.Sscanf(line, "%d requests for customers, %d for products", &customers, &products); err != nil {
			t.Fatal(err, line)
		}
		requests = customers + products
	}
	if want := byHand(t); !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	// Twelve customers and the probe one by one, eight products and the probe in calls.
	if requests > 16 {
		t.Errorf("%d requests for 400 orders", requests)
	}
}
