package windows

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millstream/millstream/stream"
)

// told is an event of a random story.
type told struct {
	partition string
	at        stream.Instant
	key       string
	n         int64
	f         float64
	v         Value
	watermark stream.Instant // before the event
	serial    int            // position within the partition
}

// tell makes up a story: events of several partitions in the order in which they come, each with its
// partition's watermark.
func tell(rng *rand.Rand, partitions, events int, span, jitter time.Duration) []told {
	marks := make([]stream.Instant, partitions)
	serial := make([]int, partitions)
	for i := range marks {
		marks[i] = stream.Beginning
	}
	var out []told
	base := stream.Instant(rng.Int64N(int64(2*span))) - stream.Instant(span) // either side of 1970
	for i := range events {
		p := rng.IntN(partitions)
		at := base + stream.Instant(int64(span)/int64(events)*int64(i)) - stream.Instant(rng.Int64N(int64(jitter)+1))
		if rng.IntN(3) == 0 {
			at = at.Floor(time.Second) - stream.Instant(rng.IntN(2)) // so that bounds and ties come up
		}
		e := told{partition: fmt.Sprint("p", p), at: at, key: fmt.Sprint("k", rng.IntN(4)), watermark: marks[p], serial: serial[p]}
		serial[p]++
		e.n = rng.Int64N(2000) - 1000
		if rng.IntN(8) == 0 {
			e.n = math.MaxInt64 - rng.Int64N(1000) // beyond 2^53, and sums beyond 2^63
		}
		e.f = rng.NormFloat64() * math.Pow(10, float64(rng.IntN(6)))
		switch rng.IntN(6) {
		case 0:
			e.v = flt(math.Round(e.f))
		case 1:
			e.v = str(strings.Repeat("s", rng.IntN(3)))
		case 2:
			e.v = Value{}
		default:
			e.v = num(e.n % 5)
		}
		out = append(out, e)
		if w := at - stream.Instant(jitter/2); w > marks[p] {
			marks[p] = w
		}
	}
	return out
}

// group is what the oracle knows of one key and window: the events themselves.
type group struct {
	window stream.Window
	key    string
	events []told
}

// rules are what the definition of windows rests on; the negative controls bend them one at a time.
type rules struct {
	late  func(sliceEnd, watermark stream.Instant) bool
	apart func(pause, gap stream.Instant) bool // two sessions
	floor func(t, width stream.Instant) stream.Instant
	tie   func(a, b *told) int // order of first and last at equal times
}

var theRules = rules{
	late:  func(end, watermark stream.Instant) bool { return end <= watermark },
	apart: func(pause, gap stream.Instant) bool { return pause >= gap },
	floor: func(t, width stream.Instant) stream.Instant {
		d := t / width
		if t%width < 0 {
			d--
		}
		return d * width
	},
	tie: func(a, b *told) int {
		return cmp.Or(cmp.Compare(a.partition, b.partition), cmp.Compare(a.serial, b.serial))
	},
}

func (r rules) isLate(w Windows, e *told) bool {
	width := stream.Instant(w.Slice())
	return r.late(r.floor(e.at, width)+width, e.watermark)
}

// oracle computes windows by their definition, from the events that are not late.
func (r rules) oracle(w Windows, events []told) []group {
	byKey := map[string][]told{}
	for _, e := range events {
		if !r.isLate(w, &e) {
			byKey[e.key] = append(byKey[e.key], e)
		}
	}
	var out []group
	for key, es := range byKey {
		if w.kind == session {
			slices.SortStableFunc(es, func(a, b told) int { return cmp.Compare(a.at, b.at) })
			var g *group
			for _, e := range es {
				if g == nil || r.apart(e.at-g.events[len(g.events)-1].at, stream.Instant(w.size)) {
					out = append(out, group{key: key, window: stream.Window{Start: e.at}})
					g = &out[len(out)-1]
				}
				g.events = append(g.events, e)
				g.window.End = e.at + stream.Instant(w.size)
			}
			continue
		}
		windows := map[stream.Instant]*group{}
		for _, e := range es {
			hop := stream.Instant(w.hop)
			for start := r.floor(e.at, hop); start+stream.Instant(w.size) > e.at; start -= hop {
				if windows[start] == nil {
					windows[start] = &group{key: key, window: stream.Window{Start: start, End: start + stream.Instant(w.size)}}
				}
				windows[start].events = append(windows[start].events, e)
			}
		}
		for g := range maps.Values(windows) {
			out = append(out, *g)
		}
	}
	slices.SortFunc(out, func(a, b group) int {
		return cmp.Or(cmp.Compare(a.window.End, b.window.End), cmp.Compare(a.window.Start, b.window.Start), cmp.Compare(a.key, b.key))
	})
	return out
}

