package query

import (
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"

	"github.com/millstream/millstream/query/fields"
	"github.com/millstream/millstream/stream"
	"github.com/millstream/millstream/windows"
)

// Config is the text of the flags. Zero fields are flags that were not given.
type Config struct {
	Where   string   // a condition on the record; false: filtered
	Require []string // conditions on the record; false: dead-lettered
	Select  string   // "expr as name, field, *"; default *
	Key     []string // field paths, each entry one or several with commas; none: one total
	Time    string   // field path of the event time
	// TimeLayout is a Go layout, or unix, unix_ms, unix_us, unix_ns. Default: RFC 3339, or a Unix time
	// whose unit is told by its size, as a number or a string.
	TimeLayout string
	Window     string // "tumbling:1m", "hopping:1m/10s", "session:30s"; default: no windows
	Aggregate  string // "count() as n, sum(expr) as total"; needs Window
	Enrich     []Enrichment

	// Arrivals says that the source stamps its records with their arrival (Record.Arrived). It is then
	// the event time when Time is empty. Without either, a window is refused.
	Arrivals bool
	// Logger gets the warning about fields that no record has; default slog.Default().
	Logger *slog.Logger
}

// Query is a compiled Config. It is immutable but for its statistics; everything may be called
// concurrently.
type Query struct {
	paths      paths
	plan       *fields.Plan
	where      []*expression // all must hold
	require    []requirement
	items      []item // of rows without windows
	star       bool   // items has a *
	selected   map[string]bool
	keys       []keyColumn
	time       *expression
	clock      clock
	windowed   bool
	operator   stream.Operator[Event, Result]
	aggregates []aggregate
	heads      []string // `,"name":` of the keys and aggregates in window rows
	columns    []string
	settings   stream.Plan
	absent     absence

	joins       []*Join
	joined      []bool        // by slot: it is filled from a row, not from the record
	whereJoined []*expression // of where, what waits for rows
	early       int           // how many of require do not
	keyJoined   bool          // the key waits for rows
}

type requirement struct {
	x     *expression
	unmet error // the dead letter's reason
}

// Compile checks every setting and compiles it. The error is a *SettingError, one line that names
// the flag and the fix.
func Compile(cfg Config) (*Query, error) {
	q := &Query{selected: map[string]bool{}}
	if err := q.compile(cfg); err != nil {
		return nil, err
	}
	if err := q.settleJoins(); err != nil {
		return nil, err
	}
	var err error
	if q.plan, err = fields.Compile(q.paths.list...); err != nil {
		return nil, refuse("--where", "name fewer fields", "%s", err)
	}
	q.absent.init(q, cfg.Logger)
	return q, nil
}

func (q *Query) compile(cfg Config) error {
	if err := q.compileJoins(cfg); err != nil {
		return err
	}
	record := &scope{paths: &q.paths}
	if strings.TrimSpace(cfg.Where) != "" {
		if err := q.compileWhere(record, cfg.Where); err != nil {
			return err
		}
	}
	for _, text := range cfg.Require {
		x, err := record.condition("--require", text)
		if err != nil {
			return err
		}
		reason := "--require: " + bounded(text)
		q.require = append(q.require, requirement{x, &recordError{reason, reason + " is false"}})
	}
	selected, err := q.compileSelection(cfg)
	if err != nil {
		return err
	}
	if err := q.compileKeys(cfg, selected); err != nil {
		return err
	}
	if err := q.compileTime(cfg, selected); err != nil {
		return err
	}
	if err := q.compileWindow(cfg, selected); err != nil {
		return err
	}
	q.settle(cfg)
	return nil
}

// compileWhere compiles --where, with enrichments in the parts that decide one after the other, so that a
// record which the first of them excludes need not be looked up.
func (q *Query) compileWhere(record *scope, text string) error {
	whole, err := record.condition("--where", text)
	if err != nil {
		return err
	}
	q.where = []*expression{whole}
	if len(q.joins) == 0 {
		return nil
	}
	q.where = nil
	for _, part := range conjuncts(whole.tree) {
		x, err := record.compile("--where", text, part)
		if err != nil {
			return err
		}
		q.where = append(q.where, x)
	}
	return nil
}

