package main

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	fake "github.com/millstream/millstream/fakes/kinesis"
)

// leaseTable is a DynamoDB with one table, for Scan alone.
type leaseTable struct {
	mu    sync.Mutex
	items []map[string]any
	scans int
	renew bool // somebody works on it
}

func (l *leaseTable) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	code, answer := l.scan(r)
	body, _ := json.Marshal(answer) // of texts and maps
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	w.Header().Set("X-Amz-Crc32", fmt.Sprint(crc32.ChecksumIEEE(body)))
	w.WriteHeader(code)
	_, _ = w.Write(body)
}

func (l *leaseTable) scan(r *http.Request) (code int, answer map[string]any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	refuse := func(kind, why string) (int, map[string]any) {
		return http.StatusBadRequest, map[string]any{"__type": "com.amazonaws.dynamodb.v20120810#" + kind, "message": why}
	}
	var in struct{ TableName string }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.Header.Get("X-Amz-Target") != "DynamoDB_20120810.Scan" {
		return refuse("ValidationException", "only Scan")
	}
	if in.TableName != "orders" {
		return refuse("ResourceNotFoundException", "Requested resource not found")
	}
	if l.scans++; l.renew {
		l.items[0]["leaseCounter"] = map[string]string{"N": fmt.Sprint(l.scans)}
	}
	return http.StatusOK, map[string]any{"Items": l.items, "Count": len(l.items)}
}

func (l *leaseTable) set(renew bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.renew = renew
}

// add adds a lease as the client library writes it.
func (l *leaseTable) add(shard, checkpoint string, sub int, parents ...string) {
	i := map[string]any{"leaseKey": map[string]string{"S": shard}, "leaseOwner": map[string]string{"S": "worker-7"}, "leaseCounter": map[string]string{"N": "5"},
		"ownerSwitchesSinceCheckpoint": map[string]string{"N": "0"}, "checkpoint": map[string]string{"S": checkpoint}, "checkpointSubSequenceNumber": map[string]string{"N": fmt.Sprint(sub)}}
	if len(parents) > 0 {
		i["parentShardId"] = map[string][]string{"SS": parents}
	}
	l.items = append(l.items, i)
}

func serveLeases(t *testing.T) (*leaseTable, string) {
	t.Helper()
	table := &leaseTable{}
	server := httptest.NewServer(table)
	t.Cleanup(server.Close)
	return table, "kcl://orders?region=us-east-1&endpoint=" + server.URL
}

// A program that was built on the Kinesis Client Library stops in the middle of a stream that has been
// resharded twice; ours goes on, through one more reshard. Every record is read by exactly one of them.
func TestImportKCL(t *testing.T) {
	t.Parallel()
	server, source := serveKinesis(t, 3)
	random := rand.New(rand.NewPCG(1, 1))
	n := 0
	more := func() {
		t.Helper()
		lines := make([]string, 300)
		for i := range lines {
			lines[i] = fmt.Sprintf(`{"n":%d}`, n)
			n++
		}
		put(t, server, random, lines)
	}
	splits := func(id int) {
		t.Helper()
		if err := server.Split(workStream, shardID(id)); err != nil {
			t.Fatal(err)
		}
	}
	more()
	splits(0) // into 3 and 4
	more()
	splits(3) // into 5 and 6
	more()
	at := func(id, skip int) (sequence string, behind []int) {
		t.Helper()
		for _, r := range recordsOf(t, server, shardID(id)) {
			if skip--; skip == 0 {
				sequence = r.SequenceNumber
			} else if skip < 0 {
				behind = append(behind, numberOf(t, r.Data))
			}
		}
		return sequence, behind
	}
	table, from := serveLeases(t)
	one, _ := at(1, 40)
	four, _ := at(4, 25)
	table.add(shardID(1), one, 0)
	table.add(shardID(2), "TRIM_HORIZON", 0)
	table.add(shardID(3), "SHARD_END", 0, shardID(0)) // the lease of 0 has been cleaned up
	table.add(shardID(4), four, 0, shardID(0))
	table.add(shardID(5), "TRIM_HORIZON", 0, shardID(3)) // and that of 6 never made

	l := launch{dir: t.TempDir()}
	args := []string{"checkpoints", "import", "--from", from, "--name", "orders", "--lease", "1s"}
	dry := l.start(t, args...).succeeds()
	dry.says(dry.stdout.String(), "Nothing is written", shardID(1)+"  behind record "+one+", user record 0\n", shardID(2)+"  from its oldest record\n",
		shardID(3)+"  no more: it was read to its end\n")
	if left, err := os.ReadDir(l.dir); err != nil || len(left) > 0 {
		t.Errorf("only saying what would be done left %v, %v", left, err)
	}
	table.set(true)
	l.start(t, append(args, "--apply")...).fails(1, "--from: kcl://orders: the other program (worker-7) still works on it: stop it first")
	table.set(false)
	done := l.start(t, append(args, "--apply")...).succeeds()
	done.says(done.stdout.String(), "Written. `millstream run --name orders`")
	l.start(t, append(args, "--apply")...).fails(2, `--name: pipeline "orders" has state in`, "into a new --name only")

	more()
	splits(1)
	more()
	// start=latest has no say in where an imported pipeline begins.
	ledger := l.start(t, "run", "--name", "orders", "--source", source+"&start=latest", "--sink", "out", "--until-end", "--log-format", "json").succeeds().ledger()
	var want []int
	for id, skip := range map[int]int{1: 40, 2: 0, 4: 25, 5: 0, 6: 0, 7: 0, 8: 0} {
		_, behind := at(id, skip)
		want = append(want, behind...)
	}
	var got []int
	for _, row := range lines[struct{ N int }](t, filepath.Join(l.dir, "out")) {
		got = append(got, row.N)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%d records came, %d were left by the other program", len(got), len(want))
	}
	if ledger.RecordsIn != int64(len(want)) || len(want) < 900 {
		t.Errorf("ledger %+v, want %d records in", ledger, len(want))
	}
	shown := l.start(t, "checkpoints", "show", "_merger", "1", "--name", "orders").succeeds()
	shown.says(shown.stdout.String(), `"kind": "import"`, `"from": "kcl://orders"`)
}

