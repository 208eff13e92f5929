package azuretables

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"github.com/millstream/millstream/enrich"
	"github.com/millstream/millstream/enrich/enrichtest"
)

// texts are keys that the service takes.
var texts = []string{"a", "B", "b", "0", "7", "-1", "007", "1e3", "a b", "ä", "日本", "it's", "''", "' or '1' eq '1", `"quoted"`, "a|b", "a,b", "%41", "%27", "a%", "%", "_", "*",
	"💥", "null", "true", "ffffffff-ffff-ffff-ffff-ffffffffffff", "x=1&y=2", "a+b", "a:b", "{}", "[1]", "$1", "@p", "{key}", ".", "..", " ", "a "}

// noSystem drops what every entity has and the suite does not expect.
type noSystem struct {
	enrich.Table
	names []string
}

func (n noSystem) Lookup(ctx context.Context, keys []string) (map[string][]enrich.Row, error) {
	found, err := n.Table.Lookup(ctx, keys)
	for _, rows := range found {
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(rows[0].JSON, &fields); err != nil {
			return nil, err
		}
		for _, name := range n.names {
			delete(fields, name)
		}
		rows[0].JSON, _ = json.Marshal(fields)
	}
	return found, err
}

// harness is for entities whose RowKey is the key, or whose PartitionKey is it when partition is empty.
func harness(t *testing.T, o Options, partition string) *enrichtest.Harness {
	t.Helper()
	o.Partition = partition
	client := sdk(t, o)
	table := func(o Options) (enrich.Table, error) {
		made, err := New(t.Context(), o)
		return noSystem{made, []string{"PartitionKey", "RowKey", "Timestamp"}}, err
	}
	at := func(key string) (string, string) {
		if partition == "" {
			return key, ""
		}
		return partition, key
	}
	h := &enrichtest.Harness{
		Keys: texts, Flat: true,
		Put: func(ctx context.Context, key string, row map[string]any) error {
			entity := maps.Clone(row)
			entity["PartitionKey"], entity["RowKey"] = at(key)
			text, err := json.Marshal(entity)
			if err != nil {
				return err
			}
			_, err = client.UpsertEntity(ctx, text, &aztables.UpsertEntityOptions{UpdateMode: aztables.UpdateModeReplace})
			return err
		},
		Delete: func(ctx context.Context, key string) error {
			partition, row := at(key)
			_, err := client.DeleteEntity(ctx, partition, row, nil)
			return err
		},
		Select: func(fields ...string) (enrich.Table, error) {
			o := o
			o.Select = fields
			return table(o)
		},
	}
	var err error
	if h.Table, err = table(o); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestContract(t *testing.T) {
	for _, partition := range []string{"", "it's one"} {
		t.Run(partition, func(t *testing.T) {
			enrichtest.Run(t, func(t *testing.T) *enrichtest.Harness {
				server, o := newFake().serve(t)
				h := harness(t, o, partition)
				h.Down = server.Close
				return h
			})
		})
	}
}

// open makes a table over a fake.
func open(t *testing.T, f *fake, change func(o *Options)) *Table {
	t.Helper()
	_, o := f.serve(t)
	if change != nil {
		change(&o)
	}
	table, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = table.Close() })
	return table
}

// ask looks keys up, and returns their rows.
func ask(t *testing.T, table enrich.Table, keys ...string) map[string]string {
	t.Helper()
	found, err := table.Lookup(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for key, rows := range found {
		out[key] = string(rows[0].JSON)
	}
	return out
}

func want(t *testing.T, got map[string]string, pairs ...string) {
	t.Helper()
	w := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		w[pairs[i]] = pairs[i+1]
	}
	if !maps.Equal(got, w) {
		t.Errorf("got %v, want %v", got, w)
	}
}

// everyType is an entity as the service writes it, and what becomes of it.
var everyType = map[string]any{
	"long": "9223372036854775807", "long@odata.type": "Edm.Int64",
	"int": json.Number("-7"), "whole": json.Number("3.0"), "double": json.Number("0.1"), "yes": true,
	"nan": "NaN", "nan@odata.type": "Edm.Double",
	"guid": "c9da6455-213d-42c9-9a79-3e9149a57833", "guid@odata.type": "Edm.Guid",
	"when": "2026-01-02T03:04:05.1234567Z", "when@odata.type": "Edm.DateTime",
	"bytes": "AP8=", "bytes@odata.type": "Edm.Binary",
	"text": "<ä & \u2028>\n",
}

