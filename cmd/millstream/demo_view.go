package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/millstream/millstream/service"
)

// view shows how the worker is doing: redrawn in place on a terminal, a line a second elsewhere.
type view struct {
	out       *os.File
	live      bool
	drawn     int // lines of the last frame
	folder    string
	partition func(string) string // a partition's name for people
	past      []sample            // of the last seconds, for the rate
	owned     bool                // a worker has owned partitions

	mu     sync.Mutex // of the output and of what follows
	killed time.Time  // when the worker was killed whose successor is waited for
}

// sample is how far the worker was at a time.
type sample struct {
	at      time.Time
	records int64
}

// newView draws in place on a terminal that knows its size.
func newView(out *os.File, folder string, partition func(string) string) *view {
	width, _, err := term.GetSize(int(out.Fd()))
	return &view{out: out, live: err == nil && width > 0, folder: folder, partition: partition}
}

// say prints a line that stays.
func (v *view) say(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.clear()
	fmt.Fprintf(v.out, format+"\n", args...)
}

func (v *view) clear() {
	if v.live && v.drawn > 0 {
		fmt.Fprintf(v.out, "\x1b[%dA\x1b[J", v.drawn)
		v.drawn = 0
	}
}

// watch asks the worker for its status until ctx is done.
func (v *view) watch(ctx context.Context, addr func() string) {
	every := time.Second
	if v.live {
		every = 250 * time.Millisecond
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			v.mu.Lock()
			v.clear()
			v.mu.Unlock()
			return
		case <-ticker.C:
			v.frame(fetchStatus(ctx, addr()))
		}
	}
}

// fetchStatus reads the worker's /status; nil while nobody answers.
func fetchStatus(ctx context.Context, addr string) *service.StatusReport {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/status", nil)
	if err != nil {
		return nil
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	var s service.StatusReport
	if json.NewDecoder(resp.Body).Decode(&s) != nil {
		return nil
	}
	return &s
}

func (v *view) frame(s *service.StatusReport) {
	line := "worker: not answering (starting, or killed)"
	switch {
	case s == nil:
		v.past = nil
	case len(s.Partitions) == 0:
		line = "worker: owns nothing yet"
		if v.owned {
			line = "worker: waits until the killed one's lease has run out"
		}
		v.past = nil
	default:
		v.owned = true
		if killed := v.succeed(time.Time{}); !killed.IsZero() {
			v.say("%s  it took over, %.1fs after the kill", time.Now().Format(time.TimeOnly), time.Since(killed).Seconds())
		}
		line = v.progress(s)
	}
	lines := []string{line}
	if v.live {
		lines = append(lines, latestRows(v.folder, 5)...)
		width, _, err := term.GetSize(int(v.out.Fd()))
		for i, line := range lines {
			if r := []rune(line); err == nil && len(r) >= width {
				lines[i] = string(r[:max(width-1, 0)])
			}
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.clear()
	fmt.Fprintln(v.out, strings.Join(lines, "\n"))
	v.drawn = len(lines)
}

// succeed sets when the worker was killed whose successor is waited for, and returns what was set before.
func (v *view) succeed(killed time.Time) time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	before := v.killed
	v.killed = killed
	return before
}

// progress words what a worker that owns partitions has done.
func (v *view) progress(s *service.StatusReport) string {
	now := time.Now()
	line := fmt.Sprintf("%7.0f records/s   %8d read   %d open windows", v.rate(sample{now, s.RecordsIn}), s.RecordsIn, s.OpenWindows)
	if !s.Frontier.IsZero() {
		line += fmt.Sprintf("   results out up to %.1fs ago", now.Sub(s.Frontier).Seconds())
	}
	if s.HeldBy != "" {
		line += ", the next wait for " + v.partition(s.HeldBy)
	}
	return line
}

// rate is the throughput over the last three seconds.
func (v *view) rate(now sample) float64 {
	if n := len(v.past); n > 0 && now.records < v.past[n-1].records {
		v.past = nil // a new worker, which has not restored everything yet
	}
	v.past = append(v.past, now)
	for now.at.Sub(v.past[0].at) > 3*time.Second {
		v.past = v.past[1:]
	}
	first := v.past[0]
	if d := now.at.Sub(first.at).Seconds(); d > 0 && first.records > 0 {
		return float64(now.records-first.records) / d
	}
	return 0
}

// latestRows words the last rows of the newest output file.
func latestRows(folder string, n int) []string {
	names, _ := filepath.Glob(filepath.Join(folder, "*.ndjson"))
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	data, err := os.ReadFile(names[len(names)-1])
	if err != nil {
		return nil
	}
	var rows []string
	for line := range strings.Lines(string(data)) {
		var t total
		if json.Unmarshal([]byte(line), &t) == nil {
			rows = append(rows, fmt.Sprintf("  %s  %-14s %-5s %6d views  %8d ms in all, %d to %d", t.Start, t.Page, t.Tier, t.Views, t.TotalMS, t.Fastest, t.Slowest))
		}
	}
	return rows[max(0, len(rows)-n):]
}
