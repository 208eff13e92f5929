package main

import (
	"testing"
	"testing/synctest"
	"time"
)

// A small fleet owns everything, follows those who leave in time, and pays for what the store has seen.
func TestFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fleetPlan{Partitions: 60, Instances: 4, Interval: 10 * time.Second, Lease: 15 * time.Second, Watch: time.Minute}
		r, err := simulated(p)
		if err != nil {
			t.Fatal(err)
		}
		if r.Result != "ok" || r.Unowned != 0 || r.TakeOver.Partitions < 10 || r.TakeOver.Median < 10 || r.TakeOver.Max > 20 ||
			r.HandOver.Partitions < 10 || r.HandOver.Max > 2 || r.Rebalanced > 30 {
			t.Errorf("%+v", r)
		}
		// A checkpoint of each partition in each interval, and a heartbeat of each instance four times a lease.
		perDay := func(every time.Duration, n int) int64 { return int64(n) * int64(24*time.Hour/every) }
		for what, want := range map[string]int64{"PUT log": perDay(p.Interval, p.Partitions), "PUT members": perDay(p.Lease/4, p.Instances)} {
			if got := r.Requests[what]; got < want*9/10 || got > want*12/10 {
				t.Errorf("%s: %d a day, want about %d", what, got, want)
			}
		}
		if want := (requests{"PUT log": 2_000_000, "GET log": 5_000_000, "DELETE log": 9}).dollars(); want != 12 {
			t.Errorf("two million writes and five million reads cost $%g", want)
		}
	})
}
