package file

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/enrich"
	"github.com/millstream/millstream/enrich/enrichtest"
)

// open makes a table of a file in memory.
func open(t *testing.T, name string, data string, o Options) (*Table, bucket.Bucket, error) {
	t.Helper()
	b := bucket.Memory()
	if err := b.Put(t.Context(), name, []byte(data)); err != nil {
		t.Fatal(err)
	}
	o.Bucket, o.Path = b, name
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	table, err := New(t.Context(), o)
	if err == nil {
		t.Cleanup(func() { _ = table.Close() })
	}
	return table, b, err
}

// rows looks keys up, and has each row's versions in a line.
func rows(t *testing.T, table *Table, keys ...string) map[string]string {
	t.Helper()
	found, err := table.Lookup(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for key, versions := range found {
		var text []string
		for _, v := range versions {
			s := string(v.JSON)
			if !v.From.IsZero() || !v.To.IsZero() {
				s += " " + day(v.From) + "–" + day(v.To)
			}
			text = append(text, s)
		}
		out[key] = strings.Join(text, "; ")
	}
	return out
}

func day(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.Format(time.DateOnly)
}

func packed(t *testing.T, suffix, data string) string {
	t.Helper()
	var out bytes.Buffer
	switch suffix {
	case ".gz":
		z := gzip.NewWriter(&out)
		if _, err := z.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	case ".zst":
		z, err := zstd.NewWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := z.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	default:
		return data
	}
	return out.String()
}

type airport struct {
	Code  string    `parquet:"code"`
	N     int64     `parquet:"n"`
	Since time.Time `parquet:"since,timestamp(microsecond)"`
	Day   int32     `parquet:"day,date"`
	Place struct {
		City string `parquet:"city"`
	} `parquet:"place"`
	Name *string `parquet:"name,optional"`
}

func parquetFile(t *testing.T) string {
	t.Helper()
	name := "Zürich"
	a := airport{Code: "ZRH", N: 1 << 60, Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Day: 20_000, Name: &name}
	a.Place.City = "Kloten"
	var out bytes.Buffer
	w := parquet.NewGenericWriter[airport](&out)
	if _, err := w.Write([]airport{a, {Code: "7"}}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestFormats(t *testing.T) {
	for name, c := range map[string]struct {
		data string
		o    Options
		want map[string]string
	}{
		"a.csv":     {"\xEF\xBB\xBFid,name,x\n1,\"one, \"\"1\"\"\",\n2,ä,3\n", Options{}, map[string]string{"1": `{"id":"1","name":"one, \"1\"","x":null}`, "2": `{"id":"2","name":"ä","x":"3"}`}},
		"b.ndjson":  {`{"id":7,"n":9007199254740993}` + "\n\n" + `{"id":"x", "a" : {"b":1,"c":2}}`, Options{Select: []string{"n", "a.b"}}, map[string]string{"7": `{"n":9007199254740993}`, "x": `{"a":{"b":1}}`}},
		"c.json":    {`[{"k":true,"v":1},{"k":1.50,"v":2}]`, Options{Key: "k"}, map[string]string{"true": `{"k":true,"v":1}`, "1.5": `{"k":1.50,"v":2}`}},
		"d.json":    {`{"a":{"v":1},"b":{"v":null}}`, Options{}, map[string]string{"a": `{"v":1}`, "b": `{"v":null}`}},
		"e.txt":     {"id\n1\n", Options{Format: "csv"}, map[string]string{"1": `{"id":"1"}`}},
		"f.parquet": {parquetFile(t), Options{Key: "code"}, map[string]string{"ZRH": `{"code":"ZRH","day":"2024-10-04","n":1152921504606846976,"name":"Zürich","place":{"city":"Kloten"},"since":"2026-01-02T03:04:05Z"}`}},
		"g.csv": {"id,v,from,to\na,2,2026-02-01,\na,1,2026-01-01,2026-02-01\nb,9,,\n", Options{ValidFrom: "from", ValidTo: "to", Select: []string{"v"}},
			map[string]string{"a": `{"v":"1"} 2026-01-01–2026-02-01; {"v":"2"} 2026-02-01–`, "b": `{"v":"9"}`}},
		"h.json": {`[{"id":"a","from":"2026-01-01T00:00:00Z"},{"id":"b","from":null}]`, Options{ValidFrom: "from"},
			map[string]string{"a": `{"id":"a","from":"2026-01-01T00:00:00Z"} 2026-01-01–`, "b": `{"id":"b","from":null}`}},
		"empty.ndjson": {"", Options{}, map[string]string{}},
	} {
		for _, suffix := range []string{"", ".gz", ".zst"} {
			table, _, err := open(t, name+suffix, packed(t, suffix, c.data), c.o)
			if suffix != "" && c.o.Format != "" && err == nil {
				continue
			}
			if err != nil {
				t.Errorf("%s%s: %v", name, suffix, err)
				continue
			}
			keys := []string{"nobody"}
			for key := range c.want {
				keys = append(keys, key)
			}
			if got := rows(t, table, keys...); !maps.Equal(got, c.want) {
				t.Errorf("%s%s: got %v, want %v", name, suffix, got, c.want)
			}
		}
	}
}

// What a table cannot be is an error that says where, at once.
func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		data string
		o    Options
		want string
	}{
		"twice.csv":      {"id,v\na,1\nb,1\na,2\n", Options{}, `row 4: the key "a" stands in row 2 already`},
		"nokey.csv":      {"name,v\na,1\n", Options{}, `there is no column "id": the columns are name, v`},
		"ragged.csv":     {"id,v\na\n", Options{}, "wrong number of fields"},
		"nokey.ndjson":   {`{"v":1}`, Options{}, `row 1: there is no key "id"`},
		"broken.ndjson":  {`{"id":1}` + "\n{", Options{}, "row 2: malformed row"},
		"list.ndjson":    {"[1]", Options{}, "row 1: malformed row"},
		"broken.json":    {`[{"id":1}`, Options{}, "EOF"},
		"number.json":    {`7`, Options{}, "want an array of objects"},
		"more.json":      {`[] []`, Options{}, "something follows"},
		"key.json":       {`[{"id":{"a":1}}]`, Options{}, "id: want a string or a number"},
		"overlap.csv":    {"id,from,to\na,2026-01-01,2026-03-01\na,2026-02-01,\n", Options{ValidFrom: "from", ValidTo: "to"}, `two rows of the key "a" are valid at once, from 2026-02-01`},
		"backward.csv":   {"id,from,to\na,2026-03-01,2026-01-01\n", Options{ValidFrom: "from", ValidTo: "to"}, "which is no time at all"},
		"when.csv":       {"id,from\na,soon\n", Options{ValidFrom: "from"}, "row 2: from: want a time"},
		"what.xml":       {"", Options{}, `the format "xml" is not known`},
		"broken.parquet": {"PAR1 no", Options{}, "broken.parquet"},
		"large.csv":      {"id\n" + strings.Repeat("x", 100) + "\n", Options{MaxBytes: 50}, "larger than allowed"},
		"huge.ndjson":    {`{"id":"` + strings.Repeat("x", enrich.MaxRow) + `"}`, Options{}, "line 1"},
		"bomb.csv.gz":    {packed(t, ".gz", "id\n"+strings.Repeat("0", 1<<20)), Options{MaxBytes: 1 << 16}, "larger than allowed"},
		"torn.csv.gz":    {packed(t, ".gz", "id\n1\n2\n")[:20], Options{}, "EOF"},
	} {
		if _, _, err := open(t, name, c.data, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := New(t.Context(), Options{Path: filepath.Join(t.TempDir(), "no.csv")}); err == nil {
		t.Error("a file that is not there was opened")
	}
}

// A changed file takes the old one's place; a broken one does not, and is told of once.
func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		table, b, err := open(t, "a.csv", "id,v\na,1\n", Options{Reload: time.Minute, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		put := func(data string) {
			if err := b.Put(t.Context(), "a.csv", []byte(data)); err != nil {
				t.Fatal(err)
			}
			<-time.After(61 * time.Second)
		}
		put("id,v\na,2\nb,1\n")
		if got := rows(t, table, "a", "b"); got["a"] != `{"id":"a","v":"2"}` || got["b"] == "" || table.Len() != 2 {
			t.Errorf("after a change: %v", got)
		}
		put("id,v\na,3\na,4\n")
		<-time.After(5 * time.Minute)
		if got := rows(t, table, "a"); got["a"] != `{"id":"a","v":"2"}` || table.Err() == nil || strings.Count(log.String(), "stays in use") != 1 {
			t.Errorf("after a broken change: %v, %v\n%s", got, table.Err(), &log)
		}
		put("id,v\na,5\n")
		if got := rows(t, table, "a"); got["a"] != `{"id":"a","v":"5"}` || table.Err() != nil {
			t.Errorf("after it was mended: %v, %v", got, table.Err())
		}
		if err := b.Delete(t.Context(), "a.csv"); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * time.Minute)
		if got := rows(t, table, "a"); got["a"] == "" || table.Err() == nil {
			t.Errorf("after it was removed: %v, %v", got, table.Err())
		}
		_ = table.Close()
		_ = table.Close()
	})
}

// Nobody sees half a table, nor an older one after a newer one, while it is replaced all the time.
func TestReplacedWhileRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		whole := func(n int) string {
			var s strings.Builder
			s.WriteString("id,v\n")
			for i := range 50 {
				fmt.Fprintf(&s, "k%d,%d\n", i, n)
			}
			return s.String()
		}
		table, b, err := open(t, "a.csv", whole(0), Options{Reload: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		for i := range 50 {
			keys = append(keys, fmt.Sprintf("k%d", i))
		}
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for range 4 {
			wg.Go(func() {
				last := -1
				for {
					select {
					case <-stop:
						return
					case <-time.After(700 * time.Microsecond):
					}
					found, err := table.Lookup(t.Context(), keys)
					if err != nil || len(found) != 50 {
						t.Errorf("%d rows, %v", len(found), err)
						return
					}
					seen := -1
					for _, versions := range found {
						var row struct {
							V int `json:"v,string"`
						}
						if err := json.Unmarshal(versions[0].JSON, &row); err != nil {
							t.Error(err)
						}
						if seen >= 0 && row.V != seen || row.V < last {
							t.Errorf("%d beside %d, after %d", row.V, seen, last)
							return
						}
						seen = row.V
					}
					last = seen
				}
			})
		}
		for n := 1; n <= 100; n++ {
			if err := b.Put(t.Context(), "a.csv", []byte(whole(n))); err != nil {
				t.Fatal(err)
			}
			<-time.After(1300 * time.Microsecond)
		}
		close(stop)
		wg.Wait()
	})
}

