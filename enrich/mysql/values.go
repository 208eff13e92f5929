package mysql

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// kind is how a value is written in JSON.
type kind byte

const (
	kindString kind = iota
	kindNumber
	kindBit
	kindJSON
	kindBytes
	kindDate
	kindTime // datetime and timestamp
)

// column is a column of an answer.
type column struct {
	name string
	kind kind
}

// kindOf is the kind of a type as the driver names it.
func kindOf(name string) kind {
	switch strings.TrimPrefix(name, "UNSIGNED ") {
	case "TINYINT", "SMALLINT", "MEDIUMINT", "INT", "BIGINT", "DECIMAL", "FLOAT", "DOUBLE", "YEAR":
		return kindNumber
	case "BIT":
		return kindBit
	case "JSON":
		return kindJSON
	case "BLOB", "TINYBLOB", "MEDIUMBLOB", "LONGBLOB", "BINARY", "VARBINARY", "GEOMETRY", "VECTOR":
		return kindBytes
	case "DATE":
		return kindDate
	case "DATETIME", "TIMESTAMP":
		return kindTime
	}
	return kindString
}

// append writes a value as JSON. Numbers keep all their digits, and so do the bits of a BIT as one. Dates are
// "2026-03-01", datetime and timestamp RFC 3339 in UTC (a datetime, which has no time zone, is taken as UTC),
// and 0000-00-00, which is no date, null. TIME, ENUM and SET are the server's text as a string.
func (k kind) append(out *bytes.Buffer, text []byte) error {
	if text == nil {
		out.WriteString("null")
		return nil
	}
	switch k {
	case kindNumber:
		out.WriteString(number(string(text)))
	case kindBit:
		var bits uint64
		if len(text) > 8 {
			return errors.New("more than 64 bits")
		}
		for _, b := range text {
			bits = bits<<8 | uint64(b)
		}
		out.WriteString(strconv.FormatUint(bits, 10))
	case kindJSON:
		out.Write(text)
	case kindBytes:
		out.WriteByte('"')
		out.WriteString(base64.StdEncoding.EncodeToString(text))
		out.WriteByte('"')
	case kindDate, kindTime:
		s := string(text)
		switch {
		case strings.HasPrefix(s, "0000-00-00"):
			out.WriteString("null")
			return nil
		case len(s) > len("2026-03-01") && s[5:7] != "00" && s[8:10] != "00":
			s = strings.Replace(s, " ", "T", 1) + "Z"
		}
		appendString(out, s)
	default:
		appendString(out, string(text))
	}
	return nil
}

// number drops the zeros of ZEROFILL.
func number(text string) string {
	if unsigned, negative := strings.CutPrefix(text, "-"); negative {
		return "-" + trimZeros(unsigned)
	}
	return trimZeros(text)
}

// parseTime reads a date, a datetime or a timestamp, in UTC; the zero time for NULL and 0000-00-00.
func parseTime(text []byte) (time.Time, error) {
	if text == nil || bytes.HasPrefix(text, []byte("0000-00-00")) {
		return time.Time{}, nil
	}
	layout := "2006-01-02 15:04:05"
	if len(text) == len("2006-01-02") {
		layout = "2006-01-02"
	}
	at, err := time.Parse(layout, string(text))
	if err != nil {
		return at, fmt.Errorf("when it is valid: %w", err)
	}
	return at, nil
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
