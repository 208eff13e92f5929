// Package stdout is the sink for people and pipes: one row a line on standard output, or on any
// writer.
package stdout

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/millstream/millstream/sinks"
	"github.com/millstream/millstream/stream"
)

// Sink writes rows as lines. A crash between writing and the next checkpoint writes them again: at
// least once, and nothing in a line tells that it came before. Safe for concurrent use; lines of
// different deliveries do not mix, also when writing fails half-way.
type Sink struct {
	out  io.Writer
	turn chan struct{} // holds a token while nobody writes; it guards what follows

	torn  []byte                      // the end of a line whose beginning was written
	begun map[stream.CheckpointID]int // bytes of failed deliveries that are written, or torn
}

var _ stream.Sink = (*Sink)(nil)

// maxBegun bounds what is remembered of failed deliveries: most are repeated at once, those of a lost
// partition never.
const maxBegun = 1000

// New writes to w, usually os.Stdout.
func New(w io.Writer) *Sink {
	s := &Sink{out: w, turn: make(chan struct{}, 1), begun: make(map[stream.CheckpointID]int)}
	s.turn <- struct{}{}
	return s
}

// Deliver implements stream.Sink. It returns once everything was handed to the writer, or ctx is done: a
// pipe whose reader stands still does not hold the partition. Called again after an error, it goes on
// where writing failed. Rows that cannot be lines, see sinks.Lines, are in a *stream.Rejected; the
// others are then written.
func (s *Sink) Deliver(ctx context.Context, id stream.CheckpointID, rows []stream.Row) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("stdout: %w", err)
	}
	data, rejected := sinks.Lines(rows)
	if len(data) > 0 {
		if err := s.deliver(ctx, id, data); err != nil {
			return fmt.Errorf("stdout: %w", err)
		}
	}
	if rejected != nil {
		return rejected
	}
	return nil
}

func (s *Sink) deliver(ctx context.Context, id stream.CheckpointID, data []byte) error {
	select {
	case <-s.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	written := make(chan error, 1)
	go func() {
		err := s.write(id, data)
		s.turn <- struct{}{}
		written <- err
	}()
	select {
	case err := <-written:
		return err
	case <-ctx.Done():
		return ctx.Err() // the write keeps its turn until the writer has taken it
	}
}

// write is called by one goroutine at a time.
func (s *Sink) write(id stream.CheckpointID, data []byte) error {
	if len(s.torn) > 0 {
		n, err := s.out.Write(s.torn)
		s.torn = s.torn[n:]
		if err != nil {
			return err
		}
	}
	at := s.begun[id]
	n, err := s.out.Write(data[at:])
	if err == nil {
		delete(s.begun, id)
		return nil
	}
	at += n
	if at > 0 && data[at-1] != '\n' {
		end := at + bytes.IndexByte(data[at:], '\n') + 1
		s.torn, at = data[at:end], end
	}
	if len(s.begun) >= maxBegun {
		clear(s.begun)
	}
	s.begun[id] = at
	return err
}
