package query

import (
	"cmp"
	"math"

	"github.com/expr-lang/expr/ast"

	"github.com/millstream/millstream/query/fields"
)

// num is a number of an expression, or why there is none.
type num struct {
	i    int
	f    float64
	kind numKind
}

type numKind uint8

const (
	notNumber numKind = iota // or an answer that is left to the machine
	isNil
	isInt
	isFloat
)

func intNum(i int) num       { return num{i: i, kind: isInt} }
func floatNum(f float64) num { return num{f: f, kind: isFloat} }

// float is the number as a float.
func (a num) float() float64 {
	if a.kind == isInt {
		return float64(a.i)
	}
	return a.f
}

// any is the number as the machine sees it.
func (a num) any() any {
	switch a.kind {
	case isInt:
		return a.i
	case isFloat:
		return a.f
	}
	return nil
}

// numOf converts nil, numbers, and strings that hold a JSON number.
func numOf(v any) num {
	switch v := v.(type) {
	case nil:
		return num{kind: isNil}
	case int:
		return intNum(v)
	case float64:
		return floatNum(v)
	case string:
		return parseNum(v)
	}
	return num{}
}

func parseNum(s string) num {
	if n, ok := fields.ParseInt(s); ok {
		return intNum(int(n))
	}
	if f, ok := fields.ParseFloat(s); ok {
		return floatNum(f)
	}
	return num{}
}

// compareNums compares two numbers; integers exactly.
func compareNums(a, b num) int {
	if a.kind == isInt && b.kind == isInt {
		return cmp.Compare(a.i, b.i)
	}
	return cmp.Compare(a.float(), b.float())
}

// calculate is a op b, of two numbers or nil: nil if one is nil, and notNumber where there is no
// answer, which is a division by zero or a result beyond the floats. The operator ^ is **.
func calculate(op byte, a, b num) num {
	if a.kind <= isNil || b.kind <= isNil {
		return num{kind: min(a.kind, b.kind)}
	}
	if a.kind == isInt && b.kind == isInt {
		if n, ok := exact(op, a.i, b.i); ok {
			return intNum(n)
		}
	}
	x, y := a.float(), b.float()
	var f float64
	switch op {
	case '+':
		f = x + y
	case '-':
		f = x - y
	case '*':
		f = x * y
	case '^':
		f = math.Pow(x, y)
	case '/':
		f = x / y
	case '%':
		f = math.Mod(x, y)
	}
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return num{}
	}
	return floatNum(f)
}

// exact calculates with integers; it is not ok where the result is none, or none that int64 holds.
func exact(op byte, i, j int) (int, bool) {
	switch op {
	case '+':
		n := i + j
		return n, (n > i) == (j > 0)
	case '-':
		n := i - j
		return n, (n < i) == (j > 0)
	case '*':
		if i == 0 || j == 0 {
			return 0, true
		}
		if i == math.MinInt || j == math.MinInt {
			return 0, false
		}
		n := i * j
		return n, n/j == i
	case '%':
		if j != 0 {
			return i % j, true
		}
	}
	return 0, false
}

// numeric calculates for one record without allocating; notNumber leaves it to the machine.
type numeric func(slots []fields.Value) num

// quickNumber returns the numeric of + - * / % and float() over fields and numbers, otherwise nil.
func quickNumber(n ast.Node) numeric {
	if v, ok := literal(n); ok {
		a := numOf(v)
		if a.kind < isInt {
			return nil
		}
		if _, isText := v.(string); isText {
			return nil
		}
		return func([]fields.Value) num { return a }
	}
	if slot := slotOf(n); slot >= 0 {
		return func(s []fields.Value) num { return fieldNum(&s[slot]) }
	}
	switch n := n.(type) {
	case *ast.UnaryNode:
		if a := quickNumber(n.Node); a != nil && n.Operator == "-" {
			return func(s []fields.Value) num { return calculate('-', intNum(0), a(s)) }
		}
	case *ast.CallNode:
		if callee, ok := n.Callee.(*ast.IdentifierNode); ok && callee.Value == "float" && len(n.Arguments) == 1 {
			if a := quickNumber(n.Arguments[0]); a != nil {
				return func(s []fields.Value) num {
					v := a(s)
					if v.kind == isInt {
						return floatNum(float64(v.i))
					}
					return v
				}
			}
		}
	case *ast.BinaryNode:
		a, b := quickNumber(n.Left), quickNumber(n.Right)
		if a == nil || b == nil {
			return nil
		}
		switch n.Operator {
		case "-", "*", "/", "%":
			op := n.Operator[0]
			return func(s []fields.Value) num { return calculate(op, a(s), b(s)) }
		case "+":
			left, right := slotOf(n.Left), slotOf(n.Right)
			if left < 0 || right < 0 {
				return func(s []fields.Value) num { return calculate('+', a(s), b(s)) }
			}
			return func(s []fields.Value) num {
				if s[left].Kind == fields.String && s[right].Kind == fields.String {
					return num{} // they are joined
				}
				return calculate('+', a(s), b(s))
			}
		}
	}
	return nil
}

func fieldNum(v *fields.Value) num {
	switch v.Kind {
	case fields.Absent, fields.Null:
		return num{kind: isNil}
	case fields.Number, fields.String:
		return parseNum(v.Raw)
	}
	return num{}
}

// orderNumbers is an ordering where a side is calculated.
func orderNumbers(operator string, left, right ast.Node) condition {
	accept := accepts(operator)
	if accept == nil || operator == "==" {
		return nil
	}
	calculated := func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BinaryNode:
			return true
		case *ast.UnaryNode:
			_, isLiteral := literal(n)
			return !isLiteral
		case *ast.CallNode:
			return true
		}
		return false
	}
	a, b := quickNumber(left), quickNumber(right)
	if a == nil || b == nil || !calculated(left) && !calculated(right) {
		return nil // two fields may be two strings
	}
	return func(s []fields.Value) verdict {
		x, y := a(s), b(s)
		switch {
		case x.kind == notNumber || y.kind == notNumber:
			return unsure
		case x.kind == isNil || y.kind == isNil:
			return no
		}
		return decide(accept(compareNums(x, y)))
	}
}
