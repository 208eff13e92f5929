package main

import (
	"fmt"
	"testing"
	"time"
)

// What is put on the demo's Pub/Sub is remembered by subscription, each record once, and the exact
// answer does not depend on its order.
func TestDemoPubSub(t *testing.T) {
	source, err := demoPubSub()
	if err != nil {
		t.Fatal(err)
	}
	defer source.close()
	at := time.Now().UTC().Truncate(demoWindow)
	scratch := make([]byte, 0, 100)
	for n := range 40 { // the newest first: with an order to go by most were late
		scratch = fmt.Appendf(scratch[:0], `{"type":"view","user":"u1","page":"/","ms":1,"at":%q}`, at.Add(time.Duration(40-n)*time.Second).Format(time.RFC3339))
		if err := source.put([]click{{n, scratch}}); err != nil {
			t.Fatal(err)
		}
	}
	records, err := source.records()
	if err != nil || len(records) != demoPartitions || len(records["clicks-2"]) != 40/demoPartitions {
		t.Fatalf("%d partitions, %d records of one, %v", len(records), len(records["clicks-2"]), err)
	}
	views := int64(0)
	rows, err := exactAnswer(source, at.Add(30*time.Second))
	for _, row := range rows {
		views += row.Views
	}
	if err != nil || views != 29 || len(rows) != 15 {
		t.Errorf("%d views in %d rows, %v", views, len(rows), err)
	}
	source.any = false
	if ordered, err := exactAnswer(source, at.Add(30*time.Second)); err != nil || len(ordered) == len(rows) {
		t.Errorf("the order makes no difference: %d rows, %v", len(ordered), err)
	}
}
