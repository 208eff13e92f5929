// Package fields reads a few named fields out of JSON records without
// building the records.
//
// # The life of a record
//
// A query names its fields once, as paths: user_id, user.address.city.
// [Compile] turns the paths into a [Plan], a tree with one node per path
// segment. Each goroutine takes a [Scanner] from the plan and hands it one
// record after another. [Scanner.Scan] walks the bytes once, from the opening
// brace to the last byte. Strings are crossed eight bytes at a time. A key is
// looked up in the node of the object it stands in: if the plan has it, the
// value after it is noted, as a [Kind] and a string that shares the record's
// memory; if not, the value is crossed. Whether noted or crossed, every byte
// is checked, so a record that comes through is valid JSON from end to end,
// and one that does not gives an [Error] with the offset and the reason, the
// same for the same bytes whatever the plan.
//
// Most streams write their keys in one order. A scanner therefore remembers
// the order of the keys it saw last and first compares the bytes at hand with
// the key that stood in this place before; when they differ, it scans the key
// and looks it up. Only speed depends on that memory.
//
// # What a record means
//
// The answers are those of encoding/json decoding into a map[string]any with
// UseNumber, for every order of keys, escape, white space and nesting. Of
// equal keys the last wins, and wins whole: after {"a":{"b":1},"a":{"c":2}}
// the path a.b is absent. Lone surrogates become U+FFFD. Keys are compared
// after unescaping, with case. A path goes through objects only, never into
// arrays, and a key that itself contains a dot cannot be named.
//
// There are three differences. A record must be an object; null is not.
// Invalid UTF-8, which encoding/json replaces, is an error. Objects and arrays
// nested deeper than [MaxDepth] are an error.
//
// A record that is one JSON string is decoded once, and its content is then
// the record: some producers encode twice.
package fields

import (
	"fmt"
	"strings"
)

// MaxDepth is how deep objects and arrays may nest. The record itself is the
// first level.
const MaxDepth = 64

// Plan is a compiled set of paths. It is immutable; any number of goroutines
// may share it.
type Plan struct {
	paths   int
	root    *node
	nothing *node // of keys that no path names
	// same lists the slots of paths given more than once, each with the slot
	// that the scan fills for it.
	same [][2]int
}

// node is one segment of the paths: what to do with the value of a key.
type node struct {
	// slot is the place of the value among the results. It is the one after
	// the last path's when nobody wants the value itself.
	slot int
	// below lists the slots of every path that leads on through this node.
	below []int
	// next has the keys of the next segment, or is nil if there are none.
	next *keys
}

// Compile returns the plan for the given paths. A path is the keys from the
// record down to the value, joined by dots; it may be a prefix of another
// path, and may be given twice. With no path at all the plan only validates.
//
// A path with an empty segment, or with more than MaxDepth segments, is an
// error.
func Compile(paths ...string) (*Plan, error) {
	p := &Plan{paths: len(paths), nothing: &node{slot: len(paths)}}
	p.root = &node{slot: len(paths), next: &keys{}}
	for slot, path := range paths {
		segments := strings.Split(path, ".")
		if len(segments) > MaxDepth {
			return nil, fmt.Errorf("field %.60q...: %d segments, at most %d can match", path, len(segments), MaxDepth)
		}
		n := p.root
		for _, segment := range segments {
			if segment == "" {
				return nil, fmt.Errorf("field %q: empty segment in the path", path)
			}
			n.below = append(n.below, slot)
			if n.next == nil {
				n.next = &keys{}
			}
			n = n.next.add(segment, len(paths))
		}
		if n.slot < len(paths) {
			p.same = append(p.same, [2]int{slot, n.slot})
		} else {
			n.slot = slot
		}
	}
	p.root.seal(p.nothing)
	return p, nil
}

// seal makes the tables of the node and of all nodes below it.
func (n *node) seal(nothing *node) {
	if n.next == nil {
		return
	}
	n.next.seal(nothing)
	for _, child := range n.next.all {
		child.seal(nothing)
	}
}

// Len is the number of paths, which is the length of the results of a scan.
func (p *Plan) Len() int { return p.paths }

// NewScanner returns a scanner for the plan. Each goroutine needs its own.
func (p *Plan) NewScanner() *Scanner {
	return &Scanner{plan: p, found: make([]span, p.paths+1)}
}
