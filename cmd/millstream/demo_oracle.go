package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// total is a row of the demo's query: --key page,tier --window tumbling:2s
// --aggregate 'count() as views, sum(ms) as total_ms, min(ms) as fastest, max(ms) as slowest'.
type total struct {
	Start   string `json:"window_start"`
	Page    string `json:"page"`
	Tier    string `json:"tier"`
	Views   int64  `json:"views"`
	TotalMS int64  `json:"total_ms"`
	Fastest int64  `json:"fastest"`
	Slowest int64  `json:"slowest"`
}

func (t total) key() string { return t.Start + " " + t.Page + " " + t.Tier }

// exactAnswer computes the demo's rows from the stream itself, in the plainest way: one partition after
// the other, one record after the other, the rules of lateness as the documentation words them, and
// encoding/json. It shares no code with the engine.
func exactAnswer(source *demoSource, until time.Time) (map[string]total, error) {
	partitions, err := source.records()
	if err != nil {
		return nil, err
	}
	rows := map[string]total{}
	for _, records := range partitions {
		var watermark time.Time
		for _, r := range records {
			var e struct {
				Type string
				Page *string
				User string
				MS   int64
				At   time.Time
			}
			if json.Unmarshal(r.data, &e) != nil || e.Page == nil || e.At.After(r.at.Add(time.Minute)) {
				continue
			}
			before := watermark
			if w := e.At.Add(-demoBound); w.After(watermark) {
				watermark = w
			}
			start := time.UnixMilli(e.At.UnixMilli() / demoWindow.Milliseconds() * demoWindow.Milliseconds()).UTC()
			late := !source.any && !start.Add(demoWindow).After(before)
			if e.At.Before(until) && e.Type == "view" && !late {
				user, err := strconv.Atoi(strings.TrimPrefix(e.User, "u"))
				if err != nil {
					return nil, err
				}
				t := total{Start: start.Format(time.RFC3339), Page: *e.Page, Tier: demoTier(user), Fastest: e.MS, Slowest: e.MS}
				if old, ok := rows[t.key()]; ok {
					t = old
				}
				t.Views++
				t.TotalMS += e.MS
				t.Fastest, t.Slowest = min(t.Fastest, e.MS), max(t.Slowest, e.MS)
				rows[t.key()] = t
			}
			if !source.any && !watermark.Before(until) {
				break
			}
		}
	}
	return rows, nil
}

// compare holds the files of a folder against the exact answer. It returns the number of rows, or
// the first difference.
func compare(folder string, want map[string]total) (int, error) {
	got := map[string]bool{}
	err := eachRow(folder, func(line string) error {
		var t total
		if err := json.Unmarshal([]byte(line), &t); err != nil {
			return fmt.Errorf("row %s: %w", line, err)
		}
		if got[t.key()] {
			return fmt.Errorf("row %s came twice", t.key())
		}
		got[t.key()] = true
		if w, ok := want[t.key()]; !ok {
			return fmt.Errorf("row %s is not in the exact answer", line)
		} else if w != t {
			return fmt.Errorf("row %s should be %+v", line, w)
		}
		return nil
	})
	if err != nil {
		return len(got), err
	}
	for key := range want {
		if !got[key] {
			return len(got), fmt.Errorf("row %s is missing", key)
		}
	}
	return len(got), nil
}

// eachRow calls f for every line of every output file below folder.
func eachRow(folder string, f func(line string) error) error {
	names, err := filepath.Glob(filepath.Join(folder, "*.ndjson"))
	if err != nil {
		return err
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(data)) {
			if err := f(strings.TrimSuffix(line, "\n")); err != nil {
				return err
			}
		}
	}
	return nil
}