// exact are the oracle's values of the integer aggregates of a group, as JSON.
func (g *group) exact(r rules) []string {
	sum := new(big.Int)
	low, high := int64(math.MaxInt64), int64(math.MinInt64)
	distinct := map[string]bool{}
	tops := map[string]int{}
	// The order of first and last: event time, partition, position.
	slices.SortFunc(g.events, func(a, b told) int {
		return cmp.Or(cmp.Compare(a.at, b.at), r.tie(&a, &b))
	})
	first, last, some := "null", "null", 0
	smallest, largest := "null", "null"
	var mixed []Value
	for i := range g.events {
		e := &g.events[i]
		sum.Add(sum, big.NewInt(e.n))
		low, high = min(low, e.n), max(high, e.n)
		if e.v.Kind == Null {
			continue
		}
		some++
		text := string(e.v.appendJSON(nil))
		if first == "null" {
			first = text
		}
		last = text
		c := e.v.canonical()
		distinct[string(c.appendJSON(nil))] = true
		tops[string(c.appendJSON(nil))]++
		mixed = append(mixed, e.v)
	}
	if len(mixed) > 0 {
		rank := func(v Value) (bool, float64, string) {
			return v.Kind == String, map[ValueKind]float64{Int: float64(v.I), Float: v.F}[v.Kind], v.S
		}
		slices.SortFunc(mixed, func(a, b Value) int {
			as, an, at := rank(a)
			bs, bn, bt := rank(b)
			if as != bs {
				if as {
					return 1
				}
				return -1
			}
			return cmp.Or(cmp.Compare(an, bn), cmp.Compare(at, bt))
		})
		c, d := mixed[0].canonical(), mixed[len(mixed)-1].canonical()
		smallest, largest = string(c.appendJSON(nil)), string(d.appendJSON(nil))
	}
	type entry struct {
		text string
		n    int
	}
	var ranking []entry
	for text, n := range tops {
		ranking = append(ranking, entry{text, n})
	}
	slices.SortFunc(ranking, func(a, b entry) int {
		isText := func(e entry) int { return boolInt(e.text[0] == '"') }
		an, _ := strconv.ParseFloat(a.text, 64)
		bn, _ := strconv.ParseFloat(b.text, 64)
		return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(isText(a), isText(b)), cmp.Compare(an, bn), cmp.Compare(a.text, b.text))
	})
	var top []string
	for _, e := range ranking[:min(3, len(ranking))] {
		top = append(top, fmt.Sprintf(`{"value":%s,"count":%d}`, e.text, e.n))
	}
	return []string{strconv.Itoa(len(g.events)), strconv.Itoa(some), sum.String(), fmt.Sprint(low), fmt.Sprint(high), first, last,
		strconv.Itoa(len(distinct)), "[" + strings.Join(top, ",") + "]", smallest, largest}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// rough are the oracle's values of the aggregates that are compared within a tolerance.
func (g *group) rough() []float64 {
	sum := new(big.Float).SetPrec(500)
	var fs []float64
	for i := range g.events {
		sum.Add(sum, big.NewFloat(g.events[i].f))
		fs = append(fs, g.events[i].f)
	}
	s, _ := sum.Float64()
	n := float64(len(fs))
	mean, m2 := s/n, 0.0
	for _, f := range fs {
		m2 += (f - mean) * (f - mean)
	}
	slices.Sort(fs)
	return []float64{s, mean, math.Sqrt(m2 / (n - 1)), fs[int(math.Ceil(0.75*n))-1]}
}

var propertyWindows = []Windows{
	Tumbling(10 * time.Second), Tumbling(7 * time.Second), Hopping(10*time.Second, 2*time.Second), Hopping(25*time.Second, 10*time.Second),
	Hopping(9*time.Second, 9*time.Second), Hopping(7*time.Second, 5*time.Second), Hopping(20*time.Second, time.Second), Hopping(37*time.Second, 2*time.Second), Hopping(48*time.Second, 36*time.Second),
	Session(2 * time.Second), Session(700 * time.Millisecond),
}

func propertyFuncs(t testing.TB) []Func {
	return []Func{CountEvents(), mustFunc(t, "count"), mustFunc(t, "sum"), mustFunc(t, "min"), mustFunc(t, "max"), mustFunc(t, "first"), mustFunc(t, "last"),
		mustFunc(t, "count_distinct"), mustFunc(t, "top", 3), mustFunc(t, "min"), mustFunc(t, "max"),
		mustFunc(t, "sum"), mustFunc(t, "avg"), mustFunc(t, "stddev"), mustFunc(t, "quantile", 0.75)}
}

func (e *told) args() args {
	n, f := num(e.n), flt(e.f)
	return args{{}, e.v, n, n, n, e.v, e.v, e.v, e.v, e.v, e.v, f, f, f, f}
}

// TestEqualsOracle: whatever the partitions, the freezes, the restarts and the merge passes, the rows
// are those of the definition, each once and in order.
func TestEqualsOracle(t *testing.T) {
	for seed := range uint64(25) {
		for _, w := range propertyWindows {
			if err := checkStory(t, seed, w, theRules); err != nil {
				t.Fatalf("seed %d %s: %v", seed, w, err)
			}
		}
	}
}

