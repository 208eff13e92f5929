package sinks

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/millstream/millstream/stream"
)

// KeyedBy has a sink take a field of each row, "a.b" for a nested one, for the row's key: a text as it is,
// another value as its JSON. Rows without it, or with null, have no key.
func KeyedBy(field string, s stream.Sink) stream.Sink {
	return &keyed{s, strings.Split(field, ".")}
}

type keyed struct {
	stream.Sink
	path []string
}

func (k *keyed) Deliver(ctx context.Context, id stream.CheckpointID, rows []stream.Row) error {
	rows = slices.Clone(rows) // which are the caller's
	for i := range rows {
		rows[i].Key = fieldOf(rows[i].Data, k.path)
	}
	return k.Sink.Deliver(ctx, id, rows)
}

// fieldOf reads a field of a row's object.
func fieldOf(data []byte, path []string) string {
	for _, name := range path {
		var fields map[string]json.RawMessage
		if json.Unmarshal(data, &fields) != nil {
			return ""
		}
		data = fields[name]
	}
	var text string
	switch {
	case string(data) == "null":
		return ""
	case json.Unmarshal(data, &text) == nil:
		return text
	}
	return string(data)
}
