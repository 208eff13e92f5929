//go:build unix

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millstream/millstream/fakes/bigquery"
)

// Every row is in the table once, at every moment for whoever looks, though processes are killed while they
// stage and show rows, and calls fail.
func TestKilledIntoBigQuery(t *testing.T) {
	t.Parallel()
	const files, each = 3, 4500
	server := bigquery.New(bigquery.Options{})
	t.Cleanup(server.Close)
	address, err := server.Start()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.CreateTable(bigquery.Table{Name: "p.d.rows", Columns: []bigquery.Column{{Name: "id", Type: "INT64", Mode: "REQUIRED"}}}); err != nil {
		t.Fatal(err)
	}
	lost := server.Inject(bigquery.Fault{Every: 7, Times: -1, LoseReply: true})
	dir := t.TempDir()
	in, state := filepath.Join(dir, "in"), filepath.Join(dir, "state")
	if err := os.Mkdir(in, 0o700); err != nil {
		t.Fatal(err)
	}
	for f := range files {
		var text strings.Builder
		for i := range each {
			fmt.Fprintf(&text, "{\"id\":%d}\n", f*each+i)
		}
		if err := os.WriteFile(filepath.Join(in, fmt.Sprint(f, ".ndjson")), []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seen := func() map[any]int {
		rows, err := server.Rows("p.d.rows")
		if err != nil {
			t.Error(err)
		}
		out := make(map[any]int, len(rows))
		for _, r := range rows {
			out[r["id"]]++
		}
		return out
	}
	looking, stop := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() {
		again := time.NewTicker(5 * time.Millisecond)
		defer again.Stop()
		for looking.Err() == nil {
			<-again.C
			for id, n := range seen() {
				if n > 1 {
					t.Errorf("a query sees row %v %d times", id, n)
					return
				}
			}
		}
	})
	_, kills := killsFor(t)
	k := &killer{T: t, random: rand.New(rand.NewPCG(3, 17)), kills: kills, made: func() int { return len(seen()) }}
	k.start = func(n int) *process {
		return start(t, "run", "--source", source(in, n < kills), "--sink", "bigquery://p/d/rows?endpoint="+address, "--until-end", "--log-format", "json",
			"--checkpoint", state, "--checkpoint-every", "200ms", "--lease", "1s")
	}
	ledger := k.run().ledger()
	stop()
	wait.Wait()
	if got := len(seen()); got != files*each || ledger.RowsOut != files*each || lost.Hits() == 0 {
		t.Errorf("%d rows of %d, %d lost replies, ledger %+v", got, files*each, lost.Hits(), ledger)
	}
	// What was staged and never saved is not seen.
	streams, err := server.Streams("p.d.rows")
	if err != nil {
		t.Fatal(err)
	}
	var staged, shown int64
	for _, s := range streams {
		staged, shown = staged+s.Rows, shown+s.Flushed
	}
	if shown != files*each {
		t.Errorf("%d rows are shown, of %d staged in %d streams", shown, staged, len(streams))
	}
	t.Logf("%d rows staged, %d shown, in %d streams", staged, shown, len(streams))
}
