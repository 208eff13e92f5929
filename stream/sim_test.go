package stream_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/stream"
	"github.com/millstream/millstream/stream/streamtest"
	"github.com/millstream/millstream/windows"
)

var (
	oneSeed  = flag.Uint64("seed", 0, "run the simulation with this seed only")
	allSeeds = flag.Uint64("seeds", 60, "run the simulation with seeds 1 to n")
)

const (
	outOfOrder = 3 * time.Second
	idleAfter  = 10 * time.Second
	slice      = 5 * time.Second
	horizon    = 2 * time.Minute
	virtualEnd = 2 * time.Hour // a run that has not finished by then never will
)

// epoch is where a bubble's clock starts.
var epoch = stream.Instant(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())

// plan is one simulated run, made from a seed alone.
type plan struct {
	seed    uint64
	rng     *rand.Rand
	windows *windows.Windows
	script  *script
	parts   int
	splits  int
	merges  int
	noise   float64
	paused  [][2]time.Duration
	skews   [2]time.Duration // of the machines' wall clocks
	roll    time.Duration    // of a second sink, one of files; 0: there is none
	stages  bool             // there is a third sink, which holds rows itself
	enrich  *dawdler         // nil: nothing is enriched
}

func newPlan(seed uint64) *plan {
	pl := &plan{seed: seed, rng: rand.New(rand.NewPCG(seed, 7)), script: &script{parts: make(map[string]*scripted)}}
	pl.script.fetch = 1 + pl.rng.IntN(20)
	for i, w := range []windows.Windows{windows.Tumbling(slice), windows.Hopping(2*slice, slice), windows.Session(slice)} {
		if seed%4 == uint64(i) {
			pl.windows = &w
		}
	}
	// Machines disagree by an hour. One whose clock is ahead of the events' own makes records late, as M5
	// has it, when it lives alone while every partition is idle: that is not simulated.
	clocks := rand.New(rand.NewPCG(seed, 11))
	for i := range pl.skews {
		pl.skews[i] = -time.Duration(clocks.IntN(2)) * time.Hour
	}
	pl.roll = []time.Duration{0, 5 * time.Second, 20 * time.Second}[clocks.IntN(3)]
	pl.stages = clocks.IntN(2) == 0
	if clocks.IntN(3) == 0 {
		pl.enrich = &dawdler{rng: rand.New(rand.NewPCG(seed, 17))}
	}
	pl.noise = []float64{0, 0.03, 0.1}[pl.rng.IntN(3)]
	pl.family()
	return pl
}

func (pl *plan) between(a, b time.Duration) time.Duration {
	return a + time.Duration(pl.rng.Int64N(int64(b-a)+1))
}

// family writes the lives of all partitions: two or three roots, splits, merges, a root that comes late.
func (pl *plan) family() {
	type open struct {
		name    string
		started time.Duration
		start   stream.Instant // the largest of its parents' last watermarks
		parents []string
	}
	var live []open
	for range 2 + pl.rng.IntN(2) {
		live = append(live, open{name: pl.name(), start: stream.Beginning})
	}
	if pl.rng.IntN(2) == 0 {
		live = append(live, open{name: pl.name(), started: pl.between(horizon/4, horizon/2), start: stream.Beginning})
	}
	for len(live) > 0 {
		o := live[0]
		live = live[1:]
		p := &scripted{Partition: stream.Partition{Name: o.name, Parents: o.parents}, appears: o.started, ends: horizon, sparse: pl.rng.IntN(4) == 0}
		pl.script.parts[o.name] = p
		var second *open
		if o.started < horizon/2 && len(pl.script.parts) < 8 {
			switch pl.rng.IntN(4) {
			case 0:
				p.ends = pl.between(o.started+10*time.Second, horizon*3/4)
				pl.splits++
				for range 2 {
					p.children = append(p.children, stream.Partition{Name: pl.name(), Parents: []string{o.name}})
				}
			case 1:
				if len(live) > 0 && live[0].started < horizon/2 {
					pl.merges++
					second, live = &live[0], live[1:]
					p.ends = pl.between(max(o.started, second.started)+10*time.Second, horizon*3/4)
					p.children = []stream.Partition{{Name: pl.name(), Parents: []string{o.name, second.name}}}
				}
			}
		}
		last := pl.fill(p, o.start)
		begins := p.ends
		if second != nil {
			q := &scripted{Partition: stream.Partition{Name: second.name, Parents: second.parents}, appears: second.started, sparse: pl.rng.IntN(4) == 0}
			q.ends = pl.between(max(p.ends-10*time.Second, second.started+time.Second), horizon*3/4+10*time.Second)
			q.children = p.children
			pl.script.parts[q.Name] = q
			last, begins = max(last, pl.fill(q, second.start)), max(begins, q.ends)
		}
		for _, c := range p.children {
			live = append(live, open{name: c.Name, started: begins, start: last, parents: c.Parents})
		}
		if len(p.children) > 0 && pl.rng.IntN(2) == 0 {
			p.gone = begins + horizon // long after everybody could have read it
		}
	}
}

