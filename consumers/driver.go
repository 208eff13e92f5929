package consumers

import (
	"context"

	"github.com/millstream/millstream/stream"
)

// Source is what a driver implements: it lists partitions and opens readers. Safe for concurrent use.
type Source interface {
	stream.Source
	// Identity names the source for the plan (A8): what the data is, not how it is reached. No rate,
	// endpoint, consumer or start.
	Identity() string
	// Open starts to read a partition behind from, the Next of an earlier fetch; the zero Position
	// means the configured start, or the very beginning for a partition that has parents. tip is the
	// mark that Tip returned when the pipeline began, or empty. An error that wraps
	// stream.ErrPartitionGone means that the source has no such partition any more.
	Open(ctx context.Context, partition string, from stream.Position, tip string) (Reader, error)
	Close() error
}

// Reader reads one partition in order. One goroutine at a time.
type Reader interface {
	// Read returns what comes next. It waits until there is at least one record, or the state has
	// changed, or the partition has ended; it returns an error when it cannot go on, having retried
	// what passes by itself (throttling, expired iterators, lost connections) with back-off. The
	// fetch belongs to the caller; the driver never touches its bytes again.
	Read(ctx context.Context) (Fetch, error)
	Close() error
}

// Fetch is what one Read returned: any number of records, none for a mere change of state.
type Fetch struct {
	Records []stream.Record
	Next    stream.Position // where a later Open resumes behind these records
	State   stream.ReaderState
	End     *stream.PartitionEnd // set when nothing follows these records, ever
}