func TestEntities(t *testing.T) {
	f := newFake()
	f.put("a", "", everyType)
	want(t, ask(t, open(t, f, nil), "a", "a", "b"), "a", `{"PartitionKey":"a","RowKey":"","Timestamp":"2026-01-02T03:04:05.1234567Z","bytes":"AP8=","double":0.1,`+
		`"guid":"c9da6455-213d-42c9-9a79-3e9149a57833","int":-7,"long":9223372036854775807,"nan":"NaN","text":"<ä & \u2028>\n","when":"2026-01-02T03:04:05.1234567Z","whole":3.0,"yes":true}`)
}

func TestSelect(t *testing.T) {
	f := newFake()
	f.put("a", "", everyType)
	for _, c := range []struct {
		names []string
		query string
		want  string
	}{
		{[]string{"long", "absent"}, "long,absent,PartitionKey,RowKey", `{"long":9223372036854775807}`},
		{[]string{"absent"}, "absent,PartitionKey,RowKey", `{}`},
		{[]string{"PartitionKey", "yes"}, "PartitionKey,yes,RowKey", `{"PartitionKey":"a","yes":true}`},
	} {
		want(t, ask(t, open(t, f, func(o *Options) { o.Select = c.names }), "a", "b"), "a", c.want)
		if got := f.selected(); got != c.query {
			t.Errorf("selected %q, want %q", got, c.query)
		}
	}
}

// Templates say which entity a key is, and keys that cannot be one are absent without a question.
func TestKeyTexts(t *testing.T) {
	long := strings.Repeat("k", mostKey)
	forbidden := []string{"a/b", `a\b`, "a#b", "a?b", "a\x00", "\t", "a\x7f", "a\u0085", "\xff", long + "k", strings.Repeat("💥", mostKey/2) + "k"}
	for _, c := range []struct {
		partition, row string
		keys           []string
		asked          []string
	}{
		{"", "", append(forbidden, "it's", "", "a", "a"), []string{
			"PartitionKey eq '' and RowKey eq ''", "PartitionKey eq 'a' and RowKey eq ''", "PartitionKey eq 'it''s' and RowKey eq ''"}},
		{"", "", []string{long}, []string{"PartitionKey eq '" + long + "' and RowKey eq ''"}},
		{"users", "", append(forbidden, "'", "{key}"), []string{"PartitionKey eq 'users' and RowKey eq ''''", "PartitionKey eq 'users' and RowKey eq '{key}'"}},
		{"u-{key}", "it's", append(forbidden, "1", long), []string{"PartitionKey eq 'u-1' and RowKey eq 'it''s'"}},
		{"{key}", "{key}", append(forbidden, "1"), []string{"PartitionKey eq '1' and RowKey eq '1'"}},
		{"", "v", []string{"1"}, []string{"PartitionKey eq '1' and RowKey eq 'v'"}},
		{"p", "r{key}", []string{"1"}, []string{"PartitionKey eq 'p' and RowKey eq 'r1'"}},
	} {
		f := newFake()
		table := open(t, f, func(o *Options) { o.Partition, o.Row = c.partition, c.row })
		want(t, ask(t, table, c.keys...))
		if got := f.asked(1); !slices.Equal(got, c.asked) {
			t.Errorf("%q, %q: asked %.200q, want %.200q", c.partition, c.row, got, c.asked)
		}
	}
}

// A call has so many queries under way as it should, and no more.
func TestConcurrency(t *testing.T) {
	for _, c := range []struct{ concurrency, most int }{{1, 1}, {3, 3}, {0, defaultConcurrency}} {
		f := newFake()
		table := open(t, f, func(o *Options) { o.Concurrency = c.concurrency })
		var mu sync.Mutex
		arrived, full := 0, make(chan struct{})
		f.hold = func(string) { // until the first c.most are there
			mu.Lock()
			if arrived++; arrived == c.most {
				close(full)
			}
			mu.Unlock()
			<-full
		}
		keys := make([]string, 40)
		for i := range keys {
			keys[i] = fmt.Sprint(i)
		}
		want(t, ask(t, table, keys...))
		if most := f.atOnce(); most != c.most {
			t.Errorf("%d queries at once, want %d", most, c.most)
		}
	}
}

