package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"

	fake "github.com/millstream/millstream/fakes/kinesis"
	"github.com/millstream/millstream/stream"
)

// killer kills a worker at random moments and starts the next one, until one finishes.
type killer struct {
	*testing.T
	random *rand.Rand
	kills  int
	start  func(incarnation int) *process
	made   func() int // how much has come out so far

	fruitful int // kills that came between the first rows and the last
}

// run returns the worker that finished.
func (k *killer) run() *process {
	k.Helper()
	for n := 0; ; n++ {
		p := k.start(n)
		if n == k.kills || !k.live(p, n) {
			p.succeeds()
			k.Logf("%d kills, %d of them with rows out and more to come", n, k.fruitful)
			if k.fruitful < (k.kills+1)/2 {
				k.Error("too few kills came in the middle of the work")
			}
			return p
		}
		p.kill()
		if k.made() > 0 {
			k.fruitful++
		}
	}
}

// live lets a process live until its moment has come. It reports false when the process ended before.
func (k *killer) live(p *process, n int) bool {
	before := k.made()
	moment := time.Duration(k.random.Int64N(int64(1500 * time.Millisecond)))
	if n%3 > 0 { // some time after rows, or at once, so that work is done between kills
		if !p.tries(func() bool { return k.made() > before }) {
			return false
		}
		moment = moment / 10 * time.Duration(n%3-1)
	}
	timer := time.NewTimer(moment)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.exited:
		return false
	}
}

// source is a folder, read slowly as long as processes are killed that read it.
func source(dir string, slowly bool) string {
	if slowly {
		return "file://" + dir + "?rate=1500"
	}
	return dir
}

func filesIn(t *testing.T, dir string) func() int {
	return func() int { return len(outputs(t, dir)) }
}

func killsFor(t *testing.T) (seeds []uint64, kills int) {
	if testing.Short() {
		return []uint64{1}, 3
	}
	return []uint64{1, 2, 3, 4}, 6
}

func TestKilledAtRandomMoments(t *testing.T) {
	t.Parallel()
	seeds, kills := killsFor(t)
	for _, seed := range seeds {
		t.Run("seed "+strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 9))
			dir := t.TempDir()
			in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
			want := workFolder(t, random, in, 3, 8000)
			k := &killer{T: t, random: random, kills: kills, made: filesIn(t, out), start: func(n int) *process {
				return start(t, slices.Concat([]string{"run", "--source", source(in, n < kills), "--until-end", "--sink", out,
					"--checkpoint", filepath.Join(dir, "state"), "--checkpoint-every", "200ms", "--lease", "1s"}, workQuery)...)
			}}
			p := k.run()
			if err := want.compare(lines[result](t, out)); err != nil {
				t.Error(err)
			}
			if got := p.ledger(); got != want.ledger {
				t.Errorf("ledger %+v\nwant   %+v", got, want.ledger)
			}
			deadOnce(t, filepath.Join(dir, "state", "main", "dead-letter"), want.ledger)
		})
	}
}

// deadOnce expects every unusable and every late record in the dead letter, once.
func deadOnce(t *testing.T, dir string, l stream.Ledger) {
	t.Helper()
	seen := map[string]bool{}
	for _, d := range lines[stream.DeadLetter](t, dir) {
		at := d.Partition + " " + d.Position
		if seen[at] {
			t.Errorf("%s is dead-lettered twice", at)
		}
		seen[at] = true
	}
	if int64(len(seen)) != l.DeadLettered+l.Late {
		t.Errorf("%d dead letters, want %d and %d late ones", len(seen), l.DeadLettered, l.Late)
	}
}

