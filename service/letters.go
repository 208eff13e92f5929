package service

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/millstream/millstream/stream"
)

// letters is a dead letter that tells people about itself: the first letter of each reason is logged
// when it is written, and the counts at the end of the run.
type letters struct {
	stream.Sink
	where  string
	logger *slog.Logger

	mu     sync.Mutex
	counts map[string]int64 // by reason, of this process
}

// mostReasons bounds what is told apart: a reason can be an expression of the user's, never a value.
const mostReasons = 50

func (l *letters) Deliver(ctx context.Context, id stream.CheckpointID, rows []stream.Row) error {
	if err := l.Sink.Deliver(ctx, id, rows); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counts == nil {
		l.counts = make(map[string]int64)
	}
	for i := range rows {
		reason := reasonOf(rows[i].Data)
		if _, known := l.counts[reason]; !known {
			if len(l.counts) == mostReasons {
				reason = "other reasons"
			} else {
				l.first(reason, rows[i].Data)
			}
		}
		l.counts[reason]++
	}
	return nil
}

// first tells of a reason that is new.
func (l *letters) first(reason string, row []byte) {
	if reason == stream.ReasonLate { // normal in small numbers, and in the ledger
		return
	}
	var d stream.DeadLetter
	if err := json.Unmarshal(row, &d); err != nil {
		return
	}
	l.logger.Warn("a record is in the dead letter, the first for this reason", "reason", reason, "error", d.Error,
		"partition", d.Partition, "position", d.Position, "where", l.where)
}

// summary tells the counts, if there are any.
func (l *letters) summary() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.counts) == 0 {
		return
	}
	reasons := slices.SortedFunc(maps.Keys(l.counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(l.counts[b], l.counts[a]), strings.Compare(a, b))
	})
	for i, r := range reasons {
		reasons[i] = strconv.FormatInt(l.counts[r], 10) + " " + r
	}
	l.logger.Warn("records in the dead letter, by reason", "counts", strings.Join(reasons, ", "), "where", l.where)
}

var reasonField = []byte(`{"reason":`)

// reasonOf reads the first field of a letter.
func reasonOf(row []byte) string {
	rest, ok := bytes.CutPrefix(row, reasonField)
	var reason string
	if !ok || json.NewDecoder(bytes.NewReader(rest)).Decode(&reason) != nil {
		return "unknown"
	}
	return reason
}
