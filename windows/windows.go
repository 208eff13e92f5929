package windows

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/millstream/millstream/stream"
)

type kind uint8

const (
	noWindows kind = iota
	tumbling
	hopping
	session
)

// Windows says how event time is cut. Make one with Tumbling, Hopping, Session or Parse; the zero
// value is refused by Validate.
type Windows struct {
	kind kind
	size time.Duration // of a window; the gap of sessions
	hop  time.Duration // between the starts of windows
}

// Tumbling makes windows [k·size, (k+1)·size): every event is in exactly one.
func Tumbling(size time.Duration) Windows { return Windows{tumbling, size, size} }

// Hopping makes windows [k·hop, k·hop+size): every event is in size/hop of them. hop may be any
// duration up to size.
func Hopping(size, hop time.Duration) Windows { return Windows{hopping, size, hop} }

// Session makes windows of the activity of a key: a session ends when nothing came for the gap. Its
// window is [first time, last time + gap). Two events exactly one gap apart are two sessions.
func Session(gap time.Duration) Windows { return Windows{session, gap, gap} }

// Parse reads "tumbling:1m", "hopping:1m/10s" or "session:30s".
func Parse(s string) (Windows, error) {
	name, rest, _ := strings.Cut(strings.TrimSpace(s), ":")
	first, second, slash := strings.Cut(rest, "/")
	if slash != (name == "hopping") {
		name = ""
	}
	a, err := time.ParseDuration(strings.TrimSpace(first))
	if name == "hopping" && err == nil {
		var hop time.Duration
		if hop, err = time.ParseDuration(strings.TrimSpace(second)); err == nil {
			return checked(Hopping(a, hop))
		}
	}
	switch {
	case name == "tumbling" && err == nil:
		return checked(Tumbling(a))
	case name == "session" && err == nil:
		return checked(Session(a))
	case err != nil && rest != "" && (name == "tumbling" || name == "hopping" || name == "session"):
		return Windows{}, fmt.Errorf("window %q: %w (durations look like 500ms, 30s, 1m, 24h)", s, err)
	}
	return Windows{}, fmt.Errorf("window %q: want tumbling:1m, hopping:1m/10s or session:30s", s)
}

func checked(w Windows) (Windows, error) { return w, w.Validate() }

// Validate reports windows that make no sense.
func (w Windows) Validate() error {
	switch {
	case w.kind == noWindows:
		return errors.New("windows are not set: want windows.Tumbling, Hopping or Session")
	case w.size <= 0 && w.kind == session:
		return fmt.Errorf("window %s: the gap must be positive", w)
	case w.size <= 0:
		return fmt.Errorf("window %s: the size must be positive", w)
	case w.hop <= 0:
		return fmt.Errorf("window %s: the hop must be positive", w)
	case w.hop > w.size:
		return fmt.Errorf("window %s: the hop is larger than the size, so events between two windows would be in none; use tumbling:%s, or a hop of at most %s",
			w, short(w.size), short(w.size))
	case w.size/w.Slice() > maxSlices:
		return fmt.Errorf("window %s: each would be made of %d slices of %s, and more than %d are never done; choose a larger hop, or one that divides the size", w, w.size/w.Slice(), short(w.Slice()), maxSlices)
	}
	return nil
}

// maxSlices bounds what a window is merged from: 24h/10s has 8,640.
const maxSlices = 10_000

// Slice is the width of the slices that the windows are made of.
func (w Windows) Slice() time.Duration {
	a, b := w.size, w.hop
	for b > 0 {
		a, b = b, a%b
	}
	return a
}

// String is the inverse of Parse.
func (w Windows) String() string {
	switch w.kind {
	case tumbling:
		return "tumbling:" + short(w.size)
	case hopping:
		return "hopping:" + short(w.size) + "/" + short(w.hop)
	case session:
		return "session:" + short(w.size)
	}
	return "none"
}

// short prints a duration without the zeros that Duration.String appends: 1m, not 1m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// sliceAt returns the slice that holds t. Where a bound is beyond what an Instant can say it becomes
// Beginning or EndOfTime.
func sliceAt(t stream.Instant, width time.Duration) (start, end stream.Instant) {
	w := stream.Instant(width)
	r := t % w
	if r < 0 {
		r += w
	}
	return t.Add(time.Duration(-r)), t.Add(time.Duration(w - r))
}

// isSlice reports whether bounds are what sliceAt returns for the times between them.
func isSlice(start, end stream.Instant, width time.Duration) bool {
	if start >= end || start == stream.Beginning {
		return start < end
	}
	s, e := sliceAt(start, width)
	return s == start && e == end
}

// firstEnd returns the earliest end of a window that is not before t.
func (w Windows) firstEnd(t stream.Instant) stream.Instant {
	hop := stream.Instant(w.hop)
	r := (t%hop - stream.Instant(w.size)%hop) % hop
	if r < 0 {
		r += hop
	}
	if r == 0 {
		return t
	}
	return t.Add(time.Duration(hop - r))
}