// Without a window every lane writes its own rows: each record once.
func TestKilledWithoutWindow(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(21, 9))
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	const partitions, records = 3, 8000
	for p := range partitions {
		all := make([]string, records)
		for i := range all {
			all[i] = fmt.Sprintf(`{"id":%d}`, p*records+i)
		}
		write(t, filepath.Join(in, fmt.Sprintf("p%d.ndjson", p)), all...)
	}
	_, kills := killsFor(t)
	k := &killer{T: t, random: random, kills: kills, made: filesIn(t, out), start: func(n int) *process {
		return start(t, "run", "--source", source(in, n < kills), "--until-end", "--sink", out, "--where", "id % 7 != 0", "--log-format", "json",
			"--checkpoint", filepath.Join(dir, "state"), "--checkpoint-every", "200ms", "--lease", "1s")
	}}
	p := k.run()
	seen := map[int]bool{}
	for _, row := range lines[struct{ ID int }](t, out) {
		if seen[row.ID] || row.ID%7 == 0 {
			t.Errorf("record %d: twice, or filtered", row.ID)
		}
		seen[row.ID] = true
	}
	want := stream.Ledger{RecordsIn: partitions * records, Filtered: (partitions*records + 6) / 7}
	want.Contributed = want.RecordsIn - want.Filtered
	want.RowsOut = want.Contributed
	if got := p.ledger(); got != want || int64(len(seen)) != want.RowsOut {
		t.Errorf("%d rows, ledger %+v\nwant   %+v", len(seen), got, want)
	}
}

// Whatever the window and the aggregates are, a killed run gives the rows of one that nobody disturbed.
func TestKilledWithOtherWindows(t *testing.T) {
	t.Parallel()
	for i, window := range []string{"session:300ms", "hopping:3s/1s"} {
		t.Run(window, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(23, uint64(i)))
			dir := t.TempDir()
			in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
			workFolder(t, random, in, 2, 6000)
			query := []string{"run", "--until-end", "--key", "k", "--time", "t", "--window", window, "--out-of-order", "500ms", "--require", "v != 14", "--log-format", "json", "--aggregate",
				"count() as n, sum(v), min(v), max(v), first(v), last(v), count_distinct(v), quantile(v, 0.9), top(v, 3)"}
			undisturbed := start(t, slices.Concat(query, []string{"--source", in, "--checkpoint", "mem:", "--sink", "stdout:"})...).succeeds()
			_, kills := killsFor(t)
			k := &killer{T: t, random: random, kills: kills, made: filesIn(t, out), start: func(n int) *process {
				return start(t, slices.Concat(query, []string{"--source", source(in, n < kills), "--sink", out, "--checkpoint", filepath.Join(dir, "state"),
					"--checkpoint-every", "200ms", "--lease", "1s"})...)
			}}
			p := k.run()
			var got strings.Builder
			for _, name := range outputs(t, out) {
				data, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				got.Write(data)
			}
			if sorted(got.String()) != sorted(undisturbed.stdout.String()) {
				t.Errorf("%d rows are not the %d of an undisturbed run", strings.Count(got.String(), "\n"), strings.Count(undisturbed.stdout.String(), "\n"))
			}
			if got, want := p.ledger(), undisturbed.ledger(); got != want || got.Late == 0 {
				t.Errorf("ledger %+v\nwant   %+v", got, want)
			}
		})
	}
}

// State, rows and dead letters in a bucket, whose requests are under way when the process dies; and
// a stream as the second sink, whose rows may come again but only under the same _id.
func TestKilledOverABucket(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(22, 9))
	dir := t.TempDir()
	want := workFolder(t, random, filepath.Join(dir, "in"), 3, 8000)
	backend, place := serveS3(t, true)
	server, second := serveKinesis(t, 2)
	_, kills := killsFor(t)
	rows := func() string { return rowsIn(t, backend) }
	k := &killer{T: t, random: random, kills: kills, made: func() int { return strings.Count(rows(), "\n") }, start: func(n int) *process {
		return start(t, slices.Concat([]string{"run", "--source", source(dir+"/in", n < kills), "--until-end", "--name", "killed",
			"--sink", place("out"), "--sink", second, "--checkpoint", place("state"), "--checkpoint-every", "200ms", "--lease", "1s"}, workQuery)...)
	}}
	p := k.run()
	if err := want.compare(parse[result](t, rows())); err != nil {
		t.Error("bucket:", err)
	}
	if err := want.compare(published(t, server)); err != nil {
		t.Error("stream:", err)
	}
	if got := p.ledger(); got != want.ledger {
		t.Errorf("ledger %+v\nwant   %+v", got, want.ledger)
	}
}

