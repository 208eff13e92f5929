package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/stream"
)

func write(t testing.TB, path, data string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func add(t testing.TB, path, data string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(data); err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func open(t testing.TB, o Options, partition string, from int64) consumers.Reader {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	tip, err := s.Tip(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), partition, stream.Position{Number: from}, tip)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); s.Close() })
	return r
}

// show prints records as text@position, oversize ones as text…/length@position.
func show(records []stream.Record) string {
	var b strings.Builder
	for _, r := range records {
		text := string(r.Data)
		if r.Refused != nil {
			text = fmt.Sprintf("%.4s…/%d", text, r.Refused.Length)
		}
		fmt.Fprintf(&b, "%s@%d ", text, r.Position.Number)
	}
	return strings.TrimSpace(b.String())
}

// all reads until the end.
func all(t testing.TB, r consumers.Reader) ([]stream.Record, stream.Position) {
	t.Helper()
	var records []stream.Record
	for {
		f, err := r.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, f.Records...)
		if f.End != nil {
			return records, f.Next
		}
	}
}

func TestLines(t *testing.T) {
	long := strings.Repeat("x", 3000)
	for _, c := range []struct {
		name, data, want string
		next             int64
	}{
		{"empty", "", "", 0},
		{"one", "a\n", "a@2", 2},
		{"unfinished", "a\nbc", "a@2 bc@4", 4},
		{"unfinished with CR", "a\nbc\r", "a@2 bc@5", 5},
		{"CRLF", "a\r\nb\r\n", "a@3 b@6", 6},
		{"empty lines count as bytes", "\n\r\na\n\n\nb\n\n", "a@5 b@9", 10},
		{"only empty lines", "\n\n\r\n", "", 4},
		{"inner CR stays", "a\rb\n", "a\rb@4", 4},
		{"as long as may be", long[:2000] + "\n" + "b\n", long[:2000] + "@2001 b@2003", 2003},
		{"as long as may be, CRLF", long[:2000] + "\r\n" + "b\n", long[:2000] + "@2002 b@2004", 2004},
		{"too long", "a\n" + long[:2001] + "\nb\n", "a@2 xxxx…/2001@2004 b@2006", 2006},
		{"too long, unfinished", "a\n" + long, "a@2 xxxx…/3000@3002", 3002},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := write(t, filepath.Join(t.TempDir(), "f"), c.data)
			r := open(t, Options{Path: path, UntilEnd: true}, "f", 0)
			r.(*lines).limit = 2000
			records, next := all(t, r)
			if got := show(records); got != c.want || next.Number != c.next {
				t.Errorf("got %s, next %d\nwant %s, next %d", got, next.Number, c.want, c.next)
			}
		})
	}
}

// Lines of every length around the buffer's edge, whatever is in the buffer's way.
func TestLinesAcrossBuffers(t *testing.T) {
	var data bytes.Buffer
	var want []string
	for i := range 26 {
		line := strings.Repeat(string(rune('a'+i)), (bufferSize/5)*(i%13)+i)
		want = append(want, line)
		data.WriteString(line + "\n")
	}
	path := write(t, filepath.Join(t.TempDir(), "f"), data.String())
	records, _ := all(t, open(t, Options{Path: path, UntilEnd: true}, "f", 0))
	want = want[1:] // the first is empty
	if len(records) != len(want) {
		t.Fatalf("%d records, want %d", len(records), len(want))
	}
	for i := range want {
		if string(records[i].Data) != want[i] {
			t.Fatalf("record %d has %d bytes of %q, want %d of %q", i, len(records[i].Data), records[i].Data[:1], len(want[i]), want[i][:1])
		}
	}
	// From every position the rest is the same.
	for i, r := range records {
		rest, _ := all(t, open(t, Options{Path: path, UntilEnd: true}, "f", r.Position.Number))
		same := func(a, b stream.Record) bool { return a.Position == b.Position && bytes.Equal(a.Data, b.Data) }
		if !slices.EqualFunc(rest, records[i+1:], same) {
			t.Fatalf("resumed behind record %d: not the same records", i)
		}
	}
}

