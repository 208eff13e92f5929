package windows

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millstream/millstream/stream"
)

// fold folds values, one a nanosecond, with random splits into lanes and slices, and returns the JSON.
func fold(t testing.TB, f Func, rng *rand.Rand, values ...Value) string {
	t.Helper()
	size := stream.Instant(len(values) + 1)
	op := columnsOf(Hopping(time.Duration(size), time.Duration(size)), f)
	fl := newFleet(t, op, func(r *Result) string { return string(r.AppendValue(nil, 0)) })
	for i := range values {
		p := "p0"
		if rng != nil {
			p = fmt.Sprint("p", rng.IntN(4))
		}
		fl.add(p, stream.Event[args]{Key: "k", Time: stream.Instant(i), Value: args{values[i]}})
		if rng != nil && rng.IntN(100) == 0 {
			fl.restart(p)
		}
	}
	for _, p := range fl.names {
		fl.freeze(p, stream.EndOfTime)
	}
	fl.advance(stream.EndOfTime, false)
	if len(fl.rows) != 1 {
		t.Fatalf("%d rows", len(fl.rows))
	}
	return fl.rows[0]
}

func TestFuncs(t *testing.T) {
	obj := Value{Kind: Other, S: "{\"a\":\n [1, 2]}"}
	yes := Value{Kind: Other, S: "true"}
	const big = 1<<53 + 1
	for _, c := range []struct {
		f      string
		params []float64
		values []Value
		want   string
	}{
		{"count", nil, []Value{num(1), {}, str(""), obj}, "3"},
		{"count", nil, []Value{{}}, "0"},
		{"sum", nil, []Value{{}}, "null"},
		{"sum", nil, []Value{num(big), num(2)}, "9007199254740995"},
		{"sum", nil, []Value{num(math.MaxInt64), num(math.MaxInt64), num(math.MaxInt64)}, "27670116110564327421"},
		{"sum", nil, []Value{num(math.MinInt64), num(math.MinInt64), num(-1)}, "-18446744073709551617"},
		{"sum", nil, []Value{num(math.MaxInt64), num(math.MaxInt64), num(math.MinInt64), num(math.MinInt64)}, "-2"},
		{"sum", nil, []Value{str("12.5"), num(1)}, "13.5"},
		{"sum", nil, []Value{str("12"), num(1)}, "13"},
		{"sum", nil, []Value{num(1), flt(2)}, "3"},
		{"sum", nil, []Value{flt(1e16), flt(1), flt(-1e16)}, "1"},
		{"sum", nil, []Value{flt(0.1), flt(0.2), flt(0.3), flt(-0.6)}, "2.7755575615628914e-17"},
		{"sum", nil, []Value{flt(1e308), flt(1e308)}, "null"},
		{"sum", nil, []Value{num(big), flt(0.5)}, "9007199254740994"},
		{"sum", nil, []Value{num(math.MaxInt64), num(math.MaxInt64), num(math.MaxInt64), flt(0.5)}, "27670116110564327000"},
		{"min", nil, []Value{num(3), num(-2), num(5)}, "-2"},
		{"max", nil, []Value{num(3), num(-2), num(5)}, "5"},
		{"min", nil, []Value{num(big), flt(1 << 53)}, "9007199254740992"},
		{"max", nil, []Value{flt(1 << 53), num(big)}, "9007199254740993"},
		{"min", nil, []Value{str("b"), str("a"), {}}, `"a"`},
		{"min", nil, []Value{str("a"), num(9)}, "9"},
		{"max", nil, []Value{str("a"), num(9)}, `"a"`},
		{"max", nil, []Value{flt(1), num(1)}, "1"},
		{"min", nil, []Value{flt(2.5), flt(math.Copysign(0, -1)), flt(0)}, "-0"},
		{"min", nil, []Value{{}}, "null"},
		{"avg", nil, []Value{num(1), num(2), {}, str("6")}, "3"},
		{"avg", nil, []Value{num(math.MaxInt64), num(math.MaxInt64)}, "9223372036854776000"},
		{"avg", nil, []Value{{}}, "null"},
		{"stddev", nil, []Value{num(2), num(4), num(4), num(4), num(5), num(5), num(7), num(9)}, "2.138089935299395"},
		{"stddev", nil, []Value{num(2)}, "null"},
		{"stddev", nil, []Value{str("2"), flt(2)}, "0"},
		{"first", nil, []Value{{}, str("x\n\"é\xff"), num(2)}, `"x\n\"é\ufffd"`},
		{"last", nil, []Value{num(1), obj, {}}, `{"a":[1,2]}`},
		{"last", nil, []Value{num(1), yes}, "true"},
		{"first", nil, []Value{{}}, "null"},
		{"count_distinct", nil, []Value{num(1), flt(1), str("1"), yes, str("true"), {}, num(2)}, "5"},
		{"count_distinct", nil, []Value{{}}, "0"},
		{"quantile", []float64{0.5}, []Value{num(100)}, "100"},
		{"quantile", []float64{0.5}, []Value{{}}, "null"},
		{"quantile", []float64{0}, []Value{num(-5), num(0), num(5)}, "-5"},
		{"quantile", []float64{0.5}, []Value{num(-5), num(0), num(5)}, "0"},
		{"quantile", []float64{0.9}, []Value{num(-7), num(20)}, "20"},
		{"quantile", []float64{0.5}, []Value{num(3), num(1), num(2)}, "2"},
		{"quantile", []float64{0.5}, []Value{num(4), num(1), num(2), num(3)}, "2"},
		{"quantile", []float64{1}, []Value{num(-5), flt(math.MaxFloat64)}, "1.7976931348623157e+308"},
		{"top", []float64{2}, []Value{str("a"), str("b"), str("b"), num(1), num(1), flt(1), str("c")}, `[{"value":1,"count":3},{"value":"b","count":2}]`},
		{"top", []float64{3}, []Value{str("b"), str("a"), num(9)}, `[{"value":9,"count":1},{"value":"a","count":1},{"value":"b","count":1}]`},
		{"top", []float64{3}, []Value{{}}, `[]`},
	} {
		got := fold(t, mustFunc(t, c.f, c.params...), nil, c.values...)
		if got != c.want {
			t.Errorf("%s%v of %v: got %s, want %s", c.f, c.params, c.values, got, c.want)
		}
		if !json.Valid([]byte(got)) {
			t.Errorf("%s is not JSON", got)
		}
	}
}