// rowsIn reads what a consumer of out/ in a bucket sees.
func rowsIn(t *testing.T, backend gofakes3.Backend) string {
	t.Helper()
	objects, err := backend.ListBucket("b", &gofakes3.Prefix{Prefix: "out/", HasPrefix: true}, gofakes3.ListBucketPage{})
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, o := range objects.Contents {
		if strings.Contains(o.Key, "/_") {
			continue
		}
		object, err := backend.GetObject("b", o.Key, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(&all, object.Contents); err != nil {
			t.Fatal(err)
		}
		object.Contents.Close()
	}
	return all.String()
}

// The negative control: without its checkpoints a killed run must not come out right, or the test
// above shows nothing.
func TestKilledWithoutItsCheckpoints(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(5, 9))
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	want := workFolder(t, random, in, 3, 4000)
	k := &killer{T: t, random: random, kills: 2, made: filesIn(t, out), start: func(n int) *process {
		return start(t, slices.Concat([]string{"run", "--source", source(in, n < 2), "--until-end", "--sink", out,
			"--checkpoint", filepath.Join(dir, fmt.Sprint("state", n)), "--checkpoint-every", "200ms", "--lease", "1s"}, workQuery)...)
	}}
	k.run()
	err := want.compare(lines[result](t, out))
	if err == nil {
		t.Fatal("exact, though every process began again")
	}
	t.Log(err)
}

const workStream = "work"

// serveKinesis starts a Kinesis of our own with a stream, and returns the source URL.
func serveKinesis(t *testing.T, shards int) (*fake.Server, string) {
	t.Helper()
	server := fake.New(fake.Options{})
	endpoint, err := server.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	if err := server.CreateStream(workStream, shards); err != nil {
		t.Fatal(err)
	}
	return server, "kinesis://" + workStream + "?region=us-east-1&endpoint=" + endpoint
}

func put(t *testing.T, server *fake.Server, random *rand.Rand, lines []string) {
	t.Helper()
	batch := make([]fake.Record, len(lines))
	for i, line := range lines {
		batch[i] = fake.Record{PartitionKey: strconv.FormatUint(random.Uint64(), 36), Data: []byte(line)}
	}
	if err := server.PutBatch(workStream, batch); err != nil {
		t.Fatal(err)
	}
}

