package consumers

import (
	"context"

	"github.com/millstream/millstream/stream"
)

// Source is what a driver implements: it lists partitions and opens readers. Safe for concurrent use.
// The suite in consumertest holds a driver to this page.
type Source interface {
	stream.Source
	// Identity names the source for the plan (A8): what the data is, not how it is reached. No rate,
	// endpoint, consumer or start.
	Identity() string
	// Open starts to read a partition behind from: the Next of an earlier fetch, or the Position of
	// any record that an earlier reader returned. The zero Position means the configured start, or
	// the very beginning for a partition that has parents. tip is the mark that Tip returned when
	// the pipeline began, or empty. An error that wraps stream.ErrPartitionGone means that the
	// source has no such partition any more. ctx covers the call, not the life of the reader.
	Open(ctx context.Context, partition string, from stream.Position, tip string) (Reader, error)
	// Close frees what the source holds. It is called once, after every reader is closed.
	Close() error
}

// ClaimedSource is a Source whose service itself can keep an earlier owner of a partition out, given a
// number that grows with every owner. A subscriber opens its readers with OpenClaimed.
type ClaimedSource interface {
	Source
	// OpenClaimed is Open for the claim of that number, from 1 on (stream.Assignment.Claim): readers of
	// smaller claims are put out, and refused afterwards.
	OpenClaimed(ctx context.Context, partition string, from stream.Position, tip string, claim uint64) (Reader, error)
}

// Reader reads one partition in order. One goroutine at a time.
type Reader interface {
	// Read returns what comes next. It waits until there is at least one record, or the state has
	// changed, or the partition has ended; it returns an error when it cannot go on, having retried
	// what passes by itself (throttling, expired iterators, lost connections) with back-off. It
	// returns soon after ctx is done, with an error. Nothing is read after an error or an end.
	//
	// The fetch belongs to the caller, who may keep its records for as long as it likes; the driver
	// never touches their bytes again. While the caller still holds one fetch the next is read, and
	// no more: two fetches of a partition are the memory that a driver costs.
	Read(ctx context.Context) (Fetch, error)
	Close() error
}

// Fetch is what one Read returned: any number of records, none for a mere change of state.
//
// The Position of each record is itself a place to resume: a reader opened from it starts with the
// record behind it. A fetch is cut into batches wherever its size asks for it, and a subscriber in
// plain mode saves after any record. Positions of one partition are all different, and never zero.
type Fetch struct {
	Records []stream.Record
	Next    stream.Position // where a later Open resumes behind these records
	State   stream.ReaderState
	End     *stream.PartitionEnd // set when nothing follows these records, ever
	// Settle is set by a source that wants to hear what became of its records. It is called for
	// every record of the fetch once, in runs [from, to): with nil when they are durable, so that the
	// source may forget them, and with the reason when they will not be, so that it delivers them
	// again. Any goroutine may call it, several at once, also while Read waits, and it must not wait.
	// Close comes when every run is settled, or at once when the assignment is lost: then what is
	// open is given back, and Settle does nothing any more.
	Settle func(from, to int, err error)
}

// settle calls Settle, if there is one.
func (f *Fetch) settle(from, to int, err error) {
	if f.Settle != nil && from < to {
		f.Settle(from, to, err)
	}
}
