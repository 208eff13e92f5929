package enrich_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/millstream/millstream/enrich"
)

func TestFieldsObject(t *testing.T) {
	deep := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	for _, c := range []struct {
		fields string // separated by spaces
		text   string
		want   string // "" for malformed
	}{
		{"", ` {"b": 1, "a" : [1, {}]} `, `{"b":1,"a":[1,{}]}`},
		{"", `{"n":9007199254740993,"s":"<é\u00e9>"}`, `{"n":9007199254740993,"s":"<é\u00e9>"}`},
		{"a", `{"b":1,"a":null,"c":{}}`, `{"a":null}`},
		{"b a", `{"b":"<","a":12345678901234567890}`, `{"a":12345678901234567890,"b":"<"}`},
		{"x", `{"a":1}`, `{}`},
		{"a.b", `{"a":{"b":1,"c":2},"d":3}`, `{"a":{"b":1}}`},
		{"a.b a.c.d", `{"a":{"b":1,"c":{"d":[2],"e":3}},"d":3}`, `{"a":{"b":1,"c":{"d":[2]}}}`},
		{"a.b", `{"a":1}`, `{}`},
		{"a.b", `{"a":{"c":1}}`, `{"a":{}}`},
		{"a a.b", `{"a":{"b":1,"c":2}}`, `{"a":{"b":1,"c":2}}`},
		{"a.b a", `{"a":{"b":1,"c":2}}`, `{"a":{"b":1,"c":2}}`},
		{"", deep(64), deep(64)},
		{"", `{"a":"` + strings.Repeat("[", 100) + `\"{"}`, `{"a":"` + strings.Repeat("[", 100) + `\"{"}`},
		{"", deep(65), ""},
		{"a", deep(65), ""},
		{"", "", ""},
		{"", "null", ""},
		{"", "[]", ""},
		{"", `"{}"`, ""},
		{"", `{"a":1`, ""},
		{"", `{"a":1}x`, ""},
		{"", `{"a":1}{}`, ""},
		{"", "{\"a\":\"\xff\"}", ""},
		{"", `{"a":NaN}`, ""},
		{"", `{"a":"` + strings.Repeat("x", enrich.MaxRow) + `"}`, ""},
	} {
		f, err := enrich.SelectFields(strings.Fields(c.fields))
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.Object([]byte(c.text))
		if c.want == "" {
			if !errors.Is(err, enrich.ErrMalformed) {
				t.Errorf("%.80s: %.80s, %v", c.text, got, err)
			}
			continue
		}
		if err != nil || string(got) != c.want {
			t.Errorf("%q of %.80s: %.80s, %v, want %.80s", c.fields, c.text, got, err, c.want)
		}
	}
	for _, name := range []string{"", "a.", ".a", "a..b"} {
		if _, err := enrich.SelectFields([]string{name}); err == nil {
			t.Errorf("%q is a field", name)
		}
	}
}

func FuzzFieldsObject(f *testing.F) {
	f.Add([]byte(`{"a":{"b":1},"c":[{}]}`))
	f.Add([]byte(` {"a":"\""}`))
	all, _ := enrich.SelectFields(nil)
	some, _ := enrich.SelectFields([]string{"a.b", "c"})
	f.Fuzz(func(t *testing.T, text []byte) {
		whole, err := all.Object(text)
		part, partly := some.Object(text)
		if (err == nil) != (partly == nil) {
			t.Fatalf("%v, but %v", err, partly)
		}
		if err != nil {
			if !errors.Is(err, enrich.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		var fields, chosen map[string]json.RawMessage
		if err := json.Unmarshal(whole, &fields); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(part, &chosen); err != nil {
			t.Fatal(err)
		}
		if len(chosen) > 2 || string(chosen["c"]) != string(fields["c"]) {
			t.Fatalf("%s of %s", part, whole)
		}
	})
}