// The largest record that is delivered whole, and one that would not fit into memory.
func TestRecordLimits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	chunk := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for range 10 {
		f.Write(chunk)
	}
	f.WriteString("\nshort\n")
	const huge = 100
	for range huge {
		f.Write(chunk)
	}
	f.WriteString("\r\nafter\n")
	f.Close()
	r := open(t, Options{Path: path, UntilEnd: true}, "f", 0)
	records, _ := all(t, r)
	if len(records) != 4 || len(records[0].Data) != MaxRecord || records[0].Refused != nil || string(records[1].Data) != "short" ||
		records[2].Refused == nil || records[2].Refused.Length != huge<<20 || !bytes.Equal(records[2].Data, chunk[:OversizeKept]) || string(records[3].Data) != "after" {
		t.Fatalf("got %d records", len(records))
	}
	if most := cap(r.(*lines).buf); most > bufferSize {
		t.Errorf("the buffer has %d bytes after a record that was skipped", most)
	}
}

func TestFollow(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "f"), "a\nb")
	synctest.Test(t, func(t *testing.T) {
		r := open(t, Options{Path: path}, "f", 0)
		next := func(want string, state stream.ReaderState) {
			t.Helper()
			f, err := r.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := show(f.Records); got != want || f.State != state || f.End != nil {
				t.Fatalf("got %q %s %v, want %q %s", got, f.State, f.End, want, state)
			}
		}
		next("a@2", stream.Reading) // an unfinished line is there
		next("", stream.CaughtUp)
		fetched := make(chan consumers.Fetch)
		read := func() {
			f, err := r.Read(t.Context())
			if err != nil {
				t.Error(err)
			}
			fetched <- f
		}
		go read()
		<-time.After(time.Hour)
		select {
		case f := <-fetched:
			t.Fatalf("returned without news: %+v", f)
		default:
		}
		add(t, path, "c\nd\n")
		start := time.Now()
		if f := <-fetched; show(f.Records) != "bc@5 d@7" || f.State != stream.CaughtUp {
			t.Fatalf("got %q %s", show(f.Records), f.State)
		}
		if d := time.Since(start); d > maxBackoff {
			t.Errorf("noticed after %s", d)
		}
	})
}

