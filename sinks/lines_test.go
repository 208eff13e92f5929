package sinks_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/millstream/millstream/sinks"
	"github.com/millstream/millstream/stream"
)

func TestLines(t *testing.T) {
	for _, c := range []struct {
		rows     []string
		want     string
		rejected []int
	}{
		{nil, "", nil},
		{[]string{`{"a":1}`, `{ "b" : 2 }`}, "{\"a\":1}\n{ \"b\" : 2 }\n", nil},
		{[]string{"{\"a\":1}\n", "{\n  \"b\": \"x y\"\n}"}, "{\"a\":1}\n{\"b\":\"x y\"}\n", nil},
		{[]string{`1`, "a\nb", `2`, "{}\n{}", "{\n", `3`}, "1\n2\n3\n", []int{1, 3, 4}},
		{[]string{"\n"}, "", []int{0}},
	} {
		var rows []stream.Row
		for _, r := range c.rows {
			rows = append(rows, stream.Row{Data: []byte(r)})
		}
		got, rejected := sinks.Lines(rows)
		if string(got) != c.want {
			t.Errorf("%q: %q, want %q", c.rows, got, c.want)
		}
		var indices []int
		if rejected != nil {
			for _, r := range rejected.Rows {
				indices = append(indices, r.Index)
				if r.Reason == "" {
					t.Errorf("%q: row %d has no reason", c.rows, r.Index)
				}
			}
		}
		if len(indices) != len(c.rejected) {
			t.Errorf("%q: rejected are %v, want %v", c.rows, indices, c.rejected)
			continue
		}
		for i := range indices {
			if indices[i] != c.rejected[i] {
				t.Errorf("%q: rejected are %v, want %v", c.rows, indices, c.rejected)
			}
		}
	}
}

// FuzzLines: whatever two rows hold, every line is one row, and JSON keeps its value.
func FuzzLines(f *testing.F) {
	for _, seed := range []string{"", "{}", "{\"a\":[1,\n2]}", "\"a\nb\"", "\n\n", "{}\n{}"} {
		f.Add([]byte(seed), []byte(`{"b":1}`))
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		rows := []stream.Row{{Data: a}, {Data: b}}
		got, rejected := sinks.Lines(rows)
		out := make(map[int]bool)
		if rejected != nil {
			for _, r := range rejected.Rows {
				out[r.Index] = true
			}
		}
		for i, r := range rows {
			if out[i] {
				if json.Valid(r.Data) {
					t.Fatalf("%q is JSON, and was rejected", r.Data)
				}
				continue
			}
			line, rest, found := bytes.Cut(got, []byte("\n"))
			if !found {
				t.Fatalf("row %d has no line", i)
			}
			got = rest
			var before, after any
			switch err := json.Unmarshal(r.Data, &before); {
			case err != nil && !bytes.Equal(line, r.Data):
				t.Fatalf("%q became %q", r.Data, line)
			case err == nil && (json.Unmarshal(line, &after) != nil || !same(before, after)):
				t.Fatalf("%q became %q", r.Data, line)
			}
		}
		if len(got) != 0 {
			t.Fatalf("%q is nobody's", got)
		}
	})
}

func same(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errors.Join(errX, errY) == nil && bytes.Equal(x, y)
}
