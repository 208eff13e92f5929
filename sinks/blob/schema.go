package blob

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// maxColumns bounds the columns that rows bring along; fields beyond need a schema.
	maxColumns = 1000
	// maxDepth is how deep columns nest; what is below is JSON text.
	maxDepth = 12
)

// kind is what a column holds.
type kind int

const (
	group kind = iota
	list
	boolean
	integer
	double
	text
	timestamp
	anyJSON
)

var kindNames = map[string]kind{
	"bool": boolean, "int64": integer, "double": double, "string": text, "timestamp": timestamp, "json": anyJSON,
}

func (k kind) String() string {
	for name, known := range kindNames {
		if known == k {
			return name
		}
	}
	return map[kind]string{group: "object", list: "array"}[k]
}

// column is a column, or a group or list of some. All may be null.
type column struct {
	name   string
	kind   kind
	fields []*column // of a group
	elem   *column   // of a list
}

// field returns the column of that name in a group.
func (c *column) field(name string) *column {
	for _, f := range c.fields {
		if f.name == name {
			return f
		}
	}
	return nil
}

// leaves returns the paths of the columns that are no groups, in order.
func (c *column) leaves() [][]string {
	var paths [][]string
	for _, f := range c.fields {
		if f.kind != group {
			paths = append(paths, []string{f.name})
			continue
		}
		for _, below := range f.leaves() {
			paths = append(paths, append([]string{f.name}, below...))
		}
	}
	return paths
}

// parseSchema reads name:type,… with a.b:type for a field of a nested object, []type for an array and
// a[].b:type for the fields of an array's objects.
func parseSchema(s string) (*column, error) {
	root, count := &column{}, 0
	for item := range strings.SplitSeq(s, ",") {
		path, typ, found := strings.Cut(strings.TrimSpace(item), ":")
		if !found || path == "" {
			return nil, fmt.Errorf("schema=: %q: want NAME:TYPE, such as id:int64", item)
		}
		at, names := root, strings.Split(path, ".")
		if len(names) > maxDepth {
			return nil, fmt.Errorf("schema=: %q: nested deeper than %d", item, maxDepth)
		}
		for i, name := range names {
			name, lists := strings.CutSuffix(name, "[]")
			if !validColumn(name) {
				return nil, fmt.Errorf("schema=: %q: %q is no name of a column", item, name)
			}
			f := at.field(name)
			last := i == len(names)-1
			if f != nil && (last || lists != (f.kind == list) || !lists && f.kind != group || lists && f.elem.kind != group) {
				return nil, fmt.Errorf("schema=: %q: the column %s is there already", item, strings.Join(names[:i+1], "."))
			}
			if f == nil {
				f = &column{name: name}
				at.fields = append(at.fields, f)
			}
			inner := f
			if lists {
				f.kind = list
				if f.elem == nil {
					f.elem = &column{}
				}
				inner = f.elem
			}
			if last {
				if err := inner.typed(strings.TrimSpace(typ)); err != nil {
					return nil, fmt.Errorf("schema=: %q: %w", item, err)
				}
			}
			at = inner
		}
		if count++; count > maxColumns {
			return nil, fmt.Errorf("schema=: more than %d columns", maxColumns)
		}
	}
	return root, nil
}

func (c *column) typed(typ string) error {
	if inner, found := strings.CutPrefix(typ, "[]"); found {
		c.kind, c.elem = list, &column{}
		if strings.Count(typ, "[]") > maxDepth {
			return fmt.Errorf("nested deeper than %d", maxDepth)
		}
		return c.elem.typed(inner)
	}
	k, ok := kindNames[typ]
	if !ok {
		return fmt.Errorf("there is no type %q: it is bool, int64, double, string, timestamp, json, or [] before one of them", typ)
	}
	c.kind = k
	return nil
}

// validColumn refuses names that readers of Parquet cannot tell from nothing.
func validColumn(name string) bool {
	return name != "" && len(name) <= 512 && utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
}

// learner finds the columns that rows have.
type learner struct {
	flat    bool // only the names of the first level
	root    learned
	columns int
}

func newLearner(flat bool) *learner { return &learner{flat: flat} }

// learned is what was seen of one column.
type learned struct {
	counts [anyJSON + 1]int
	names  []string // of fields, in order of appearance
	fields map[string]*learned
	elem   *learned
}

