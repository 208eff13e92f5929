package fields

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// seeds are records that have gone, or might go, wrong.
var seeds = []string{
	`{}`, ` { } `, `{"a":1}`, `{"a":"x","b":"y"}`, "\t\r\n {\"a\"\n:\t1\r, \"b\" : 2 } \n",
	`{"a": 1, "b": [1, 2, {"c": 3}], "event_time": "1700000000000"}`,
	`{"event_type":"view","event_time":"1700000000000","fifteen_bytes_k":1,"sixteen_bytes_ky":2,"a_key_of_twenty_four_byte":3}`,
	`{"event_typ":1,"event_type1":2,"event_timf":3,"fifteen_bytes_":4,"sixteen_bytes_kyy":5,"":6}`,
	// escapes, in keys and values
	`{"a":"\"\\\/\b\f\n\r\t\u0041\u00e9\u20AC"}`, `{"\u0061":1}`, `{"\u0061":1,"a":2}`, `{"a":1,"\u0061":2}`,
	`{"a\u0000":1}`, `{"a":0,"a\u0000":1}`, `{"q\"":1}`, `{"\u00e9":1}`, `{"é":2}`, `{"a\n":1,"a":"b\nc"}`,
	`{"a":"\ud83d\ude00"}`, `{"a":"\ud83d"}`, `{"a":"\ude00"}`, `{"a":"\ud83d\ud83d\ude00"}`, `{"a":"\ud83dx"}`,
	`{"a":"\ud83d\u0041"}`, `{"a":"\ud83d\n"}`, `{"a":"\uFFFD\ufffe"}`, `{"a":"\x"}`, `{"a":"\u12G4"}`, `{"a":"\u12"}`, `{"a":"\`,
	`{"a":"\u`, `{"a":"\u00e`, `{"b":"\q"}`, `{"b":"\u00zz"}`, `{"a":"\"}`, `{"a":"\\"}`, `{"a":"\\\""}`, `{"\`, `{"\u006`,
	`{"a":"12345678\n12345678\"1234567"}`,
	// equal keys
	`{"a":1,"a":2}`, `{"a":{"b":1},"a":{"c":2}}`, `{"a":{"b":1},"a":2}`, `{"a":2,"a":{"b":1}}`, `{"a":{"b":1},"a":null}`,
	`{"a":{"b":1},"a":"x"}`, `{"a":{"b":1},"a":[1]}`, `{"a":{"b":{"c":1}},"a":{"b":{}}}`, `{"a":{"b":{"c":1},"b":{"c":2,"c":3}}}`,
	`{"a":{"b":{"c":1},"b":5}}`, `{"user":{"tier":1},"user":{"address":{"city":"x"}}}`, `{"x":1,"x":2,"a":3}`,
	`{"a":{"b":1},"\u0061":{}}`, `{"a":{"\u0062":1,"b":2}}`,
	// nested paths
	`{"user":{"address":{"city":"Ghent","zip":"9000"},"tier":"gold"}}`, `{"user":null}`, `{"user":[{"tier":1}]}`, `{"user":"tier"}`,
	`{"user":{"address":null}}`, `{"user":{}}`, `{"user.tier":1,"a.b":2}`, `{"user" : { "tier" : 1 , "address" : { "city" : "x" } } }`,
	// other values
	`{"a":null,"b":true}`, `{"a":false}`, `{"a":nul}`, `{"a":nulll}`, `{"a":tru`, `{"a":t}`, `{"a":True}`, `{"a":NaN}`, `{"a":Infinity}`,
	`{"a":[]}`, `{"a":[1,]}`, `{"a":[,1]}`, `{"a":[1 2]}`, `{"a":[1}}`, `{"a":{"b":1]}`, `{"a":[[],{},[{}]]}`, `{"x":{"y":[{"z":"\n"}]},"a":1}`,
	`{"x":{"y":1,}}`, `{"x":{,}}`, `{"x":{"y"}}`, `{"x":{"y":}}`, `{"x":{y:1}}`, `{"x":[`, `{"x":[1`, `{"x":[1,`, `{"x":{`, `{"x":{"y`, `{"x":{"y":`,
	`{"x":[ 1 , "2" , null , { "y" : [ ] } ] , "a" : [ 1 , { "b" : "c d" } ] }`,
	// numbers
	`{"a":0}`, `{"a":-0}`, `{"a":-0.0e-0}`, `{"a":00}`, `{"a":01}`, `{"a":-}`, `{"a":-01}`, `{"a":+1}`, `{"a":.5}`, `{"a":5.}`, `{"a":1.5E+10}`,
	`{"a":1e}`, `{"a":1e+}`, `{"a":1e999}`, `{"a":-1e-999}`, `{"a":0x10}`, `{"a":1_000}`, `{"a":9223372036854775807}`, `{"a":9223372036854775808}`,
	`{"a":-9223372036854775808}`, `{"a":123456789012345678901234567890.123456789e-5}`, `{"a":1`, `{"a":1.`, `{"a":1e5`, `{"b":01}`, `{"b":1.x}`,
	// cut short, continued, not objects
	``, ` `, `{`, `{"`, `{"a`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":"`, `{"a":"x`, `}`, `{}}`, `{} {}`, `{}x`, `{"a":1}null`, `{,}`, `{"a":1,}`,
	`{"a" 1}`, `{"a":1 "b":2}`, `{a:1}`, `{'a':1}`, `[]`, `[{"a":1}]`, `null`, `true`, `1`, `"x"`, `{"a":1}//`, "{}\x00", "\x00", "\x0b{}", "\u00a0{}",
	"\xef\xbb\xbf{}", "{\"a\":\"\xef\xbb\xbf\"}", `{"a":1:2}`, `{:1}`, `{1:2}`, `{"a"::1}`, `{"a":,}`, `{"a":}`,
	// bytes that may not stand in a string
	"{\"a\":\"\x00\"}", "{\"a\":\"\x1f\"}", "{\"a\":\"\n\"}", "{\"a\x01\":1}", "{\"b\":\"12345678\x1f\"}", "{\"a\":\"\x7f\"}",
	// UTF-8
	`{"a":"né","é":"日本語 текст 😀"}`, "{\"a\":\"\xff\"}", "{\"a\":\"\xc3\"}", "{\"a\":\"\xc3", "{\"a\":\"\xe2\x82\"}", "{\"a\":\"\xed\xa0\x80\"}",
	"{\"a\":\"\xc0\xaf\"}", "{\"a\":\"\xf4\x90\x80\x80\"}", "{\"\xff\":1}", "{\"x\":{\"\xff\":\"\xfe\"}}", "{\"a\":1}\xff", "{\"a\":\"\u2028\u2029\ufffd\"}",
	// a record that is a string
	`"{\"a\":1,\"b\":\"x\"}"`, ` "{\"a\":\"\\n\\u00e9\"}" `, `"{}"`, `" {\"a\" : {\"b\":[1,\"2\"]}} \n"`, `"[]"`, `"\"{}\""`, `"{\"a\":1"`, `"{\"a\":1}" x`,
	`"{}`, `""`, `"{\"a\":\"\ud83d\"}"`, `"{\"a\":\"\\ud83d\"}"`, `"\u007b\u007d"`, "\"{\\\"a\\\":\\\"\xff\\\"}\"", `"{\"a\":\"\n\"}"`, `"{} {}"`,
}

// found are records the fuzzer has kept because they took a way through the
// code that no other had taken.
func found(t testing.TB) (records []string) {
	t.Helper()
	text, err := os.ReadFile("testdata/found.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		record, err := strconv.Unquote(strings.TrimSpace(line))
		if err != nil {
			t.Fatalf("testdata/found.txt: %q: %v", line, err)
		}
		records = append(records, record)
	}
	return records
}

func long() []string {
	nested := func(open, inner, end string, n int) string {
		return strings.Repeat(open, n) + inner + strings.Repeat(end, n)
	}
	return []string{
		nested(`{"a":`, `1`, `}`, 64), nested(`{"a":`, `1`, `}`, 65), nested(`{"a":`, `{}`, `}`, 63), nested(`{"a":`, `{}`, `}`, 64),
		nested(`{"x":`, `1`, `}`, 64), nested(`{"x":`, `1`, `}`, 65), nested(`{"a":`, `[]`, `}`, 63), nested(`{"a":`, `[]`, `}`, 64),
		`{"a":` + nested(`[`, ``, `]`, 63) + `}`, `{"a":` + nested(`[`, ``, `]`, 64) + `}`, `{"x":` + nested(`[`, `1`, `]`, 100_000) + `}`,
		nested(`{"a":`, `1`, `}`, 100_000), strings.Repeat(`{"a":`, 100_000), `{"x":` + strings.Repeat(`[`, 100_000),
		`{"x":` + strings.Repeat(`[{"y":`, 50_000), `{"x":[` + strings.Repeat(`[],{},`, 10_000) + `1]}`,
		`"` + strings.Repeat(`{\"a\":`, 100) + `1` + strings.Repeat(`}`, 100) + `"`,
		`{"a":"` + strings.Repeat("x", 10<<20) + `","b":"` + strings.Repeat(`\n`, 5<<20) + `"}`,
		`{"` + strings.Repeat("k", 1<<20) + `":1,"a":` + strings.Repeat("9", 1<<20) + `}`,
		`{"a":"` + strings.Repeat("日", 1<<20) + "\xff" + `"}`, `{"a":"` + strings.Repeat("x", 1<<20),
	}
}

// scanner returns the package's way to scan the test paths.
func scanner(t testing.TB) (scan, *Scanner) {
	t.Helper()
	plan, err := Compile(testPaths...)
	if err != nil {
		t.Fatal(err)
	}
	s := plan.NewScanner()
	return func(record []byte) ([]Value, error) {
		out := make([]Value, plan.Len())
		for i := range out {
			out[i] = Value{Raw: "left over", Kind: Array}
		}
		return out, s.Scan(record, out)
	}, s
}

func TestScanAgreesWithEncodingJSON(t *testing.T) {
	by, s := scanner(t)
	// Twice, so that each record is also met with the order of another.
	for range 2 {
		for _, seed := range slices.Concat(seeds, found(t), long()) {
			if err := differ([]byte(seed), by); err != nil {
				t.Errorf("%.200q: %v", seed, err)
			}
			if err := differFields([]byte(seed), s); err != nil {
				t.Errorf("%.200q: %v", seed, err)
			}
		}
	}
}

// Every prefix of a record, and every record with one byte changed, gives what
// encoding/json gives.
func TestScanBrokenRecords(t *testing.T) {
	by, _ := scanner(t)
	for _, seed := range slices.Concat(seeds, found(t)) {
		for i := range len(seed) {
			if err := differ([]byte(seed[:i]), by); err != nil {
				t.Errorf("%q: %v", seed[:i], err)
			}
			for _, c := range []byte("\"\\{}[],: 0-e.n\x00\x80") {
				broken := []byte(seed)
				broken[i] = c
				if err := differ(broken, by); err != nil {
					t.Errorf("%q: %v", broken, err)
				}
			}
		}
	}
}

// The check above is worth something only if it notices scanners that are
// wrong in the ways scanners are wrong.
func TestDifferentialCheckNotices(t *testing.T) {
	right, _ := scanner(t)
	mistakes := map[string]scan{
		"the first of equal keys wins": func(record []byte) ([]Value, error) {
			out, err := right(record)
			fields := map[string]Value{}
			if err == nil {
				s := &Scanner{}
				rec, i := s.open(string(record))
				s.members(rec, i, func(m member) bool {
					if key := rec[m.key:m.keyEnd]; fields[key].Kind == Absent && m.kind == Number {
						fields[key] = Value{Raw: rec[m.value:m.end], Kind: m.kind}
					}
					return true
				})
				for i, path := range testPaths {
					if v, ok := fields[path]; ok && out[i].Kind == Number {
						out[i] = v
					}
				}
			}
			return out, err
		},
		"equal objects are merged": func(record []byte) ([]Value, error) {
			out, err := right(record)
			if at := bytes.Index(record, []byte(`,"a":{"c"`)); err == nil && at > 0 {
				first, _ := right(append(slices.Clone(record[:at]), '}'))
				out[2] = first[2]
			}
			return out, err
		},
		"escapes are kept": func(record []byte) ([]Value, error) {
			return right(bytes.ReplaceAll(record, []byte(`\`), []byte(`\\`)))
		},
		"what follows is ignored": func(record []byte) ([]Value, error) {
			return right(bytes.TrimRight(record, "x}"+"\x00"))
		},
		"skipped values are not checked": func(record []byte) ([]Value, error) {
			return right(bytes.ReplaceAll(record, []byte(`"b":01`), []byte(`"b":1`)))
		},
		"invalid UTF-8 passes": func(record []byte) ([]Value, error) {
			return right(bytes.ToValidUTF8(record, []byte("?")))
		},
	}
	for mistake, wrong := range mistakes {
		noticed := false
		for _, seed := range seeds {
			noticed = noticed || differ([]byte(seed), wrong) != nil
		}
		if !noticed {
			t.Errorf("not noticed: %s", mistake)
		}
	}
}

// Remembering the order of keys changes nothing but speed: records of several
// shapes in a row give what a new scanner gives, and the memory is in use.
func TestLayout(t *testing.T) {
	shapes := []string{
		`{"a":%d,"b":"x","event_type":"view","user":{"tier":1},"padding_padding_padding":0}`,
		`{"a":%d,"event_type":"view","user":{"tier":2},"padding_padding_padding":0}`,
		`{"a_key_of_twenty_four_byte":%d,"a":5,"sixteen_bytes_ky":6,"event_time":"1700000000000","b":true}`,
		`{"\u0061":%d,"b" : "x","event_type":"view","event_time":"7"}`,
		`{"a":%d,"b":"x","event_type":"view","user":{"tier":1},"a":{"b":2},"a":3,"padding_padding_padding":0}`,
		`{"a":%d,"a":"x"`,
		`{"event_type":"view","event_time":%d,"event_typo":"x","padding_padding_padding":0}`,
		`{"nineteen_bytes_long":%d,"event_time":"x","event_typo":"x","padding_padding_padding":0}`,
		`{"nineteen_bytes_lone":%d,"event_timf":"x","avent_typo":"x","padding_padding_padding":0}`,
	}
	by, s := scanner(t)
	r := rand.New(rand.NewPCG(3, 4))
	used, given := 0, 0
	for i := range 60_000 {
		shape := shapes[i/6000%len(shapes)]
		if i/1000%2 == 1 {
			shape = shapes[r.IntN(len(shapes))]
		}
		before := s.layout.places != nil
		if err := differ(fmt.Appendf(nil, shape, i), by); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
		if s.layout.places != nil {
			used++
		} else if before {
			given++
		}
	}
	if used < 20_000 || given < 2 {
		t.Errorf("an order was known for %d records of 60,000, given up %d times: the test does not reach what it is for", used, given)
	}
	if len(s.layout.places) > maxPlaces {
		t.Errorf("%d places", len(s.layout.places))
	}
}

// A record that keeps the order is never held against it, however near the
// end its last keys stand.
func TestLayoutKept(t *testing.T) {
	for _, record := range []string{`{"a":1}`, `{"a":1,"b":2}`, `{"event_type":"view","event_time":"1","b":2}`, `{}`} {
		by, s := scanner(t)
		for range 100 {
			if _, err := by([]byte(record)); err != nil {
				t.Fatal(err)
			}
		}
		if s.layout.places == nil || s.layout.broken {
			t.Errorf("%s: the order was not kept", record)
		}
	}
}

// A record that breaks the order, or a key that no place can hold, does not
// make the scanner forget the rest.
func TestLayoutBroken(t *testing.T) {
	by, s := scanner(t)
	for i := range 100 {
		record := `{"a":1,"a key of more than twenty-one bytes":2,"b":3,"event_type":"x","event_time":"x"}`
		if i%10 == 5 {
			record = `{"b":1,"a":2,"event_type":"x","event_time":"x"}`
		}
		if _, err := by([]byte(record)); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.layout.places) != 5 || s.layout.broken {
		t.Fatalf("%d places, broken %v", len(s.layout.places), s.layout.broken)
	}
	rec := `"a key of more than twenty-one bytes":2,"b":3`
	if rest := s.layout.next(rec, 0, s.layout.places[1:]); len(rest) != 3 {
		t.Errorf("%d places after one that takes any key, want 3", len(rest))
	}
	if rest := s.layout.next(rec, 0, s.layout.places); len(rest) != 0 || !s.layout.broken {
		t.Errorf("%d places after the order is broken", len(rest))
	}
}

// The reason a record is refused does not depend on the plan or on what was
// scanned before, names the place, and stays short.
func TestErrors(t *testing.T) {
	none, err := Compile()
	if err != nil {
		t.Fatal(err)
	}
	by, s := scanner(t)
	for _, seed := range slices.Concat(seeds, found(t), long()) {
		_, want := by([]byte(seed))
		got := none.NewScanner().Scan([]byte(seed), nil)
		_, fields := s.Fields([]byte(seed), nil)
		if fmt.Sprint(got) != fmt.Sprint(want) || fmt.Sprint(fields) != fmt.Sprint(want) {
			t.Errorf("%.100q: %v, %v, %v", seed, want, got, fields)
		}
		var e *Error
		if want != nil && (!errors.As(want, &e) || e.Offset < 0 || e.Offset > len(seed) || len(want.Error()) > 100) {
			t.Errorf("%.100q: %v", seed, want)
		}
	}
	for _, test := range []struct{ record, want string }{
		{``, "offset 0: unexpected end of the record"},
		{`{"a":"x`, "offset 7: unexpected end of the record"},
		{`{"a":"x\u00`, "offset 11: unexpected end of the record"},
		{`{"x":[1,`, "offset 8: unexpected end of the record"},
		{`null`, "offset 0: not a JSON object"},
		{` [1]`, "offset 1: not a JSON object"},
		{"\xef\xbb\xbf{}", "offset 0: not a JSON object"},
		{`{} x`, "offset 3: more data after the object"},
		{`{a:1}`, "offset 1: expected a key"},
		{`{"a" 1}`, "offset 5: expected ':' after the key"},
		{`{"a":x}`, "offset 5: expected a value"},
		{`{"a":nulx}`, "offset 8: expected a value"},
		{`{"a":1 "b":2}`, "offset 7: expected ',' or '}'"},
		{`{"x":[1 2]}`, "offset 8: expected ',' or ']'"},
		{`{"a":-x}`, "offset 6: invalid number"},
		{`{"a":"\x"}`, "offset 6: invalid escape in a string"},
		{"{\"a\":\"b\nc\"}", "offset 7: control character in a string"},
		{"{\"a\":\"b\xffc\"}", "offset 7: invalid UTF-8"},
		{`{"a":` + strings.Repeat(`[`, 64), "offset 68: nested deeper than 64"},
		{`"{\"a\":x}"`, "the JSON in the string, offset 5: expected a value"},
		{`"{\"a\":\x}"`, "offset 8: invalid escape in a string"},
	} {
		if _, err := by([]byte(test.record)); err == nil || err.Error() != test.want {
			t.Errorf("%.50q: %v, want %s", test.record, err, test.want)
		}
	}
}

func TestFields(t *testing.T) {
	plan, _ := Compile()
	s := plan.NewScanner()
	record := func(more int) []byte {
		text := `{"b":1,"a":"x\ty","b":{"c" : [1, 2]},"\u0061":null,"d":-1.50,"a":true`
		for i := range more {
			text += fmt.Sprintf(`,"k%d":%d`, i%100, i)
		}
		return []byte(text + `}`)
	}
	have := []Field{{Key: "kept"}}
	for _, more := range []int{0, 3, 1000} {
		got, err := s.Fields(record(more), have)
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		var text []byte
		for _, f := range got[:4] {
			keys = append(keys, f.Key)
			text = append(f.Value.AppendJSON(text), ' ')
		}
		if want := []string{"kept", "b", "d", "a"}; !slices.Equal(keys, want) {
			t.Errorf("keys %q, want %q", keys, want)
		}
		if want := `null {"c":[1,2]} -1.50 true `; string(text) != want {
			t.Errorf("values %s, want %s", text, want)
		}
		if want := 4 + min(more, 100); len(got) != want {
			t.Errorf("%d fields, want %d", len(got), want)
		}
	}
	if got, err := s.Fields([]byte(`{"a":1,`), have); err == nil || len(got) != 1 {
		t.Errorf("after an error %d fields, %v", len(got), err)
	}
}

// Values outlive their scanner's next record, escapes or not.
func TestValuesStay(t *testing.T) {
	by, _ := scanner(t)
	var values []Value
	for i := range 3000 {
		out, err := by(fmt.Appendf(nil, `{"a":"%d\n%s","b":"%d"}`, i, strings.Repeat("x", i), i))
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, out[:2]...)
	}
	for i := range 3000 {
		if want := fmt.Sprintf("%d\n%s", i, strings.Repeat("x", i)); values[2*i].Raw != want || values[2*i+1].Raw != strconv.Itoa(i) {
			t.Fatalf("record %d: %.40q, %q", i, values[2*i].Raw, values[2*i+1].Raw)
		}
	}
}

func TestCompile(t *testing.T) {
	for path, want := range map[string]string{
		"": "empty segment", ".": "empty segment", "a.": "empty segment", ".a": "empty segment", "a..b": "empty segment",
		strings.Repeat("a.", 64) + "a": "at most 64",
	} {
		if _, err := Compile("fine", path); err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 200 {
			t.Errorf("%.20q: %v, want %s", path, err, want)
		}
	}
	// Many keys still find their own slots.
	var paths []string
	record := []byte(`{`)
	for i := range 3000 {
		paths = append(paths, "k"+strconv.Itoa(i*i), "nested.k"+strconv.Itoa(i))
		record = fmt.Appendf(record, `"k%d":%d,"other%d":0,`, i*i, 2*i, i)
	}
	record = append(record, `"nested":{`...)
	for i := range 3000 {
		record = fmt.Appendf(record, `"k%d":%d,`, i, 2*i+1)
	}
	record = append(record, `"x":1},`...)
	// Two keys that have one hash whatever the seed.
	paths = append(paths, "0000a000A", "0000q000a")
	record = fmt.Appendf(record, `"0000a000A":%d,"0000q000a":%d}`, 6000, 6001)
	plan, err := Compile(paths...)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(plan.root.next.table); n > 1<<14 {
		t.Errorf("a table of %d entries for 3,003 keys", n)
	}
	out := make([]Value, plan.Len())
	if err := plan.NewScanner().Scan(record, out); err != nil {
		t.Fatal(err)
	}
	for i, v := range out {
		if n, ok := v.Int64(); !ok || n != int64(i) {
			t.Fatalf("%s is %v, want %d", paths[i], v, i)
		}
	}
}

func TestScanAllocatesNothing(t *testing.T) {
	plan, _ := Compile("ad_id", "event_type", "event_time", "user.tier")
	s, out := plan.NewScanner(), make([]Value, plan.Len())
	for _, shuffled := range []bool{false, true} {
		records, i := ysb(100, shuffled), 0
		if n := testing.AllocsPerRun(5000, func() {
			if err := s.Scan(records[i%len(records)], out); err != nil {
				t.Fatal(err)
			}
			i++
		}); n != 0 {
			t.Errorf("keys shuffled %v: %v allocations a record", shuffled, n)
		}
	}
}

func TestNumbers(t *testing.T) {
	texts := []string{
		"0", "-0", "1", "-1", "12345678901234567", "9007199254740993", "9223372036854775807", "9223372036854775808",
		"-9223372036854775808", "-9223372036854775809", "99999999999999999999", "18446744073709551616", "1.5", "0.1", "-0.0", "0.30000000000000004",
		"1e3", "1E-3", "1.25e+2", "5e-324", "1e-400", "1.7976931348623157e308", "1e309", "-1e999", "0.0000000000000000001",
		"123456789.123456789", "9007199254740993.0", "00", "01", "-", "", "+1", ".5", "5.", "1e", "0x1", "1_0", "NaN", "Inf", " 1", "1 ", "--1", "1a", "-a",
	}
	r := rand.New(rand.NewPCG(5, 6))
	for range 20_000 {
		texts = append(texts, strconv.FormatFloat(r.NormFloat64()*math.Pow10(r.IntN(40)-20), "efg"[r.IntN(3)], r.IntN(19)-1, 64))
	}
	for _, text := range texts {
		valid := json.Valid([]byte(text)) && strings.TrimSpace(text) == text
		wantInt, err := strconv.ParseInt(text, 10, 64)
		wantOK := err == nil && valid
		if got, ok := ParseInt(text); ok != wantOK || ok && got != wantInt {
			t.Errorf("ParseInt(%q) is %d, %v, want %d, %v", text, got, ok, wantInt, wantOK)
		}
		want, err := strconv.ParseFloat(text, 64)
		wantOK = err == nil && valid
		if got, ok := ParseFloat(text); ok != wantOK || ok && math.Float64bits(got) != math.Float64bits(want) {
			t.Errorf("ParseFloat(%q) is %v, %v, want %v, %v", text, got, ok, want, wantOK)
		}
	}
	for _, v := range []Value{{}, {Kind: Null, Raw: "null"}, {Kind: String, Raw: "1"}} {
		if _, ok := v.Int64(); ok {
			t.Errorf("%v is an integer", v.Kind)
		}
		if _, ok := v.Float64(); ok {
			t.Errorf("%v is a number", v.Kind)
		}
	}
}

// A Value made by hand is written with the escapes it needs.
func TestAppendJSON(t *testing.T) {
	var all []byte
	for c := range 128 {
		all = append(all, byte(c))
	}
	text := string(all) + "é\u2028😀"
	var got string
	if err := json.Unmarshal(Value{Kind: String, Raw: text}.AppendJSON(nil), &got); err != nil || got != text {
		t.Errorf("%q, %v", got, err)
	}
}

func FuzzScan(f *testing.F) {
	for _, seed := range slices.Concat(seeds, found(f)) {
		f.Add([]byte(seed), []byte(`{"a":1,"b":2,"event_type":"view"}`))
	}
	for _, seed := range ysb(4, true) {
		f.Add(seed, []byte(seeds[0]))
	}
	f.Fuzz(func(t *testing.T, record, before []byte) {
		by, s := scanner(t)
		before = bytes.Clone(before)
		_, _ = by(before) // teaches the scanner an order
		kept := bytes.Clone(record)
		if err := differ(record, by); err != nil {
			t.Error(err)
		}
		if err := differ(record, by); err != nil {
			t.Errorf("the second time: %v", err)
		}
		if err := differFields(record, s); err != nil {
			t.Error(err)
		}
		if !bytes.Equal(record, kept) {
			t.Error("the record was written to")
		}
	})
}
