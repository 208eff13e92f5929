package query

import (
	"slices"
	"strconv"
	"strings"

	"github.com/expr-lang/expr/ast"

	"github.com/millstream/millstream/query/fields"
	"github.com/millstream/millstream/windows"
)

// aggregate is one function of --aggregate.
type aggregate struct {
	name string // of the column
	text string // "sum(price * quantity)"
	f    windows.Func
	x    *expression // the argument; nil for count()
	bad  string      // reason for arguments of the wrong type
	// canonical is the text without what does not matter, for the plan.
	canonical string
}

// aggregateNames are the functions of --aggregate, for suggestions; windows.NewFunc is what knows them.
var aggregateNames = []string{"count", "sum", "min", "max", "avg", "stddev", "first", "last", "count_distinct", "quantile", "top"}

// parsedAggregate is an aggregate whose argument is not compiled yet.
type parsedAggregate struct {
	aggregate
	argument string
	tree     ast.Node
}

// parseAggregates reads --aggregate.
func parseAggregates(text string) ([]parsedAggregate, error) {
	const flag = "--aggregate"
	parts, err := splitList(text)
	if err != nil {
		return nil, refuse(flag, "close it", "%q: %s", text, err)
	}
	var out []parsedAggregate
	for _, part := range parts {
		source, name := splitName(part)
		open := strings.IndexByte(source, '(')
		if open <= 0 || !strings.HasSuffix(source, ")") {
			return nil, refuse(flag, "write function(argument) as name, as in count() as n, sum(amount) as total", "%q is not an aggregate", part)
		}
		a := parsedAggregate{aggregate: aggregate{name: name, text: source, bad: flag + ": " + bounded(source)}}
		if a.name == "" {
			a.name = defaultName(source)
		}
		function, inside := strings.TrimSpace(source[:open]), strings.TrimSpace(source[open+1:len(source)-1])
		var args []string
		if inside != "" {
			if args, err = splitList(inside); err != nil {
				return nil, refuse(flag, "close it", "%q: %s", source, err)
			}
		}
		var params []float64
		for i, arg := range args {
			if i == 0 {
				a.argument = arg
				continue
			}
			p, err := strconv.ParseFloat(arg, 64)
			if err != nil {
				return nil, refuse(flag, "as in quantile(x, 0.99), top(x, 10)", "%q: the parameter %q is not a number", source, arg)
			}
			params = append(params, p)
		}
		if a.f, err = windows.NewFunc(function, params...); err != nil {
			return nil, refuse(flag, didYouMean(function, aggregateNames, ""), "%q: %s", source, err)
		}
		a.f = a.f.Labelled(source)
		a.canonical = function + "("
		switch {
		case a.argument == "" && function == "count":
			a.f = windows.CountEvents()
		case a.argument == "":
			return nil, refuse(flag, "write "+function+"(FIELD)", "%q lacks what to aggregate", source)
		case a.argument == "*":
			return nil, refuse(flag, "write count()", "%q: * is not a value", source)
		default:
			if a.tree, err = parse(flag, a.argument); err != nil {
				return nil, err
			}
			a.canonical += a.tree.String()
		}
		for _, p := range params {
			a.canonical += ", " + strconv.FormatFloat(p, 'g', -1, 64)
		}
		a.canonical += ") as " + a.name
		out = append(out, a)
	}
	return out, nil
}

// defaultName is the column of an aggregate without a name: its letters and digits, the rest as single
// underscores. quantile(x, 0.99) is quantile_x_0_99.
func defaultName(source string) string {
	var out strings.Builder
	gap := false
	for _, c := range []byte(source) {
		if c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80 {
			if gap && out.Len() > 0 {
				out.WriteByte('_')
			}
			gap = false
			out.WriteByte(c)
			continue
		}
		gap = true
	}
	return out.String()
}

// arguments evaluates what the aggregates take of a record, and appends it to d.args.
func (d *decoder) arguments() error {
	from := len(d.args)
	d.args = slices.Grow(d.args, len(d.q.aggregates))[:from+len(d.q.aggregates)]
	for i := range d.q.aggregates {
		a := &d.q.aggregates[i]
		if a.x == nil {
			continue
		}
		to := &d.args[from+i]
		if !d.calculated(a.x, to) {
			v, err := d.value(a.x)
			if err != nil {
				return err
			}
			toArgument(to, v)
		}
		if err := a.f.Check(to); err != nil {
			return &recordError{reason: a.bad, detail: "--aggregate: " + err.Error()}
		}
	}
	return nil
}

// calculated sets an argument without the machine, if that is possible.
func (d *decoder) calculated(x *expression, to *windows.Value) bool {
	if x.number == nil {
		return false
	}
	switch v := x.number(d.slots); v.kind {
	case isInt:
		*to = windows.Value{Kind: windows.Int, I: int64(v.i)}
	case isFloat:
		*to = windows.Value{Kind: windows.Float, F: v.f}
	case isNil:
		*to = windows.Value{}
	default:
		return false
	}
	return true
}

// toArgument converts a field for an aggregate. Strings stay strings, and may point into the record.
func toArgument(dst *windows.Value, v *fields.Value) {
	switch v.Kind {
	case fields.Absent, fields.Null:
		*dst = windows.Value{Kind: windows.Null}
	case fields.Number:
		if n, ok := v.Int64(); ok {
			*dst = windows.Value{Kind: windows.Int, I: n}
		} else if f, ok := v.Float64(); ok {
			*dst = windows.Value{Kind: windows.Float, F: f}
		} else {
			*dst = windows.Value{Kind: windows.Other, S: v.Raw}
		}
	case fields.String:
		*dst = windows.Value{Kind: windows.String, S: v.Raw}
	default:
		*dst = windows.Value{Kind: windows.Other, S: v.Raw}
	}
}
