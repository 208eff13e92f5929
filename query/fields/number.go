package fields

import (
	"math"
	"strconv"
)

// ParseInt returns the value of text that is a JSON integer, exactly. Anything
// else, a leading zero or plus sign included, is not ok.
func ParseInt(t string) (n int64, ok bool) {
	i := 0
	if t != "" && t[0] == '-' {
		i = 1
	}
	digits := len(t) - i
	if digits == 0 || digits > 19 || t[i] == '0' && digits > 1 {
		return 0, false
	}
	var u uint64 // 19 digits fit
	for _, c := range []byte(t[i:]) {
		d := c - '0'
		if d > 9 {
			return 0, false
		}
		u = u*10 + uint64(d)
	}
	if i == 1 {
		return -int64(u), u <= 1<<63
	}
	return int64(u), u <= math.MaxInt64
}

// powers are powers of ten, each exact as a float64.
var powers = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19,
}

// ParseFloat returns the float64 nearest to text that is a JSON number, as
// strconv.ParseFloat rounds. Anything else, and a number beyond the largest
// float64, is not ok.
func ParseFloat(t string) (f float64, ok bool) {
	if number(t, 0) != len(t) {
		return 0, false
	}
	// A short decimal is one integer and one power of ten, both exact, so
	// that the single division rounds correctly.
	var u uint64
	i, digits, fraction := 0, 0, 0
	if t[0] == '-' {
		i = 1
	}
	for ; i < len(t); i++ {
		c := t[i]
		if c == '.' {
			fraction = len(t) - i - 1
			continue
		}
		d := c - '0'
		if d > 9 {
			break
		}
		u = u*10 + uint64(d)
		digits++
	}
	if i == len(t) && digits <= 19 && u <= 1<<53 {
		f = float64(u) / powers[fraction]
		if t[0] == '-' {
			f = -f
		}
		return f, true
	}
	f, err := strconv.ParseFloat(t, 64)
	return f, err == nil
}

// number returns the index after the JSON number that starts at i, or ^k if
// there is none because of what stands, or is missing, at k.
func number(t string, i int) int {
	if i < len(t) && t[i] == '-' {
		i++
	}
	if i < len(t) && t[i] == '0' {
		i++
	} else if k := digits(t, i); k > i {
		i = k
	} else {
		return ^i
	}
	if i < len(t) && t[i] == '.' {
		k := digits(t, i+1)
		if k == i+1 {
			return ^k
		}
		i = k
	}
	if i < len(t) && t[i]|0x20 == 'e' {
		i++
		if i < len(t) && (t[i] == '+' || t[i] == '-') {
			i++
		}
		k := digits(t, i)
		if k == i {
			return ^k
		}
		i = k
	}
	return i
}

// digits returns the index of the first byte from i on that is no digit.
func digits(t string, i int) int {
	for i < len(t) && t[i]-'0' <= 9 {
		i++
	}
	return i
}