func TestNewFunc(t *testing.T) {
	for _, c := range []struct {
		name   string
		params []float64
		want   string
	}{
		{"mode", nil, "known are count, sum, min, max, avg, stddev, first, last, count_distinct, quantile, top"},
		{"quantile", nil, "want quantile(x, q)"},
		{"quantile", []float64{1.5}, "q must be between 0 and 1"},
		{"quantile", []float64{math.NaN()}, "q must be between 0 and 1"},
		{"top", []float64{0}, "between 1 and 1000"},
		{"top", []float64{2.5}, "whole number"},
		{"sum", []float64{1}, "takes no parameter"},
	} {
		if _, err := NewFunc(c.name, c.params...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s%v: got %v, want …%s…", c.name, c.params, err, c.want)
		}
	}
}

func TestCheck(t *testing.T) {
	long := str(strings.Repeat("x", 1<<20))
	for _, c := range []struct {
		f    string
		v    Value
		want string // empty: taken
	}{
		{"sum", Value{}, ""},
		{"sum", num(1), ""},
		{"sum", str("-1.5e3"), ""},
		{"sum", str("+7"), ""},
		{"sum", str("abc"), `sum(value): not a number: "abc"`},
		{"sum", str(""), `sum(value): not a number: ""`},
		{"sum", str("0x10"), "not a number"},
		{"sum", str("1_000"), "not a number"},
		{"sum", str("Inf"), "not a number"},
		{"sum", str("NaN"), "not a number"},
		{"sum", str("1e999"), "not a number"},
		{"sum", str(" 1"), "not a number"},
		{"sum", str("1-2"), "not a number"},
		{"sum", str("e"), "not a number"},
		{"sum", flt(math.NaN()), "sum(value): not a number: NaN"},
		{"sum", Value{Kind: Other, S: "true"}, "sum(value): not a number: true"},
		{"avg", long, "not a number"},
		{"stddev", str("x"), "not a number"},
		{"min", str("x"), ""},
		{"max", Value{Kind: Other, S: "[]"}, "neither a number nor a string: []"},
		{"min", flt(math.Inf(1)), "not a finite number"},
		{"first", Value{Kind: Other, S: "[]"}, ""},
		{"count", Value{Kind: Other, S: "[]"}, ""},
		{"count_distinct", Value{Kind: Other, S: "[]"}, ""},
	} {
		err := mustFunc(t, c.f).Labelled(c.f + "(value)").Check(&c.v)
		switch {
		case c.want == "" && err != nil, c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s of %.40v: got %v, want …%s…", c.f, c.v, err, c.want)
		case err != nil && len(err.Error()) > 300:
			t.Errorf("a reason of %d bytes", len(err.Error()))
		}
	}
	if err := mustFunc(t, "top", 3).Check(&long); err == nil || !strings.Contains(err.Error(), "longer than 4096 bytes") {
		t.Error(err)
	}
	if err := CountEvents().Check(nil); err != nil {
		t.Error(err)
	}
}

