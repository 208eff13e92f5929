package stream

import (
	"math"
	"time"
)

// Instant is a point in event time: nanoseconds since the Unix epoch. It covers the years 1678 to
// 2262; a record outside them has no usable time. The two extremes are not times but bounds.
type Instant int64

const (
	// Beginning is before every event: the watermark of a partition that has seen nothing.
	Beginning Instant = math.MinInt64
	// EndOfTime is after every event: the watermark of a partition that has ended.
	EndOfTime Instant = math.MaxInt64
	// Unbounded, as an out-of-order bound, means that nothing is ever late before the end.
	Unbounded time.Duration = math.MaxInt64
)

// At returns the instant of t. It reports false for times that an Instant cannot hold.
func At(t time.Time) (Instant, bool) {
	if y := t.Year(); y < 1678 || y > 2261 {
		return 0, false
	}
	return Instant(t.UnixNano()), true
}

// Time returns the instant in UTC. It is meaningless for Beginning and EndOfTime.
func (i Instant) Time() time.Time { return time.Unix(0, int64(i)).UTC() }

// Finite reports whether i is a time rather than one of the two bounds.
func (i Instant) Finite() bool { return i != Beginning && i != EndOfTime }

// Add returns i + d. The bounds stay what they are, and a result beyond one becomes it.
func (i Instant) Add(d time.Duration) Instant {
	if !i.Finite() {
		return i
	}
	s := i + Instant(d)
	switch {
	case d > 0 && s < i:
		return EndOfTime
	case d < 0 && s > i:
		return Beginning
	}
	return s
}

// Floor returns the largest multiple of width, counted from the Unix epoch, that is not after i.
// It rounds towards the past before the epoch too, where time.Truncate would not.
func (i Instant) Floor(width time.Duration) Instant {
	if !i.Finite() || width <= 0 {
		return i
	}
	w := Instant(width)
	r := i % w
	if r < 0 {
		r += w
	}
	if i < Beginning+r {
		return Beginning
	}
	return i - r
}

// String prints RFC 3339 in UTC, with as many fractional digits as are needed.
func (i Instant) String() string {
	switch i {
	case Beginning:
		return "-∞"
	case EndOfTime:
		return "+∞"
	}
	return i.Time().Format(time.RFC3339Nano)
}
