package kinesis

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/consumers/consumertest"
	fake "github.com/millstream/millstream/fakes/kinesis"
	"github.com/millstream/millstream/stream"
)

// The real engine reads a stream that splits and merges, while owners are lost and drained, iterators
// expire and calls fail: every record of every key arrives once, in the order in which it was written,
// across shards. Live, the reshards happen under the readers; as a backlog, all shards but one are
// closed when reading begins. Polled, and by subscription.
func TestOrderAcrossReshard(t *testing.T) {
	for name, live := range map[string]bool{"live": true, "backlog": false} {
		for feed, by := range map[string]string{"": "", " by subscription": consumer} {
			t.Run(name+feed, func(t *testing.T) {
				inFan(t, fake.Options{}, func(b *bed) {
					if err := b.reshard(live, by, func(s *Source) consumers.Source { return s }); err != nil {
						b.Fatal(err)
					}
				})
			})
		}
	}
}

// The negative control: without parents, children are read beside them, and the order is gone.
func TestOrderNeedsParents(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		err := b.reshard(false, "", func(s *Source) consumers.Source { return childless{s} })
		if err == nil || !strings.Contains(err.Error(), "is number") {
			b.Fatalf("a source that hides which shard continues which: %v", err)
		}
	})
}

// childless hides which shard continues which.
type childless struct{ *Source }

func (c childless) Partitions(ctx context.Context) ([]stream.Partition, error) {
	ps, err := c.Source.Partitions(ctx)
	for i := range ps {
		ps[i].Parents = nil
	}
	return ps, err
}

func (c childless) Open(ctx context.Context, p string, from stream.Position, tip string) (consumers.Reader, error) {
	r, err := c.Source.Open(ctx, p, from, tip)
	return childlessReader{r}, err
}

type childlessReader struct{ consumers.Reader }

func (c childlessReader) Read(ctx context.Context) (consumers.Fetch, error) {
	f, err := c.Reader.Read(ctx)
	if f.End != nil {
		f.End = &stream.PartitionEnd{}
	}
	return f, err
}

// delivered is a sink that keeps the numbers of each key in the order of delivery.
type delivered struct {
	mu   sync.Mutex
	ids  map[stream.CheckpointID]bool
	keys map[string][]int
	n    int
	full chan struct{}
	want int
}

func (d *delivered) Deliver(_ context.Context, id stream.CheckpointID, rows []stream.Row) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ids[id] {
		return nil
	}
	d.ids[id] = true
	for _, r := range rows {
		i, err := strconv.Atoi(string(r.Data))
		if err != nil {
			return err
		}
		d.keys[r.Key] = append(d.keys[r.Key], i)
		if d.n++; d.n == d.want {
			close(d.full)
		}
	}
	return nil
}

// reshard writes plain records and aggregates, reshards and disturbs meanwhile, and returns what is
// wrong with what the sink saw.
func (b *bed) reshard(live bool, by string, wrap func(*Source) consumers.Source) error {
	const keys, each = 8, 250
	operation := callGetRecords
	if by != "" {
		operation = callSubscribe
	}
	faults := 3
	if !live { // they all hit the first shard, one behind the other
		faults = 1
	}
	sink := &delivered{ids: make(map[stream.CheckpointID]bool), keys: make(map[string][]int), full: make(chan struct{}), want: keys * each}
	type numbered struct {
		key string
		n   int
	}
	quiet := slog.New(slog.DiscardHandler)
	p := &stream.Pipeline[numbered, numbered]{
		Decode: func(r *stream.Record) (stream.Event[numbered], error) {
			key, number, _ := strings.Cut(string(r.Data), " ")
			n, err := strconv.Atoi(number)
			return stream.Event[numbered]{Key: key, Time: r.Arrived, Value: numbered{key, n}}, err
		},
		Operator: &stream.Map[numbered, numbered]{Func: func(e *stream.Event[numbered]) (numbered, error) { return e.Value, nil }},
		Encode: func(v *numbered) (stream.Row, error) {
			return stream.Row{Key: v.key, Data: []byte(strconv.Itoa(v.n))}, nil
		},
		Sinks:           []stream.Sink{sink},
		OutOfOrder:      stream.Unbounded,
		CheckpointEvery: 700 * time.Millisecond,
		Logger:          quiet,
	}
	src := b.source(Options{Consumer: by})
	logs := consumertest.NewLogs()
	sub, err := consumers.New(consumers.Config{Source: wrap(src), Group: logs.Group(), BatchRecords: 50, Logger: quiet})
	b.do(err)
	var handlers sync.WaitGroup
	subscribe := func() {
		messages, err := sub.Batches().Subscribe(b.Context(), "s")
		b.do(err)
		handlers.Go(func() {
			for m := range messages {
				handlers.Go(func() {
					if p.Handle(m) == nil {
						m.Ack()
					} else {
						m.Nack()
					}
				})
			}
		})
	}
	if live {
		subscribe()
	}
	for n := range each {
		switch n {
		case 50:
			b.do(b.server.Split("s", shardName(0)))
		case 100:
			b.do(b.server.Split("s", shardName(1)))
		case 150:
			b.do(b.server.Merge("s", shardName(4), shardName(2)))
		case 200:
			b.do(b.server.Merge("s", shardName(3), shardName(5)))
		}
		switch n % 40 {
		case 7:
			b.server.ExpireIterators()
		case 17:
			b.server.Inject(fake.Fault{Operation: operation, CutReply: true, Times: faults})
		case 27:
			b.server.Inject(fake.Fault{Operation: operation, Code: fake.ProvisionedThroughputExceeded, Times: faults})
		case 37:
			for i := range 7 {
				if (n+i)%2 == 0 {
					logs.Lose(shardName(i), consumertest.ErrTaken)
				} else {
					logs.Drain(shardName(i))
				}
			}
		}
		for k := range keys {
			key := fmt.Sprint("key", k)
			data := fmt.Appendf(nil, "%s %d", key, n)
			if n%3 == 0 {
				data = fake.Aggregate([]fake.UserRecord{{PartitionKey: key, Data: data}})
			}
			b.put(key, string(data))
		}
		<-time.After(37 * time.Millisecond)
	}
	if !live {
		subscribe()
	}
	timeout := time.After(10 * time.Minute)
	select {
	case <-sink.full:
		<-time.After(20 * time.Second) // for whatever comes twice
	case <-timeout:
	}
	b.do(sub.Close())
	handlers.Wait()
	for k := range keys {
		got := sink.keys[fmt.Sprint("key", k)]
		for n, v := range got {
			if v != n {
				return fmt.Errorf("key %d: number %d of %d is number %d", k, n, len(got), v)
			}
		}
		if len(got) != each {
			return fmt.Errorf("key %d: %d of %d", k, len(got), each)
		}
	}
	for i := range 5 {
		if e := logs.Newest(shardName(i)); e == nil || e.Kind != stream.KindEnd || e.Lost {
			return fmt.Errorf("%s did not end: %+v", shardName(i), e)
		}
	}
	if c := src.Counters(); live && by == "" && c.Reacquired == 0 || by == "" && c.Retried == 0 || c.Throttled == 0 || c.Deaggregated == 0 {
		return fmt.Errorf("a fault that was meant to happen did not: %+v", c)
	}
	return nil
}