// Sketches: within their stated errors, and the same however values are split.
func TestSketches(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 511, 512, 513, 20_000} {
		var values []Value
		for i := range n {
			values = append(values, num(int64(i)), str(fmt.Sprint("s", i%(n/2+1))))
		}
		rng.Shuffle(len(values), func(i, j int) { values[i], values[j] = values[j], values[i] })
		distinct := n + min(n, n/2+1)
		a := fold(t, mustFunc(t, "count_distinct"), rng, values...)
		if b := fold(t, mustFunc(t, "count_distinct"), rng, values...); a != b {
			t.Errorf("count_distinct of %d: %s and %s", distinct, a, b)
		}
		got, _ := strconv.Atoi(a)
		bound := 0.0
		if distinct > distinctExact {
			bound = 4 * 1.04 / math.Sqrt(1<<distinctPrecision)
		}
		if math.Abs(float64(got-distinct)) > bound*float64(distinct) {
			t.Errorf("count_distinct of %d is %d", distinct, got)
		}
	}
	var values []Value
	var sorted []float64
	for range 20_000 {
		sorted = append(sorted, math.Exp(rng.NormFloat64()*3)*float64(1-2*rng.IntN(2)))
		values = append(values, flt(sorted[len(sorted)-1]))
	}
	slices.Sort(sorted)
	for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.999, 1} {
		f := mustFunc(t, "quantile", q)
		if a, b := fold(t, f, rng, values...), fold(t, f, rng, values...); a != b {
			t.Errorf("quantile %v: %s and %s", q, a, b)
		} else if got, want := parseFloat(t, a), sorted[max(0, int(math.Ceil(q*20_000))-1)]; math.Abs(got-want) > quantileAccuracy*1.0001*math.Abs(want) {
			t.Errorf("quantile %v is %v, want about %v", q, got, want)
		}
	}
}

// TestTopError checks the stated error of top beyond its capacity, for a skewed stream.
func TestTopError(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	zipf := rand.NewZipf(rng, 1.3, 1, 5000)
	exact := map[int64]int64{}
	var values []Value
	for range 50_000 {
		v := int64(zipf.Uint64())
		exact[v]++
		values = append(values, num(v))
	}
	var got []struct {
		Value, Count int64
	}
	if err := json.Unmarshal([]byte(fold(t, mustFunc(t, "top", 10), rng, values...)), &got); err != nil {
		t.Fatal(err)
	}
	bound := int64(len(values) / (128 + 1))
	if len(exact) <= 128 || len(got) != 10 {
		t.Fatalf("%d distinct values, %d ranked", len(exact), len(got))
	}
	approximate := false
	for _, g := range got {
		if missing := exact[g.Value] - g.Count; missing < 0 || missing > bound {
			t.Errorf("%d counted %d, is %d: the bound is %d", g.Value, g.Count, exact[g.Value], bound)
		} else if missing > 0 {
			approximate = true
		}
	}
	if !approximate {
		t.Error("every count is exact: the capacity was not exceeded")
	}
}

func parseFloat(t *testing.T, text string) float64 {
	t.Helper()
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