func busyAnswer(w http.ResponseWriter) { refuse(w, http.StatusServiceUnavailable, "ServerBusy") }

func answer(body string) func(int, string, string, http.ResponseWriter) bool {
	return func(_ int, partition, _ string, w http.ResponseWriter) bool {
		_, _ = io.WriteString(w, strings.ReplaceAll(body, "KEY", partition))
		return true
	}
}

func TestFaults(t *testing.T) {
	big := strings.Repeat("x", enrich.MaxRow)
	for _, c := range []struct {
		name      string
		fault     func(query int, partition, row string, w http.ResponseWriter) bool
		empty     int
		found     string // keys that have a row
		failed    string
		malformed bool
		err       string
		queries   int // 0: not all of them need be asked
	}{
		{name: "no fault", found: "abc", queries: 4},
		{name: "empty pages first", empty: 3, found: "abc", queries: 16},
		{name: "no end of empty pages", empty: 1000, err: "no end of the answer after 8 pages"},
		{name: "busy", fault: func(_ int, _, _ string, w http.ResponseWriter) bool { busyAnswer(w); return true }, err: "ServerBusy (HTTP 503)", queries: 1},
		{name: "busy from the second on", fault: func(n int, _, _ string, w http.ResponseWriter) bool {
			if n > 1 {
				busyAnswer(w)
			}
			return n > 1
		}, found: "a", failed: "bcd", err: "ServerBusy", queries: 2},
		{name: "an internal error later", fault: func(_ int, partition, _ string, w http.ResponseWriter) bool {
			if partition == "c" {
				refuse(w, http.StatusInternalServerError, "InternalError")
			}
			return partition == "c"
		}, found: "ab", failed: "cd", err: "InternalError (HTTP 500)", queries: 3},
		{name: "a key that the service does not take", fault: func(_ int, partition, _ string, w http.ResponseWriter) bool {
			if partition == "a" {
				refuse(w, http.StatusBadRequest, "InvalidInput")
			}
			return partition == "a"
		}, found: "bc", failed: "a", err: "InvalidInput (HTTP 400): the service does not take the key", queries: 4},
		{name: "denied later", fault: func(_ int, partition, _ string, w http.ResponseWriter) bool {
			if partition == "b" {
				refuse(w, http.StatusForbidden, "AuthorizationPermissionMismatch")
			}
			return partition == "b"
		}, err: "access denied: reading needs the role Storage Table Data Reader"},
		{name: "the table is gone", fault: func(_ int, _, _ string, w http.ResponseWriter) bool {
			refuse(w, http.StatusNotFound, "TableNotFound")
			return true
		}, err: "TableNotFound (HTTP 404): there is no such table"},
		{name: "half of JSON", fault: answer(`{"value":[{"PartitionKey":`), err: "unmarshalling type"},
		{name: "no list", fault: answer(`{}`), err: "no list of entities"},
		{name: "a list of null", fault: answer(`{"value":null}`), err: "no list of entities"},
		{name: "nothing at all", fault: answer(``), err: "no list of entities"},
		{name: "another's entity", fault: answer(`{"value":[{"PartitionKey":"KEY","RowKey":"z"}]}`), err: `not asked for, "a" "z"`},
		{name: "one in other letters", fault: answer(`{"value":[{"PartitionKey":"A","RowKey":""}]}`), err: "not asked for"},
		{name: "an entity without keys", fault: answer(`{"value":[{"x":1}]}`), err: "not asked for"},
		{name: "malformed", fault: func(n int, partition, row string, w http.ResponseWriter) bool {
			return partition == "b" && answer(`{"value":[{"PartitionKey":"KEY","RowKey":"","n":"1.5","n@odata.type":"Edm.Int64"}]}`)(n, partition, row, w)
		}, found: "ac", failed: "b", malformed: true, err: `malformed row: property "n" is no Int64`, queries: 4},
		{name: "an array", fault: func(n int, partition, row string, w http.ResponseWriter) bool {
			return partition == "b" && answer(`{"value":[{"PartitionKey":"KEY","RowKey":"","n":[1]}]}`)(n, partition, row, w)
		}, found: "ac", failed: "b", malformed: true, err: `property "n" is no value`, queries: 4},
		{name: "a row that is too large", fault: func(n int, partition, row string, w http.ResponseWriter) bool {
			return partition == "b" && answer(`{"value":[{"PartitionKey":"KEY","RowKey":"","n":"`+big+`"}]}`)(n, partition, row, w)
		}, found: "ac", failed: "b", malformed: true, err: "bytes of JSON, more than", queries: 4},
		{name: "an answer without end", fault: func(_ int, partition, _ string, w http.ResponseWriter) bool {
			for partition == "b" {
				if _, err := io.WriteString(w, big); err != nil {
					break // the driver has had enough
				}
			}
			return partition == "b"
		}, found: "ac", failed: "b", malformed: true, err: "larger than 4194304 bytes", queries: 4},
		{name: "a broken connection", fault: func(_ int, partition, _ string, w http.ResponseWriter) bool {
			if partition == "b" {
				panic(http.ErrAbortHandler)
			}
			return false
		}, found: "a", failed: "bcd", err: "EOF"}, // net/http itself asks again
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake()
			for _, key := range []string{"a", "b", "c"} {
				f.put(key, "", map[string]any{"n": json.Number("1")})
			}
			table := open(t, f, func(o *Options) { o.Concurrency = 1 })
			f.fault, f.empty = c.fault, c.empty
			found, err := table.Lookup(t.Context(), []string{"a", "b", "c", "d"})
			var partly *enrich.Failed[string]
			if errors.As(err, &partly) != (c.failed != "") {
				t.Fatalf("error %v", err)
			}
			failed, reasons := "", fmt.Sprint(err)
			if partly != nil {
				failed = strings.Join(slices.Sorted(maps.Keys(partly.Keys)), "")
				reasons = fmt.Sprint(partly.Keys)
			}
			if got := strings.Join(slices.Sorted(maps.Keys(found)), ""); got != c.found || failed != c.failed {
				t.Errorf("found %q, failed %q, want %q and %q", got, failed, c.found, c.failed)
			}
			if c.err == "" && err != nil || c.err != "" && !strings.Contains(reasons, c.err) || strings.ContainsAny(reasons, "\n") {
				t.Errorf("error %s, want %q", reasons, c.err)
			}
			if errors.Is(err, enrich.ErrMalformed) != c.malformed {
				t.Errorf("malformed: %v", err)
			}
			if got := len(f.asked(1)); c.queries != 0 && got != c.queries {
				t.Errorf("%d queries, want %d", got, c.queries)
			}
		})
	}
}

