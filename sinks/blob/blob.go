// Package blob is the sink for object stores and local folders: files of rows, exactly once by name.
//
// Rows reach the sink when the entry that decides them is saved, under an id that no other rows will
// ever have. One id is one file, named after the id and written only if absent: whoever delivers it
// again, after a crash or from a process that had been thought dead, finds the name taken by the
// same bytes. A reader who ignores names that start with "_" or "." sees every row once.
package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/stream"
)

// Sink writes newline-delimited JSON. Safe for concurrent use.
type Sink struct {
	bucket bucket.Bucket
	prefix string
}

// New writes below prefix, which is empty or ends in "/", of a bucket. The sink does not close it.
func New(b bucket.Bucket, prefix string) (*Sink, error) {
	if prefix != "" && !strings.HasSuffix(prefix, "/") {
		return nil, fmt.Errorf("prefix %q does not end in /", prefix)
	}
	return &Sink{bucket: b, prefix: prefix}, nil
}

// Deliver implements stream.Sink.
func (s *Sink) Deliver(ctx context.Context, id stream.CheckpointID, rows []stream.Row) error {
	var size int
	for i := range rows {
		size += len(rows[i].Data) + 1
	}
	data := bytes.NewBuffer(make([]byte, 0, size))
	for i := range rows {
		data.Write(rows[i].Data)
		data.WriteByte('\n')
	}
	name := s.prefix + id.String() + ".ndjson"
	err := s.bucket.Create(ctx, name, data.Bytes())
	if err != nil && !errors.Is(err, bucket.ErrExists) {
		return fmt.Errorf("%s: %w", s.bucket.URL(), err)
	}
	return nil
}
