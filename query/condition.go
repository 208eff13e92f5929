package query

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"

	"github.com/millstream/millstream/query/fields"
)

// verdict is the answer of a condition that works on fields directly.
type verdict uint8

const (
	no verdict = iota
	yes
	// unsure leaves the answer, or the error, to the machine.
	unsure
)

func decide(b bool) verdict {
	if b {
		return yes
	}
	return no
}

// condition answers for one record without allocating. Where it answers, it answers as the machine
// does; a property test holds the two together.
type condition func(slots []fields.Value) verdict

// quick returns the condition for the common shapes of a resolved tree: comparisons of a field with
// a literal, a field in a list of literals, the string operators, the order of what is calculated from
// fields, a field that is itself true or false, and these joined by and, or, not. For other shapes it returns nil.
func quick(n ast.Node) condition {
	switch n := n.(type) {
	case *ast.BoolNode:
		v := decide(n.Value)
		return func([]fields.Value) verdict { return v }
	case *ast.MemberNode:
		slot := slotOf(n)
		if slot < 0 {
			return nil
		}
		return func(s []fields.Value) verdict {
			switch s[slot].Kind {
			case fields.True:
				return yes
			case fields.False, fields.Null, fields.Absent:
				return no
			}
			return unsure
		}
	case *ast.UnaryNode:
		if n.Operator == "not" || n.Operator == "!" {
			return negate(quick(n.Node))
		}
	case *ast.BinaryNode:
		switch n.Operator {
		case "and", "&&":
			return both(quick(n.Left), quick(n.Right))
		case "or", "||":
			return either(quick(n.Left), quick(n.Right))
		}
		if c := orderNumbers(n.Operator, n.Left, n.Right); c != nil {
			return c
		}
		if slot := slotOf(n.Left); slot >= 0 {
			return compare(slot, n.Operator, n.Right)
		}
		if slot := slotOf(n.Right); slot >= 0 {
			if mirrored, ok := mirror[n.Operator]; ok {
				return compare(slot, mirrored, n.Left)
			}
		}
	}
	return nil
}

var mirror = map[string]string{"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

func negate(a condition) condition {
	if a == nil {
		return nil
	}
	return func(s []fields.Value) verdict {
		switch a(s) {
		case yes:
			return no
		case no:
			return yes
		}
		return unsure
	}
}

func both(a, b condition) condition {
	if a == nil || b == nil {
		return nil
	}
	return func(s []fields.Value) verdict {
		if v := a(s); v != yes {
			return v
		}
		return b(s)
	}
}

func either(a, b condition) condition {
	if a == nil || b == nil {
		return nil
	}
	return func(s []fields.Value) verdict {
		if v := a(s); v != no {
			return v
		}
		return b(s)
	}
}

// compare is a field, an operator and a literal.
func compare(slot int, operator string, right ast.Node) condition {
	if a, ok := right.(*ast.ArrayNode); ok && operator == "in" {
		return among(slot, a)
	}
	value, ok := literal(right)
	if !ok {
		return nil
	}
	if operator == "!=" {
		return negate(compare(slot, "==", right))
	}
	switch value := value.(type) {
	case nil:
		if operator == "==" {
			return func(s []fields.Value) verdict { return decide(s[slot].Kind <= fields.Null) }
		}
	case bool:
		if operator == "==" {
			kind := fields.False
			if value {
				kind = fields.True
			}
			return func(s []fields.Value) verdict { return decide(s[slot].Kind == kind) }
		}
	case string:
		return compareString(slot, operator, value)
	case int:
		return compareInt(slot, operator, int64(value))
	case float64:
		return compareFloat(slot, operator, value)
	}
	return nil
}

func compareString(slot int, operator, value string) condition {
	var f func(s string) bool
	switch operator {
	case "==": // by far the most common: no call in between
		return func(s []fields.Value) verdict {
			return decide(s[slot].Kind == fields.String && s[slot].Raw == value)
		}
	case "startsWith":
		f = func(s string) bool { return strings.HasPrefix(s, value) }
	case "endsWith":
		f = func(s string) bool { return strings.HasSuffix(s, value) }
	case "contains":
		f = func(s string) bool { return strings.Contains(s, value) }
	case "matches":
		re, err := regexp.Compile(value)
		if err != nil {
			return nil // lower says so
		}
		f = re.MatchString
	case "<", "<=", ">", ">=":
		accept := accepts(operator)
		f = func(s string) bool { return accept(strings.Compare(s, value)) }
	default:
		return nil
	}
	return func(s []fields.Value) verdict {
		switch v := &s[slot]; v.Kind {
		case fields.String:
			return decide(f(v.Raw))
		case fields.Absent, fields.Null:
			return no
		}
		return unsure
	}
}

func accepts(operator string) func(int) bool {
	switch operator {
	case "==":
		return func(c int) bool { return c == 0 }
	case "<":
		return func(c int) bool { return c < 0 }
	case "<=":
		return func(c int) bool { return c <= 0 }
	case ">":
		return func(c int) bool { return c > 0 }
	case ">=":
		return func(c int) bool { return c >= 0 }
	}
	return nil
}

func compareInt(slot int, operator string, value int64) condition {
	accept := accepts(operator)
	if accept == nil {
		return nil
	}
	equality := operator == "=="
	return func(s []fields.Value) verdict {
		v := &s[slot]
		if v.Kind != fields.Number {
			return others(v, equality)
		}
		if n, ok := v.Int64(); ok {
			return decide(accept(cmp.Compare(n, value)))
		}
		if f, ok := v.Float64(); ok {
			return decide(accept(cmp.Compare(f, float64(value))))
		}
		return unsure
	}
}

func compareFloat(slot int, operator string, value float64) condition {
	accept := accepts(operator)
	if accept == nil {
		return nil
	}
	equality := operator == "=="
	return func(s []fields.Value) verdict {
		v := &s[slot]
		if v.Kind != fields.Number {
			return others(v, equality)
		}
		if n, ok := v.Int64(); ok {
			return decide(accept(cmp.Compare(float64(n), value)))
		}
		if f, ok := v.Float64(); ok {
			return decide(accept(cmp.Compare(f, value)))
		}
		return unsure
	}
}

// others compares what is no number with one: equal it never is, and in order only strings that hold
// a number can be, which is left to the machine.
func others(v *fields.Value, equality bool) verdict {
	if equality || v.Kind <= fields.Null {
		return no
	}
	return unsure
}

// among is a field in a list of strings, or of integers.
func among(slot int, list *ast.ArrayNode) condition {
	values, ok := literals(list)
	if !ok || len(values) == 0 {
		return nil
	}
	var words []string
	var numbers []int64
	for _, v := range values {
		switch v := v.(type) {
		case string:
			words = append(words, v)
		case int:
			numbers = append(numbers, int64(v))
		}
	}
	switch len(values) {
	case len(words):
		if len(words) <= 8 {
			return func(s []fields.Value) verdict {
				return decide(s[slot].Kind == fields.String && slices.Contains(words, s[slot].Raw))
			}
		}
		set := make(map[string]struct{}, len(words))
		for _, w := range words {
			set[w] = struct{}{}
		}
		return func(s []fields.Value) verdict {
			_, ok := set[s[slot].Raw]
			return decide(ok && s[slot].Kind == fields.String)
		}
	case len(numbers):
		slices.Sort(numbers)
		return func(s []fields.Value) verdict {
			v := &s[slot]
			if v.Kind != fields.Number {
				return no
			}
			n, ok := v.Int64()
			if !ok {
				return unsure
			}
			_, found := slices.BinarySearch(numbers, n)
			return decide(found)
		}
	}
	return nil
}
