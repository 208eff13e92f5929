package windows

import (
	"strings"
	"testing"
	"time"

	"github.com/millstream/millstream/stream"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		in, out string
		slice   time.Duration
		want    string // of the error
	}{
		{in: "tumbling:1m", out: "tumbling:1m", slice: time.Minute},
		{in: " tumbling:60s ", out: "tumbling:1m", slice: time.Minute},
		{in: "tumbling:24h", out: "tumbling:24h", slice: 24 * time.Hour},
		{in: "tumbling:1h30m", out: "tumbling:1h30m", slice: 90 * time.Minute},
		{in: "tumbling:10m", out: "tumbling:10m", slice: 10 * time.Minute},
		{in: "tumbling:1m1s", out: "tumbling:1m1s", slice: 61 * time.Second},
		{in: "hopping:1m/10s", out: "hopping:1m/10s", slice: 10 * time.Second},
		{in: "hopping:25s/10s", out: "hopping:25s/10s", slice: 5 * time.Second},
		{in: "hopping:10s/10s", out: "hopping:10s/10s", slice: 10 * time.Second},
		{in: "session:30s", out: "session:30s", slice: 30 * time.Second},
		{in: "hopping:10s/1m", want: "the hop is larger than the size"},
		{in: "hopping:24h/1ns", want: "each would be made of 86400000000000 slices of 1ns"},
		{in: "hopping:24h/10s", out: "hopping:24h/10s", slice: 10 * time.Second},
		{in: "hopping:10s/0s", want: "the hop must be positive"},
		{in: "tumbling:0s", want: "the size must be positive"},
		{in: "tumbling:-1m", want: "the size must be positive"},
		{in: "session:0s", want: "the gap must be positive"},
		{in: "tumbling:60", want: "missing unit"},
		{in: "tumbling:1d", want: "look like"},
		{in: "tumbling", want: "want tumbling:1m"},
		{in: "tumbling:1m/10s", want: "want tumbling:1m"},
		{in: "hopping:1m", want: "want tumbling:1m"},
		{in: "sliding:1m", want: "want tumbling:1m"},
		{in: "", want: "want tumbling:1m"},
	} {
		w, err := Parse(c.in)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q: got %v, want …%s…", c.in, err, c.want)
			}
			continue
		}
		if err != nil || w.String() != c.out || w.Slice() != c.slice {
			t.Errorf("%q: %s, slices of %s, %v", c.in, w, w.Slice(), err)
		}
	}
}

// firstEnd against its definition, either side of 1970.
func TestFirstEnd(t *testing.T) {
	for _, w := range []Windows{Tumbling(7), Hopping(10, 4), Hopping(25, 10), Hopping(9, 7)} {
		for at := stream.Instant(-60); at < 60; at++ {
			want := at
			for (want-stream.Instant(w.size))%stream.Instant(w.hop) != 0 {
				want++
			}
			if got := w.firstEnd(at); got != want {
				t.Errorf("%s: first end from %d is %d, want %d", w, at, got, want)
			}
		}
	}
}
