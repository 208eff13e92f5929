package query

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr/ast"

	"github.com/millstream/millstream/query/fields"
	"github.com/millstream/millstream/stream"
)

const enrichFlag = "--enrich"

// Missing says what becomes of an event for which a table has no row.
type Missing string

// The zero Missing is MissingNull: the field is null.
const (
	MissingNull       Missing = "null"
	MissingDrop       Missing = "drop"        // filtered
	MissingDeadLetter Missing = "dead-letter" // with the name of the enrichment as reason
)

// Enrichment is an --enrich as the query sees it: a field that comes from a table. Who finds the rows is
// the caller's affair.
type Enrichment struct {
	Name     string            // the field that the row is
	On       string            // path of the field that holds the key; may be of another enrichment
	Missing  Missing           // default MissingNull
	Defaults map[string]string // of fields of the row that are absent or null: JSON, or a string as it stands
	Select   []string          // the fields that rows have; none: nobody knows
}

// Join is a compiled Enrichment. Key and Set are what an enricher needs of it, Parse what a lookup does. They
// may be called concurrently, Key and Set for the events of different batches only.
type Join struct {
	q        *Query
	name     string
	key      int // slot of On
	row      int // slot of the row itself, if --select writes all there is
	stage    int
	after    int // the join that On is a field of, -1: none
	missing  error
	defaults []fields.Field
	slots    []int        // of the event's fields that are this row's
	paths    []string     // their paths in the row; "" is the row itself
	plan     *fields.Plan // of paths that are not ""
	wanted   map[string]string
}

// Rows is what a table has under a key, read once for all events: a row, or its versions.
type Rows struct {
	versions []version
	size     int
}

// Size is about how many bytes they take.
func (r *Rows) Size() int { return r.size }

type version struct {
	from, to stream.Instant
	values   []fields.Value // by Join.slots
}

// Version is a row as a table has it: one JSON object, and the time for which it is valid; zero is without
// end. The object must not be written to any more.
type Version struct {
	JSON []byte
	From time.Time
	To   time.Time
}

var joinName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// compileJoins gives every enrichment its place, in the order in which they can be looked up.
func (q *Query) compileJoins(cfg Config) error {
	index := map[string]int{}
	for i, e := range cfg.Enrich {
		if !joinName.MatchString(e.Name) {
			return refuse(enrichFlag, "use letters, digits and underscores", "%q cannot be the name of a field", e.Name)
		}
		if _, twice := index[e.Name]; twice {
			return refuse(enrichFlag, "give each its own name", "two are named %s", e.Name)
		}
		index[e.Name] = i
	}
	for _, e := range cfg.Enrich {
		j := &Join{q: q, name: e.Name, after: -1}
		switch e.Missing {
		case "", MissingNull:
		case MissingDrop:
			j.missing = stream.Filtered
		case MissingDeadLetter:
			reason := "enrich " + e.Name + ": no row"
			j.missing = &recordError{reason, reason}
		default:
			return refuse(enrichFlag, didYouMean(string(e.Missing), []string{"null", "drop", "dead-letter"}, "it is null, drop or dead-letter"), "%s: missing=%s", e.Name, e.Missing)
		}
		on := strings.TrimSpace(e.On)
		if on == "" {
			return refuse(enrichFlag, "add on=FIELD, the field that holds the key", "%s does not say what to look up", e.Name)
		}
		tree, err := pathTree(enrichFlag, on)
		if err != nil {
			return err
		}
		path, _ := pathOf(tree)
		if i, ok := index[path[0]]; ok {
			j.after = i
		}
		if j.key, err = q.paths.slot(enrichFlag, path); err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(e.Defaults)) {
			if name == "" || strings.Contains(name, ".") {
				return refuse(enrichFlag, "give defaults to fields of the row itself", "%s: default.%s", e.Name, name)
			}
			v, err := defaultValue(e.Defaults[name])
			if err != nil {
				return refuse(enrichFlag, "", "%s: default.%s: %s", e.Name, name, err)
			}
			j.defaults = append(j.defaults, fields.Field{Key: name, Value: v})
		}
		if len(e.Select) > 0 {
			j.wanted = map[string]string{}
			for _, field := range e.Select {
				first, _, _ := strings.Cut(field, ".")
				j.wanted[first] = field
			}
		}
		q.joins = append(q.joins, j)
	}
	return q.orderJoins()
}

