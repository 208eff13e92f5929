package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/millstream/millstream/stream"
)

// The workload of the tests that kill, freeze and drain: partitions of {"k":…,"v":…,"t":…}, some
// disordered, late, filtered, broken or without a key, and one query over them.
const (
	workWindow = 2000 // ms
	workBound  = 500  // ms
	workStart  = 1_767_225_600_000
)

var workQuery = []string{"--key", "k", "--time", "t", "--window", "tumbling:2s", "--out-of-order", "500ms", "--where", "v != 13",
	"--aggregate", "count() as n, sum(v) as total, min(v) as low, max(v) as high", "--log-format", "json"}

// workload makes the lines of one partition. Event time goes 10 ms a line.
func workload(random *rand.Rand, lines int) []string {
	all := make([]string, lines)
	for i := range all {
		t := workStart + int64(i)*10 - random.Int64N(workBound)
		line := fmt.Sprintf(`{"k":"k%d","v":%d,"t":%d}`, random.IntN(20), random.IntN(100), t)
		switch random.IntN(100) {
		case 0:
			line = line[:random.IntN(len(line)-1)+1] // broken
		case 1:
			line = fmt.Sprintf(`{"v":1,"t":%d}`, t)
		case 2:
			line = fmt.Sprintf(`{"k":"late","v":1,"t":%d}`, max(0, t-60_000))
		case 3:
			line = fmt.Sprintf(`{"k":"future","v":1,"t":%d}`, time.Now().AddDate(1, 0, 0).UnixMilli())
		}
		all[i] = line
	}
	return all
}

// workFolder writes a workload as the files of a folder, and returns what is right for it.
func workFolder(t *testing.T, random *rand.Rand, dir string, partitions, lines int) *oracle {
	t.Helper()
	want := newOracle()
	for p := range partitions {
		all := workload(random, lines)
		write(t, filepath.Join(dir, fmt.Sprintf("p%d.ndjson", p)), all...)
		want.partition(all, 0)
	}
	return want
}

// result is a row of the query.
type result struct {
	Start string `json:"window_start"`
	End   string `json:"window_end"`
	K     string `json:"k"`
	N     int64  `json:"n"`
	Total int64  `json:"total"`
	Low   int64  `json:"low"`
	High  int64  `json:"high"`
}

func (r result) key() string { return r.Start + " " + r.K }

// oracle computes the right rows and the right ledger, one partition after the other, one record
// after the other, with encoding/json and the rules as the README words them. It shares no code with
// the engine.
type oracle struct {
	rows   map[string]result
	ledger stream.Ledger
	until  int64 // of a bounded run: a partition ends when its watermark has reached it; 0 for none
}

func newOracle() *oracle { return &oracle{rows: map[string]result{}} }

// partition takes the records of a partition that begins with a watermark (0: none), and returns its
// last one.
func (o *oracle) partition(lines []string, watermark int64) int64 {
	l := &o.ledger
	for _, line := range lines {
		if o.until != 0 && watermark >= o.until {
			break
		}
		l.RecordsIn++
		var e struct {
			K *string
			V int64
			T *int64
		}
		if json.Unmarshal([]byte(line), &e) != nil || e.K == nil || e.T == nil || *e.T > time.Now().Add(time.Minute).UnixMilli() {
			l.DeadLettered++
			continue
		}
		before := watermark
		watermark = max(watermark, *e.T-workBound)
		start := *e.T / workWindow * workWindow
		switch {
		case e.V == 13 || o.until != 0 && *e.T >= o.until:
			l.Filtered++
		case start+workWindow <= before:
			l.Late++
		default:
			l.Contributed++
			text := func(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
			r := result{Start: text(start), End: text(start + workWindow), K: *e.K, Low: e.V, High: e.V}
			if old, ok := o.rows[r.key()]; ok {
				r = old
			}
			r.N++
			r.Total += e.V
			r.Low, r.High = min(r.Low, e.V), max(r.High, e.V)
			o.rows[r.key()] = r
		}
	}
	l.RowsOut = int64(len(o.rows))
	return watermark
}

// compare returns the first difference between what a sink holds and what is right.
func (o *oracle) compare(rows []result) error {
	seen := map[string]bool{}
	for _, r := range rows {
		if seen[r.key()] {
			return fmt.Errorf("row %s came twice", r.key())
		}
		seen[r.key()] = true
		if want, ok := o.rows[r.key()]; !ok {
			return fmt.Errorf("row %+v is not in the exact answer", r)
		} else if r != want {
			return fmt.Errorf("row %+v should be %+v", r, want)
		}
	}
	if len(rows) != len(o.rows) {
		return errors.New(strconv.Itoa(len(o.rows)-len(rows)) + " rows are missing")
	}
	return nil
}

// The oracle must be able to say no.
func TestOracleSeesEveryDifference(t *testing.T) {
	want := newOracle()
	want.partition(workload(rand.New(rand.NewPCG(1, 1)), 2000), 0)
	var rows []result
	for _, r := range want.rows {
		rows = append(rows, r)
	}
	if err := want.compare(rows); err != nil {
		t.Fatal(err)
	}
	changed := append([]result{}, rows...)
	changed[3].Total++
	strange := append([]result{}, rows...)
	strange[3].K = "unknown"
	for what, rows := range map[string][]result{
		"missing": rows[1:], "twice": append(rows[:len(rows):len(rows)], rows[0]), "changed": changed, "strange": strange,
	} {
		if want.compare(rows) == nil {
			t.Errorf("%s row: not seen", what)
		}
	}
	if l := want.ledger; l.Late == 0 || l.Filtered == 0 || l.DeadLettered == 0 || l.Imbalance() != 0 {
		t.Errorf("the workload does not have everything: %+v", l)
	}
}
