package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
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
	out    io.Writer
	live   bool
	drawn  int // lines of the last frame
	folder string
	last   service.StatusReport
	at     time.Time
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
	now := time.Now()
	lines := []string{"worker: not answering (starting, or killed)"}
	if s != nil {
		rate := 0.0
		if d := now.Sub(v.at).Seconds(); d > 0 && s.RecordsIn >= v.last.RecordsIn && v.last.RecordsIn > 0 {
			rate = float64(s.RecordsIn-v.last.RecordsIn) / d
		}
		v.last, v.at = *s, now
		lag, held := "-", s.HeldBy
		if !s.Frontier.IsZero() {
			lag = fmt.Sprintf("%.1fs", now.Sub(s.Frontier).Seconds())
		}
		if held == "" {
			held = "-"
		}
		lines = []string{fmt.Sprintf("%8.0f records/s   %d read   watermark %s behind, held by %s   %d open windows",
			rate, s.RecordsIn, lag, held, s.OpenWindows)}
	}
	if v.live {
		for _, row := range latestRows(v.folder, 5) {
			lines = append(lines, "  "+row)
		}
	}
	v.clear()
	fmt.Fprintln(v.out, strings.Join(lines, "\n"))
	v.drawn = len(lines)
}

// latestRows returns the last rows of the newest output file.
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
	rows := strings.Split(strings.TrimSpace(string(data)), "\n")
	rows = rows[max(0, len(rows)-n):]
	for i, r := range rows {
		if len(r) > 150 {
			rows[i] = r[:149] + "…"
		}
	}
	return rows
}
