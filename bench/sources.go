package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"

	"github.com/millstream/millstream/service"
	"github.com/millstream/millstream/stream"
)

// sourceResult is what one way to read a source showed. Rates are events per core-second of this process.
type sourceResult struct {
	Source      string  `json:"source"`
	Client      string  `json:"client,omitempty"`                           // as client= of the source's URL
	Drain       float64 `json:"sdk_drain_events_per_core_second,omitempty"` // the official client, an empty handler
	Engine      float64 `json:"engine_events_per_core_second,omitempty"`    // the service, an empty handler
	Ratio       float64 `json:"ratio,omitempty"`                            // Engine to Drain
	Target      float64 `json:"target,omitempty"`                           // what Ratio is to reach
	Window      float64 `json:"window_events_per_core_second,omitempty"`    // the service, counts by key in 10 s windows
	WindowRatio float64 `json:"window_ratio,omitempty"`                     // Window to Drain
	Result      string  `json:"result"`
}

func (r sourceResult) text() string {
	if r.Client == "" {
		return fmt.Sprintf("%-10s %s\n", r.Source, r.Result)
	}
	return fmt.Sprintf("%-10s client=%-4s SDK alone %5.2f M events/core-second   engine %5.2f M   ratio %.2f (target %.1f)   with windows %5.2f M   ratio %.2f   result %s\n",
		r.Source, r.Client, r.Drain/1e6, r.Engine/1e6, r.Ratio, r.Target, r.Window/1e6, r.WindowRatio, r.Result)
}

// sourcePlan says what is measured.
type sourcePlan struct {
	Sources []string
	Events  int // of each source; 0: the source's own number
	Rounds  int
}

func (p sourcePlan) check() error {
	if p.Events < 0 || p.Events >= 100_000_000 || p.Rounds < 1 {
		return errors.New("want at least one round, and at most 99,999,999 events")
	}
	for _, name := range p.Sources {
		if !slices.ContainsFunc(sourceBeds, func(b sourceOpener) bool { return b.name == name }) {
			return fmt.Errorf("--source %s: it is kinesis, pubsub or eventhubs", name)
		}
	}
	return nil
}

// sourceBed is a source that serves the events, in another process, and the ways to read it.
type sourceBed struct {
	ways []sourceWay
	// drain reads everything with nothing but the official client, and says how many events came.
	drain func(context.Context) (int, error)
	// refill makes everything there again, where reading takes it away.
	refill func(context.Context) error
	// emptied returns when all is acknowledged; nil where a source has an end.
	emptied func(context.Context) error
	close   func() error
}

type sourceWay struct {
	client string
	url    string
	target float64
}

// sourceOpener starts a source and fills it.
type sourceOpener struct {
	name       string
	partitions int
	events     int // unless the plan says how many
	open       func(context.Context, sourceLoad) (*sourceBed, error)
}

var sourceBeds = []sourceOpener{
	{"kinesis", 4, 1_000_000, kinesisBed},
	{"pubsub", 1, 300_000, pubsubBed},
	{"eventhubs", 4, 200_000, eventhubsBed},
}

// errAbsent is of a source whose server cannot run on this machine.
var errAbsent = errors.New("absent")

// sourceWithin bounds one reading of everything. What a lost lease gives back comes again after a minute.
const sourceWithin = 3 * time.Minute

