package query

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
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

func add(args ...any) (any, error) {
	if a, ok := args[0].(string); ok {
		if b, ok := args[1].(string); ok {
			return a + b, nil
		}
	}
	return plus(args...)
}

var plus = arithmetic("+")

// arithmetic is calculate for the machine, with the reason where there is no answer.
func arithmetic(operator string) func(...any) (any, error) {
	op := operator[0]
	if operator == "**" {
		op = '^'
	}
	return func(args ...any) (any, error) {
		if args[0] == nil || args[1] == nil {
			return nil, nil
		}
		a, b := numOf(args[0]), numOf(args[1])
		if r := calculate(op, a, b); r.kind != notNumber {
			return r.any(), nil
		}
		switch {
		case a.kind == notNumber:
			return nil, fmt.Errorf("%s of %s, which is not a number", operator, show(args[0]))
		case b.kind == notNumber:
			return nil, fmt.Errorf("%s of %s, which is not a number", operator, show(args[1]))
		case b.float() == 0 && (op == '/' || op == '%'):
			return nil, fmt.Errorf("%s %s 0: division by zero", show(args[0]), operator)
		}
		return nil, fmt.Errorf("%s %s %s: beyond the numbers", show(args[0]), operator, show(args[1]))
	}
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
		x, y := numOf(a), numOf(b)
		if x.kind == notNumber || y.kind == notNumber {
			return nil, fmt.Errorf("%s %s %s: cannot be compared", show(a), operator, show(b))
		}
		return accept(compareNums(x, y)), nil
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
	v := numOf(args[0])
	if f := math.Trunc(v.f); v.kind == isFloat && f >= -1<<63 && f < 1<<63 {
		v = intNum(int(f))
	}
	if v.kind == isFloat || v.kind == notNumber {
		return nil, fmt.Errorf("int(%s): not a number that int64 holds", show(args[0]))
	}
	return v.any(), nil
}

func float(args ...any) (any, error) {
	switch v := numOf(args[0]); v.kind {
	case notNumber:
		return nil, fmt.Errorf("float(%s): not a number", show(args[0]))
	case isNil:
		return nil, nil
	default:
		return v.float(), nil
	}
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
	v := numOf(args[0])
	switch {
	case v.kind == notNumber:
		return nil, fmt.Errorf("abs(%s): not a number", show(args[0]))
	case v.kind == isNil:
		return nil, nil
	case v.kind == isInt && v.i != math.MinInt:
		return max(v.i, -v.i), nil
	}
	return math.Abs(v.float()), nil
}

func rounding(f func(float64) float64) func(...any) (any, error) {
	return func(args ...any) (any, error) {
		v := numOf(args[0])
		switch v.kind {
		case notNumber:
			return nil, fmt.Errorf("rounding of %s, which is not a number", show(args[0]))
		case isFloat:
			return f(v.f), nil
		}
		return v.any(), nil
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
