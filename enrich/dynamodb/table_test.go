package dynamodb

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsdynamodb "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	cloud "github.com/millstream/millstream/cloud/aws"
	"github.com/millstream/millstream/enrich"
	"github.com/millstream/millstream/enrich/enrichtest"
)

// value makes an attribute of what a test writes.
func value(v any) types.AttributeValue {
	switch v := v.(type) {
	case string:
		return &types.AttributeValueMemberS{Value: v}
	case float64:
		return &types.AttributeValueMemberN{Value: strconv.FormatFloat(v, 'f', -1, 64)}
	case map[string]any:
		m := item{}
		for name, v := range v {
			m[name] = value(v)
		}
		return &types.AttributeValueMemberM{Value: m}
	case types.AttributeValue:
		return v
	}
	panic(fmt.Sprintf("%T", v))
}

// keyValue makes the value of a key in another way than the driver does.
func keyValue(kind, text string) types.AttributeValue {
	switch kind {
	case "N":
		return &types.AttributeValueMemberN{Value: text}
	case "B":
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			panic(err)
		}
		return &types.AttributeValueMemberB{Value: b}
	}
	return value(text)
}

// harness is for a table users whose partition key id is of a kind.
func harness(t *testing.T, client *awsdynamodb.Client, table, kind string) *enrichtest.Harness {
	t.Helper()
	h := &enrichtest.Harness{
		KeyField: "id",
		Put: func(ctx context.Context, key string, row map[string]any) error {
			it := value(row).(*types.AttributeValueMemberM).Value
			it["id"] = keyValue(kind, key)
			_, err := client.PutItem(ctx, &awsdynamodb.PutItemInput{TableName: &table, Item: it})
			return err
		},
		Delete: func(ctx context.Context, key string) error {
			_, err := client.DeleteItem(ctx, &awsdynamodb.DeleteItemInput{TableName: &table, Key: item{"id": keyValue(kind, key)}})
			return err
		},
		Select: func(fields ...string) (enrich.Table, error) {
			return New(t.Context(), Options{Table: table, Client: client, Select: fields, Consistent: true})
		},
	}
	switch kind {
	case "N":
		h.Keys = []string{"7", "0", "-1", "1.5", "1000", "12300000000", "123456789012345678901234567890", "0.0001"}
	case "B":
		h.Keys = []string{"AA==", "YQ==", "/////w==", "AAECAw==", "w6Q="}
	}
	var err error
	if h.Table, err = New(t.Context(), Options{Table: table, Client: client, Key: "id", Consistent: true}); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestContract(t *testing.T) {
	for _, kind := range []string{"S", "N", "B"} {
		t.Run(kind, func(t *testing.T) {
			enrichtest.Run(t, func(t *testing.T) *enrichtest.Harness {
				client, server := newFake(kind).serve(t)
				h := harness(t, client, "users", kind)
				h.Down = server.Close
				return h
			})
		})
	}
}

// A table that leaves out half of every question is asked again after growing pauses, four times.
func TestPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake("S")
		table := open(t, f, Options{})
		keys := fill(t, f, 32, "x")
		f.left = func(_ int, ids []string) []string { return ids[:len(ids)/2] }
		began := time.Now()
		found, err := table.Lookup(t.Context(), keys)
		var failed *enrich.Failed[string]
		if !errors.As(err, &failed) || len(failed.Keys) != 1 || len(found) != 31 || !errors.Is(err, errThrottled) {
			t.Fatalf("%d rows, %v: want all but one", len(found), err)
		}
		if f.unprocessed != 16+8+4+2+1 || f.calls["BatchGetItem"] != 1+1+pauses {
			t.Errorf("the table left %d keys out in %d calls", f.unprocessed, f.calls["BatchGetItem"])
		}
		if d := time.Since(began); d < pause*15/2 || d > pause*45/2 {
			t.Errorf("%v for the pauses", d)
		}
	})
}

