package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millstream/millstream/enrich"
	"github.com/millstream/millstream/stream"
)

// StatusReport is what /status answers: this instance's view, as of now.
type StatusReport struct {
	Name        string            `json:"name"`
	RecordsIn   int64             `json:"records_in"` // up to now, where this instance sees it; otherwise as saved
	Ledger      stream.Ledger     `json:"ledger"`     // as saved: of the whole pipeline where the merger is, otherwise of what is owned here
	Frontier    time.Time         `json:"frontier,omitzero"`
	HeldBy      string            `json:"held_by,omitempty"` // the partition that holds the frontier back
	HeldSince   time.Time         `json:"held_since,omitzero"`
	OpenWindows int               `json:"open_windows"`
	Partitions  []PartitionStatus `json:"partitions"`
	// Enrich has what the lookups of this instance did, by enrichment.
	Enrich map[string]enrich.Stats `json:"enrich,omitempty"`
}

// PartitionStatus is one partition owned by this instance, or the merger.
type PartitionStatus struct {
	Partition   string    `json:"partition"`
	Claim       uint64    `json:"claim"`
	Position    string    `json:"position,omitempty"`
	Watermark   string    `json:"watermark"` // of the merger: the frontier
	State       string    `json:"state"`     // of the reader
	Idle        bool      `json:"idle,omitempty"`
	Newest      uint64    `json:"newest"` // number of the newest entry
	RecordsIn   int64     `json:"records_in"`
	OpenWindows int       `json:"open_windows"`
	LastArrived time.Time `json:"last_arrived,omitzero"`
	Error       string    `json:"error,omitempty"` // what it is stuck on
	At          time.Time `json:"at,omitzero"`
}

func partitionStatus(a *stream.Assignment) PartitionStatus {
	s := a.Status()
	if s == nil {
		s = &stream.Status{Watermark: a.Start}
	}
	p := PartitionStatus{Partition: a.Partition, Claim: a.Claim, Watermark: s.Watermark.String(), State: s.State.String(), Idle: s.Idle,
		Newest: s.Newest, RecordsIn: s.RecordsIn, OpenWindows: s.OpenWindows, Error: s.Error, At: s.At}
	if s.Position != (stream.Position{}) {
		p.Position = s.Position.String()
	}
	if s.LastArrived != 0 {
		p.LastArrived = s.LastArrived.Time()
	}
	return p
}

// watchedGroup remembers the assignments that its group is serving.
type watchedGroup struct {
	stream.Group
	caches []namedCache

	mu   sync.Mutex
	live map[*stream.Assignment]bool
}

func (g *watchedGroup) Run(ctx context.Context, src stream.Source, serve func(*stream.Assignment) error) error {
	return g.Group.Run(ctx, src, func(a *stream.Assignment) error {
		g.mu.Lock()
		if g.live == nil {
			g.live = make(map[*stream.Assignment]bool)
		}
		g.live[a] = true
		g.mu.Unlock()
		defer func() {
			g.mu.Lock()
			delete(g.live, a)
			g.mu.Unlock()
		}()
		return serve(a)
	})
}

// report gathers the status of everything that is served now.
func (g *watchedGroup) report(ctx context.Context, name string) StatusReport {
	g.mu.Lock()
	var as []*stream.Assignment
	for a := range g.live {
		as = append(as, a)
	}
	g.mu.Unlock()
	slices.SortFunc(as, func(a, b *stream.Assignment) int { return strings.Compare(a.Partition, b.Partition) })
	r := StatusReport{Name: name, Partitions: []PartitionStatus{}}
	for _, c := range g.caches {
		if r.Enrich == nil {
			r.Enrich = make(map[string]enrich.Stats, len(g.caches))
		}
		r.Enrich[c.name] = c.cache.Stats()
	}
	for i, a := range as {
		p := partitionStatus(a)
		r.Partitions = append(r.Partitions, p)
		r.OpenWindows = max(r.OpenWindows, p.OpenWindows)
		if i > 0 {
			continue
		}
		if f := a.Log.Frontier(); f.Finite() {
			r.Frontier = f.Time()
		}
		if e, err := a.Log.Newest(ctx, stream.MergerPartition); err == nil && e != nil && e.Merger != nil {
			r.HeldBy, r.HeldSince = e.Merger.HeldBy, e.Merger.HeldSince
			r.sum(ctx, e, as)
		}
	}
	return r
}

// sum adds up what the partitions of the roster have read. The merger's owner follows all of their
// logs anyway; others ask for nothing but their own.
func (r *StatusReport) sum(ctx context.Context, merger *stream.Entry, as []*stream.Assignment) {
	owned := make(map[string]*stream.Assignment, len(as))
	for _, a := range as {
		owned[a.Partition] = a
	}
	r.Ledger.RowsOut = merger.Ledger.RowsOut
	for i := range merger.Merger.Roster {
		a := owned[merger.Merger.Roster[i].Name]
		if a == nil && owned[stream.MergerPartition] == nil {
			continue
		}
		var saved stream.Ledger
		if e, err := as[0].Log.Newest(ctx, merger.Merger.Roster[i].Name); err == nil && e != nil {
			saved = e.Ledger
		}
		r.Ledger.Add(saved)
		if a != nil {
			if s := a.Status(); s != nil {
				saved.RecordsIn = max(saved.RecordsIn, s.RecordsIn)
			}
		}
		r.RecordsIn += saved.RecordsIn
	}
}

// stuckOn words what keeps partitions from being saved, for the last line of a process that gives up.
func (g *watchedGroup) stuckOn(ctx context.Context) string {
	for _, p := range g.report(ctx, "").Partitions {
		if p.Error != "" {
			return fmt.Sprintf("; partition %s: %s", p.Partition, p.Error)
		}
	}
	return ""
}

// serveHTTP answers /healthz and /status until ctx is done. An address that is taken is an error only
// if the user asked for it: two pipelines on one machine both have the default.
func serveHTTP(ctx context.Context, s *Settings, g *watchedGroup, logger *slog.Logger) error {
	if s.HTTP == "" {
		return nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.HTTP)
	if err != nil {
		if s.set("http") {
			return settingf("--http", "%v: choose another address, or '' for none", err)
		}
		logger.Info("no health and status page: the default address is taken", "address", s.HTTP)
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		_ = enc.Encode(g.report(r.Context(), s.Name)) // the client has gone; there is nobody to tell
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			logger.Error("health and status page", "error", err)
		}
	}()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return nil
}