// compileSelection compiles --select, and returns the scope of what runs after it.
func (q *Query) compileSelection(cfg Config) (*scope, error) {
	items, err := parseSelection(cfg.Select)
	if err != nil {
		return nil, err
	}
	after := &scope{paths: &q.paths, names: map[string]ast.Node{}, closed: true}
	windowed := cfg.Window != ""
	for i := range items {
		it := &items[i]
		if it.star {
			q.star, after.closed = true, false
			continue
		}
		// With a window only what keys and aggregates name is read, so the paths of the rest are
		// compiled for their errors alone.
		record := &scope{paths: &q.paths}
		if windowed {
			record.paths = new(paths)
		}
		if it.x, err = record.compile("--select", it.text, it.tree); err != nil {
			return nil, err
		}
		after.names[it.name], q.selected[it.name] = it.tree, true
	}
	if !windowed {
		q.items = items
	}
	return after, nil
}

func (q *Query) compileKeys(cfg Config, selected *scope) error {
	const flag = "--key"
	taken := map[string]string{}
	for _, entry := range cfg.Key {
		for _, field := range strings.Split(entry, ",") {
			field = strings.TrimSpace(field)
			if field == "" {
				return refuse(flag, "write FIELD or FIELD,FIELD", "a field name is empty in %q", entry)
			}
			tree, err := pathTree(flag, field)
			if err != nil {
				return err
			}
			x, err := selected.compile(flag, field, tree)
			if err != nil {
				return err
			}
			name := strings.ReplaceAll(field, ".", "_")
			if other, ok := taken[name]; ok {
				return refuse(flag, "leave one out, or rename it with --select", "%s and %s are both the column %s", other, field, name)
			}
			taken[name] = field
			q.keys = append(q.keys, keyColumn{field: field, name: name, x: x})
		}
	}
	return nil
}

// pathTree is the expression of a field path, whose segments may be any text.
func pathTree(flag, path string) (ast.Node, error) {
	var n ast.Node
	for i, key := range strings.Split(path, ".") {
		switch {
		case key == "":
			return nil, refuse(flag, "write it as a or a.b", "the field %q has an empty part", path)
		case i == 0:
			n = &ast.IdentifierNode{Value: key}
		default:
			n = &ast.MemberNode{Node: n, Property: &ast.StringNode{Value: key}}
		}
	}
	return n, nil
}

// compileTime reads --time. Unlike a key, a time that --select drops is read from the record.
func (q *Query) compileTime(cfg Config, selected *scope) error {
	const flag = "--time"
	field := strings.TrimSpace(cfg.Time)
	if field == "" {
		if cfg.TimeLayout != "" {
			return refuse("--time-layout", "add --time FIELD", "there is no field to read with it")
		}
		if cfg.Window != "" && !cfg.Arrivals {
			return refuse(flag, "add --time FIELD", "windows need the field that holds the event time, and this source does not say when records arrived")
		}
		return nil
	}
	var err error
	if q.clock, err = newClock(cfg.TimeLayout); err != nil {
		return err
	}
	tree, err := pathTree(flag, field)
	if err != nil {
		return err
	}
	if path, _ := pathOf(tree); q.join(path[0]) != nil {
		return refuse(flag, "name a field of the record", "%s comes from --enrich, and the watermark moves before anything is looked up", field)
	}
	open := *selected
	open.closed = false
	q.time, err = open.compile(flag, field, tree)
	return err
}

func (q *Query) compileWindow(cfg Config, selected *scope) error {
	hasAggregates := strings.TrimSpace(cfg.Aggregate) != ""
	if cfg.Window == "" {
		if hasAggregates {
			return refuse("--aggregate", "add --window, for example --window tumbling:1m", "there is no window to aggregate in")
		}
		return nil
	}
	w, err := windows.Parse(cfg.Window)
	if err != nil {
		kind, _, _ := strings.Cut(cfg.Window, ":")
		return refuse("--window", didYouMean(kind, []string{"tumbling", "hopping", "session"}, ""), "%s", err)
	}
	if !hasAggregates {
		return refuse("--window", "add --aggregate, for example --aggregate 'count() as n'", "there is nothing to aggregate in the window")
	}
	parsed, err := parseAggregates(cfg.Aggregate)
	if err != nil {
		return err
	}
	taken := map[string]string{"window_start": "the window's start", "window_end": "the window's end"}
	for _, k := range q.keys {
		if other, ok := taken[k.name]; ok {
			return refuse("--key", "rename it with --select", "%s would have the same column %s as %s", k.field, k.name, other)
		}
		taken[k.name] = "the key " + k.field
	}
	columns := &windows.Columns[Event]{Windows: w, Arg: (*Event).argument}
	for _, p := range parsed {
		if p.tree != nil {
			if p.x, err = selected.compile("--aggregate", p.argument, p.tree); err != nil {
				return err
			}
		}
		if other, ok := taken[p.name]; ok {
			return refuse("--aggregate", "write "+p.text+" as ANOTHER_NAME", "%s would have the same column %s as %s", p.text, p.name, other)
		}
		taken[p.name] = p.text
		columns.Funcs = append(columns.Funcs, p.f)
		q.aggregates = append(q.aggregates, p.aggregate)
	}
	if err := columns.Validate(); err != nil {
		return refuse("--window", "", "%s", err)
	}
	q.windowed = true
	q.operator = &windowOperator{columns: columns, plan: &q.settings}
	return nil
}