// On this machine, by path, through the suite.
func TestSuite(t *testing.T) {
	enrichtest.Run(t, func(t *testing.T) *enrichtest.Harness {
		path := filepath.Join(t.TempDir(), "rows.json")
		all := map[string]map[string]any{}
		save := func() error {
			data, err := json.Marshal(all)
			if err != nil {
				return err
			}
			return os.WriteFile(path, data, 0o600)
		}
		if err := save(); err != nil {
			t.Fatal(err)
		}
		var tables []*Table
		make := func(fields ...string) (enrich.Table, error) {
			table, err := New(t.Context(), Options{Path: path, Select: fields, Reload: time.Hour, Logger: slog.New(slog.DiscardHandler)})
			tables = append(tables, table)
			return table, err
		}
		table, err := make()
		if err != nil {
			t.Fatal(err)
		}
		// The next lookup sees a change: the file is read at once and not by the clock.
		changed := func(ctx context.Context) error {
			if err := save(); err != nil {
				return err
			}
			for _, table := range tables {
				c, err := table.read(ctx)
				if err != nil {
					return err
				}
				table.now.Store(c)
			}
			return nil
		}
		return &enrichtest.Harness{
			Table:  table,
			Put:    func(ctx context.Context, key string, row map[string]any) error { all[key] = row; return changed(ctx) },
			Delete: func(ctx context.Context, key string) error { delete(all, key); return changed(ctx) },
			Select: make,
		}
	})
}

