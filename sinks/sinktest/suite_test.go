package sinktest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/stream"
)

// shelf is a destination of named files, and of a stream of records, in memory.
type shelf struct {
	mu    sync.Mutex
	files map[string][]byte
}

func (s *shelf) seen(context.Context) ([][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var rows [][]byte
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		if base := path.Base(name); strings.HasPrefix(base, "_") || strings.HasPrefix(base, ".") {
			continue
		}
		for line := range bytes.SplitSeq(bytes.TrimSuffix(s.files[name], []byte("\n")), []byte("\n")) {
			rows = append(rows, bytes.Clone(line))
		}
	}
	return rows, nil
}

// toy is a sink like those of files, and what is wrong with it.
type toy struct {
	shelf *shelf
	wire  *Wire

	name    func(id stream.CheckpointID) string
	encode  func(id stream.CheckpointID, rows []stream.Row) ([]byte, *stream.Rejected)
	write   func(ctx context.Context, t *toy, name string, data []byte) error
	before  func(ctx context.Context, t *toy, rows []stream.Row) error
	outcome func(error) error
	as      func(t *toy) stream.Sink // default: the toy itself
}

func (t *toy) Deliver(ctx context.Context, id stream.CheckpointID, rows []stream.Row) error {
	if err := t.before(ctx, t, rows); err != nil {
		return err
	}
	data, rejected := t.encode(id, rows)
	if len(data) > 0 {
		if err := t.write(ctx, t, t.name(id), data); err != nil {
			return t.outcome(fmt.Errorf("shelf: %w", err))
		}
	}
	if rejected != nil {
		return rejected
	}
	return nil
}

// stagingToy holds rows under names that readers ignore.
type stagingToy struct {
	*toy
	upTo bool // a commit shows whatever was staged of the partition before, as flushing a stream does
	all  *[]held
}

type held struct {
	id   stream.CheckpointID
	data []byte
}

func (t *stagingToy) Name() string { return "toy" }

func (t *stagingToy) Stage(ctx context.Context, id stream.CheckpointID, rows []stream.Row) ([]byte, error) {
	if err := t.before(ctx, t.toy, rows); err != nil {
		return nil, err
	}
	data, rejected := t.encode(id, rows)
	err := t.wire.Call(ctx, func(context.Context) error {
		t.shelf.mu.Lock()
		defer t.shelf.mu.Unlock()
		*t.all = append(*t.all, held{id, data})
		return nil
	})
	if err != nil {
		return nil, t.outcome(fmt.Errorf("shelf: %w", err))
	}
	t.shelf.mu.Lock()
	defer t.shelf.mu.Unlock()
	if rejected != nil {
		return []byte(fmt.Sprint(len(*t.all) - 1)), rejected
	}
	return []byte(fmt.Sprint(len(*t.all) - 1)), nil
}

func (t *stagingToy) Commit(ctx context.Context, token []byte) error {
	last, err := strconv.Atoi(string(token))
	if err != nil {
		return err
	}
	return t.outcome(t.wire.Call(ctx, func(context.Context) error {
		t.shelf.mu.Lock()
		defer t.shelf.mu.Unlock()
		for i, h := range *t.all {
			if i == last || t.upTo && i < last && h.id.Partition == (*t.all)[last].id.Partition {
				t.shelf.files["rows-"+fmt.Sprint(i)] = h.data
			}
		}
		return nil
	}))
}

// rollingToy is told rows part by part.
type rollingToy struct {
	*toy
	onlyFirst bool
}

func (t *rollingToy) Name() string                 { return "toy" }
func (t *rollingToy) Roll() (time.Duration, int64) { return 0, 0 }
func (t *rollingToy) Layout() []byte               { return nil }

func (t *rollingToy) Write(ctx context.Context, id stream.CheckpointID, _ []byte, parts iter.Seq2[[]stream.Row, error]) error {
	var whole []stream.Row
	for rows, err := range parts {
		if err != nil {
			return err
		}
		whole = append(whole, rows...)
		if t.onlyFirst {
			break
		}
	}
	return t.Deliver(ctx, id, whole)
}

