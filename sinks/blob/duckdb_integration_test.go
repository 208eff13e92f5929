//go:build integration

package blob

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/stream"
)

// duckScript prints each query's first row, as JSON.
const duckScript = `
const { DuckDBInstance } = require('@duckdb/node-api');
(async () => {
  const c = await (await DuckDBInstance.create(':memory:')).connect();
  for (const q of process.argv.slice(1)) {
    const r = await c.runAndReadAll(q);
    console.log(JSON.stringify(r.getRowsJson()[0]));
  }
})().catch((e) => { console.error(e); process.exit(1); });
`

// duck asks DuckDB, from npm's @duckdb/node-api, which .ci/run installs:
//
//	npm install --prefix DIR @duckdb/node-api@1.5.6-r.1
//	MILLSTREAM_TEST_DUCKDB=DIR go test -tags integration -run DuckDB ./sinks/blob
func duck(t *testing.T, at string, queries ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", append([]string{"-e", duckScript, "--"}, queries...)...)
	cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(at, "node_modules"))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &errs)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// TestIntegrationDuckDB: another program finds in the files what was delivered, with its types, and the
// folders as columns.
func TestIntegrationDuckDB(t *testing.T) {
	peer := server(t, "MILLSTREAM_TEST_DUCKDB")
	if peer == "" {
		return
	}
	const files, each = 3, 5000
	type row struct {
		ID     int64     `json:"id"`
		Big    int64     `json:"big"`
		Amount float64   `json:"amount"`
		At     time.Time `json:"window_start"`
		Region string    `json:"region"`
		User   struct {
			Tier string   `json:"tier"`
			Tags []string `json:"tags"`
		} `json:"user"`
		Note *string `json:"note"`
	}
	parts := make([][]stream.Row, files)
	var ids, tags int64
	bigs := new(big.Int)
	var amount float64
	var latest time.Time
	for f := range parts {
		for i := range each {
			var r row
			r.ID = int64(f*each + i)
			r.Big = 1<<60 + r.ID
			r.Amount = float64(r.ID%1000) / 4
			r.At = time.Date(2026, 3, 1+i%3, i%24, 0, 0, i*1000, time.UTC)
			r.Region = []string{"eu", "us-east", "a b/c", "日本"}[i%4]
			r.User.Tier = fmt.Sprintf("tier %d \"x\", y", i%5)
			r.User.Tags = make([]string, i%3)
			if i%7 == 0 {
				note := fmt.Sprintf("line\nof %d", i)
				r.Note = &note
			}
			data, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			parts[f] = append(parts[f], stream.Row{Data: data})
			bigs.Add(bigs, big.NewInt(r.Big))
			ids, amount, tags = ids+r.ID, amount+r.Amount, tags+int64(len(r.User.Tags))
			if r.At.After(latest) {
				latest = r.At
			}
		}
	}
	notes := files * ((each + 6) / 7)
	var queries, want, which []string
	for _, o := range combinations() {
		if o.Compression == none && o.Format == ndjson {
			o.Path = "dt={window_start:2006-01-02}/place={region}"
		}
		dir := t.TempDir()
		b, err := bucket.Folder(dir)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Open(b, "", o)
		if err != nil {
			t.Fatal(err)
		}
		for f := range parts {
			for range 2 { // the second delivery changes nothing
				if err := s.Write(t.Context(), idOf(uint64(f)), s.Layout(), partsOf(parts[f][:each/2], parts[f][each/2:])); err != nil {
					t.Fatal(err)
				}
			}
		}
		glob := dir + "/**/*." + o.Format + "*"
		from, length, tier, at := "read_parquet('"+glob+"')", "len(\"user\".tags)", "\"user\".tier", "window_start"
		if o.Format != parquetFormat {
			at += "::timestamptz" // Parquet alone says what it is
		}
		switch o.Format {
		case ndjson:
			from = "read_json('" + glob + "', format='newline_delimited')"
		case csvFormat:
			from = "read_csv('" + glob + "', header=true)"
			length, tier = "json_array_length(\"user\", '$.tags')", "json_extract_string(\"user\", '$.tier')"
		}
		which = append(which, o.name())
		queries = append(queries, fmt.Sprintf("select count(*)::varchar, count(distinct id)::varchar, sum(id)::varchar, sum(big::hugeint)::varchar, sum(amount)::varchar, "+
			"epoch_us(max(%s))::varchar, count(note)::varchar, sum(%s)::varchar, count(distinct %s)::varchar, count(distinct region)::varchar from %s", at, length, tier, from))
		wants, err := json.Marshal([]string{
			fmt.Sprint(files * each), fmt.Sprint(files * each), fmt.Sprint(ids), bigs.String(), fmt.Sprintf("%.1f", amount),
			fmt.Sprint(latest.UnixMicro()), fmt.Sprint(notes), fmt.Sprint(tags), "5", "4",
		})
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, string(wants))
		if o.Path != "" {
			which = append(which, "folders")
			queries = append(queries, "select count(distinct dt)::varchar, count(distinct place)::varchar, count(*) filter (place = region)::varchar, count(*) filter (dt::varchar = left(window_start::varchar, 10))::varchar from "+
				"read_json('"+glob+"', format='newline_delimited', hive_partitioning=true)")
			want = append(want, fmt.Sprintf(`["3","4","%d","%d"]`, files*each, files*each))
		}
	}
	for i, got := range duck(t, peer, queries...) {
		if got != want[i] {
			t.Errorf("%s: DuckDB says\n%s, want\n%s", which[i], got, want[i])
		}
	}
}
