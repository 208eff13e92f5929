package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/millstream/millstream/stream"
)

// shakyUsers is an HTTP interface of users and countries which now and then refuses, hangs up, answers nonsense,
// or is away for a while; it never tells a lie.
type shakyUsers struct {
	away  atomic.Bool
	calls atomic.Int64
	wrong atomic.Int64
}

func (s *shakyUsers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := s.calls.Add(1)
	if s.away.Load() {
		s.wrong.Add(1)
		http.Error(w, "away", http.StatusServiceUnavailable)
		return
	}
	var keys []string
	if err := json.NewDecoder(r.Body).Decode(&keys); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	switch n % 61 {
	case 3, 4:
		s.wrong.Add(1)
		http.Error(w, "slow down", http.StatusTooManyRequests)
		return
	case 9:
		if len(keys) > 1 { // not the probe: an interface that does not speak JSON is a wrong setting
			s.wrong.Add(1)
			_, _ = w.Write([]byte(`{"country": `)) // cut off
			return
		}
	case 14:
		s.wrong.Add(1)
		panic(http.ErrAbortHandler)
	}
	rows := map[string]any{}
	for _, key := range keys {
		if strings.HasSuffix(r.URL.Path, "countries") {
			rows[key] = map[string]any{"continent": strings.ToLower(key)}
		} else if n, err := strconv.Atoi(strings.TrimPrefix(key, "u")); err == nil && n%10 != 0 {
			rows[key] = map[string]any{"country": country(n)}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(rows) // the client may have been killed
}

func country(user int) string { return string(rune('A' + user%7)) }

// Processes are killed while they wait for lookups of a backend that fails in every way, one lookup building
// on another: the totals by a field of the second are those of a loop.
func TestKilledWhileLookingUp(t *testing.T) {
	t.Parallel()
	backend := &shakyUsers{}
	server := httptest.NewServer(backend)
	server.Config.ErrorLog = nil
	t.Cleanup(server.Close)
	random := rand.New(rand.NewPCG(31, 9))
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	const partitions, records = 3, 8000
	want, ledger := map[string]int64{}, stream.Ledger{RecordsIn: partitions * records}
	for p := range partitions {
		all := make([]string, records)
		for i := range all {
			user, kind := random.IntN(2000), random.IntN(3)
			at := time.Date(2026, 1, 1, 0, 0, i/20, 0, time.UTC)
			all[i] = fmt.Sprintf(`{"user":"u%d","kind":%d,"at":%q}`, user, kind, at.Format(time.RFC3339))
			switch {
			case kind == 0:
				ledger.Filtered++
			case user%10 == 0:
				ledger.DeadLettered++
			default:
				ledger.Contributed++
				want[at.Truncate(10*time.Second).Format(time.RFC3339)+" "+strings.ToLower(country(user))]++
			}
		}
		write(t, filepath.Join(in, fmt.Sprintf("p%d.ndjson", p)), all...)
	}
	ledger.RowsOut = int64(len(want))
	_, kills := killsFor(t)
	k := &killer{T: t, random: random, kills: kills, made: filesIn(t, out), start: func(n int) *process {
		backend.away.Store(n%2 == 1) // the process starts while nobody answers, and waits
		p := start(t, "run", "--source", source(in, n < kills), "--until-end", "--sink", out, "--where", "kind > 0", "--log-format", "json",
			"--enrich", "place="+server.URL+"/countries?on=person.country&probe=A",
			"--enrich", "person="+server.URL+"/users?on=user&missing=dead-letter&batch=50&ttl=300ms&max=500",
			"--key", "place.continent", "--time", "at", "--window", "tumbling:10s", "--aggregate", "count() as n", "--out-of-order", "1s",
			"--checkpoint", filepath.Join(dir, "state"), "--checkpoint-every", "200ms", "--lease", "1s")
		timer := time.AfterFunc(400*time.Millisecond, func() { backend.away.Store(false) })
		t.Cleanup(func() { timer.Stop() })
		return p
	}}
	p := k.run()
	if got := p.ledger(); got != ledger {
		t.Errorf("ledger %+v\nwant   %+v", got, ledger)
	}
	rows := lines[struct {
		Start     string `json:"window_start"`
		Continent string `json:"place_continent"`
		N         int64  `json:"n"`
	}](t, out)
	for _, row := range rows {
		key := row.Start + " " + row.Continent
		if want[key] != row.N {
			t.Errorf("%s: %d instead of %d", key, row.N, want[key])
		}
		delete(want, key)
	}
	if len(want) > 0 {
		t.Errorf("%d rows are missing", len(want))
	}
	if backend.wrong.Load() < 3 {
		t.Errorf("the backend failed %d times only", backend.wrong.Load())
	}
	deadOnce(t, filepath.Join(dir, "state", "main", "dead-letter"), ledger)
}

// While a backend is away `explain` says which partition waits for it, and afterwards nothing any more; a drain
// meanwhile gives the partition back without a row made up.
func TestExplainAwayBackend(t *testing.T) {
	t.Parallel()
	var away atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if away.Load() {
			http.Error(w, "away", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte(`{"tier":"gold"}`))
	}))
	t.Cleanup(server.Close)
	l := launch{dir: t.TempDir()}
	in := write(t, filepath.Join(l.dir, "in.ndjson"), `{"u":"a"}`)
	args := []string{"run", "--source", in, "--sink", "out", "--lease", "2s", "--checkpoint-every", "50ms", "--log-format", "json",
		"--select", "u, user.tier as tier", "--enrich", "user=" + server.URL + "/{key}?on=u"}
	rows := func(n int) func() bool {
		return func() bool { return len(lines[struct{ U, Tier string }](t, filepath.Join(l.dir, "out"))) == n }
	}
	says := func(text string) func() bool {
		return func() bool {
			p := l.start(t, "explain", "--lease", "2s")
			return p.wait() == 0 && strings.Contains(p.stdout.String(), text)
		}
	}
	p := l.start(t, args...)
	p.reaches("the first row", rows(1))
	away.Store(true)
	addTo(t, in, "{\"u\":\"b\"}\n")
	p.reaches("what it waits for", says("cannot go on, and tries again: enrich user: "))
	away.Store(false)
	p.reaches("the second row", rows(2))
	p.reaches("nothing to wait for", func() bool { return !says("enrich user")() })
	away.Store(true)
	addTo(t, in, "{\"u\":\"c\"}\n")
	p.reaches("what it waits for again", says("enrich user: "))
	p.signal(syscall.SIGTERM)
	away.Store(false)
	p.succeeds()
	p = l.start(t, append(args, "--until-end")...).succeeds()
	if !rows(3)() || p.ledger().RowsOut != 3 {
		t.Errorf("%+v", lines[struct{ U, Tier string }](t, filepath.Join(l.dir, "out")))
	}
}
