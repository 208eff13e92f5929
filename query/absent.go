package query

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/millstream/millstream/query/fields"
)

// Watched is how many records may lack a field before that is told.
const Watched = 10_000

// Suggestions come from the names in the first records, so many at most.
const (
	samples   = 100
	mostNames = 1000
)

// Absent is a field that a flag names and that none of the first records has: most often misspelt.
type Absent struct {
	Flag    string // that names it: "--where"
	Field   string // "user.adress"
	Meant   string // the field that comes nearest, if one does
	Records int64  // that were looked at
	// Selected says that --select makes a field of that name, but only after the flag has run.
	Selected bool
}

// String is one line for people.
func (a Absent) String() string {
	s := fmt.Sprintf("%s names the field %s, which none of the first %d records has", a.Flag, a.Field, a.Records)
	switch {
	case a.Selected:
		s += ": --select, which makes it, runs later: write the expression itself"
	case a.Meant != "":
		s += fmt.Sprintf(": did you mean %q?", a.Meant)
	}
	return s
}

// absence watches the first records of all lanes for the fields that the query names.
type absence struct {
	watching atomic.Bool

	mu      sync.Mutex
	q       *Query
	logger  *slog.Logger
	seen    []bool // by slot
	missing int    // slots not seen yet
	records int64
	names   map[string]struct{} // fields that records do have
}

func (a *absence) init(q *Query, logger *slog.Logger) {
	a.q, a.logger = q, logger
	if a.logger == nil {
		a.logger = slog.Default()
	}
	a.seen, a.missing, a.names = make([]bool, q.plan.Len()), q.plan.Len(), map[string]struct{}{}
	for slot, joined := range q.joined {
		if joined { // no record has it
			a.seen[slot] = true
			a.missing--
		}
	}
	a.watching.Store(a.missing > 0)
}

// see notes which fields a record has, and speaks up once, after the last watched record.
func (a *absence) see(d *decoder, record []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.watching.Load() {
		return
	}
	a.records++
	for slot := range d.slots {
		if !a.seen[slot] && d.slots[slot].Kind != 0 {
			a.seen[slot] = true
			a.missing--
		}
	}
	if a.records <= samples {
		if members, err := d.scanner.Fields(record, nil); err == nil {
			for i := range members {
				a.note(members[i].Key, &members[i].Value)
			}
		}
	}
	if a.missing == 0 {
		a.watching.Store(false)
		return
	}
	if a.records < Watched {
		return
	}
	a.watching.Store(false)
	for _, m := range a.list() {
		a.logger.Warn(m.String(), "flag", m.Flag, "field", m.Field)
	}
}

// note keeps the name of a field, and the paths below it.
func (a *absence) note(path string, v *fields.Value) {
	if len(path) > 256 || len(a.names) >= mostNames {
		return
	}
	a.names[strings.Clone(path)] = struct{}{}
	if v.Kind != fields.Object {
		return
	}
	var below map[string]json.RawMessage
	if json.Unmarshal([]byte(v.Raw), &below) != nil {
		return
	}
	for key, raw := range below {
		inner := fields.Value{Raw: string(raw)}
		if raw[0] == '{' {
			inner.Kind = fields.Object
		}
		a.note(path+"."+key, &inner)
	}
}

func (a *absence) list() []Absent {
	if a.records == 0 {
		return nil
	}
	var out []Absent
	for slot, seen := range a.seen {
		if seen {
			continue
		}
		field := a.q.paths.list[slot]
		flag := a.q.paths.flags[slot]
		out = append(out, Absent{Flag: flag, Field: field, Records: a.records,
			Meant:    nearest(field, slices.Collect(maps.Keys(a.names))),
			Selected: a.q.selected[field] && (flag == "--where" || flag == "--require")})
	}
	return out
}

// Absent lists the fields that none of the first 10,000 records had, or none of all if there were
// fewer. The query's logger is told by itself at the 10,000th record.
func (q *Query) Absent() []Absent {
	q.absent.mu.Lock()
	defer q.absent.mu.Unlock()
	return q.absent.list()
}