// A bounded run ends where the file ended, although it grows, and resumed without a tip it goes on.
func TestUntilEndIsExact(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "f"), "a\nb\n")
	s, err := New(Options{Path: path, UntilEnd: true})
	if err != nil {
		t.Fatal(err)
	}
	tip, _ := s.Tip(t.Context())
	add(t, path, "c\nd")
	r, err := s.Open(t.Context(), "f", stream.Position{}, tip)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	records, next := all(t, r)
	if got := show(records); got != "a@2 b@4" || next.Number != 4 {
		t.Errorf("got %s, next %d", got, next.Number)
	}
	news, err := s.Additions(t.Context(), map[string]stream.Position{"f": next})
	if err != nil || len(news) != 1 || news[0] != "f: 3 bytes appended" {
		t.Errorf("additions %q, %v", news, err)
	}
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.ndjson", "a.ndjson", "_c.ndjson", ".d.ndjson", "e.json", "_merger"} {
		write(t, filepath.Join(dir, name), name+"\n")
	}
	if err := os.Mkdir(filepath.Join(dir, "f.ndjson"), 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Path: dir, UntilEnd: true})
	if err != nil {
		t.Fatal(err)
	}
	names := func() string {
		ps, err := s.Partitions(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, p := range ps {
			names = append(names, p.Name)
		}
		return strings.Join(names, " ")
	}
	if got := names(); got != "a.ndjson b.ndjson" {
		t.Errorf("partitions %s", got)
	}
	tip, _ := s.Tip(t.Context())
	if want := `{"a.ndjson":9,"b.ndjson":9}`; tip != want {
		t.Errorf("tip %s", tip)
	}
	write(t, filepath.Join(dir, "z.ndjson"), "late\n")
	if got := names(); got != "a.ndjson b.ndjson z.ndjson" {
		t.Errorf("partitions %s", got)
	}
	// A file that came later is empty for the bounded run, and is named afterwards.
	r, err := s.Open(t.Context(), "z.ndjson", stream.Position{}, tip)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if records, next := all(t, r); len(records) > 0 || next.Number != 0 {
		t.Errorf("read %s", show(records))
	}
	ends := map[string]stream.Position{"a.ndjson": {Number: 9}, "z.ndjson": {}}
	news, err := s.Additions(t.Context(), ends)
	if got := strings.Join(news, "; "); err != nil || got != "b.ndjson: added, 9 bytes; z.ndjson: added, 5 bytes" {
		t.Errorf("additions %q, %v", got, err)
	}
	for _, name := range []string{"../a.ndjson", "e.json", "_c.ndjson", ""} {
		if _, err := s.Open(t.Context(), name, stream.Position{}, tip); err == nil {
			t.Errorf("opened %q", name)
		}
	}
	if _, err := s.Open(t.Context(), "gone.ndjson", stream.Position{}, tip); !errors.Is(err, stream.ErrPartitionGone) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestErrors(t *testing.T) {
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "f"), "one\ntwo\n")
	for _, c := range []struct {
		name string
		o    Options
		want string
	}{
		{"missing", Options{Path: filepath.Join(dir, "no")}, "no such file"},
		{"empty folder until the end", Options{Path: dir, UntilEnd: true}, "no *.ndjson files"},
		{"device", Options{Path: os.DevNull}, "neither a file nor a folder"},
		{"rate", Options{Path: path, Rate: -1}, "rate is negative"},
		{"reserved", Options{Path: write(t, filepath.Join(dir, "_merger"), "")}, "reserved"},
	} {
		if _, err := New(c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := New(Options{Path: dir}); err != nil {
		t.Errorf("an empty folder that may fill: %v", err)
	}

	s, _ := New(Options{Path: path})
	for _, c := range []struct {
		from int64
		want string
	}{
		{9, "truncated or replaced"},
		{5, "no line begins at byte 5"},
	} {
		if _, err := s.Open(t.Context(), "f", stream.Position{Number: c.from}, ""); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("open at %d: %v", c.from, err)
		}
	}

	while := func(name, want string, disturb func()) {
		write(t, path, "one\ntwo\n")
		r := open(t, Options{Path: path}, "f", 0)
		for range 2 { // the records, and perhaps their end
			f, err := r.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if f.State == stream.CaughtUp {
				break
			}
		}
		disturb()
		f, err := r.Read(t.Context())
		if want == "" {
			if err != nil || f.End == nil {
				t.Errorf("%s: %+v, %v", name, f, err)
			}
			return
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	while("truncated", "truncated or replaced", func() { os.Truncate(path, 3) })
	while("replaced", "another file took its place", func() {
		os.Remove(path)
		write(t, path, "one\ntwo\nthree\n")
	})
	while("removed", "", func() { os.Remove(path) })
}

func TestParse(t *testing.T) {
	for source, want := range map[string]string{
		"-":                          "{Path:- Rate:0",
		"stdin:":                     "{Path:- Rate:0",
		"x/y.ndjson":                 "{Path:x/y.ndjson Rate:0",
		"file:///a%20b/c?rate=10":    "{Path:/a b/c Rate:10",
		"file://x/y":                 "file:///absolute/path",
		"file:x":                     "file:///absolute/path",
		"":                           "path is empty",
		"file:///x?rate=0":           "a whole number from 1",
		"file:///x?rate=fast":        "a whole number from 1",
		"file:///x?speed=1":          "unknown parameter speed",
		"file:///x?rate=1;until-end": "invalid semicolon",
	} {
		o, err := Parse(source)
		if got := fmt.Sprintf("%+v %v", o, err); !strings.Contains(got, want) {
			t.Errorf("%s: %s", source, got)
		}
	}
}

func TestRate(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "f"), strings.Repeat("line\n", 5000))
	synctest.Test(t, func(t *testing.T) {
		r := open(t, Options{Path: path, Rate: 1000, UntilEnd: true}, "f", 0)
		start := time.Now()
		records, _ := all(t, r)
		if d := time.Since(start); len(records) != 5000 || d < 4950*time.Millisecond || d > 5100*time.Millisecond {
			t.Errorf("%d records took %s", len(records), d)
		}
	})
	synctest.Test(t, func(t *testing.T) { // time that the caller took is not caught up at once
		r := open(t, Options{Path: path, Rate: 1000, UntilEnd: true}, "f", 0)
		if _, err := r.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Minute)
		start, n := time.Now(), 0
		for time.Since(start) < time.Second {
			f, err := r.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			n += len(f.Records)
		}
		if n > 1100 {
			t.Errorf("%d records in a second", n)
		}
	})
}

