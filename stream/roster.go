package stream

import (
	"slices"
	"strings"
)

// roster admits partitions and computes the frontier from their newest saved entries. It is pure:
// the merger feeds it and saves what comes out.
type roster struct {
	rows     []RosterRow // by name
	listed   map[string]Partition
	frontier Instant
	partial  bool // the listing may not have every parent of a child yet
	imported *Imported
	rules    rules
}

func (r *roster) find(name string) *RosterRow {
	i, ok := slices.BinarySearchFunc(r.rows, name, func(row RosterRow, name string) int { return strings.Compare(row.Name, name) })
	if !ok {
		return nil
	}
	return &r.rows[i]
}

func (r *roster) add(p Partition, start Instant) {
	i, _ := slices.BinarySearchFunc(r.rows, p.Name, func(row RosterRow, name string) int { return strings.Compare(row.Name, name) })
	row := RosterRow{Partition: p, Start: start}
	if r.imported != nil {
		row.From = r.imported.Rest
	}
	r.rows = slices.Insert(r.rows, i, row)
}

// done stands for the end of a partition that had ended before an import.
func (r *RosterRow) done() *Entry {
	return &Entry{Kind: KindEnd, Watermark: EndOfTime, LastWatermark: r.Start}
}

// list takes a fresh listing of the source. A row goes when its partition has ended, its children are
// counted, the source no longer lists it, and the frontier has passed every slice that it froze:
// before that the row is what leads to those slices.
func (r *roster) list(ps []Partition, newest func(string) *Entry) {
	r.listed = make(map[string]Partition, len(ps))
	for _, p := range ps {
		r.listed[p.Name] = p
	}
	r.rows = slices.DeleteFunc(r.rows, func(row RosterRow) bool {
		_, listed := r.listed[row.Name]
		if !row.Ended || listed {
			return false
		}
		e := newest(row.Name)
		return e != nil && e.Kind == KindEnd && !slices.ContainsFunc(e.Frozen, func(f Frozen) bool { return f.End > r.frontier })
	})
}

// admit applies M3: roots enter at the frontier when they are listed; a child enters when all its
// parents' ends are saved, at the largest of their last watermarks, whether the source lists it
// already or only its parent's end names it; an ended parent is marked so only once all its
// children are in. newest returns the newest restorable entry of a partition, nil for none. admit
// reports whether anything changed.
func (r *roster) admit(newest func(string) *Entry) bool {
	changed := r.settleAncestors()
	for again := true; again; {
		again = false
		candidates := make(map[string]Partition, len(r.listed))
		for name, p := range r.listed {
			candidates[name] = p
		}
		for i := range r.rows {
			if e := newest(r.rows[i].Name); e != nil && e.Kind == KindEnd && !r.rows[i].Ended {
				for _, c := range e.Children {
					candidates[c.Name] = c
				}
			}
		}
		for _, p := range candidates {
			if r.find(p.Name) != nil {
				continue
			}
			if start, ok := r.start(p, candidates, newest); ok {
				r.add(p, start)
				changed, again = true, true
			}
		}
	}
	for i := range r.rows {
		row := &r.rows[i]
		if row.Ended {
			continue
		}
		e := newest(row.Name)
		if e == nil || e.Kind != KindEnd {
			continue
		}
		if !slices.ContainsFunc(e.Children, func(c Partition) bool { return r.find(c.Name) == nil }) {
			row.Ended, changed = true, true
		}
	}
	return changed
}

// settleAncestors adds, after an import, what the source still lists and an imported partition
// continues: the other program had read it, or never wanted it, and keeps no checkpoint of it.
func (r *roster) settleAncestors() bool {
	if r.imported == nil || r.rules.readAncestors {
		return false
	}
	var names []string
	for i := range r.rows {
		names = append(names, r.rows[i].Parents...)
		names = append(names, r.listed[r.rows[i].Name].Parents...)
	}
	changed := false
	for len(names) > 0 {
		p, listed := r.listed[names[0]]
		names = names[1:]
		if !listed || r.find(p.Name) != nil || r.waits(p) {
			continue
		}
		r.add(p, Beginning)
		row := r.find(p.Name)
		row.From, row.Ended, row.Done = Position{}, true, true
		names, changed = append(names, p.Parents...), true
	}
	return changed
}

