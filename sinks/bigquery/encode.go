package bigquery

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// unknownField is a field of a row that the table has no column for.
type unknownField struct{ name string }

func (e *unknownField) Error() string {
	return fmt.Sprintf("the table has no column %s", e.name)
}

// encode makes the message of a row, a JSON object. An error is the row's own; one that is an
// *unknownField says that the row has more than the table, which ignore leaves out.
func (p *plan) encode(row []byte, ignore bool) ([]byte, error) {
	out, err := appendStruct(make([]byte, 0, len(row)), row, p.columns, "", ignore)
	if err != nil {
		return nil, err
	}
	if len(out) > p.maxRow {
		return nil, fmt.Errorf("the row has %d bytes, and a request takes at most %d", len(out), p.maxRow)
	}
	return out, nil
}

// encodeChange is encode for an UPSERT with its place among the changes to the same key.
func (p *plan) encodeChange(row []byte, sequence string, ignore bool) ([]byte, error) {
	out, err := p.encode(row, ignore)
	if err != nil {
		return nil, err
	}
	for i, text := range []string{"UPSERT", sequence} {
		out = protowire.AppendTag(out, p.change(i), protowire.BytesType)
		out = protowire.AppendString(out, text)
	}
	return out, nil
}

func appendStruct(out, data []byte, columns []*column, within string, ignore bool) ([]byte, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil || fields == nil {
		return nil, fmt.Errorf("%s is no JSON object", at(strings.TrimSuffix(within, ".")))
	}
	known := 0
	for _, c := range columns {
		value, there := fields[c.name]
		if there {
			known++
		} else if len(fields) > known {
			other := "" // in another case; of several the first by name
			for name := range fields {
				if strings.EqualFold(name, c.name) && find(columns, name) == c {
					known++
					if !there || name < other {
						value, there, other = fields[name], true, name
					}
				}
			}
		}
		if !there || string(value) == "null" {
			if c.required {
				return nil, fmt.Errorf("column %s%s is required, and the row has none", within, c.name)
			}
			continue
		}
		var err error
		if out, err = c.append(out, value, within, ignore); err != nil {
			return nil, err
		}
	}
	if known < len(fields) && !ignore {
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			if find(columns, name) == nil {
				return nil, &unknownField{within + name}
			}
		}
	}
	return out, nil
}

func at(path string) string {
	if path == "" {
		return "the row"
	}
	return "column " + path
}

// append adds a value that is not null.
func (c *column) append(out []byte, value json.RawMessage, within string, ignore bool) ([]byte, error) {
	if !c.repeated {
		return c.appendOne(out, value, within, ignore)
	}
	var list []json.RawMessage
	if err := json.Unmarshal(value, &list); err != nil {
		return nil, fmt.Errorf("column %s%s is REPEATED, and %s is no array", within, c.name, shown(value))
	}
	for _, v := range list {
		if string(v) == "null" {
			return nil, fmt.Errorf("column %s%s has a null in its array, which BigQuery does not store", within, c.name)
		}
		var err error
		if out, err = c.appendOne(out, v, within, ignore); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (c *column) appendOne(out []byte, value json.RawMessage, within string, ignore bool) ([]byte, error) {
	if c.kind == "STRUCT" {
		inner, err := appendStruct(nil, value, c.fields, within+c.name+".", ignore)
		if err != nil {
			return nil, err
		}
		out = protowire.AppendTag(out, c.number, protowire.BytesType)
		return protowire.AppendBytes(out, inner), nil
	}
	appended, err := c.appendScalar(out, value)
	if err != nil {
		return nil, fmt.Errorf("column %s%s is %s: %w", within, c.name, c.kind, err)
	}
	return appended, nil
}

var errUnwritable = errors.New("this sink cannot write that type")

// shown is a value for a message.
func shown(value []byte) string {
	const most = 60
	if len(value) > most {
		return string(value[:most]) + "…"
	}
	return string(value)
}