// benchSources measures the sources in turn and hands on what each way to read them showed.
func benchSources(ctx context.Context, p sourcePlan, emit func(sourceResult)) error {
	for _, s := range sourceBeds {
		if len(p.Sources) > 0 && !slices.Contains(p.Sources, s.name) {
			continue
		}
		load := sourceLoad{Source: s.name, Events: cmp.Or(p.Events, s.events), Partitions: s.partitions}
		bed, err := s.open(ctx, load)
		if errors.Is(err, errAbsent) {
			emit(sourceResult{Source: s.name, Result: err.Error()})
			continue
		}
		if err == nil {
			err = errors.Join(compareSource(ctx, s.name, bed, load, p.Rounds, emit), bed.close())
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// compareSource measures the SDK alone, and the engine by each way, in turn, and hands on the best of each:
// whatever else the machine does only adds to the time that they take.
func compareSource(ctx context.Context, name string, bed *sourceBed, load sourceLoad, rounds int, emit func(sourceResult)) error {
	exact := load.generate().exact
	collecting := debug.SetGCPercent(100)
	defer debug.SetGCPercent(collecting)
	drain, results := 0.0, make([]sourceResult, len(bed.ways))
	rate := func(best *float64, run func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(ctx, sourceWithin)
		defer cancel()
		if err := bed.refill(ctx); err != nil {
			return err
		}
		cpu, err := measure(func() error { return run(ctx) })
		*best = max(*best, float64(load.Events)/cpu.Seconds())
		return err
	}
	for range rounds {
		debug.SetGCPercent(collecting) // the service has its own setting, for less memory; the SDK alone has Go's
		err := rate(&drain, func(ctx context.Context) error {
			n, err := bed.drain(ctx)
			if err == nil && n != load.Events {
				err = fmt.Errorf("%d events came instead of %d", n, load.Events)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("the SDK alone: %w", err)
		}
		for i, way := range bed.ways {
			r := &results[i]
			pass, window := newSourceRun(bed, way, load), newSourceRun(bed, way, load)
			err := errors.Join(rate(&r.Engine, pass.pass), pass.tally(), rate(&r.Window, window.window), window.counted(exact))
			if err != nil {
				return fmt.Errorf("client=%s: %w", way.client, err)
			}
		}
	}
	for i, way := range bed.ways {
		r := &results[i]
		r.Source, r.Client, r.Target, r.Result = name, way.client, way.target, "exact"
		r.Drain, r.Ratio, r.WindowRatio = drain, r.Engine/drain, r.Window/drain
		emit(*r)
	}
	return nil
}

// sourceRun is one run of the service over everything there is.
type sourceRun struct {
	bed  *sourceBed
	way  sourceWay
	load sourceLoad
	seen []atomic.Uint32 // how often each event came to the handler
	rows map[ysbKey]int64
	log  bytes.Buffer
}

func newSourceRun(bed *sourceBed, way sourceWay, load sourceLoad) *sourceRun {
	return &sourceRun{bed: bed, way: way, load: load, seen: make([]atomic.Uint32, load.Events)}
}

// pass runs a handler that does nothing but note which event it was given.
func (r *sourceRun) pass(ctx context.Context) error {
	p := &stream.Pipeline[struct{}, struct{}]{
		Decode: func(record *stream.Record) (stream.Event[struct{}], error) {
			n, err := numberOf(record.Data)
			if err == nil && n < len(r.seen) {
				r.seen[n].Add(1)
				err = stream.Filtered
			}
			return stream.Event[struct{}]{}, err
		},
		Operator: &stream.Map[struct{}, struct{}]{Func: func(*stream.Event[struct{}]) (struct{}, error) { return struct{}{}, nil }},
		Encode:   func(*struct{}) (stream.Row, error) { return stream.Row{}, nil },
	}
	return r.run(ctx, nil, func(ctx context.Context, s *service.QuerySettings) error {
		return service.Run(ctx, p, &s.Settings, &r.log)
	})
}

// tally wants every event once.
func (r *sourceRun) tally() error {
	for i := range r.seen {
		if n := r.seen[i].Load(); n != 1 {
			return fmt.Errorf("event %d came %d times: %s", i, n, r.log.Bytes())
		}
	}
	return r.ledger(func(l ledgerLine) bool { return l.Filtered == r.load.Events })
}

// window runs a query with windows, told by flags.
func (r *sourceRun) window(ctx context.Context) error {
	flags := []string{"--where", `event_type == "view"`, "--key", "ad_id", "--time", "event_time",
		"--window", "tumbling:10s", "--aggregate", "count() as n", "--out-of-order", "24h"}
	return r.run(ctx, flags, func(ctx context.Context, s *service.QuerySettings) error { return service.RunQuery(ctx, s, &r.log) })
}

// counted wants the exact totals. Without an end no window has closed: then it is the log's ledger that
// says how many events are in them.
func (r *sourceRun) counted(exact map[ysbKey]int64) error {
	if r.bed.emptied == nil {
		if err := sameCounts(r.rows, exact); err != nil {
			return err
		}
	}
	views := 0
	for _, n := range exact {
		views += int(n)
	}
	return r.ledger(func(l ledgerLine) bool { return l.Contributed == views && l.Contributed+l.Filtered == r.load.Events })
}

// run runs the service until the source's end, or until everything is acknowledged.
func (r *sourceRun) run(ctx context.Context, flags []string, serve func(context.Context, *service.QuerySettings) error) error {
	dir, err := os.MkdirTemp("", "millstream-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &service.QuerySettings{}
	f := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	s.Register(f)
	rows := filepath.Join(dir, "rows")
	flags = append(flags, "--source", r.way.url, "--sink", rows, "--dead-letter", filepath.Join(dir, "dead"),
		"--checkpoint", "mem:", "--checkpoint-every", "1s", "--http", "", "--log-format", "json")
	if r.bed.emptied == nil {
		flags = append(flags, "--until-end")
	}
	if err := f.Parse(flags); err != nil {
		return err
	}
	stopped, stop := context.WithCancel(ctx)
	defer stop()
	waited := make(chan error, 1)
	if r.bed.emptied == nil {
		waited <- nil
	} else {
		go func() {
			defer stop()
			waited <- r.bed.emptied(stopped)
		}()
	}
	if err := serve(stopped, s); err != nil {
		return err
	}
	if err := errors.Join(<-waited, ctx.Err()); err != nil {
		return fmt.Errorf("%w: %s", err, r.log.Bytes())
	}
	r.rows, err = readRows(rows)
	return err
}

// ledgerLine is the last line that a run logs.
type ledgerLine struct {
	Msg                   string
	Contributed, Filtered int
}

// ledger wants the run's ledger to be right.
func (r *sourceRun) ledger(right func(ledgerLine) bool) error {
	lines := bytes.Split(bytes.TrimSpace(r.log.Bytes()), []byte("\n"))
	var l ledgerLine
	if err := json.Unmarshal(lines[len(lines)-1], &l); err != nil {
		return err
	}
	if l.Msg != "ledger" || !right(l) {
		return fmt.Errorf("the ledger of %d events: %s", r.load.Events, r.log.Bytes())
	}
	return nil
}

// numberOf reads the number that a generated event ends with.
func numberOf(data []byte) (int, error) {
	end := len(data) - len(`"}`)
	if end < numberDigits {
		return 0, io.ErrUnexpectedEOF
	}
	return strconv.Atoi(string(data[end-numberDigits : end]))
}