// One that answers a mebibyte at a time is asked again at once, however often.
func TestLargeItems(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake("S")
		table := open(t, f, Options{})
		keys := fill(t, f, 20, strings.Repeat("x", 350<<10))
		f.left = func(_ int, ids []string) []string { return ids[min(3, len(ids)):] }
		began := time.Now()
		found, err := table.Lookup(t.Context(), keys)
		if err != nil || len(found) != len(keys) || time.Since(began) != 0 {
			t.Fatalf("%d rows after %v, %v", len(found), time.Since(began), err)
		}
		if calls := f.calls["BatchGetItem"]; calls != 1+7 {
			t.Errorf("%d calls", calls)
		}
	})
}

// fill puts n items.
func fill(t *testing.T, f *fake, n int, payload string) []string {
	t.Helper()
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprint("k", i)
		put(t, f, item{"id": value(keys[i]), "payload": value(payload)})
	}
	return keys
}

// open makes a table over a fake in memory.
func open(t *testing.T, f *fake, o Options) *Table {
	t.Helper()
	o.Table, o.Client = "users", f.client()
	table, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = table.Close() })
	return table
}

func put(t *testing.T, f *fake, it item) {
	t.Helper()
	if _, err := f.client().PutItem(t.Context(), &awsdynamodb.PutItemInput{TableName: aws.String("users"), Item: it}); err != nil {
		t.Fatal(err)
	}
}

func TestUnprocessed(t *testing.T) {
	const verify = 1 // New's own call
	throttled := func(w http.ResponseWriter) {
		refuse(w, refusal{"ProvisionedThroughputExceededException", "The level of configured provisioned throughput for the table was exceeded."})
	}
	for _, c := range []struct {
		name    string
		left    func(call int, ids []string) []string
		fault   func(operation string, call int, w http.ResponseWriter) bool
		timeout time.Duration
		found   string // keys that have a row
		failed  string
		err     string
		calls   int
	}{
		{name: "one call", found: "abc", calls: 1},
		{name: "the rest of what was too large", left: func(call int, ids []string) []string {
			if call == verify {
				return ids[1:]
			}
			return nil
		}, found: "abc", calls: 2},
		{name: "no progress", left: func(_ int, ids []string) []string { return ids }, failed: "abcd", err: "capacity", calls: 1},
		{name: "no more progress", left: func(_ int, ids []string) []string { return ids[min(1, len(ids)-1):] }, found: "abc", failed: "d", err: "capacity", calls: 4},
		{name: "no time for another", left: func(_ int, ids []string) []string { return ids[1:] }, timeout: pause / 4,
			found: "a", failed: "bcd", err: "capacity", calls: 1},
		{name: "throttled", fault: func(_ string, _ int, w http.ResponseWriter) bool { throttled(w); return true },
			err: "ProvisionedThroughputExceededException", calls: 1},
		{name: "throttled later", left: func(_ int, ids []string) []string { return ids[2:] },
			fault: func(_ string, call int, w http.ResponseWriter) bool {
				if call > verify {
					throttled(w)
				}
				return call > verify
			}, found: "ab", failed: "cd", err: "ProvisionedThroughputExceededException", calls: 2},
		{name: "internal error", fault: func(_ string, _ int, w http.ResponseWriter) bool {
			refuse(w, refusal{"InternalServerError", "try again"})
			return true
		}, err: "InternalServerError", calls: 1},
		{name: "not JSON", fault: func(_ string, _ int, w http.ResponseWriter) bool {
			_, _ = io.WriteString(w, `{"Responses":{"users":[{"id":`)
			return true
		}, err: "deserialization failed", calls: 1},
		{name: "an empty answer", fault: func(_ string, _ int, w http.ResponseWriter) bool { _, _ = io.WriteString(w, `{}`); return true },
			err: "no Responses", calls: 1},
		{name: "another's item", fault: func(_ string, _ int, w http.ResponseWriter) bool {
			_, _ = io.WriteString(w, `{"Responses":{"users":[{"id":{"S":"z"}}]},"UnprocessedKeys":{}}`)
			return true
		}, err: `not asked for, with id "z"`, calls: 1},
		{name: "an item without a key", fault: func(_ string, _ int, w http.ResponseWriter) bool {
			_, _ = io.WriteString(w, `{"Responses":{"users":[{"n":{"N":"1"}}]},"UnprocessedKeys":{}}`)
			return true
		}, err: "not asked for", calls: 1},
		{name: "another's key left out", fault: func(_ string, _ int, w http.ResponseWriter) bool {
			_, _ = io.WriteString(w, `{"Responses":{},"UnprocessedKeys":{"users":{"Keys":[{"id":{"S":"z"}}]}}}`)
			return true
		}, err: "not asked for", calls: 1},
		{name: "a malformed row beside good ones", fault: func(_ string, _ int, w http.ResponseWriter) bool {
			_, _ = io.WriteString(w, `{"Responses":{"users":[{"id":{"S":"a"},"n":{"N":"1"}},{"id":{"S":"b"},"n":{"N":"NaN"}}]},"UnprocessedKeys":{}}`)
			return true
		}, found: "a", failed: "b", err: `attribute "n": malformed row`, calls: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake("S")
				for _, id := range []string{"a", "b", "c"} {
					put(t, f, item{"id": value(id)})
				}
				table := open(t, f, Options{})
				f.left, f.fault = c.left, c.fault
				ctx := t.Context()
				if c.timeout > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.timeout)
					defer cancel()
				}
				found, err := table.Lookup(ctx, []string{"a", "b", "c", "d"})
				var partly *enrich.Failed[string]
				if errors.As(err, &partly) != (c.failed != "") {
					t.Fatalf("error %v", err)
				}
				failed := ""
				if partly != nil {
					failed = strings.Join(slices.Sorted(maps.Keys(partly.Keys)), "")
				}
				if got := strings.Join(slices.Sorted(maps.Keys(found)), ""); got != c.found || failed != c.failed {
					t.Errorf("found %q, failed %q, want %q and %q", got, failed, c.found, c.failed)
				}
				if c.err == "" && err != nil || c.err != "" && !strings.Contains(fmt.Sprint(err), c.err) {
					t.Errorf("error %v, want %q", err, c.err)
				}
				if calls := f.calls["BatchGetItem"] - verify; calls != c.calls {
					t.Errorf("%d calls, want %d: %q", calls, c.calls, f.asked)
				}
				if c.left != nil && f.unprocessed == 0 {
					t.Error("the fake left nothing out")
				}
			})
		})
	}
}

