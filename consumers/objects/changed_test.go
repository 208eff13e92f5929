package objects

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/stream"
)

// put writes an object anew.
func put(t testing.TB, b bucket.Bucket, name, data string) {
	t.Helper()
	if err := b.Put(t.Context(), name, packed(t, name, []byte(data))); err != nil {
		t.Fatal(err)
	}
}

// without changes what a position remembers.
func without(t *testing.T, p stream.Position, change func(*scan)) stream.Position {
	t.Helper()
	in, err := decodeScan(p.Token)
	if err != nil {
		t.Fatal(err)
	}
	change(&in)
	p.Token = in.encode()
	return p
}

// What a position remembers is what keeps finished objects from being read again.
func TestFinishedAcrossRestarts(t *testing.T) {
	b := bucket.Memory()
	create(t, b, "in/a.ndjson", "1\n2\n")
	_, at := read(t, open(t, b, Options{}), stream.Position{})
	create(t, b, "in/b.ndjson", "3\n")
	_, more := read(t, open(t, b, Options{}), at[1])
	create(t, b, "in/c.ndjson", "4\n")
	last := more[len(more)-1]
	if got, _ := read(t, open(t, b, Options{}), last); !slices.Equal(got, []string{"4"}) {
		t.Errorf("%q", got)
	}
	forgetful := without(t, last, func(s *scan) { s.finished = nil }) // the control
	if got, _ := read(t, open(t, b, Options{}), forgetful); !slices.Equal(got, []string{"1", "2", "4"}) {
		t.Errorf("without what is finished: %q", got)
	}
}

// An object that is written anew while nobody looks is told, and not read: one that was finished, and the
// rest of one that was begun, once.
func TestChangedAcrossRestarts(t *testing.T) {
	for _, suffix := range []string{".ndjson", ".ndjson.gz", ".json"} {
		b := bucket.Memory()
		create(t, b, "in/a"+suffix, "1\n2\n")
		create(t, b, "in/b"+suffix, "3\n4\n5\n")
		create(t, b, "in/c"+suffix, "6\n")
		_, at := read(t, open(t, b, Options{}), stream.Position{})
		put(t, b, "in/a"+suffix, "1\n2\n7\n")
		put(t, b, "in/b"+suffix, "30\n40\n50\n")
		put(t, b, "in/c"+suffix, "8\n9\n") // not begun: it is what it is
		s := open(t, b, Options{})
		got, rest := read(t, s, at[2]) // behind 3
		if want := []string{"!" + ReasonChanged + ":", "8", "9"}; !slices.Equal(got, want) || s.Changed() != 2 {
			t.Fatalf("%s: %q, want %q; %d changed", suffix, got, want, s.Changed())
		}
		for i := range rest {
			s := open(t, b, Options{})
			if got2, _ := read(t, s, rest[i]); !slices.Equal(got2, got[i+1:]) {
				t.Errorf("%s: behind %q: %q", suffix, got[i], got2)
			}
		}
		if place := s.Place(rest[0]); place != "in/b"+suffix {
			t.Errorf("given up in %s", place)
		}
		same := without(t, at[2], func(sc *scan) { // the control: a position that takes what there is for what was read
			for i := range sc.members {
				sc.members[i].tag = tagOf(info(t, b, sc.members[i].name))
			}
		})
		s = open(t, b, Options{})
		if got, _ := read(t, s, same); s.Changed() != 0 || slices.ContainsFunc(got, func(text string) bool { return strings.HasPrefix(text, "!"+ReasonChanged) }) {
			t.Errorf("%s: without tags: %q, %d changed", suffix, got, s.Changed())
		}
	}
}

