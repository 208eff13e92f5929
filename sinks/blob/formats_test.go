package blob

import (
	"bytes"
	"cmp"
	"context"
	stdcsv "encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"path"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/sinks/sinktest"
	"github.com/millstream/millstream/stream"
)

// combinations are every format with every compression.
func combinations() []Options {
	var all []Options
	for _, format := range []string{ndjson, csvFormat, parquetFormat} {
		for _, compression := range []string{none, gzipped, zstandard, snappy} {
			if format == parquetFormat || compression != snappy {
				all = append(all, Options{Format: format, Compression: compression})
			}
		}
	}
	return all
}

func (o Options) name() string { return strings.TrimSuffix(o.Format+"+"+o.Compression, "+"+none) }

// suiteRow is a row of sinktest.
type suiteRow struct {
	Row *string `json:"row,omitempty" parquet:"row,optional"`
	N   *int64  `json:"n,omitempty" parquet:"n,optional"`
	Pad *string `json:"pad,omitempty" parquet:"pad,optional"`
}

// decode reads a file of suite rows by its name, as another program would.
func decode(name string, data []byte) ([][]byte, error) {
	var plain io.Reader = bytes.NewReader(data)
	var err error
	switch path.Ext(name) {
	case ".gz":
		plain, err = gzip.NewReader(plain)
	case ".zst":
		plain, err = zstd.NewReader(plain)
	}
	if err != nil {
		return nil, err
	}
	if data, err = io.ReadAll(plain); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var rows []suiteRow
	switch {
	case strings.HasSuffix(name, ".parquet"):
		rows, err = parquet.Read[suiteRow](bytes.NewReader(data), int64(len(data)))
	case strings.Contains(name, ".csv"):
		rows, err = readCSV(data)
	default:
		return split(nil, name, data)
	}
	if err != nil || len(rows) == 0 {
		return nil, fmt.Errorf("%s: %d rows, %w", name, len(rows), err)
	}
	out := make([][]byte, len(rows))
	for i := range rows {
		if out[i], err = json.Marshal(rows[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// readCSV tells an empty text from none, which encoding/csv does not.
func readCSV(data []byte) ([]suiteRow, error) {
	var header []string
	var rows []suiteRow
	for len(data) > 0 {
		var cells []*string
		for more := true; more; {
			var text string
			quoted := data[0] == '"'
			if quoted {
				for data = data[1:]; ; data = data[1:] {
					end := bytes.IndexByte(data, '"')
					if end < 0 {
						return nil, errors.New("the file ends in a field")
					}
					text += string(data[:end])
					if data = data[end+1:]; len(data) == 0 || data[0] != '"' {
						break
					}
					text += `"`
				}
			} else {
				end := bytes.IndexAny(data, ",\n")
				if end < 0 {
					return nil, errors.New("the file ends in a line")
				}
				text, data = string(data[:end]), data[end:]
			}
			if quoted || text != "" {
				cells = append(cells, &text)
			} else {
				cells = append(cells, nil)
			}
			if more = data[0] == ','; !more && data[0] != '\n' {
				return nil, fmt.Errorf("after a field comes %q", data[0])
			}
			data = data[1:]
		}
		if header == nil {
			for _, c := range cells {
				header = append(header, *c)
			}
			continue
		}
		var r suiteRow
		for i, c := range cells {
			switch header[i] {
			case "row":
				r.Row = c
			case "pad":
				r.Pad = c
			case "n":
				if c != nil {
					r.N = new(int64)
					if err := json.Unmarshal([]byte(*c), r.N); err != nil {
						return nil, err
					}
				}
			}
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// TestFormats: every format and compression keeps the promise of package sinktest.
func TestFormats(t *testing.T) {
	for _, o := range combinations() {
		t.Run(o.name(), func(t *testing.T) {
			t.Parallel()
			for _, c := range sinktest.Cases() {
				// Some take long: those of many rows in one of them, and with the race detector all of them:
				// there one combination is enough.
				many := c.Name == "Big" || c.Name == "Oversize" // TestRefused too has 10,000 rows
				if many && (o.name() != parquetFormat || c.Name == "Oversize" || testing.Short()) || testing.Short() && o.name() != "parquet+gzip" {
					continue
				}
				t.Run(c.Name, func(t *testing.T) {
					if err := c.Holds(t.Context(), formatted(bucket.Memory(), o)); err != nil {
						t.Error(err)
					}
				})
			}
		})
	}
}

// TestRouted: so does a sink with a path template.
func TestRouted(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) *sinktest.Destination {
		d := formatted(bucket.Memory(), Options{Path: "h={window_start:15}"})
		open := d.Open
		d.Open = func(hook sinktest.Hook) (stream.Sink, error) {
			s, err := open(hook)
			if err != nil {
				return nil, err
			}
			return spread{s.(*Sink)}, nil
		}
		return d
	})
}

// spread gives rows one of three windows.
type spread struct{ *Sink }

func (s spread) Deliver(ctx context.Context, id stream.CheckpointID, rows []stream.Row) error {
	return s.Write(ctx, id, nil, partsOf(rows))
}

func (s spread) Write(ctx context.Context, id stream.CheckpointID, layout []byte, parts iter.Seq2[[]stream.Row, error]) error {
	return s.Sink.Write(ctx, id, layout, func(yield func([]stream.Row, error) bool) {
		for rows, err := range parts {
			rows = slices.Clone(rows)
			for i := range rows {
				rows[i].Window.Start = stream.Instant(time.Duration(i%3) * time.Hour)
				rows[i].Window.End = rows[i].Window.Start.Add(time.Hour)
			}
			if !yield(rows, err) {
				return
			}
		}
	})
}

// formatted is a destination whose consumer decodes the files.
func formatted(b bucket.Bucket, o Options) *sinktest.Destination {
	return destinationOf(b, "out/", func(b bucket.Bucket) (stream.Sink, error) { return Open(b, "out/", o) }, decode)
}

func partsOf(parts ...[]stream.Row) iter.Seq2[[]stream.Row, error] {
	return func(yield func([]stream.Row, error) bool) {
		for _, p := range parts {
			if !yield(p, nil) {
				return
			}
		}
	}
}

func rowsFrom(texts ...string) []stream.Row {
	rows := make([]stream.Row, len(texts))
	for i := range texts {
		rows[i].Data = []byte(texts[i])
	}
	return rows
}

// written writes rows into an empty bucket and returns its files by name.
func written(t *testing.T, o Options, parts ...[]stream.Row) (map[string]string, *stream.Rejected) {
	t.Helper()
	b := bucket.Memory()
	s, err := Open(b, "", o)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Write(t.Context(), idOf(7), s.Layout(), partsOf(parts...))
	var rejected *stream.Rejected
	if err != nil && !errors.As(err, &rejected) {
		t.Fatal(err)
	}
	return filesIn(t, b), rejected
}

func filesIn(t *testing.T, b bucket.Bucket) map[string]string {
	t.Helper()
	names, err := b.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for _, name := range names {
		data, err := b.Get(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.Replace(name, "main-0123456789ab-0-00000000000000000007-0000", "ID", 1)] = string(data)
	}
	return files
}

// rowsMixed have everything that JSON has.
func rowsMixed(n int) []stream.Row {
	rows := make([]stream.Row, n)
	for i := range rows {
		rows[i].Data = fmt.Appendf(nil, `{"id":%d,"big":%d,"at":"2026-03-0%dT10:00:00.%06dZ","price":%d.25,"ok":%t,"user":{"name":"n %d","tags":["a","b%d"]},`+
			`"lines":[{"sku":"s%d","n":%d},{"sku":null}],"empty":{},"none":null,"text":"a,\"b\"\n %d"}`,
			i, 1<<62+int64(i), i%9+1, i, i, i%2 == 0, i, i, i, i, i)
		rows[i].Data = bytes.ReplaceAll(rows[i].Data, []byte("\n"), []byte(`\n`))
	}
	return rows
}

// TestDeterministic: the same rows are the same bytes, however they are cut into parts.
func TestDeterministic(t *testing.T) {
	rows := rowsMixed(600)
	for _, o := range combinations() {
		one, _ := written(t, o, rows)
		other, _ := written(t, o, rows[:1], rows[1:400], nil, rows[400:])
		if len(one) != 1 || !maps.Equal(one, other) {
			t.Errorf("%s: %d and %d files, other bytes", o.name(), len(one), len(other))
		}
		changed, _ := written(t, o, rows[:599])
		if maps.Equal(one, changed) {
			t.Errorf("%s: the comparison sees nothing", o.name())
		}
	}
}

type mixed struct {
	ID    *int64    `parquet:"id,optional"`
	Big   *int64    `parquet:"big,optional"`
	At    time.Time `parquet:"at,optional,timestamp(microsecond)"`
	Price *float64  `parquet:"price,optional"`
	OK    *bool     `parquet:"ok,optional"`
	User  *struct {
		Name *string   `parquet:"name,optional"`
		Tags []*string `parquet:"tags,optional,list"`
	} `parquet:"user,optional"`
	Lines []*struct {
		SKU *string `parquet:"sku,optional"`
		N   *int64  `parquet:"n,optional"`
	} `parquet:"lines,optional,list"`
	Empty *string `parquet:"empty,optional"`
	None  *string `parquet:"none,optional"`
	Text  *string `parquet:"text,optional"`
}

// TestParquet: what was written comes back, with its types.
func TestParquet(t *testing.T) {
	rows := rowsMixed(1000)
	files, rejected := written(t, Options{Format: parquetFormat}, rows[:10], rows[10:])
	if rejected != nil {
		t.Fatal(rejected.Rows)
	}
	data := files["ID.parquet"]
	got, err := parquet.Read[mixed](strings.NewReader(data), int64(len(data)))
	if err != nil || len(got) != len(rows) {
		t.Fatalf("%d rows: %v", len(got), err)
	}
	for i, g := range got {
		var want mixed
		if err := json.Unmarshal(bytes.Replace(rows[i].Data, []byte(`"empty":{}`), []byte(`"empty":"{}"`), 1), &want); err != nil {
			t.Fatal(err)
		}
		if g.At = g.At.UTC(); !reflect.DeepEqual(g, want) {
			a, _ := json.Marshal(g)
			t.Fatalf("row %d is\n%s, want\n%s", i, a, rows[i].Data)
		}
	}
	f, err := parquet.OpenFile(strings.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	const want = `message rows {
	optional int64 at (TIMESTAMP(isAdjustedToUTC=true,unit=MICROS));
	optional int64 big (INT(64,true));
	optional binary empty (JSON);
	optional int64 id (INT(64,true));
	optional group lines (LIST) {
		repeated group list {
			optional group element {
				optional int64 n (INT(64,true));
				optional binary sku (STRING);
			}
		}
	}
	optional binary none (STRING);
	optional boolean ok;
	optional double price;
	optional binary text (STRING);
	optional group user {
		optional binary name (STRING);
		optional group tags (LIST) {
			repeated group list {
				optional binary element (STRING);
			}
		}
	}
}`
	if got := f.Schema().String(); got != want {
		t.Errorf("%s", got)
	}
}

// TestRefused: a row that does not fit is rejected alone, with the column that is at fault.
func TestRefused(t *testing.T) {
	good := rowsMixed(10_000)
	count := len(good)
	for _, c := range []struct {
		schema, unknown, row, reason string
	}{
		{"", "", `{"id":"seven"}`, `column "id": it is the text "seven", want int64`},
		{"", "", `{"id":9223372036854775808}`, `column "id": 9223372036854775808 is no integer of 64 bits`},
		{"", "", `{"user":7}`, `column "user": it is the number 7, want an object`},
		{"", "", `{"user":{"tags":"a"}}`, `column "user.tags": it is the text "a", want an array`},
		{"", "", `{"user":{"tags":["a",true]}}`, `column "user.tags[]": it is a boolean, want string`},
		{"", "", `{"lines":[{"n":1},{"n":[]}]}`, `column "lines[].n": it is an array, want int64`},
		{"", "", `{"id":`, "it is no JSON object: unexpected EOF"},
		{"", "", `{"":1}`, `column "": the file has no such column`},
		{"", "", `{"none":null,"price":9007199254740993}`, `column "price": 9007199254740993 cannot be held exactly as a double`},
		{"id:int64,at:timestamp", "ignore", `{"id":1.5}`, `column "id": 1.5 is no integer of 64 bits`},
		{"id:int64,at:timestamp", "ignore", `{"at":"yesterday"}`, `column "at": "yesterday" is no time in RFC 3339`},
		{"id:int64,big:int64,at:timestamp,price:double,ok:bool,user:json,lines:json,empty:json,none:string,text:string", "", `{"id":1,"more":2}`, `column "more": the file has no such column`},
	} {
		for _, format := range []string{parquetFormat, csvFormat} {
			if format == csvFormat && c.schema == "" {
				continue
			}
			rows := slices.Clone(good[:count])
			bad := count * 7 / 9
			rows[bad].Data = []byte(c.row)
			files, rejected := written(t, Options{Format: format, Schema: c.schema, Unknown: c.unknown}, rows[:count/2], rows[count/2:])
			if rejected == nil || len(rejected.Rows) != 1 || rejected.Rows[0].Index != bad || !strings.Contains(rejected.Rows[0].Reason, c.reason) {
				t.Errorf("%s, %s: %v, want %s", format, c.row, rejected, c.reason)
				continue
			}
			data := files["ID."+format]
			if format == csvFormat {
				if records, err := stdcsv.NewReader(strings.NewReader(data)).ReadAll(); err != nil || len(records) != count {
					t.Errorf("%s: %d records, %v", c.row, len(records), err)
				}
				continue
			}
			if f, err := parquet.OpenFile(strings.NewReader(data), int64(len(data))); err != nil || f.NumRows() != int64(count-1) {
				t.Errorf("%s: %v", c.row, err)
			}
		}
		count = 500 // what is bad among many once, is among some
	}
}

func TestCSV(t *testing.T) {
	rows := rowsFrom(`{"b":1,"a":"x"}`, `{"a":"q\"u,o\nte","c":{"x":[1, 2]},"b":null}`, `{"d":true,"a":"","b":1.50}`, `{}`, `{"e":" s "}`)
	files, rejected := written(t, Options{Format: csvFormat}, rows[:1], rows[1:])
	const want = "b,a,c,d,e\n1,x,,,\n,\"q\"\"u,o\nte\",\"{\"\"x\"\":[1,2]}\",,\n1.50,\"\",,true,\n,,,,\n,,,,\" s \"\n"
	if got := files["ID.csv"]; got != want || rejected != nil {
		t.Errorf("%q\n%q, %v", got, want, rejected)
	}
	rows = rowsFrom(`{"u":{"t":"a","x":[1]},"n":7,"more":1}`, `{"u":null}`, `{"n":"7"}`)
	files, rejected = written(t, Options{Format: csvFormat, Schema: "n:int64,u.t:string,u.x:[]int64", Unknown: "ignore"}, rows)
	if got := files["ID.csv"]; got != "n,u.t,u.x\n7,a,[1]\n,,\n" || rejected == nil || rejected.Rows[0].Index != 2 {
		t.Errorf("%q, %v", got, rejected)
	}
	files, _ = written(t, Options{Format: csvFormat}, rowsFrom(`{"a":null}`, `{"a":1}`))
	if got := files["ID.csv"]; got != "a\n\"\"\n1\n" {
		t.Errorf("%q", got)
	}
}

// TestManyColumns: names that rows bring without end do not grow without bound.
func TestManyColumns(t *testing.T) {
	rows := make([]stream.Row, 300)
	for i := range rows {
		rows[i].Data = fmt.Appendf(nil, `{"id":%d`, i)
		for n := range 10 {
			rows[i].Data = fmt.Appendf(rows[i].Data, `,"f%d":%d`, i*10+n, n)
		}
		rows[i].Data = append(rows[i].Data, '}')
	}
	for _, format := range []string{csvFormat, parquetFormat} {
		files, rejected := written(t, Options{Format: format}, rows)
		if rejected == nil || len(rejected.Rows) != 201 || len(files) != 1 {
			t.Errorf("%s: %d files, %v", format, len(files), rejected)
		}
	}
}

// TestPaths: each row is in its folder.
func TestPaths(t *testing.T) {
	start, _ := stream.At(time.Date(2026, 3, 4, 23, 0, 0, 0, time.UTC))
	rows := rowsFrom(`{"region":"eu","n":1}`, `{"region":"us","n":2}`, `{"n":3}`, `{"region":"eu","n":4}`)
	for i := range rows {
		rows[i].Window = stream.Window{Start: start, End: start.Add(time.Hour)}
	}
	files, _ := written(t, Options{Path: "dt={window_start:2006-01-02}/{window_end:2006/15}/region={region}/"}, rows[:2], rows[2:])
	want := map[string]string{
		"dt=2026-03-04/2026/00/region=eu/ID.ndjson":      string(rows[0].Data) + "\n" + string(rows[3].Data) + "\n",
		"dt=2026-03-04/2026/00/region=us/ID.ndjson":      string(rows[1].Data) + "\n",
		"dt=2026-03-04/2026/00/region=unknown/ID.ndjson": string(rows[2].Data) + "\n",
	}
	if !maps.Equal(files, want) {
		t.Errorf("%v", files)
	}
	for row, want := range map[string]string{
		`{"a":{"b":"x/y"}}`: "k=x%2Fy/unknown/", `{"a":{"b":""}}`: "k=unknown/unknown/", `{"a":{"b":null}}`: "k=unknown/unknown/",
		`{"a":{"b":12.50},"t":"2026-03-04T23:30:00-02:00"}`: "k=12.50/2026/03/05/", `{"a":{"b":true},"t":7}`: "k=true/unknown/",
		`{"a":{"b":{}},"t":"x"}`: "k=unknown/unknown/", `{"a":{"b":"é .."}}`: "k=%C3%A9%20.%2E/unknown/", `not json`: "k=unknown/unknown/",
		`{"a":{"b":"` + strings.Repeat("é", 40) + `"}}`: "k=" + strings.Repeat("%C3%A9", 6) + "%C3~3288653f40321271f848213ccc3cccfb/unknown/",
	} {
		p, err := parsePath("k={a.b}/{t:2006/01/02}")
		if err != nil {
			t.Fatal(err)
		}
		if got := p.of(&stream.Row{Data: []byte(row)}); got != want {
			t.Errorf("%s: %s, want %s", row, got, want)
		}
	}
}

// FuzzPath: whatever a row has, its file is one in a folder of its own that readers see.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{"", "..", "../..", "a/../b", "_x", ".x", "__0x2f__", "a__0x", "é", "\x00", `\`, "a..", "%2E", strings.Repeat("/", 300), strings.Repeat("日", 90)} {
		f.Add(seed, seed)
	}
	p, err := parsePath("{a}/x={b}{a}/{b}.{a}/y")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		data, err := json.Marshal(map[string]string{"a": a, "b": b})
		if err != nil {
			t.Fatal(err)
		}
		got := p.of(&stream.Row{Data: data})
		folders := strings.Split(strings.TrimSuffix(got, "/"), "/")
		if len(folders) != 4 || len(got) > maxPath {
			t.Fatalf("%q", got)
		}
		for _, folder := range folders {
			if ignored(folder) || len(folder) > maxElement || folder == "" {
				t.Errorf("%q", folder)
			}
		}
		if err := bucket.Memory().Create(t.Context(), got+"file", nil); err != nil {
			t.Error(err)
		}
	})
}

// TestManyPaths: rows with more paths than fit in memory at once, and a path with more rows than that, are
// written whole, and memory stays bounded.
func TestManyPaths(t *testing.T) {
	const paths = 1000
	pad := strings.Repeat("x", 100)
	ranged := 0
	part := func(yield func([]stream.Row, error) bool) {
		ranged++
		rows := make([]stream.Row, 100)
		for i := 0; i < paths*2; i += len(rows) {
			for k := range rows {
				rows[k].Data = fmt.Appendf(rows[k].Data[:0], `{"p":%d,"i":%d,"pad":"%s"}`, (i+k)%paths, i+k, pad)
			}
			if !yield(rows, nil) {
				return
			}
		}
	}
	b := bucket.Memory()
	s, err := Open(b, "", Options{Path: "{p}"})
	if err != nil {
		t.Fatal(err)
	}
	s.limits = limits{together: 100_000, paths: 300}
	if err := s.Write(t.Context(), idOf(7), s.Layout(), part); err != nil {
		t.Fatal(err)
	}
	names, err := b.List(t.Context(), "")
	if err != nil || len(names) != paths {
		t.Fatalf("%d files: %v", len(names), err)
	}
	data, err := b.Get(t.Context(), names[7])
	if err != nil || bytes.Count(data, []byte("\n")) != 2 {
		t.Errorf("%q, %v", data, err)
	}
	if ranged < 4 || ranged > 30 {
		t.Errorf("the rows were read %d times", ranged)
	}
}

// TestBounded: the rows of a file are many times what a sink holds.
func TestBounded(t *testing.T) {
	if testing.Short() {
		return // the race detector makes it long
	}
	pad := strings.Repeat("x", 4000)
	many := func(yield func([]stream.Row, error) bool) {
		rows := make([]stream.Row, 1000)
		for i := range 16 {
			for k := range rows {
				rows[k].Data = fmt.Appendf(rows[k].Data[:0], `{"p":%d,"i":%d,"pad":"%s"}`, k%2, i*len(rows)+k, pad)
			}
			if !yield(rows, nil) {
				return
			}
		}
	}
	for _, o := range []Options{{Format: csvFormat, Compression: zstandard}, {Format: parquetFormat, Path: "{p}"}} {
		b, err := bucket.Folder(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		s, err := Open(b, "", o)
		if err != nil {
			t.Fatal(err)
		}
		most := uint64(0)
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		before, parts := m.HeapAlloc, 0
		err = s.Write(t.Context(), idOf(7), s.Layout(), func(yield func([]stream.Row, error) bool) {
			for rows, err := range many {
				if !yield(rows, err) {
					return
				}
				if parts++; parts%4 != 0 {
					continue
				}
				runtime.GC()
				runtime.ReadMemStats(&m)
				most = max(most, m.HeapAlloc-min(before, m.HeapAlloc))
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if limit := uint64(32 << 20); most > limit { // of 64 MiB of rows
			t.Errorf("%+v: %d MiB", o, most>>20)
		}
	}
}

// TestLayout: settings that change between a crash and the redelivery make no second copy.
func TestLayout(t *testing.T) {
	rows := rowsMixed(100)
	all := append(combinations(), Options{Path: "{id}"}, Options{Format: parquetFormat, Path: "{ok}", Schema: "id:int64,ok:bool", Unknown: "ignore"})
	for i, o := range all {
		b := bucket.Memory()
		first, err := Open(b, "", o)
		if err != nil {
			t.Fatal(err)
		}
		if err := first.Write(t.Context(), idOf(7), first.Layout(), partsOf(rows)); err != nil {
			t.Fatal(err)
		}
		want := filesIn(t, b)
		second, err := Open(b, "", all[(i+1)%len(all)])
		if err != nil {
			t.Fatal(err)
		}
		if err := second.Write(t.Context(), idOf(7), first.Layout(), partsOf(rows[:50], rows[50:])); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
		if got := filesIn(t, b); !maps.Equal(got, want) {
			t.Errorf("%+v: %d files, then %d", o, len(want), len(got))
		}
		// The negative control: by its own layout it makes others, or finds that there are others.
		err = second.Write(t.Context(), idOf(7), nil, partsOf(rows))
		if got := filesIn(t, b); err == nil && maps.Equal(got, want) {
			t.Errorf("%+v: the layout has no effect", o)
		}
	}
	s, err := New(bucket.Memory(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"x", `{"version":2}`, `{"version":1,"format":"xml"}`} {
		if err := s.Write(t.Context(), idOf(7), []byte(bad), partsOf(rows)); err == nil {
			t.Errorf("%s passes", bad)
		}
	}
}

// TestRecompressed: a file of the same rows by another compressor is theirs, one of other rows, or of half
// of them, is not.
func TestRecompressed(t *testing.T) {
	rows := rowsFrom(`{"n":1}`, `{"n":2}`)
	pack := func(text string) []byte {
		var b bytes.Buffer
		w, err := gzip.NewWriterLevel(&b, gzip.HuffmanOnly)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.WriteString(w, text)
		if err := cmp.Or(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	same := pack("{\"n\":1}\n{\"n\":2}\n")
	for _, c := range []struct {
		there []byte
		ok    bool
	}{
		{same, true}, {same[:len(same)-5], false}, {nil, false}, {[]byte("{\"n\":1}\n{\"n\":2}\n"), false},
		{pack("{\"n\":1}\n"), false}, {pack("{\"n\":1}\n{\"n\":3}\n"), false}, {pack("{\"n\":1}\n{\"n\":2}\n{}\n"), false},
	} {
		b := bucket.Memory()
		s, err := Open(b, "", Options{Compression: gzipped})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Put(t.Context(), fileName(idOf(7))+".ndjson.gz", c.there); err != nil {
			t.Fatal(err)
		}
		if err := s.Deliver(t.Context(), idOf(7), rows); (err == nil) != c.ok {
			t.Errorf("%q: %v", c.there, err)
		}
	}
}

// TestPartsFail: rows that cannot be read leave no file, and their error comes back.
func TestPartsFail(t *testing.T) {
	broken := errors.New("the log is broken")
	for _, o := range append(combinations(), Options{Path: "{n}"}) {
		for good := range 3 {
			b := bucket.Memory()
			s, err := Open(b, "", o)
			if err != nil {
				t.Fatal(err)
			}
			ranged := 0
			err = s.Write(t.Context(), idOf(7), s.Layout(), func(yield func([]stream.Row, error) bool) {
				if ranged++; !yield(rowsFrom(`{"n":1}`), nil) || ranged < good {
					return
				}
				yield(nil, broken)
			})
			if o.Path == "" && good < 2 || o.Path != "" && good < 3 {
				if names, listErr := b.List(t.Context(), ""); !errors.Is(err, broken) || listErr != nil || len(names) > 0 {
					t.Errorf("%s: %v, %q", o.name(), err, names)
				}
			}
		}
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Format: "xml"}, "want ndjson, csv or parquet"}, {Options{Compression: "lz4"}, "compression=lz4"},
		{Options{Compression: snappy}, "compression=snappy"}, {Options{Schema: "a:int64"}, "schema= is for csv and parquet"},
		{Options{Format: csvFormat, Schema: "a"}, "NAME:TYPE"}, {Options{Format: csvFormat, Schema: "a:int"}, "no type"},
		{Options{Format: csvFormat, Schema: "a:int64,a:int64"}, "there already"}, {Options{Format: csvFormat, Schema: "a:int64,a.b:int64"}, "there already"},
		{Options{Format: csvFormat, Schema: "a.b:int64,a:int64"}, "there already"}, {Options{Format: csvFormat, Schema: ".a:int64"}, "no name"},
		{Options{Format: csvFormat, Unknown: "ignore"}, "needs schema"}, {Options{Unknown: "drop"}, "dead-letter or ignore"},
		{Options{Roll: -1}, "negative"}, {Options{Path: "/x"}, "begins with /"}, {Options{Path: "a//b"}, "no name"}, {Options{Path: "_a"}, "ignore"},
		{Options{Path: "../a"}, "ignore"}, {Options{Path: "{a"}, "without }"}, {Options{Path: "a}"}, "without {"}, {Options{Path: "{}"}, "no field"},
		{Options{Path: "{a..b}"}, "no field"}, {Options{Path: "{t:yyyy-mm-dd}"}, "as Go does"}, {Options{Path: "{t:2006//01}"}, "without a name"},
		{Options{Path: strings.Repeat("{a}", 4)}, "too long"}, {Options{Path: `a\b`}, "do not belong"}, {Options{Path: "é"}, "do not belong"},
	} {
		if _, err := Open(bucket.Memory(), "", c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %s", c.o, err, c.want)
		}
	}
	s, err := Open(bucket.Memory(), "out/", Options{Roll: time.Minute, RollSize: 7})
	if err != nil {
		t.Fatal(err)
	}
	if every, size := s.Roll(); every != time.Minute || size != 7 || s.Name() != "mem:/out" {
		t.Error(every, size, s.Name())
	}
}

func TestSchema(t *testing.T) {
	root, err := parseSchema("id:int64, user.tier:string,user.age:int64,tags:[]string,items[].sku:string,items[].n:int64,m:[][]double,x:json")
	if err != nil {
		t.Fatal(err)
	}
	var leaves []string
	for _, l := range root.leaves() {
		leaves = append(leaves, strings.Join(l, "."))
	}
	if want := []string{"id", "user.tier", "user.age", "tags", "items", "m", "x"}; !slices.Equal(leaves, want) || root.count() != 8 {
		t.Errorf("%q, %d", leaves, root.count())
	}
}

// FuzzRows: no row stops a file, whatever it holds.
func FuzzRows(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":[[],[[1]],null]}`, `{"a,b":1,"A":2,"a":{"":1}}`, `{"0":{"é":[{"x":{}}]}}`, `7`, `{"a":1e400}`, `{"a":-0}`, `{"a":"9999-12-31T23:59:59.9999999Z"}`} {
		f.Add([]byte(seed), []byte(`{"a":1}`))
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		rows := []stream.Row{{Data: a}, {Data: b}, {Data: []byte(`{"id":1}`)}}
		for _, format := range []string{csvFormat, parquetFormat} {
			files, rejected := written(t, Options{Format: format}, rows)
			want := 3
			if rejected != nil {
				want -= len(rejected.Rows)
			}
			data := files["ID."+format]
			if format == csvFormat {
				r := stdcsv.NewReader(strings.NewReader(data))
				records, err := r.ReadAll()
				if err != nil || len(records) != want+1 {
					t.Errorf("%q: %d records, want %d and a header: %v", data, len(records), want, err)
				}
				continue
			}
			p, err := parquet.OpenFile(strings.NewReader(data), int64(len(data)))
			if err != nil || p.NumRows() != int64(want) {
				t.Errorf("want %d rows: %v", want, err)
			}
		}
	})
}
