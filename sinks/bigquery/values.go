package bigquery

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// appendScalar adds one value with its tag, by the column's type.
func (c *column) appendScalar(out []byte, value json.RawMessage) ([]byte, error) {
	var text string
	quoted := value[0] == '"'
	if quoted {
		if err := json.Unmarshal(value, &text); err != nil {
			return nil, err
		}
	}
	literal := !quoted && value[0] != '{' && value[0] != '[' // a number, true or false
	switch c.kind {
	case "STRING":
		switch {
		case quoted:
			return c.text(out, text), nil
		case literal:
			return c.text(out, string(value)), nil
		}
	case "GEOGRAPHY": // well-known text, or GeoJSON as an object
		switch {
		case quoted:
			return c.text(out, text), nil
		case value[0] == '{':
			return c.text(out, string(value)), nil
		}
	case "JSON":
		return c.text(out, string(value)), nil
	case "BYTES":
		if quoted {
			return c.bytes(out, text)
		}
	case "BOOL":
		switch {
		case string(value) == "true" || strings.EqualFold(text, "true"):
			return c.varint(out, 1), nil
		case string(value) == "false" || strings.EqualFold(text, "false"):
			return c.varint(out, 0), nil
		}
	case "INT64":
		if n, ok := integer(value, text, quoted); ok {
			return c.varint(out, uint64(n)), nil
		}
		return nil, fmt.Errorf("%s is no whole number of 64 bits", shown(value))
	case "FLOAT64":
		if f, ok := float(value, text, quoted); ok {
			out = protowire.AppendTag(out, c.number, protowire.Fixed64Type)
			return protowire.AppendFixed64(out, math.Float64bits(f)), nil
		}
	case "NUMERIC", "BIGNUMERIC":
		if !quoted && literal {
			text = string(value)
		}
		if text, ok := c.decimal(text, !quoted); ok {
			return c.text(out, text), nil
		}
		return nil, fmt.Errorf("%s is no number with at most %d digits after the point", shown(value), c.scale)
	case "TIMESTAMP":
		if at, ok := timestamp(value, text, quoted); ok {
			return c.varint(out, uint64(at)), nil
		}
		return nil, fmt.Errorf("%s is neither RFC 3339, such as \"2026-01-31T00:00:00Z\", nor microseconds since 1970, of the years 1 to 9999", shown(value))
	case "DATE":
		day, err := time.Parse(time.DateOnly, text)
		if err == nil && day.Year() >= 1 {
			return c.varint(out, uint64(floorDiv(day.Unix(), 86_400))), nil
		}
		return nil, fmt.Errorf("%s is no date such as \"2026-01-31\"", shown(value))
	case "DATETIME":
		if day, clock, found := strings.Cut(strings.Replace(text, " ", "T", 1), "T"); found && clockTime.MatchString(clock) {
			if at, err := time.Parse(time.DateOnly, day); err == nil && at.Year() >= 1 {
				return c.text(out, day+"T"+clock), nil
			}
		}
		return nil, fmt.Errorf("%s is no date and time without a zone such as \"2026-01-31T23:59:59.5\"", shown(value))
	case "TIME":
		if clockTime.MatchString(text) {
			return c.text(out, text), nil
		}
		return nil, fmt.Errorf("%s is no time of day such as \"23:59:59.5\"", shown(value))
	default:
		return nil, errUnwritable
	}
	return nil, fmt.Errorf("%s does not fit", shown(value))
}

func (c *column) text(out []byte, text string) []byte {
	out = protowire.AppendTag(out, c.number, protowire.BytesType)
	return protowire.AppendString(out, text)
}

func (c *column) varint(out []byte, n uint64) []byte {
	out = protowire.AppendTag(out, c.number, protowire.VarintType)
	return protowire.AppendVarint(out, n)
}

// bytes takes base64 with or without padding, of either alphabet.
func (c *column) bytes(out []byte, text string) ([]byte, error) {
	plain := strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(text), "=")
	data, err := base64.RawStdEncoding.DecodeString(plain)
	if err != nil {
		return nil, fmt.Errorf("the text is not base64: %w", err)
	}
	out = protowire.AppendTag(out, c.number, protowire.BytesType)
	return protowire.AppendBytes(out, data), nil
}

// integer reads a whole number, exactly: also 1e3, 5.0 and a number in quotes.
func integer(value json.RawMessage, text string, quoted bool) (int64, bool) {
	if !quoted {
		text = string(value)
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, true
	}
	r, ok := rational(text)
	if !ok || !r.IsInt() || !r.Num().IsInt64() {
		return 0, false
	}
	return r.Num().Int64(), true
}

var decimalText = regexp.MustCompile(`^[+-]?[0-9]{1,80}(\.[0-9]{1,80})?([eE][+-]?[0-9]{1,3})?$`)

// rational reads a decimal number exactly, of bounded size.
func rational(text string) (*big.Rat, bool) {
	if !decimalText.MatchString(text) {
		return nil, false
	}
	return new(big.Rat).SetString(text)
}

func float(value json.RawMessage, text string, quoted bool) (float64, bool) {
	if !quoted {
		text = string(value)
	} else {
		switch text {
		case "NaN", "Infinity", "-Infinity", "+Infinity", "Inf", "-Inf", "+Inf":
		default:
			if !decimalText.MatchString(text) {
				return 0, false
			}
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	return f, err == nil
}

// decimal brings a number into plain notation. One that JSON has as a number may be a binary fraction,
// such as 0.30000000000000004: it is rounded half away from zero, as SQL's CAST does. A text is taken as it
// is, or not at all.
func (c *column) decimal(text string, round bool) (string, bool) {
	r, ok := rational(text)
	if !ok {
		return "", false
	}
	exact := r.FloatString(int(c.scale)) // rounds half away from zero
	if !round {
		if same, ok := new(big.Rat).SetString(exact); !ok || same.Cmp(r) != 0 {
			return "", false
		}
	}
	whole, _, _ := strings.Cut(strings.TrimLeft(exact, "-0"), ".")
	if most := map[string]int{"NUMERIC": 29, "BIGNUMERIC": 38}[c.kind]; len(whole) > most {
		return "", false
	}
	if strings.Contains(exact, ".") {
		exact = strings.TrimRight(strings.TrimRight(exact, "0"), ".")
	}
	return exact, true
}

const (
	firstMicro = -62_135_596_800_000_000 // 0001-01-01T00:00:00Z
	lastMicro  = 253_402_300_799_999_999 // 9999-12-31T23:59:59.999999Z
)

// timestamp reads RFC 3339 or microseconds since 1970. What is finer than a microsecond is cut off.
func timestamp(value json.RawMessage, text string, quoted bool) (int64, bool) {
	if !quoted {
		n, ok := integer(value, "", false)
		return n, ok && n >= firstMicro && n <= lastMicro
	}
	text = strings.Replace(strings.TrimSuffix(strings.Replace(text, " UTC", "Z", 1), " "), " ", "T", 1)
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return 0, false
	}
	n := t.Unix()*1_000_000 + int64(t.Nanosecond())/1000
	return n, n >= firstMicro && n <= lastMicro
}

var clockTime = regexp.MustCompile(`^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?$`)

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
