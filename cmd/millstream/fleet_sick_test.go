//go:build unix

package main

import (
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// sickStore stands before an object store that is slow, throttles, answers 409 and 500, does what it
// was asked and says that it failed, or does it and never answers.
type sickStore struct {
	store http.Handler

	mu     sync.Mutex
	random *rand.Rand
	done   map[string]int // what was inflicted, and how often
}

func (s *sickStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	create := r.Method == http.MethodPut && r.Header.Get("If-None-Match") != ""
	s.mu.Lock()
	what, wait := "", time.Duration(s.random.Int64N(int64(300*time.Millisecond)))
	switch x := s.random.Float64(); {
	case strings.Contains(r.URL.RequestURI(), "_check-"): // the start's own tests: they are over before it begins
	case x < 0.02:
		what = "slow"
	case x < 0.03:
		what = "503"
	case x < 0.04:
		what = "500"
	case x < 0.06 && create:
		what = "409"
	case x < 0.08 && create:
		what = "done, 500" // the client's own retry then meets 412
	case x < 0.10 && create:
		what = "done, no answer"
	}
	s.done[what]++
	s.mu.Unlock()
	switch what {
	case "slow":
		<-time.After(wait)
	case "503":
		refuse(w, http.StatusServiceUnavailable, "SlowDown")
		return
	case "500":
		refuse(w, http.StatusInternalServerError, "InternalError")
		return
	case "409":
		refuse(w, http.StatusConflict, "ConditionalRequestConflict")
		return
	case "done, 500":
		s.store.ServeHTTP(httptest.NewRecorder(), r)
		refuse(w, http.StatusInternalServerError, "InternalError")
		return
	case "done, no answer":
		s.store.ServeHTTP(httptest.NewRecorder(), r)
		select {
		case <-r.Context().Done():
		case <-time.After(2 * wait):
		}
		panic(http.ErrAbortHandler)
	}
	s.store.ServeHTTP(w, r)
}

// Three instances whose state and rows are in a store that is ill, one killed, one frozen past its lease
// and one restarted on the way: exact.
func TestFleetOverASickStore(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(43, 12))
	in := filepath.Join(t.TempDir(), "in")
	want := workFolder(t, random, in, 7, 7_000)
	ill := &sickStore{random: rand.New(rand.NewPCG(44, 12)), done: make(map[string]int)}
	backend, place := serveS3Through(t, func(store http.Handler) http.Handler {
		ill.store = store
		return ill
	})
	args := slices.Concat([]string{"run", "--source", "file://" + in + "?rate=1000", "--until-end", "--sink", place("out"), "--name", "fleet",
		"--checkpoint", place("state"), "--checkpoint-every", "200ms", "--lease", "3s"}, workQuery)
	fleet := []*process{start(t, args...), start(t, args...), start(t, args...)}
	rows := func() int { return strings.Count(rowsIn(t, backend), "\n") }
	progress := func(p *process) {
		t.Helper()
		before := rows()
		p.reaches("rows", func() bool { return rows() > before })
	}
	for _, p := range fleet {
		p.reports(`"msg":"claimed"`)
	}
	progress(fleet[0])
	fleet[1].signal(syscall.SIGSTOP)
	fleet[2].kill()
	fleet[2] = start(t, args...)
	progress(fleet[0])
	fleet[1].signal(syscall.SIGCONT)
	fleet[0].signal(syscall.SIGTERM)
	fleet[0].succeeds()
	fleet[0] = start(t, args...)
	for _, p := range fleet {
		if got := p.succeeds().ledger(); got != want.ledger {
			t.Errorf("ledger %+v\nwant   %+v", got, want.ledger)
		}
	}
	if err := want.compare(parse[result](t, rowsIn(t, backend))); err != nil {
		t.Error(err)
	}
	ill.mu.Lock()
	defer ill.mu.Unlock()
	for _, what := range []string{"slow", "503", "500", "409", "done, 500", "done, no answer"} {
		if ill.done[what] == 0 {
			t.Errorf("%q was never inflicted", what)
		}
	}
	t.Logf("inflicted: %v", ill.done)
}
