//go:build unix

package main

import (
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// A process that is stopped past its lease, replaced, and woken: while its replacement is at work, and
// when that has finished. It must notice before it writes anything, and end well.
func TestFrozenReplacedAndWoken(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		early bool // woken while the other one is at work
	}{{"after the end", false}, {"in the middle", true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(7, 11))
			dir := t.TempDir()
			in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
			want := workFolder(t, random, in, 3, 6000)
			args := slices.Concat([]string{"run", "--source", "file://" + in + "?rate=2000", "--until-end", "--sink", out, "--name", "frozen",
				"--checkpoint", filepath.Join(dir, "state"), "--checkpoint-every", "200ms", "--lease", "2s"}, workQuery)
			first := start(t, args...)
			first.reaches("rows", func() bool { return len(outputs(t, out)) > 0 })
			first.signal(syscall.SIGSTOP)
			rows := len(outputs(t, out))

			second := start(t, args...)
			second.reaches("a take-over", func() bool { return len(outputs(t, out)) > rows+1 })
			if c.early {
				first.signal(syscall.SIGCONT)
				second.succeeds()
			} else {
				second.succeeds()
				first.signal(syscall.SIGCONT)
			}
			first.succeeds()

			first.says(first.stderr.String(), "lease lost", "joining again")
			if said := second.stderr.String(); strings.Contains(said, "lease lost") {
				t.Errorf("the second process lost its lease too:\n%s", said)
			}
			if err := want.compare(lines[result](t, out)); err != nil {
				t.Error(err)
			}
			for _, p := range []*process{first, second} {
				if got := p.ledger(); got != want.ledger {
					t.Errorf("ledger %+v\nwant   %+v", got, want.ledger)
				}
			}
		})
	}
}
