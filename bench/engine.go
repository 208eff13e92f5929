package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/service"
	"github.com/millstream/millstream/stream"
)

// benchEngine runs every workload and hands on its result.
func benchEngine(ctx context.Context, events int, emit func(result)) error {
	ysb := generateYSB(events, 1000, 4, ysbBound, 1)
	scanner := 0.0
	scan := func() {
		cpu, _ := measure(func() error { scannerLoop(ysb); return nil })
		scanner = max(scanner, float64(events)/cpu.Seconds())
	}
	known := func(r result) {
		if scanner > 0 {
			emit(result{Workload: "scanner", Bare: scanner})
			scanner = 0
		}
		emit(r)
	}
	if err := compareEngine(ctx, "ysb-1k", ysb, scan, known); err != nil {
		return err
	}
	return compareEngine(ctx, "ysb-100k", generateYSB(events, 100_000, 4, ysbBound, 2), func() {}, known)
}

// rounds is how often everything is measured.
const rounds = 7

// compareEngine measures bare loop and engine in turn, with beside before each, and hands on the best of
// either side: whatever else the machine does only adds to the time that they take.
func compareEngine(ctx context.Context, name string, e *ysbEvents, beside func(), emit func(result)) error {
	var bare, engine, allocs []float64
	verdict := "exact"
	for range rounds {
		beside()
		var counts map[ysbKey]int64
		cpu, err := measure(func() (err error) { counts, err = bareLoop(e); return err })
		if err != nil {
			return err
		}
		if err := sameCounts(counts, e.exact); err != nil {
			return fmt.Errorf("%s: bare loop: %w", name, err)
		}
		bare = append(bare, float64(e.count)/cpu.Seconds())

		dir, err := os.MkdirTemp("", "millstream-bench-")
		if err != nil {
			return err
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		cpu, err = measure(func() error { return runEngine(ctx, e, dir) })
		runtime.ReadMemStats(&after)
		if err != nil {
			return err
		}
		rows, err := readRows(filepath.Join(dir, "rows"))
		os.RemoveAll(dir)
		if err != nil {
			return err
		}
		if err := sameCounts(rows, e.exact); err != nil {
			verdict = "wrong: " + err.Error()
		}
		engine = append(engine, float64(e.count)/cpu.Seconds())
		allocs = append(allocs, float64(after.Mallocs-before.Mallocs)/float64(e.count))
	}
	b, g := slices.Max(bare), slices.Max(engine)
	emit(result{Workload: name, Bare: b, Engine: g, Ratio: g / b, Allocs: median(allocs), Result: verdict})
	if verdict != "exact" {
		return errors.New(name + ": " + verdict)
	}
	return nil
}

// runEngine runs the query through the whole service, told by flags; its rows go below dir.
func runEngine(ctx context.Context, e *ysbEvents, dir string) error {
	s := &service.QuerySettings{}
	f := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	s.Register(f)
	err := f.Parse([]string{"--where", `event_type == "view"`, "--key", "ad_id", "--time", "event_time",
		"--window", "tumbling:10s", "--aggregate", "count() as n", "--out-of-order", "100ms",
		"--sink", filepath.Join(dir, "rows"), "--dead-letter", filepath.Join(dir, "dead"), "--late", "drop",
		"--checkpoint", "mem:", "--checkpoint-every", "1s", "--until-end", "--http", ""})
	if err != nil {
		return err
	}
	s.Driver = &memorySource{partitions: e.partitions}
	return service.RunQuery(ctx, s, io.Discard)
}

// readRows sums the rows of a folder's files.
func readRows(dir string) (map[ysbKey]int64, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.ndjson"))
	if err != nil {
		return nil, err
	}
	counts := make(map[ysbKey]int64)
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for line := range bytes.Lines(data) {
			var row struct {
				Start time.Time `json:"window_start"`
				Ad    string    `json:"ad_id"`
				N     int64     `json:"n"`
			}
			if err := json.Unmarshal(line, &row); err != nil {
				return nil, err
			}
			counts[ysbKey{row.Start.UnixMilli(), row.Ad}] += row.N
		}
	}
	return counts, nil
}

// sumRows sums n over the rows of a folder's files, by a field.
func sumRows(dir, field string) (map[string]int64, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.ndjson"))
	if err != nil {
		return nil, err
	}
	sums := make(map[string]int64)
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for line := range bytes.Lines(data) {
			var row map[string]any
			if err := json.Unmarshal(line, &row); err != nil {
				return nil, err
			}
			key, _ := row[field].(string)
			n, _ := row["n"].(float64)
			sums[key] += int64(n)
		}
	}
	return sums, nil
}

func sameCounts(got, want map[ysbKey]int64) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d rows instead of %d", len(got), len(want))
	}
	for k, n := range want {
		if got[k] != n {
			return fmt.Errorf("window %d, ad %s: %d instead of %d", k.window, k.ad, got[k], n)
		}
	}
	return nil
}

// measure returns the CPU time that f used, in all threads, by the operating system's account.
func measure(f func() error) (time.Duration, error) {
	runtime.GC()
	before := cpuTime()
	err := f()
	return cpuTime() - before, err
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // cannot fail for RUSAGE_SELF
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// memorySource serves records that are in memory already, 2,000 a fetch.
type memorySource struct{ partitions [][]stream.Record }

func (m *memorySource) Identity() string                    { return "memory" }
func (m *memorySource) Close() error                        { return nil }
func (m *memorySource) Tip(context.Context) (string, error) { return "end", nil }

func (m *memorySource) Partitions(context.Context) ([]stream.Partition, error) {
	var ps []stream.Partition
	for i := range m.partitions {
		ps = append(ps, stream.Partition{Name: strconv.Itoa(i)})
	}
	return ps, nil
}

func (m *memorySource) Open(_ context.Context, partition string, from stream.Position, _ string) (consumers.Reader, error) {
	i, err := strconv.Atoi(partition)
	if err != nil {
		return nil, err
	}
	return &memoryReader{records: m.partitions[i][from.Number:]}, nil
}

type memoryReader struct{ records []stream.Record }

func (r *memoryReader) Read(context.Context) (consumers.Fetch, error) { return r.read(2000) }

func (r *memoryReader) read(most int) (consumers.Fetch, error) {
	n := min(most, len(r.records))
	f := consumers.Fetch{Records: r.records[:n:n]}
	r.records = r.records[n:]
	if n > 0 {
		f.Next = f.Records[n-1].Position
	}
	if len(r.records) == 0 {
		f.End = &stream.PartitionEnd{}
	}
	return f, nil
}

func (r *memoryReader) Close() error { return nil }