func plainName(id stream.CheckpointID) string { return "rows-" + id.String() }

const tooLarge = 10 << 20

func plainLines(_ stream.CheckpointID, rows []stream.Row) ([]byte, *stream.Rejected) {
	var out []byte
	var rejected *stream.Rejected
	for i, r := range rows {
		if len(r.Data) > tooLarge || bytes.ContainsRune(r.Data, '\n') {
			rejected = &stream.Rejected{Rows: []stream.RejectedRow{{Index: i, Reason: "no line"}}}
			continue
		}
		out = append(append(out, r.Data...), '\n')
	}
	return out, rejected
}

// create is one call, which does nothing when the name is taken.
func create(ctx context.Context, t *toy, name string, data []byte) error {
	data = bytes.Clone(data)
	return t.wire.Call(ctx, func(context.Context) error {
		t.shelf.mu.Lock()
		defer t.shelf.mu.Unlock()
		if _, taken := t.shelf.files[name]; !taken {
			t.shelf.files[name] = data
		}
		return nil
	})
}

// publish adds to a stream that keeps everything.
func publish(ctx context.Context, t *toy, name string, data []byte) error {
	return create(ctx, t, name+rand.Text(), data)
}

// withIDs is the encoding for a stream: rows tell their copies.
func withIDs(of func(id stream.CheckpointID, i int) string) func(stream.CheckpointID, []stream.Row) ([]byte, *stream.Rejected) {
	return func(id stream.CheckpointID, rows []stream.Row) ([]byte, *stream.Rejected) {
		marked := make([]stream.Row, len(rows))
		for i, r := range rows {
			marked[i].Data = append(fmt.Appendf(nil, `{"_id":%q,`, of(id, i)), r.Data[1:]...)
		}
		return plainLines(id, marked)
	}
}

func rowID(id stream.CheckpointID, i int) string { return fmt.Sprintf("%s-%d", id, i) }

// failing returns which of the cases, nil for all, a kind of toy fails.
func failing(t *testing.T, promise Promise, change func(*toy), cases []string) map[string]error {
	t.Helper()
	failed := make(map[string]error)
	for _, c := range Cases() {
		if cases != nil && !slices.Contains(cases, c.Name) {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			s := &shelf{files: make(map[string][]byte)}
			d := &Destination{Promise: promise, Name: "shelf", Seen: s.seen, Open: func(hook Hook) (stream.Sink, error) {
				sink := &toy{shelf: s, wire: new(Wire), name: plainName, encode: plainLines, write: create,
					before:  func(ctx context.Context, _ *toy, _ []stream.Row) error { return ctx.Err() },
					outcome: func(err error) error { return err },
				}
				if promise != ExactlyOnce {
					sink.write = publish
				}
				if promise == AtLeastOnceByID {
					sink.encode = withIDs(rowID)
				}
				if change != nil {
					change(sink)
				}
				sink.wire.Begin(hook)
				if sink.as != nil {
					return sink.as(sink), nil
				}
				return sink, nil
			}}
			if err := c.Holds(t.Context(), d); err != nil {
				failed[c.Name] = err
			}
		})
	}
	return failed
}

func TestGood(t *testing.T) {
	for _, promise := range []Promise{ExactlyOnce, AtLeastOnceByID, AtLeastOnce} {
		for name, err := range failing(t, promise, nil, nil) {
			t.Errorf("promise %d, %s: %v", promise, name, err)
		}
	}
	for name, err := range failing(t, ExactlyOnce, staging(false), nil) {
		t.Errorf("staging, %s: %v", name, err)
	}
	for name, err := range failing(t, ExactlyOnce, rolling(false), nil) {
		t.Errorf("rolling, %s: %v", name, err)
	}
}

func staging(upTo bool) func(*toy) {
	all := make(map[*shelf]*[]held) // the destination's: processes share it
	return func(t *toy) {
		t.as = func(t *toy) stream.Sink {
			if all[t.shelf] == nil {
				all[t.shelf] = new([]held)
			}
			return &stagingToy{t, upTo, all[t.shelf]}
		}
	}
}

