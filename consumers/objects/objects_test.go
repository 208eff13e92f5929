package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/stream"
)

// read returns what one lane holds behind a position, as texts, with their positions; refused records as
// "!reason:bytes".
func read(t testing.TB, s *Source, from stream.Position) (texts []string, at []stream.Position) {
	t.Helper()
	r, err := s.Open(t.Context(), "lane-000", from, "")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		f, err := r.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range f.Records {
			rec := &f.Records[i]
			text := string(rec.Data)
			if rec.Refused != nil {
				text = "!" + rec.Refused.Reason + ":" + text
			}
			texts, at = append(texts, text), append(at, rec.Position)
		}
		if f.End != nil {
			return texts, at
		}
	}
}

func open(t testing.TB, b bucket.Bucket, o Options) *Source {
	t.Helper()
	o.Bucket, o.Lanes, o.UntilEnd, o.Logger = kept{b}, 1, true, slog.New(slog.DiscardHandler)
	s, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func create(t testing.TB, b bucket.Bucket, name, data string) {
	t.Helper()
	if err := b.Create(t.Context(), name, packed(t, name, []byte(data))); err != nil {
		t.Fatal(err)
	}
}

var contents = []struct {
	name, data string
	want       []string
}{
	{"lines.ndjson", "{\"a\":1}\n\r\n  \n{\"a\":2}\r\nlast", []string{`{"a":1}`, `{"a":2}`, "last"}},
	{"lines.jsonl.gz", "one\ntwo\n", []string{"one", "two"}},
	{"LINES.NDJSON.ZST", "one\n\ntwo", []string{"one", "two"}},
	{"bom.ndjson", "\xEF\xBB\xBF{\"a\":1}\n\xEF\xBB\xBF2\n", []string{`{"a":1}`, "\xEF\xBB\xBF2"}},
	{"bom.jsonl.gz", "\xEF\xBB\xBF\n1\n", []string{"1"}},
	{"empty.ndjson", "", nil},
	{"blank.ndjson", "\n\n", nil},
	{"array.json", " [ {\"a\": 1},\n 2, \"x\" ]\n", []string{`{"a":1}`, "2", `"x"`}},
	{"none.json", "[]", nil},
	{"void.json", " \n", nil},
	{"one.json", "{\n \"a\": [1, 2]\n}", []string{`{"a":[1,2]}`}},
	{"row.json.gz", "{\"a\":1}{\"a\":2}\n{\"a\":3}", []string{`{"a":1}`, `{"a":2}`, `{"a":3}`}},
	{"bom.json", "\xEF\xBB\xBF[1]", []string{"1"}},
	{"cut.json", `[{"a":1},{"a":`, []string{`{"a":1}`, "!broken file:"}},
	{"open.json", `[1,2`, []string{"1", "2", "!broken file:"}},
	{"bad.json", `[1,x]`, []string{"1", "!broken file:"}},
	{"behind.json", `[1] x`, []string{"1", "!broken file:"}},
	{"plain.csv", "id,name\n1,a\n2,\"b,\n\"\"c\"\"\"\n", []string{`{"id":"1","name":"a"}`, `{"id":"2","name":"b,\n\"c\""}`}},
	{"bom.csv", "\xEF\xBB\xBFid\r\n1\r\n", []string{`{"id":"1"}`}},
	{"ragged.csv", "id,name\n1\n2,b\n3,c,d\n", []string{"!row does not fit its header:1", `{"id":"2","name":"b"}`, "!row does not fit its header:3,c,d"}},
	{"quote.csv", "id,name\n1,a\"b\n2,b\n", []string{"!row does not fit its header:1,a\"b", `{"id":"2","name":"b"}`}},
	{"head.csv", "id,name\n", nil},
	{"latin.csv", "id,name\n1,caf\xE9\n2,b\n", []string{"!row does not fit its header:1,caf\xE9", `{"id":"2","name":"b"}`}},
	{"utf16.csv", "\xFF\xFEi\x00d\x00\n\x001\x00", []string{"!broken file:"}},
	{"empty.csv", "", nil},
	{"what.xml", "<a/>", []string{"!unknown kind of file:"}},
	{"noname", "x", []string{"!unknown kind of file:"}},
}

// Every kind of content comes out record by record, and what is wrong with it is a refused record.
func TestContents(t *testing.T) {
	for _, c := range contents {
		b := bucket.Memory()
		create(t, b, "in/"+c.name, c.data)
		if got, _ := read(t, open(t, b, Options{}), stream.Position{}); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	b := bucket.Memory()
	create(t, b, "in/data", "1,2\n3,4\n")
	create(t, b, "in/_SUCCESS", "no")
	create(t, b, "in/_temporary/0/part.csv", "no")
	create(t, b, "in/.git/data", "no")
	create(t, b, "in/.hidden.ndjson", "no")
	if got, _ := read(t, open(t, b, Options{Format: CSV}), stream.Position{}); !slices.Equal(got, []string{`{"1":"3","2":"4"}`}) {
		t.Errorf("format=csv: %q", got)
	}
}

// A reader resumes exactly behind every record, whatever it is in, and a position names its object.
func TestResume(t *testing.T) { resumesEverywhere(t, bucket.Memory()) }

func resumesEverywhere(t *testing.T, b bucket.Bucket) {
	t.Helper()
	for _, c := range contents {
		create(t, b, "in/"+c.name, c.data)
	}
	s := open(t, b, Options{})
	all, at := read(t, s, stream.Position{})
	if len(all) < 30 || len(slices.Compact(slices.Clone(at))) != len(at) {
		t.Fatalf("%d records", len(all))
	}
	for i := range at {
		if got, _ := read(t, open(t, b, Options{}), at[i]); !slices.Equal(got, all[i+1:]) {
			t.Fatalf("behind record %d, %q in %s: %q, want %q", i, all[i], s.Place(at[i]), got, all[i+1:])
		}
	}
	if got := s.Place(at[0]); got != "in/LINES.NDJSON.ZST:1" {
		t.Errorf("the first record is in %s", got)
	}
	for _, bad := range []stream.Position{{Token: "x"}, {Token: "AAAA.AAAA"}, {Token: at[0].Token, Number: 1 << 60}, {Token: at[0].Token, Number: -1}, {Token: "." + strings.Repeat("A", 24), Number: 1<<placeBits + 1}} {
		if _, err := s.Open(t.Context(), "lane-000", bad, ""); err == nil {
			t.Errorf("opened at %v", bad)
		}
	}
}

// What breaks off in the middle of a compressed object ends it, and the lane goes on.
func TestBroken(t *testing.T) {
	b := bucket.Memory()
	var lines []string
	for i := range 20_000 {
		lines = append(lines, fmt.Sprintf("%d %x", i, i*7919))
	}
	for _, suffix := range []string{".gz", ".zst"} {
		whole := packed(t, suffix, []byte(strings.Join(lines, "\n")))
		if err := b.Create(t.Context(), "in/a.ndjson"+suffix, whole[:len(whole)*2/3]); err != nil {
			t.Fatal(err)
		}
	}
	create(t, b, "in/b.ndjson", "after")
	if err := b.Create(t.Context(), "in/a.json.gz", []byte("no gzip")); err != nil {
		t.Fatal(err)
	}
	got, _ := read(t, open(t, b, Options{}), stream.Position{})
	broken := 0
	for _, text := range got {
		if strings.HasPrefix(text, "!"+ReasonBroken) {
			broken++
		}
	}
	if broken != 3 || got[len(got)-1] != "after" || len(got) < 10_000 {
		t.Errorf("%d records, %d broken, the last %q", len(got), broken, got[len(got)-1])
	}
}

// What is too large is refused with its beginning, and what would never end is given up.
func TestTooLarge(t *testing.T) {
	b := bucket.Memory()
	huge, line := strings.Repeat("x", MaxRecord+100), strings.Repeat("0123456789", 100)
	create(t, b, "in/a.ndjson", "first\n"+huge+"\nlast\n")
	create(t, b, "in/b.csv", "id\n1\n\""+huge+huge)
	create(t, b, "in/c.json", `[1,"`+huge+huge)
	create(t, b, "in/d.ndjson.gz", strings.Repeat(line+"\n", 80<<10))
	var got []string
	texts, _ := read(t, open(t, b, Options{}), stream.Position{})
	for i, text := range texts {
		if i > 0 && text == line && texts[i-1] == line {
			continue
		}
		got = append(got, text[:min(len(text), 24)])
	}
	want := []string{"first", "!too large:xxxxxxxxxxxxx", "last", `{"id":"1"}`, "!broken file:", "1", "!broken file:", line[:24], "!broken file:"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// Objects that come later are read once, those that are finished never again, not by another process either;
// and one that is written anew is told.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bucket.Memory()
		o := Options{Bucket: kept{b}, Lanes: 1, Watch: 10 * time.Second, Logger: slog.New(slog.DiscardHandler)}
		var got []string
		var at stream.Position
		run := func(d time.Duration, during func()) *Source {
			s, err := New(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			r, err := s.Open(t.Context(), "lane-000", at, "")
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			time.AfterFunc(d/2, during)
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			for {
				f, err := r.Read(ctx)
				if err != nil {
					return s
				}
				for _, rec := range f.Records {
					got = append(got, string(rec.Data))
				}
				at = f.Next
			}
		}
		create(t, b, "in/m.ndjson", "1\n2\n")
		run(time.Minute, func() {
			create(t, b, "in/a.ndjson", "3\n") // before what is finished, by name
			create(t, b, "in/z.ndjson", "4\n")
		})
		create(t, b, "in/k.ndjson", "5\n") // while nobody looks
		s := run(time.Minute, func() {
			if err := b.Put(t.Context(), "in/m.ndjson", []byte("1\n2\nnew\n")); err != nil {
				t.Error(err)
			}
		})
		if want := "1 2 3 4 5"; strings.Join(got, " ") != want || s.Changed() != 1 {
			t.Errorf("read %q, want %q; %d changed", got, want, s.Changed())
		}
		if err := b.Delete(t.Context(), "in/z.ndjson"); err != nil {
			t.Fatal(err)
		}
		create(t, b, "in/zz.ndjson", "6\n")
		run(time.Minute, func() {})
		if in, err := decodeScan(at.Token); err != nil || len(in.finished) != 3 || len(in.members) != 1 || got[len(got)-1] != "6" {
			t.Errorf("%d finished, %d in the scan, %v, %q", len(in.finished), len(in.members), err, got)
		}
	})
}

// A lane that would remember too much says so, and a run that is to end with what there is says it at once.
func TestTooManyNames(t *testing.T) {
	b := bucket.Memory()
	create(t, b, "in/new.ndjson", "x")
	full := scan{finished: make([]known, MaxNames)}
	for i := range full.finished {
		object := fmt.Sprintf("in/%06d.ndjson", i)
		create(t, b, object, "")
		full.finished[i].name = digest(object)
	}
	slices.SortFunc(full.finished, compareKnown)
	o := Options{Bucket: kept{b}, Lanes: 1, UntilEnd: true, Logger: slog.New(slog.DiscardHandler)}
	if _, err := New(t.Context(), o); err == nil || !strings.Contains(err.Error(), "use lanes=2") {
		t.Errorf("%v", err)
	}
	o.UntilEnd = false
	s, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), "lane-000", stream.Position{Token: full.encode(), Number: 0}, "")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Read(t.Context()); !errors.Is(err, errNames) || !strings.Contains(err.Error(), "begin anew with lanes=2") {
		t.Errorf("%v", err)
	}
}

