package stream

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
)

// narrow is a sink that takes rows of at most so many bytes.
type narrow struct {
	most  int
	taken map[string][]Row
}

func (n *narrow) Deliver(_ context.Context, id CheckpointID, rows []Row) error {
	var rejected Rejected
	for i, r := range rows {
		if len(r.Data) > n.most {
			rejected.Rows = append(rejected.Rows, RejectedRow{Index: i, Reason: "too large for me"})
			continue
		}
		n.taken[id.String()] = append(n.taken[id.String()], r)
	}
	if len(rejected.Rows) > 0 {
		return &rejected
	}
	return nil
}

// A letter that its own sink refuses for its size comes with less of the record, and at last with none:
// it does not stop its partition. What no sink takes is in the process's log.
func TestBuryLargeLetters(t *testing.T) {
	letters := []Row{}
	for i, size := range []int{10, 100 << 10} {
		d := DeadLetter{Reason: ReasonUndecodable, Partition: "p", Position: string(rune('a' + i)), Raw: bytes.Repeat([]byte("x"), size)}
		letters = append(letters, d.row())
	}
	for _, c := range []struct {
		most, raw int
		logged    bool
	}{{1 << 20, 100 << 10, false}, {64 << 10, lessRaw, false}, {1 << 10, 0, false}, {100, 0, true}} {
		var log bytes.Buffer
		sink := &narrow{c.most, make(map[string][]Row)}
		commits := committer{dead: sink, a: &Assignment{Partition: "p"}, logger: slog.New(slog.NewTextHandler(&log, nil)), stuck: func(error) {}}
		if err := commits.bury(t.Context(), CheckpointID{Pipeline: "n", Partition: "p", Number: 1, Kind: "dead"}, letters); err != nil {
			t.Fatal(err)
		}
		total := 0
		for id, rows := range sink.taken {
			total += len(rows)
			for _, r := range rows {
				var d DeadLetter
				if err := json.Unmarshal(r.Data, &d); err != nil {
					t.Fatal(id, err)
				}
				if d.Position == "b" && (len(d.Raw) != c.raw || c.raw < 100<<10 && d.Length != 100<<10) {
					t.Errorf("at most %d: %d bytes of %d, in %s", c.most, len(d.Raw), d.Length, id)
				}
			}
		}
		if c.logged != strings.Contains(log.String(), "refuses a letter") || !c.logged && total != 2 {
			t.Errorf("at most %d: %d letters taken; log:\n%s", c.most, total, &log)
		}
	}
}
