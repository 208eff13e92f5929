package windows

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/millstream/millstream/stream"
)

// fields are a benchmark's event: one number, the argument of every function.
type fields struct{ v Value }

func benchmarkColumns(b testing.TB, names ...string) *Columns[fields] {
	c := &Columns[fields]{Windows: Tumbling(time.Minute), Arg: func(e *fields, _ int) *Value { return &e.v }}
	for _, name := range names {
		switch name {
		case "count()":
			c.Funcs = append(c.Funcs, CountEvents())
		case "quantile":
			c.Funcs = append(c.Funcs, mustFunc(b, name, 0.99))
		case "top":
			c.Funcs = append(c.Funcs, mustFunc(b, name, 10))
		default:
			c.Funcs = append(c.Funcs, mustFunc(b, name))
		}
	}
	return c
}

// benchmarkEvents are shuffled keys of 36 bytes.
func benchmarkEvents(keys int) []stream.Event[fields] {
	events := make([]stream.Event[fields], 1<<max(14, bitsFor(keys)))
	for i := range events {
		k := i * 7919 % keys
		events[i] = stream.Event[fields]{Key: fmt.Sprintf("%08x-0000-4000-8000-%012x", k*2654435761%(1<<32), k), Time: stream.Instant(i % 1000),
			Value: fields{num(int64(i % 977))}}
	}
	return events
}

func addAll[R any](t testing.TB, lane stream.LaneState[fields, R], events []stream.Event[fields]) {
	t.Helper()
	for i := range events {
		if ok, err := lane.Add(&events[i], stream.Beginning); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
}

// BenchmarkAdd compares with a Go map of pointers, the plainest way to do the same:
//
//	go test -run - -bench Add ./windows
func BenchmarkAdd(b *testing.B) {
	for _, keys := range []int{1_000, 100_000, 1_000_000} {
		events := benchmarkEvents(keys)
		b.Run(fmt.Sprintf("map-count/%d", keys), func(b *testing.B) {
			m := make(map[string]*int64)
			for i := range events {
				m[events[i].Key] = new(int64)
			}
			for i := 0; b.Loop(); i++ {
				e := &events[i&(len(events)-1)]
				n := m[e.Key]
				if n == nil {
					n = new(int64)
					m[e.Key] = n
				}
				*n++
			}
		})
		b.Run(fmt.Sprintf("map-count-sum-min-max/%d", keys), func(b *testing.B) {
			type acc struct{ n, sum, low, high int64 }
			m := make(map[string]*acc)
			for i := range events {
				m[events[i].Key] = new(acc)
			}
			for i := 0; b.Loop(); i++ {
				e := &events[i&(len(events)-1)]
				a := m[e.Key]
				if a == nil {
					a = &acc{low: e.Value.v.I, high: e.Value.v.I}
					m[e.Key] = a
				}
				a.n++
				a.sum += e.Value.v.I
				a.low, a.high = min(a.low, e.Value.v.I), max(a.high, e.Value.v.I)
			}
		})
		for name, funcs := range map[string][]string{"count": {"count()"}, "count-sum-min-max": {"count()", "sum", "min", "max"}} {
			b.Run(fmt.Sprintf("columns-%s/%d", name, keys), func(b *testing.B) {
				lane := benchmarkColumns(b, funcs...).Lane()
				addAll(b, lane, events)
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if ok, err := lane.Add(&events[i&(len(events)-1)], stream.Beginning); !ok || err != nil {
						b.Fatal(ok, err)
					}
				}
			})
		}
		b.Run(fmt.Sprintf("aggregation-count/%d", keys), func(b *testing.B) {
			lane := countAggregation().Lane()
			addAll(b, lane, events)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if ok, err := lane.Add(&events[i&(len(events)-1)], stream.Beginning); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
}

func BenchmarkSketch(b *testing.B) {
	events := benchmarkEvents(1000)
	for _, name := range []string{"avg", "stddev", "last", "count_distinct", "quantile", "top"} {
		b.Run(name, func(b *testing.B) {
			lane := benchmarkColumns(b, name).Lane()
			addAll(b, lane, events)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if ok, err := lane.Add(&events[i&(len(events)-1)], stream.Beginning); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
}

func BenchmarkState(b *testing.B) {
	events := benchmarkEvents(1_000_000)
	op := benchmarkColumns(b, "count()", "sum", "min", "max")
	lane := op.Lane()
	addAll(b, lane, events)
	b.Run("snapshot-copy", func(b *testing.B) {
		for b.Loop() {
			lane.Snapshot()
		}
	})
	data := written(b, lane.Snapshot())
	b.Run("snapshot-write", func(b *testing.B) {
		b.ReportMetric(float64(len(data))/1e6, "key-MB")
		for b.Loop() {
			lane.Snapshot().WriteTo(io.Discard)
		}
	})
	b.Run("restore", func(b *testing.B) {
		for b.Loop() {
			if err := op.Lane().Restore(data); err != nil {
				b.Fatal(err)
			}
		}
	})
	slice := lane.Freeze(stream.EndOfTime)[0]
	bytes := written(b, slice.Data)
	b.Run("merge-and-emit", func(b *testing.B) {
		for b.Loop() {
			m := op.Merger()
			if err := m.Merge(stream.Frozen{Start: slice.Start, End: slice.End}, bytes); err != nil {
				b.Fatal(err)
			}
			if err := m.Advance(stream.EndOfTime, func(*Result) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkHopping is what a merger does for one hop: merge a slice of 1,000 keys, emit a window.
func BenchmarkHopping(b *testing.B) {
	for _, n := range []int{6, 60, 3600} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			op := benchmarkColumns(b, "count()", "sum", "min", "max")
			op.Windows = Hopping(time.Duration(n)*time.Second, time.Second)
			lane := op.Lane()
			events := benchmarkEvents(1000)
			for i := range events {
				events[i].Time = 0
			}
			addAll(b, lane, events)
			data := written(b, lane.Freeze(stream.EndOfTime)[0].Data)
			m := op.Merger()
			at := stream.Instant(0)
			hop := func() {
				end := at + stream.Instant(time.Second)
				if err := m.Merge(stream.Frozen{Start: at, End: end}, data); err != nil {
					b.Fatal(err)
				}
				if err := m.Advance(end, func(*Result) error { return nil }); err != nil {
					b.Fatal(err)
				}
				at = end
			}
			for range n {
				hop()
			}
			for b.Loop() {
				hop()
			}
		})
	}
}
