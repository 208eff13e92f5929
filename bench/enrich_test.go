package main

import (
	"strings"
	"testing"
	"time"
)

// A small run is exact, finds most keys in the cache, and asks for no more than it needs.
func TestBenchEnrich(t *testing.T) {
	p := enrichPlan{Events: 40_000, Keys: 5000, Partitions: 2, Latency: time.Millisecond, PerCall: 100, Rounds: 1}
	if err := p.check(); err != nil {
		t.Fatal(err)
	}
	var all []*enrichResult
	if err := benchEnrich(t.Context(), p, func(r *enrichResult) { all = append(all, r) }); err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 {
		t.Fatalf("%d results", len(all))
	}
	for _, r := range all {
		if r.Result != "exact" || r.HitRatio < 0.5 || r.Calls <= 0 || r.Ratio <= 0 || r.Cache <= 0 || !strings.Contains(r.text(), "result exact") {
			t.Errorf("%+v", r)
		}
	}
	if all[1].HitRatio < all[0].HitRatio {
		t.Errorf("a larger cache finds less: %.3f, %.3f", all[1].HitRatio, all[0].HitRatio)
	}
	p.Keys = 1
	if p.check() == nil {
		t.Error("a plan of one key was taken")
	}
}
