package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Position is a place in a partition. Only the source that made it can read it: a Kinesis sequence
// number (Token) with its sub-sequence (Number), a byte offset (Number). The zero Position is the
// source's configured start.
type Position struct {
	Token  string `json:"token,omitempty"`
	Number int64  `json:"number,omitempty"`
}

// longToken is a Token that only a program reads, such as a list of names.
const longToken = 256

// String prints the position for people: dead letters, logs, command output. Of a Token that is longer than
// 256 bytes it has the beginning and the length.
func (p Position) String() string {
	if len(p.Token) > longToken {
		p.Token = fmt.Sprintf("%s…(%d bytes)", strings.ToValidUTF8(p.Token[:24], ""), len(p.Token))
	}
	switch {
	case p.Token == "":
		return fmt.Sprint(p.Number)
	case p.Number == 0:
		return p.Token
	}
	return fmt.Sprintf("%s/%d", p.Token, p.Number)
}

// Record is one record as the source delivered it. Its Data is never modified by anybody once the
// record is in a batch; decoded events may point into it.
type Record struct {
	Data     []byte
	Position Position // of this record
	Key      string   // the source's partition key, if it has one
	Arrived  Instant  // when the source received it; 0 when the source does not say
	// ID tells this record from every other of a source that may deliver it again (Redelivering); 0
	// for sources that do not.
	ID uint64
	// Refused is set when the source itself found that the record cannot be used: it goes to the dead
	// letter without being decoded.
	Refused *Refusal
}

// Refusal says why a source refuses a record.
type Refusal struct {
	Reason string // of the dead letter
	Detail string // its error
	Length int64  // of the record, when Data holds only its beginning
}

// TooLarge refuses a record of so many bytes, which are more than the source's limit. Data holds the first
// 64 KiB.
func TooLarge(length int64) *Refusal {
	return &Refusal{Reason: ReasonOversize, Detail: fmt.Sprintf("record of %d bytes", length), Length: length}
}

// Placer is a Source whose positions say little to people, such as whole lists of names.
type Placer interface {
	Source
	// Place words the position of a record, for dead letters and listings.
	Place(Position) string
}

// ReaderState says why a reader has nothing more at the moment. Only a reader that has caught up
// can make its partition idle (M5).
type ReaderState uint8

const (
	Reading   ReaderState = iota // there is, or may be, more to read now
	CaughtUp                     // the source says that nothing more is there yet
	Throttled                    // the source refuses to be read faster
	Paused                       // reading is held back on our side
)

func (s ReaderState) String() string {
	return [...]string{"reading", "caught up", "throttled", "paused"}[s]
}

// Partition names a part of a source whose records are ordered, and the partitions that it
// continues. Records of a child come after the last record of every parent.
type Partition struct {
	Name    string   `json:"name"`
	Parents []string `json:"parents,omitempty"`
}

// PartitionEnd says that a partition holds no more records, ever.
type PartitionEnd struct {
	Children []Partition // partitions that continue it, with all of their parents
	Lost     bool        // it vanished from the source before its end was read: a counted loss
}

// Batch is a run of consecutive records of one partition, the unit that travels: one Watermill
// message carries one batch. It is made by the assignment's reader and owned by the lane from the
// moment it is sent. Only Durable, Done and Err may be called by anybody.
type Batch struct {
	Assignment *Assignment
	Seq        uint64 // 0, 1, 2, … within the assignment; the lane restores this order
	Records    []Record
	Next       Position      // where a reader resumes after this batch
	State      ReaderState   // of the reader after this batch
	End        *PartitionEnd // set on the batch after which the partition is finished
	Last       bool          // the assignment ends here: save what there is and release

	bytes   int64 // what the batch holds of the assignment's Flow
	once    sync.Once
	offered bool // guarded by the lane registry's mutex
	durable chan struct{}
	failed  chan struct{}
	err     error
}

// NewBatch makes an empty batch of an assignment.
func NewBatch(a *Assignment, seq uint64) *Batch {
	return &Batch{Assignment: a, Seq: seq, durable: make(chan struct{}), failed: make(chan struct{})}
}

// Durable is closed by the lane once everything the batch led to is saved in the log and committed
// to the sinks. An ack of a message whose batch is not durable is not believed.
func (b *Batch) Durable() <-chan struct{} { return b.durable }

// Failed is closed when the batch will never become durable in this assignment; Err says why.
func (b *Batch) Failed() <-chan struct{} { return b.failed }

// Err is the reason why the batch failed. Valid once Failed is closed.
func (b *Batch) Err() error { return b.err }

// IsDurable reports whether Durable is closed.
func (b *Batch) IsDurable() bool {
	select {
	case <-b.durable:
		return true
	default:
		return false
	}
}

// Settle ends the batch: durable when err is nil, failed otherwise. The first call counts. It is
// called by lanes, and by subscribers that serve a batch without a pipeline.
func (b *Batch) Settle(err error) {
	b.once.Do(func() {
		if err == nil {
			close(b.durable)
			return
		}
		b.err = err
		close(b.failed)
	})
}

// Hold takes the batch's bytes from the assignment's Flow, waiting until there is room. A batch
// larger than the whole bound goes alone. The lane gives the bytes back.
func (b *Batch) Hold(ctx context.Context) error {
	n := int64(64)
	for i := range b.Records {
		n += int64(len(b.Records[i].Data)) + 72
	}
	if err := b.Assignment.Flow.Acquire(ctx, n); err != nil {
		return err
	}
	b.bytes = n
	return nil
}

type batchKey struct{}

// Message wraps the batch into a Watermill message. The message's context carries the batch and
// nothing else of ours: the engine never uses that context for its own I/O, since routers cancel it.
func (b *Batch) Message(ctx context.Context) *message.Message {
	m := message.NewMessage(fmt.Sprintf("%s-%d-%d", b.Assignment.Partition, b.Assignment.Claim, b.Seq), nil)
	m.SetContext(context.WithValue(ctx, batchKey{}, b))
	return m
}

// ErrNoBatch is returned by Handle for a message that carries no batch: it came from a subscriber
// that is not in batch mode, or a decorator copied the message and dropped its context.
var ErrNoBatch = errors.New("message carries no batch: subscribe with sub.Batches(), and use no decorator that copies messages")

// BatchOf returns the batch that a message carries.
func BatchOf(m *message.Message) (*Batch, error) {
	if b, ok := m.Context().Value(batchKey{}).(*Batch); ok {
		return b, nil
	}
	return nil, ErrNoBatch
}
