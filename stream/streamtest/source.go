package streamtest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/stream"
)

// Lines makes a record of every line of the texts that is not blank.
func Lines(texts ...string) []stream.Record {
	var records []stream.Record
	for _, text := range texts {
		for line := range strings.Lines(text) {
			if line = strings.TrimRight(line, "\r\n"); strings.TrimSpace(line) != "" {
				records = append(records, stream.Record{Data: []byte(line)})
			}
		}
	}
	return records
}

// source serves records that are in memory, a batch every so often, and ends.
type source struct {
	partitions map[string][]stream.Record
	batch      int
	pace       time.Duration
}

// newSource numbers the records that have no position.
func newSource(partitions map[string][]stream.Record, batch int, pace time.Duration) *source {
	s := &source{partitions: make(map[string][]stream.Record, len(partitions)), batch: batch, pace: pace}
	for name, records := range partitions {
		records = slices.Clone(records)
		for i := range records {
			if records[i].Position == (stream.Position{}) {
				records[i].Position.Number = int64(i + 1)
			}
		}
		s.partitions[name] = records
	}
	return s
}

// order finds the records of dead letters: by partition and position where in the partition they are; the dead
// letters of rows are not there.
func (s *source) order() map[[2]string]int {
	at := make(map[[2]string]int)
	for partition, records := range s.partitions {
		for i := range records {
			at[[2]string{partition, records[i].Position.String()}] = i + 1
		}
	}
	return at
}

func (s *source) Identity() string                    { return "streamtest" }
func (s *source) Close() error                        { return nil }
func (s *source) Tip(context.Context) (string, error) { return "end", nil }

func (s *source) Partitions(context.Context) ([]stream.Partition, error) {
	var ps []stream.Partition
	for _, name := range slices.Sorted(maps.Keys(s.partitions)) {
		ps = append(ps, stream.Partition{Name: name})
	}
	return ps, nil
}

func (s *source) Open(_ context.Context, partition string, from stream.Position, _ string) (consumers.Reader, error) {
	rest := s.partitions[partition]
	if from != (stream.Position{}) {
		at := slices.IndexFunc(rest, func(r stream.Record) bool { return r.Position == from })
		if at < 0 {
			return nil, fmt.Errorf("partition %s has no record at position %s", partition, from)
		}
		rest = rest[at+1:]
	}
	return &reader{source: s, rest: rest}, nil
}

type reader struct {
	*source
	rest []stream.Record
	read bool
}

func (r *reader) Read(ctx context.Context) (consumers.Fetch, error) {
	if r.read && r.pace > 0 {
		select {
		case <-time.After(r.pace):
		case <-ctx.Done():
			return consumers.Fetch{}, context.Cause(ctx)
		}
	}
	r.read = true
	n := min(r.batch, len(r.rest))
	f := consumers.Fetch{Records: slices.Clone(r.rest[:n])}
	if n > 0 {
		f.Next = f.Records[n-1].Position
	}
	if r.rest = r.rest[n:]; len(r.rest) == 0 {
		f.End = &stream.PartitionEnd{}
	}
	return f, nil
}

func (r *reader) Close() error { return nil }
