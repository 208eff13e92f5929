package query

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/millstream/millstream/query/fields"
)

// toAny is a field as the expression machine sees it: nil for null and for an absent field, int for
// integers that int64 holds, float64 for every other number, and string, bool, []any and
// map[string]any. A number beyond the largest float64 is an infinity, of which only comparisons have an
// answer.
func toAny(v *fields.Value) (any, error) {
	switch v.Kind {
	case fields.False:
		return false, nil
	case fields.True:
		return true, nil
	case fields.Number:
		return parseNumber(v.Raw), nil
	case fields.String:
		return v.Raw, nil
	case fields.Object, fields.Array:
		d := json.NewDecoder(strings.NewReader(v.Raw))
		d.UseNumber()
		var tree any
		if err := d.Decode(&tree); err != nil {
			return nil, err
		}
		return withNumbers(tree), nil
	}
	return nil, nil
}

func parseNumber(raw string) any {
	if n, ok := fields.ParseInt(raw); ok {
		return int(n)
	}
	f, _ := strconv.ParseFloat(raw, 64) // the only error left is the range
	return f
}

// withNumbers replaces every json.Number in place.
func withNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		return parseNumber(string(v))
	case []any:
		for i := range v {
			v[i] = withNumbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = withNumbers(v[k])
		}
	}
	return v
}

// toValue is the inverse of toAny. The result of an object or an array is compact JSON.
func toValue(v any) (fields.Value, error) {
	switch v := v.(type) {
	case nil:
		return fields.Value{Kind: fields.Null}, nil
	case bool:
		if v {
			return fields.Value{Kind: fields.True, Raw: "true"}, nil
		}
		return fields.Value{Kind: fields.False, Raw: "false"}, nil
	case string:
		return fields.Value{Kind: fields.String, Raw: v}, nil
	}
	raw, err := appendAny(nil, v)
	if err != nil {
		return fields.Value{}, err
	}
	kind := fields.Number
	switch raw[0] {
	case '{':
		kind = fields.Object
	case '[':
		kind = fields.Array
	}
	return fields.Value{Kind: kind, Raw: string(raw)}, nil
}

// appendAny appends an expression's result as JSON: floats in the shortest form that reads back the
// same, objects with their keys sorted, strings with no more escapes than JSON requires.
func appendAny(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...), nil
	case bool:
		return strconv.AppendBool(dst, v), nil
	case int:
		return strconv.AppendInt(dst, int64(v), 10), nil
	case float64:
		if math.IsInf(v, 0) || math.IsNaN(v) {
			return dst, fmt.Errorf("%v is not a JSON number", v)
		}
		return appendFloat(dst, v), nil
	case string:
		return appendString(dst, v), nil
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return dst, err
	}
	return append(dst, bytes.TrimRight(out.Bytes(), "\n")...), nil
}

// appendFloat writes f as encoding/json does.
func appendFloat(dst []byte, f float64) []byte {
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	dst = strconv.AppendFloat(dst, f, format, -1, 64)
	if n := len(dst); format == 'e' && n >= 4 && dst[n-4] == 'e' && dst[n-3] == '-' && dst[n-2] == '0' {
		dst[n-2] = dst[n-1]
		dst = dst[:n-1]
	}
	return dst
}

// appendString writes s as a JSON string; only what JSON requires is escaped.
func appendString(dst []byte, s string) []byte {
	v := fields.Value{Kind: fields.String, Raw: s}
	return v.AppendJSON(dst)
}
