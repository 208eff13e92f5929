package query

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser"

	"github.com/millstream/millstream/query/fields"
	"github.com/millstream/millstream/stream"
)

// generator makes random records and expressions over the same few fields.
type generator struct{ *rand.Rand }

var generatedFields = []string{"a", "b", "c.d", "c.e.f", `c["d"]`, "type", "missing", "c"}

func (g generator) pick(from ...string) string { return from[g.IntN(len(from))] }

func (g generator) json(depth int) string {
	switch n := g.IntN(12); {
	case n < 1:
		return "null"
	case n < 2:
		return g.pick("true", "false")
	case n < 6:
		return g.pick("0", "1", "-1", "2", "2.0", "2.5", "-0", "1e3", "9007199254740993", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "0.1", "1e400")
	case n < 10 || depth == 0:
		return g.pick(`""`, `"a"`, `"ab"`, `"b"`, `"2"`, `"2.5"`, `"1e1"`, `" 2"`, `"é\n"`, `"\u0061"`, `"0x1"`, `"true"`)
	case n < 11:
		return "[" + g.json(0) + ", " + g.json(0) + "]"
	}
	return g.object(depth-1, "d", "e", "f")
}

func (g generator) object(depth int, keys ...string) string {
	var parts []string
	for range g.IntN(len(keys) + 2) {
		parts = append(parts, fmt.Sprintf("%q: %s", g.pick(keys...), g.json(depth)))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func (g generator) record() string {
	if g.IntN(3) > 0 { // most of the time everything is there
		return fmt.Sprintf(`{"a":%s,"b":%s,"type":%s,"c":{"d":%s,"e":{"f":%s}}}`, g.json(1), g.json(1), g.json(1), g.json(1), g.json(1))
	}
	return g.object(2, "a", "b", "c", "type", "extra")
}

func (g generator) literal() string {
	return g.pick("0", "1", "-1", "2", "2.5", "-2.5", "1000", "9007199254740992", "9223372036854775807", `"a"`, `"ab"`, `"2"`, `""`, "true", "false", "nil")
}

// simple is an expression of the shapes that quick knows.
func (g generator) simple(depth int) string {
	if depth > 0 {
		switch g.IntN(4) {
		case 0:
			return "(" + g.simple(depth-1) + g.pick(" and ", " && ", " or ", " || ") + g.simple(depth-1) + ")"
		case 1:
			return g.pick("not ", "!") + "(" + g.simple(depth-1) + ")"
		}
	}
	field := g.pick(generatedFields...)
	switch g.IntN(10) {
	case 8, 9:
		return g.arithmetic(2) + " " + g.pick("<", "<=", ">", ">=", "==") + " " + g.arithmetic(1)
	case 0:
		return field
	case 1:
		list := make([]string, 1+g.IntN(10))
		for i := range list {
			list[i] = g.pick(`"a"`, `"ab"`, `"b"`, `"2"`)
		}
		if g.IntN(2) == 0 {
			for i := range list {
				list[i] = g.pick("0", "1", "-1", "2", "9223372036854775807")
			}
		}
		return field + g.pick(" in ", " not in ") + "[" + strings.Join(list, ", ") + "]"
	case 2:
		return field + g.pick(" startsWith ", " endsWith ", " contains ", " matches ") + g.pick(`"a"`, `"b"`, `""`, `"."`)
	case 3:
		return g.literal() + " " + g.pick("==", "!=", "<", "<=", ">", ">=") + " " + field
	}
	return field + " " + g.pick("==", "!=", "<", "<=", ">", ">=") + " " + g.literal()
}

// arithmetic is a calculation of the shapes that quickNumber knows.
func (g generator) arithmetic(depth int) string {
	if depth == 0 || g.IntN(6) == 0 {
		if g.IntN(3) == 0 {
			return g.pick("0", "1", "2", "2.5", "-3", "9007199254740993", "9223372036854775807")
		}
		return g.pick(generatedFields...)
	}
	switch g.IntN(8) {
	case 0:
		return "-(" + g.arithmetic(depth-1) + ")"
	case 1:
		return "float(" + g.arithmetic(depth-1) + ")"
	}
	return "(" + g.arithmetic(depth-1) + g.pick(" + ", " - ", " * ", " / ", " % ") + g.arithmetic(depth-1) + ")"
}

// any is an expression of any shape.
func (g generator) any(depth int) string {
	if depth == 0 || g.IntN(5) == 0 {
		if g.IntN(3) == 0 {
			return g.literal()
		}
		return g.pick(generatedFields...)
	}
	a, b := "("+g.any(depth-1)+")", "("+g.any(depth-1)+")"
	switch g.IntN(6) {
	case 0:
		return a + g.pick(" and ", " or ") + b
	case 1:
		return g.pick("not ", "-") + a
	case 2:
		return a + " ? " + b + " : " + g.any(depth-1)
	case 3:
		return a + " ?? " + b
	case 4:
		return a + g.pick(" == ", " != ", " < ", " <= ", " > ", " >= ", " startsWith ", " contains ") + b
	}
	return a + g.pick(" + ", " - ", " * ", " / ", " % ") + b
}

// machine compiles an expression as a value and returns it with a decoder to evaluate it.
func machine(t testing.TB, text string) (*expression, *decoder) {
	t.Helper()
	q, err := Compile(Config{Select: text + " as x"})
	if err != nil {
		if strings.Contains(err.Error(), "mismatched types") || strings.Contains(err.Error(), "invalid operation") {
			return nil, nil // of literals, which is seen at once
		}
		t.Fatal(err)
	}
	return q.items[0].x, q.newDecoder().(*decoder)
}

// disagreement looks for a record on which a condition answers and the machine does not say the same.
func disagreement(t *testing.T, make func(ast.Node) condition, seed uint64) string {
	g := generator{rand.New(rand.NewPCG(seed, 7))}
	answered := 0
	for range 500 {
		text := g.simple(2)
		x, d := machine(t, text)
		if x == nil || x.quick == nil {
			continue
		}
		s := scope{paths: &d.q.paths, flag: "--where"}
		resolved, err := s.resolve(x.tree, nil)
		if err != nil {
			t.Fatal(err)
		}
		decide := make(resolved)
		for range 20 {
			record := g.record()
			if err := d.scanner.Scan([]byte(record), d.slots); err != nil {
				t.Fatalf("%s: %v", record, err)
			}
			v := decide(d.slots)
			if v == unsure {
				continue
			}
			answered++
			want, err := d.eval(x)
			if err == nil {
				want, err = boolean(want)
			}
			if err != nil || want != (v == yes) {
				return fmt.Sprintf("%s on %s: the condition says %v, the machine %v, %v", text, record, v == yes, want, err)
			}
		}
	}
	if answered < 4_000 {
		t.Fatalf("only %d answers were compared", answered)
	}
	return ""
}

// TestConditionsAreTheMachine holds the shortcuts to the machine. Shortcuts that are wrong in one
// respect must be found, or the test would prove nothing.
func TestConditionsAreTheMachine(t *testing.T) {
	for seed := range uint64(2) {
		if d := disagreement(t, quick, seed); d != "" {
			t.Errorf("seed %d: %s", seed, d)
		}
	}
	for name, wrong := range map[string]func(s []fields.Value, v verdict) verdict{
		"a number that is a string": func(s []fields.Value, v verdict) verdict {
			for i := range s {
				if s[i].Kind == fields.String && s[i].Raw == "2" && v == unsure {
					return no
				}
			}
			return v
		},
		"null as true": func(s []fields.Value, v verdict) verdict {
			if len(s) == 1 && s[0].Kind == fields.Null {
				return yes
			}
			return v
		},
		"unsure as no": func(_ []fields.Value, v verdict) verdict {
			if v == unsure {
				return no
			}
			return v
		},
		"big integers": func(s []fields.Value, v verdict) verdict {
			if len(s) == 1 && s[0].Raw == "9007199254740993" {
				return yes
			}
			return v
		},
	} {
		broken := func(n ast.Node) condition {
			q := quick(n)
			return func(s []fields.Value) verdict { return wrong(s, q(s)) }
		}
		if disagreement(t, broken, 1) == "" {
			t.Errorf("conditions with %s wrong were not found out", name)
		}
	}
}

// TestCalculationsAreTheMachine is the same for numbers.
func TestCalculationsAreTheMachine(t *testing.T) {
	disagreement := func(wrong func(num) num) string {
		g := generator{rand.New(rand.NewPCG(11, 12))}
		answered := 0
		for range 800 {
			text := g.arithmetic(3)
			x, d := machine(t, text)
			if x == nil || x.number == nil {
				continue
			}
			for range 20 {
				record := g.record()
				if err := d.scanner.Scan([]byte(record), d.slots); err != nil {
					t.Fatal(err)
				}
				v := wrong(x.number(d.slots))
				if v.kind == notNumber {
					continue
				}
				answered++
				if want, err := d.eval(x); err != nil || !reflect.DeepEqual(v.any(), want) {
					return fmt.Sprintf("%s on %s: calculated %#v, the machine says %#v, %v", text, record, v.any(), want, err)
				}
			}
		}
		if answered < 3000 {
			t.Fatalf("only %d answers were compared", answered)
		}
		return ""
	}
	if d := disagreement(func(v num) num { return v }); d != "" {
		t.Error(d)
	}
	for name, wrong := range map[string]func(num) num{
		"no answer is null": func(v num) num {
			if v.kind == notNumber {
				v.kind = isNil
			}
			return v
		},
		"integers are floats": func(v num) num {
			if v.kind == isInt {
				return floatNum(float64(v.i))
			}
			return v
		},
	} {
		if disagreement(wrong) == "" {
			t.Errorf("calculations where %s were not found out", name)
		}
	}
}

// TestExpressionsAreTheirDefinition compares everything that becomes of an expression with a naive
// interpreter that follows the package comment on a map of the record.
func TestExpressionsAreTheirDefinition(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(3, 4))}
	values, failures := 0, 0
	for range 2000 {
		text := g.any(3)
		if strings.Contains(text, "--") {
			continue
		}
		x, d := machine(t, text)
		if x == nil {
			continue
		}
		tree, err := parser.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		for range 6 {
			record := g.record()
			var whole any
			decode := json.NewDecoder(strings.NewReader(record))
			decode.UseNumber()
			if err := decode.Decode(&whole); err != nil {
				t.Fatal(err)
			}
			if err := d.scanner.Scan([]byte(record), d.slots); err != nil {
				t.Fatal(err)
			}
			got, gotErr := d.eval(x)
			want, wantErr := naive{whole.(map[string]any)}.eval(tree.Node)
			if (gotErr != nil) != (wantErr != nil) || gotErr == nil && !reflect.DeepEqual(got, want) {
				t.Fatalf("%s on %s:\n got %#v, %v\nwant %#v, %v", text, record, got, gotErr, want, wantErr)
			}
			if values++; gotErr != nil {
				failures++
			}
		}
	}
	if values < 8_000 || failures < values/20 || failures > values*9/10 {
		t.Errorf("%d comparisons with %d failures: the generator has become blind", values, failures)
	}
}