// flaky breaks every other reading off in the middle.
type flaky struct {
	bucket.Bucket
	reads int
}

func (f *flaky) Close() error { return nil }

func (f *flaky) Read(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	if f.reads++; f.reads%3 == 0 {
		return nil, errStore
	}
	r, err := f.Bucket.Read(ctx, name, offset)
	if err != nil || f.reads%3 == 1 {
		return r, err
	}
	return &torn{r, 100}, nil
}

var errStore = errors.New("the store is out of order")

type torn struct {
	io.ReadCloser
	left int
}

func (r *torn) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, errStore
	}
	n, err := r.ReadCloser.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}

// A store that breaks off is asked again, and no record is lost, comes twice, or is taken for broken.
func TestFlaky(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bucket.Memory()
		for _, c := range contents {
			create(t, b, "in/"+c.name, c.data)
		}
		var lines bytes.Buffer
		for i := range 5000 {
			fmt.Fprintf(&lines, "line %d\n", i)
		}
		for _, suffix := range []string{"", ".gz", ".zst"} {
			create(t, b, "in/lines-long.ndjson"+suffix, lines.String())
		}
		want, _ := read(t, open(t, b, Options{}), stream.Position{})
		o := Options{Bucket: &flaky{Bucket: b}, Lanes: 1, UntilEnd: true, Logger: slog.New(slog.DiscardHandler)}
		s, err := New(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := read(t, s, stream.Position{}); !slices.Equal(got, want) {
			t.Errorf("%d records, want %d", len(got), len(want))
		}
	})
}

func TestOptions(t *testing.T) {
	for want, o := range map[string]Options{"format=xml": {Format: "xml"}, "compression=bz2": {Compression: "bz2"}, "lanes=300": {Lanes: 300}, "watch=1ms": {Watch: time.Millisecond}} {
		o.Bucket = bucket.Memory()
		if _, err := New(t.Context(), o); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// Whatever the bytes are, reading ends, and resuming anywhere gives the rest.
func FuzzContents(f *testing.F) {
	for _, c := range contents {
		f.Add(c.data)
	}
	f.Fuzz(func(t *testing.T, data string) {
		b := bucket.Memory()
		for _, suffix := range []string{".ndjson", ".json", ".csv", ".csv.gz"} {
			create(t, b, "in/x"+suffix, data)
		}
		all, at := read(t, open(t, b, Options{}), stream.Position{})
		if len(at) > 0 {
			half := len(at) / 2
			if got, _ := read(t, open(t, b, Options{}), at[half]); !slices.Equal(got, all[half+1:]) {
				t.Fatalf("behind record %d: %q, want %q", half, got, all[half+1:])
			}
		}
	})
}
