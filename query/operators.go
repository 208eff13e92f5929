package query

import (
	"cmp"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/millstream/millstream/query/fields"
)

// The operators of expressions that differ from the library's own, which fails on nil and on the
// numbers that many producers write as strings. They are called by the machine under names that no
// expression can spell, and by the conditions of condition.go.
//
//	arithmetic   nil in, nil out; strings that hold a number are that number, except that + of two
//	             strings joins them; integers stay exact, and become floats where int64 ends
//	ordering     false if a side is nil; a string beside a number is converted, two strings are
//	             compared byte by byte
//	and, or, not, ?:   nil is false
//	== != in     the library's: no conversion, "5" is not 5, but 5 is 5.0
var operators = map[string]func(...any) (any, error){
	"$+":          add,
	"$-":          arithmetic("-"),
	"$*":          arithmetic("*"),
	"$/":          arithmetic("/"),
	"$%":          arithmetic("%"),
	"$**":         arithmetic("**"),
	"$<":          ordering("<", func(c int) bool { return c < 0 }),
	"$<=":         ordering("<=", func(c int) bool { return c <= 0 }),
	"$>":          ordering(">", func(c int) bool { return c > 0 }),
	"$>=":         ordering(">=", func(c int) bool { return c >= 0 }),
	"$contains":   onStrings("contains", strings.Contains),
	"$startsWith": onStrings("startsWith", strings.HasPrefix),
	"$endsWith":   onStrings("endsWith", strings.HasSuffix),
	"$matches":    matches,
	"$bool":       boolean,
	"$list":       list,
	"$get":        get,
	"$slice":      slice,
}

// functions are all that an expression can call, besides the library's predicates of iterators.
// A nil first argument gives nil.
var functions = map[string]function{
	"len":     {1, 1, length},
	"lower":   {1, 1, onString(func(s string) any { return strings.ToLower(s) })},
	"upper":   {1, 1, onString(func(s string) any { return strings.ToUpper(s) })},
	"trim":    {1, 1, onString(func(s string) any { return strings.TrimSpace(s) })},
	"split":   {2, 2, split},
	"replace": {3, 3, replace},
	"int":     {1, 1, integer},
	"float":   {1, 1, float},
	"string":  {1, 1, text},
	"abs":     {1, 1, absolute},
	"round":   {1, 1, rounding(math.Round)},
	"floor":   {1, 1, rounding(math.Floor)},
	"ceil":    {1, 1, rounding(math.Ceil)},
	"min":     {1, 16, extreme("$<")},
	"max":     {1, 16, extreme("$>")},
}

type function struct {
	least, most int // arguments
	call        func(...any) (any, error)
}

// iterators are the library's own predicates that expressions may use on arrays; the value says
// whether the predicate is a condition.
var iterators = map[string]bool{
	"all": true, "any": true, "none": true, "one": true, "filter": true, "count": true,
	"map": false, "sum": false,
}

// show prints a value for an error message, bounded.
func show(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		if len(v) > 64 {
			v = v[:64] + "…"
		}
		return strconv.Quote(v)
	case []any:
		return "an array"
	case map[string]any:
		return "an object"
	}
	return fmt.Sprint(v)
}

// number returns v as int or float64; strings that hold a JSON number count as numbers.
func number(v any) (any, bool) {
	switch v := v.(type) {
	case int, float64:
		return v, true
	case string:
		if n, ok := fields.ParseInt(v); ok {
			return int(n), true
		}
		if f, ok := fields.ParseFloat(v); ok {
			return f, true
		}
	}
	return nil, false
}

func toFloat(v any) float64 {
	if n, ok := v.(int); ok {
		return float64(n)
	}
	return v.(float64)
}

func add(args ...any) (any, error) {
	if a, ok := args[0].(string); ok {
		if b, ok := args[1].(string); ok {
			return a + b, nil
		}
	}
	return calculate("+", args[0], args[1])
}

func arithmetic(operator string) func(...any) (any, error) {
	return func(args ...any) (any, error) { return calculate(operator, args[0], args[1]) }
}