// naive is the language over a map.
type naive struct{ record map[string]any }

var errNaive = errors.New("no answer")

func (o naive) number(v any) (any, bool) {
	switch v := v.(type) {
	case int, float64:
		return v, true
	case string:
		if !json.Valid([]byte(v)) || strings.TrimSpace(v) != v {
			return nil, false
		}
		var n json.Number
		if json.Unmarshal([]byte(v), &n) != nil || strings.HasPrefix(v, `"`) {
			return nil, false
		}
		return o.value(n), true
	}
	return nil, false
}

func (o naive) value(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return int(i)
		}
		f, _ := v.Float64()
		return f
	case []any:
		out := []any{}
		for _, e := range v {
			out = append(out, o.value(e))
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			out[k] = o.value(e)
		}
		return out
	}
	return v
}

func (o naive) truth(n ast.Node) (bool, error) {
	v, err := o.eval(n)
	if b, ok := v.(bool); ok || v == nil {
		return b, err
	}
	return false, errNaive
}

func (o naive) eval(n ast.Node) (any, error) {
	switch n := n.(type) {
	case *ast.NilNode:
		return nil, nil
	case *ast.BoolNode:
		return n.Value, nil
	case *ast.IntegerNode:
		return n.Value, nil
	case *ast.FloatNode:
		return n.Value, nil
	case *ast.StringNode:
		return n.Value, nil
	case *ast.IdentifierNode:
		return o.value(o.record[n.Value]), nil
	case *ast.MemberNode:
		from, err := o.eval(n.Node)
		m, _ := from.(map[string]any)
		return m[n.Property.(*ast.StringNode).Value], err
	case *ast.UnaryNode:
		if n.Operator == "-" {
			return o.binary("-", 0, n.Node)
		}
		b, err := o.truth(n.Node)
		if err != nil {
			return nil, err
		}
		return !b, nil
	case *ast.ConditionalNode:
		b, err := o.truth(n.Cond)
		if err != nil {
			return nil, err
		}
		if b {
			return o.eval(n.Exp1)
		}
		return o.eval(n.Exp2)
	case *ast.BinaryNode:
		switch n.Operator {
		case "and", "or":
			a, err := o.truth(n.Left)
			if err != nil {
				return nil, err
			}
			if a == (n.Operator == "or") {
				return a, nil
			}
			b, err := o.truth(n.Right)
			if err != nil {
				return nil, err
			}
			return b, nil
		case "??":
			a, err := o.eval(n.Left)
			if a != nil || err != nil {
				return a, err
			}
			return o.eval(n.Right)
		}
		a, err := o.eval(n.Left)
		if err != nil {
			return nil, err
		}
		return o.binary(n.Operator, a, n.Right)
	}
	return nil, fmt.Errorf("unexpected %T", n)
}