// A million rows are some two hundred bytes each, their own included.
func TestCompact(t *testing.T) {
	if testing.Short() {
		t.Log("not in short mode")
		return
	}
	var s strings.Builder
	s.WriteString("id,tier,country\n")
	const n = 200_000
	for i := range n {
		fmt.Fprintf(&s, "user-%08d,gold,CH\n", i)
	}
	before := heap()
	table, b, err := open(t, "a.csv", s.String(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	_ = b.Delete(t.Context(), "a.csv")
	if each := (heap() - before) / n; each > 250 || table.Len() != n {
		t.Errorf("%d bytes a row of 53", each)
	}
}

func FuzzFormats(f *testing.F) {
	f.Add("csv", []byte("id,v\n1,2\n"))
	f.Add("json", []byte(`[{"id":1}]`))
	f.Add("json", []byte(`{"a":{"id":1}}`))
	f.Add("ndjson", []byte("{\"id\":1}\n"))
	f.Add("parquet", []byte("PAR1"))
	f.Fuzz(func(t *testing.T, format string, data []byte) {
		b := bucket.Memory()
		if b.Put(t.Context(), "x", data) != nil {
			return
		}
		table, err := New(t.Context(), Options{Bucket: b, Path: "x", Format: format, MaxBytes: 1 << 20, Logger: slog.New(slog.DiscardHandler)})
		if err == nil {
			for key := range table.now.Load().single {
				found, err := table.Lookup(t.Context(), []string{key})
				if err != nil || !json.Valid(found[key][0].JSON) {
					t.Errorf("%q: %v, %v", key, found, err)
				}
			}
			_ = table.Close()
		}
	})
}