// split splits the first open shard, merge merges the last two neighbours that are open.
func split(t *testing.T, server *fake.Server) {
	t.Helper()
	for _, s := range shards(t, server) {
		if !s.Closed {
			if err := server.Split(workStream, s.ID); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
}

func merge(t *testing.T, server *fake.Server) {
	t.Helper()
	all := shards(t, server)
	for _, a := range slices.Backward(all) {
		for _, b := range slices.Backward(all) {
			if !a.Closed && !b.Closed && a.ID != b.ID && server.Merge(workStream, a.ID, b.ID) == nil {
				return
			}
		}
	}
	t.Fatal("no two neighbours to merge")
}

func shards(t *testing.T, server *fake.Server) []fake.Shard {
	t.Helper()
	all, err := server.Shards(workStream)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// shardsOracle takes the stream's records shard by shard; a child begins with the largest of its
// parents' last watermarks.
func shardsOracle(t *testing.T, server *fake.Server, until int64) *oracle {
	t.Helper()
	records, err := server.UserRecords(workStream)
	if err != nil {
		t.Fatal(err)
	}
	byShard := map[string][]string{}
	for _, r := range records {
		byShard[r.ShardID] = append(byShard[r.ShardID], string(r.Data))
	}
	want, last := newOracle(), map[string]int64{}
	want.until = until
	for _, s := range shards(t, server) { // parents come first
		last[s.ID] = want.partition(byShard[s.ID], max(last[s.ParentID], last[s.AdjacentParentID]))
	}
	return want
}

// Killed while the stream is written to, split and merged.
func TestKilledWhileKinesisIsResharded(t *testing.T) {
	t.Parallel()
	seeds, kills := killsFor(t)
	for _, seed := range seeds[:(len(seeds)+1)/2] {
		t.Run("seed "+strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 10))
			server, from := serveKinesis(t, 3)
			dir := t.TempDir()
			out := filepath.Join(dir, "out")
			const records = 12_000
			all := workload(random, records)
			until := int64(workStart + records*10/workWindow*workWindow)
			args := slices.Concat([]string{"run", "--source", from, "--until", time.UnixMilli(until).UTC().Format(time.RFC3339),
				"--sink", out, "--checkpoint", filepath.Join(dir, "state"), "--checkpoint-every", "200ms", "--lease", "1s"}, workQuery)
			// The feeder goes with the kills: a part of the records, and a split or a merge, before each
			// worker is killed.
			k := &killer{T: t, random: random, kills: kills, made: filesIn(t, out)}
			k.start = func(n int) *process {
				p := start(t, args...)
				part := all[n*records/(kills+1) : (n+1)*records/(kills+1)]
				put(t, server, random, part[:len(part)/2])
				if n%2 == 0 {
					split(t, server)
				} else {
					merge(t, server)
				}
				put(t, server, random, part[len(part)/2:])
				if n == kills {
					for _, s := range shards(t, server) { // the end of time, in every shard
						r := fake.Record{PartitionKey: "end", ExplicitHashKey: s.StartingHashKey, Data: fmt.Appendf(nil, `{"k":"end","v":1,"t":%d}`, until+workBound)}
						if err := server.PutBatch(workStream, []fake.Record{r}); err != nil {
							t.Fatal(err)
						}
					}
				}
				return p
			}
			p := k.run()
			want := shardsOracle(t, server, until)
			if err := want.compare(lines[result](t, out)); err != nil {
				t.Error(err)
			}
			if got := p.ledger(); got.Contributed != want.ledger.Contributed || got.Late != want.ledger.Late || got.RowsOut != want.ledger.RowsOut {
				t.Errorf("ledger %+v\nwant   %+v", got, want.ledger)
			}
		})
	}
}

// A stream that was split and merged before, read to its end through a kill.
func TestKilledOnTheWayToKinesisEnd(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(6, 10))
	server, from := serveKinesis(t, 2)
	all := workload(random, 9000)
	put(t, server, random, all[:3000])
	split(t, server)
	put(t, server, random, all[3000:6000])
	merge(t, server)
	put(t, server, random, all[6000:])
	// The reader of a shard takes its time, or there is nothing to kill.
	slow := server.Inject(fake.Fault{Operation: "GetRecords", Times: -1, Delay: 150 * time.Millisecond})
	defer slow.Stop()
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	args := slices.Concat([]string{"run", "--source", from, "--until-end", "--sink", out,
		"--checkpoint", filepath.Join(dir, "state"), "--checkpoint-every", "50ms", "--lease", "1s"}, workQuery)
	for range 2 {
		p := start(t, args...)
		hits := slow.Hits()
		if !p.tries(func() bool { return slow.Hits() > hits+3 }) {
			t.Fatalf("ended early\n%s", p.stderr.String())
		}
		p.kill()
	}
	p := start(t, args...).succeeds()
	want := shardsOracle(t, server, 0)
	if err := want.compare(lines[result](t, out)); err != nil {
		t.Error(err)
	}
	if got := p.ledger(); got != want.ledger {
		t.Errorf("ledger %+v\nwant   %+v", got, want.ledger)
	}
}
