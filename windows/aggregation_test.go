package windows

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millstream/millstream/stream"
)

type total struct{ N, Sum int64 }

func countAggregation() *Aggregation[fields, total, string] {
	return &Aggregation[fields, total, string]{
		Windows: Tumbling(time.Minute),
		Add:     func(a *total, e *stream.Event[fields]) { a.N++; a.Sum += e.Value.v.I },
		Merge:   func(dst, src *total) { dst.N += src.N; dst.Sum += src.Sum },
		Emit: func(key string, w stream.Window, a *total) string {
			return fmt.Sprintf("%s %s %d %d", w.Start, key, a.N, a.Sum)
		},
	}
}

// words is an accumulator with a map: it cannot be copied by assignment.
type words struct{ Count map[string]int }

func wordAggregation(w Windows) *Aggregation[string, words, string] {
	return &Aggregation[string, words, string]{
		Windows: w,
		Add: func(a *words, e *stream.Event[string]) {
			if a.Count == nil {
				a.Count = make(map[string]int)
			}
			a.Count[strings.Clone(e.Value)]++
		},
		Merge: func(dst, src *words) {
			if dst.Count == nil {
				dst.Count = make(map[string]int)
			}
			for k, n := range src.Count {
				dst.Count[k] += n
			}
		},
		Emit: func(key string, w stream.Window, a *words) string {
			s := fmt.Sprintf("%d %d %s", w.Start, w.End, key)
			for _, k := range slices.Sorted(maps.Keys(a.Count)) {
				s += fmt.Sprintf(" %s=%d", k, a.Count[k])
			}
			return s
		},
	}
}

func same(r *string) string { return *r }

func TestAggregation(t *testing.T) {
	f := newFleet(t, wordAggregation(Hopping(20, 10)), same)
	add := func(p string, at stream.Instant, key, word string) {
		t.Helper()
		if !f.add(p, stream.Event[string]{Key: key, Time: at, Value: word}) {
			t.Error("late")
		}
	}
	add("a", 1, "x", "one")
	add("b", 2, "x", "one")
	add("b", 11, "x", "two")
	f.restart("b")
	add("b", 12, "y", "three")
	f.freeze("a", 20)
	f.freeze("b", 20)
	f.advance(10, true)
	f.restartMerger()
	f.advance(stream.EndOfTime, true)
	want := []string{"-10 10 x one=2", "0 20 x one=2 two=1", "0 20 y three=1", "10 30 x two=1", "10 30 y three=1"}
	if !slices.Equal(f.rows, want) {
		t.Errorf("got %q", f.rows)
	}
}

// A snapshot of an accumulator that refers to something is not changed by what comes after.
func TestAggregationSnapshotStandsStill(t *testing.T) {
	op := wordAggregation(Tumbling(10))
	lane := op.Lane()
	lane.Add(&stream.Event[string]{Key: "k", Time: 1, Value: "before"}, stream.Beginning)
	snapshot := lane.Snapshot()
	lane.Add(&stream.Event[string]{Key: "k", Time: 1, Value: "after"}, stream.Beginning)
	f := newFleet(t, op, same)
	if err := f.lane("p").Restore(written(t, snapshot)); err != nil {
		t.Fatal(err)
	}
	f.freeze("p", stream.EndOfTime)
	f.advance(stream.EndOfTime, true)
	if want := []string{"0 10 k before=1"}; !slices.Equal(f.rows, want) {
		t.Errorf("got %q", f.rows)
	}
}

// byHand saves itself, so that its fields need not be exported.
type byHand struct{ n uint32 }

func (b *byHand) MarshalBinary() ([]byte, error) {
	if b.n == 666 {
		return nil, errors.New("no such number")
	}
	return binary.BigEndian.AppendUint32(nil, b.n), nil
}

func (b *byHand) UnmarshalBinary(data []byte) error {
	if len(data) != 4 {
		return errors.New("want 4 bytes")
	}
	b.n = binary.BigEndian.Uint32(data)
	return nil
}

func byHandAggregation() *Aggregation[uint32, byHand, uint32] {
	return &Aggregation[uint32, byHand, uint32]{
		Windows: Session(10),
		Add:     func(a *byHand, e *stream.Event[uint32]) { a.n += e.Value },
		Merge:   func(dst, src *byHand) { dst.n += src.n },
		Emit:    func(_ string, _ stream.Window, a *byHand) uint32 { return a.n },
	}
}

