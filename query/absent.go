package query

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// watched is how many records may lack a field before that is told.
const watched = 10_000

// Absent is a field that a flag names and that none of the first records has: most often misspelt.
type Absent struct {
	Flag    string // that names it: "--where"
	Field   string // "user.adress"
	Meant   string // the field that comes nearest, if one does
	Records int64  // that were looked at
}

// String is one line for people.
func (a Absent) String() string {
	s := fmt.Sprintf("%s names the field %s, which none of the first %d records has", a.Flag, a.Field, a.Records)
	if a.Meant != "" {
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
	const samples, mostNames = 100, 1000
	if a.records <= samples && len(a.names) < mostNames {
		members, err := d.scanner.Fields(record, nil)
		for i := range members {
			if err == nil && len(members[i].Key) <= 256 {
				a.names[strings.Clone(members[i].Key)] = struct{}{}
			}
		}
	}
	if a.missing == 0 {
		a.watching.Store(false)
		return
	}
	if a.records < watched {
		return
	}
	a.watching.Store(false)
	for _, m := range a.list() {
		a.logger.Warn(m.String(), "flag", m.Flag, "field", m.Field)
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
		out = append(out, Absent{Flag: a.q.paths.flags[slot], Field: field, Records: a.records,
			Meant: nearest(field, slices.Collect(maps.Keys(a.names)))})
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
