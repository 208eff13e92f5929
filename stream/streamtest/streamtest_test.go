package streamtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/stream"
	"github.com/millstream/millstream/windows"
)

type click struct {
	User string
	At   time.Time
	N    int64
}

type total struct {
	User string
	Win  stream.Window
	N, S int64
}

// clicks is a small pipeline with windows of ten seconds.
func clicks() *stream.Pipeline[click, total] {
	return &stream.Pipeline[click, total]{
		Decode: func(r *stream.Record) (stream.Event[click], error) {
			var c click
			if err := json.Unmarshal(r.Data, &c); err != nil {
				return stream.Event[click]{}, err
			}
			at, _ := stream.At(c.At)
			return stream.Event[click]{Key: c.User, Time: at, Value: c}, nil
		},
		Operator: &windows.Aggregation[click, total, total]{
			Windows: windows.Tumbling(10 * time.Second),
			Add:     func(t *total, e *stream.Event[click]) { t.N++; t.S += e.Value.N },
			Merge:   func(dst, src *total) { dst.N += src.N; dst.S += src.S },
			Emit:    func(key string, w stream.Window, t *total) total { return total{User: key, Win: w, N: t.N, S: t.S} },
		},
		Encode: func(t *total) (stream.Row, error) {
			return stream.Row{Key: t.User, Window: t.Win, Data: fmt.Appendf(nil, `%s %s n=%d s=%d`, t.Win.Start.Time().Format("15:04:05"), t.User, t.N, t.S)}, nil
		},
		OutOfOrder: 2 * time.Second,
	}
}

// copies passes records through.
func copies() *stream.Pipeline[string, string] {
	return &stream.Pipeline[string, string]{
		Decode: func(r *stream.Record) (stream.Event[string], error) {
			return stream.Event[string]{Value: string(r.Data)}, nil
		},
		Operator: &stream.Map[string, string]{Func: func(e *stream.Event[string]) (string, error) { return e.Value, nil }},
		Encode:   func(s *string) (stream.Row, error) { return stream.Row{Data: []byte(*s)}, nil },
	}
}

// some makes clicks of three users, a second apart, with disorder, late ones and broken ones.
func some(n int) []stream.Record {
	start := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	var lines []string
	for i := range n {
		at := start.Add(time.Duration(i) * time.Second)
		switch {
		case i%11 == 10:
			lines = append(lines, fmt.Sprintf(`{"User": broken %d`, i))
			continue
		case i%13 == 12:
			at = start // late
		case i%3 == 2:
			at = at.Add(-1500 * time.Millisecond)
		}
		lines = append(lines, fmt.Sprintf(`{"User":"u%d","At":%q,"N":%d}`, i%3, at.Format(time.RFC3339Nano), i))
	}
	return Lines(strings.Join(lines, "\n"))
}

func text(rows []stream.Row) string {
	var lines []string
	for _, r := range rows {
		lines = append(lines, string(r.Data))
	}
	return strings.Join(lines, "\n")
}

func TestFeed(t *testing.T) {
	rows, ledger := Feed(clicks(), Lines(`
		{"User":"b","At":"2026-01-01T00:00:01Z","N":1}
		{"User":"a","At":"2026-01-01T00:00:02Z","N":2}

		no JSON
		{"User":"a","At":"2026-01-01T00:00:19Z","N":3}
		{"User":"a","At":"2026-01-01T00:00:09Z","N":4}
		{"User":"b","At":"2026-01-01T00:00:18Z","N":5}`)...)
	if got, want := text(rows), "00:00:00 a n=1 s=2\n00:00:00 b n=1 s=1\n00:00:10 a n=1 s=3\n00:00:10 b n=1 s=5"; got != want {
		t.Errorf("rows:\n%s", got)
	}
	if want := (stream.Ledger{RecordsIn: 6, Contributed: 4, Late: 1, DeadLettered: 1, RowsOut: 4}); ledger != want {
		t.Errorf("%+v", ledger)
	}
}

// Every field of the configuration is copied: a new one must not be forgotten.
func TestCopyOf(t *testing.T) {
	p := clicks()
	v := reflect.ValueOf(p).Elem()
	for i := range v.NumField() {
		f := v.Field(i)
		if !f.CanSet() || !f.IsZero() {
			continue
		}
		switch f.Kind() {
		case reflect.String:
			f.SetString("x")
		case reflect.Int64:
			f.SetInt(7)
		case reflect.Uint8:
			f.SetUint(1)
		case reflect.Slice:
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
		case reflect.Func:
			f.Set(reflect.MakeFunc(f.Type(), func([]reflect.Value) []reflect.Value { panic("not called") }))
		case reflect.Pointer:
			f.Set(reflect.New(f.Type().Elem()))
		case reflect.Struct:
			f.Set(reflect.ValueOf(time.Unix(1, 0)))
		case reflect.Interface:
			f.Set(reflect.ValueOf(new(Sink)))
		default:
			t.Fatalf("field %s: how is it set?", v.Type().Field(i).Name)
		}
	}
	c := reflect.ValueOf(copyOf(p)).Elem()
	for i := range v.NumField() {
		if v.Field(i).CanSet() && c.Field(i).IsZero() {
			t.Errorf("%s is not copied", v.Type().Field(i).Name)
		}
	}
}