// see learns from a row. One that is no object teaches nothing.
func (l *learner) see(data []byte) {
	if l.flat {
		var names []string
		if members(data, func(name string, _ json.RawMessage) { names = append(names, name) }) == nil {
			for _, name := range names {
				l.root.field(l, name)
			}
		}
		return
	}
	if row, reason := object(data); reason == "" {
		l.fields(&l.root, row, 1)
	}
}

// field returns what is learned of a field, nil when there are too many.
func (n *learned) field(l *learner, name string) *learned {
	f := n.fields[name]
	if f == nil && validColumn(name) && l.columns < maxColumns {
		if n.fields == nil {
			n.fields = make(map[string]*learned)
		}
		f = new(learned)
		n.fields[name] = f
		n.names = append(n.names, name)
		l.columns++
	}
	return f
}

func (l *learner) fields(n *learned, row map[string]any, depth int) {
	names := make([]string, 0, len(row))
	for name := range row {
		names = append(names, name)
	}
	slices.Sort(names) // the same columns again, when there are too many
	for _, name := range names {
		if f := n.field(l, name); f != nil {
			l.value(f, row[name], depth+1)
		}
	}
}

func (l *learner) value(n *learned, v any, depth int) {
	switch v := v.(type) {
	case bool:
		n.counts[boolean]++
	case json.Number:
		if strings.ContainsAny(string(v), ".eE") {
			n.counts[double]++
		} else {
			n.counts[integer]++
		}
	case string:
		if at, ok := instant(v); ok && at.Nanosecond()%1000 == 0 {
			n.counts[timestamp]++
		} else {
			n.counts[text]++
		}
	case []any:
		n.counts[list]++
		if depth >= maxDepth {
			return
		}
		if n.elem == nil {
			n.elem = new(learned)
		}
		for _, e := range v {
			l.value(n.elem, e, depth+1)
		}
	case map[string]any:
		n.counts[group]++
		if depth < maxDepth {
			l.fields(n, v, depth)
		}
	}
}

// schema is what was learned: a column has its most frequent kind.
func (l *learner) schema() *column { return &column{kind: group, fields: l.root.columns()} }

// columns are the fields, in order of appearance.
func (n *learned) columns() []*column {
	columns := make([]*column, len(n.names))
	for i, name := range n.names {
		columns[i] = n.fields[name].column()
		columns[i].name = name
	}
	return columns
}

func (n *learned) column() *column {
	c, most := &column{kind: text}, 0 // text: null everywhere
	for _, k := range []struct {
		kind  kind
		count int
	}{
		{text, n.counts[text] + n.counts[timestamp]}, {integer, n.counts[integer] + n.counts[double]},
		{boolean, n.counts[boolean]}, {group, n.counts[group]}, {list, n.counts[list]},
	} {
		if k.count > most {
			c.kind, most = k.kind, k.count
		}
	}
	switch {
	case c.kind == text && n.counts[timestamp] > 0 && n.counts[text] == 0:
		c.kind = timestamp
	case c.kind == integer && n.counts[double] > 0:
		c.kind = double
	case c.kind == list && n.elem == nil, c.kind == group && len(n.fields) == 0:
		c.kind = anyJSON // too deep, or empty everywhere, which no group can be
	case c.kind == list:
		c.elem = n.elem.column()
	case c.kind == group:
		c.fields = n.columns()
	}
	return c
}

// instant reads a time in RFC 3339.
func instant(s string) (time.Time, bool) {
	if len(s) < len("2006-01-02T15:04:05Z") || s[4] != '-' || s[10] != 'T' {
		return time.Time{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, s)
	return at, err == nil
}

var errNoObject = errors.New("it is no JSON object")

func notAnObject(err error) string {
	if errors.Is(err, errNoObject) {
		return err.Error()
	}
	return "it is no JSON object: " + err.Error()
}

// object reads a row with its numbers as they are written.
func object(data []byte) (map[string]any, string) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, notAnObject(err)
	}
	row, ok := v.(map[string]any)
	if !ok {
		return nil, errNoObject.Error()
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errNoObject.Error()
	}
	return row, ""
}

// asJSON is a value as text.
func asJSON(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil { // of what was decoded there is none
		return ""
	}
	return strings.TrimSuffix(b.String(), "\n")
}