func (pl *plan) name() string {
	pl.parts++
	return "p" + strconv.Itoa(pl.parts)
}

// fill writes a partition's records and returns its last watermark, were it never idle.
func (pl *plan) fill(p *scripted, watermark stream.Instant) stream.Instant {
	if !p.sparse && pl.rng.IntN(4) == 0 {
		p.throttle[0] = pl.between(p.appears, p.ends)
		p.throttle[1] = p.throttle[0] + pl.between(idleAfter, 3*idleAfter)
	}
	at := p.appears
	if p.Parents == nil && at > 0 {
		old := sample{"k0", epoch.Add(-time.Hour), 1}
		p.records = append(p.records, timed{old, at, false, true})
		watermark = max(watermark, old.at.Add(-outOfOrder))
	}
	for first := true; ; first = false {
		if p.sparse {
			at += pl.between(idleAfter/4, 3*idleAfter)
		} else if !first {
			at += pl.between(0, time.Second)
		}
		if at >= p.ends {
			return watermark
		}
		r := timed{sample: sample{"k" + strconv.Itoa(pl.rng.IntN(5)), epoch.Add(at - pl.between(0, outOfOrder)), pl.rng.Int64N(1 << 40)}, arrives: at}
		r.mayBe = p.Parents == nil && p.appears > 0 && at < p.appears+15*time.Second // it enters where the frontier is when it is listed
		if watermark.Finite() && watermark > epoch && (pl.rng.IntN(12) == 0 || first) && pl.windows != nil {
			r.late = true
			r.at = watermark.Add(-slice - pl.between(0, slice))
		}
		p.records = append(p.records, r)
		watermark = max(watermark, r.at.Add(-outOfOrder))
	}
}

// pipeline is the plan's, with rules off.
func (pl *plan) pipeline(off []string) *stream.Pipeline[int64, sum] {
	p := sums(pl.windows)
	p.OutOfOrder, p.IdleAfter, p.CheckpointEvery = outOfOrder, idleAfter, 2*time.Second
	if pl.enrich != nil {
		p.Enrich = []stream.Enricher[int64]{pl.enrich}
	}
	for _, rule := range off {
		p.Off(rule)
	}
	return p
}

// tally sums up what was injected, over many runs.
type tally struct {
	failed, lost, later, slow, crashes, pauses, fenced, splits, merges, lates, repeated, dawdled, gaveUp int
}

// simulate runs a plan in the caller's bubble and returns what is wrong with the outcome.
func (pl *plan) simulate(off []string, sums *tally) error {
	w := &world{script: pl.script, bucket: bucket.Memory(), roll: pl.roll, stages: pl.stages}
	w.start = time.Now()
	calm := time.Now().Add(horizon + time.Minute)
	started := 0
	launch := func(n int) *instance {
		started++
		return w.launch(pl.pipeline(off), &gate{rng: rand.New(rand.NewPCG(pl.seed, uint64(started))), noise: pl.noise, noisy: calm, skew: pl.skews[n]})
	}
	all := []*instance{launch(0)}
	if pl.rng.IntN(2) == 0 {
		<-time.After(pl.between(0, horizon/4))
		all = append(all, launch(1))
	}
	running := slices.Clone(all)
	for range pl.rng.IntN(5) {
		<-time.After(pl.between(0, horizon/4))
		n := pl.rng.IntN(len(running))
		if pl.rng.IntN(2) == 0 {
			w.faults.crashes++
			running[n].kill()
			if pl.rng.IntN(2) == 0 {
				<-time.After(pl.between(0, 10*time.Second))
			}
			running[n] = launch(n)
			all = append(all, running[n])
		} else {
			w.faults.pauses++
			d := pl.between(time.Second, time.Minute)
			if d >= idleAfter {
				// What a reader said before the pause is old when the process wakes: until it speaks again its
				// lane may take the partition for idle.
				pl.paused = append(pl.paused, [2]time.Duration{pl.script.now(), pl.script.now() + d})
			}
			running[n].pause(d, pl.rng.IntN(2) == 0)
		}
	}
	deadline := time.After(virtualEnd)
	var err error
	for _, i := range running {
		select {
		case e := <-i.done:
			i.done <- nil
			if e != nil && !errors.Is(e, stream.ErrFinished) {
				err = errors.Join(err, fmt.Errorf("an instance ended: %w", e))
			}
		case <-deadline:
			err = errors.New("it does not finish")
			deadline = time.After(0)
		}
	}
	for _, i := range all {
		i.kill()
		i.cancel()
	}
	for _, i := range all {
		<-i.done
	}
	if err == nil {
		err = pl.judge(w, sums)
	}
	if sums != nil {
		f := &w.faults
		for to, n := range map[*int]int{&sums.failed: f.failed, &sums.lost: f.lost, &sums.later: f.later, &sums.slow: f.slow, &sums.crashes: f.crashes,
			&sums.pauses: f.pauses, &sums.fenced: w.said.about("fenced"), &sums.splits: pl.splits, &sums.merges: pl.merges, &sums.repeated: w.sink.Repeated()} {
			*to += n
		}
	}
	if err != nil && len(off) == 0 {
		err = fmt.Errorf("%w\n%s", err, w.said.tail(60))
	}
	return err
}

