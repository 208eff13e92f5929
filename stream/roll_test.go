package stream_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/stream"
)

// rolls runs a script without windows, one record a second for ten seconds, over a sink of files, and says
// how many rows there are in files at given seconds. leave is when the process is asked to leave.
func rolls(t *testing.T, roll time.Duration, size int64, leave time.Duration, at ...int) string {
	t.Helper()
	var seen []string
	synctest.Test(t, func(t *testing.T) {
		pl := written(&scripted{Partition: stream.Partition{Name: "p"}, records: every("p", 0, 10), ends: time.Hour})
		pl.windows, pl.roll = nil, roll
		w := begin(pl)
		w.rollSize = size
		i := w.launch(pl.pipeline(nil), newGate(w))
		for _, second := range at {
			<-time.After(time.Until(w.start.Add(time.Duration(second) * time.Second)))
			synctest.Wait()
			seen = append(seen, fmt.Sprint(len(w.files.Rows())))
			if w.now() >= leave && leave > 0 {
				i.cancel()
				if err := <-i.done; err != nil {
					t.Error(err)
				}
				i.done <- nil
				seen = append(seen, fmt.Sprint(len(w.files.Rows())))
				leave = 0
			}
		}
		i.kill()
		i.cancel()
		<-i.done
	})
	return strings.Join(seen, " ")
}

// Rows wait for their file: until the first is old enough though nothing comes any more, until there are
// enough bytes, or until the partition is released.
func TestRoll(t *testing.T) {
	for _, c := range []struct {
		roll  time.Duration
		size  int64
		leave time.Duration
		at    []int
		want  string
	}{
		{20 * time.Second, 1 << 20, 0, []int{3, 12, 18, 30, 90}, "0 0 0 10 10"},
		{time.Hour, 1 << 20, 0, []int{12, 90, 1800}, "0 0 0"},
		{time.Hour, 1 << 20, 15 * time.Second, []int{12, 15}, "0 0 10"},
	} {
		if got := rolls(t, c.roll, c.size, c.leave, c.at...); got != c.want {
			t.Errorf("roll=%s roll-size=%d: rows in files %s, want %s", c.roll, c.size, got, c.want)
		}
	}
	// Which rows are in a checkpoint hangs on a moment; some fill the file, and some wait for the next.
	if got := rolls(t, time.Hour, 400, 0, 2, 14, 90); !strings.HasPrefix(got, "0 ") || strings.Contains(got, "10") || strings.HasSuffix(got, " 0") {
		t.Errorf("by size the rows in files are %s", got)
	}
}