// A call that is given up during a pause, or by Close during an answer, is nobody's row.
func TestGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake("S")
		table := open(t, f, Options{})
		f.left = func(_ int, ids []string) []string { return ids[1:] }
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(pause/4, cancel)
		found, err := table.Lookup(ctx, []string{"a", "b", "c"})
		var failed *enrich.Failed[string]
		if found != nil || !errors.Is(err, context.Canceled) || errors.As(err, &failed) || f.unprocessed != 2 {
			t.Errorf("%v, %v after the context was cancelled in a pause", found, err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		f.fault = func(_ string, call int, _ http.ResponseWriter) bool {
			if call == 3 { // the second of this lookup
				cancel()
			}
			return call == 3
		}
		found, err = table.Lookup(ctx, []string{"a", "b", "c"})
		if found != nil || !errors.Is(err, context.Canceled) || errors.As(err, &failed) || f.unprocessed != 4 {
			t.Errorf("%v, %v after the context was cancelled in a later answer", found, err)
		}
		f.fault = nil
		time.AfterFunc(pause/4, func() { _ = table.Close() })
		if found, err := table.Lookup(t.Context(), []string{"a", "b", "c"}); found != nil || !errors.Is(err, errClosed) {
			t.Errorf("%v, %v of a table that was closed meanwhile", found, err)
		}
		calls := f.calls["BatchGetItem"]
		if _, err := table.Lookup(t.Context(), []string{"a"}); !errors.Is(err, errClosed) {
			t.Errorf("%v of a closed table, %d calls", err, f.calls["BatchGetItem"]-calls)
		}
	})
}