func TestAggregationSavesItself(t *testing.T) {
	f := newFleet(t, byHandAggregation(), func(n *uint32) string { return fmt.Sprint(*n) })
	f.add("p", stream.Event[uint32]{Key: "k", Time: 5, Value: 2})
	f.restart("p")
	f.add("p", stream.Event[uint32]{Key: "k", Time: 14, Value: 3})
	f.freeze("p", 10)
	f.advance(10, true)
	f.restartMerger()
	f.freeze("p", stream.EndOfTime)
	f.advance(stream.EndOfTime, true)
	if !slices.Equal(f.rows, []string{"5"}) {
		t.Errorf("got %q", f.rows)
	}
}

func TestAggregationSaveFails(t *testing.T) {
	lane := byHandAggregation().Lane()
	lane.Add(&stream.Event[uint32]{Key: "k", Time: 5, Value: 666}, stream.Beginning)
	if _, err := lane.Snapshot().WriteTo(new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), "no such number") {
		t.Errorf("snapshot: %v", err)
	}
	if _, err := lane.Freeze(stream.EndOfTime)[0].Data.WriteTo(new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), "no such number") {
		t.Errorf("frozen slice: %v", err)
	}
}

type (
	onlySaves  struct{ N int }
	embedded   struct{ Low, High int64 }
	recursive  struct{ Next *recursive }
	everything struct {
		embedded
		I  int8
		U  uint64
		F  float64
		S  string
		B  []byte
		L  []string
		M  map[int64]embedded
		P  *float64
		A  [3]uint16
		T  time.Time
		D  time.Duration
		N  *big.Int
		H  byHand
		OK bool
	}
)

func (onlySaves) MarshalBinary() ([]byte, error) { return nil, nil }

func TestAccumulatorTypes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string // empty: accepted
	}{
		{checkAccumulator[total](), ""},
		{checkAccumulator[int64](), ""},
		{checkAccumulator[words](), ""},
		{checkAccumulator[byHand](), ""},
		{checkAccumulator[recursive](), ""},
		{checkAccumulator[everything](), ""},
		{checkAccumulator[struct{ n int }](), ".n is not exported"},
		{checkAccumulator[struct{ A []struct{ b int } }](), ".A.b is not exported"},
		{checkAccumulator[struct{ F func() }](), ".F is a func"},
		{checkAccumulator[map[string]chan int](), "is a chan"},
		{checkAccumulator[struct{ V any }](), ".V is an interface"},
		{checkAccumulator[struct {
			V int `json:"-"`
		}](), `.V is tagged "-"`},
		{checkAccumulator[struct{ C complex128 }](), ".C is a complex128"},
		{checkAccumulator[onlySaves](), "no UnmarshalBinary"},
	} {
		switch {
		case c.want == "" && c.err != nil:
			t.Error(c.err)
		case c.want != "" && (c.err == nil || !strings.Contains(c.err.Error(), c.want) || !strings.Contains(c.err.Error(), "MarshalBinary")):
			t.Errorf("got %v, want …%s…", c.err, c.want)
		}
	}
}

func TestAccumulatorRoundTrip(t *testing.T) {
	half := 0.5
	v := everything{embedded{-1, 1 << 62}, -8, 1 << 63, 0.1, "s", []byte{0}, []string{"a"}, map[int64]embedded{7: {1, 2}}, &half, [3]uint16{1, 2, 3},
		time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC), time.Hour, new(big.Int).Lsh(big.NewInt(3), 100), byHand{9}, true}
	c := codecOf[everything]()
	if c.flat {
		t.Error("a type with maps is not flat")
	}
	b, err := c.append([]byte("x"), &v)
	if err != nil {
		t.Fatal(err)
	}
	var got everything
	if err := c.decode(b[1:], &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, v) {
		t.Errorf("got  %+v\nwant %+v", got, v)
	}
	// More elements than the library's default limit, which would be met only at a restore.
	many := make([]int64, 200_000)
	lc := codecOf[[]int64]()
	if b, err = lc.append(nil, &many); err != nil {
		t.Fatal(err)
	}
	var back []int64
	if err := lc.decode(b, &back); err != nil || len(back) != len(many) {
		t.Error(len(back), err)
	}
}

func TestAggregationValidate(t *testing.T) {
	a := countAggregation()
	a.Merge = nil
	if err := a.Validate(); err == nil || !strings.Contains(err.Error(), "Merge is missing") {
		t.Error(err)
	}
	a = countAggregation()
	a.Windows = Windows{}
	if err := a.Validate(); err == nil || !strings.Contains(err.Error(), "windows are not set") {
		t.Error(err)
	}
}
