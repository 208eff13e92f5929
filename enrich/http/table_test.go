package http

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millstream/millstream/enrich"
	"github.com/millstream/millstream/enrich/enrichtest"
)

// service is a table of users, asked as every interface that this driver knows.
type service struct {
	*httptest.Server
	mu    sync.Mutex
	users map[string]json.RawMessage
}

func serve(t *testing.T) *service {
	s := &service{users: map[string]json.RawMessage{}}
	mux := nethttp.NewServeMux()
	one := func(w nethttp.ResponseWriter, key string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if user := s.users[key]; user != nil {
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			_, _ = w.Write(user)
			return
		}
		nethttp.Error(w, "no such user", nethttp.StatusNotFound)
	}
	mux.HandleFunc("GET /users/{key}", func(w nethttp.ResponseWriter, r *nethttp.Request) { one(w, r.PathValue("key")) })
	mux.HandleFunc("GET /user", func(w nethttp.ResponseWriter, r *nethttp.Request) { one(w, r.URL.Query().Get("id")) })
	many := func(r *nethttp.Request) map[string]json.RawMessage {
		var keys []string
		if err := json.NewDecoder(r.Body).Decode(&keys); err != nil {
			panic(err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		found := map[string]json.RawMessage{}
		for _, key := range keys {
			if user := s.users[key]; user != nil {
				found[key] = user
			}
		}
		return found
	}
	mux.HandleFunc("POST /object", func(w nethttp.ResponseWriter, r *nethttp.Request) { _ = json.NewEncoder(w).Encode(many(r)) })
	mux.HandleFunc("POST /array", func(w nethttp.ResponseWriter, r *nethttp.Request) {
		users := []map[string]any{}
		for key, user := range many(r) {
			row := map[string]any{}
			_ = json.Unmarshal(user, &row)
			row["id"] = key
			users = append(users, row)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"data": map[string]any{"users": users}})
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *service) put(key, row string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[key] = json.RawMessage(row)
}

// shapes are the interfaces of a service.
var shapes = map[string]func(s *service) Options{
	"path":   func(s *service) Options { return Options{URL: s.URL + "/users/{key}"} },
	"query":  func(s *service) Options { return Options{URL: s.URL + "/user?v=1&id={key}&x=y"} },
	"object": func(s *service) Options { return Options{URL: s.URL + "/object"} },
	"array": func(s *service) Options {
		return Options{URL: s.URL + "/array", Rows: "data.users", Key: "id", Batch: 300}
	},
}

func TestSuite(t *testing.T) {
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			enrichtest.Run(t, func(t *testing.T) *enrichtest.Harness {
				s := serve(t)
				o := shape(s)
				return &enrichtest.Harness{
					Table:    openTable(t, o),
					KeyField: o.Key,
					Put: func(_ context.Context, key string, row map[string]any) error {
						text, err := json.Marshal(row)
						s.put(key, string(text))
						return err
					},
					Delete: func(_ context.Context, key string) error {
						s.mu.Lock()
						defer s.mu.Unlock()
						delete(s.users, key)
						return nil
					},
					Select: func(fields ...string) (enrich.Table, error) {
						o := o
						o.Select = fields
						return New(t.Context(), o)
					},
					Down: s.Close,
				}
			})
		})
	}
}

func openTable(t *testing.T, o Options) *Table {
	t.Helper()
	table, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = table.Close() })
	return table
}

// answering is a table over a server that does what handle does, and has not been asked yet.
func answering(t *testing.T, o Options, handle nethttp.HandlerFunc) *Table {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	o.URL = s.URL + o.URL
	table, err := open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = table.Close() })
	return table
}

// outcomes is what a lookup answers, by key: the row's JSON, "!malformed", "!" and why, or nothing for absent.
// The call's error is under "*".
func outcomes(ctx context.Context, table *Table, keys ...string) map[string]string {
	rows, err := table.Lookup(ctx, keys)
	out := map[string]string{}
	for key, row := range rows {
		out[key] = string(row[0].JSON)
	}
	var failed *enrich.Failed[string]
	switch {
	case errors.As(err, &failed):
		for key, err := range failed.Keys {
			if out[key] = "!" + err.Error(); errors.Is(err, enrich.ErrMalformed) {
				out[key] = "!malformed"
			}
		}
	case err != nil:
		out["*"] = err.Error()
	}
	return out
}

