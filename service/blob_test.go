package service_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millstream/millstream/service"
)

// TestBlobSettings: a slip in a sink's parameters is an error that says what to write.
func TestBlobSettings(t *testing.T) {
	dir := t.TempDir()
	in := filepath.Join(dir, "in.ndjson")
	if err := os.WriteFile(in, []byte("{}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]string{
		"?fromat=csv": "did you mean format?", "?format=parket": "did you mean parquet?", "?format=x": "want ndjson, csv or parquet",
		"?compression=gz": "want none, gzip, zstd or snappy", "?compression=snappy": "compression=snappy", "?roll=5": "want a duration such as 5m",
		"?roll=-5m": "want a duration", "?roll-size=128MiBs": "want a size such as 128MiB", "?roll-size=0": "want a size",
		"?path=dt={t:yyyy}": "as Go does", "?path=/x": "begins with /", "?schema=a:int64": "schema= is for csv and parquet",
		"?format=csv&schema=a:int": "no type", "?format=": "is empty", "?format=csv&format=csv": "given twice", "?region=x": "has no parameter region",
		"?format=csv&unknown=ignore": "needs schema=",
	} {
		s := settings(t, "--source", in, "--until-end")
		s.Sinks = []string{filepath.Join(dir, "out") + url}
		var setting *service.SettingError
		err := service.RunQuery(t.Context(), s, io.Discard)
		if !errors.As(err, &setting) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "--sink") {
			t.Errorf("%s: %v, want %s", url, err, want)
		}
	}
	s := settings(t, "--source", in, "--until-end")
	s.Sinks = []string{filepath.Join(dir, "out"), filepath.Join(dir, "out") + "?format=csv"}
	if err := service.RunQuery(t.Context(), s, io.Discard); err == nil || !strings.Contains(err.Error(), "a place of its own") {
		t.Errorf("two sinks in one folder: %v", err)
	}
	for _, url := range []string{"?format=csv", "?roll=5m", "?path=a"} {
		s := settings(t, "--source", in, "--until-end", "--dead-letter", filepath.Join(dir, "dead")+url)
		s.Sinks = []string{filepath.Join(dir, "out")}
		if err := service.RunQuery(t.Context(), s, io.Discard); err == nil || !strings.Contains(err.Error(), "dead letters") {
			t.Errorf("dead letters with %s: %v", url, err)
		}
	}
}

// TestBlobRun: rows arrive in the files that a sink's URL asks for.
func TestBlobRun(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.ndjson"), filepath.Join(dir, "out")
	if err := os.WriteFile(in, []byte("{\"r\":\"eu\",\"n\":1}\n{\"r\":\"us\",\"n\":2}\n{\"r\":\"eu\",\"n\":3}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := settings(t, "--source", in, "--until-end")
	s.Checkpoint = filepath.Join(dir, "state")
	s.Sinks = []string{out + "?format=csv&path=region={r}&roll=1h&roll-size=1GiB"}
	if err := service.RunQuery(t.Context(), s, io.Discard); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, region := range []string{"eu", "us"} {
		names, err := filepath.Glob(filepath.Join(out, "region="+region, "*.csv"))
		if err != nil || len(names) != 1 {
			t.Fatalf("%s: %q, %v", region, names, err)
		}
		text, err := os.ReadFile(names[0])
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(text))
	}
	if !slices.Equal(got, []string{"r,n\neu,1\neu,3\n", "r,n\nus,2\n"}) {
		t.Errorf("%q", got)
	}
}
