//go:build unix

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millstream/millstream/stream"
)

// What no query can use goes to the dead letter with its reason, its position and its bytes, and what
// is around it is counted.
func TestUnusableRecords(t *testing.T) {
	t.Parallel()
	const (
		time = `"t":1767225600000`
		huge = 11 << 20 // beyond the limit of 10 MiB
	)
	deep := strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)
	long := func(n int) string { return strings.Repeat("x", n) }
	records := []struct{ line, reason string }{
		{`{"k":"first","v":1,` + time + `}`, ""},
		{`not JSON`, stream.ReasonUndecodable},
		{`{"k":"a","v":1,` + time, stream.ReasonUndecodable},
		{`{"k":"a","v":1,` + time + `} more`, stream.ReasonUndecodable},
		{`[1,2]`, stream.ReasonUndecodable},
		{`null`, stream.ReasonUndecodable},
		{`   `, stream.ReasonUndecodable},
		{"\x00\x01", stream.ReasonUndecodable},
		{"{\"k\":\"\xff\xfe\",\"v\":1," + time + "}", stream.ReasonUndecodable},
		{"{\"k\":\"a\",\"note\":\"\xc3\",\"v\":1," + time + "}", stream.ReasonUndecodable},
		{`{"k":"a","note":` + deep + `,` + time + `}`, stream.ReasonUndecodable},
		{`{"k":` + strings.Repeat(`{"k":`, 100_000) + `1` + strings.Repeat(`}`, 100_000) + `,` + time + `}`, stream.ReasonUndecodable},
		{deep, stream.ReasonUndecodable},
		{`{"v":1,` + time + `}`, stream.ReasonNoKey},
		{`{"k":null,"v":1,` + time + `}`, stream.ReasonNoKey},
		{`{"k":{"a":1},"v":1,` + time + `}`, stream.ReasonNoKey},
		{`{"k":"a","v":1}`, stream.ReasonNoTime},
		{`{"k":"a","v":1,"t":"yesterday"}`, stream.ReasonNoTime},
		{`{"k":"a","v":1,"t":1e30}`, stream.ReasonNoTime},
		{`{"k":"a","v":1,"t":-99999999999999999999}`, stream.ReasonNoTime},
		{`{"k":"a","v":1,"t":"0000-01-01T00:00:00Z"}`, stream.ReasonNoTime},
		{`{"k":"a","v":1,"t":"2250-01-01T00:00:00Z"}`, stream.ReasonFuture},
		{`{"k":"a","v":1,"t":"10000-01-01T00:00:00Z"}`, stream.ReasonNoTime},
		{`{"k":"a","v":-5,` + time + `}`, "--require: v > 0"},
		{`{"k":"a","v":"much",` + time + `}`, "--require failed: v > 0"},
		{`{"k":"large","v":2,` + time + `,"note":"` + long(9<<20) + `"}`, ""},
		{`{"v":2,` + time + `,"note":"` + long(9<<20) + `"}`, stream.ReasonNoKey},
		{`{"k":"huge","v":2,` + time + `,"note":"` + long(huge) + `"}`, stream.ReasonOversize},
		{`{"k":"huge","v":2,` + time + `,"note":"` + long(40<<20) + `"}`, stream.ReasonOversize},
		{`{"k":"last","v":3,` + time + `}`, ""},
	}
	dir := t.TempDir()
	in, err := os.Create(filepath.Join(dir, "in.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(in)
	type unusable struct {
		reason, position string
		line             string
	}
	var want []unusable
	at, good := 0, 0
	for _, r := range records {
		fmt.Fprintln(w, r.line)
		at += len(r.line) + 1
		if r.reason == "" {
			good++
		} else {
			want = append(want, unusable{r.reason, fmt.Sprint(at), r.line})
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	p := launch{dir: dir, memory: true}.start(t, "run", "--source", "in.ndjson", "--until-end", "--key", "k", "--time", "t", "--require", "v > 0",
		"--window", "tumbling:1m", "--aggregate", "count() as n, sum(v) as total", "--sink", "out", "--dead-letter", "dead", "--log-format", "json").succeeds()

	rows := map[string]result{}
	for _, r := range lines[result](t, filepath.Join(dir, "out")) {
		rows[r.K] = r
	}
	if len(rows) != good || rows["first"].Total != 1 || rows["large"].Total != 2 || rows["last"].Total != 3 {
		t.Errorf("rows %+v", rows)
	}
	if l := p.ledger(); l.RecordsIn != int64(len(records)) || l.Contributed != int64(good) || l.DeadLettered != int64(len(want)) {
		t.Errorf("ledger %+v, want %d in, %d contributed, %d dead-lettered", l, len(records), good, len(want))
	}
	dead := map[string]stream.DeadLetter{}
	for _, d := range lines[stream.DeadLetter](t, filepath.Join(dir, "dead")) {
		if _, twice := dead[d.Position]; twice {
			t.Errorf("position %s is dead-lettered twice", d.Position)
		}
		dead[d.Position] = d
	}
	if len(dead) != len(want) {
		t.Errorf("%d dead letters, want %d", len(dead), len(want))
	}
	for _, u := range want {
		d, ok := dead[u.position]
		brief := fmt.Sprintf("%.60q at %s", u.line, u.position)
		switch {
		case !ok:
			t.Errorf("%s: no dead letter", brief)
			continue
		case d.Reason != u.reason:
			t.Errorf("%s: reason %q (%s), want %q", brief, d.Reason, d.Error, u.reason)
		case d.Partition != "in.ndjson" || !strings.HasSuffix(d.Source, "/in.ndjson") || d.Error == "" && d.EventTime == "":
			t.Errorf("%s: %+v", brief, d)
		}
		if whole := len(u.line) <= 10<<20; whole && (string(d.Raw) != u.line || d.Length != 0) {
			t.Errorf("%s: %d bytes are kept, length %d", brief, len(d.Raw), d.Length)
		} else if !whole && (string(d.Raw) != u.line[:64<<10] || d.Length != int64(len(u.line))) {
			t.Errorf("%s: %d bytes are kept, length %d; want 64 KiB of %d", brief, len(d.Raw), d.Length, len(u.line))
		}
	}
	bounded(t, p, 400)
}

// A record of any length, and any number of large ones, take a bounded amount of memory.
func TestLargeRecordsTakeBoundedMemory(t *testing.T) {
	t.Parallel()
	chunk := bytes.Repeat([]byte("x"), 1<<20)
	feed := func(records, chunks int) *process {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		p := launch{stdin: r, memory: true}.start(t, "run", "--source", "-", "--until-end", "--key", "k", "--select", "k", "--time", "t", "--sink", "out",
			"--log-format", "json")
		r.Close()
		go func() {
			defer w.Close()
			for range records {
				fmt.Fprint(w, `{"note":"`)
				for range chunks {
					if _, err := w.Write(chunk); err != nil {
						return // it has gone, and its exit code says why
					}
				}
				fmt.Fprint(w, "\"}\n")
			}
		}()
		return p
	}
	n := 20
	if testing.Short() {
		n = 5
	}
	endless, many := feed(1, 1024), feed(n, 9)
	if l := endless.succeeds().ledger(); l.RecordsIn != 1 || l.DeadLettered != 1 {
		t.Errorf("ledger %+v", l)
	}
	bounded(t, endless, 150)
	if l := many.succeeds().ledger(); l.RecordsIn != int64(n) || l.DeadLettered != int64(n) {
		t.Errorf("ledger %+v", l)
	}
	bounded(t, many, 400)
}