func calculate(operator string, left, right any) (any, error) {
	if left == nil || right == nil {
		return nil, nil
	}
	a, ok := number(left)
	if !ok {
		return nil, fmt.Errorf("%s of %s, which is not a number", operator, show(left))
	}
	b, ok := number(right)
	if !ok {
		return nil, fmt.Errorf("%s of %s, which is not a number", operator, show(right))
	}
	i, ok := a.(int)
	j, ok2 := b.(int)
	if ok && ok2 {
		if n, ok := exact(operator, i, j); ok {
			return n, nil
		}
	}
	x, y := toFloat(a), toFloat(b)
	var f float64
	switch operator {
	case "+":
		f = x + y
	case "-":
		f = x - y
	case "*":
		f = x * y
	case "**":
		f = math.Pow(x, y)
	default: // / and %
		if y == 0 {
			return nil, fmt.Errorf("%s %s 0: division by zero", show(left), operator)
		}
		if f = x / y; operator == "%" {
			f = math.Mod(x, y)
		}
	}
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return nil, fmt.Errorf("%s %s %s: beyond the numbers", show(left), operator, show(right))
	}
	return f, nil
}

// exact calculates with integers; it is not ok where the result is none, or none that int64 holds.
func exact(operator string, i, j int) (int, bool) {
	switch operator {
	case "+":
		n := i + j
		return n, (n > i) == (j > 0)
	case "-":
		n := i - j
		return n, (n < i) == (j > 0)
	case "*":
		if i == 0 || j == 0 {
			return 0, true
		}
		if i == math.MinInt || j == math.MinInt {
			return 0, false
		}
		n := i * j
		return n, n/j == i
	case "%":
		if j != 0 {
			return i % j, true
		}
	}
	return 0, false
}

func ordering(operator string, accept func(int) bool) func(...any) (any, error) {
	return func(args ...any) (any, error) {
		a, b := args[0], args[1]
		if a == nil || b == nil {
			return false, nil
		}
		s, ok := a.(string)
		t, ok2 := b.(string)
		if ok && ok2 {
			return accept(strings.Compare(s, t)), nil
		}
		x, ok := number(a)
		y, ok2 := number(b)
		if !ok || !ok2 {
			return nil, fmt.Errorf("%s %s %s: cannot be compared", show(a), operator, show(b))
		}
		i, ok := x.(int)
		j, ok2 := y.(int)
		if ok && ok2 {
			return accept(cmp.Compare(i, j)), nil
		}
		return accept(cmp.Compare(toFloat(x), toFloat(y))), nil
	}
}

func onStrings(operator string, f func(s, t string) bool) func(...any) (any, error) {
	return func(args ...any) (any, error) {
		if args[0] == nil || args[1] == nil {
			return false, nil
		}
		s, ok := args[0].(string)
		t, ok2 := args[1].(string)
		if !ok || !ok2 {
			return nil, fmt.Errorf("%s %s %s: both must be strings", show(args[0]), operator, show(args[1]))
		}
		return f(s, t), nil
	}
}

func matches(args ...any) (any, error) {
	switch s := args[0].(type) {
	case nil:
		return false, nil
	case string:
		return args[1].(*regexp.Regexp).MatchString(s), nil
	}
	return nil, fmt.Errorf("matches of %s, which is not a string", show(args[0]))
}

func boolean(args ...any) (any, error) {
	switch b := args[0].(type) {
	case nil:
		return false, nil
	case bool:
		return b, nil
	}
	return nil, fmt.Errorf("%s is neither true nor false", show(args[0]))
}

func list(args ...any) (any, error) {
	switch l := args[0].(type) {
	case nil:
		return []any{}, nil
	case []any:
		return l, nil
	}
	return nil, fmt.Errorf("%s is not an array", show(args[0]))
}

// get is x.name and x[i]: nil where there is nothing.
func get(args ...any) (any, error) {
	switch from := args[0].(type) {
	case map[string]any:
		if name, ok := args[1].(string); ok {
			return from[name], nil
		}
	case []any:
		if i, ok := args[1].(int); ok {
			if i < 0 {
				i += len(from)
			}
			if i < 0 || i >= len(from) {
				return nil, nil
			}
			return from[i], nil
		}
	case nil:
		return nil, nil
	}
	if _, ok := args[1].(string); ok {
		return nil, nil // a path through something that is no object leads nowhere
	}
	return nil, fmt.Errorf("%s has no element %s", show(args[0]), show(args[1]))
}

