package fields

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"
)

// testPaths has a prefix of another path, a path given twice, keys that share
// their first eight bytes, and keys at and beyond the limits of the fast look
// up: 15 and 16 bytes, and one with a zero byte.
var testPaths = []string{
	"a", "b", "a.b", "a.b.c", "user", "user.address.city", "user.tier", "event_type", "event_time",
	"a", "fifteen_bytes_k", "sixteen_bytes_ky", "a_key_of_twenty_four_byte", "nineteen_bytes_long", "é", "a\x00", `q"`, "a.a",
	"a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a",
}

// scan is what the differential check judges: a way to read the test paths.
type scan func(record []byte) ([]Value, error)

// decode is the oracle: encoding/json, and the three differences the package
// documents.
func decode(record []byte) (map[string]any, error) {
	if !utf8.Valid(record) {
		return nil, errors.New("invalid UTF-8")
	}
	var v any
	if err := decodeAny(record, &v); err != nil {
		return nil, err
	}
	if content, ok := v.(string); ok {
		v, record = nil, []byte(content)
		if err := decodeAny(record, &v); err != nil {
			return nil, err
		}
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("not an object")
	}
	if nesting(record) > MaxDepth {
		return nil, errors.New("too deep")
	}
	return m, nil
}

func decodeAny(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more data")
	}
	return nil
}

// nesting returns how deep valid JSON nests.
func nesting(text []byte) (most int) {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '{' || c == '['):
			depth++
			most = max(most, depth)
		case !quoted && (c == '}' || c == ']'):
			depth--
		}
	}
	return most
}

// lookUp follows a path through decoded objects.
func lookUp(m map[string]any, path string) (any, bool) {
	var v any = m
	for _, key := range strings.Split(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		if v, ok = m[key]; !ok {
			return nil, false
		}
	}
	return v, true
}

// equal says how a value differs from what encoding/json made of it.
func equal(got Value, want any, present bool) error {
	kind := Absent
	if present {
		switch w := want.(type) {
		case nil:
			kind = Null
		case bool:
			kind = False
			if w {
				kind = True
			}
		case json.Number:
			kind = Number
		case string:
			kind = String
		case map[string]any:
			kind = Object
		case []any:
			kind = Array
		}
	}
	if got.Kind != kind {
		return fmt.Errorf("is %v, want %v", got.Kind, kind)
	}
	switch w := want.(type) {
	case json.Number:
		if got.Raw != string(w) {
			return fmt.Errorf("number %.100q, want %.100q", got.Raw, w)
		}
	case string:
		if got.Raw != w {
			return fmt.Errorf("string %.100q, want %.100q", got.Raw, w)
		}
	case map[string]any, []any:
		var v any
		if err := decodeAny([]byte(got.Raw), &v); err != nil {
			return fmt.Errorf("raw %.100q: %w", got.Raw, err)
		}
		if !reflect.DeepEqual(v, want) {
			return fmt.Errorf("raw %.100q, want %v", got.Raw, want)
		}
	}
	text := got.AppendJSON(nil)
	var v any
	if err := decodeAny(text, &v); err != nil {
		return fmt.Errorf("AppendJSON %.100q: %w", text, err)
	}
	if !reflect.DeepEqual(v, want) {
		return fmt.Errorf("AppendJSON %.100q, want %v", text, want)
	}
	if bytes.ContainsAny(text, "\n\r") {
		return fmt.Errorf("AppendJSON %.100q is not one line", text)
	}
	return nil
}

// differ compares a scan of the record with the oracle, and says how they
// differ.
func differ(record []byte, by scan) error {
	got, err := by(record)
	m, want := decode(record)
	if (err == nil) != (want == nil) {
		return fmt.Errorf("scan: %w, encoding/json: %w", err, want)
	}
	for i, path := range testPaths {
		if err != nil {
			if got[i] != (Value{}) {
				return fmt.Errorf("%s is %v in spite of %w", path, got[i], err)
			}
			continue
		}
		w, present := lookUp(m, path)
		if err := equal(got[i], w, present); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// differFields compares the list of all fields with the oracle.
func differFields(record []byte, s *Scanner) error {
	fields, err := s.Fields(record, nil)
	m, want := decode(record)
	if (err == nil) != (want == nil) {
		return fmt.Errorf("Fields: %w, encoding/json: %w", err, want)
	}
	if len(fields) != len(m) {
		return fmt.Errorf("%d fields, want %d", len(fields), len(m))
	}
	for _, f := range fields {
		w, present := m[f.Key]
		if err := equal(f.Value, w, present); err != nil || !present {
			return fmt.Errorf("field %.100q, present %v: %w", f.Key, present, err)
		}
	}
	return nil
}