func TestStdin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := io.Pipe()
		s, err := New(Options{Path: "-", Stdin: in, UntilEnd: true})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if s.Identity() != "stdin:" {
			t.Error(s.Identity())
		}
		ps, _ := s.Partitions(t.Context())
		tip, _ := s.Tip(t.Context())
		r, err := s.Open(t.Context(), ps[0].Name, stream.Position{Number: 100}, tip) // a restart: positions go on
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			io.WriteString(out, "a\nb")
			<-time.After(time.Minute)
			io.WriteString(out, "c\n")
		}()
		read := func(want string) {
			t.Helper()
			for {
				f, err := r.Read(t.Context())
				if err != nil || len(f.Records) > 0 && show(f.Records) != want {
					t.Fatalf("%s, %v", show(f.Records), err)
				}
				if len(f.Records) > 0 {
					return
				}
			}
		}
		read("a@102")
		if f, err := r.Read(t.Context()); err != nil || f.State != stream.CaughtUp {
			t.Fatalf("%+v, %v", f, err)
		}
		// A reader that is stopped while it waits, and a claim that goes on where it stopped.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Read(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		r.Close()
		if _, err := s.Open(t.Context(), "stdin", stream.Position{}, ""); err == nil || !strings.Contains(err.Error(), "cannot be read again") {
			t.Errorf("opened at the beginning: %v", err)
		}
		r, err = s.Open(t.Context(), "stdin", stream.Position{Number: 102}, "")
		if err != nil {
			t.Fatal(err)
		}
		read("bc@105")
		go func() {
			io.WriteString(out, "last")
			out.Close()
		}()
		records, next := all(t, r)
		if show(records) != "last@109" || next.Number != 109 {
			t.Errorf("%s, %d", show(records), next.Number)
		}
	})
}

// A fetch's bytes stay what they are while later ones are read.
func TestBytesAreNotReused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	var data strings.Builder
	for i := range 40_000 {
		fmt.Fprintf(&data, "%d-%s\n", i, strings.Repeat("y", i%97))
	}
	write(t, path, data.String())
	records, _ := all(t, open(t, Options{Path: path, UntilEnd: true}, "f", 0))
	var got strings.Builder
	for _, r := range records {
		got.Write(r.Data)
		got.WriteByte('\n')
	}
	if got.String() != data.String() {
		t.Error("records changed after they were returned")
	}
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("a\r\n\nbb\nccccccccccccc\nd"), uint8(5))
	f.Fuzz(func(t *testing.T, data []byte, limit uint8) {
		path := write(t, filepath.Join(t.TempDir(), "f"), string(data))
		r := open(t, Options{Path: path, UntilEnd: true}, "f", 0)
		r.(*lines).limit = int(limit)
		records, next := all(t, r)
		if next.Number != int64(len(data)) {
			t.Fatalf("next %d of %d bytes", next.Number, len(data))
		}
		i := 0
		at := 0
		for _, line := range bytes.SplitAfter(data, []byte("\n")) {
			at += len(line)
			line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
			if len(line) == 0 {
				continue
			}
			if i == len(records) {
				t.Fatalf("only %d records", i)
			}
			rec := records[i]
			i++
			whole := len(line) <= int(limit)
			if rec.Position.Number != int64(at) || whole != (rec.Refused == nil) || !bytes.Equal(rec.Data, line) || !whole && rec.Refused.Length != int64(len(line)) {
				t.Fatalf("record %q %+v, want %q at %d", rec.Data, rec, line, at)
			}
		}
		if i != len(records) {
			t.Fatalf("%d records more", len(records)-i)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	line := strings.Repeat("x", 249) + "\n"
	path := write(b, filepath.Join(b.TempDir(), "f"), strings.Repeat(line, 1<<20))
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	n, cpu := 0, cpuTime(b)
	b.ResetTimer()
	for n < b.N {
		r := open(b, Options{Path: path, UntilEnd: true}, "f", 0)
		for {
			f, err := r.Read(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			n += len(f.Records)
			if f.End != nil || n >= b.N {
				break
			}
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds()/1e6, "Mlines/s")
	b.ReportMetric(float64(n)/(cpuTime(b)-cpu).Seconds()/1e6, "Mlines/core-s")
}

// cpuTime is what the process has used, by the operating system's account.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