// TestBentRules is the negative control of TestEqualsOracle: an oracle that is off by one somewhere
// must be found out.
func TestBentRules(t *testing.T) {
	for name, bend := range map[string]func(*rules){
		"late only beyond the watermark": func(r *rules) { r.late = func(end, w stream.Instant) bool { return end < w } },
		"late a nanosecond early":        func(r *rules) { r.late = func(end, w stream.Instant) bool { return end <= w+1 } },
		"sessions touch":                 func(r *rules) { r.apart = func(pause, gap stream.Instant) bool { return pause > gap } },
		"truncated, not floored":         func(r *rules) { r.floor = func(t, w stream.Instant) stream.Instant { return t / w * w } },
		"ties by reversed partition": func(r *rules) {
			r.tie = func(a, b *told) int {
				return cmp.Or(cmp.Compare(b.partition, a.partition), cmp.Compare(a.serial, b.serial))
			}
		},
		"ties by reversed position": func(r *rules) {
			r.tie = func(a, b *told) int {
				return cmp.Or(cmp.Compare(a.partition, b.partition), cmp.Compare(b.serial, a.serial))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bent := theRules
			bend(&bent)
			for seed := range uint64(25) {
				for _, w := range propertyWindows {
					if checkStory(t, seed, w, bent) != nil {
						return
					}
				}
			}
			t.Error("nobody noticed")
		})
	}
}

// checkStory runs one random story and compares it with the oracle.
func checkStory(t *testing.T, seed uint64, w Windows, r rules) error {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 7))
	events := tell(rng, 1+rng.IntN(5), 50+rng.IntN(400), time.Minute, 4*time.Second)
	type row struct {
		window stream.Window
		key    string
		values []string
	}
	var rows []row
	f := newFleet(t, columnsOf(w, propertyFuncs(t)...), func(r *Result) string {
		out := row{window: r.Window, key: r.Key}
		for i := range r.columns {
			out.values = append(out.values, string(r.AppendValue(nil, i)))
		}
		rows = append(rows, out)
		return ""
	})
	each := rng.IntN(2) == 0
	late, wantLate := 0, 0
	for i := range events {
		f.lane(events[i].partition)
	}
	for i := range events {
		e := &events[i]
		if rng.IntN(10) == 0 {
			// Freezing may lag behind the watermark, which alone decides what is late.
			f.freeze(e.partition, e.watermark)
		}
		if rng.IntN(20) == 0 {
			f.restart(e.partition)
		}
		f.marks[e.partition] = e.watermark
		if !f.add(e.partition, stream.Event[args]{Key: e.key, Time: e.at, Value: e.args()}) {
			late++
		}
		if r.isLate(w, e) {
			wantLate++
		}
		if rng.IntN(30) == 0 {
			for _, p := range f.names {
				f.freeze(p, f.marks[p])
			}
			if to := f.low(); to > f.reached {
				f.advance(to, each)
			}
		}
		if rng.IntN(40) == 0 {
			f.restartMerger()
		}
	}
	for _, p := range f.names {
		f.freeze(p, stream.EndOfTime)
	}
	f.advance(stream.EndOfTime, each)
	if late != wantLate {
		return fmt.Errorf("%d late, want %d", late, wantLate)
	}
	want := r.oracle(w, events)
	for i := range max(len(rows), len(want)) {
		if i >= len(rows) || i >= len(want) || rows[i].window != want[i].window || rows[i].key != want[i].key {
			return fmt.Errorf("%d rows, want %d; they differ from row %d on", len(rows), len(want), i)
		}
		g := &want[i]
		exact := g.exact(r)
		for j := range exact {
			got := rows[i].values[j]
			if j >= 9 { // min and max of mixed kinds: 1 and 1.0 are told apart only by their kind
				got = canonicalJSON(got)
			}
			if got != exact[j] {
				return fmt.Errorf("row %v %s: aggregate %d is %s, want %s", g.window, g.key, j, got, exact[j])
			}
		}
		for j, f := range g.rough() {
			tolerance := 1e-9
			if j == 3 {
				tolerance = quantileAccuracy * 1.0001
			}
			text := rows[i].values[len(exact)+j]
			if math.IsNaN(f) {
				if text != "null" {
					return fmt.Errorf("row %v %s: the deviation of one value is %s", g.window, g.key, text)
				}
				continue
			}
			got, err := strconv.ParseFloat(text, 64)
			if err != nil || math.Abs(got-f) > tolerance*max(1, math.Abs(f)) {
				return fmt.Errorf("row %v %s: aggregate %d is %s, want %v", g.window, g.key, len(exact)+j, text, f)
			}
		}
	}
	return nil
}

func canonicalJSON(s string) string {
	if f, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(f) < 1e15 {
		v := flt(f)
		c := v.canonical()
		return string(c.appendJSON(nil))
	}
	return s
}