// judge compares rows and ledger with the oracle's.
func (pl *plan) judge(w *world, sums *tally) error {
	letters, err := w.dead.DeadLetters()
	if err := errors.Join(err, w.sink.Err(), w.files.Err(), w.dead.Err()); err != nil {
		return err
	}
	late := make(map[string]bool)
	for _, d := range letters {
		id := d.Partition + "/" + d.Position
		if d.Reason != stream.ReasonLate || late[id] {
			return fmt.Errorf("dead letter of %s, reason %s, is wrong or there twice", id, d.Reason)
		}
		late[id] = true
	}
	var counted []sample
	want := stream.Ledger{Late: int64(len(late))}
	for name, p := range pl.script.parts {
		for i, r := range p.records {
			want.RecordsIn++
			id := fmt.Sprintf("%s/%d", name, i+1)
			switch {
			case late[id] && !r.late && !r.mayBe && !p.sparse && !slices.ContainsFunc(pl.paused, func(d [2]time.Duration) bool { return d[0] <= r.arrives && r.arrives <= d[1] }):
				return fmt.Errorf("record %s (%s) is late, but it should not be", id, r.at)
			case !late[id] && r.late:
				return fmt.Errorf("record %s (%s) should be late", id, r.at)
			case !late[id]:
				counted = append(counted, r.sample)
			}
		}
	}
	want.Contributed = int64(len(counted))
	oracle := exact(pl.windows, counted)
	want.RowsOut = int64(len(oracle))
	wrong := func(what string, sink *streamtest.Sink) error {
		var rows []string
		for _, r := range sink.Rows() {
			rows = append(rows, string(r.Data))
		}
		slices.Sort(rows)
		if !slices.Equal(rows, oracle) {
			return fmt.Errorf("%s are wrong: %d, exact are %d%s", what, len(rows), len(oracle), firstDifference(rows, oracle))
		}
		return nil
	}
	if err := wrong("rows", &w.sink); err != nil {
		return err
	}
	if pl.roll > 0 {
		if err := wrong("rows in files", &w.files); err != nil {
			return err
		}
	}
	if pl.stages {
		if err := errors.Join(wrong("rows staged and committed", &w.staged.Sink), w.staged.Err()); err != nil {
			return err
		}
	}
	ledger, err := w.ledger()
	if err != nil || ledger != want {
		return fmt.Errorf("ledger %+v, exact is %+v (%w)", ledger, want, err)
	}
	m, err := w.merged()
	if err != nil || m == nil || m.LatePartials != 0 || m.Frontier != stream.EndOfTime {
		return fmt.Errorf("merger: %+v (%w)", m, err)
	}
	if sums != nil {
		sums.lates += len(late)
		if pl.enrich != nil {
			sums.dawdled, sums.gaveUp = sums.dawdled+pl.enrich.dawdled, sums.gaveUp+pl.enrich.failures
		}
	}
	return nil
}

func firstDifference(got, want []string) (s string) {
	for _, r := range got {
		if !slices.Contains(want, r) {
			s += "\n  wrong:   " + r
			break
		}
	}
	for _, r := range want {
		if !slices.Contains(got, r) {
			return s + "\n  missing: " + r
		}
	}
	return s
}

// run simulates a seed in a bubble of its own.
func run(t *testing.T, seed uint64, sums *tally, off ...string) (err error) {
	t.Helper()
	synctest.Test(t, func(*testing.T) { err = newPlan(seed).simulate(off, sums) })
	return err
}

// TestSimulation is the whole engine over the real log, with splits and merges, throttled, sparse and
// late partitions, one or two processes, crashes, pauses beyond the lease, delayed and lost writes and
// lost answers; an exact oracle checks every row and the ledger.
func TestSimulation(t *testing.T) {
	if *oneSeed != 0 {
		if err := run(t, *oneSeed, nil); err != nil {
			t.Fatal(err)
		}
		return
	}
	var sums tally
	for seed := uint64(1); seed <= *allSeeds; seed++ {
		if err := run(t, seed, &sums); err != nil {
			t.Errorf("seed %d (go test ./stream -run Simulation -seed %d): %v", seed, seed, err)
			if t.Failed() && seed > 3 {
				break
			}
		}
	}
	t.Logf("injected: %+v", sums)
	if sums.failed == 0 || sums.lost == 0 || sums.later == 0 || sums.slow == 0 || sums.crashes == 0 || sums.pauses == 0 ||
		sums.fenced == 0 || sums.splits == 0 || sums.merges == 0 || sums.lates == 0 || sums.repeated == 0 || sums.dawdled == 0 || sums.gaveUp == 0 {
		t.Errorf("not every fault was injected: %+v", sums)
	}
}