func (o naive) binary(operator string, a any, right ast.Node) (any, error) {
	b, err := o.eval(right)
	if err != nil {
		return nil, err
	}
	s, bothStrings := a.(string)
	u, ok := b.(string)
	bothStrings = bothStrings && ok
	x, okX := o.number(a)
	y, okY := o.number(b)
	i, intX := x.(int)
	j, intY := y.(int)
	ints := intX && intY
	float := func(v any) float64 {
		if n, ok := v.(int); ok {
			return float64(n)
		}
		f, _ := v.(float64)
		return f
	}
	f, h := float(x), float(y)
	switch operator {
	case "==", "!=":
		equal := reflect.DeepEqual(a, b)
		_, aString := a.(string)
		_, bString := b.(string)
		if okX && okY && !aString && !bString && !ints {
			equal = f == h
		}
		return equal == (operator == "=="), nil
	case "<", "<=", ">", ">=", "startsWith", "contains":
		if a == nil || b == nil {
			return false, nil
		}
	default:
		if a == nil || b == nil {
			return nil, nil
		}
	}
	var c int
	switch operator {
	case "startsWith", "contains":
		if !bothStrings {
			return nil, errNaive
		}
		return operator == "contains" && strings.Contains(s, u) || strings.HasPrefix(s, u), nil
	case "<", "<=", ">", ">=":
		switch {
		case bothStrings:
			c = strings.Compare(s, u)
		case !okX || !okY:
			return nil, errNaive
		case ints && i < j || !ints && f < h:
			c = -1
		case ints && i > j || !ints && f > h:
			c = 1
		}
		return c == 0 && len(operator) == 2 || c < 0 && operator[0] == '<' || c > 0 && operator[0] == '>', nil
	case "+":
		if bothStrings {
			return s + u, nil
		}
	}
	if !okX || !okY {
		return nil, errNaive
	}
	if ints {
		p, q := int64(i), int64(j)
		wide := float64(p) + float64(q)
		n := p + q
		switch operator {
		case "-":
			wide, n = float64(p)-float64(q), p-q
		case "*":
			wide, n = float64(p)*float64(q), p*q
		case "%":
			if q == 0 {
				return nil, errNaive
			}
			return int(p % q), nil
		case "/":
			if q == 0 {
				return nil, errNaive
			}
			return float64(p) / float64(q), nil
		}
		if math.Abs(wide) < 1<<62 {
			return int(n), nil
		}
		// Near the ends the exact sum decides.
		if exactly, ok := wideInt(operator, p, q); ok {
			return int(exactly), nil
		}
		return wide, nil
	}
	var r float64
	switch operator {
	case "+":
		r = f + h
	case "-":
		r = f - h
	case "*":
		r = f * h
	case "/", "%":
		if h == 0 {
			return nil, errNaive
		}
		if r = f / h; operator == "%" {
			r = math.Mod(f, h)
		}
	}
	if math.IsInf(r, 0) || math.IsNaN(r) {
		return nil, errNaive
	}
	return r, nil
}