// orderJoins gives each join the stage after the one whose field it looks up.
func (q *Query) orderJoins() error {
	for _, j := range q.joins {
		for at, steps := j, 0; at.after >= 0; at, steps = q.joins[at.after], steps+1 {
			if steps == len(q.joins) {
				return refuse(enrichFlag, "begin with a field of the record", "%s is looked up by a field that comes from itself", j.name)
			}
			j.stage = steps + 1
		}
	}
	return nil
}

// defaultValue reads a default: a JSON value, or text that is a string as it stands.
func defaultValue(text string) (fields.Value, error) {
	raw := []byte(text)
	if !json.Valid(raw) {
		raw = appendString(nil, text)
	}
	plan, err := fields.Compile("v")
	if err != nil {
		return fields.Value{}, err
	}
	var out [1]fields.Value
	err = plan.NewScanner().Scan(append(append([]byte(`{"v":`), raw...), '}'), out[:])
	return out[0], err
}

// settleJoins finds out which slots are filled from which row, once all flags have named their fields.
func (q *Query) settleJoins() error {
	if len(q.joins) == 0 {
		return nil
	}
	if q.star && !q.windowed {
		for _, j := range q.joins {
			var err error
			if j.row, err = q.paths.slot("--select", []string{j.name}); err != nil {
				return err
			}
		}
	}
	q.joined = make([]bool, len(q.paths.list))
	for slot, path := range q.paths.list {
		first, rest, _ := strings.Cut(path, ".")
		j := q.join(first)
		if j == nil {
			continue
		}
		q.joined[slot] = true
		j.slots, j.paths = append(j.slots, slot), append(j.paths, rest)
		field, _, _ := strings.Cut(rest, ".")
		if rest != "" && j.wanted != nil && j.wanted[field] == "" {
			return refuse(q.paths.flags[slot], didYouMean(field, slices.Collect(maps.Keys(j.wanted)), "add it to select="), "%s is not among the fields that %s selects", path, j.name)
		}
	}
	for _, j := range q.joins {
		var named []string
		for _, path := range j.paths {
			if path != "" {
				named = append(named, path)
			}
		}
		var err error
		if j.plan, err = fields.Compile(named...); err != nil {
			return refuse(enrichFlag, "name fewer fields", "%s", err)
		}
	}
	uses := func(x *expression) bool {
		return x != nil && slices.ContainsFunc(x.uses, func(slot int) bool { return q.joined[slot] })
	}
	q.keyJoined = slices.ContainsFunc(q.keys, func(k keyColumn) bool { return uses(k.x) })
	// What the record alone decides is decided before anything is looked up, in the same order.
	n := slices.IndexFunc(q.where, uses)
	if n >= 0 {
		q.where, q.whereJoined = q.where[:n:n], q.where[n:]
		return nil
	}
	q.early = slices.IndexFunc(q.require, func(r requirement) bool { return uses(r.x) })
	if q.early < 0 {
		q.early = len(q.require)
	}
	return nil
}

func (q *Query) join(name string) *Join {
	for _, j := range q.joins {
		if j.name == name {
			return j
		}
	}
	return nil
}

// Joins are the query's enrichments, as Config has them.
func (q *Query) Joins() []*Join { return slices.Clone(q.joins) }

// Name is the field that the row is.
func (j *Join) Name() string { return j.name }

// Stage orders joins: those of one stage do not depend on each other, and come after all of the stages
// before. It begins with 0.
func (j *Join) Stage() int { return j.stage }

// Fields are the fields of a row that the query reads, at its top level; none means all of them.
func (j *Join) Fields() []string {
	var out []string
	for _, path := range j.paths {
		if path == "" {
			return nil
		}
		first, _, _ := strings.Cut(path, ".")
		if !slices.Contains(out, first) {
			out = append(out, first)
		}
	}
	return out
}

// Key is the key to look up for an event; false if it has none, or is not looked up at all. Numbers are
// their shortest form: 7 and 7.0 are one key.
func (j *Join) Key(e *stream.Event[Event]) (string, bool) {
	if e.Value.settled() {
		return "", false
	}
	v := &e.Value.d.savedSlots(&e.Value)[j.key]
	switch v.Kind {
	case fields.String:
		return v.Raw, true
	case fields.Number, fields.True, fields.False:
		return string(appendKeyJSON(nil, v)), true
	}
	return "", false
}