// settle fills in what follows from the rest: columns, and the plan (A8).
func (q *Query) settle(cfg Config) {
	set := func(name, value string) {
		if value != "" {
			q.settings = append(q.settings, stream.Setting{Name: name, Value: value})
		}
	}
	var keys, aggregates []string
	for _, k := range q.keys {
		keys = append(keys, k.field)
	}
	set("--key", strings.Join(keys, ","))
	set("--time", strings.TrimSpace(cfg.Time))
	set("--time-layout", cfg.TimeLayout)
	if !q.windowed {
		q.operator = &rowOperator{Map: stream.Map[Event, Result]{Func: q.result}, plan: &q.settings}
		for i := range q.items {
			if !q.items[i].star {
				q.columns = append(q.columns, q.items[i].name)
			}
		}
		return
	}
	set("--window", q.operator.(*windowOperator).columns.Windows.String())
	q.columns = []string{"window_start", "window_end"}
	for _, k := range q.keys {
		q.columns = append(q.columns, k.name)
	}
	for i := range q.aggregates {
		a := &q.aggregates[i]
		aggregates = append(aggregates, a.canonical)
		q.columns = append(q.columns, a.name)
	}
	set("--aggregate", strings.Join(aggregates, ", "))
	set("--select", q.usedSelection(cfg))
	for _, name := range q.columns[2:] {
		q.heads = append(q.heads, ","+string(appendString(nil, name))+":")
	}
}

// usedSelection is the part of --select that keys, time and aggregates build on: the rest of it does
// not touch the state, and may change.
func (q *Query) usedSelection(cfg Config) string {
	used := map[string]bool{}
	note := func(x *expression) {
		if x == nil {
			return
		}
		find(x.tree, func(n ast.Node) {
			if path, ok := pathOf(n); ok {
				used[path[0]] = true
			}
		})
	}
	for i := range q.keys {
		note(q.keys[i].x)
	}
	note(q.time)
	for i := range q.aggregates {
		note(q.aggregates[i].x)
	}
	items, err := parseSelection(cfg.Select)
	if err != nil {
		return ""
	}
	meaning := map[string]string{}
	for _, it := range items {
		if !it.star && used[it.name] && it.tree.String() != it.name {
			meaning[it.name] = it.tree.String()
		}
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(meaning)) {
		out = append(out, meaning[name]+" as "+name)
	}
	return strings.Join(out, ", ")
}

// Pipeline returns a new pipeline that runs the query: decoder, conditions, operator and encoder are
// filled in; name, sinks, bounds and logger are the caller's to add.
func (q *Query) Pipeline() *stream.Pipeline[Event, Result] {
	return &stream.Pipeline[Event, Result]{
		NewDecoder: q.newDecoder,
		Keep:       func(e *stream.Event[Event]) bool { return !e.Value.filtered },
		Require:    func(e *stream.Event[Event]) error { return e.Value.err },
		Operator:   q.operator,
		Encode:     q.encode,
	}
}

// Plan is what the saved state depends on (A8), under the names of the flags: keys, time, window,
// aggregates, and as much of --select as these build on. --where and --require may change.
func (q *Query) Plan() stream.Plan { return slices.Clone(q.settings) }

// Columns are the names of the columns of a row, in order. With a * in --select there are more: the
// record's own.
func (q *Query) Columns() []string { return slices.Clone(q.columns) }

// Windowed reports whether rows are totals of windows.
func (q *Query) Windowed() bool { return q.windowed }
