package enrich

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// MaxRow is the most bytes of JSON of a row. Larger rows are malformed.
	MaxRow = 1 << 20
	// maxDepth is how deep a row's objects and arrays may lie in each other, as an event's may.
	maxDepth = 64
)

// Fields says which fields of a row are wanted, for drivers of backends that hold rows as JSON text and
// cannot leave any out. The zero value wants all. Safe for concurrent use.
type Fields struct{ tree tree }

// tree is fields by name: a nil one is wanted whole.
type tree map[string]tree

// SelectFields returns the Fields of these names; a.b is field b of the object a. No names: all fields.
func SelectFields(names []string) (Fields, error) {
	var f Fields
	for _, name := range names {
		if f.tree == nil {
			f.tree = tree{}
		}
		at, path := f.tree, strings.Split(name, ".")
		for i, part := range path {
			if part == "" {
				return Fields{}, fmt.Errorf("select: %q is not the name of a field", name)
			}
			inner, known := at[part]
			if known && inner == nil {
				break // wanted whole already
			}
			if i == len(path)-1 {
				at[part] = nil
				break
			}
			if !known {
				inner = tree{}
				at[part] = inner
			}
			at = inner
		}
	}
	return f, nil
}

// Object returns the wanted fields of the JSON object that text should be, as Row.JSON holds it: without
// spaces, numbers and strings as they are written. Text that is anything else, that is larger than MaxRow,
// deeper than an event may be or not UTF-8 is an error that is ErrMalformed. Text is not kept.
func (f Fields) Object(text []byte) ([]byte, error) {
	if len(text) > MaxRow {
		return nil, fmt.Errorf("%w: larger than %d bytes", ErrMalformed, MaxRow)
	}
	text = bytes.TrimLeft(text, " \t\r\n")
	if len(text) == 0 || text[0] != '{' {
		return nil, fmt.Errorf("%w: not a JSON object", ErrMalformed)
	}
	if !utf8.Valid(text) {
		return nil, fmt.Errorf("%w: not UTF-8", ErrMalformed)
	}
	if tooDeep(text) {
		return nil, fmt.Errorf("%w: deeper than %d", ErrMalformed, maxDepth)
	}
	out := bytes.NewBuffer(make([]byte, 0, len(text)))
	if err := json.Compact(out, text); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if f.tree == nil {
		return out.Bytes(), nil
	}
	return f.tree.of(nil, out.Bytes())
}

// of appends the object of t's fields that is in the object text to out.
func (t tree) of(out, text []byte) ([]byte, error) {
	var row map[string]json.RawMessage
	if err := json.Unmarshal(text, &row); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	out = append(out, '{')
	first := true
	for _, name := range slices.Sorted(maps.Keys(t)) {
		value, inner := row[name], t[name]
		if len(value) == 0 || inner != nil && value[0] != '{' {
			continue // absent, or without fields
		}
		if !first {
			out = append(out, ',')
		}
		first = false
		quoted, err := json.Marshal(name)
		if err != nil {
			return nil, err
		}
		out = append(append(out, quoted...), ':')
		if inner == nil {
			out = append(out, value...)
		} else if out, err = inner.of(out, value); err != nil {
			return nil, err
		}
	}
	return append(out, '}'), nil
}

// tooDeep reports whether JSON text has more than maxDepth open brackets somewhere.
func tooDeep(text []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}
