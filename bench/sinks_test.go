package main

import (
	"testing"
	"testing/synctest"
	"time"
)

// Every sink gets every row once, and packing cuts what Kinesis and Firehose bill at least fifteenfold.
func TestSinks(t *testing.T) {
	dollars := make(map[string]float64)
	for _, b := range sinkBeds {
		if b.name == "eventhubs" {
			continue // whose program needs node
		}
		if b.live != nil {
			r, err := b.live(t.Context(), sinkPlan{Rows: 3000, Size: 254, Sink: b.name})
			if err != nil || r.Result != "exact" || r.Calls <= 0 || r.Dollars <= 0 {
				t.Errorf("%s: %+v, %v", b.name, r, err)
			}
			continue
		}
		t.Run(b.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, err := simulateSink(t.Context(), sinkPlan{Rows: 30_000, Size: 254, Rate: 10_000, Partitions: 3, Interval: 10 * time.Second, Sink: b.name})
				if err != nil {
					t.Fatal(err)
				}
				if r.Calls <= 0 || r.Bytes <= 0 || r.Units <= 0 || r.StateDollars <= 0 || r.State["PUT"] <= 0 {
					t.Errorf("%+v", r)
				}
				dollars[b.name] = r.Dollars
			})
		})
	}
	for packed, alone := range map[string]string{"kinesis": "kinesis aggregate=false", "firehose": "firehose pack=off"} {
		if dollars[alone] < 15*dollars[packed] {
			t.Errorf("%s costs $%g a million rows, %s $%g", packed, dollars[packed], alone, dollars[alone])
		}
	}
	if err := (sinkPlan{Rows: 10, Size: 254, Rate: 10, Partitions: 1, Interval: time.Second, Sink: "redis"}).check(); err == nil {
		t.Error("a sink that nobody knows")
	}
}
