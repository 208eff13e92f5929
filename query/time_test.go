package query

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/millstream/millstream/query/fields"
	"github.com/millstream/millstream/stream"
)

func TestTimes(t *testing.T) {
	const bad, year = "neither RFC 3339 nor a Unix time", "outside the years 1678 to 2261"
	for _, c := range []struct{ layout, value, want string }{
		// Seconds, milliseconds and microseconds are told apart by size, as numbers and as strings.
		{"", `0`, "1970-01-01T00:00:00Z"}, {"", `1767225600`, "2026-01-01T00:00:00Z"}, {"", `"1767225600"`, "2026-01-01T00:00:00Z"},
		{"", `1767225600123`, "2026-01-01T00:00:00.123Z"}, {"", `"1767225600123"`, "2026-01-01T00:00:00.123Z"}, {"", `1767225600123456`, "2026-01-01T00:00:00.123456Z"},
		{"", `-1`, "1969-12-31T23:59:59Z"}, {"", `-1767225600123`, "1913-12-31T23:59:59.877Z"},
		{"", `99999999999`, year}, {"", `100000000000`, "1973-03-03T09:46:40Z"}, {"", `99999999999999`, year}, {"", `100000000000000`, "1973-03-03T09:46:40Z"},
		{"", `1767225600123456789`, year}, {"", `-9223372036854775808`, year}, {"", `9223372036854775807`, year}, {"", `1e300`, year}, {"", `123456789012345678901234567890`, year},
		{"", `1767225600.5`, "2026-01-01T00:00:00.5Z"}, {"", `"1767225600.000000001"`, "2026-01-01T00:00:00.000000001Z"}, {"", `1.7672256e9`, "2026-01-01T00:00:00Z"},
		{"", `1767225600123.25`, "2026-01-01T00:00:00.12325Z"}, {"", `-0.5`, "1969-12-31T23:59:59.5Z"}, {"", `1e-999999999`, "1970-01-01T00:00:00Z"}, {"", `-1e-9`, "1969-12-31T23:59:59.999999999Z"}, {"", `1e999999999`, bad}, {"unix", `1e17`, year}, {"", `1e-400`, "1970-01-01T00:00:00Z"},
		// RFC 3339.
		{"", `"2026-01-01T00:00:00Z"`, "2026-01-01T00:00:00Z"}, {"", `"2026-02-28T23:59:59.123456789Z"`, "2026-02-28T23:59:59.123456789Z"},
		{"", `"2024-02-29T12:00:00Z"`, "2024-02-29T12:00:00Z"}, {"", `"2026-02-29T12:00:00Z"`, bad}, {"", `"2026-01-31T12:00:00+05:30"`, "2026-01-31T06:30:00Z"},
		{"", `"2026-01-01 00:00:00z"`, "2026-01-01T00:00:00Z"}, {"", `"2026-01-01t00:00:00z"`, "2026-01-01T00:00:00Z"}, {"", `"1700-01-01T00:00:00Z"`, "1700-01-01T00:00:00Z"},
		{"", `"1677-12-31T23:59:59Z"`, year}, {"", `"2262-01-01T00:00:00Z"`, year}, {"", `"2261-12-31T23:59:59.999999999Z"`, "2261-12-31T23:59:59.999999999Z"}, {"", `"0000-01-01T00:00:00Z"`, year},
		{"", `"2026-01-01"`, bad}, {"", `"2026-01-01T24:00:00Z"`, bad}, {"", `"2026-01-01T00:00:00"`, bad}, {"", `"2026-01-01T00:00:00.Z"`, bad}, {"", `""`, bad}, {"", `"now"`, bad}, {"", `" 1"`, bad}, {"", `"0x10"`, bad}, {"", `"1_000"`, bad},
		{"", `true`, "true is not a time"}, {"", `null`, "null is not a time"}, {"", `{}`, "object is not a time"}, {"", `[1]`, "array is not a time"}, {"", ``, "absent"},
		// Layouts.
		{"unix", `1767225600123`, year}, {"unix_ms", `5`, "1970-01-01T00:00:00.005Z"}, {"unix_us", `"1767225600123456"`, "2026-01-01T00:00:00.123456Z"},
		{"unix_ns", `1767225600123456789`, "2026-01-01T00:00:00.123456789Z"}, {"unix_ns", `1.5`, "1970-01-01T00:00:00.000000001Z"}, {"unix_ms", `"2026-01-01T00:00:00Z"`, bad},
		{"2006-01-02 15:04:05", `"2026-01-01 10:00:00"`, "2026-01-01T10:00:00Z"}, {"20060102", `20260102`, "2026-01-02T00:00:00Z"},
		{"02/Jan/2006:15:04:05 -0700", `"01/Jan/2026:00:00:00 +0100"`, "2025-12-31T23:00:00Z"}, {"2006-01-02", `"x"`, `"x" does not have the layout "2006-01-02"`},
	} {
		clock, err := newClock(c.layout)
		if err != nil {
			t.Fatal(err)
		}
		values := make([]fields.Value, 1)
		record := `{"t":` + c.value + `}`
		if c.value == "" {
			record = `{}`
		}
		plan, err := fields.Compile("t")
		if err != nil {
			t.Fatal(err)
		}
		if err := plan.NewScanner().Scan([]byte(record), values); err != nil {
			t.Fatal(err)
		}
		at, err := clock.read(&values[0])
		got := at.String()
		if err != nil {
			got = err.Error()
			if n := len(c.want); n < len(got) {
				got = got[len(got)-n:]
			}
		}
		check(t, c.layout+" "+c.value, got, c.want)
	}
}