func info(t *testing.T, b bucket.Bucket, n name) bucket.Info {
	t.Helper()
	infos, err := b.Objects(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return infos[slices.IndexFunc(infos, func(o bucket.Info) bool { return digest(o.Name) == n })]
}

// An object that is written anew while its reading has broken off is not read on in its middle.
func TestChangedWhileTorn(t *testing.T) {
	b := bucket.Memory()
	create(t, b, "in/a.ndjson", strings.Repeat("old\n", 100))
	o := Options{Bucket: &rewriting{Bucket: b, t: t}, Lanes: 1, UntilEnd: true, Logger: slog.New(slog.DiscardHandler)}
	s, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := read(t, s, stream.Position{})
	if len(got) != 26 || got[24] != "old" || got[25] != "!"+ReasonChanged+":" || s.Changed() != 1 {
		t.Errorf("%d records, the last %q; %d changed", len(got), got[len(got)-1], s.Changed())
	}
}

// rewriting breaks the first reading off, and writes the object anew.
type rewriting struct {
	bucket.Bucket
	t    *testing.T
	done bool
}

func (r *rewriting) Close() error { return nil }

func (r *rewriting) Read(ctx context.Context, name string, offset int64) (in io.ReadCloser, err error) {
	in, err = r.Bucket.Read(ctx, name, offset)
	if err != nil || r.done {
		return in, err
	}
	r.done = true
	put(r.t, r.Bucket, name, strings.Repeat("new\n", 200))
	return &torn{in, 100}, nil
}

// What was added to a run that has ended is named.
func TestAdditions(t *testing.T) {
	b := bucket.Memory()
	create(t, b, "in/a.ndjson", "1\n")
	create(t, b, "in/b.ndjson", "2\n")
	_, at := read(t, open(t, b, Options{}), stream.Position{})
	ends := map[string]stream.Position{"lane-000": at[len(at)-1], "lane-001": {}}
	for _, c := range []struct {
		change func()
		want   []string
	}{
		{func() {}, nil},
		{func() { create(t, b, "in/c.ndjson", "345\n") }, []string{"in/c.ndjson: added, 4 bytes"}},
		{func() { put(t, b, "in/b.ndjson", "22\n") }, []string{"in/b.ndjson: written anew", "in/c.ndjson: added, 4 bytes"}},
	} {
		c.change()
		if got, err := open(t, b, Options{}).Additions(t.Context(), ends); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q, %v, want %q", got, err, c.want)
		}
	}
	for i := range 30 {
		create(t, b, "in/d"+strings.Repeat("x", i)+".ndjson", "")
	}
	got, err := open(t, b, Options{}).Additions(t.Context(), ends)
	if err != nil || len(got) != mostAdded+1 || got[mostAdded] != "and 12 more" {
		t.Errorf("%q, %v", got, err)
	}
}

// asked notes which prefixes are listed.
type asked struct {
	bucket.Bucket
	prefixes []string
}

func (a *asked) Objects(ctx context.Context, prefix string) ([]bucket.Info, error) {
	a.prefixes = append(a.prefixes, prefix)
	return a.Bucket.Objects(ctx, prefix)
}

// A file alone is read without a look at what else its folder holds.
func TestOnly(t *testing.T) {
	b := &asked{Bucket: kept{bucket.Memory()}}
	for _, object := range []string{"x.csv", "x.csv.gz", "y.csv", "deep/x.csv"} {
		create(t, b, object, "id\n"+object+"\n")
	}
	if got, _ := read(t, open(t, b, Options{Only: "x.csv"}), stream.Position{}); !slices.Equal(got, []string{`{"id":"x.csv"}`}) {
		t.Errorf("%q", got)
	}
	if slices.ContainsFunc(b.prefixes, func(p string) bool { return p != "x.csv" }) {
		t.Errorf("listed %q", b.prefixes)
	}
}

// A run over more objects than its lanes remember goes on with a warning when they may be moved away.
func TestRoomWarning(t *testing.T) {
	var said bytes.Buffer
	s := &Source{o: Options{Lanes: 1, Logger: slog.New(slog.NewTextHandler(&said, nil))}}
	if err := s.roomy(make([]bucket.Info, MaxNames)); err != nil || said.Len() > 0 {
		t.Errorf("%v, %s", err, &said)
	}
	if err := s.roomy(make([]bucket.Info, MaxNames+1)); err != nil || !strings.Contains(said.String(), "lanes=2") {
		t.Errorf("%v, %s", err, &said)
	}
	if got := enough(5_000_000); got != "several pipelines" {
		t.Errorf("5 million: %s", got)
	}
}