// FuzzCompile throws text at every flag that takes text: it must compile or be refused in one line,
// and what compiles must take any record without a panic.
func FuzzCompile(f *testing.F) {
	for _, s := range []string{`a > 1 and b.c == "x"`, `a as b, *`, `sum(a) as s, quantile(b, 0.5)`, `a[1:2] + b["c"]`, `any(a, # > 1) ? 1 : 2`, `let x = a; x..b`, `((((`, `a as`, `"a`, `2006-01-02`, `a,b.c`, `{"a": 1}.a`, `a?.b ?? c`, "a\n//x", `1..1000000000`, `a | f(b)`} {
		f.Add(s, `{"a":1,"b":{"c":[1,"x"]}}`)
	}
	f.Fuzz(func(t *testing.T, text, record string) {
		window := Config{Time: "a", Window: "tumbling:1s", Aggregate: "count()"}
		aggregate, time, key, layout, sum := window, window, window, window, window
		aggregate.Aggregate, time.Time, key.Key, layout.TimeLayout, sum.Aggregate = text, text, []string{text}, text, "sum("+text+")"
		for _, cfg := range []Config{{Where: text}, {Require: []string{text}}, {Select: text}, {Select: text + " as x, *"}, {Key: []string{text}}, aggregate, time, key, layout, sum} {
			q, err := Compile(cfg)
			if err != nil {
				var s *SettingError
				if !errors.As(err, &s) || strings.ContainsAny(err.Error(), "\n\r") {
					t.Fatalf("%+v: %v", cfg, err)
				}
				continue
			}
			d := q.newDecoder()
			var e stream.Event[Event]
			if d.Decode(&stream.Record{Data: []byte(record)}, &e) == nil && !e.Value.filtered && e.Value.err == nil && !q.windowed {
				if row := e.Value.row(); !json.Valid(row) || strings.ContainsAny(string(row), "\n\r") {
					t.Fatalf("%+v on %q: row %q", cfg, record, row)
				}
			}
		}
	})
}

// wideInt is exact arithmetic near the ends of int64.
func wideInt(operator string, p, q int64) (int64, bool) {
	r, a, b := new(big.Int), big.NewInt(p), big.NewInt(q)
	switch operator {
	case "+":
		r.Add(a, b)
	case "-":
		r.Sub(a, b)
	case "*":
		r.Mul(a, b)
	}
	return r.Int64(), r.IsInt64()
}