// like asserts outcomes. What is wanted of an error is a part of it.
func like(t *testing.T, name string, got, want map[string]string) {
	t.Helper()
	ok := len(got) == len(want)
	for key, want := range want {
		ok = ok && (got[key] == want || want != "!malformed" && strings.HasPrefix(want, "!") && strings.HasPrefix(got[key], "!") && strings.Contains(got[key], want[1:]) || key == "*" && strings.Contains(got[key], want))
	}
	if !ok {
		t.Errorf("%s: got %.600q, want %.300q", name, fmt.Sprint(got), fmt.Sprint(want))
	}
}

func write(contentType, body string) nethttp.HandlerFunc {
	return func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write([]byte(body))
	}
}

func status(code int, header ...string) nethttp.HandlerFunc {
	return func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

// raw answers with these bytes and closes the connection.
func raw(text string) nethttp.HandlerFunc {
	return func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		conn, _, err := w.(nethttp.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = conn.Write([]byte(text))
		_ = conn.Close()
	}
}

func compressed(body string) nethttp.HandlerFunc {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write([]byte(body))
	_ = w.Close()
	return func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		w.Header().Set("Content-Type", jsonType)
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(out.Bytes())
	}
}

const jsonType = "application/json"

// TestOneByOne: what an answer says of its key, beside one that is answered well.
func TestOneByOne(t *testing.T) {
	large := `{"a":"` + strings.Repeat("x", maxOne) + `"}`
	for name, c := range map[string]struct {
		o      Options
		handle nethttp.HandlerFunc
		want   string // "" for absent
	}{
		"row":              {Options{}, write(jsonType, "\n{ \"n\": 9007199254740993 }\n"), `{"n":9007199254740993}`},
		"other JSON type":  {Options{}, write("application/vnd.api+json", `{}`), "{}"},
		"no type":          {Options{}, write("", `{}`), "{}"},
		"plain":            {Options{}, write("text/plain; charset=utf-8", `{}`), "{}"},
		"inside":           {Options{Rows: "data.user"}, write(jsonType, `{"data":{"user":{"a":1}}}`), `{"a":1}`},
		"inside null":      {Options{Rows: "data.user"}, write(jsonType, `{"data":{"user":null}}`), ""},
		"not inside":       {Options{Rows: "data.user"}, write(jsonType, `{"data":{}}`), "!malformed"},
		"nothing to be in": {Options{Rows: "data.user"}, write(jsonType, `{"data":null}`), "!malformed"},
		"selected":         {Options{Select: []string{"a.b"}}, write(jsonType, `{"a":{"b":1,"c":2},"d":3}`), `{"a":{"b":1}}`},
		"null":             {Options{}, write(jsonType, ` null `), ""},
		"404":              {Options{}, status(404), ""},
		"410":              {Options{}, status(410), ""},
		"compressed":       {Options{}, compressed(`{"a":1}`), `{"a":1}`},
		"compressed, huge": {Options{}, compressed(`{"a":"` + strings.Repeat("x", 8<<20) + `"}`), "!malformed"},
		"array":            {Options{}, write(jsonType, `[{}]`), "!malformed"},
		"string":           {Options{}, write(jsonType, `"{}"`), "!malformed"},
		"empty":            {Options{}, write(jsonType, ``), "!malformed"},
		"not JSON":         {Options{}, write(jsonType, `{"a":`), "!malformed"},
		"two":              {Options{}, write(jsonType, `{}{}`), "!malformed"},
		"not UTF-8":        {Options{}, write(jsonType, "{\"a\":\"\xff\"}"), "!malformed"},
		"large":            {Options{}, write(jsonType, large), "!malformed"},
		"page":             {Options{}, write("text/html", `{}`), `!"text/html", not JSON`},
		"no content":       {Options{}, status(204), "!status 204"},
		"created":          {Options{}, status(201), "!status 201"},
		"not modified":     {Options{}, status(304), "!status 304"},
		"bad request":      {Options{}, status(400), "!status 400"},
		"unauthorized":     {Options{}, status(401), "!status 401"},
		"throttled":        {Options{}, status(429, "Retry-After", "7"), "!status 429 Too Many Requests, to be asked again after 7s"},
		"unavailable":      {Options{}, status(503, "Retry-After", "x"), "!status 503"},
		"failed":           {Options{}, status(500), "!status 500"},
		"redirect":         {Options{}, status(302, "Location", "https://elsewhere.example/?token=s3cret"), "!redirects to https://elsewhere.example: "},
		"other port":       {Options{}, status(307, "Location", "http://127.0.0.1:1/"), "!redirects to http://127.0.0.1:1: "},
		"circle":           {Options{}, status(302, "Location", "/"), "!redirects more than three times"},
		"cut off":          {Options{}, raw("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{}"), "!cut off"},
		"cut chunks":       {Options{}, raw("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"), "!cut off"},
		"perhaps cut off":  {Options{}, raw("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{\"a\":"), "!cut off"},
		"until it closes":  {Options{}, raw("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{\"a\":1}"), `{"a":1}`},
		"nothing":          {Options{}, raw(""), "!EOF"},
		"not HTTP":         {Options{}, raw("220 ftp.example FTP server ready\r\n"), "!malformed HTTP"},
		"huge header":      {Options{}, raw("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2*maxHeader)), "!header"},
	} {
		o := c.o
		o.URL = "/{key}"
		table := answering(t, o, func(w nethttp.ResponseWriter, r *nethttp.Request) {
			if r.URL.Path == "/good" {
				row := `{"good":true,"a":{"b":true}}`
				for _, field := range slices.Backward(names(o.Rows)) {
					row = `{"` + field + `":` + row + `}`
				}
				write(jsonType, row)(w, r)
				return
			}
			c.handle(w, r)
		})
		want := map[string]string{"good": `{"good":true,"a":{"b":true}}`}
		if o.Select != nil {
			want["good"] = `{"a":{"b":true}}`
		}
		if c.want != "" {
			want["k"] = c.want
		}
		got := outcomes(t.Context(), table, "k", "good")
		like(t, name, got, want)
		if strings.Contains(fmt.Sprint(got), "s3cret") {
			t.Errorf("%s: %v tells a secret", name, got)
		}
		// Alone, a failure that is not the row's own is the call's.
		got = outcomes(t.Context(), table, "k")
		if why, failed := strings.CutPrefix(c.want, "!"); failed && c.want != "!malformed" {
			like(t, name+", alone", got, map[string]string{"*": why})
		} else {
			delete(want, "good")
			like(t, name+", alone", got, want)
		}
	}
}

func names(dotted string) []string {
	all, _ := path("", dotted)
	return all
}

// TestBatch: what an answer to k, l and m says of them.
func TestBatch(t *testing.T) {
	all := func(outcome string) map[string]string {
		return map[string]string{"k": outcome, "l": outcome, "m": outcome}
	}
	wrong := func(part string) map[string]string { return map[string]string{"*": part} }
	byKey, inArray := Options{}, Options{Key: "id"}
	for name, c := range map[string]struct {
		o      Options
		handle nethttp.HandlerFunc
		want   map[string]string
	}{
		"all":              {byKey, write(jsonType, `{"k":{"a":1},"l":{"a":1},"m":{ "a":1}}`), all(`{"a":1}`)},
		"some":             {byKey, write(jsonType, `{"l":{"a":1},"m":null}`), map[string]string{"l": `{"a":1}`}},
		"none":             {byKey, write(jsonType, `{}`), map[string]string{}},
		"one is malformed": {byKey, write(jsonType, `{"l":{"a":1},"m":7}`), map[string]string{"l": `{"a":1}`, "m": "!malformed"}},
		"one is too large": {byKey, write(jsonType, `{"l":{"a":1},"m":{"a":"`+strings.Repeat("x", enrich.MaxRow)+`"}}`), map[string]string{"l": `{"a":1}`, "m": "!malformed"}},
		"one is twice":     {byKey, write(jsonType, `{"l":{"a":1},"m":{"a":1},"m":{"a":2}}`), map[string]string{"l": `{"a":1}`, "m": "!malformed"}},
		"inside":           {Options{Rows: "data"}, write(jsonType, `{"data":{"l":{"a":1}}}`), map[string]string{"l": `{"a":1}`}},
		"not inside":       {Options{Rows: "data"}, write(jsonType, `{"l":{"a":1}}`), wrong(`without field "data"`)},
		"an excuse":        {byKey, write(jsonType, `{"error":"try later"}`), wrong(`"error", which was not asked for`)},
		"not an object":    {byKey, write(jsonType, `[{"id":"k"}]`), wrong("not an object of rows")},
		"null":             {byKey, write(jsonType, `null`), wrong("not an object of rows")},
		"not JSON":         {byKey, write(jsonType, `{"k":{"a":1},`), wrong("not JSON")},
		"two":              {byKey, write(jsonType, `{}{}`), wrong("not JSON")},
		"cut off":          {byKey, raw("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"k\":{}}"), wrong("cut off")},
		"page":             {byKey, write("text/html", `{}`), wrong("not JSON")},
		"404":              {byKey, status(404), wrong("status 404")},
		"throttled":        {byKey, status(429, "Retry-After", "3"), wrong("after 3s")},
		"too many":         {byKey, status(413), wrong("status 413")},
		"redirect":         {byKey, status(303, "Location", "/"), wrong("redirects a POST to a GET")},

		"array":              {inArray, write(jsonType, `[{"id":"m","a":1},{"id":"k"}]`), map[string]string{"k": `{"id":"k"}`, "m": `{"id":"m","a":1}`}},
		"array of none":      {inArray, write(jsonType, `[]`), map[string]string{}},
		"array inside":       {Options{Key: "user.id", Rows: "a.b"}, write(jsonType, `{"a":{"b":[{"user":{"id":"k"}}]}}`), map[string]string{"k": `{"user":{"id":"k"}}`}},
		"array twice":        {inArray, write(jsonType, `[{"id":"m"},{"id":"k"},{"id":"m"}]`), map[string]string{"k": `{"id":"k"}`, "m": "!malformed"}},
		"array of strangers": {inArray, write(jsonType, `[{"id":"m"},{"id":"M"}]`), wrong(`"M", which was not asked for`)},
		"array without keys": {inArray, write(jsonType, `[{"id":"m"},{"ID":"k"}]`), wrong("without its key")},
		"array of nulls":     {inArray, write(jsonType, `[{"id":"m"},null]`), wrong("without its key")},
		"array, odd key":     {inArray, write(jsonType, `[{"id":["m"]}]`), wrong("neither a string nor a number")},
		"array is an object": {inArray, write(jsonType, `{"m":{"id":"m"}}`), wrong("not an array")},
		"array is null":      {inArray, write(jsonType, `null`), wrong("not an array")},
	} {
		table := answering(t, c.o, c.handle)
		like(t, name, outcomes(t.Context(), table, "l", "m", "k", "l"), c.want)
	}
	like(t, "huge", outcomes(t.Context(), answering(t, byKey, write(jsonType, `{"k":"`+strings.Repeat("x", maxBatch))), "k"), map[string]string{"k": "!malformed"})
	numbers := answering(t, inArray, write(jsonType, `[{"id":7},{"id":1.0},{"id":-0.5},{"id":9007199254740993},{"id":1e3},{"id":true}]`))
	got := outcomes(t.Context(), numbers, "7", "1", "-0.5", "9007199254740993", "1000", "true", "8")
	if len(got) != 6 || got["9007199254740993"] != `{"id":9007199254740993}` {
		t.Errorf("rows whose keys are numbers: %v", got)
	}
	like(t, "not UTF-8", outcomes(t.Context(), answering(t, byKey, write(jsonType, `{"k":{}}`)), "k", "\xff"), map[string]string{"k": "{}", "\xff": "!malformed"})
}

// TestBatchInHalves: a batch whose answer, or question, is too large is asked for in parts, and a row that is
// too large alone does not take others with it.
func TestBatchInHalves(t *testing.T) {
	const bound = 64 << 10
	row := `{"a":"` + strings.Repeat("x", bound/16) + `"}` // 20 of them are more than an answer may be
	var keys []string
	for i := range 20 {
		keys = append(keys, fmt.Sprint(i))
	}
	var asked atomic.Int32
	rowsOf := func(most int, poison string) nethttp.HandlerFunc {
		return func(w nethttp.ResponseWriter, r *nethttp.Request) {
			asked.Add(1)
			var keys []string
			_ = json.NewDecoder(r.Body).Decode(&keys)
			if len(keys) > most {
				w.WriteHeader(nethttp.StatusRequestEntityTooLarge)
				return
			}
			_, _ = w.Write([]byte("{"))
			for i, key := range keys {
				text := row
				if key == poison {
					text = `{"a":"` + strings.Repeat("x", bound) + `"}`
				} else if poison != "" || most < 100 {
					text = "{}"
				}
				if i > 0 {
					_, _ = w.Write([]byte(","))
				}
				_, _ = w.Write([]byte(`"` + key + `":` + text))
			}
			_, _ = w.Write([]byte("}"))
		}
	}
	for _, c := range []struct {
		name, poison string
		most, asked  int
	}{{"large together", "", 100, 3}, {"one large", "7", 100, 11}, {"a server with a bound", "", 5, 7}} {
		asked.Store(0)
		table := answering(t, Options{}, rowsOf(c.most, c.poison))
		table.most = bound
		got := outcomes(t.Context(), table, keys...)
		for _, key := range keys {
			if want := map[bool]string{true: "!malformed", false: "{"}[key == c.poison]; !strings.HasPrefix(got[key], want) {
				t.Errorf("%s: %s is %.40q", c.name, key, got[key])
			}
		}
		if n := int(asked.Load()); n > c.asked || n < 3 {
			t.Errorf("%s: asked %d times, wanted %d", c.name, n, c.asked)
		}
	}
}

// TestRequests: what is sent.
func TestRequests(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	record := func(w nethttp.ResponseWriter, r *nethttp.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, strings.Join([]string{r.Method, r.RequestURI, r.Header.Get("Authorization"), r.Header.Get("Accept"), r.Header.Get("Content-Type")}, " "))
		w.WriteHeader(nethttp.StatusNotFound)
	}
	header := nethttp.Header{"Authorization": {"Bearer s3cret"}}
	paths := answering(t, Options{URL: "/v1/users/{key}/profile?v=2", Header: header}, record)
	got := outcomes(t.Context(), paths, "a/b", "a b", "ä?x=1&y#z%41", "", ".", "..", "...", "a+b")
	like(t, "paths", got, map[string]string{})
	query := answering(t, Options{URL: "/users?id={key}&v=2", Header: header}, record)
	like(t, "query", outcomes(t.Context(), query, "a&b", "", ".."), map[string]string{})
	batch := answering(t, Options{URL: "/users?v=2", Header: header}, record)
	like(t, "batch", outcomes(t.Context(), batch, "b", "a", "b"), map[string]string{"*": "status 404"})
	slices.Sort(seen)
	want := []string{
		"GET /users?id=..&v=2 Bearer s3cret application/json ",
		"GET /users?id=a%26b&v=2 Bearer s3cret application/json ",
		"GET /v1/users/%C3%A4%3Fx=1&y%23z%2541/profile?v=2 Bearer s3cret application/json ",
		"GET /v1/users/.../profile?v=2 Bearer s3cret application/json ",
		"GET /v1/users/a%20b/profile?v=2 Bearer s3cret application/json ",
		"GET /v1/users/a%2Fb/profile?v=2 Bearer s3cret application/json ",
		"GET /v1/users/a+b/profile?v=2 Bearer s3cret application/json ",
		"POST /users?v=2 Bearer s3cret application/json application/json",
	}
	if !slices.Equal(seen, want) {
		t.Errorf("requests:\n%s", strings.Join(seen, "\n"))
	}
}

// TestSecretsStayHome: to a host that a server names nothing is sent.
func TestSecretsStayHome(t *testing.T) {
	var visits atomic.Int32
	elsewhere := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		visits.Add(1)
		_, _ = w.Write([]byte("{}"))
	}))
	t.Cleanup(elsewhere.Close)
	o := Options{URL: "/{key}", Header: nethttp.Header{"Authorization": {"Bearer s3cret"}}}
	table := answering(t, o, status(307, "Location", elsewhere.URL+"/x"))
	like(t, "redirect", outcomes(t.Context(), table, "k"), map[string]string{"*": "redirects to " + elsewhere.URL})
	table.client.CheckRedirect = nil
	like(t, "control", outcomes(t.Context(), table, "k"), map[string]string{"k": "{}"})
	if visits.Load() != 1 {
		t.Errorf("%d visits", visits.Load())
	}
	// One that stays is followed.
	table = answering(t, o, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if r.URL.Path == "/k" {
			nethttp.Redirect(w, r, "/users/k", nethttp.StatusMovedPermanently)
			return
		}
		_, _ = w.Write([]byte(`{"auth":"` + r.Header.Get("Authorization") + `"}`))
	})
	like(t, "same host", outcomes(t.Context(), table, "k"), map[string]string{"k": `{"auth":"Bearer s3cret"}`})
}

