//go:build unix

package main

import (
	"math/rand/v2"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// Three instances share seven files. Each is replaced in turn while records come, one of them frozen past
// its lease and one killed in between: nothing is counted twice, nothing is lost, and everybody who
// stays to the end says the same.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(41, 11))
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	want := workFolder(t, random, in, 7, 12_000)
	args := slices.Concat([]string{"run", "--source", "file://" + in + "?rate=1000", "--until-end", "--sink", out, "--name", "fleet",
		"--checkpoint", filepath.Join(dir, "state"), "--checkpoint-every", "200ms", "--lease", "2s"}, workQuery)
	fleet := []*process{start(t, args...), start(t, args...), start(t, args...)}
	progress := func(p *process) {
		t.Helper()
		rows := len(outputs(t, out))
		p.reaches("rows", func() bool { return len(outputs(t, out)) > rows })
	}
	for i, old := range fleet {
		old.reports(`"msg":"claimed"`)
		progress(old)
		old.signal(syscall.SIGTERM)
		old.succeeds()
		fleet[i] = start(t, args...)
		progress(fleet[i])
	}
	frozen := fleet[0]
	frozen.reports(`"msg":"claimed"`)
	frozen.signal(syscall.SIGSTOP)
	fleet[1].reports(`"msg":"claimed"`)
	fleet[1].kill()
	fleet[1] = start(t, args...)
	progress(fleet[2]) // which takes the dead owners' claims over, or windows would stay open
	frozen.signal(syscall.SIGCONT)
	for _, p := range fleet {
		if got := p.succeeds().ledger(); got != want.ledger {
			t.Errorf("ledger %+v\nwant   %+v", got, want.ledger)
		}
	}
	if err := want.compare(lines[result](t, out)); err != nil {
		t.Error(err)
	}
}
