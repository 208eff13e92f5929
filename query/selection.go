package query

import (
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/millstream/millstream/query/fields"
)

// item is one part of --select: a named expression, or * for all fields of the record.
type item struct {
	star bool
	name string
	tree ast.Node
	text string
	x    *expression
	head string // "name":
}

// parseSelection reads --select, in the record's terms. An empty text is *.
func parseSelection(text string) ([]item, error) {
	const flag = "--select"
	if strings.TrimSpace(text) == "" {
		text = "*"
	}
	parts, err := splitList(text)
	if err != nil {
		return nil, refuse(flag, "close it", "%q: %s", text, err)
	}
	var items []item
	seen := map[string]bool{}
	for _, part := range parts {
		source, name := splitName(part)
		if source == "*" && name == "" {
			if seen["*"] {
				return nil, refuse(flag, "write it once", "* stands twice")
			}
			seen["*"] = true
			items = append(items, item{star: true})
			continue
		}
		tree, err := parse(flag, source)
		if err != nil {
			return nil, err
		}
		if name == "" {
			path, ok := pathOf(tree)
			if !ok {
				return nil, refuse(flag, source+" as NAME", "%q needs a name", source)
			}
			name = strings.Join(path, "_")
		}
		if seen[name] {
			return nil, refuse(flag, "give one another name with as", "two columns are named %s", name)
		}
		seen[name] = true
		items = append(items, item{name: name, tree: tree, text: source, head: string(appendString(nil, name)) + ":"})
	}
	return items, nil
}

// row writes the event as it is after --where and --select: selected names in their order, * as the
// record's fields in theirs, without those that are selected by name. A selected field that the
// record lacks is null. The row is one line.
func (d *decoder) row(record []byte) ([]byte, error) {
	if d.q.star {
		var err error
		if d.members, err = d.scanner.Fields(record, d.members[:0]); err != nil {
			return nil, err
		}
	}
	need := len(record) + 256
	if cap(d.chunk)-len(d.chunk) < need {
		d.chunk = make([]byte, 0, max(need, rowChunk))
	}
	from := len(d.chunk)
	out := append(d.chunk, '{')
	comma := false
	next := func() {
		if comma {
			out = append(out, ',')
		}
		comma = true
	}
	for i := range d.q.items {
		it := &d.q.items[i]
		if it.star {
			for j := range d.members {
				m := &d.members[j]
				if len(d.q.items) > 1 && d.q.selected[m.Key] || d.q.join(m.Key) != nil {
					continue
				}
				next()
				out = append(appendString(out, m.Key), ':')
				out = m.Value.AppendJSON(out)
			}
			for _, j := range d.q.joins {
				if len(d.q.items) > 1 && d.q.selected[j.name] {
					continue
				}
				next()
				out = append(appendString(out, j.name), ':')
				out = d.slots[j.row].AppendJSON(out)
			}
			continue
		}
		next()
		out = append(out, it.head...)
		if it.x.slot >= 0 {
			out = d.slots[it.x.slot].AppendJSON(out)
			continue
		}
		v, err := d.eval(it.x)
		if err == nil {
			out, err = appendAny(out, v)
		}
		if err != nil {
			return nil, unusable(it.x, err)
		}
	}
	d.chunk = append(out, '}')
	return d.chunk[from:len(d.chunk):len(d.chunk)], nil
}

// rowChunk is how much memory for rows is taken at once. Rows are kept until they are saved, so the
// memory is never used again.
const rowChunk = 64 << 10

// value is an expression's result as a field. It is valid until the next call.
func (d *decoder) value(x *expression) (*fields.Value, error) {
	if x.slot >= 0 {
		return &d.slots[x.slot], nil
	}
	v, err := d.eval(x)
	if err == nil {
		d.computed, err = toValue(v)
	}
	if err != nil {
		return nil, unusable(x, err)
	}
	return &d.computed, nil
}
