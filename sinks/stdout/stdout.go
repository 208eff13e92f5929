// Package stdout is the sink for people and pipes: one row a line on standard output, or on any
// writer.
package stdout

import (
	"bufio"
	"context"
	"io"
	"sync"

	"github.com/millstream/millstream/stream"
)

// Sink writes rows as lines. A crash between writing and the next checkpoint writes them again: at
// least once. Safe for concurrent use; lines of different deliveries do not mix.
type Sink struct {
	mu  sync.Mutex
	out *bufio.Writer
}

// New writes to w, usually os.Stdout.
func New(w io.Writer) *Sink { return &Sink{out: bufio.NewWriterSize(w, 64<<10)} }

// Deliver implements stream.Sink. It returns once everything was handed to the writer.
func (s *Sink) Deliver(_ context.Context, _ stream.CheckpointID, rows []stream.Row) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range rows {
		s.out.Write(r.Data)   //nolint:errcheck // bufio keeps the first error for Flush
		s.out.WriteByte('\n') //nolint:errcheck // as above
	}
	return s.out.Flush()
}
