// Package blob is the sink for object stores and local folders: files of rows, exactly once by name.
//
// Rows reach the sink when the entry that decides them is saved, under an id that no other rows will
// ever have. One id is one file, named after the id and written only if absent: whoever delivers it
// again, after a crash or from a process that had been thought dead, finds the name taken by the
// same bytes. A reader who ignores names that start with "_" or "." sees every row once, and never
// half a file.
//
// A file must stay where it is until the pipeline has gone on: the output of each partition's newest
// entry is delivered again when its owner died, and a file that was moved away by then comes back.
// Deleting by age is safe from a few checkpoint intervals on, while the pipeline runs; a pipeline that
// stopped by itself delivers nothing again.
package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/sinks"
	"github.com/millstream/millstream/stream"
)

// Sink writes newline-delimited JSON. Safe for concurrent use.
type Sink struct {
	bucket bucket.Bucket
	prefix string
}

var _ stream.Sink = (*Sink)(nil)

// New writes below prefix, which is empty or ends in "/", of a bucket. The sink does not close it. It
// creates objects, and reads one only when that failed: its name may be taken, by its own bytes.
func New(b bucket.Bucket, prefix string) (*Sink, error) {
	if prefix != "" && !strings.HasSuffix(prefix, "/") {
		return nil, fmt.Errorf("prefix %q does not end in /", prefix)
	}
	return &Sink{bucket: b, prefix: prefix}, nil
}

// Deliver implements stream.Sink. No rows make no file. Rows that cannot be lines, see sinks.Lines, are
// in a *stream.Rejected; the others are then delivered.
func (s *Sink) Deliver(ctx context.Context, id stream.CheckpointID, rows []stream.Row) error {
	data, rejected := sinks.Lines(rows)
	if len(data) > 0 {
		if err := s.create(ctx, s.prefix+fileName(id)+".ndjson", data); err != nil {
			return fmt.Errorf("%s: %w", s.bucket.URL(), err)
		}
	}
	if rejected != nil {
		return rejected
	}
	return nil
}

// create writes a file unless it is there, and after any failure reads what is. That a name is taken
// proves nothing about the bytes: a file that was damaged, or that somebody else put there, must not
// pass for the rows. Another error leaves the outcome open: the reply was lost, or the server refused
// a taken name and hung up before it had read several MB, which the client then sees as a broken
// connection, however often it tries.
func (s *Sink) create(ctx context.Context, name string, data []byte) error {
	failure := s.bucket.Create(ctx, name, data)
	if failure == nil || ctx.Err() != nil {
		return failure
	}
	taken := errors.Is(failure, bucket.ErrExists)
	there, err := s.bucket.Get(ctx, name)
	switch {
	case err == nil && bytes.Equal(there, data):
		return nil
	case err == nil:
		return fmt.Errorf("%s holds %d bytes that are not the %d bytes of its rows: move it away, and the rows are written", name, len(there), len(data))
	case taken:
		return fmt.Errorf("%s exists, and cannot be read back: %w", name, err)
	}
	return failure
}

const (
	// maxName leaves room for an extension within the 255 bytes that file systems allow.
	maxName = 240
	// What is left of a pipeline's or partition's name that is too long, before its hash.
	maxPipeline, maxPartition = 40, 24
)

// fileName is the id's string, as every store takes it and no reader ignores it.
func fileName(id stream.CheckpointID) string {
	name := id.String()
	if len(name) > maxName {
		id.Partition = shorten(id.Partition, maxPartition)
		name = id.String()
	}
	if len(name) > maxName {
		id.Pipeline = shorten(id.Pipeline, maxPipeline)
		name = id.String()
	}
	switch name[0] {
	case '_':
		name = "%5F" + name[1:]
	case '.':
		name = "%2E" + name[1:]
	}
	return strings.ReplaceAll(name, "__0x", "%5F_0x") // which gocloud.dev takes for its own escapes
}

// shorten keeps the beginning of a name and tells it from others by a hash of the whole.
func shorten(name string, keep int) string {
	if len(name) <= keep {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:keep] + "~" + hex.EncodeToString(sum[:16])
}
