package query

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/compiler"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"

	"github.com/expr-lang/expr/checker"
)

// expression is one compiled expression. It is immutable; decoders share it.
type expression struct {
	flag string
	text string // as the user wrote it
	tree ast.Node
	// slot is the field's when the expression is nothing but a field, otherwise -1.
	slot int
	// quick decides the expression as a condition without the machine where it can; nil if never.
	quick condition
	// number calculates the expression without the machine where it can; nil if never, or if the
	// expression is a field.
	number numeric
	// program runs on the library's machine, with the fields it uses as the environment.
	program *vm.Program
	uses    []int
}

// syntax is how the expression language is set up for parsing: all of the library's functions are
// off, so that fields may have their names.
func syntax() *conf.Config {
	c := conf.CreateNew()
	c.DisableIfOperator = true
	c.Optimize = false
	for name := range c.Builtins {
		c.Disabled[name] = true
	}
	clear(c.Builtins)
	for name, call := range operators {
		c.Functions[name] = &builtin.Function{Name: name, Func: call}
	}
	return c
}

// parse reads an expression of a flag.
func parse(flag, text string) (ast.Node, error) {
	if strings.TrimSpace(text) == "" {
		return nil, refuse(flag, "write a condition or a value, as in amount > 100", "the expression is empty")
	}
	tree, err := parser.ParseWithConfig(text, syntax())
	if err != nil {
		return nil, syntaxError(flag, text, err)
	}
	return tree.Node, nil
}

func syntaxError(flag, text string, err error) error {
	fix := `write it like amount > 100 and user.name != "x"`
	var at *file.Error
	if errors.As(err, &at) {
		what := at.Message
		if strings.Contains(text, "=") && !strings.ContainsAny(text, "<>!") && !strings.Contains(text, "==") {
			fix = `write == to compare`
		}
		return refuse(flag, fix, "%q: %s at character %d", text, what, at.Column+1)
	}
	return refuse(flag, fix, "%q: %s", text, err)
}

// scope gives the fields that an expression names their meaning.
type scope struct {
	paths *paths
	flag  string
	names map[string]ast.Node // of --select, for what runs after it; nil before
	// closed says that names are all there are: --select has no *.
	closed bool
}

// compile compiles a parsed expression.
func (s *scope) compile(flag, text string, tree ast.Node) (*expression, error) {
	s.flag = flag
	resolved, err := s.resolve(tree, nil)
	if err != nil {
		return nil, err
	}
	x := &expression{flag: flag, text: text, tree: tree, slot: slotOf(resolved)}
	x.quick = quick(resolved)
	if x.slot < 0 {
		x.number = quickNumber(resolved)
	}
	lowered, err := lower(flag, resolved)
	if err != nil {
		return nil, err
	}
	config := syntax()
	for name, f := range functions {
		config.Functions[name] = &builtin.Function{Name: name, Func: f.call}
	}
	whole := &parser.Tree{Node: lowered, Source: file.NewSource(text)}
	if _, err := checker.Check(whole, config); err != nil {
		return nil, syntaxError(flag, text, err)
	}
	if x.program, err = compiler.Compile(whole, config); err != nil {
		return nil, syntaxError(flag, text, errors.New(strings.SplitN(err.Error(), "\n", 2)[0]))
	}
	used := map[int]bool{}
	find(resolved, func(n ast.Node) {
		if slot := slotOf(n); slot >= 0 {
			used[slot] = true
		}
	})
	x.uses = slices.Sorted(maps.Keys(used))
	return x, nil
}

// condition compiles an expression that must be true or false.
func (s *scope) condition(flag, text string) (*expression, error) {
	tree, err := parse(flag, text)
	if err != nil {
		return nil, err
	}
	if is := typeOf(tree); is != "" && is != "condition" {
		return nil, refuse(flag, "compare it with something, as in amount > 100", "%q is %s, neither true nor false", text, is)
	}
	return s.compile(flag, text, tree)
}

// typeOf says what an expression yields where that is known, otherwise nothing.
func typeOf(n ast.Node) string {
	switch n := n.(type) {
	case *ast.NilNode:
		return "nil"
	case *ast.IntegerNode, *ast.FloatNode:
		return "a number"
	case *ast.StringNode:
		return "a string"
	case *ast.ArrayNode:
		return "an array"
	case *ast.MapNode:
		return "an object"
	case *ast.BoolNode:
		return "condition"
	case *ast.UnaryNode:
		if n.Operator == "-" || n.Operator == "+" {
			return "a number"
		}
		return "condition"
	case *ast.BinaryNode:
		switch n.Operator {
		case "-", "*", "/", "%", "**", "^":
			return "a number"
		case "+":
			return "a sum"
		case "..":
			return "an array"
		case "??":
			return ""
		}
		return "condition"
	case *ast.ConditionalNode:
		if a := typeOf(n.Exp1); a == typeOf(n.Exp2) {
			return a
		}
	case *ast.VariableDeclaratorNode:
		return typeOf(n.Expr)
	case *ast.CallNode:
		if callee, ok := n.Callee.(*ast.IdentifierNode); ok {
			switch callee.Value {
			case "len", "int", "float", "abs", "round", "floor", "ceil":
				return "a number"
			case "lower", "upper", "trim", "string", "replace":
				return "a string"
			case "split":
				return "an array"
			}
		}
	case *ast.BuiltinNode:
		switch n.Name {
		case "any", "all", "none", "one":
			return "condition"
		case "count", "sum":
			return "a number"
		case "filter", "map":
			return "an array"
		}
	}
	return ""
}

