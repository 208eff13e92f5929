package postgres

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// maxNesting is the most dimensions of an array, the server's own bound.
const maxNesting = 6

// append writes a value of the column, as the server has written it, as JSON. Numbers keep all their digits;
// NaN and infinity, which JSON has not, are null, and so is the infinity of dates. Dates are "2026-01-01",
// timestamps RFC 3339 in UTC (one without a time zone is taken as UTC), intervals and all else that JSON has
// no word for the server's text as a string.
func (c column) append(out *bytes.Buffer, text []byte) error {
	if c.kind == kindArray && text != nil {
		return c.array(out, string(text))
	}
	return c.kind.append(out, text)
}

func (k kind) append(out *bytes.Buffer, text []byte) error {
	if text == nil {
		out.WriteString("null")
		return nil
	}
	switch k {
	case kindBool:
		if string(text) == "t" {
			out.WriteString("true")
		} else {
			out.WriteString("false")
		}
	case kindNumber:
		switch string(text) {
		case "NaN", "Infinity", "-Infinity":
			out.WriteString("null")
		default:
			out.Write(text)
		}
	case kindJSON:
		out.Write(text)
	case kindBytes:
		digits, ok := bytes.CutPrefix(text, []byte(`\x`))
		raw, err := hex.DecodeString(string(digits))
		if err != nil || !ok {
			return errors.New("not the hexadecimal form of bytea")
		}
		out.WriteByte('"')
		out.WriteString(base64.StdEncoding.EncodeToString(raw))
		out.WriteByte('"')
	case kindDate, kindTimestamp, kindTimestampTZ:
		s := string(text)
		if s == "infinity" || s == "-infinity" {
			out.WriteString("null")
			return nil
		}
		if k != kindDate && !strings.HasSuffix(s, " BC") {
			s = strings.Replace(strings.TrimSuffix(s, "+00"), " ", "T", 1) + "Z"
		}
		appendString(out, s)
	default:
		appendString(out, string(text))
	}
	return nil
}

// array writes the server's {1,NULL,"a b"} as JSON.
func (c column) array(out *bytes.Buffer, text string) error {
	if strings.HasPrefix(text, "[") { // its bounds, when they do not begin with 1
		bounds := strings.IndexByte(text, '=')
		if bounds < 0 {
			return errors.New("an array's bounds do not end")
		}
		text = text[bounds+1:]
	}
	const (
		begun     = iota // a bracket was opened: anything but a separator comes
		separated        // a value comes, or a bracket is opened
		valued           // a separator comes, or the bracket is closed
	)
	depth, after := 0, begun
	for i := 0; i < len(text); {
		switch b := text[i]; {
		case b == '{':
			depth++
			if depth > maxNesting || after == valued {
				return errors.New("not an array")
			}
			out.WriteByte('[')
			i, after = i+1, begun
		case depth == 0 || b == c.separator && after != valued || b == '}' && after == separated:
			return errors.New("not an array")
		case b == '}':
			depth--
			out.WriteByte(']')
			i, after = i+1, valued
			if depth == 0 {
				if i < len(text) {
					return errors.New("more comes after an array")
				}
				return nil
			}
		case b == c.separator:
			out.WriteByte(',')
			i, after = i+1, separated
		case after == valued:
			return errors.New("not an array")
		default:
			element, quoted, n, err := arrayElement(text[i:], c.separator)
			if err != nil {
				return err
			}
			value := []byte(element)
			if !quoted && element == "NULL" {
				value = nil
			} else if value == nil {
				value = []byte{}
			}
			if err := c.element.append(out, value); err != nil {
				return err
			}
			i, after = i+n, valued
		}
	}
	return errors.New("an array does not end")
}

// arrayElement reads one element, and says how many bytes it takes.
func arrayElement(text string, separator byte) (element string, quoted bool, n int, err error) {
	if text[0] != '"' {
		for n < len(text) && text[n] != separator && text[n] != '}' {
			n++
		}
		return text[:n], false, n, nil
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '"':
			return b.String(), true, i + 1, nil
		case '\\':
			i++
			if i == len(text) {
				return "", true, 0, errors.New("an array's element does not end")
			}
		}
		b.WriteByte(text[i])
	}
	return "", true, 0, errors.New("an array's element does not end")
}

// appendArray writes texts as an array of any type.
func appendArray(out []byte, elements []string) []byte {
	out = append(out, '{')
	for i, e := range elements {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, '"')
		for j := range len(e) {
			if e[j] == '"' || e[j] == '\\' {
				out = append(out, '\\')
			}
			out = append(out, e[j])
		}
		out = append(out, '"')
	}
	return append(out, '}')
}

// appendString writes a JSON string.
func appendString(out *bytes.Buffer, s string) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			encoder := json.NewEncoder(out)
			encoder.SetEscapeHTML(false)
			_ = encoder.Encode(s) // a buffer takes everything, and a string is always JSON
			out.Truncate(out.Len() - 1)
			return
		}
	}
	out.WriteByte('"')
	out.WriteString(s)
	out.WriteByte('"')
}

// instant is a moment, or before or after all of them, with the zero time then.
type instant struct {
	time     time.Time
	infinite int
}

// parseInstant reads a timestamp or a date, in UTC. What lies outside of the years 1 to 9999 is infinite.
func parseInstant(text string) (instant, error) {
	switch {
	case text == "infinity" || strings.IndexByte(text, '-') > 4:
		return instant{infinite: 1}, nil
	case text == "-infinity" || strings.HasSuffix(text, " BC"):
		return instant{infinite: -1}, nil
	}
	layout := "2006-01-02 15:04:05"
	if len(text) == len("2006-01-02") {
		layout = "2006-01-02"
	}
	at, err := time.Parse(layout, strings.TrimSuffix(text, "+00"))
	if err != nil {
		return instant{}, fmt.Errorf("when it is valid: %w", err)
	}
	return instant{time: at}, nil
}
