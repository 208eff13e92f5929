package consumers_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/consumers/consumertest"
	"github.com/millstream/millstream/stream"
)

// endless is a partition of records that cost nothing to read, in fetches of 2,000.
type endless struct {
	consumers.Source
	left    atomic.Int64
	records []stream.Record
}

func (e *endless) Open(context.Context, string, stream.Position, string) (consumers.Reader, error) {
	return e, nil
}

func (e *endless) Read(context.Context) (consumers.Fetch, error) {
	n := min(e.left.Load(), int64(len(e.records)))
	if e.left.Add(-n) == 0 {
		return consumers.Fetch{Records: e.records[:n], Next: stream.Position{Number: 1}, End: &stream.PartitionEnd{}}, nil
	}
	return consumers.Fetch{Records: e.records[:n], Next: stream.Position{Number: 1 + e.left.Load()}}, nil
}

func (e *endless) Close() error { return nil }

// What the subscriber and a router cost a record of 250 bytes, with a handler that does nothing.
func BenchmarkBatches(b *testing.B) {
	memory := consumertest.NewMemory(1, 1)
	src := &endless{Source: memory.Source(topic), records: make([]stream.Record, 2000)}
	for i := range src.records {
		src.records[i] = stream.Record{Data: make([]byte, 250), Position: stream.Position{Number: int64(i + 1)}}
	}
	src.left.Store(int64(b.N))
	sub, err := consumers.New(consumers.Config{Source: src, Group: consumertest.NewLogs().Group()})
	if err != nil {
		b.Fatal(err)
	}
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		b.Fatal(err)
	}
	ls := newLanes()
	var n atomic.Int64
	router.AddConsumerHandler("bench", topic, sub.Batches(), func(m *message.Message) error {
		batch, err := stream.BatchOf(m)
		if err != nil || batch.Assignment.Partition == stream.MergerPartition {
			return ls.Handle(m)
		}
		n.Add(int64(len(batch.Records)))
		if batch.Seq > 0 {
			batch.Assignment.Flow.Release(64+int64(len(batch.Records))*(250+72), 1)
		}
		if batch.End != nil {
			err = batch.Assignment.Log.Append(context.Background(), &stream.Entry{Kind: stream.KindEnd})
		}
		batch.Settle(err)
		return err
	})
	b.ReportAllocs()
	b.ResetTimer()
	if err := router.Run(context.Background()); err != nil {
		b.Fatal(err)
	}
	if n.Load() != int64(b.N) {
		b.Fatalf("%d records of %d", n.Load(), b.N)
	}
}