// A call that is given up, or closed, is nobody's row.
func TestGivenUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var table *Table
	closing := func() { _ = table.Close() }
	for _, c := range []struct {
		ctx context.Context
		end func()
		err error
	}{{ctx, cancel, context.Canceled}, {t.Context(), closing, errClosed}} {
		f := newFake()
		f.hold = func(filter string) {
			if !strings.Contains(filter, "millstream") {
				c.end()
				<-t.Context().Done()
			}
		}
		table = open(t, f, nil)
		found, err := table.Lookup(c.ctx, []string{"a", "b"})
		var failed *enrich.Failed[string]
		if found != nil || !errors.Is(err, c.err) || errors.As(err, &failed) {
			t.Errorf("%v, %v: want %v", found, err, c.err)
		}
	}
	if _, err := table.Lookup(t.Context(), nil); !errors.Is(err, errClosed) {
		t.Errorf("%v of a closed table", err)
	}
}

// clean hides the credentials of whoever runs the test.
func clean(t *testing.T) {
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "AZURE_STORAGE_") {
			t.Setenv(name, "")
		}
	}
}

func TestNew(t *testing.T) {
	clean(t)
	for _, c := range []struct {
		name   string
		change func(o *Options)
		fault  func(query int, partition, row string, w http.ResponseWriter) bool
		env    map[string]string
		err    string
	}{
		{name: "as given"},
		{name: "the key of the environment", change: func(o *Options) { o.Key = "" }, env: map[string]string{"AZURE_STORAGE_KEY": accountKey}},
		{name: "the account of the environment", change: func(o *Options) { o.Account = "" }, env: map[string]string{"AZURE_STORAGE_ACCOUNT": account}},
		{name: "a table that is not there", change: func(o *Options) { o.Table = "userz" }, err: "azuretables: table userz: TableNotFound (HTTP 404): there is no such table: create it"},
		{name: "no name", change: func(o *Options) { o.Table = "my-users" }, err: `table "my-users": want 3 to 63 letters`},
		{name: "another account", change: func(o *Options) { o.Account = "other" }, err: "AuthenticationFailed (HTTP 403): access denied"},
		{name: "a signature that the service does not take", change: func(o *Options) { o.Key, o.SAS = "", "?sv=2019-02-02&sig=hunter2" }, err: "access denied"},
		{name: "no account", change: func(o *Options) { o.Account = "" }, err: "the storage account is missing: add account="},
		{name: "no key", change: func(o *Options) { o.Key = "hunter2!" }, err: "the key is not a storage account's key"},
		{name: "no endpoint", change: func(o *Options) { o.Endpoint = "127.0.0.1:10002" }, err: "the endpoint is not an address"},
		{name: "a signature in the endpoint", change: func(o *Options) { o.Endpoint += "?sig=hunter2" }, err: "the endpoint is not an address"},
		{name: "nobody there", change: func(o *Options) { o.Endpoint, o.Key, o.SAS = "http://127.0.0.1:1", "", "sig=hunter2" }, err: "connection refused"},
		{name: "a connection string beside an account", change: func(o *Options) { o.ConnectionString = "AccountName=a;AccountKey=hunter2" }, err: "leave those out, or it"},
		{name: "a broken connection string", change: func(o *Options) { *o = Options{Table: "users", ConnectionString: "hunter2"} }, err: "the connection string cannot be read"},
		{name: "one of the environment", change: func(o *Options) { *o = Options{Table: "users"} },
			env: map[string]string{"AZURE_STORAGE_CONNECTION_STRING": "AccountKey=hunter2"}, err: "AZURE_STORAGE_CONNECTION_STRING cannot be read"},
		{name: "one that is not asked", env: map[string]string{"AZURE_STORAGE_CONNECTION_STRING": "AccountKey=hunter2"}},
		{name: "nothing varies", change: func(o *Options) { o.Partition, o.Row = "p", "r" }, err: "every key would be one entity: put {key} into partition=p or row=r"},
		{name: "a template that is no key", change: func(o *Options) { o.Partition = "a/{key}" }, err: `"a/{key}" cannot be in a key`},
		{name: "select", change: func(o *Options) { o.Select = []string{"a.b"} }, err: `select "a.b": want a property's name`},
		{name: "select nothing", change: func(o *Options) { o.Select = []string{""} }, err: `select ""`},
		{name: "too many at once", change: func(o *Options) { o.Concurrency = 257 }, err: "257 queries at once: want 1 to 256"},
		{name: "busy", fault: func(_ int, _, _ string, w http.ResponseWriter) bool { busyAnswer(w); return true }},
		{name: "malformed", fault: answer(`{"value":[{"PartitionKey":"KEY","RowKey":"millstream","x":[]}]}`)},
		{name: "a query that is not taken", fault: func(_ int, _, _ string, w http.ResponseWriter) bool {
			refuse(w, http.StatusBadRequest, "InvalidInput")
			return true
		}, err: "InvalidInput"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake()
			f.fault = c.fault
			_, o := f.serve(t)
			if c.change != nil {
				c.change(&o)
			}
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			_, err := New(t.Context(), o)
			if c.err == "" && err != nil || c.err != "" && !strings.Contains(fmt.Sprint(err), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			if text := fmt.Sprint(err); strings.Contains(text, "hunter2") || strings.Contains(text, "\n") {
				t.Errorf("a secret, or more than one line: %q", text)
			}
		})
	}
}

// A connection string is enough.
func TestConnectionString(t *testing.T) {
	clean(t)
	f := newFake()
	f.put("a", "", map[string]any{"n": json.Number("1")})
	server, _ := f.serve(t)
	text := "DefaultEndpointsProtocol=http;AccountName=" + account + ";AccountKey=" + accountKey + ";TableEndpoint=" + server.URL + ";"
	for _, o := range []Options{{ConnectionString: text}, {}} {
		t.Setenv("AZURE_STORAGE_CONNECTION_STRING", text)
		o.Table, o.Select = "users", []string{"n"}
		table, err := New(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		want(t, ask(t, table, "a"), "a", `{"n":1}`)
	}
}

type silent struct{}

func (silent) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// New does not wait for ever for a service that says nothing.
func TestNewIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := New(t.Context(), Options{Table: "users", Account: account, Key: accountKey, Transport: silent{}})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "users: no answer within 10s") || time.Since(began) != verifyWait {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}
