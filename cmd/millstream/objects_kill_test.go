package main

import (
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Files that come while processes are killed are each read once, and their rows are once in files that span
// checkpoints, in the folders that they name.
func TestKilledOverFiles(t *testing.T) {
	t.Parallel()
	const files, each = 300, 40
	dir := t.TempDir()
	in, out, state := filepath.Join(dir, "in"), filepath.Join(dir, "out"), filepath.Join(dir, "state")
	for _, sub := range []string{in, filepath.Join(in, "b"), out} {
		if err := os.Mkdir(sub, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		tick := time.NewTicker(15 * time.Millisecond)
		defer tick.Stop()
		for f := range files {
			<-tick.C
			if err := feed(in, f, each); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	made := func() int {
		names, _ := filepath.Glob(filepath.Join(out, "*", "*.csv.gz"))
		return len(names)
	}
	_, kills := killsFor(t)
	k := &killer{T: t, random: rand.New(rand.NewPCG(5, 5)), kills: kills, made: made}
	k.start = func(n int) *process {
		args := []string{"run", "--source", in + "?watch=1s&lanes=3", "--select", "int(id) as id, kind", "--sink", out + "?format=csv&compression=gzip&schema=id:int64,kind:string&path=kind={kind}&roll=500ms",
			"--checkpoint", state, "--checkpoint-every", "100ms", "--lease", "1s", "--log-format", "json"}
		if n == kills {
			<-fed
			args = append(args, "--until-end")
		}
		return start(t, args...)
	}
	ledger := k.run().ledger()
	seen := make(map[string]int)
	names, err := filepath.Glob(filepath.Join(out, "*", "*.csv.gz"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		rows, err := csv.NewReader(z).ReadAll()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, row := range rows[1:] {
			seen[row[0]]++
			if folder := filepath.Base(filepath.Dir(name)); folder != "kind="+row[1] {
				t.Errorf("row %s is in %s", row, folder)
			}
		}
	}
	for i := range files * each {
		if n := seen[fmt.Sprint(i)]; n != 1 {
			t.Fatalf("row %d is there %d times", i, n)
		}
	}
	if len(seen) != files*each || ledger.RecordsIn != files*each+1 || ledger.DeadLettered != 1 || ledger.RowsOut != files*each {
		t.Errorf("%d rows, ledger %+v", len(seen), ledger)
	}
}

// feed puts a file into the folder, whole at once: NDJSON, CSV, a JSON array, compressed or not by turns.
func feed(dir string, f, each int) error {
	kinds := []string{".ndjson", ".csv", ".json.gz"}
	kind := kinds[f%len(kinds)]
	var text strings.Builder
	if kind == ".csv" {
		text.WriteString("id,kind\n")
	}
	for i := range each {
		id := f*each + i
		switch kind {
		case ".ndjson":
			fmt.Fprintf(&text, "{\"id\":%d,\"kind\":\"lines\"}\n", id)
		case ".csv":
			fmt.Fprintf(&text, "%d,rows\n", id)
		default:
			fmt.Fprintf(&text, "%s{\"id\":%d,\"kind\":\"array\"}", map[bool]string{true: "[", false: ","}[i == 0], id)
		}
	}
	data := []byte(text.String())
	if kind == ".json.gz" {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		if _, err := z.Write(append(data, ']')); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		data = packed.Bytes()
	}
	name := fmt.Sprintf("%d%s", (f*7919)%1000, kind) // names come in no order
	if f%2 == 1 {
		name = "b/" + name
	}
	if f == 0 {
		if err := os.WriteFile(filepath.Join(dir, "what.xml"), nil, 0o600); err != nil {
			return err
		}
	}
	hidden := filepath.Join(dir, ".feeding")
	if err := os.WriteFile(hidden, data, 0o600); err != nil {
		return err
	}
	return os.Rename(hidden, filepath.Join(dir, name))
}
