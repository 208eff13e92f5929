package postgres

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"
	"time"
	"unicode/utf8"
)

func TestValues(t *testing.T) {
	for _, c := range []struct {
		column     column
		text, want string
	}{
		{column{kind: kindNumber}, "9223372036854775807", "9223372036854775807"},
		{column{kind: kindNumber}, "1e-07", "1e-07"},
		{column{kind: kindNumber}, "-Infinity", "null"},
		{column{kind: kindBool}, "t", "true"},
		{column{kind: kindBool}, "f", "false"},
		{column{}, "<a & \"b\">\n\u2028\x7f", `"<a & \"b\">\n\u2028` + "\x7f\""},
		{column{}, "", `""`},
		{column{kind: kindTimestampTZ}, "2026-03-01 12:00:00.5+00", `"2026-03-01T12:00:00.5Z"`},
		{column{kind: kindTimestamp}, "2026-03-01 12:00:00", `"2026-03-01T12:00:00Z"`},
		{column{kind: kindTimestamp}, "0044-03-15 12:00:00 BC", `"0044-03-15 12:00:00 BC"`},
		{column{kind: kindDate}, "infinity", "null"},
		{column{kind: kindBytes}, `\x`, `""`},
		{column{kind: kindBytes}, `abc`, "error"},
		{column{kind: kindBytes}, `\x0`, "error"},
		{column{kindArray, kindNumber, ','}, "{}", "[]"},
		{column{kindArray, kindNumber, ','}, "{{1,2},{NULL,NaN}}", "[[1,2],[null,null]]"},
		{column{kindArray, kindNumber, ','}, "[-1:1][0:0]={{1},{2},{3}}", "[[1],[2],[3]]"},
		{column{kindArray, kindString, ','}, `{"a\"b\\",NULL,"NULL","",x}`, `["a\"b\\",null,"NULL","","x"]`},
		{column{kindArray, kindString, ';'}, `{(1,1),(0,0);(2,2),(1,1)}`, `["(1,1),(0,0)","(2,2),(1,1)"]`},
		{column{kindArray, kindJSON, ','}, `{"{\"a\": [1]}",NULL}`, `[{"a": [1]},null]`},
		{column{kindArray, kindNumber, ','}, "{1", "error"},
		{column{kindArray, kindNumber, ','}, "{1}2", "error"},
		{column{kindArray, kindNumber, ','}, "1", "error"},
		{column{kindArray, kindNumber, ','}, "[0:1]", "error"},
		{column{kindArray, kindString, ','}, `{"a`, "error"},
		{column{kindArray, kindString, ','}, `{"a\`, "error"},
		{column{kindArray, kindNumber, ','}, "{{{{{{{1}}}}}}}", "error"},
		{column{kindArray, kindNumber, ','}, "{1{2}}", "error"},
	} {
		out := &bytes.Buffer{}
		err := c.column.append(out, []byte(c.text))
		if got := out.String(); (err != nil) != (c.want == "error") || err == nil && got != c.want {
			t.Errorf("%v %q: %s, %v, want %s", c.column, c.text, got, err, c.want)
		}
	}
	out := &bytes.Buffer{}
	if err := (column{kind: kindArray}).append(out, nil); err != nil || out.String() != "null" {
		t.Errorf("NULL: %s, %v", out, err)
	}
}

// FuzzArray: whatever text a server sends as an array of texts is JSON or an error, and what is written as an
// array is read again.
func FuzzArray(f *testing.F) {
	for _, text := range []string{"{}", `{a,"b",NULL}`, "{{1},{2}}", "[0:0]={1}", `{"\"`, "{,}", "{}}", "{a}{b}"} {
		f.Add(text)
	}
	strings := column{kindArray, kindString, ','}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) {
			return
		}
		out := &bytes.Buffer{}
		if strings.append(out, []byte(text)) == nil && !json.Valid(out.Bytes()) {
			t.Errorf("%q: %s", text, out)
		}
		want := []string{text, "", "NULL", `"`, `\`}
		out.Reset()
		var got []string
		if err := strings.append(out, appendArray(nil, want)); err != nil {
			t.Errorf("%q: %v", text, err)
		} else if err := json.Unmarshal(out.Bytes(), &got); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	})
}

func TestKeyTexts(t *testing.T) {
	for _, c := range []struct {
		name  string
		value func(string) (string, bool)
		yes   []string
		no    []string
	}{
		{"smallint", integer(16), []string{"0", "-32768", "32767"}, []string{"32768", "-0", "+1", "01", "1.0", "1e3", "", " 1", "1_0", "0x1"}},
		{"bigint", integer(64), []string{"9223372036854775807"}, []string{"9223372036854775808"}},
		{"numeric", decimal, []string{"0", "-1", "10", "0.5", "-0.05", "123456789012345678901234567890.5"}, []string{"", "-", ".", "-0", "00", "01", "1.", ".5", "1.50", "1.0", "0.0", "-0.0", "1.2.3", "1e3", "NaN", "--1", "+1", "٣", " 1"}},
		{"uuid", uuid, []string{"A0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}, []string{"", "a0eebc999c0b4ef8bb6d6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1g", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1", "a0eebc9909c0b-4ef8-bb6d-6bb9bd380a11"}},
		{"text", anyText, []string{"", "a", " ", "💥"}, []string{"\x00", "\xff"}},
	} {
		for _, text := range c.yes {
			if _, ok := c.value(text); !ok {
				t.Errorf("%s: %q is none", c.name, text)
			}
		}
		for _, text := range c.no {
			if _, ok := c.value(text); ok {
				t.Errorf("%s: %q is one", c.name, text)
			}
		}
	}
	for text, want := range map[string]string{"7.50": "7.5", "7.00": "7", "100": "100", "-0.50": "-0.5", "0.00": "0"} {
		if got := shortest(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func TestParseInstant(t *testing.T) {
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for text, want := range map[string]instant{
		"2026-03-01": {time: at}, "2026-03-01 00:00:00": {time: at}, "2026-03-01 00:00:00.5+00": {time: at.Add(time.Second / 2)},
		"infinity": {infinite: 1}, "-infinity": {infinite: -1}, "0044-03-15 BC": {infinite: -1}, "294276-12-31 00:00:00+00": {infinite: 1}, "10000-01-01": {infinite: 1},
	} {
		if got, err := parseInstant(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "soon", "2026-03", "2026-03-01 00:00:00+05", "01.03.2026"} {
		if got, err := parseInstant(text); err == nil {
			t.Errorf("%s: %v", text, got)
		}
	}
}
