package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/checkpoint"
	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/stream"
)

// sinkPlan is what to run.
type sinkPlan struct {
	Rows, Size, Rate, Partitions int
	Interval                     time.Duration // between a partition's checkpoints
	Sink                         string        // only this one; empty: all
}

func (p sinkPlan) check() error {
	if p.Partitions < 1 || p.Rows < p.Partitions || p.Size < 32 || p.Size > 100_000 || p.Rate < p.Partitions || p.Interval <= 0 {
		return errors.New("want rows of 32 to 100,000 bytes, and at least one a partition and second")
	}
	if p.Sink != "" && findSink(p.Sink) == nil {
		var names []string
		for _, b := range sinkBeds {
			names = append(names, b.name)
		}
		return fmt.Errorf("--sink %s: it is one of %s", p.Sink, strings.Join(names, ", "))
	}
	return nil
}

// sinkResult is what a sink was seen to do. All counts are for a million rows.
type sinkResult struct {
	Sink    string  `json:"sink"`
	Calls   float64 `json:"calls"`
	Bytes   float64 `json:"bytes"`
	Units   float64 `json:"billed_units"`
	Unit    string  `json:"unit"`
	Dollars float64 `json:"dollars"`
	Price   string  `json:"price"` // what a unit costs, and where that stands
	// The state bucket's requests for the same million rows.
	State        map[string]float64 `json:"state_requests"`
	StateDollars float64            `json:"state_dollars"`
	Result       string             `json:"result"`
}

func (r *sinkResult) text() string {
	if r.Result != "exact" {
		return fmt.Sprintf("%-22s %s\n", r.Sink, r.Result)
	}
	text := fmt.Sprintf("%-23s %9.0f calls %9.1f MB %11.7g × %-6s $%8.4f", r.Sink, r.Calls, r.Bytes/1e6, r.Units, r.Unit, r.Dollars)
	if len(r.State) > 0 {
		text += fmt.Sprintf("   state: %5.0f PUT %5.0f GET %5.0f LIST  $%.4f", r.State["PUT"], r.State["GET"], r.State["LIST"], r.StateDollars)
	}
	return text + "\n"
}

