package stream

import (
	"errors"
	"fmt"
	"testing"
)

func TestMap(t *testing.T) {
	broken := errors.New("broken")
	m := &Map[int, string]{Func: func(e *Event[int]) (string, error) {
		if e.Value == 3 {
			return "", broken
		}
		return fmt.Sprint(e.Key, e.Value), nil
	}}
	var o Operator[int, string] = m
	if o.Merger() != nil || o.Slice() != 0 || o.Validate() != nil || o.Plan() != nil {
		t.Error("a map has neither state nor slices")
	}
	if (&Map[int, string]{}).Validate() == nil {
		t.Error("a map without Func is accepted")
	}
	if (&Map[int, string]{Version: "2"}).Plan().Changed(nil) == "" {
		t.Error("the version is not in the plan")
	}
	lane := o.Lane()
	for i := range 5 {
		ok, err := lane.Add(&Event[int]{Key: "k", Value: i}, EndOfTime)
		if i == 3 {
			if !errors.Is(err, broken) {
				t.Errorf("error %v", err)
			}
			continue
		}
		if !ok || err != nil {
			t.Errorf("event %d: %v, %v: without windows nothing is late", i, ok, err)
		}
		if i == 1 {
			if got := lane.Rows(); fmt.Sprint(got) != "[k0 k1]" {
				t.Errorf("rows %v", got)
			}
		}
	}
	if got := lane.Rows(); fmt.Sprint(got) != "[k2 k4]" {
		t.Errorf("rows %v", got)
	}
	if len(lane.Rows()) != 0 || lane.Snapshot() != nil || lane.Ripe(EndOfTime) || lane.Open() != 0 {
		t.Error("the lane kept something")
	}
}
