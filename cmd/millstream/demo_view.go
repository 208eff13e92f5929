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
	"time"

	"golang.org/x/term"

	"github.com/millstream/millstream/service"
)

// view shows how the worker is doing: redrawn in place on a terminal, a line a second elsewhere.
type view struct {
	out    *os.File
	live   bool
	drawn  int // lines of the last frame
	folder string
	past   []sample // of the last seconds, for the rate
}

// sample is how far the worker was at a time.
type sample struct {
	at      time.Time
	records int64
}

func newView(out *os.File, folder string) *view {
	return &view{out: out, live: term.IsTerminal(int(out.Fd())), folder: folder}
}

// say prints a line that stays.
func (v *view) say(format string, args ...any) {
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
			v.clear()
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
	lines := []string{"worker: not answering (starting, or killed)"}
	if s == nil {
		v.past = nil
	} else {
		now, lag, held := time.Now(), "-", s.HeldBy
		if !s.Frontier.IsZero() {
			lag = fmt.Sprintf("%.1fs", now.Sub(s.Frontier).Seconds())
		}
		if held == "" {
			held = "-"
		}
		lines = []string{fmt.Sprintf("%7.0f records/s   %8d read   watermark %s behind, held by %s   %d open windows",
			v.rate(sample{now, s.RecordsIn}), s.RecordsIn, lag, held, s.OpenWindows)}
	}
	if v.live {
		lines = append(lines, latestRows(v.folder, 5)...)
		width, _, err := term.GetSize(int(v.out.Fd()))
		for i, line := range lines {
			if r := []rune(line); err == nil && len(r) >= width {
				lines[i] = string(r[:max(width-1, 0)])
			}
		}
	}
	v.clear()
	fmt.Fprintln(v.out, strings.Join(lines, "\n"))
	v.drawn = len(lines)
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
			rows = append(rows, fmt.Sprintf("  %s  %-14s %6d views  %8d ms in all, %d to %d", t.Start, t.Page, t.Views, t.TotalMS, t.Fastest, t.Slowest))
		}
	}
	return rows[max(0, len(rows)-n):]
}
