//go:build integration && unix

package main

import (
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/millstream/millstream/fakes/eventhubs"
)

// Rows to an event hub over AMQP, from workers that are killed: they may come again, but only under the
// same _id.
func TestIntegrationKilledOnTheWayToAnEventHub(t *testing.T) {
	server, err := eventhubs.Start(t.Context(), eventhubs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	partitions := []string{"0", "1", "2"}
	if err := server.CreateHub("rows", len(partitions)); err != nil {
		t.Fatal(err)
	}
	stored := func() (bodies [][]byte) {
		t.Helper()
		for _, partition := range partitions {
			events, err := server.Events("rows", partition)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				bodies = append(bodies, e.Data)
			}
		}
		return bodies
	}
	random := rand.New(rand.NewPCG(51, 13))
	dir := t.TempDir()
	want := workFolder(t, random, filepath.Join(dir, "in"), 3, 8000)
	const kills = 3
	k := &killer{T: t, random: random, kills: kills, made: func() int { return len(stored()) }, start: func(n int) *process {
		return start(t, slices.Concat([]string{"run", "--source", source(dir+"/in", n < kills), "--until-end", "--name", "killed",
			"--sink", "eventhubs://plant/rows?endpoint=" + server.Endpoint(), "--checkpoint", filepath.Join(dir, "state"), "--checkpoint-every", "200ms", "--lease", "1s"}, workQuery)...)
	}}
	p := k.run()
	if err := want.compare(byID(t, stored())); err != nil {
		t.Error(err)
	}
	if got := p.ledger(); got != want.ledger {
		t.Errorf("ledger %+v\nwant   %+v", got, want.ledger)
	}
}