// TestBounded: no more requests at once than Concurrency, of all calls together, over as many connections,
// which are used again.
func TestBounded(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		var now, most, connections atomic.Int32
		gate := make(chan struct{})
		s := httptest.NewUnstartedServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			if n == 4 && most.Load() == 4 {
				select {
				case <-gate:
				default:
					close(gate) // four are here at once
				}
			}
			<-gate
			now.Add(-1)
			if http2 != (r.ProtoMajor == 2) {
				t.Errorf("protocol %s", r.Proto)
			}
			w.WriteHeader(nethttp.StatusNotFound)
			_, _ = w.Write(make([]byte, 4000))
		}))
		s.Config.ConnState = func(_ net.Conn, state nethttp.ConnState) {
			if state == nethttp.StateNew {
				connections.Add(1)
			}
		}
		o := Options{Concurrency: 4}
		if s.EnableHTTP2 = http2; http2 {
			s.StartTLS()
			o.Client = s.Client()
		} else {
			s.Start()
		}
		t.Cleanup(s.Close)
		o.URL = s.URL + "/{key}"
		table, err := open(o)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for call := range 3 {
			wg.Go(func() {
				var keys []string
				for i := range 50 {
					keys = append(keys, fmt.Sprint(call, "-", i))
				}
				like(t, "bounded", outcomes(t.Context(), table, keys...), map[string]string{})
			})
		}
		wg.Wait()
		if most.Load() != 4 || connections.Load() > 4 {
			t.Errorf("HTTP/2 %v: %d at once over %d connections", http2, most.Load(), connections.Load())
		}
		if err := table.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestEndless: a body without an end is left at its bound.
