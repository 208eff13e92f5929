package azuretables

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"
)

// fake speaks as much of the Table service's protocol as the driver needs, see
// https://learn.microsoft.com/rest/api/storageservices/query-entities.
type fake struct {
	fault func(query int, partition, row string, w http.ResponseWriter) (handled bool)
	empty int                // pages without an entity before every answer
	hold  func(query string) // runs while a query is under way

	mu       sync.Mutex
	entities map[[2]string]map[string]any
	queries  []string // the filters
	selects  []string
	active   int
	most     int // queries at once
}

func newFake() *fake { return &fake{entities: map[[2]string]map[string]any{}} }

const account = "acct"

var accountKey = base64.StdEncoding.EncodeToString([]byte("secret-of-the-account"))

func (f *fake) serve(t *testing.T) (*httptest.Server, Options) {
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	return server, Options{Table: "users", Account: account, Key: accountKey, Endpoint: server.URL}
}

// sdk is a client to write with.
func sdk(t *testing.T, o Options) *aztables.Client {
	t.Helper()
	shared, err := aztables.NewSharedKeyCredential(o.Account, o.Key)
	if err != nil {
		t.Fatal(err)
	}
	service, err := aztables.NewServiceClientWithSharedKey(o.Endpoint, shared, nil)
	if err != nil {
		t.Fatal(err)
	}
	return service.NewClient(o.Table)
}

var (
	address = regexp.MustCompile(`(?s)^/users\(PartitionKey='((?:[^']|'')*)',RowKey='((?:[^']|'')*)'\)$`)
	point   = regexp.MustCompile(`(?s)^PartitionKey eq '((?:[^']|'')*)' and RowKey eq '((?:[^']|'')*)'$`)
)

func unquote(s string) string { return strings.ReplaceAll(s, "''", "'") }

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.Header.Get("Authorization"), "SharedKeyLite "+account+":") {
		refuse(w, http.StatusForbidden, "AuthenticationFailed")
		return
	}
	if !strings.HasPrefix(r.URL.Path, "/users(") {
		refuse(w, http.StatusNotFound, "TableNotFound")
		return
	}
	if r.Method == http.MethodGet {
		f.query(w, r)
		return
	}
	m := address.FindStringSubmatch(r.URL.Path)
	if m == nil {
		refuse(w, http.StatusBadRequest, "InvalidInput")
		return
	}
	key := [2]string{unquote(m[1]), unquote(m[2])}
	body, err := io.ReadAll(r.Body)
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.entities, key)
	if r.Method != http.MethodDelete {
		entity := map[string]any{}
		if err != nil || json.Unmarshal(body, &entity) != nil {
			refuse(w, http.StatusBadRequest, "InvalidInput")
			return
		}
		f.entities[key] = entity
	}
	w.WriteHeader(http.StatusNoContent)
}

func (f *fake) query(w http.ResponseWriter, r *http.Request) {
	filter, fields := r.URL.Query().Get("$filter"), r.URL.Query().Get("$select")
	m := point.FindStringSubmatch(filter)
	if m == nil {
		refuse(w, http.StatusBadRequest, "InvalidInput")
		return
	}
	key := [2]string{unquote(m[1]), unquote(m[2])}
	f.mu.Lock()
	n := len(f.queries)
	f.queries, f.selects = append(f.queries, filter), append(f.selects, fields)
	f.active++
	f.most = max(f.most, f.active)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.active--
		f.mu.Unlock()
	}()
	if f.hold != nil {
		f.hold(filter)
	}
	if f.fault != nil && f.fault(n, key[0], key[1], w) {
		return
	}
	f.mu.Lock()
	entity, ok := f.entities[key]
	f.mu.Unlock()
	value := []any{}
	if page := r.URL.Query().Get("NextRowKey"); len(page) < f.empty {
		w.Header().Set("x-ms-continuation-NextPartitionKey", "p")
		w.Header().Set("x-ms-continuation-NextRowKey", page+"r")
	} else if ok {
		value = append(value, written(key, entity, fields))
	}
	w.Header().Set("Content-Type", "application/json;odata=minimalmetadata")
	_ = json.NewEncoder(w).Encode(map[string]any{"odata.metadata": "http://x/$metadata#users", "value": value})
}

// written is an entity as the service sends it: a property that is selected and absent is null.
func written(key [2]string, entity map[string]any, fields string) map[string]any {
	all := maps.Clone(entity)
	all["PartitionKey"], all["RowKey"], all["Timestamp"] = key[0], key[1], "2026-01-02T03:04:05.1234567Z"
	if fields == "" {
		all["odata.etag"] = `W/"datetime'2026-01-02T03%3A04%3A05.1234567Z'"`
		return all
	}
	out := map[string]any{"odata.etag": "W/x"}
	for name := range strings.SplitSeq(fields, ",") {
		out[name] = all[name]
		if kind, ok := all[name+"@odata.type"]; ok {
			out[name+"@odata.type"] = kind
		}
	}
	return out
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("x-ms-error-code", code)
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"odata.error":{"code":%q,"message":{"lang":"en-US","value":"why\nRequestId:x"}}}`, code)
}

// put writes an entity without the protocol.
func (f *fake) put(partition, row string, properties map[string]any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.entities[[2]string{partition, row}] = properties
}

// asked are the filters of the queries since the first n, in order.
func (f *fake) asked(n int) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(slices.Values(f.queries[n:]))
}

// selected is the last query's $select.
func (f *fake) selected() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.selects[len(f.selects)-1]
}

// atOnce is how many queries there were at once, at most.
func (f *fake) atOnce() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.most
}
