package query

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/millstream/millstream/stream"
)

// outcome is what became of some records, as the engine would decide it.
type outcome struct {
	rows     []string
	keys     []string // of the rows, for stream sinks
	dead     []string // "reason | error"
	filtered int
}

// feed takes records through everything that a query fills in of a pipeline, in the engine's order.
func feed(t testing.TB, q *Query, records ...string) outcome {
	t.Helper()
	var out outcome
	p := q.Pipeline()
	d := p.NewDecoder()
	lane := p.Operator.Lane()
	write := func(r *Result) error {
		row, err := p.Encode(r)
		if err != nil {
			return err
		}
		if bytes.ContainsAny(row.Data, "\n\r") {
			t.Errorf("a row is not one line: %q", row.Data)
		}
		out.rows, out.keys = append(out.rows, string(row.Data)), append(out.keys, row.Key)
		return nil
	}
	for i, record := range records {
		var e stream.Event[Event]
		if i%2 == 0 {
			d.Reset()
		}
		err := d.Decode(&stream.Record{Data: []byte(record)}, &e)
		if err == nil && !p.Keep(&e) {
			out.filtered++
			continue
		}
		if err == nil {
			err = p.Require(&e)
		}
		if err != nil {
			out.dead = append(out.dead, reasonOf(err)+" | "+err.Error())
			continue
		}
		if ok, err := lane.Add(&e, stream.Beginning); !ok || err != nil {
			t.Fatalf("Add: %v, %v", ok, err)
		}
		rows := lane.Rows()
		for i := range rows {
			if err := write(&rows[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	merger := p.Operator.Merger()
	if merger == nil {
		return out
	}
	for _, s := range lane.Freeze(stream.EndOfTime) {
		var data bytes.Buffer
		if _, err := s.Data.WriteTo(&data); err != nil {
			t.Fatal(err)
		}
		if err := merger.Merge(stream.Frozen{Start: s.Start, End: s.End, Count: s.Count}, data.Bytes()); err != nil {
			t.Fatal(err)
		}
		if err := merger.Advance(s.End, write); err != nil {
			t.Fatal(err)
		}
	}
	if err := merger.Advance(stream.EndOfTime, write); err != nil {
		t.Fatal(err)
	}
	return out
}

// reasonOf is how the engine sorts an error of Decode or Require.
func reasonOf(err error) string {
	var r stream.Reasoned
	switch {
	case errors.As(err, &r):
		return r.Reason()
	case errors.Is(err, stream.ErrNoKey):
		return stream.ReasonNoKey
	case errors.Is(err, stream.ErrNoTime):
		return stream.ReasonNoTime
	}
	return stream.ReasonUndecodable
}

func compiled(t testing.TB, cfg Config) *Query {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	q, err := Compile(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func check(t *testing.T, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprintf("%v", got), fmt.Sprintf("%v", want); g != w {
		t.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
}

// TestConditions holds --where to its words: yes, no, or the reason of the dead letter.
func TestConditions(t *testing.T) {
	const record = `{"type":"click","count":3,"big":9007199254740993,"huge":18446744073709551617,"price":"12.5",
		"f":2.50,"yes":true,"no":false,"nil":null,"user":{"address":{"city":"Rome"},"tags":["a","b",3]},"word":"abc",
		"len":7,"min":1,"sum":2,"any":true,"user-agent":"curl","items":[{"price":3},{"price":9}],"0":1,"when":"2026"}`
	for _, c := range []struct{ where, want string }{
		// Names of built-in functions are fields.
		{`type == "click"`, "yes"}, {`count > 2`, "yes"}, {`len == 7 and min == 1 and sum == 2`, "yes"}, {`any`, "yes"},
		{`type != "click"`, "no"}, {`"click" == type`, "yes"}, {`2 < count`, "yes"}, {`3 < count`, "no"},
		// Nested fields, in both spellings; a path through what is no object is absent.
		{`user.address.city == "Rome"`, "yes"}, {`user["address"].city == "Rome"`, "yes"}, {`$env["user-agent"] == "curl"`, "yes"},
		{`user?.address?.city == "Rome"`, "yes"}, {`word.x.y == nil`, "yes"}, {`user.nothing.city == nil`, "yes"},
		{`items[1].price == 9`, "yes"}, {`items[7].price == nil`, "yes"}, {`items[-1].price == 9`, "yes"}, {`user["address"]["x.y"] == nil`, "yes"},
		// Absent and null are nil: never equal, greater or less; false as a condition.
		{`missing == nil`, "yes"}, {`nil == missing`, "yes"}, {`nil != type`, "yes"}, {`missing == "x"`, "no"}, {`missing != "x"`, "yes"},
		{`missing > 0`, "no"}, {`missing <= 0`, "no"}, {`not (missing > 0)`, "yes"}, {`nil < missing`, "no"},
		{`missing`, "no"}, {`not missing`, "yes"}, {`missing or yes`, "yes"}, {`missing and yes`, "no"},
		{`missing contains "x"`, "no"}, {`missing matches "x"`, "no"}, {`missing in ["x"]`, "no"}, {`missing + 1 == nil`, "yes"},
		{`(missing ?? 5) == 5`, "yes"}, {`(missing ? 1 : 2) == 2`, "yes"},
		// Numbers.
		{`big == 9007199254740993`, "yes"}, {`big == 9007199254740992`, "no"}, {`big + 1 == 9007199254740994`, "yes"},
		{`huge > big`, "yes"}, {`f == 2.5`, "yes"}, {`count == 3.0`, "yes"}, {`count / 2 == 1.5`, "yes"}, {`count % 2 == 1`, "yes"},
		{`9223372036854775807 + count > 9e18`, "yes"}, {`-count == -3`, "yes"}, {`count > -1`, "yes"}, {`count ** 2 == 9`, "yes"},
		{`count in [1, 2, 3]`, "yes"}, {`count in [-3, 4]`, "no"}, {`f in [2.5]`, "yes"}, {`count in ["3"]`, "no"},
		// Strings that hold a number count as one in arithmetic and in order, not in equality.
		{`price * 100 == 1250`, "yes"}, {`price > 12`, "yes"}, {`price < 12.6`, "yes"}, {`price == 12.5`, "no"},
		{`price + 1 == 13.5`, "yes"}, {`word + "d" == "abcd"`, "yes"}, {`float(price) == 12.5`, "yes"},
		// Strings.
		{`word startsWith "ab"`, "yes"}, {`word endsWith "bc"`, "yes"}, {`word contains "x"`, "no"}, {`word not contains "x"`, "yes"},
		{`word matches "^a.c$"`, "yes"}, {`word in ["x","abc"]`, "yes"}, {`word not in ["x"]`, "yes"}, {`word < "abd"`, "yes"},
		{`upper(word) == "ABC"`, "yes"}, {`len(word) == 3`, "yes"}, {`word | upper() == "ABC"`, "yes"}, {`split(word, "b")[1] == "c"`, "yes"},
		{`"a" in user.tags`, "yes"}, {`"z" in user.tags`, "no"}, {`"city" in user.address`, "yes"},
		// Logic.
		{`yes and not no`, "yes"}, {`no or yes && true`, "yes"}, {`!yes`, "no"}, {`count > 2 and word == "abc" or no`, "yes"},
		{`1 < count < 5`, "yes"}, {`any(items, .price > 5)`, "yes"}, {`all(items, .price > 5)`, "no"}, {`any(missing, .price > 5)`, "no"},
		{`any(items, .nothing)`, "no"}, {`sum(items, .price) == 12`, "yes"}, {`count(items, .price > 5) == 1`, "yes"},
		{`word[1:] == "bc" and word[:-1] == "ab" and word[5:9] == "" and user.tags[1:2] == ["b"] and missing[1:] == nil`, "yes"},
		{`word[2:1] == ""`, "yes"}, {`word["a":] == ""`, `"a" is not a place in "abc"`}, {`count[1:] == ""`, `3 cannot be sliced`},
		{`let x = count; x * 2 == 6`, "yes"}, {`max(count, 10, missing) == 10`, "yes"}, {`round(f) == 3 and floor(f) == 2 and ceil(f) == 3 and abs(-f) == 2.5`, "yes"},
		{`string(count) == "3" and int("7") == 7 and int(f) == 2`, "yes"}, {`true`, "yes"}, {`false`, "no"},
		// What cannot be answered is the record's dead letter.
		{`word > 5`, `"abc" > 5: cannot be compared`}, {`word * 2 == 1`, `* of "abc", which is not a number`},
		{`word`, `"abc" is neither true nor false`}, {`not word`, `"abc" is neither true nor false`}, {`word and yes`, `"abc" is neither true nor false`},
		{`count startsWith "a"`, `3 startsWith "a": both must be strings`}, {`user > 5`, `an object > 5: cannot be compared`},
		{`count % 0 == 1`, `3 % 0: division by zero`}, {`lower(count) == "x"`, `3 is not a string`}, {`yes < 5`, `true < 5: cannot be compared`},
		{`any(count, # > 1)`, `3 is not an array`},
	} {
		q := compiled(t, Config{Where: c.where})
		got := "yes"
		switch out := feed(t, q, record); {
		case out.filtered == 1:
			got = "no"
		case len(out.dead) == 1:
			reason, text, _ := strings.Cut(out.dead[0], " | ")
			if reason != "--where failed: "+c.where {
				t.Errorf("%s: reason %q", c.where, reason)
			}
			got = strings.TrimPrefix(text, "--where: "+c.where+": ")
		case len(out.rows) != 1:
			t.Fatalf("%s: %+v", c.where, out)
		}
		check(t, c.where, got, c.want)
	}
}

// TestRefused holds settings that cannot be to one line with the flag and the fix.
func TestRefused(t *testing.T) {
	w := Config{Time: "ts", Window: "tumbling:1m", Aggregate: "count()"}
	with := func(f func(*Config)) Config { c := w; f(&c); return c }
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{Where: `amount + 1`}, `--where: "amount + 1" is a sum, neither true nor false: compare it with something, as in amount > 100`},
		{Config{Where: `"x"`}, `is a string, neither true nor false`},
		{Config{Where: `lengt(a) > 1`}, `--where: unknown function lengt: `},
		{Config{Where: `lenn(a) > 1`}, `did you mean "len"?`},
		{Config{Where: `now() > 1`}, `unknown function now`},
		{Config{Where: `reduce(a, 1) > 1`}, `unknown function reduce`},
		{Config{Where: `a = 1`}, `write == to compare`},
		{Config{Where: `a ==`}, `--where: "a ==": unexpected token EOF at character`},
		{Config{Where: `a.b()`}, `methods cannot be called`},
		{Config{Where: `len(a, b) == 1`}, `len takes 1 to 1 arguments, not 2`},
		{Config{Where: `a matches b`}, `write the pattern as a literal`},
		{Config{Where: `a matches "("`}, `missing closing )`},
		{Config{Where: `a; b`}, `not several separated by ;`},
		{Config{Where: `$env == nil`}, `name a field of it`},
		{Config{Where: `$env["x.y"] == 1`}, "name a field of it"},
		{Config{Time: "ts."}, `--time: the field "ts." has an empty part: write it as a or a.b`},
		{Config{Require: []string{"a > 1", "a *"}}, `--require: "a *"`},
		{Config{Select: "a, a"}, `--select: two columns are named a: give one another name with as`},
		{Config{Select: "a * 2"}, `--select: "a * 2" needs a name: a * 2 as NAME`},
		{Config{Select: "a, , b"}, `--select: the expression is empty`},
		{Config{Select: "*, *"}, `* stands twice`},
		{Config{Select: "f(a"}, `is not closed`},
		{Config{Select: "user, b", Key: []string{"usr"}}, `--key: usr is not among the names that --select keeps: did you mean "user"?`},
		{Config{Key: []string{"a,,b"}}, `--key: a field name is empty`},
		{Config{Key: []string{"a.b", "a_b"}}, `--key: a.b and a_b are both the column a_b: leave one out, or rename it with --select`},
		{with(func(c *Config) { c.Key = []string{"window.start"} }), `--key: window.start would have the same column window_start as the window's start`},
		{with(func(c *Config) { c.Key = []string{"n"}; c.Aggregate = "count() as n" }), `--aggregate: count() would have the same column n as the key n: write count() as ANOTHER_NAME`},
		{with(func(c *Config) { c.Aggregate = "sum(a), sum(a)" }), `same column sum_a as sum(a)`},
		{with(func(c *Config) { c.Aggregate = "" }), `--window: there is nothing to aggregate in the window: add --aggregate`},
		{with(func(c *Config) { c.Window = "" }), `--aggregate: there is no window to aggregate in: add --window, for example --window tumbling:1m`},
		{with(func(c *Config) { c.Window = "tumblin:1m" }), `did you mean "tumbling"?`},
		{with(func(c *Config) { c.Window = "hopping:1m/2m" }), `hop is larger than the size`},
		{with(func(c *Config) { c.Time = "" }), `--time: windows need the field that holds the event time`},
		{with(func(c *Config) { c.Aggregate = "sum()" }), `"sum()" lacks what to aggregate`},
		{with(func(c *Config) { c.Aggregate = "count(*)" }), `write count()`},
		{with(func(c *Config) { c.Aggregate = "sun(a)" }), `did you mean "sum"?`},
		{with(func(c *Config) { c.Aggregate = "amount" }), `"amount" is not an aggregate`},
		{with(func(c *Config) { c.Aggregate = "quantile(a, b)" }), `the parameter "b" is not a number`},
		{with(func(c *Config) { c.Aggregate = "quantile(a, 2)" }), `q must be between 0 and 1`},
		{with(func(c *Config) { c.TimeLayout = "unixms" }), `--time-layout: "unixms" is no layout: did you mean "unix_ms"?`},
		{with(func(c *Config) { c.TimeLayout = "15:04" }), `does not hold a whole date`},
		{Config{TimeLayout: "unix"}, `--time-layout: there is no field to read with it: add --time FIELD`},
		{Config{Time: "a..b"}, `--time:`},
	} {
		_, err := Compile(c.cfg)
		var s *SettingError
		if !errors.As(err, &s) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v:\n got %v\nwant %s", c.cfg, err, c.want)
		}
	}
}

// TestRows holds rows without windows to --select.
func TestRows(t *testing.T) {
	for _, c := range []struct {
		name   string
		cfg    Config
		record string
		want   string
	}{
		{"as it is", Config{}, `{"b":1,"a":"x"}`, `{"b":1,"a":"x"}`},
		{"one line", Config{}, "\n{ \"b\" : [1,\n 2] ,\r\n\"a\":\"x\\ny\"}\n", `{"b":[1,2],"a":"x\ny"}`},
		{"equal keys", Config{}, `{"a":1,"b":2,"a":3}`, `{"b":2,"a":3}`},
		{"in a string", Config{}, `"{\"a\":1}"`, `{"a":1}`},
		{"no HTML escapes", Config{}, `{"a":"<&>é\u00e9\u2028"}`, "{\"a\":\"<&>éé\u2028\"}"},
		{"fields", Config{Select: "b, a.c, a.c as d"}, `{"a":{"c":"x"},"b":1.50}`, `{"b":1.50,"a_c":"x","d":"x"}`},
		{"absent is null", Config{Select: "b, c"}, `{"b":true}`, `{"b":true,"c":null}`},
		{"expressions", Config{Select: `price * qty as total, upper(name) as NAME, {"a": [1, x]} as o`}, `{"price":"2.5","qty":2,"name":"a<b","x":null}`,
			`{"total":5,"NAME":"A<B","o":{"a":[1,null]}}`},
		{"star", Config{Select: "a + 1 as n, *"}, `{"a":1,"b":2}`, `{"n":2,"a":1,"b":2}`},
		{"star without the named", Config{Select: "*, a + 1 as a"}, `{"a":1,"b":2}`, `{"b":2,"a":2}`},
		{"commas inside", Config{Select: `split(a, ",")[0] as x, "a,b" as y, [1,2] as z`}, `{"a":"p,q"}`, `{"x":"p","y":"a,b","z":[1,2]}`},
		{"where sees the record", Config{Select: "a + 1 as a", Where: "a == 1"}, `{"a":1}`, `{"a":2}`},
		{"empty", Config{}, `{}`, `{}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := feed(t, compiled(t, c.cfg), c.record)
			check(t, "rows", strings.Join(out.rows, "\n"), c.want)
		})
	}
	t.Run("key", func(t *testing.T) {
		q := compiled(t, Config{Select: "lower(c) as country, *", Key: []string{"country, n"}})
		out := feed(t, q, `{"c":"IT","n":5}`, `{"c":"DE","n":"6"}`, `{"c":"DE"}`)
		check(t, "keys", out.keys, "[it|5 de|6]")
		check(t, "dead", out.dead, "[no key | no key: n]")
		check(t, "columns", q.Columns(), "[country]")
	})
}

// TestDeadLetters holds records that cannot be used to their reasons.
func TestDeadLetters(t *testing.T) {
	q := compiled(t, Config{
		Where: "kind != 'skip'", Require: []string{"amount > 0", "len(string(id)) < 5"},
		Key: []string{"user.id"}, Time: "ts", Window: "tumbling:1m", Aggregate: "sum(amount) as total, max(note)",
	})
	const ok = `{"ts":0,"user":{"id":1},"amount":1,"id":1}`
	out := feed(t, q, ok,
		`[1]`, `{"a":`, `null`, ``,
		`{"ts":0,"amount":1,"id":1}`, `{"ts":0,"user":{"id":null},"amount":1}`, `{"ts":0,"user":{"id":{}},"amount":1}`, `{"ts":0,"user":7,"amount":1}`,
		`{"user":{"id":1},"amount":1}`, `{"ts":"soon","user":{"id":1}}`, `{"ts":true,"user":{"id":1}}`, `{"ts":9999999999,"user":{"id":1}}`,
		`{"ts":0,"user":{"id":1},"kind":"skip"}`,
		`{"ts":0,"user":{"id":1},"amount":0,"id":1}`, `{"ts":0,"user":{"id":1},"id":1}`, `{"ts":0,"user":{"id":1},"amount":2,"id":123456}`,
		`{"ts":0,"user":{"id":1},"amount":"lots","id":1}`, `{"ts":0,"user":{"id":1},"amount":2,"id":1,"note":{}}`)
	check(t, "filtered", out.filtered, 1)
	check(t, "dead", strings.Join(out.dead, "\n"), strings.Join([]string{
		`undecodable | offset 0: not a JSON object`, `undecodable | offset 5: unexpected end of the record`, `undecodable | offset 0: not a JSON object`, `undecodable | offset 0: unexpected end of the record`,
		`no key | no key: user.id`, `no key | no key: user.id`, `no key | no key: user.id is an object`, `no key | no key: user.id`,
		`no event time | no event time: ts: absent`, `no event time | no event time: ts: "soon" is neither RFC 3339 nor a Unix time`,
		`no event time | no event time: ts: true is not a time`, `no event time | no event time: ts: 9999999999 is outside the years 1678 to 2261`,
		`--require: amount > 0 | --require: amount > 0 is false`, `--require: amount > 0 | --require: amount > 0 is false`,
		`--require: len(string(id)) < 5 | --require: len(string(id)) < 5 is false`,
		`--require failed: amount > 0 | --require: amount > 0: "lots" > 0: cannot be compared`,
		`--aggregate: max(note) | --aggregate: max(note): neither a number nor a string: {}`,
	}, "\n"))
}

// TestWindowRows is golden text: rows exactly as other programs read them.
func TestWindowRows(t *testing.T) {
	for _, c := range []struct {
		name    string
		cfg     Config
		records []string
		want    string
	}{
		{"default names", Config{Key: []string{"k"}, Window: "tumbling:1m",
			Aggregate: "count(), sum(value), avg(a.b), min(value), max(value), sum(value * 2 + 1)"},
			[]string{`{"ts":"2026-01-01T00:00:00Z","k":"a","value":1,"a":{"b":2}}`, `{"ts":"2026-01-01T00:00:59.999Z","k":"a","value":"3"}`},
			`{"window_start":"2026-01-01T00:00:00Z","window_end":"2026-01-01T00:01:00Z","k":"a","count":2,"sum_value":4,"avg_a_b":2,"min_value":1,"max_value":"3","sum_value_2_1":10}`},
		{"types of keys", Config{Key: []string{"a.b", "c"}, Window: "tumbling:1s", Aggregate: "count() as n"},
			[]string{`{"ts":0,"a":{"b":5},"c":true}`, `{"ts":0,"a":{"b":"5"},"c":true}`, `{"ts":0,"a":{"b":5.0},"c":true}`, `{"ts":0,"a":{"b":0.25},"c":"\u0001\n\""}`, `{"ts":0,"a":{"b":12345678901234567890},"c":false}`},
			`{"window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:00:01Z","a_b":"5","c":true,"n":1}
{"window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:00:01Z","a_b":5,"c":true,"n":2}
{"window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:00:01Z","a_b":0.25,"c":"\u0001\n\"","n":1}
{"window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:00:01Z","a_b":12345678901234567890,"c":false,"n":1}`},
		{"one total", Config{Window: "tumbling:1500ms", Aggregate: "count() as n"}, []string{`{"ts":0}`, `{"ts":1}`, `{"ts":"1.6"}`},
			`{"window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:00:01.500Z","n":2}
{"window_start":"1970-01-01T00:00:01.500Z","window_end":"1970-01-01T00:00:03Z","n":1}`},
		{"session to the nanosecond", Config{Window: "session:1s", Aggregate: "count() as n"}, []string{`{"ts":"1970-01-01T00:00:00.000001Z"}`, `{"ts":"1970-01-01T00:00:03.123456789Z"}`},
			`{"window_start":"1970-01-01T00:00:00.000001Z","window_end":"1970-01-01T00:00:01.000001Z","n":1}
{"window_start":"1970-01-01T00:00:03.123456789Z","window_end":"1970-01-01T00:00:04.123456789Z","n":1}`},
		{"select before keys and aggregates", Config{Select: "upper(k) as k, price * qty as amount", Key: []string{"k"}, Window: "tumbling:1m", Aggregate: "sum(amount + 1) as s, first(k) as f"},
			[]string{`{"ts":0,"k":"a","price":"1.5","qty":2}`, `{"ts":0,"k":"A","price":2,"qty":2}`, `{"ts":0,"k":"A","price":2}`},
			`{"window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:01:00Z","k":"A","s":9,"f":"A"}`},
		{"null, exact integers, strings", Config{Window: "tumbling:1m", Aggregate: "count(x) as n, sum(y) as s, min(x) as lo, max(x) as hi, last(x) as l, count_distinct(x) as d"},
			[]string{`{"ts":0,"x":null}`, `{"ts":0}`, `{"ts":0,"x":"b","y":"9007199254740993"}`, `{"ts":1,"x":9007199254740993,"y":1}`, `{"ts":0,"x":null}`},
			`{"window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:01:00Z","n":2,"s":9007199254740994,"lo":9007199254740993,"hi":"b","l":9007199254740993,"d":2}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.cfg.Time == "" {
				c.cfg.Time = "ts"
			}
			out := feed(t, compiled(t, c.cfg), c.records...)
			check(t, "dead", out.dead, "[]")
			check(t, "rows", strings.Join(out.rows, "\n"), c.want)
		})
	}
}

func TestDefaultNames(t *testing.T) {
	q := compiled(t, Config{Time: "ts", Key: []string{"a.b"}, Window: "hopping:1m/10s",
		Aggregate: "count(), sum(value), quantile(x, 0.99), top( x , 10 ), sum(a.b * -1), min(x) as lo, count(x)"})
	check(t, "columns", q.Columns(), "[window_start window_end a_b count sum_value quantile_x_0_99 top_x_10 sum_a_b_1 lo count_x]")
}

// TestArrivals is the event time without --time.
func TestArrivals(t *testing.T) {
	q := compiled(t, Config{Window: "tumbling:1m", Aggregate: "count()", Arrivals: true})
	d := q.newDecoder()
	var e stream.Event[Event]
	if err := d.Decode(&stream.Record{Data: []byte("{}"), Arrived: 42}, &e); err != nil || e.Time != 42 {
		t.Errorf("%v, %v", e.Time, err)
	}
	if err := d.Decode(&stream.Record{Data: []byte("{}")}, &e); !errors.Is(err, stream.ErrNoTime) {
		t.Errorf("a record without arrival: %v", err)
	}
}

func TestPlan(t *testing.T) {
	base := Config{Key: []string{"k"}, Time: "ts", Window: "tumbling:60s", Aggregate: "sum( a*b ) as s", Select: "x as a, y + 1 as other, *"}
	q := compiled(t, base)
	check(t, "plan", q.Plan(), "[{--key k} {--time ts} {--window tumbling:1m} {--aggregate sum(a * b) as s} {--select x as a}]")
	if p := q.Pipeline(); fmt.Sprint(p.Plan()) != fmt.Sprint(q.Plan()) {
		t.Errorf("the pipeline's plan is %v", p.Plan())
	}
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Where = "a > 1"; c.Require = []string{"b > 1"} }, ""},
		{func(c *Config) { c.Select = "x as a, y + 2 as other, *" }, ""},
		{func(c *Config) { c.Aggregate = "sum(a  *  b) as s"; c.Window = "tumbling:1m" }, ""},
		{func(c *Config) { c.Select = "z as a, *" }, "--select changed (x as a → z as a)"},
		{func(c *Config) { c.Window = "tumbling:5m" }, "--window changed (1m → 5m)"},
		{func(c *Config) { c.Key = nil }, "--key changed (k → none)"},
		{func(c *Config) { c.Aggregate = "count() as s" }, "--aggregate changed (sum(a * b) as s → count() as s)"},
	} {
		cfg := base
		c.change(&cfg)
		check(t, "change", q.Plan().Changed(compiled(t, cfg).Plan()), c.want)
	}
}

// TestManyLanes runs decoders of one query at once, for the race detector.
func TestManyLanes(t *testing.T) {
	q := compiled(t, Config{Where: `upper(event_type) == "VIEW" and missing == nil`, Select: "lower(ad_type) as kind, *", Key: []string{"kind"}})
	batches := ysb(4, 300)
	var kept atomic.Int64
	var lanes sync.WaitGroup
	for _, batch := range batches {
		lanes.Go(func() {
			p := q.Pipeline()
			n, err := drive(p, p.NewDecoder(), p.Operator.Lane(), make([]stream.Event[Event], len(batch)), batch)
			if err != nil {
				t.Error(err)
			}
			kept.Add(int64(n))
		})
	}
	lanes.Wait()
	if n := kept.Load(); n < 300 || n > 500 {
		t.Errorf("kept %d", n)
	}
	if a := q.Absent(); len(a) != 1 || a[0].Records != 1200 {
		t.Errorf("absent %v", a)
	}
}

func TestAbsent(t *testing.T) {
	var log bytes.Buffer
	cfg := Config{Where: `evnt_type == "view" or event_type == "x"`, Key: []string{"user"}, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	q := compiled(t, cfg)
	d, other := q.newDecoder(), q.newDecoder()
	var e stream.Event[Event]
	r := &stream.Record{Data: []byte(`{"user":"u","event_type":"view"}`)}
	for i := range Watched {
		if log.Len() > 0 {
			t.Fatalf("a warning after %d records: %s", i, &log)
		}
		if i%3 == 0 {
			_ = other.Decode(r, &e)
		} else {
			_ = d.Decode(r, &e)
		}
	}
	want := `--where names the field evnt_type, which none of the first 10000 records has: did you mean \"event_type\"?`
	if got := log.String(); strings.Count(got, "level=WARN") != 1 || !strings.Contains(got, want) {
		t.Errorf("log: %s", got)
	}
	check(t, "absent", q.Absent(), "["+strings.ReplaceAll(want, `\"`, `"`)+"]")
	if q.absent.watching.Load() {
		t.Error("still watching")
	}
	// What comes nearest may be nested; a name that --select makes later is another mistake.
	q = compiled(t, Config{Where: `user.adress.city == "x" and total > 5`, Select: "a * b as total, *"})
	d = q.newDecoder()
	_ = d.Decode(&stream.Record{Data: []byte(`{"a":1,"b":2,"user":{"address":{"city":"Rome"}}}`)}, &e)
	check(t, "absent", q.Absent(), `[--where names the field user.adress.city, which none of the first 1 records has: did you mean "user.address.city"? `+
		`--where names the field total, which none of the first 1 records has: --select, which makes it, runs later: write the expression itself]`)
	// Nothing is absent: nothing is said, and nobody watches.
	log.Reset()
	cfg.Where = "event_type == 'view'"
	q = compiled(t, cfg)
	_ = q.newDecoder().Decode(r, &e)
	if q.absent.watching.Load() || len(q.Absent()) != 0 {
		t.Errorf("absent: %v", q.Absent())
	}
}