func TestEndless(t *testing.T) {
	written := make(chan int, 1)
	table := answering(t, Options{URL: "/{key}"}, func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		chunk, n := bytes.Repeat([]byte(" "), 1<<20), 0
		for n < 64<<20 {
			m, err := w.Write(chunk)
			if n += m; err != nil {
				break
			}
		}
		written <- n
	})
	like(t, "endless", outcomes(t.Context(), table, "k"), map[string]string{"k": "!malformed"})
	if n := <-written; n >= 64<<20 {
		t.Errorf("%d bytes were taken", n)
	}
}

// TestSlow: the call's time ends; what is answered by then is answered.
func TestSlow(t *testing.T) {
	release := make(chan struct{})
	slow := func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if strings.HasPrefix(r.URL.Path, "/slow") {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		_, _ = w.Write([]byte("{}"))
	}
	t.Cleanup(func() { close(release) })
	table := answering(t, Options{URL: "/{key}", Concurrency: 2}, slow)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	like(t, "slow", outcomes(ctx, table, "a", "b", "slow", "slow2", "slow3"), map[string]string{"a": "{}", "b": "{}", "slow": "!deadline", "slow2": "!deadline", "slow3": "!deadline"})
	like(t, "afterwards", outcomes(ctx, table, "a"), map[string]string{"*": "deadline"})
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := table.Lookup(ctx, []string{"slow"}); !errors.Is(err, context.DeadlineExceeded) || errors.As(err, new(*enrich.Failed[string])) {
		t.Errorf("alone: %v", err)
	}
	body := answering(t, Options{}, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		_, _ = w.Write([]byte("{"))
		w.(nethttp.Flusher).Flush()
		<-r.Context().Done()
	})
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	like(t, "slow body", outcomes(ctx, body, "a"), map[string]string{"*": "deadline"})
}

