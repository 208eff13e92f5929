package query

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
)

// lower replaces the operators of a resolved tree by our own (see operators), and refuses what
// expressions may not do: call what is not in functions, or match patterns that the data brings.
func lower(flag string, n ast.Node) (ast.Node, error) {
	if slotOf(n) >= 0 {
		return n, nil
	}
	if err := allowed(flag, n); err != nil {
		return nil, err
	}
	out, err := rebuild(n, nil, func(c ast.Node, _ []string) (ast.Node, error) { return lower(flag, c) })
	if err != nil {
		return nil, err
	}
	at := n.Location()
	switch n := out.(type) {
	case *ast.ArrayNode:
		return constant(n), nil
	case *ast.ChainNode:
		return n.Node, nil
	case *ast.MemberNode:
		return call("$get", at, n.Node, n.Property), nil
	case *ast.SliceNode:
		from, to := n.From, n.To
		if from == nil {
			from = &ast.NilNode{}
		}
		if to == nil {
			to = &ast.NilNode{}
		}
		return call("$slice", at, n.Node, from, to), nil
	case *ast.UnaryNode:
		switch n.Operator {
		case "-":
			return call("$-", at, &ast.IntegerNode{Value: 0}, n.Node), nil
		case "+":
			return call("$-", at, n.Node, &ast.IntegerNode{Value: 0}), nil
		}
		n.Node = truth(n.Node)
	case *ast.ConditionalNode:
		n.Cond = truth(n.Cond)
	case *ast.BuiltinNode:
		n.Arguments[0] = call("$list", at, n.Arguments[0])
		if len(n.Arguments) > 1 && iterators[n.Name] {
			p := n.Arguments[1].(*ast.PredicateNode)
			p.Node = truth(p.Node)
		}
	case *ast.BinaryNode:
		switch n.Operator {
		case "and", "&&", "or", "||":
			n.Left, n.Right = truth(n.Left), truth(n.Right)
		case "^":
			return call("$**", at, n.Left, n.Right), nil
		case "matches":
			pattern, ok := n.Right.(*ast.StringNode)
			if !ok {
				return nil, refuse(flag, `write the pattern as a literal, as in name matches "^a"`, "matches with a pattern that is not a literal")
			}
			re, err := regexp.Compile(pattern.Value)
			if err != nil {
				return nil, refuse(flag, "see pkg.go.dev/regexp/syntax", "the pattern %q: %s", pattern.Value, err)
			}
			return call("$matches", at, n.Left, &ast.ConstantNode{Value: re}), nil
		default:
			if name := "$" + n.Operator; operators[name] != nil {
				return call(name, at, n.Left, n.Right), nil
			}
		}
	}
	return out, nil
}

// truth converts what is not already true or false.
func truth(n ast.Node) ast.Node {
	switch n := n.(type) {
	case *ast.BoolNode:
		return n
	case *ast.UnaryNode: // only not is left
		return n
	case *ast.BinaryNode:
		switch n.Operator {
		case "and", "&&", "or", "||", "==", "!=", "in":
			return n
		}
	case *ast.CallNode:
		switch n.Callee.(*ast.IdentifierNode).Value {
		case "$<", "$<=", "$>", "$>=", "$contains", "$startsWith", "$endsWith", "$matches", "$bool":
			return n
		}
	}
	return call("$bool", n.Location(), n)
}

func call(name string, at file.Location, args ...ast.Node) ast.Node {
	n := &ast.CallNode{Callee: &ast.IdentifierNode{Value: name}, Arguments: args}
	n.SetLocation(at)
	return n
}

// constant makes an array of literals once instead of at each evaluation.
func constant(n *ast.ArrayNode) ast.Node {
	values, ok := literals(n)
	if !ok {
		return n
	}
	c := &ast.ConstantNode{Value: values}
	c.SetLocation(n.Location())
	return c
}

// literals returns the values of an array that holds nothing but literals.
func literals(n *ast.ArrayNode) ([]any, bool) {
	values := make([]any, len(n.Nodes))
	for i, e := range n.Nodes {
		v, ok := literal(e)
		if !ok {
			return nil, false
		}
		values[i] = v
	}
	return values, true
}

// literal returns the value of a literal, negative numbers included.
func literal(n ast.Node) (any, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.IntegerNode:
		return n.Value, true
	case *ast.FloatNode:
		return n.Value, true
	case *ast.BoolNode:
		return n.Value, true
	case *ast.NilNode:
		return nil, true
	case *ast.UnaryNode:
		if n.Operator != "-" {
			return nil, false
		}
		switch v := n.Node.(type) {
		case *ast.IntegerNode:
			return -v.Value, true
		case *ast.FloatNode:
			return -v.Value, true
		}
	}
	return nil, false
}

func allowed(flag string, n ast.Node) error {
	switch n := n.(type) {
	case *ast.BytesNode:
		return refuse(flag, `write a string "…"`, "bytes literals are not known")
	case *ast.SequenceNode:
		return refuse(flag, "use and, or", "an expression is one value, not several separated by ;")
	case *ast.BuiltinNode:
		if _, ok := iterators[n.Name]; !ok {
			return unknownFunction(flag, n.Name)
		}
	case *ast.CallNode:
		callee, ok := n.Callee.(*ast.IdentifierNode)
		if !ok {
			return refuse(flag, "call functions as f(x), or x | f()", "methods cannot be called: %s", n.Callee)
		}
		f, ok := functions[callee.Value]
		if !ok {
			return unknownFunction(flag, callee.Value)
		}
		if got := len(n.Arguments); got < f.least || got > f.most {
			return refuse(flag, "", "%s takes %d to %d arguments, not %d", callee.Value, f.least, f.most, got)
		}
	}
	return nil
}

func unknownFunction(flag, name string) error {
	names := slices.Sorted(maps.Keys(functions))
	names = append(names, slices.Sorted(maps.Keys(iterators))...)
	return refuse(flag, didYouMean(name, names, "there are "+strings.Join(names, ", ")), "unknown function %s", name)
}
