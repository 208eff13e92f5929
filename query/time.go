package query

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strings"
	"time"

	"github.com/millstream/millstream/query/fields"
	"github.com/millstream/millstream/stream"
)

// clock reads event times. Its zero value reads RFC 3339, and Unix times in seconds, milliseconds or
// microseconds, told apart by their size.
type clock struct {
	unit   time.Duration // of Unix times; 0: by size
	layout string        // Go layout; empty: none
}

// Unix times below secondsBelow, up to the year 5138, are seconds; then milliseconds, up to the year
// 5138 again; the rest microseconds. Milliseconds before 1973-03-03 are therefore not recognised,
// and need --time-layout unix_ms.
const (
	secondsBelow = 100_000_000_000
	millisBelow  = 100_000_000_000_000
)

var unixUnits = map[string]time.Duration{
	"unix": time.Second, "unix_ms": time.Millisecond, "unix_us": time.Microsecond, "unix_ns": time.Nanosecond,
}

// newClock reads --time-layout.
func newClock(layout string) (clock, error) {
	if layout == "" {
		return clock{}, nil
	}
	if unit, ok := unixUnits[layout]; ok {
		return clock{unit: unit}, nil
	}
	const fix = `write unix, unix_ms, unix_us, unix_ns, or a Go layout such as "2006-01-02 15:04:05"`
	a, b := time.Date(1999, 11, 28, 21, 47, 38, 0, time.UTC), time.Date(2013, 4, 9, 3, 12, 51, 0, time.UTC)
	text := a.Format(layout)
	back, err := time.Parse(layout, text)
	if err != nil || text == b.Format(layout) {
		return clock{}, refuse("--time-layout", didYouMean(layout, []string{"unix", "unix_ms", "unix_us", "unix_ns"}, fix), "%q is no layout", layout)
	}
	if back.Year() != a.Year() || back.YearDay() != a.YearDay() {
		return clock{}, refuse("--time-layout", fix, "%q does not hold a whole date", layout)
	}
	return clock{layout: layout}, nil
}

var (
	errNotTime   = errors.New("neither RFC 3339 nor a Unix time")
	errTimeRange = errors.New("outside the years 1678 to 2261")
)

// read returns the time of a field, or why it has none.
func (c *clock) read(v *fields.Value) (stream.Instant, error) {
	switch v.Kind {
	case fields.Number, fields.String:
	case fields.Absent:
		return 0, errors.New("absent")
	default:
		return 0, fmt.Errorf("%s is not a time", v.Kind)
	}
	switch {
	case c.layout != "":
		t, err := time.Parse(c.layout, v.Raw)
		if err != nil {
			return 0, fmt.Errorf("%s does not have the layout %q", show(v.Raw), c.layout)
		}
		return within(t)
	case v.Kind == fields.String && c.unit == 0 && len(v.Raw) > 10 && v.Raw[4] == '-':
		return rfc3339(v.Raw)
	}
	t, err := c.unix(v.Raw)
	if err != nil {
		if v.Kind == fields.Number {
			return 0, fmt.Errorf("%.64s is %w", v.Raw, err)
		}
		return 0, fmt.Errorf("%s is %w", show(v.Raw), err)
	}
	return t, nil
}

func within(t time.Time) (stream.Instant, error) {
	i, ok := stream.At(t)
	if !ok {
		return 0, fmt.Errorf("%s is %w", t.Format(time.RFC3339), errTimeRange)
	}
	return i, nil
}

// unix reads a Unix time, exactly if it is written without an exponent.
func (c *clock) unix(t string) (stream.Instant, error) {
	n, ok := digits(t)
	if !ok {
		n, ok = fields.ParseInt(t)
	}
	if ok {
		unit := c.unit
		if unit == 0 {
			unit = unitOf(n)
		}
		most := int64(math.MaxInt64 / time.Microsecond)
		switch unit {
		case time.Second:
			most = int64(math.MaxInt64 / time.Second)
		case time.Millisecond:
			most = int64(math.MaxInt64 / time.Millisecond)
		case time.Nanosecond:
			most = math.MaxInt64
		}
		if n > most || n < -most {
			return 0, errTimeRange
		}
		return inYears(n * int64(unit))
	}
	f, ok := fields.ParseFloat(t)
	if !ok {
		return 0, errNotTime
	}
	if math.Abs(f) >= 1<<63 {
		return 0, errTimeRange
	}
	unit := c.unit
	if unit == 0 {
		unit = unitOf(int64(f))
	}
	if strings.ContainsAny(t, "eE") || len(t) > 64 {
		if f = math.Floor(f * float64(unit)); math.Abs(f) >= 1<<63 {
			return 0, errTimeRange
		}
		return inYears(int64(f))
	}
	r, _ := new(big.Rat).SetString(t)
	r.Mul(r, new(big.Rat).SetInt64(int64(unit)))
	// Floor, so that a time never moves into the future.
	ns := new(big.Int).Div(r.Num(), r.Denom())
	if !ns.IsInt64() {
		return 0, errTimeRange
	}
	return inYears(ns.Int64())
}

