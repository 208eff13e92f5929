package query

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"unsafe"

	"github.com/millstream/millstream/query/fields"
	"github.com/millstream/millstream/stream"
)

// A group key is the text under which a record's totals are kept. Different values of the key
// fields always give different texts, and the text gives the values back, with their JSON types:
//
//	no key field    the empty text
//	one             a string is itself, so that the common case copies nothing, unless it begins
//	                with a byte below marks, then it follows a mark; other values are a mark and JSON
//	several         of each a mark, the length, the string or the JSON
//
// Equal numbers are one key however they are written: 1, 1.0 and 1e0.
const (
	markString = 0x01
	markJSON   = 0x02
	marks      = 0x08
)

// keyColumn is one field of --key.
type keyColumn struct {
	field string // as the user names it
	name  string // of the column
	x     *expression
}

// key makes the group key of a record.
func (d *decoder) key() (string, error) {
	switch len(d.q.keys) {
	case 0:
		return "", nil
	case 1:
		v, err := d.keyValue(&d.q.keys[0])
		if err != nil {
			return "", err
		}
		if v.Kind == fields.String && (v.Raw == "" || v.Raw[0] >= marks) {
			return v.Raw, nil
		}
		from := len(d.keys)
		if v.Kind == fields.String {
			d.keys = append(append(d.keys, markString), v.Raw...)
		} else {
			d.keys = appendKeyJSON(append(d.keys, markJSON), v)
		}
		return d.keyText(from), nil
	}
	from := len(d.keys)
	for i := range d.q.keys {
		v, err := d.keyValue(&d.q.keys[i])
		if err != nil {
			return "", err
		}
		if v.Kind == fields.String {
			d.keys = binary.AppendUvarint(append(d.keys, markString), uint64(len(v.Raw)))
			d.keys = append(d.keys, v.Raw...)
			continue
		}
		json := appendKeyJSON(d.number[:0], v)
		d.number = json
		d.keys = binary.AppendUvarint(append(d.keys, markJSON), uint64(len(json)))
		d.keys = append(d.keys, json...)
	}
	return d.keyText(from), nil
}

// keyText is what was appended to d.keys since from. The memory is reused only after Reset, when no
// event of the batch is in use any more.
func (d *decoder) keyText(from int) string {
	if from == len(d.keys) {
		return ""
	}
	return unsafe.String(&d.keys[from], len(d.keys)-from)
}

func (d *decoder) keyValue(k *keyColumn) (*fields.Value, error) {
	v, err := d.value(k.x)
	if err != nil {
		return nil, err
	}
	switch v.Kind {
	case fields.Absent, fields.Null:
		return nil, fmt.Errorf("%w: %s", stream.ErrNoKey, k.field)
	case fields.Object, fields.Array:
		return nil, fmt.Errorf("%w: %s is an %s", stream.ErrNoKey, k.field, v.Kind)
	}
	return v, nil
}

// appendKeyJSON appends a number, true or false so that equal values have equal texts.
func appendKeyJSON(dst []byte, v *fields.Value) []byte {
	if v.Kind != fields.Number {
		return append(dst, v.Raw...)
	}
	if !strings.ContainsAny(v.Raw, ".eE") {
		if v.Raw == "-0" {
			return append(dst, '0')
		}
		return append(dst, v.Raw...)
	}
	f, ok := v.Float64()
	switch {
	case !ok:
		return append(dst, v.Raw...)
	case f == 0:
		return append(dst, '0')
	case f == math.Trunc(f) && math.Abs(f) < 1<<63:
		return fmt.Append(dst, int64(f))
	}
	return appendFloat(dst, f)
}

// keyParts calls f with each value of a group key of n fields, in order: a string, or JSON.
func keyParts(key string, n int, f func(i int, part string, isString bool)) {
	switch {
	case n == 1:
		switch {
		case key == "" || key[0] >= marks:
			f(0, key, true)
		default:
			f(0, key[1:], key[0] == markString)
		}
	case n > 1:
		for i := range n {
			isString := key[0] == markString
			// A length in a string; ten bytes are the most it takes.
			size, used := binary.Uvarint([]byte(key[1:min(len(key), 11)]))
			key = key[1+used:]
			f(i, key[:size], isString)
			key = key[size:]
		}
	}
}

// readableKey is the key for sinks that partition by it: the values, with bars in between.
func readableKey(key string, n int) string {
	if n == 1 && (key == "" || key[0] >= marks) {
		return key
	}
	var out strings.Builder
	keyParts(key, n, func(i int, part string, _ bool) {
		if i > 0 {
			out.WriteByte('|')
		}
		out.WriteString(part)
	})
	return out.String()
}
