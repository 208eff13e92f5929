package http

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// inside returns what is at Options.Rows in an answer, which must be one JSON value.
func (t *Table) inside(answer []byte) (json.RawMessage, error) {
	if !json.Valid(answer) {
		return nil, errors.New("the answer is not JSON")
	}
	return descend(answer, t.rows)
}

// descend returns what is at a path of fields.
func descend(at json.RawMessage, path []string) (json.RawMessage, error) {
	for _, name := range path {
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(at, &fields); err != nil || fields == nil {
			return nil, fmt.Errorf("not an object with field %q", name)
		}
		inner, ok := fields[name]
		if !ok {
			return nil, fmt.Errorf("an object without field %q", name)
		}
		at = inner
	}
	return at, nil
}

// members returns the members of an object, and the names that more than one has.
func members(text json.RawMessage) (rows map[string]json.RawMessage, twice []string, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return nil, nil, errors.New("the answer is not an object of rows by key")
	}
	rows = map[string]json.RawMessage{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, nil, err
		}
		var row json.RawMessage
		if err := d.Decode(&row); err != nil {
			return nil, nil, err
		}
		key, _ := name.(string) // all names are
		if _, known := rows[key]; known {
			twice = append(twice, key)
		}
		rows[key] = row
	}
	return rows, twice, nil
}

// elements returns the rows of an array by the text of what is at path in them, and the keys of more than one.
func elements(text json.RawMessage, path []string) (rows map[string]json.RawMessage, twice []string, err error) {
	var all []json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil || all == nil {
		return nil, nil, errors.New("the answer is not an array of rows")
	}
	rows = make(map[string]json.RawMessage, len(all))
	for _, row := range all {
		at, err := descend(row, path)
		if err != nil {
			return nil, nil, fmt.Errorf("a row without its key: %w", err)
		}
		key, err := keyText(at)
		if err != nil {
			return nil, nil, err
		}
		if _, known := rows[key]; known {
			twice = append(twice, key)
		}
		rows[key] = row
	}
	return rows, twice, nil
}

// keyText is the text of a row's key: a string's own, a number's shortest decimal form, true or false.
func keyText(value json.RawMessage) (string, error) {
	var key any
	d := json.NewDecoder(bytes.NewReader(value))
	d.UseNumber()
	if err := d.Decode(&key); err != nil {
		return "", err
	}
	switch key := key.(type) {
	case string:
		return key, nil
	case bool:
		return strconv.FormatBool(key), nil
	case json.Number:
		if !strings.ContainsAny(key.String(), ".eE") {
			return key.String(), nil
		}
		f, err := key.Float64()
		if err != nil {
			return "", fmt.Errorf("a row whose key is %.64s: out of range", value)
		}
		text, err := json.Marshal(f)
		return string(text), err
	}
	return "", fmt.Errorf("a row whose key is %.64s: neither a string nor a number", value)
}

func isNull(text json.RawMessage) bool { return string(bytes.TrimSpace(text)) == "null" }