func TestClose(t *testing.T) {
	arrived := make(chan struct{})
	table := answering(t, Options{URL: "/{key}"}, func(_ nethttp.ResponseWriter, r *nethttp.Request) {
		close(arrived)
		<-r.Context().Done()
	})
	go func() {
		<-arrived
		_ = table.Close()
	}()
	for range 2 {
		like(t, "closed", outcomes(t.Context(), table, "a"), map[string]string{"*": "closed"})
	}
}

func TestStatusError(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, "-7": 0, "x": 0, "1.5": 0, "999999": time.Hour, "99999999999999999999": 0,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2026 03:03:05 GMT": 0, "Fri, 02 Jan 2126 03:03:05 GMT": time.Hour,
	} {
		if got := retryAfter(nethttp.Header{"Retry-After": {text}}, now); got != want {
			t.Errorf("%q is %v", text, got)
		}
	}
	table := answering(t, Options{URL: "/{key}"}, status(503, "Retry-After", "2"))
	_, err := table.Lookup(t.Context(), []string{"a"})
	var waits interface{ RetryAfter() time.Duration }
	if !errors.As(err, &waits) || waits.RetryAfter() != 2*time.Second {
		t.Errorf("%v", err)
	}
}

func TestNewSaysWhatIsWrong(t *testing.T) {
	s := serve(t)
	s.put("known", "{}")
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{}, "no URL"},
		{Options{URL: "users/{key}"}, "https://host/path"},
		{Options{URL: "ftp://host/{key}"}, "https://host/path"},
		{Options{URL: "https://app:s3cret@host/{key}"}, "Authorization"},
		{Options{URL: "https://{key}.example/"}, "outside"},
		{Options{URL: "https://host/{key}/{key}"}, "2 times"},
		{Options{URL: "https://host/#{key}"}, "#"},
		{Options{URL: "https://host/%zz{key}?s3cret"}, "cannot be parsed"},
		{Options{URL: s.URL + "/users/{key}", Key: "id"}, "leave Key out"},
		{Options{URL: s.URL + "/users/{key}", Rows: "a..b"}, "rows"},
		{Options{URL: s.URL + "/users/{key}", Select: []string{"a."}}, "select"},
		{Options{URL: s.URL + "/usres/{key}", Probe: "known"}, "no row of the probe"},
		{Options{URL: s.URL + "/users/{key}", Probe: "unknown"}, "no row of the probe"},
		{Options{URL: s.URL + "/users/{key}", Rows: "data", Probe: "known"}, `without field "data"`},
		{Options{URL: s.URL + "/users"}, "by POST"},
		{Options{URL: s.URL + "/user"}, "by POST"},
	} {
		if table, err := New(t.Context(), c.o); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%+v: %v, %v", c.o, table, err)
		}
	}
	for code, want := range map[int]string{400: "", 422: "", 429: "", 401: "Authorization", 403: "Authorization", 500: "status 500", 405: "status 405", 502: "status 502"} {
		server := httptest.NewServer(status(code))
		table, err := New(t.Context(), Options{URL: server.URL + "/{key}?token=s3cret", Header: nethttp.Header{"Authorization": {"s3cret"}}})
		server.Close()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), server.URL+"/{key}")) || err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("status %d: %v, %v", code, table, err)
		}
	}
	if _, err := New(t.Context(), Options{URL: "http://127.0.0.1:1/{key}?token=s3cret"}); err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody there: %v", err)
	}
	openTable(t, Options{URL: s.URL + "/users/{key}", Probe: "known", Client: &nethttp.Client{}})
	for _, shape := range slices.Sorted(maps.Keys(shapes)) {
		openTable(t, shapes[shape](s))
	}
}

// FuzzShapes: no answer crashes, and of what is taken every row is an object of a key that was asked for.
func FuzzShapes(f *testing.F) {
	f.Add([]byte(`{"data":{"k":{"a":1}}}`))
	f.Add([]byte(`{"data":[{"id":"k"},{"id":7.0}]}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		at := &Table{rows: []string{"data"}}
		inside, err := at.inside(answer)
		if err != nil {
			return
		}
		objects, _, err := members(inside)
		if err == nil {
			for _, row := range objects {
				if !json.Valid(row) {
					t.Fatalf("%q", row)
				}
			}
		}
		array, _, err := elements(inside, []string{"id"})
		for key, row := range array {
			var fields map[string]json.RawMessage
			if uerr := json.Unmarshal(row, &fields); err != nil || uerr != nil || fields["id"] == nil {
				t.Fatalf("%q: %q, %v", key, row, err)
			}
		}
	})
}
