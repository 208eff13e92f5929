//go:build integration

package main

import "testing"

// An event hub gets every row, and the bench says what that is.
func TestIntegrationSinksEventHubs(t *testing.T) {
	r, err := eventhubsSink(t.Context(), sinkPlan{Rows: 3000, Size: 254, Sink: "eventhubs"})
	if err != nil || r.Result != "exact" || r.Units != 1e6 || r.Calls <= 0 {
		t.Errorf("%+v, %v", r, err)
	}
}