// Set gives an event the row, the version that is valid at the event's time. Its error is for Event.Refuse.
func (j *Join) Set(e *stream.Event[Event], rows *Rows, found bool) error {
	if e.Value.settled() {
		return nil
	}
	slots := e.Value.d.savedSlots(&e.Value)
	var values []fields.Value
	if found {
		values = rows.at(e.Time)
	}
	if values == nil {
		for _, slot := range j.slots {
			slots[slot] = fields.Value{}
		}
		return j.missing
	}
	for i, slot := range j.slots {
		slots[slot] = values[i]
	}
	return nil
}

// at returns the values that are valid at t, nil if none are. Versions are in order of their beginning; of
// two that overlap the later counts.
func (r *Rows) at(t stream.Instant) []fields.Value {
	for i := len(r.versions) - 1; i >= 0; i-- {
		if v := &r.versions[i]; t >= v.from && t < v.to {
			return v.values
		}
	}
	return nil
}

// Parse reads what a table has under a key.
func (j *Join) Parse(versions []Version) (*Rows, error) {
	rows := &Rows{versions: make([]version, len(versions)), size: 48}
	for i, v := range versions {
		values, err := j.parse(v.JSON)
		if err != nil {
			return nil, err
		}
		from, to := stream.Beginning, stream.EndOfTime
		if !v.From.IsZero() {
			from, _ = stream.At(v.From)
		}
		if !v.To.IsZero() {
			to, _ = stream.At(v.To)
		}
		rows.versions[i] = version{from, to, values}
		rows.size += 2*len(v.JSON) + 32*len(values) + 64
	}
	slices.SortStableFunc(rows.versions, func(a, b version) int {
		switch {
		case a.from < b.from:
			return -1
		case a.from > b.from:
			return 1
		}
		return 0
	})
	return rows, nil
}

func (j *Join) parse(row []byte) ([]fields.Value, error) {
	scanner := j.plan.NewScanner()
	named := make([]fields.Value, j.plan.Len())
	if err := scanner.Scan(row, named); err != nil {
		return nil, err
	}
	if len(row) == 0 || row[0] == '"' {
		return nil, errors.New("a row must be an object")
	}
	values := make([]fields.Value, 0, len(j.paths))
	next := 0
	for _, path := range j.paths {
		if path == "" {
			whole, err := j.whole(scanner, row)
			if err != nil {
				return nil, err
			}
			values = append(values, whole)
			continue
		}
		v := named[next]
		next++
		if v.Kind == fields.Absent || v.Kind == fields.Null {
			for _, d := range j.defaults {
				if d.Key == path {
					v = d.Value
				}
			}
		}
		v.Raw = strings.Clone(v.Raw) // not the whole row for the sake of one field
		values = append(values, v)
	}
	return values, nil
}

// whole is the row itself, with its defaults.
func (j *Join) whole(scanner *fields.Scanner, row []byte) (fields.Value, error) {
	members, err := scanner.Fields(row, nil)
	if err != nil {
		return fields.Value{}, err
	}
	for _, d := range j.defaults {
		at := slices.IndexFunc(members, func(f fields.Field) bool { return f.Key == d.Key })
		switch {
		case at < 0:
			members = append(members, d)
		case members[at].Value.Kind == fields.Null:
			members[at].Value = d.Value
		}
	}
	out := []byte{'{'}
	for i := range members {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(appendString(out, members[i].Key), ':')
		out = members[i].Value.AppendJSON(out)
	}
	return fields.Value{Kind: fields.Object, Raw: string(append(out, '}'))}, nil
}

// conjuncts splits a condition at its outermost ands.
func conjuncts(n ast.Node) []ast.Node {
	if b, ok := n.(*ast.BinaryNode); ok && (b.Operator == "and" || b.Operator == "&&") {
		return append(conjuncts(b.Left), conjuncts(b.Right)...)
	}
	return []ast.Node{n}
}

// String says what the join does, for people.
func (j *Join) String() string { return fmt.Sprintf("%s on %s", j.name, j.q.paths.list[j.key]) }