func TestFeedPanics(t *testing.T) {
	for want, p := range map[string]*stream.Pipeline[string, string]{
		"Decode is missing": {},
		"the pipeline cannot go on: partiti": func() *stream.Pipeline[string, string] {
			p := copies()
			p.Keep = func(*stream.Event[string]) bool { panic("boo") }
			return p
		}(),
	} {
		func() {
			defer func() {
				if v := recover(); v == nil || !strings.Contains(fmt.Sprint(v), want) {
					t.Errorf("panic %v, want %q", v, want)
				}
			}()
			Feed(p, Lines("a")...)
		}()
	}
}

func TestDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := copies()
		p.Require = func(e *stream.Event[string]) error {
			if e.Value == "bad" {
				return errors.New("not good")
			}
			return nil
		}
		r, err := Do(p, Run{Partitions: map[string][]stream.Record{"b": Lines("1\nbad\n2"), "a": Lines("3\n4"), "empty": nil}, BatchRecords: 1, Pace: time.Minute})
		if err != nil || text(r.Rows) != "3\n4\n1\n2" {
			t.Errorf("%v, rows:\n%s", err, text(r.Rows))
		}
		if len(r.DeadLetters) != 1 || r.DeadLetters[0].Reason != "not good" || r.DeadLetters[0].Position != "2" || r.DeadLetters[0].Partition != "b" {
			t.Errorf("%+v", r.DeadLetters)
		}
		if len(p.Sinks) != 0 || p.DeadLetter != nil {
			t.Error("the pipeline was changed")
		}
	})
}

// How batches are cut, and when checkpoints are, changes nothing.
func TestDoIsDeterministic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		<-time.After(time.Until(time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC)))
		var want Result
		for i, r := range []Run{{}, {BatchRecords: 1}, {BatchRecords: 7, Pace: time.Second, CheckpointEvery: time.Second},
			{BatchRecords: 3, Pace: time.Minute}, {BatchRecords: 1, Pace: 300 * time.Millisecond, CheckpointEvery: time.Second}} {
			r.Partitions = deal(some(200))
			got, err := Do(clicks(), r)
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				want = got
			} else if !reflect.DeepEqual(got, want) {
				r.Partitions = nil
				t.Errorf("%+v: %v", r, compare(want, got))
			}
		}
		if want.Ledger.Late == 0 || want.Ledger.DeadLettered == 0 || len(want.Rows) < 30 {
			t.Errorf("%+v", want.Ledger)
		}
	})
}

func TestKillEverywhere(t *testing.T) {
	t.Run("windows", func(t *testing.T) { KillEverywhere(t, clicks(), some(64)...) })
	t.Run("map", func(t *testing.T) { KillEverywhere(t, copies(), Lines("1\n2\n3\n4\n5\n6")...) })
}

// hasty shows rows as soon as they are staged.
type hasty struct{ *Sink }

func (hasty) Name() string                         { return "hasty" }
func (hasty) Commit(context.Context, []byte) error { return nil }
func (h hasty) Stage(ctx context.Context, id stream.CheckpointID, rows []stream.Row) ([]byte, error) {
	return nil, h.Deliver(ctx, id, rows)
}

// forgetful takes nothing under an id that it has seen, and forgets what it has seen with its process.
type forgetful struct {
	*Sink
	deliveries *atomic.Int64
}

func (f forgetful) Deliver(ctx context.Context, id stream.CheckpointID, rows []stream.Row) error {
	id.Part = int(f.deliveries.Add(1)) // what was seen under it is forgotten
	return f.Sink.Deliver(ctx, id, rows)
}

// Sinks that are wrong are caught.
func TestKillEverywhereFindsFaults(t *testing.T) {
	for name, wrap := range map[string]func(*Sink) stream.Sink{
		"shows rows before they are saved": func(s *Sink) stream.Sink { return hasty{s} },
		"does not know what it has seen":   func(s *Sink) stream.Sink { return forgetful{s, new(atomic.Int64)} },
	} {
		t.Run(name, func(t *testing.T) {
			failures := killEverywhere(t, copies(), Lines("1\n2\n3\n4\n5\n6"), wrap)
			if len(failures) == 0 || !strings.Contains(strings.Join(failures, "\n"), "too often: row") {
				t.Errorf("not caught: %q", failures)
			}
		})
	}
}
