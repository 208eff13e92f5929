package windows

import (
	"bytes"
	"cmp"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// ValueKind tells what a Value holds.
type ValueKind uint8

const (
	Null   ValueKind = iota // nothing: every aggregate of an argument skips it
	Int                     // I
	Float                   // F; an integer that an int64 cannot hold is a Float too
	String                  // S, unescaped
	Other                   // a boolean, an object or an array: its JSON text in S
)

// Value is an argument of an aggregate. S may point into the record: what is kept is cloned.
type Value struct {
	S    string
	I    int64
	F    float64
	Kind ValueKind
}

// number returns the number that v is, or that its text spells in decimal. Floats are finite.
func (v *Value) number() (i int64, f float64, kind ValueKind) {
	switch v.Kind {
	case Int:
		return v.I, 0, Int
	case Float:
		if math.IsNaN(v.F) || math.IsInf(v.F, 0) {
			return 0, 0, Null
		}
		return 0, v.F, Float
	case String:
		return parseNumber(v.S)
	}
	return 0, 0, Null
}

// parseNumber reads a decimal number: no hexadecimal, no underscores, no Inf, nothing around it.
func parseNumber(s string) (i int64, f float64, kind ValueKind) {
	digits, integer := false, true
	for n := range len(s) {
		switch c := s[n]; {
		case '0' <= c && c <= '9':
			digits = true
		case c == '.' || c == 'e' || c == 'E':
			integer = false
		case (c == '-' || c == '+') && (n == 0 || s[n-1] == 'e' || s[n-1] == 'E'):
		default:
			return 0, 0, Null
		}
	}
	if !digits {
		return 0, 0, Null
	}
	if integer && len(s) <= 20 {
		if i, err := strconv.ParseInt(s, 10, 64); err == nil {
			return i, 0, Int
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(f, 0) {
		return 0, 0, Null
	}
	return 0, f, Float
}

// canonical makes equal numbers the same Value: a Float that is an integer becomes an Int.
func (v *Value) canonical() Value {
	if v.Kind == Float && v.F >= math.MinInt64 && v.F < -math.MinInt64 && v.F == math.Trunc(v.F) {
		return Value{Kind: Int, I: int64(v.F)}
	}
	return *v
}

// compare orders values: numbers by value before strings by bytes, before everything else by its
// text. Equal numbers of two kinds compare Int before Float, so that the order is total.
func compare(a, b *Value) int {
	if x, y := max(a.Kind, Float), max(b.Kind, Float); x != y {
		return cmp.Compare(x, y)
	} else if x != Float {
		return cmp.Compare(a.S, b.S)
	}
	var c int
	switch {
	case a.Kind == Int && b.Kind == Int:
		return cmp.Compare(a.I, b.I)
	case a.Kind == Float && b.Kind == Float:
		if c = cmp.Compare(a.F, b.F); c == 0 {
			c = cmp.Compare(math.Float64bits(b.F), math.Float64bits(a.F)) // -0 before 0
		}
		return c
	case a.Kind == Int:
		c = compareIntFloat(a.I, b.F)
	default:
		c = -compareIntFloat(b.I, a.F)
	}
	return cmp.Or(c, cmp.Compare(a.Kind, b.Kind))
}

// compareIntFloat compares exactly, where a conversion of i would round.
func compareIntFloat(i int64, f float64) int {
	switch {
	case f >= -math.MinInt64:
		return -1
	case f < math.MinInt64:
		return 1
	}
	whole := math.Trunc(f)
	return cmp.Or(cmp.Compare(i, int64(whole)), cmp.Compare(0, f-whole))
}

// appendJSON appends the value as JSON: the type it came with.
func (v *Value) appendJSON(dst []byte) []byte {
	switch v.Kind {
	case Int:
		return strconv.AppendInt(dst, v.I, 10)
	case Float:
		return appendFloat(dst, v.F)
	case String:
		return appendString(dst, v.S)
	case Other:
		return appendText(dst, v.S)
	}
	return append(dst, "null"...)
}

// appendFloat writes a float as encoding/json does; what JSON cannot say, an overflow, is null.
func appendFloat(dst []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(dst, "null"...)
	}
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	dst = strconv.AppendFloat(dst, f, format, -1, 64)
	if n := len(dst); format == 'e' && n >= 4 && dst[n-4] == 'e' && dst[n-3] == '-' && dst[n-2] == '0' {
		dst[n-2] = dst[n-1] // 1e-07 → 1e-7
		dst = dst[:n-1]
	}
	return dst
}

// appendText writes JSON text on one line. Text that is none becomes a string.
func appendText(dst []byte, s string) []byte {
	if !json.Valid(unsafe.Slice(unsafe.StringData(s), len(s))) {
		return appendString(dst, s)
	}
	if !strings.ContainsAny(s, "\n\r\t ") {
		return append(dst, s...)
	}
	b := bytes.NewBuffer(dst)
	if err := json.Compact(b, []byte(s)); err != nil {
		return appendString(dst, s)
	}
	return b.Bytes()
}

// appendString writes a JSON string; bytes that are not UTF-8 become U+FFFD.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			dst = append(dst, s[from:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, `\n`...)
			case '\r':
				dst = append(dst, `\r`...)
			case '\t':
				dst = append(dst, `\t`...)
			default:
				dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			i++
			from = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			dst = append(dst, s[from:i]...)
			dst = append(dst, `\ufffd`...)
			from = i + 1
		}
		i += size
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}
