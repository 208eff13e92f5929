package windows

import (
	"fmt"
	"math"
	"strings"
)

// Func is a built-in aggregate. Make one with NewFunc or CountEvents.
//
//	count(x)           how many values are not null; CountEvents counts events
//	sum(x)             of numbers and numeric strings: integers exactly, however large; with a float
//	                   among them a float, by compensated summation; null without values
//	min(x), max(x)     of numbers and strings, in the type they came with: every number is smaller than
//	                   every string, equal numbers count as the integer
//	avg(x)             sum divided by count; null without values
//	stddev(x)          the sample standard deviation, as SQL's STDDEV; null below two values
//	first(x), last(x)  by event time, of any type; of events with the same time, by partition name and
//	                   then by order within the partition
//	count_distinct(x)  exact up to 512 values, then HyperLogLog with a standard error of 0.8 %; 1 and 1.0
//	                   are the same, 1 and "1" are not
//	quantile(x, q)     the value at rank ⌈q·n⌉: exact up to 64 values, then within 1 %, by DDSketch; q in [0, 1]
//	top(x, n)          the n most frequent values as [{"value":…,"count":…}, …], by count, then value;
//	                   exact while at most max(128, 10·n) values are distinct; beyond, a count may be too
//	                   small by at most the number of values divided by that, never too large; n in 1…1000
type Func struct {
	spec   *spec
	params []float64
	events bool // counts events: has no argument
	label  string
}

// spec is what functions of one name have in common.
type spec struct {
	name   string
	params []string // names of parameters, for messages
	valid  func(p []float64) string
	bare   bool // takes no argument as something to count
	check  func(v *Value) string
	column func(f *Func) column
}

var specs = []spec{
	{name: "count", bare: true, check: anything, column: func(*Func) column { return new(counts) }},
	{name: "sum", check: numeric, column: func(*Func) column { return new(sums) }},
	{name: "min", check: comparison, column: func(*Func) column { return &extremes{sign: -1} }},
	{name: "max", check: comparison, column: func(*Func) column { return &extremes{sign: 1} }},
	{name: "avg", check: numeric, column: func(*Func) column { return new(averages) }},
	{name: "stddev", check: numeric, column: func(*Func) column { return new(deviations) }},
	{name: "first", check: anything, column: func(*Func) column { return new(edges) }},
	{name: "last", check: anything, column: func(*Func) column { return &edges{last: true} }},
	{name: "count_distinct", check: anything, column: func(*Func) column { return newDistincts() }},
	{name: "quantile", params: []string{"q"}, check: numeric,
		valid: func(p []float64) string {
			if !(p[0] >= 0 && p[0] <= 1) {
				return "q must be between 0 and 1"
			}
			return ""
		},
		column: func(f *Func) column { return newQuantiles(f.params[0]) }},
	{name: "top", params: []string{"n"}, check: rankable,
		valid: func(p []float64) string {
			if !(p[0] >= 1 && p[0] <= 1000 && p[0] == math.Trunc(p[0])) {
				return "n must be a whole number between 1 and 1000"
			}
			return ""
		},
		column: func(f *Func) column { return newTops(int(f.params[0])) }},
}

// NewFunc returns the aggregate of that name. quantile takes one parameter, q; top takes one, n; the
// others take none.
func NewFunc(name string, params ...float64) (Func, error) {
	for i := range specs {
		s := &specs[i]
		if s.name != name {
			continue
		}
		if len(params) != len(s.params) {
			if len(s.params) == 0 {
				return Func{}, fmt.Errorf("aggregate %s(x) takes no parameter", name)
			}
			return Func{}, fmt.Errorf("aggregate %s: want %s(x, %s)", name, name, strings.Join(s.params, ", "))
		}
		if s.valid != nil {
			if problem := s.valid(params); problem != "" {
				return Func{}, fmt.Errorf("aggregate %s(x, %s): %s", name, strings.Join(s.params, ", "), problem)
			}
		}
		return Func{spec: s, params: params, label: name}, nil
	}
	names := make([]string, len(specs))
	for i := range specs {
		names[i] = specs[i].name
	}
	return Func{}, fmt.Errorf("unknown aggregate %q: known are %s", clip(name), strings.Join(names, ", "))
}

// CountEvents returns count() without an argument: Columns.Arg is not called for it.
func CountEvents() Func {
	return Func{spec: &specs[0], events: true, label: "count()"}
}

// Labelled returns f with the text that names it in Check's errors: "sum(value)".
func (f Func) Labelled(text string) Func {
	f.label = clip(text)
	return f
}

// Name is the function's name: "sum".
func (f Func) Name() string { return f.spec.name }

// layout tells apart functions whose state differs.
func (f *Func) layout() string {
	s := f.spec.name
	for _, p := range f.params {
		s += fmt.Sprintf("(%v)", p)
	}
	return s
}

// Check returns nil for a value that f can take; null is taken, and skipped. The error is the reason
// for a dead letter, of bounded length.
func (f Func) Check(v *Value) error {
	if v == nil || v.Kind == Null {
		return nil
	}
	if problem := f.spec.check(v); problem != "" {
		return &argumentError{f.label, problem, *v}
	}
	return nil
}

type argumentError struct {
	label, problem string
	value          Value
}

func (e *argumentError) Error() string {
	v := e.value
	v.S = clip(v.S)
	text := fmt.Sprint(v.F)
	if v.Kind != Float {
		if v.Kind == Other {
			v.Kind = String
			text = v.S
		} else {
			text = string(v.appendJSON(nil))
		}
	}
	return e.label + ": " + e.problem + ": " + text
}

func anything(v *Value) string {
	if v.Kind == Float && (math.IsNaN(v.F) || math.IsInf(v.F, 0)) {
		return "not a finite number"
	}
	return ""
}

func numeric(v *Value) string {
	if _, _, kind := v.number(); kind == Null {
		return "not a number"
	}
	return ""
}

func comparison(v *Value) string {
	if v.Kind == Other {
		return "neither a number nor a string"
	}
	return anything(v)
}

// rankBytes bounds the values that top keeps.
const rankBytes = 4096

func rankable(v *Value) string {
	if len(v.S) > rankBytes {
		return fmt.Sprintf("longer than %d bytes", rankBytes)
	}
	return anything(v)
}