// slice is x[from:to], of an array or of the characters of a string; what lies outside is left out.
func slice(args ...any) (any, error) {
	bounds := func(n int) (int, int, error) {
		at := [2]int{0, n}
		for i, arg := range args[1:] {
			switch b := arg.(type) {
			case nil:
			case int:
				if b < 0 {
					b += n
				}
				at[i] = min(max(b, 0), n)
			default:
				return 0, 0, fmt.Errorf("%s is not a place in %s", show(arg), show(args[0]))
			}
		}
		return min(at[0], at[1]), at[1], nil
	}
	switch v := args[0].(type) {
	case nil:
		return nil, nil
	case []any:
		from, to, err := bounds(len(v))
		return v[from:to], err
	case string:
		r := []rune(v)
		from, to, err := bounds(len(r))
		return string(r[from:to]), err
	}
	return nil, fmt.Errorf("%s cannot be sliced", show(args[0]))
}

func onString(f func(string) any) func(...any) (any, error) {
	return func(args ...any) (any, error) {
		switch s := args[0].(type) {
		case nil:
			return nil, nil
		case string:
			return f(s), nil
		}
		return nil, fmt.Errorf("%s is not a string", show(args[0]))
	}
}

func length(args ...any) (any, error) {
	switch v := args[0].(type) {
	case nil:
		return nil, nil
	case string:
		return utf8.RuneCountInString(v), nil
	case []any:
		return len(v), nil
	case map[string]any:
		return len(v), nil
	}
	return nil, fmt.Errorf("%s has no length", show(args[0]))
}

func split(args ...any) (any, error) {
	if args[0] == nil {
		return nil, nil
	}
	s, ok := args[0].(string)
	by, ok2 := args[1].(string)
	if !ok || !ok2 {
		return nil, fmt.Errorf("split of %s by %s: both must be strings", show(args[0]), show(args[1]))
	}
	parts := strings.Split(s, by)
	out := make([]any, len(parts))
	for i, p := range parts {
		out[i] = p
	}
	return out, nil
}

func replace(args ...any) (any, error) {
	if args[0] == nil {
		return nil, nil
	}
	s, ok := args[0].(string)
	old, ok2 := args[1].(string)
	with, ok3 := args[2].(string)
	if !ok || !ok2 || !ok3 {
		return nil, fmt.Errorf("replace in %s: all three must be strings", show(args[0]))
	}
	return strings.ReplaceAll(s, old, with), nil
}

func integer(args ...any) (any, error) {
	if args[0] == nil {
		return nil, nil
	}
	v, ok := number(args[0])
	if f, isFloat := v.(float64); isFloat {
		f = math.Trunc(f)
		if ok = f >= -1<<63 && f < 1<<63; ok {
			v = int(f)
		}
	}
	if !ok {
		return nil, fmt.Errorf("int(%s): not a number that int64 holds", show(args[0]))
	}
	return v, nil
}

func float(args ...any) (any, error) {
	if args[0] == nil {
		return nil, nil
	}
	v, ok := number(args[0])
	if !ok {
		return nil, fmt.Errorf("float(%s): not a number", show(args[0]))
	}
	return toFloat(v), nil
}

func text(args ...any) (any, error) {
	switch v := args[0].(type) {
	case nil, string:
		return v, nil
	}
	out, err := appendAny(nil, args[0])
	return string(out), err
}

func absolute(args ...any) (any, error) {
	if args[0] == nil {
		return nil, nil
	}
	v, ok := number(args[0])
	if !ok {
		return nil, fmt.Errorf("abs(%s): not a number", show(args[0]))
	}
	if n, ok := v.(int); ok && n != math.MinInt {
		return max(n, -n), nil
	}
	return math.Abs(toFloat(v)), nil
}

func rounding(f func(float64) float64) func(...any) (any, error) {
	return func(args ...any) (any, error) {
		if args[0] == nil {
			return nil, nil
		}
		v, ok := number(args[0])
		if !ok {
			return nil, fmt.Errorf("rounding of %s, which is not a number", show(args[0]))
		}
		if n, ok := v.(int); ok {
			return n, nil
		}
		return f(toFloat(v)), nil
	}
}

// extreme is min or max of its arguments; nil ones are skipped.
func extreme(operator string) func(...any) (any, error) {
	return func(args ...any) (any, error) {
		var best any
		for _, a := range args {
			if a == nil {
				continue
			}
			better, err := operators[operator](a, best)
			if err != nil {
				return nil, err
			}
			if best == nil || better.(bool) {
				best = a
			}
		}
		return best, nil
	}
}
