package sinks

import (
	"bytes"
	"encoding/json"
)

// WithID returns a copy of a row's object with _id as its first field. A row that has an _id of its
// own, from the stream it was read from, keeps that; a row that is no object is left alone.
func WithID(row []byte, id string) []byte {
	if len(row) < 2 || row[0] != '{' {
		return bytes.Clone(row)
	}
	rest := bytes.TrimLeft(row[1:], " \t\r\n")
	if bytes.Contains(row, []byte(`"_id"`)) {
		var fields map[string]json.RawMessage
		if json.Unmarshal(row, &fields) == nil && fields["_id"] != nil {
			return bytes.Clone(row)
		}
	}
	quoted, _ := json.Marshal(id) // a string has no way to fail
	out := make([]byte, 0, len(row)+len(quoted)+8)
	out = append(append(out, `{"_id":`...), quoted...)
	if len(rest) > 0 && rest[0] != '}' {
		out = append(out, ',')
	}
	return append(out, rest...)
}
