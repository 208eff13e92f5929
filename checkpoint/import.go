package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/millstream/millstream/stream"
)

// Import is where another program has left a source: what a new pipeline begins with.
type Import struct {
	From string // for people: "kcl://TABLE"
	// Partitions are those that the other program kept a checkpoint of. One that is not Done is read
	// behind From; the zero position is the source's configured start. One that is Done had been
	// read to its end, and is never read. Start and Ended are set by Import.
	//
	// A partition that is not here is read from Rest once its parents have ended, unless an imported
	// partition continues it: then it is taken for read.
	Partitions []stream.RosterRow
	Rest       stream.Position
}

// Exists says that a pipeline which was to be new has state.
type Exists struct{ Name, Where string }

func (e *Exists) Error() string {
	return fmt.Sprintf("pipeline %q has state in %s already: positions are imported into a new --name only", e.Name, e.Where)
}

// Import makes a new pipeline that goes on where another program has stopped. It writes one object,
// the merger's first entry, only if absent: whoever reads the log finds the whole import or none of
// it. An *Exists is returned when the pipeline has any log; nothing is written then.
func (s *Store) Import(ctx context.Context, i Import) error {
	if err := s.MustBeNew(ctx); err != nil {
		return err
	}
	e, err := i.entry()
	if err != nil {
		return err
	}
	err = s.offer(ctx, stream.MergerPartition, e)
	if errors.Is(err, stream.ErrFenced) {
		return &Exists{s.name, s.bucket.URL()}
	}
	return err
}

// MustBeNew returns an *Exists when the pipeline has any log.
func (s *Store) MustBeNew(ctx context.Context) error {
	logs, err := s.logs(ctx)
	if err != nil {
		return err
	}
	if len(logs) > 0 {
		return &Exists{s.name, s.bucket.URL()}
	}
	return nil
}

// entry is the merger's first.
func (i *Import) entry() (*stream.Entry, error) {
	if len(i.Partitions) == 0 {
		return nil, fmt.Errorf("%s: no partition to import", i.From)
	}
	rows := slices.Clone(i.Partitions)
	slices.SortFunc(rows, func(a, b stream.RosterRow) int { return strings.Compare(a.Name, b.Name) })
	for n := range rows {
		if rows[n].Name == "" || rows[n].Name == stream.MergerPartition {
			return nil, fmt.Errorf("%s: %q cannot be a partition's name", i.From, rows[n].Name)
		}
		if n > 0 && rows[n].Name == rows[n-1].Name {
			return nil, fmt.Errorf("%s: partition %s is named twice", i.From, rows[n].Name)
		}
		rows[n].Start, rows[n].Ended = stream.Beginning, rows[n].Done
	}
	e := &stream.Entry{Number: 1, Kind: stream.KindImport, Owner: "import", Nonce: nonce(), Watermark: stream.Beginning, LastWatermark: stream.Beginning,
		Merger: &stream.MergerEntry{Frontier: stream.Beginning, Target: stream.Beginning, Roster: rows, Imported: &stream.Imported{From: i.From, Rest: i.Rest}}}
	e.Genesis = e.Nonce
	return e, nil
}

// Export is what Import takes, of this pipeline as it is saved now; call Deserted before, or the
// positions may be old. waiting counts records in saved slices of windows that are not out: they are
// behind the exported positions, and in no row unless this pipeline goes on.
func (s *Store) Export(ctx context.Context) (i Import, waiting int64, err error) {
	tails, err := s.tails(ctx)
	if err != nil {
		return i, 0, err
	}
	merger := tails[stream.MergerPartition].base
	if merger == nil || merger.Merger == nil {
		return i, 0, fmt.Errorf("pipeline %q has no saved positions in %s", s.name, s.bucket.URL())
	}
	i.From = "millstream:" + s.name
	if m := merger.Merger.Imported; m != nil {
		i.Rest = m.Rest
	}
	for _, row := range merger.Merger.Roster {
		e := tails[row.Name].base
		switch {
		case row.Done:
		case e == nil || e.Kind == stream.KindReset:
			if row.From == (stream.Position{}) && merger.Merger.Tip != "" {
				return i, 0, fmt.Errorf("partition %s was never read, and begins at a moment that only pipeline %q knows: run that until `checkpoints list` shows a position there", row.Name, s.name)
			}
		default:
			row.From, row.Done = e.Position, e.Kind == stream.KindEnd || e.Watermark == stream.EndOfTime
			for _, f := range e.Frozen {
				if f.End > merger.Merger.Frontier {
					waiting += f.Count
				}
			}
		}
		if row.Done {
			row.From = stream.Position{}
		}
		i.Partitions = append(i.Partitions, row)
	}
	return i, waiting, nil
}
