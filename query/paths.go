package query

import (
	"strings"

	"github.com/millstream/millstream/query/fields"
)

// paths gives each field path that the configuration names one slot.
type paths struct {
	list  []string
	index map[string]int
	flags []string // that named the path first
}

func (p *paths) slot(flag string, path []string) (int, error) {
	for _, key := range path {
		if strings.Contains(key, ".") {
			return 0, refuse(flag, "rename it in the source", "the field %q cannot be named, since it holds a dot", key)
		}
	}
	name := strings.Join(path, ".")
	if slot, ok := p.index[name]; ok {
		return slot, nil
	}
	if p.index == nil {
		p.index = map[string]int{}
	}
	if _, err := fields.Compile(name); err != nil {
		return 0, refuse(flag, "write it as a or a.b", "%s", err)
	}
	slot := len(p.list)
	p.index[name] = slot
	p.list, p.flags = append(p.list, name), append(p.flags, flag)
	return slot, nil
}