// TestRFC3339 compares the fast path with the standard library, on good and on damaged times.
func TestRFC3339(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	fast, refused := 0, 0
	for range 200_000 {
		at := time.Unix(r.Int64N(9_214_646_400), r.Int64N(1e9)).UTC() // to the end of 2261
		s := at.Format(fmt.Sprintf("2006-01-02T15:04:05.%sZ07:00", "000000000"[:1+r.IntN(9)]))
		if r.IntN(3) == 0 {
			b := []byte(s)
			b[r.IntN(len(b))] = "0123456789-:TZ.+ x"[r.IntN(18)]
			s = string(b)
		}
		got, ok := utc(s)
		want, err := time.Parse(time.RFC3339, s)
		if err != nil {
			refused++
		}
		if !ok {
			continue
		}
		fast++
		if err != nil || int64(got) != want.UnixNano() {
			t.Fatalf("%s: %v, the library says %v, %v", s, got, want, err)
		}
	}
	if fast < 100_000 || refused < 10_000 {
		t.Errorf("%d fast, %d refused: the test has become blind", fast, refused)
	}
}

// TestDigits compares eight digits at once with one after the other, over every byte in every place.
func TestDigits(t *testing.T) {
	for n := 8; n <= 17; n++ {
		base := []byte("98765432109876543"[:n])
		for i := range base {
			for c := range 256 {
				b := append([]byte(nil), base...)
				b[i] = byte(c)
				got, ok := digits(string(b))
				want, err := strconv.ParseUint(string(b), 10, 63)
				if ok && (err != nil || got != int64(want)) || !ok && err == nil && b[0] != '0' && n >= 9 && n <= 16 {
					t.Fatalf("%q: %d, %v", b, got, ok)
				}
			}
		}
	}
}

func TestAppendTime(t *testing.T) {
	for _, want := range []string{"2026-01-01T00:00:00Z", "2026-01-01T00:00:00.100Z", "2026-01-01T00:00:00.000001Z", "2026-01-01T00:00:00.000000010Z", "1969-12-31T23:59:59.500Z"} {
		at, err := time.Parse(time.RFC3339, want)
		if err != nil {
			t.Fatal(err)
		}
		check(t, "time", string(appendTime(nil, stream.Instant(at.UnixNano()))), want)
	}
}