func shardID(n int) string { return fmt.Sprintf("shardId-%012d", n) }

func recordsOf(t *testing.T, server *fake.Server, shard string) []fake.Record {
	t.Helper()
	all, err := server.UserRecords(workStream)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(r fake.Record) bool { return r.ShardID != shard })
}

func numberOf(t *testing.T, data []byte) int {
	t.Helper()
	return parse[struct{ N int }](t, string(data))[0].N
}

// A pipeline is left for one with another query, behind what it has saved.
func TestImportMillstream(t *testing.T) {
	t.Parallel()
	l := launch{dir: t.TempDir()}
	var first, second []string
	for i := range 500 {
		first = append(first, fmt.Sprintf(`{"n":%d}`, i))
		second = append(second, fmt.Sprintf(`{"n":%d}`, 500+i))
	}
	in := write(t, filepath.Join(l.dir, "in.ndjson"), first...)
	old := l.start(t, "run", "--source", in, "--sink", "old", "--name", "old", "--lease", "1s", "--checkpoint-every", "50ms", "--log-format", "json")
	old.reaches("all rows", func() bool { return len(lines[struct{ N int }](t, filepath.Join(l.dir, "old"))) == 500 })
	args := []string{"checkpoints", "import", "--from", "millstream:old", "--name", "new", "--lease", "1s"}
	l.start(t, append(args, "--apply")...).fails(1, `pipeline "old": member `, "is running this pipeline: stop it first, then import")
	old.signal(os.Interrupt)
	old.succeeds()
	l.start(t, append(args, "--apply")...).succeeds()
	addTo(t, in, strings.Join(second, "\n")+"\n")
	l.start(t, "run", "--source", in, "--sink", "new", "--name", "new", "--select", "n * 2 as n", "--until-end", "--log-format", "json").succeeds()
	rows := lines[struct{ N int }](t, filepath.Join(l.dir, "new"))
	if len(rows) != 500 || rows[0].N != 1000 || rows[499].N != 1998 {
		t.Errorf("%d rows, from %v", len(rows), rows[:min(3, len(rows))])
	}
}

func TestImportRefused(t *testing.T) {
	t.Parallel()
	_, from := serveLeases(t)
	for _, c := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"nothing", nil, 2, []string{"--from: name the other program's store: kcl://"}},
		{"a word", []string{"--from", "orders"}, 2, []string{"--from: name the other program's store"}},
		{"another store", []string{"--from", "redis://x"}, 2, []string{"--from: redis://x: unknown kind redis: it is kcl, azblob or millstream"}},
		{"no table", []string{"--from", "kcl://"}, 2, []string{"names nothing"}},
		{"another parameter", []string{"--from", from + "&shard=1"}, 2, []string{"has no parameter shard: it has region, endpoint"}},
		{"itself", []string{"--from", "millstream:main", "--name", "main"}, 2, []string{"give the new one another name"}},
		{"an empty table", []string{"--from", from}, 1, []string{"--from: table orders: it has no leases"}},
		{"no such table", []string{"--from", strings.Replace(from, "orders", "other", 1)}, 1, []string{"table other does not exist in us-east-1"}},
		{"no container", []string{"--from", "azblob://c"}, 2, []string{"--from: azblob://c: the storage account is missing"}},
		{"no such pipeline", []string{"--from", "millstream:other", "--checkpoint", "."}, 1, []string{`pipeline "other" has no saved positions`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			start(t, append([]string{"checkpoints", "import"}, c.args...)...).fails(c.code, c.want...)
		})
	}
}