func rolling(onlyFirst bool) func(*toy) {
	return func(t *toy) { t.as = func(t *toy) stream.Sink { return &rollingToy{t, onlyFirst} } }
}

// Each case fails for the sinks that break its rule: these are the suite's negative controls.
func TestBroken(t *testing.T) {
	caught := make(map[string]bool)
	for _, c := range []struct {
		what    string
		promise Promise
		change  func(*toy)
		fails   []string
		message string // of the first of fails
	}{
		{"its files have random names", ExactlyOnce, func(t *toy) { t.write = publish },
			[]string{"Again", "Crash", "LostReply", "Race", "Zombie"}, "times"},
		{"writes in two steps under the final name", ExactlyOnce, func(t *toy) {
			t.write = func(ctx context.Context, t *toy, name string, data []byte) error {
				if err := create(ctx, t, name, data[:len(data)/2]); err != nil {
					return err
				}
				return overwrite(ctx, t, name, data)
			}
		}, []string{"Crash"}, "nobody delivered"},
		{"takes a name that exists for a finished file", ExactlyOnce, func(t *toy) {
			t.write = func(ctx context.Context, t *toy, name string, data []byte) error {
				half := bytes.LastIndexByte(data[:len(data)-1], '\n') + 1
				t.shelf.mu.Lock()
				_, taken := t.shelf.files[name]
				t.shelf.mu.Unlock()
				if taken {
					return ctx.Err()
				}
				if err := create(ctx, t, name, data[:half]); err != nil {
					return err
				}
				return overwrite(ctx, t, name, data)
			}
		}, []string{"Crash"}, "does not see it"},
		{"adds to one file by reading and writing it", ExactlyOnce, func(t *toy) {
			t.write = func(ctx context.Context, t *toy, _ string, data []byte) error {
				t.shelf.mu.Lock()
				all := bytes.Clone(t.shelf.files["all"])
				t.shelf.mu.Unlock()
				if !bytes.Contains(all, data) {
					all = append(all, data...)
				}
				return overwrite(ctx, t, "all", all)
			}
		}, []string{"Zombie"}, "does not see it"},
		{"takes every error for success", ExactlyOnce, func(t *toy) { t.outcome = func(error) error { return nil } },
			[]string{"Down", "Crash", "Stuck"}, "returned nil"},
		{"says that the second delivery failed", ExactlyOnce, func(t *toy) {
			t.write = func(ctx context.Context, t *toy, name string, data []byte) error {
				t.shelf.mu.Lock()
				_, taken := t.shelf.files[name]
				t.shelf.mu.Unlock()
				if taken {
					return errors.New("the name is taken")
				}
				return create(ctx, t, name, data)
			}
		}, []string{"LostReply", "Again", "Race"}, "not delivered after ten attempts"},
		{"confuses rows and dead letters", ExactlyOnce, func(t *toy) {
			t.name = func(id stream.CheckpointID) string { id.Kind = ""; return plainName(id) }
		}, []string{"Names"}, "does not see it"},
		{"confuses partitions", ExactlyOnce, func(t *toy) {
			t.name = func(id stream.CheckpointID) string {
				id.Partition = strings.ReplaceAll(id.Partition, "/", "-")
				return plainName(id)
			}
		}, []string{"Names"}, "does not see it"},
		{"confuses pipelines", ExactlyOnce, func(t *toy) {
			t.name = func(id stream.CheckpointID) string { id.Pipeline = ""; return plainName(id) }
		}, []string{"Names"}, "does not see it"},
		{"confuses parts", ExactlyOnce, func(t *toy) {
			t.name = func(id stream.CheckpointID) string { id.Part = 0; return plainName(id) }
		}, []string{"Once"}, "does not see it"},
		{"uses names that readers ignore", ExactlyOnce, func(t *toy) {
			t.name = func(id stream.CheckpointID) string { return id.String() }
		}, []string{"Names"}, "does not see it"},
		{"cannot write long names", ExactlyOnce, func(t *toy) {
			t.write = func(ctx context.Context, t *toy, name string, data []byte) error {
				if len(name) > 255 {
					return errors.New("the name is too long")
				}
				return create(ctx, t, name, data)
			}
		}, []string{"Names"}, "too long"},
		{"works for one partition at a time only", ExactlyOnce, func(t *toy) {
			var busy sync.Mutex
			t.before = func(ctx context.Context, t *toy, _ []stream.Row) error {
				if !busy.TryLock() {
					return errors.New("busy")
				}
				<-time.After(1)
				busy.Unlock()
				return ctx.Err()
			}
		}, []string{"Concurrent"}, "busy"},
		{"keeps the caller's rows", ExactlyOnce, func(t *toy) {
			var kept []stream.Row
			var before stream.CheckpointID
			t.encode = func(id stream.CheckpointID, rows []stream.Row) ([]byte, *stream.Rejected) {
				data, rejected := plainLines(before, kept)
				kept, before = rows, id
				return data, rejected
			}
		}, []string{"Once"}, ""},
		{"changes the caller's rows", ExactlyOnce, func(t *toy) {
			t.encode = func(id stream.CheckpointID, rows []stream.Row) ([]byte, *stream.Rejected) {
				for i := range rows {
					rows[i].Data = append(rows[i].Data, '\n')
				}
				return plainLines(id, rows)
			}
		}, []string{"Once"}, "the sink changed row 0"},
		{"loses the last row", ExactlyOnce, func(t *toy) {
			t.encode = func(id stream.CheckpointID, rows []stream.Row) ([]byte, *stream.Rejected) {
				return plainLines(id, rows[:len(rows)-min(1, len(rows))])
			}
		}, []string{"Once"}, "does not see it"},
		{"cuts what is big", ExactlyOnce, func(t *toy) {
			t.encode = func(id stream.CheckpointID, rows []stream.Row) ([]byte, *stream.Rejected) {
				return plainLines(id, rows[:min(len(rows), 5_000)])
			}
		}, []string{"Big"}, "does not see it"},
		{"drops what is too large in silence", ExactlyOnce, func(t *toy) {
			t.encode = func(id stream.CheckpointID, rows []stream.Row) ([]byte, *stream.Rejected) {
				data, _ := plainLines(id, rows)
				return data, nil
			}
		}, []string{"Oversize", "Lines"}, "does not see it"},
		{"fails for good because of one row", ExactlyOnce, func(t *toy) {
			t.before = func(ctx context.Context, t *toy, rows []stream.Row) error {
				for _, r := range rows {
					if len(r.Data) > tooLarge {
						return errors.New("too large")
					}
				}
				return ctx.Err()
			}
		}, []string{"Oversize"}, "too large"},
		{"rejects the wrong row", ExactlyOnce, func(t *toy) {
			t.encode = func(id stream.CheckpointID, rows []stream.Row) ([]byte, *stream.Rejected) {
				data, rejected := plainLines(id, rows)
				if rejected != nil {
					rejected.Rows[0].Index = 0
				}
				return data, rejected
			}
		}, []string{"Oversize", "Lines"}, "to blame"},
		{"writes line breaks", ExactlyOnce, func(t *toy) {
			t.encode = func(_ stream.CheckpointID, rows []stream.Row) (out []byte, _ *stream.Rejected) {
				for _, r := range rows {
					out = append(append(out, r.Data...), '\n')
				}
				return out, nil
			}
		}, []string{"Lines"}, "nobody delivered"},
		{"fails without rows", ExactlyOnce, func(t *toy) {
			t.before = func(ctx context.Context, t *toy, rows []stream.Row) error {
				if len(rows) == 0 {
					return errors.New("no rows")
				}
				return ctx.Err()
			}
		}, []string{"Empty"}, "no rows"},
		{"writes a blank line for no rows", ExactlyOnce, func(t *toy) {
			t.encode = func(id stream.CheckpointID, rows []stream.Row) ([]byte, *stream.Rejected) {
				if len(rows) == 0 {
					return []byte("\n"), nil
				}
				return plainLines(id, rows)
			}
		}, []string{"Empty"}, "nobody delivered"},
		{"does not look whether its context is done", ExactlyOnce, func(t *toy) {
			t.before = func(context.Context, *toy, []stream.Row) error { return nil }
		}, []string{"Cancelled"}, "returned <nil>"},
		{"does not hear that its context is done", ExactlyOnce, func(t *toy) {
			t.write = func(ctx context.Context, t *toy, name string, data []byte) error {
				return create(context.WithoutCancel(ctx), t, name, data)
			}
		}, []string{"Stuck"}, "did not end within"},
		{"never recovers from an error", ExactlyOnce, func(t *toy) {
			var first error
			t.write = func(ctx context.Context, t *toy, name string, data []byte) error {
				if first == nil {
					first = create(ctx, t, name, data)
				}
				return first
			}
		}, []string{"Down", "LostReply"}, "up again"},
		{"does not say who failed", ExactlyOnce, func(t *toy) { t.outcome = func(err error) error { return errors.Unwrap(err) } },
			[]string{"Down"}, "does not name"},
		{"hides the cause", ExactlyOnce, func(t *toy) { t.outcome = func(error) error { return errors.New("shelf: no luck") } },
			[]string{"Down", "Stuck"}, "does not wrap"},
		{"does not go through its wire", ExactlyOnce, func(t *toy) {
			t.write = func(_ context.Context, t *toy, name string, data []byte) error {
				return create(context.Background(), &toy{shelf: t.shelf, wire: new(Wire)}, name, data)
			}
		}, []string{"Crash", "LostReply", "Zombie", "Stuck", "Down"}, "does not use its Wire"},
		{"gives all rows of an entry one _id", AtLeastOnceByID, func(t *toy) {
			t.encode = withIDs(func(id stream.CheckpointID, _ int) string { return id.String() })
		}, []string{"Once"}, "same _id"},
		{"gives rows of different partitions one _id", AtLeastOnceByID, func(t *toy) {
			t.encode = withIDs(func(id stream.CheckpointID, i int) string { id.Partition = ""; return rowID(id, i) })
		}, []string{"Concurrent", "Names"}, "same _id"},
		{"gives each copy an _id of its own", AtLeastOnceByID, func(t *toy) {
			t.encode = withIDs(func(stream.CheckpointID, int) string { return rand.Text() })
		}, []string{"Again", "Zombie", "LostReply", "Race"}, "have the _ids"},
		{"gives no _id", AtLeastOnceByID, func(t *toy) { t.encode = plainLines }, []string{"Once"}, "without an _id"},
		{"shows with a commit what was staged before", ExactlyOnce, staging(true), []string{"Abandoned"}, "nobody delivered"},
		{"takes the first part for the whole", ExactlyOnce, rolling(true), []string{"Once"}, "does not see it"},
		{"publishes a row twice for no reason", AtLeastOnce, func(t *toy) {
			t.write = func(ctx context.Context, t *toy, name string, data []byte) error {
				if err := publish(ctx, t, name, data); err != nil {
					return err
				}
				return publish(ctx, t, name, data)
			}
		}, []string{"Once"}, "2 times"},
	} {
		t.Run(c.what, func(t *testing.T) {
			failed := failing(t, c.promise, c.change, c.fails)
			for i, name := range c.fails {
				switch err := failed[name]; {
				case err == nil:
					t.Errorf("%s holds", name)
				case i == 0 && !strings.Contains(err.Error(), c.message):
					t.Errorf("%s: %v, want %q", name, err, c.message)
				}
			}
		})
		for _, name := range c.fails {
			caught[name] = true
		}
	}
	for _, c := range Cases() {
		if !caught[c.Name] {
			t.Errorf("no broken sink fails %s", c.Name)
		}
	}
}

// overwrite is one call, whatever stands under the name.
func overwrite(ctx context.Context, t *toy, name string, data []byte) error {
	data = bytes.Clone(data)
	return t.wire.Call(ctx, func(context.Context) error {
		t.shelf.mu.Lock()
		defer t.shelf.mu.Unlock()
		t.shelf.files[name] = data
		return nil
	})
}