// pathOf returns the keys of a.b.c or a["b"].c, if n is that.
func pathOf(n ast.Node) ([]string, bool) {
	switch n := n.(type) {
	case *ast.IdentifierNode:
		return []string{n.Value}, true
	case *ast.ChainNode:
		return pathOf(n.Node)
	case *ast.MemberNode:
		name, ok := n.Property.(*ast.StringNode)
		if !ok || n.Method || name.Value == "" || strings.Contains(name.Value, ".") {
			return nil, false
		}
		path, ok := pathOf(n.Node)
		return append(path, name.Value), ok
	}
	return nil, false
}

// slotNode is the field in a slot, in a resolved tree: $env[slot].
func slotNode(slot int, at file.Location) ast.Node {
	n := &ast.MemberNode{Node: &ast.IdentifierNode{Value: "$env"}, Property: &ast.IntegerNode{Value: slot}}
	n.SetLocation(at)
	return n
}

// slotOf is the inverse of slotNode, and -1 for every other node.
func slotOf(n ast.Node) int {
	m, ok := n.(*ast.MemberNode)
	if !ok {
		return -1
	}
	env, ok := m.Node.(*ast.IdentifierNode)
	slot, ok2 := m.Property.(*ast.IntegerNode)
	if !ok || !ok2 || env.Value != "$env" {
		return -1
	}
	return slot.Value
}

// resolve returns a copy of the tree with every field replaced by its slot, and names of --select by
// what they stand for. local holds the variables that the expression itself declares.
func (s *scope) resolve(n ast.Node, local []string) (ast.Node, error) {
	if path, ok := pathOf(n); ok && !slices.Contains(local, path[0]) {
		return s.field(n, path)
	}
	return rebuild(n, local, func(child ast.Node, local []string) (ast.Node, error) {
		return s.resolve(child, local)
	})
}

func (s *scope) field(n ast.Node, path []string) (ast.Node, error) {
	if path[0] == "$env" {
		if path = path[1:]; len(path) == 0 {
			return nil, refuse(s.flag, "name a field of it", "$env, the whole record, is not a value")
		}
	}
	if item, ok := s.names[path[0]]; ok {
		record := scope{paths: s.paths, flag: s.flag}
		if base, ok := pathOf(item); ok {
			return record.field(n, append(slices.Clone(base), path[1:]...))
		}
		whole, err := record.resolve(item, nil)
		for _, name := range path[1:] {
			whole = &ast.MemberNode{Node: whole, Property: &ast.StringNode{Value: name}}
		}
		return whole, err
	}
	if s.closed {
		return nil, refuse(s.flag, didYouMean(path[0], slices.Collect(maps.Keys(s.names)), "add it, or *, to --select"),
			"%s is not among the names that --select keeps", path[0])
	}
	slot, err := s.paths.slot(s.flag, path)
	if err != nil {
		return nil, err
	}
	return slotNode(slot, n.Location()), nil
}

// rebuild copies a node with every child replaced by f's result.
func rebuild(n ast.Node, local []string, f func(ast.Node, []string) (ast.Node, error)) (ast.Node, error) {
	var err error
	one := func(c ast.Node) ast.Node {
		if c == nil || err != nil {
			return c
		}
		var out ast.Node
		out, err = f(c, local)
		return out
	}
	all := func(cs []ast.Node) []ast.Node {
		out := make([]ast.Node, len(cs))
		for i, c := range cs {
			out[i] = one(c)
		}
		return out
	}
	var out ast.Node
	switch n := n.(type) {
	case *ast.UnaryNode:
		out = &ast.UnaryNode{Operator: n.Operator, Node: one(n.Node)}
	case *ast.BinaryNode:
		out = &ast.BinaryNode{Operator: n.Operator, Left: one(n.Left), Right: one(n.Right)}
	case *ast.ChainNode:
		out = &ast.ChainNode{Node: one(n.Node)}
	case *ast.MemberNode:
		out = &ast.MemberNode{Node: one(n.Node), Property: one(n.Property), Optional: n.Optional, Method: n.Method}
	case *ast.SliceNode:
		out = &ast.SliceNode{Node: one(n.Node), From: one(n.From), To: one(n.To)}
	case *ast.CallNode:
		out = &ast.CallNode{Callee: n.Callee, Arguments: all(n.Arguments)}
	case *ast.BuiltinNode:
		out = &ast.BuiltinNode{Name: n.Name, Arguments: all(n.Arguments)}
	case *ast.PredicateNode:
		out = &ast.PredicateNode{Node: one(n.Node)}
	case *ast.ConditionalNode:
		out = &ast.ConditionalNode{Ternary: n.Ternary, Cond: one(n.Cond), Exp1: one(n.Exp1), Exp2: one(n.Exp2)}
	case *ast.VariableDeclaratorNode:
		value := one(n.Value)
		local = append(slices.Clone(local), n.Name)
		out = &ast.VariableDeclaratorNode{Name: n.Name, Value: value, Expr: one(n.Expr)}
	case *ast.ArrayNode:
		out = &ast.ArrayNode{Nodes: all(n.Nodes)}
	case *ast.MapNode:
		out = &ast.MapNode{Pairs: all(n.Pairs)}
	case *ast.PairNode:
		out = &ast.PairNode{Key: one(n.Key), Value: one(n.Value)}
	default: // a leaf
		return n, nil
	}
	out.SetLocation(n.Location())
	return out, err
}

// find calls f for the node and all below it.
func find(n ast.Node, f func(ast.Node)) {
	f(n)
	_, _ = rebuild(n, nil, func(c ast.Node, _ []string) (ast.Node, error) {
		find(c, f)
		return c, nil
	})
}
