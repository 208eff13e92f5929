package service

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/millstream/millstream/enrich"
	"github.com/millstream/millstream/query"
)

// querySettings are the settings of a command line.
func querySettings(t *testing.T, args ...string) *QuerySettings {
	t.Helper()
	s := &QuerySettings{}
	f := pflag.NewFlagSet("test", pflag.ContinueOnError)
	s.Register(f)
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEnrichSettings(t *testing.T) {
	for raw, want := range map[string]string{
		"users.csv":                                        "write NAME=URL",
		"http://host/users?on=id":                          "write NAME=URL",
		"user=":                                            "is missing",
		"user=dynamodb://users":                            "add on=FIELD",
		"user=dynamodb://users?on=id&ttl=5":                "ttl=5: want a duration",
		"user=dynamodb://users?on=id&max=0":                "max=0: keep one row",
		"user=dynamodb://users?on=id&max=9KiB":             "keep 1MiB at least",
		"user=dynamodb://users?on=id&calls=0":              "want 1 to 1000",
		"user=dynamodb://users?on=id&rate=-1":              "want calls a second",
		"user=dynamodb://users?on=id&on=x":                 "is given twice",
		"user=dynamodb://users?on=id&missing=no":           "missing=no",
		"user=dynamodb://users?on=id&on-error=skip":        "it is one of wait, stale, missing, dead-letter",
		"user=dynamodb://users?on=id&on-error=dead-lette":  "did you mean dead-letter?",
		"user=redis://h?on=id&password=hunter2":            "password is given in clear: give it as a reference",
		"user=mysql://root:hunter2@h/db/t?on=id":           "has a password in it",
		"user=http://h/{key}?on=id&authorization=Bearer+x": "authorization is given in clear",
		"user=dynamodb://users?on=id&as-of=since":          "want two fields",
	} {
		s := querySettings(t, "--source", "x.ndjson", "--enrich", raw)
		_, err := s.Compile()
		if err == nil || !strings.Contains(err.Error(), want) || ExitCode(err) != 2 || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, exit %d; want %q", raw, err, ExitCode(err), want)
		}
	}
	for raw, want := range map[string]string{
		"user=nowhere.csv?on=id":                  "no such file",
		"user=dynamdb://users?on=id":              "did you mean dynamodb?",
		"user=dynamodb://users?on=id&consistnt=1": "did you mean consistent?",
		"user=dynamodb://users?on=id&as-of=a,b":   "for file tables and SQL",
		"user=postgres://host/db?on=id":           "write postgres://HOST[:PORT]/DATABASE/TABLE",
		"user=redis://host/x?on=id":               "not the number of a database",
		"user=http://host/{key}?on=id&batch=many": "want a number",
	} {
		s := querySettings(t, "--source", "x.ndjson", "--enrich", raw)
		if _, err := s.Compile(); err != nil {
			t.Fatal(err)
		}
		_, err := openTable(t.Context(), &s.enrichments[0], nil)
		if err == nil || !strings.Contains(err.Error(), want) || ExitCode(err) != 2 {
			t.Errorf("%s: %v, exit %d; want %q", raw, err, ExitCode(err), want)
		}
	}
}

func TestEnrichParameters(t *testing.T) {
	s := querySettings(t, "--source", "x.ndjson", "--enrich", "user=redis://h?on=id&select=a,b&ttl=1m&absent-ttl=2s&revalidate=3s&max-stale=4s&timeout=5s&calls=6&rate=7&max=8&missing=drop&on-error=stale&default.a=x&prefix=p:")
	if _, err := s.Compile(); err != nil {
		t.Fatal(err)
	}
	e := s.enrichments[0]
	c := e.cache
	if c.TTL != time.Minute || c.AbsentTTL != 2*time.Second || c.Revalidate != 3*time.Second || c.MaxStale != 4*time.Second || c.Timeout != 5*time.Second ||
		c.Calls != 6 || c.Rate != 7 || c.Max != 8 || c.OnError != enrich.Stale || e.query.Missing != query.MissingDrop || e.query.Defaults["a"] != "x" ||
		strings.Join(e.query.Select, ",") != "a,b" || len(e.params) != 1 || e.params.Get("prefix") != "p:" {
		t.Errorf("%+v %+v %v", c, e.query, e.params)
	}
}

