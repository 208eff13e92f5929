// Package flights holds an example of commands; see README.md.
package flights

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// row is a result of the README's command.
type row struct {
	Start   string  `json:"window_start"`
	Origin  string  `json:"origin"`
	Flights int     `json:"flights"`
	Mean    float64 `json:"mean"`
	P90     float64 `json:"p90"`
	Worst   float64 `json:"worst"`
}

func TestSameRowsBothWays(t *testing.T) {
	dir := t.TempDir()
	for name, pkg := range map[string]string{"millstream": "../../cmd/millstream", "replay": "./replay"} {
		if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, name), pkg).CombinedOutput(); err != nil {
			t.Fatalf("go build %s: %v\n%s", pkg, err, out)
		}
	}
	fromFile := total(t, dir, "flights.ndjson")
	compare(t, fromFile)

	replay := exec.Command(filepath.Join(dir, "replay"), "flights.ndjson")
	out, err := replay.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := replay.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = replay.Process.Kill(); _ = replay.Wait() }()
	source := ""
	for lines := bufio.NewScanner(out); source == "" && lines.Scan(); {
		if _, after, ok := strings.Cut(lines.Text(), "--source '"); ok {
			source = strings.TrimSuffix(after, "'")
		}
	}
	if source == "" {
		t.Fatal("replay printed no source")
	}
	if fromKinesis := total(t, dir, source); !slices.Equal(fromFile, fromKinesis) {
		t.Errorf("from the file %d rows, from Kinesis %d, and they differ", len(fromFile), len(fromKinesis))
	}
}

// total runs the README's command and returns its rows in their order.
func total(t *testing.T, dir, source string) []string {
	t.Helper()
	cmd := exec.Command(filepath.Join(dir, "millstream"), "run", "--source", source, "--until-end",
		"--key", "origin", "--time", "date", "--time-layout", "2006/01/02 15:04", "--window", "tumbling:24h",
		"--aggregate", "count() as flights, avg(delay) as mean, quantile(delay, 0.9) as p90, max(delay) as worst",
		"--sink", "stdout:", "--checkpoint", "mem:", "--dead-letter", filepath.Join(dir, "dead"), "--http=")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// compare holds the rows against totals computed apart: counts, means and worst delays exactly, the
// percentile within the sketch's 1 %.
func compare(t *testing.T, lines []string) {
	t.Helper()
	delays := make(map[string][]float64)
	data, err := os.ReadFile("flights.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var f struct {
			Date, Origin string
			Delay        float64
		}
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatal(err)
		}
		day, _, _ := strings.Cut(f.Date, " ")
		key := strings.ReplaceAll(day, "/", "-") + "T00:00:00Z " + f.Origin
		delays[key] = append(delays[key], f.Delay)
	}
	if len(lines) != len(delays) {
		t.Errorf("%d rows, want %d", len(lines), len(delays))
	}
	for _, line := range lines {
		var r row
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if err := r.check(delays[r.Start+" "+r.Origin]); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func (r row) check(delays []float64) error {
	if len(delays) != r.Flights {
		return fmt.Errorf("%d flights, want %d", r.Flights, len(delays))
	}
	slices.Sort(delays)
	sum := 0.0
	for _, d := range delays {
		sum += d
	}
	if mean := sum / float64(len(delays)); math.Abs(r.Mean-mean) > 1e-9 {
		return fmt.Errorf("mean %v, want %v", r.Mean, mean)
	}
	if worst := delays[len(delays)-1]; r.Worst != worst {
		return fmt.Errorf("worst %v, want %v", r.Worst, worst)
	}
	p90 := delays[int(math.Ceil(0.9*float64(len(delays))))-1]
	if math.Abs(r.P90-p90) > 0.01*math.Abs(p90)+1e-9 {
		return fmt.Errorf("90th percentile %v, want %v within 1 %%", r.P90, p90)
	}
	return nil
}

// The README's second command: flights per state and day, the state looked up by the origin. Compared with a
// table that is made apart.
func TestFlightsPerState(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "millstream")
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/millstream").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	cmd := exec.Command(binary, "run", "--source", "flights.ndjson", "--until-end",
		"--enrich", "airport=airports.csv?key=code&on=origin&missing=dead-letter",
		"--key", "airport.state", "--time", "date", "--time-layout", "2006/01/02 15:04", "--window", "tumbling:24h",
		"--aggregate", "count() as flights, count_distinct(airport.city) as cities",
		"--sink", "stdout:", "--checkpoint", "mem:", "--dead-letter", filepath.Join(dir, "dead"), "--http=")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	got := map[stateDay]counts{}
	for line := range strings.Lines(string(out)) {
		var r struct {
			Start   string `json:"window_start"`
			State   string `json:"airport_state"`
			Flights int    `json:"flights"`
			Cities  int    `json:"cities"`
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		got[stateDay{r.State, r.Start[:10]}] = counts{r.Flights, r.Cities}
	}
	if want := perState(t); !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

type (
	stateDay struct{ state, day string }
	counts   struct{ flights, cities int }
)

// perState counts flights and cities per state and day by hand.
func perState(t *testing.T) map[stateDay]counts {
	t.Helper()
	table, err := os.ReadFile("airports.csv")
	if err != nil {
		t.Fatal(err)
	}
	airports := map[string][]string{}
	for line := range strings.Lines(string(table)) {
		fields := strings.Split(strings.TrimSpace(line), ",")
		airports[fields[0]] = fields[1:]
	}
	data, err := os.ReadFile("flights.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	out := map[stateDay]counts{}
	cities := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		var f struct{ Date, Origin string }
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatal(err)
		}
		airport := airports[f.Origin]
		key := stateDay{airport[0], strings.ReplaceAll(f.Date[:10], "/", "-")}
		sum := out[key]
		sum.flights++
		if city := key.state + key.day + airport[1]; !cities[city] {
			cities[city] = true
			sum.cities++
		}
		out[key] = sum
	}
	return out
}
