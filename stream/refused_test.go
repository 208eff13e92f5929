package stream_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/stream"
)

// A row that a sink refuses while it is staged is dead-lettered alone and counted, with the sink's reason;
// the others become visible. It comes once, though the process that staged it dies and is followed.
func TestRefusedWhileStaged(t *testing.T) {
	for _, kill := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			records := every("kept", 0, 4)
			records = append(records, at("refused", 5, 5))
			records = append(records, every("kept", 6, 10)...)
			pl := written(&scripted{Partition: stream.Partition{Name: "p"}, records: records, ends: 20 * time.Second})
			pl.windows, pl.stages = nil, true
			w := begin(pl)
			i := w.launch(pl.pipeline(nil), newGate(w))
			if kill {
				<-time.After(9 * time.Second)
				i.kill()
				i.cancel()
				<-i.done
				i = w.launch(pl.pipeline(nil), newGate(w))
			}
			if err := <-i.done; err != nil {
				t.Error(err)
			}
			i.cancel()
			letters, err := w.dead.DeadLetters()
			if err != nil || len(letters) != 1 || letters[0].Reason != stream.ReasonRejected || letters[0].Error != "refused by its key" ||
				!strings.HasPrefix(string(letters[0].Raw), "refused ") || letters[0].Partition != "p" {
				t.Errorf("dead letters %+v, %v", letters, err)
			}
			visible := w.staged.Rows()
			if len(visible) != 8 || len(w.sink.Rows()) != 9 {
				t.Errorf("visible are %d rows, in the other sink %d", len(visible), len(w.sink.Rows()))
			}
			if e, err := w.newest("p"); err != nil || e.SinkLosses != 1 || e.Ledger.RowsOut != 9 {
				t.Errorf("%+v, %v", e, err)
			}
		})
	}
}
