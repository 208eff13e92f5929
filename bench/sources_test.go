package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestMain lets this binary be the server of a source, as the program is.
func TestMain(m *testing.M) {
	if load := os.Getenv(serverVariable); load != "" {
		if err := serveSource(load); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// Every event comes once by every way, out of another process.
func TestSources(t *testing.T) {
	wantSources(t, "kinesis own", "kinesis sdk")
	wantSources(t, "pubsub own", "pubsub sdk")
}

func wantSources(t *testing.T, want ...string) {
	t.Helper()
	name, _, _ := strings.Cut(want[0], " ")
	p := sourcePlan{Sources: []string{name}, Events: 3000, Rounds: 1}
	if err := p.check(); err != nil {
		t.Fatal(err)
	}
	var got []string
	err := benchSources(t.Context(), p, func(r sourceResult) {
		if r.Result != "exact" || r.Drain <= 0 || r.Ratio <= 0 || r.WindowRatio <= 0 || r.Target == 0 {
			t.Errorf("%+v", r)
		}
		got = append(got, r.Source+" "+r.Client)
	})
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, %v", got, err)
	}
}

// An event that is missing, comes twice, or is counted elsewhere is found out.
func TestSourcesNegative(t *testing.T) {
	load := sourceLoad{Source: "kinesis", Events: 100, Partitions: 2}
	generated := load.generate()
	for fault, tamper := range map[string]func(*sourceRun){
		"":        func(*sourceRun) {},
		"missing": func(r *sourceRun) { r.seen[7].Store(0) },
		"twice":   func(r *sourceRun) { r.seen[7].Store(2) },
		"ledger":  func(r *sourceRun) { r.log.WriteString("\n" + `{"msg":"ledger","filtered":99}`) },
	} {
		r := newSourceRun(&sourceBed{}, sourceWay{}, load)
		r.log.WriteString(`{"msg":"ledger","filtered":100}`)
		for _, records := range generated.partitions {
			for _, record := range records {
				n, err := numberOf(record.Data)
				if err != nil {
					t.Fatal(err)
				}
				r.seen[n].Add(1)
			}
		}
		if tamper(r); (r.tally() == nil) != (fault == "") {
			t.Errorf("%q: %v", fault, r.tally())
		}
	}
	views := int64(0)
	for _, n := range generated.exact {
		views += n
	}
	for _, c := range []struct {
		rows        map[ysbKey]int64
		contributed int64
		want        bool
	}{{generated.exact, views, true}, {nil, views, false}, {generated.exact, views - 1, false}} {
		r := newSourceRun(&sourceBed{}, sourceWay{}, load)
		r.rows = c.rows
		fmt.Fprintf(&r.log, `{"msg":"ledger","contributed":%d,"filtered":%d}`, c.contributed, 100-c.contributed)
		if err := r.counted(generated.exact); (err == nil) != c.want {
			t.Error(err)
		}
	}
}

func TestSourcesRefused(t *testing.T) {
	for _, p := range []sourcePlan{{Rounds: 0}, {Rounds: 1, Events: -1}, {Rounds: 1, Events: 1e8}, {Rounds: 1, Sources: []string{"kafka"}}} {
		if p.check() == nil {
			t.Errorf("%+v", p)
		}
	}
}