// waits reports whether a partition that p continues, however far above, has still to be read.
func (r *roster) waits(p Partition) bool {
	seen := make(map[string]bool)
	for names := slices.Clone(p.Parents); len(names) > 0; names = names[1:] {
		if seen[names[0]] {
			continue
		}
		seen[names[0]] = true
		if row := r.find(names[0]); row != nil && !row.Ended {
			return true
		}
		names = append(names, r.listed[names[0]].Parents...)
	}
	return false
}

// start decides whether p may enter, and where it starts.
func (r *roster) start(p Partition, candidates map[string]Partition, newest func(string) *Entry) (Instant, bool) {
	start, known := Beginning, false
	for _, parent := range p.Parents {
		if r.find(parent) == nil {
			if _, waiting := candidates[parent]; waiting && !r.rules.eagerChildren {
				return 0, false // the parent itself has still to be read
			}
			if r.partial {
				return 0, false
			}
			continue // expired: counts as ended and gives no watermark
		}
		e := newest(parent)
		if e == nil || e.Kind != KindEnd {
			if r.rules.eagerChildren {
				continue
			}
			return 0, false
		}
		if r.rules.childAtBeginning {
			return Beginning, true
		}
		start, known = max(start, e.LastWatermark), true
	}
	if !known {
		return r.frontier, true
	}
	return start, true
}

// watermark is what a row counts with (M4).
func (r *roster) watermark(row *RosterRow, e *Entry) Instant {
	switch {
	case row.Ended && e != nil && e.Kind == KindEnd, // a merger that has just started may know an older entry, whose slices are not all
		r.rules.endedAtOnce && e != nil && e.Watermark == EndOfTime,
		r.rules.ignoreUnread && e == nil,
		r.rules.skipIdle && e != nil && e.Idle:
		return EndOfTime
	case e == nil || e.Kind == KindReset:
		return row.Start
	case e.Watermark == EndOfTime: // ended, or about to: its children are not counted yet
		return max(row.Start, e.LastWatermark)
	}
	return max(row.Start, e.Watermark)
}

// lowest returns the smallest watermark over the roster and the partition that holds it.
// EndOfTime means that everything has ended; an empty roster holds everything back.
func (r *roster) lowest(newest func(string) *Entry) (Instant, string) {
	if len(r.rows) == 0 {
		return r.frontier, ""
	}
	low, who := EndOfTime, ""
	for i := range r.rows {
		if w := r.watermark(&r.rows[i], newest(r.rows[i].Name)); w < low || who == "" {
			low, who = w, r.rows[i].Name
		}
	}
	return low, who
}

// ended reports whether nothing is left to read: every partition in the roster and in the newest
// listing has ended.
func (r *roster) ended() bool {
	if len(r.rows) == 0 {
		return false
	}
	for name := range r.listed {
		if r.find(name) == nil {
			return false
		}
	}
	return !slices.ContainsFunc(r.rows, func(row RosterRow) bool { return !row.Ended })
}

// target is the watermark that idle partitions may raise theirs to (M5): the smallest of the others,
// or, when all are idle, the fleet's clock less the two bounds, never below the largest watermark.
func (r *roster) target(newest func(string) *Entry, clock Instant) Instant {
	active, largest, some := EndOfTime, Beginning, false
	for i := range r.rows {
		row := &r.rows[i]
		if row.Ended {
			continue
		}
		e := newest(row.Name)
		w := r.watermark(row, e)
		largest = max(largest, w)
		if e == nil || !e.Idle {
			active, some = min(active, w), true
		}
	}
	if some {
		return active
	}
	return max(largest, clock)
}

// vouch notes how far each partition's log has come.
func (r *roster) vouch(newest map[string]*Entry) {
	for i := range r.rows {
		if e := newest[r.rows[i].Name]; e != nil {
			r.rows[i].Newest = max(r.rows[i].Newest, e.Number)
		}
	}
}