// New does not wait for ever for a service that says nothing.
func TestNewIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake("S")
		client := awsdynamodb.New(f.client().Options(), func(o *awsdynamodb.Options) { o.HTTPClient = silent{} })
		began := time.Now()
		_, err := New(t.Context(), Options{Table: "users", Client: client})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "users: no answer within 10s") || time.Since(began) != verifyWait {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

type silent struct{}

func (silent) Do(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestNew(t *testing.T) {
	denied := func(at string) func(string, int, http.ResponseWriter) bool {
		return func(operation string, _ int, w http.ResponseWriter) bool {
			if operation == at {
				refuse(w, refusal{"AccessDeniedException", "User: me is not authorized"})
			}
			return operation == at
		}
	}
	for _, c := range []struct {
		name    string
		kind    string
		sort    []string
		options Options
		edit    func(f *fake)
		err     string
		is      error
	}{
		{name: "defaults"},
		{name: "its key", options: Options{Key: "id"}},
		{name: "an ARN is taken", options: Options{Table: "arn:aws:dynamodb:eu-central-1:123456789012:table/users"}, err: "users: is not in region"}, // as far as the fake
		{name: "another key", options: Options{Key: "email"}, err: "its partition key is id and not email"},
		{name: "no table", options: Options{Table: "userz"}, err: "dynamodb: table userz: is not in region eu-central-1: create it"},
		{name: "no name", options: Options{Table: "a b"}, err: `table "a b": want a name`},
		{name: "select", options: Options{Select: []string{"a..b"}}, err: `select "a..b"`},
		{name: "being made", edit: func(f *fake) { f.status = "CREATING" }, err: "is CREATING: wait"},
		{name: "being changed", edit: func(f *fake) { f.status = "UPDATING" }},
		{name: "no DescribeTable", edit: func(f *fake) { f.fault = denied("DescribeTable") }, err: "DescribeTable: access denied", is: cloud.ErrDenied},
		{name: "no BatchGetItem", edit: func(f *fake) { f.fault = denied("BatchGetItem") }, err: "reading needs dynamodb:DescribeTable and dynamodb:BatchGetItem", is: cloud.ErrDenied},
		{name: "throttled at once", edit: func(f *fake) { f.left = func(_ int, ids []string) []string { return ids } }},
		{name: "throttled wholly", edit: func(f *fake) {
			f.fault = func(operation string, _ int, w http.ResponseWriter) bool {
				if operation == "BatchGetItem" {
					refuse(w, refusal{"ProvisionedThroughputExceededException", "later"})
				}
				return operation == "BatchGetItem"
			}
		}},
		{name: "a sort key", sort: []string{"kind", "S"}, options: Options{Sort: "kind=profile"}},
		{name: "a sort key that is a number", sort: []string{"v", "N"}, options: Options{Sort: "v=0"}},
		{name: "no sort key given", sort: []string{"kind", "S"}, err: "say at which value to read, as sort=kind=VALUE"},
		{name: "an empty sort key", sort: []string{"kind", "S"}, options: Options{Sort: "kind="}, err: "sort=kind=VALUE"},
		{name: "another sort key", sort: []string{"kind", "S"}, options: Options{Sort: "kin=d"}, err: "sort=kind=VALUE"},
		{name: "a sort key of another type", sort: []string{"v", "N"}, options: Options{Sort: "v=latest"}, err: `of type N, which "latest" cannot be`},
		{name: "a sort key where there is none", options: Options{Sort: "v=1"}, err: "it has no sort key: leave out sort=v=1"},
		{name: "a key of no type", kind: "SS", err: "key id has no known type"},
		{name: "an empty description", edit: func(f *fake) {
			f.fault = func(_ string, _ int, w http.ResponseWriter) bool { _, _ = io.WriteString(w, `{}`); return true }
		}, err: "no description"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.kind == "" {
				c.kind = "S"
			}
			f := newFake(c.kind, c.sort...)
			if c.edit != nil {
				c.edit(f)
			}
			if c.options.Table == "" {
				c.options.Table = "users"
			}
			c.options.Client = f.client()
			_, err := New(t.Context(), c.options)
			if c.err == "" && err != nil || c.err != "" && !strings.Contains(fmt.Sprint(err), c.err) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("error %v, want %q", err, c.err)
			}
		})
	}
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

func TestItems(t *testing.T) {
	f := newFake("S")
	put(t, f, item{"id": value("a"),
		"big":    &types.AttributeValueMemberN{Value: "12345678901234567890123456789012345678"},
		"exact":  &types.AttributeValueMemberN{Value: "0.1000000000000000055511151231257827"},
		"bytes":  &types.AttributeValueMemberB{Value: []byte{0, 255}},
		"none":   &types.AttributeValueMemberNULL{Value: true},
		"yes":    &types.AttributeValueMemberBOOL{Value: true},
		"text":   value("<ä & \u2028>\n"),
		"words":  &types.AttributeValueMemberSS{Value: []string{"x", "y"}},
		"counts": &types.AttributeValueMemberNS{Value: []string{"1", "9007199254740993"}},
		"blobs":  &types.AttributeValueMemberBS{Value: [][]byte{{1}}},
		"list":   &types.AttributeValueMemberL{Value: []types.AttributeValue{value("x"), &types.AttributeValueMemberNULL{Value: true}, value(map[string]any{})}},
		"empty":  &types.AttributeValueMemberL{},
	})
	want(t, ask(t, open(t, f, Options{}), "a", "a", ""), "a", `{"big":12345678901234567890123456789012345678,"blobs":["AQ=="],"bytes":"AP8=","counts":[1,9007199254740993],`+
		`"empty":[],"exact":0.1000000000000000055511151231257827,"id":"a","list":["x",null,{}],"none":null,"text":"<ä & \u2028>\n","words":["x","y"],"yes":true}`)
}

// A row beyond a mebibyte is malformed; one below it is not.
func TestRowSize(t *testing.T) {
	f := newFake("S")
	put(t, f, item{"id": value("small"), "x": value(strings.Repeat("\x01", 170_000))}) // six bytes each
	put(t, f, item{"id": value("large"), "x": value(strings.Repeat("\x01", 180_000))})
	found, err := open(t, f, Options{}).Lookup(t.Context(), []string{"small", "large"})
	var failed *enrich.Failed[string]
	if !errors.As(err, &failed) || len(found) != 1 || !errors.Is(failed.Keys["large"], enrich.ErrMalformed) {
		t.Errorf("%d rows, %v", len(found), err)
	}
}

func TestSelect(t *testing.T) {
	f := newFake("S", "kind", "S")
	put(t, f, item{"id": value("a"), "kind": value("profile"), "name": value("Ada"), "status": value("on"),
		"size": value(map[string]any{"count": 1.0, "user": "x", "data": map[string]any{"value": 2.0}})})
	for _, c := range []struct {
		paths []string
		want  string
	}{
		{nil, `{"id":"a","kind":"profile","name":"Ada","size":{"count":1,"data":{"value":2},"user":"x"},"status":"on"}`},
		{[]string{"name", "status"}, `{"name":"Ada","status":"on"}`}, // both are reserved words
		{[]string{"id", "name"}, `{"id":"a","name":"Ada"}`},
		{[]string{"kind"}, `{"kind":"profile"}`},
		{[]string{"absent"}, `{}`},
		{[]string{"size.count", "size.data.value", "size.absent"}, `{"size":{"count":1,"data":{"value":2}}}`},
		{[]string{"size.count", "size", "size.data.value", "size"}, `{"size":{"count":1,"data":{"value":2},"user":"x"}}`},
		{[]string{"id.x", "name.x"}, `{}`},
	} {
		want(t, ask(t, open(t, f, Options{Select: c.paths, Sort: "kind=profile"}), "a", "b"), "a", c.want)
	}
}

// The rows of one value of the sort key, and of no other.
func TestSort(t *testing.T) {
	f := newFake("N", "v", "N")
	for _, v := range []string{"1", "2"} {
		put(t, f, item{"id": keyValue("N", "7"), "v": keyValue("N", v)})
	}
	want(t, ask(t, open(t, f, Options{Sort: "v=2.0"}), "7", "8"), "7", `{"id":7,"v":2}`)
	want(t, ask(t, open(t, f, Options{Sort: "v=3"}), "7", "8"))
}

// Consistent reads see the newest write. The fake shows that the others need not.
func TestConsistent(t *testing.T) {
	f := newFake("S")
	f.lag = true
	put(t, f, item{"id": value("a"), "n": value(1.0)})
	put(t, f, item{"id": value("a"), "n": value(2.0)})
	want(t, ask(t, open(t, f, Options{Consistent: true}), "a"), "a", `{"id":"a","n":2}`)
	want(t, ask(t, open(t, f, Options{}), "a"), "a", `{"id":"a","n":1}`)
}

// Keys that cannot be in the table are absent without a question; those that are equal are asked for once.
func TestKeyTexts(t *testing.T) {
	long := strings.Repeat("k", mostPartition)
	for _, c := range []struct {
		kind  string
		keys  []string
		asked []string
	}{
		{"S", []string{"a", "a", "", long, long + "k", "\xff", "ä"}, []string{"a", long, "ä"}},
		{"N", []string{"7", "7.0", "70e-1", "0.7E+1", "x", "", "007", "+7", " 7", "0x7", "1_0", "NaN", "Infinity", "-", "1e", "1e1_0", ".5", "5.", "1e126", "1e-131",
			"1234567890123456789012345678901234567890", "1e999999999999", "-0", "0", "0e5"}, []string{"7", "0"}},
		{"B", []string{"AA==", "AB==", "AA", "", "!", "AA==\n", "a b="}, []string{"AA=="}},
	} {
		f := newFake(c.kind)
		table := open(t, f, Options{})
		ask(t, table, c.keys...)
		if got := f.asked[len(f.asked)-1]; !slices.Equal(got, c.asked) {
			t.Errorf("%s: asked for %q, want %q", c.kind, got, c.asked)
		}
		calls := f.calls["BatchGetItem"]
		ask(t, table, "")
		if f.calls["BatchGetItem"] != calls {
			t.Errorf("%s: asked for nothing", c.kind)
		}
	}
}

// A binary key has one text only.
func TestBinaryKey(t *testing.T) {
	f := newFake("B")
	put(t, f, item{"id": keyValue("B", "AA==")})
	want(t, ask(t, open(t, f, Options{}), "AA==", "AB==", "AA==\n", "AA=\r="), "AA==", `{"id":"AA=="}`)
}

// Two texts of one number are two keys of the answer.
func TestEqualNumbers(t *testing.T) {
	f := newFake("N")
	put(t, f, item{"id": keyValue("N", "1000")})
	want(t, ask(t, open(t, f, Options{}), "1000", "1e3", "1000.0"), "1000", `{"id":1000}`, "1e3", `{"id":1000}`, "1000.0", `{"id":1000}`)
}

func FuzzNumber(f *testing.F) {
	for _, s := range []string{"0", "-0.0", "1e3", "1e125", "1e-130", "12.50", "9007199254740993", "00", "1e1000000000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, ok := number(text)
		if !ok {
			return
		}
		if again, ok := number(id); !ok || again != id {
			t.Fatalf("%q is %q, which is %q, %v", text, id, again, ok)
		}
		if !oneNumber.MatchString(id) || len(id) > 44 {
			t.Fatalf("%q is %q", text, id)
		}
		a, errA := strconv.ParseFloat(text, 64)
		b, errB := strconv.ParseFloat(id, 64)
		if errA != nil || errB != nil || a != b {
			t.Fatalf("%q is %q: %v, %v", text, id, errA, errB)
		}
	})
}