// benchSinks runs the engine over each sink in turn, in virtual time, and hands on what was counted.
func benchSinks(ctx context.Context, p sinkPlan, emit func(*sinkResult)) error {
	for _, b := range sinkBeds {
		if p.Sink != "" && p.Sink != b.name {
			continue
		}
		one, r := p, &sinkResult{}
		one.Sink = b.name
		var err error
		if b.live != nil {
			r, err = b.live(ctx, one)
		} else {
			err = elsewhere(ctx, simulationSinks, one, r)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
		emit(r)
	}
	return nil
}

// usage is what a service counted.
type usage struct {
	rows, calls, bytes int64
	units              float64
}

// simulateSink runs a pipeline without windows from a source in memory to a sink, in the caller's bubble.
func simulateSink(ctx context.Context, p sinkPlan) (*sinkResult, error) {
	bed := findSink(p.Sink)
	sink, count, err := bed.open(ctx)
	if err != nil {
		return nil, err
	}
	store := newWires(newShelves())
	if err := serveRows(ctx, p, store, sink); err != nil {
		return nil, err
	}
	u, err := count()
	if err != nil {
		return nil, err
	}
	million := 1e6 / float64(p.Rows)
	r := &sinkResult{Sink: p.Sink, Calls: float64(u.calls) * million, Bytes: float64(u.bytes) * million, Units: u.units * million, Unit: bed.unit,
		Dollars: u.units * million * bed.price, Price: bed.says, State: make(map[string]float64), Result: "exact"}
	requests := store.counted()
	for what, n := range requests {
		op, _, _ := strings.Cut(what, " ")
		r.State[op] += float64(n) * million
	}
	r.StateDollars = requests.dollars() * million
	if u.rows != int64(p.Rows) {
		return r, fmt.Errorf("%d rows came of %d", u.rows, p.Rows)
	}
	return r, nil
}

// serveRows runs the engine until the source's end.
func serveRows(ctx context.Context, p sinkPlan, store bucket.Bucket, sink stream.Sink) error {
	quiet := slog.New(slog.DiscardHandler)
	type row = []byte
	pipeline := &stream.Pipeline[row, row]{
		Name: "sinks", Logger: quiet, CheckpointEvery: p.Interval, Sinks: []stream.Sink{sink},
		Decode: func(r *stream.Record) (stream.Event[row], error) {
			return stream.Event[row]{Key: r.Key, Value: r.Data}, nil
		},
		Operator: &stream.Map[row, row]{Func: func(e *stream.Event[row]) (row, error) { return e.Value, nil }},
		Encode: func(r *row) (stream.Row, error) {
			key, _, _ := bytes.Cut((*r)[len(`{"key":"`):], []byte(`"`))
			return stream.Row{Key: string(key), Data: *r}, nil
		},
	}
	began := time.Now()
	log, err := checkpoint.Open(ctx, checkpoint.Config{Bucket: store, Name: "sinks", Checked: true, Logger: quiet,
		Plan: append(stream.Plan{{Name: "--source", Value: "rows"}}, pipeline.Plan()...), BootTime: func() time.Duration { return time.Since(began) }})
	if err != nil {
		return err
	}
	sub, err := consumers.New(consumers.Config{Source: &rowSource{p}, Group: log.Group(), Logger: quiet})
	if err != nil {
		return err
	}
	messages, err := sub.Batches().Subscribe(ctx, "sinks")
	if err != nil {
		return err
	}
	var handling sync.WaitGroup
	for m := range messages {
		handling.Go(func() {
			if pipeline.Handle(m) == nil {
				m.Ack()
			} else {
				m.Nack()
			}
		})
	}
	handling.Wait()
	return sub.Err()
}

// rowSource has the plan's rows, a second's at a time.
type rowSource struct{ p sinkPlan }

func (s *rowSource) Identity() string                    { return "rows" }
func (s *rowSource) Close() error                        { return nil }
func (s *rowSource) Tip(context.Context) (string, error) { return "", nil }
func (s *rowSource) share(partition, all int) (from, to int) {
	return all * partition / s.p.Partitions, all * (partition + 1) / s.p.Partitions
}
func (s *rowSource) Partitions(context.Context) ([]stream.Partition, error) {
	var ps []stream.Partition
	for i := range s.p.Partitions {
		ps = append(ps, stream.Partition{Name: fmt.Sprintf("p%03d", i)})
	}
	return ps, nil
}

func (s *rowSource) Open(_ context.Context, partition string, from stream.Position, _ string) (consumers.Reader, error) {
	n, err := strconv.Atoi(partition[1:])
	first, end := s.share(n, s.p.Rows)
	return &rowReader{s.p, first + int(from.Number), first, end}, err
}

type rowReader struct {
	p              sinkPlan
	at, first, end int
}

func (r *rowReader) Close() error { return nil }

func (r *rowReader) Read(ctx context.Context) (consumers.Fetch, error) {
	if r.at == r.end {
		return consumers.Fetch{End: &stream.PartitionEnd{}}, nil
	}
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return consumers.Fetch{}, ctx.Err()
	}
	var f consumers.Fetch
	for range min(r.p.Rate/r.p.Partitions, r.end-r.at) {
		key := strconv.Itoa(r.at % 997)
		data := rowOf(r.p.Size, key, r.at)
		r.at++
		f.Records = append(f.Records, stream.Record{Data: data, Key: key, Position: stream.Position{Number: int64(r.at - r.first)}})
	}
	f.Next = stream.Position{Number: int64(r.at - r.first)}
	return f, nil
}

// rowOf is a row of so many bytes.
func rowOf(size int, key string, n int) []byte {
	data := fmt.Appendf(make([]byte, 0, size), `{"key":"%s","n":%d,"pad":"`, key, n)
	data = append(data, bytes.Repeat([]byte{'x'}, max(0, size-len(data)-2))...)
	return append(data, '"', '}')
}

func findSink(name string) *sinkBed {
	if i := slices.IndexFunc(sinkBeds, func(b sinkBed) bool { return b.name == name }); i >= 0 {
		return &sinkBeds[i]
	}
	return nil
}
