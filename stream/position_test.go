package stream_test

import (
	"context"
	"strings"
	"testing"

	"github.com/millstream/millstream/stream"
)

// placed is a source that words its positions.
type placed struct{ stream.Source }

func (placed) Partitions(context.Context) ([]stream.Partition, error) { return nil, nil }
func (placed) Place(p stream.Position) string                         { return "file:7" }

// A token that only a program reads is neither printed nor put into heartbeats.
func TestLongPositions(t *testing.T) {
	short := stream.Position{Token: strings.Repeat("a", 256), Number: 3}
	long := stream.Position{Token: strings.Repeat("a", 23) + "é" + strings.Repeat("b", 500_000), Number: 3}
	cut := strings.Repeat("a", 23) + "…(500025 bytes)/3"
	if got := short.String(); got != short.Token+"/3" {
		t.Errorf("short: %s", got)
	}
	if got := long.String(); got != cut {
		t.Errorf("long: %.100s", got)
	}
	for _, c := range []struct {
		source stream.Source
		at     stream.Position
		want   string
	}{{nil, long, cut}, {placed{}, long, "file:7"}, {placed{}, short, short.Token}} {
		a := &stream.Assignment{Source: c.source}
		a.Report(stream.Status{Position: c.at})
		a.Report(*a.Status()) // as a partition that is stuck does
		if got := a.Status().Position.Token; got != c.want {
			t.Errorf("%.40s is reported as %.100s", c.at, got)
		}
	}
}
