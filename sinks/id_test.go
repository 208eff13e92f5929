package sinks

import (
	"encoding/json"
	"testing"
)

func TestWithID(t *testing.T) {
	for in, want := range map[string]string{
		`{}`:                        `{"_id":"i"}`,
		`{ }`:                       `{"_id":"i"}`,
		`{"a":1}`:                   `{"_id":"i","a":1}`,
		`{ "a":1}`:                  `{"_id":"i","a":1}`,
		`{"_id":"other","a":1}`:     `{"_id":"other","a":1}`,
		`{"a":"\"_id\"","b":"_id"}`: `{"_id":"i","a":"\"_id\"","b":"_id"}`,
		`{"a":{"_id":1}}`:           `{"_id":"i","a":{"_id":1}}`,
		`[1]`:                       `[1]`,
		``:                          ``,
	} {
		got := string(WithID([]byte(in), "i"))
		if got != want || want != "" && !json.Valid([]byte(got)) {
			t.Errorf("%s: %s", in, got)
		}
	}
}
