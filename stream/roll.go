package stream

import (
	"context"
	"fmt"
	"iter"
	"time"
)

// A file that spans checkpoints. The rows of each entry are staged with it as always; those that are not
// in a file yet are named again by every later entry, until one is saved that says Due: its commit makes
// the file, from the rows of all of them. Until then nobody sees any of them, and after a crash the next
// owner finds in one entry all that it needs.

// Rolling is what an entry says about the next file of a Roller. The rows that go into it are those of
// Parts and then the entry's own.
type Rolling struct {
	Sink  string        `json:"sink"`
	Parts []Blob        `json:"parts,omitempty"` // rows of earlier entries
	Bytes int64         `json:"bytes,omitempty"` // of Parts
	Age   time.Duration `json:"age,omitempty"`   // how long the first row of Parts has waited; monotonic, downtime not counted
	// Due means that the entry's commit makes the file, by this layout.
	Due    bool   `json:"due,omitempty"`
	Layout []byte `json:"layout,omitempty"`
}

const (
	// mostWaiting is how many parts may wait for a file: every entry names them all.
	mostWaiting = 1000
	// tailBytes bounds what is put together at once of parts that entries hold themselves.
	tailBytes = 1 << 20
)

// waiting is what a Roller's next file has so far: all of it is in saved entries.
type waiting struct {
	parts []Blob
	bytes int64
	since time.Time // when its first row was saved, as far as this process and the log know; zero: nothing waits
}

// age is how long the first row has waited.
func (w *waiting) age(now time.Time) time.Duration {
	if w.since.IsZero() {
		return 0
	}
	return now.Sub(w.since)
}

// isDue reports whether a Roller's file is due when it has waited for age and has a number of bytes.
func isDue(r Roller, age time.Duration, bytes int64, parts int) bool {
	every, size := r.Roll()
	return every == 0 && size == 0 || every > 0 && age >= every || size > 0 && bytes >= size || parts >= mostWaiting
}

// rollIn is how long no file becomes due by its age; false when none waits. The lane calls it while no
// checkpoint is under way.
func (c *committer) rollIn(now time.Time) (in time.Duration, any bool) {
	for _, s := range c.sinks {
		r, ok := s.(Roller)
		if !ok {
			continue
		}
		every, _ := r.Roll()
		w := c.waiting[r.Name()]
		if w == nil || every == 0 {
			continue
		}
		if left := max(0, every-w.age(now)); !any || left < in {
			in, any = left, true
		}
	}
	return in, any
}

// unrolled reports whether rows wait for a file.
func (c *committer) unrolled() bool { return len(c.waiting) > 0 }

// roll says in e, whose rows are staged, what becomes of each Roller's file.
func (c *committer) roll(ctx context.Context, e *Entry) error {
	now, own := time.Now(), int64(0)
	for _, b := range e.Rows.Parts {
		own += b.Size
	}
	for _, s := range c.sinks {
		r, ok := s.(Roller)
		if !ok {
			continue
		}
		w := c.waiting[r.Name()]
		if w == nil {
			if len(e.Rows.Parts) == 0 {
				continue
			}
			w = &waiting{}
		}
		f := Rolling{Sink: r.Name(), Age: w.age(now), Bytes: w.bytes}
		if f.Due = c.flush && !c.rules.keepWaiting || isDue(r, f.Age, w.bytes+own, len(w.parts)+len(e.Rows.Parts)); f.Due {
			f.Layout = r.Layout()
		}
		var err error
		if f.Parts, err = c.joined(ctx, w.parts); err != nil {
			return err
		}
		e.Files = append(e.Files, f)
	}
	return nil
}

// joined puts the last parts of a file together as long as entries hold them themselves, so that what an
// entry carries on stays small.
func (c *committer) joined(ctx context.Context, parts []Blob) ([]Blob, error) {
	from, size := len(parts), int64(0)
	for from > 0 && parts[from-1].Object == "" && size+parts[from-1].Size <= tailBytes {
		from--
		size += parts[from].Size
	}
	if len(parts)-from < 2 {
		return parts, nil
	}
	var rows []Row
	for _, b := range parts[from:] {
		more, err := c.read(ctx, b)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	blob, err := c.log.WriteObject(ctx, "rows", rowsWriter(rows))
	if err != nil {
		return nil, fmt.Errorf("stage rows: %w", err)
	}
	return append(parts[:from:from], blob), nil
}

// rolled takes over what a saved entry says about files: it is what the next one goes on from.
func (c *committer) rolled(e *Entry, now time.Time) {
	c.waiting = make(map[string]*waiting)
	for _, f := range e.Files {
		if f.Due || c.rules.dropWaiting {
			continue
		}
		w := &waiting{parts: append(f.Parts[:len(f.Parts):len(f.Parts)], e.Rows.Parts...), bytes: f.Bytes, since: now.Add(-f.Age)}
		for _, b := range e.Rows.Parts {
			w.bytes += b.Size
		}
		c.waiting[f.Sink] = w
	}
}

// write has the files written that a saved entry says are due.
func (c *committer) write(ctx context.Context, e *Entry, id CheckpointID) error {
	id.Part = 0
	for _, f := range e.Files {
		r, index := c.roller(f.Sink)
		if r == nil {
			return fmt.Errorf("commit: entry %d holds rows that wait for a file of the sink %s, which is no longer configured: add it again until they are written", e.Number, f.Sink)
		}
		if !f.Due {
			continue
		}
		layout := f.Layout
		if c.rules.layoutOfToday {
			layout = r.Layout()
		}
		parts := append(f.Parts[:len(f.Parts):len(f.Parts)], e.Rows.Parts...)
		var damage error // of the log, and so no fault of the sink: trying again does not help
		rejected, err := c.accepted(ctx, "deliver", func() error {
			err := r.Write(ctx, id, layout, c.rows(ctx, parts, &damage))
			if damage != nil {
				return nil
			}
			return err
		})
		if damage != nil {
			return damage
		}
		if err != nil {
			return err
		}
		if err := c.refused(ctx, id, index, rejected, c.rows(ctx, parts, &damage)); err != nil {
			return err
		}
	}
	return nil
}

// rows yields parts one by one, and notes an error that it yields.
func (c *committer) rows(ctx context.Context, parts []Blob, damage *error) iter.Seq2[[]Row, error] {
	return func(yield func([]Row, error) bool) {
		for _, b := range parts {
			rows, err := c.read(ctx, b)
			if err != nil {
				*damage = err
			}
			if !yield(rows, err) || err != nil {
				return
			}
		}
	}
}

// roller finds a sink by its name, and its place among the sinks.
func (c *committer) roller(name string) (Roller, int) {
	for i, s := range c.sinks {
		if r, ok := s.(Roller); ok && r.Name() == name {
			return r, i
		}
	}
	return nil, 0
}

// isRolling reports whether an entry speaks of the files of a sink: then its rows go that way.
func (e *Entry) isRolling(s Sink) bool {
	r, ok := s.(Roller)
	if !ok {
		return false
	}
	for _, f := range e.Files {
		if f.Sink == r.Name() {
			return true
		}
	}
	return false
}
