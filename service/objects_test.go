package service_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/service"
	"github.com/millstream/millstream/stream"
)

// rowsOf runs a query from a source to a folder, and returns its rows.
func rowsOf(t *testing.T, source string) (rows []string, log string) {
	t.Helper()
	s := settings(t, "--source", source, "--until-end")
	out := t.TempDir()
	s.Sinks, s.Checkpoint = []string{out}, t.TempDir()
	var said bytes.Buffer
	if err := service.RunQuery(t.Context(), s, &said); err != nil {
		t.Fatalf("%s: %v\n%s", source, err, &said)
	}
	files, err := filepath.Glob(filepath.Join(out, "*.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, strings.Fields(string(data))...)
	}
	slices.Sort(rows)
	return rows, said.String()
}

// Folders, single files and buckets are read whatever their files hold.
func TestObjects(t *testing.T) {
	dir := t.TempDir()
	var gz bytes.Buffer
	z := gzip.NewWriter(&gz)
	if _, err := io.WriteString(z, "{\"n\":4}\n"); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	content := map[string]string{"a.csv": "n\n1\n", "sub/b.json": `[{"n":2},{"n":3}]`, "c.ndjson.gz": gz.String()}
	for name, data := range content {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	backend := s3mem.New()
	if err := backend.CreateBucket("files"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(gofakes3.New(backend).Server())
	defer server.Close()
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "testtest")
	t.Setenv("AWS_REGION", "us-east-1")
	at := "?region=us-east-1&endpoint=" + server.URL
	b, err := bucket.Open(t.Context(), "s3://files/raw"+at)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for name, data := range content {
		if err := b.Create(t.Context(), name, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	all := []string{`{"n":"1"}`, `{"n":2}`, `{"n":3}`, `{"n":4}`}
	for source, want := range map[string][]string{
		dir + "?format=auto":                      all,
		"file://" + dir + "?watch=1s&lanes=3":     all,
		filepath.Join(dir, "a.csv"):               {`{"n":"1"}`},
		filepath.Join(dir, "sub/b.json"):          {`{"n":2}`, `{"n":3}`},
		filepath.Join(dir, "c.ndjson.gz"):         {`{"n":4}`},
		filepath.Join(dir, "a.csv?format=ndjson"): {"1", "n"}, // its lines, which are no objects: see below
		"s3://files/raw" + at:                     all,
	} {
		rows, log := rowsOf(t, source)
		if strings.Contains(source, "format=ndjson") {
			if len(rows) != 0 || !strings.Contains(log, "2 undecodable") {
				t.Errorf("%s: %q\n%s", source, rows, log)
			}
			continue
		}
		if !slices.Equal(rows, want) {
			t.Errorf("%s: %q, want %q", source, rows, want)
		}
	}
	var said bytes.Buffer
	s := settings(t, "--source", "s3://files/raw"+at)
	s.Sinks, s.Checkpoint = []string{t.TempDir()}, t.TempDir()
	if err := service.Check(t.Context(), &s.Settings, stream.Plan{}, nil, &said); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"8 partitions", "exactly once", "s3:GetObject on files/raw/*, s3:ListBucket on files"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("check does not say %q:\n%s", want, &said)
		}
	}
}

func TestObjectsRefused(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ source, sink, want string }{
		{dir + "?format=xml", "", "format=xml: it is ndjson, json, csv or auto"},
		{dir + "?format=csv&watch=soon", "", "watch=soon: want a duration"},
		{dir + "?format=csv&lanes=0", "", "lanes=0: want a number from 1 to 256"},
		{dir + "?format=csv&formt=csv", "", "has no parameter formt: did you mean format?"},
		{dir + "/none?format=csv", "", "no such file or folder"},
		{dir + "/none.csv", "", "no such file or folder"},
		{dir + "?format=auto", dir + "/out", "lies in what --source reads"},
		{"file://" + dir + "?format=auto", dir, "lies in what --source reads"},
	} {
		s := settings(t, "--source", c.source, "--until-end")
		s.Sinks, s.Checkpoint = []string{t.TempDir()}, t.TempDir()
		if c.sink != "" {
			s.Sinks = []string{c.sink}
		}
		if err := service.RunQuery(t.Context(), s, io.Discard); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s to %s: %v, want %q", c.source, c.sink, err, c.want)
		}
	}
}