// The row that was valid at the event's time, from flags to rows.
func TestEnrichAsOf(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	rates := put("rates.csv", "currency,rate,since,until\nEUR,1,,2026-01-01\nEUR,2,2026-01-01,2026-02-01\nEUR,3,2026-02-01,\n")
	in := put("in.ndjson", `{"c":"EUR","at":"2026-01-31T23:59:59Z"}`+"\n"+`{"c":"EUR","at":"2026-02-01T00:00:00Z"}`+"\n"+`{"c":"EUR","at":"1999-01-01T00:00:00Z"}`+"\n")
	s := querySettings(t, "--source", in, "--until-end", "--sink", filepath.Join(dir, "out"), "--checkpoint", filepath.Join(dir, "state"), "--http", "",
		"--enrich", "money="+rates+"?key=currency&on=c&as-of=since,until", "--time", "at", "--select", "int(money.rate) as rate")
	if err := RunQuery(t.Context(), s, io.Discard); err != nil {
		t.Fatal(err)
	}
	names, _ := filepath.Glob(filepath.Join(dir, "out", "*.ndjson"))
	var rows string
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		rows += string(data)
	}
	if rows != `{"rate":2}`+"\n"+`{"rate":3}`+"\n"+`{"rate":1}`+"\n" {
		t.Errorf("got %s", rows)
	}
}

// A run with an enrichment from flags to rows; its cache is on the status page while it runs, and its keys are
// remembered beside the log.
func TestEnrichEndToEnd(t *testing.T) {
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("Authorization") != "Bearer s3cret" {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		switch key := r.URL.Path[len("/users/"):]; key {
		case "a", "b":
			_, _ = io.WriteString(w, `{"tier":"`+key+`-tier","secret":"x"}`)
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	dir := t.TempDir()
	in := filepath.Join(dir, "in.ndjson")
	if err := os.WriteFile(in, []byte(strings.Repeat(`{"u":"a"}`+"\n"+`{"u":"b"}`+"\n"+`{"u":"c"}`+"\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("Bearer s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := querySettings(t, "--source", in, "--until-end", "--sink", filepath.Join(dir, "out"), "--checkpoint", filepath.Join(dir, "state"), "--http", "", "--log-format", "json",
		"--enrich", "user="+server.URL+"/users/{key}?on=u&probe=a&default.tier=none&authorization=file://"+token, "--select", "u, user.tier ?? 'nobody' as tier")
	var log bytes.Buffer
	if err := RunQuery(t.Context(), s, &log); err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	if strings.Contains(log.String(), "s3cret") {
		t.Error("the secret is in the log")
	}
	counts := map[string]int{}
	names, err := filepath.Glob(filepath.Join(dir, "out", "*.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(data) {
			counts[strings.TrimSpace(string(line))]++
		}
	}
	for _, row := range []string{`{"u":"a","tier":"a-tier"}`, `{"u":"b","tier":"b-tier"}`, `{"u":"c","tier":"nobody"}`} {
		if counts[row] != 100 {
			t.Errorf("%s: %d times", row, counts[row])
		}
	}
	if n := asked.Load(); n > 4 {
		t.Errorf("asked %d times", n)
	}
	var keys []string
	data, err := os.ReadFile(filepath.Join(dir, "state", "main", "cache", "user.json"))
	if err != nil || json.Unmarshal(data, &keys) != nil || len(keys) != 3 {
		t.Errorf("%s, %v", data, err)
	}
	s = querySettings(t, "--source", in, "--sink", filepath.Join(dir, "out2"), "--checkpoint", "mem:", "--enrich", "user="+server.URL+"/users/{key}?on=u&probe=nobody&authorization=file://"+token)
	var page bytes.Buffer
	if err := CheckQuery(t.Context(), s, &page); err == nil || ExitCode(err) != 2 || !strings.Contains(err.Error(), "probe") {
		t.Errorf("a probe that is not there: %v", err)
	}
	server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := RunQuery(ctx, s, io.Discard); err != nil && (ExitCode(err) != 1 || errors.Is(err, context.Canceled)) {
		t.Errorf("a backend that is away: exit %d, %v", ExitCode(err), err)
	}
}
