package streamtest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/millstream/millstream/stream"
)

// Sink keeps the rows that are delivered to it. Like a sink that writes a file for every checkpoint
// it takes the rows of an id once: the same again changes nothing, others under the same id are a
// fault. The zero Sink is ready. Safe for concurrent use.
type Sink struct {
	mu       sync.Mutex
	rows     map[stream.CheckpointID][]stream.Row
	repeated int
	err      error
}

// Deliver implements stream.Sink. It fails only when ctx is done.
func (s *Sink) Deliver(ctx context.Context, id stream.CheckpointID, rows []stream.Row) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rows == nil {
		s.rows = make(map[stream.CheckpointID][]stream.Row)
	}
	old, again := s.rows[id]
	switch {
	case !again:
		s.rows[id] = cloneRows(rows)
		return nil
	case !slices.EqualFunc(old, rows, sameRow) && s.err == nil:
		s.err = fmt.Errorf("%s was delivered twice with different rows", id)
	}
	s.repeated++
	return nil
}

// Rows returns every row once: by partition (the merger is one), entry, part, and as they stand in it.
func (s *Sink) Rows() []stream.Row {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]stream.CheckpointID, 0, len(s.rows))
	for id := range s.rows {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b stream.CheckpointID) int {
		return cmp.Or(strings.Compare(a.Partition, b.Partition), strings.Compare(a.Genesis, b.Genesis),
			cmp.Compare(a.Number, b.Number), cmp.Compare(a.Part, b.Part), strings.Compare(a.Kind, b.Kind))
	})
	var rows []stream.Row
	for _, id := range ids {
		rows = append(rows, cloneRows(s.rows[id])...)
	}
	return rows
}

// DeadLetters returns the rows as the dead letters that they are.
func (s *Sink) DeadLetters() ([]stream.DeadLetter, error) {
	var letters []stream.DeadLetter
	for _, r := range s.Rows() {
		var d stream.DeadLetter
		if err := json.Unmarshal(r.Data, &d); err != nil {
			return nil, fmt.Errorf("dead letter %q: %w", r.Data, err)
		}
		letters = append(letters, d)
	}
	return letters, nil
}

// Repeated is how many deliveries were repetitions.
func (s *Sink) Repeated() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.repeated
}

// Err says that different rows came under one id.
func (s *Sink) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func sameRow(a, b stream.Row) bool {
	return a.Key == b.Key && a.Window == b.Window && bytes.Equal(a.Data, b.Data)
}

func cloneRows(rows []stream.Row) []stream.Row {
	rows = slices.Clone(rows)
	for i := range rows {
		rows[i].Key, rows[i].Data = strings.Clone(rows[i].Key), bytes.Clone(rows[i].Data)
	}
	return rows
}