// digits reads the decimals of 9 to 16 digits that most times are, eight at once; it is not ok for
// anything else.
func digits(t string) (int64, bool) {
	head := len(t) - 8
	if head < 1 || head > 8 || t[0] == '0' {
		return 0, false
	}
	var n uint64
	for i := range head {
		d := t[i] - '0'
		if d > 9 {
			return 0, false
		}
		n = n*10 + uint64(d)
	}
	s := t[head:]
	w := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
	// Every byte is a digit if its upper half is 3, and stays 3 when 6 is added.
	if (w&0xF0F0F0F0F0F0F0F0)|((w+0x0606060606060606)&0xF0F0F0F0F0F0F0F0)>>4 != 0x3333333333333333 {
		return 0, false
	}
	// Neighbours become pairs, pairs become fours, fours the eight.
	w = (w & 0x0F0F0F0F0F0F0F0F) * 2561 >> 8
	w = (w & 0x00FF00FF00FF00FF) * 6553601 >> 16
	w = (w & 0x0000FFFF0000FFFF) * 42949672960001 >> 32
	return int64(n*100_000_000 + w), true
}

func unitOf(n int64) time.Duration {
	if n < 0 {
		n = -n
	}
	switch {
	case n < 0: // the smallest int64
		return time.Microsecond
	case n < secondsBelow:
		return time.Second
	case n < millisBelow:
		return time.Millisecond
	}
	return time.Microsecond
}

var (
	firstInstant, _ = stream.At(time.Date(1678, 1, 1, 0, 0, 0, 0, time.UTC))
	lastInstant, _  = stream.At(time.Date(2261, 12, 31, 23, 59, 59, 999999999, time.UTC))
)

func inYears(ns int64) (stream.Instant, error) {
	if i := stream.Instant(ns); i >= firstInstant && i <= lastInstant {
		return i, nil
	}
	return 0, errTimeRange
}

// rfc3339 reads a time as time.Parse does, in a fraction of the time when it is in UTC. It also takes
// a space or a small t and z, as the standard allows.
func rfc3339(s string) (stream.Instant, error) {
	if t, ok := utc(s); ok {
		return t, nil
	}
	b := []byte(s)
	if b[10] == ' ' || b[10] == 't' {
		b[10] = 'T'
	}
	t, err := time.Parse(time.RFC3339, strings.TrimSuffix(string(b), "z")+strings.Repeat("Z", strings.Count(s[len(s)-1:], "z")))
	if err != nil {
		return 0, fmt.Errorf("%s is %w", show(s), errNotTime)
	}
	return within(t)
}

// utc reads 2006-01-02T15:04:05[.fraction]Z with a valid date of the years 1970 to 2261; it is not
// ok for anything else.
func utc(s string) (stream.Instant, bool) {
	if len(s) < 20 || len(s) > 30 || s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':' || s[len(s)-1] != 'Z' {
		return 0, false
	}
	bad := false
	two := func(i int) int64 {
		a, b := s[i]-'0', s[i+1]-'0'
		bad = bad || a > 9 || b > 9
		return int64(a)*10 + int64(b)
	}
	year, month, day := two(0)*100+two(2), two(5), two(8)
	hour, minute, second := two(11), two(14), two(17)
	if bad || year < 1970 || year > 2261 || month < 1 || month > 12 || day < 1 || day > 28 || hour > 23 || minute > 59 || second > 59 {
		return 0, false // the last days of months are left to the library
	}
	var nanos int64
	if fraction := s[19 : len(s)-1]; fraction != "" {
		if fraction[0] != '.' || len(fraction) == 1 {
			return 0, false
		}
		scale := int64(1e9)
		for i := 1; i < len(fraction); i++ {
			d := fraction[i] - '0'
			if d > 9 {
				return 0, false
			}
			scale /= 10
			nanos += int64(d) * scale
		}
	}
	// Days since the epoch, with years that begin in March.
	if month <= 2 {
		year--
		month += 12
	}
	days := 365*year + year/4 - year/100 + year/400 + (153*(month-3)+2)/5 + day - 1 - 719468
	return stream.Instant(((days*24+hour)*60+minute)*60+second)*1e9 + stream.Instant(nanos), true
}

// appendTime appends a window's bound: whole seconds, or with as many of 3, 6, 9 digits as it needs.
func appendTime(dst []byte, i stream.Instant) []byte {
	layout := "2006-01-02T15:04:05.000000000Z"
	switch {
	case i%1e9 == 0:
		layout = "2006-01-02T15:04:05Z"
	case i%1e6 == 0:
		layout = "2006-01-02T15:04:05.000Z"
	case i%1e3 == 0:
		layout = "2006-01-02T15:04:05.000000Z"
	}
	return i.Time().AppendFormat(dst, layout)
}
