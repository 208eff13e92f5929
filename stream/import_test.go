package stream_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/checkpoint"
	"github.com/millstream/millstream/stream"
)

// moved is a script that another program has read a part of. grand is an expired ancestor's child that
// it forgot, done it had read to its end, p it left behind record 8, c waits for p though y behind it was begun, q it left behind
// record 5, quiet has nothing new, and new is known to the source alone.
func moved() *plan {
	of := func(name string, parents ...string) stream.Partition {
		return stream.Partition{Name: name, Parents: parents}
	}
	return written(
		&scripted{Partition: of("grand", "expired"), records: every("grand", 0, 3)},
		&scripted{Partition: of("done", "grand"), records: every("done", 0, 4), children: []stream.Partition{of("p", "done")}},
		&scripted{Partition: of("p", "done"), records: every("p", 0, 13), ends: 20 * time.Second, children: []stream.Partition{of("c", "p")}},
		&scripted{Partition: of("c", "p"), records: every("c", 21, 30), ends: 30 * time.Second, children: []stream.Partition{of("y", "c")}},
		&scripted{Partition: of("y", "c"), records: every("y", 31, 36), ends: 36 * time.Second},
		&scripted{Partition: of("q"), records: every("q", 0, 40), ends: 40 * time.Second},
		&scripted{Partition: of("quiet"), records: every("quiet", 0, 2), ends: 40 * time.Second},
		&scripted{Partition: of("new"), records: every("new", 5, 9), ends: 9 * time.Second})
}

var movedImport = checkpoint.Import{From: "test", Partitions: []stream.RosterRow{
	{Partition: stream.Partition{Name: "done"}, Done: true},
	{Partition: stream.Partition{Name: "p", Parents: []string{"done"}}, From: stream.Position{Number: 8}},
	{Partition: stream.Partition{Name: "q"}, From: stream.Position{Number: 5}},
	{Partition: stream.Partition{Name: "y", Parents: []string{"c"}}, From: stream.Position{Number: 2}},
	{Partition: stream.Partition{Name: "quiet"}, From: stream.Position{Number: 2}},
}, Rest: stream.Position{Number: 1}}

// movedSamples are those that are still to be counted: of what the import does not name, those behind
// its Rest.
func movedSamples(pl *plan) (samples []sample) {
	for name, from := range map[string]int{"p": 8, "c": 1, "q": 5, "new": 1, "y": 2} {
		for _, r := range pl.script.parts[name].records[from:] {
			samples = append(samples, r.sample)
		}
	}
	return samples
}

// imported runs a pipeline that begins with another program's positions, and kills its process at
// every write in turn: every record behind them is in the rows, once, and none before.
func imported(t *testing.T, off ...string) (err error) {
	for n := 1; err == nil; n++ {
		died := false
		synctest.Test(t, func(t *testing.T) {
			pl := moved()
			w := begin(pl)
			store, openErr := checkpoint.Open(t.Context(), checkpoint.Config{Bucket: w.bucket, Name: "sim"})
			if openErr == nil {
				openErr = store.Import(t.Context(), movedImport)
			}
			if openErr != nil {
				t.Fatal(openErr)
			}
			g := newGate(w)
			g.killAt = n
			last := w.launch(pl.pipeline(off), g)
			var buried []*instance
			select {
			case <-g.died:
				died = true
				buried = append(buried, last)
				last = w.launch(pl.pipeline(off), newGate(w))
			case e := <-last.done:
				last.done <- e
			}
			select {
			case err = <-last.done:
				last.done <- nil
			case <-time.After(virtualEnd):
				err = errors.New("it does not finish")
			}
			for _, i := range append(buried, last) {
				i.kill()
				i.cancel()
				<-i.done
			}
			if errors.Is(err, stream.ErrFinished) {
				err = nil
			}
			if err == nil {
				want := movedSamples(pl)
				err = sameRows(w, exact(pl.windows, slices.Clone(want)))
				if l, e := w.ledger(); err == nil && (e != nil || l.RecordsIn != int64(len(want))) {
					err = fmt.Errorf("%d records in, %d are behind the imported positions (%w)", l.RecordsIn, len(want), e)
				}
			}
		})
		if err != nil {
			return fmt.Errorf("killed at write %d: %w", n, err)
		}
		if !died {
			if n < 30 {
				return fmt.Errorf("only %d writes", n)
			}
			return nil
		}
	}
	return err
}

func sameRows(w *world, want []string) error {
	var got []string
	for _, r := range w.sink.Rows() {
		got = append(got, string(r.Data))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		return fmt.Errorf("rows\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	return nil
}

func TestImported(t *testing.T) {
	if err := imported(t); err != nil {
		t.Error(err)
	}
}
