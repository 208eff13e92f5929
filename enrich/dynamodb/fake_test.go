package dynamodb

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awsdynamodb "github.com/aws/aws-sdk-go-v2/service/dynamodb"
)

// fake speaks as much of DynamoDB's protocol as the driver needs, and is as strict as the service: see
// https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html.
type fake struct {
	keys  [][2]string // attribute and type, the partition key first
	lag   bool        // reads that are not consistent do not see the newest write of an item
	left  func(call int, ids []string) (unprocessed []string)
	fault func(operation string, call int, w http.ResponseWriter) (handled bool)

	mu          sync.Mutex
	status      string
	items       map[string][]map[string]any // the versions of an item
	calls       map[string]int
	unprocessed int        // keys that were left out, over all calls
	asked       [][]string // the keys of every BatchGetItem
	last        map[string]any
}

func newFake(kind string, sort ...string) *fake {
	f := &fake{keys: [][2]string{{"id", kind}}, status: "ACTIVE", items: map[string][]map[string]any{}, calls: map[string]int{}}
	if len(sort) == 2 {
		f.keys = append(f.keys, [2]string{sort[0], sort[1]})
	}
	return f
}

// client is one over memory: in a bubble of synctest its time is virtual.
func (f *fake) client() *awsdynamodb.Client {
	return awsdynamodb.New(awsdynamodb.Options{Region: "eu-central-1", HTTPClient: inMemory{f},
		Credentials: credentials.NewStaticCredentialsProvider("k", "s", "")})
}

// serve puts the fake behind a real connection.
func (f *fake) serve(t *testing.T) (*awsdynamodb.Client, *httptest.Server) {
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	return awsdynamodb.New(awsdynamodb.Options{Region: "eu-central-1", BaseEndpoint: aws.String(server.URL),
		Credentials: credentials.NewStaticCredentialsProvider("k", "s", "")}), server
}

type inMemory struct{ handler http.Handler }

func (m inMemory) Do(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	m.handler.ServeHTTP(w, r)
	return w.Result(), r.Context().Err()
}

type refusal struct{ code, message string }

func (r refusal) Error() string { return r.code + ": " + r.message }

func invalid(format string, args ...any) error {
	return refusal{"ValidationException", fmt.Sprintf(format, args...)}
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var in map[string]any
	if err := json.Unmarshal(body, &in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	call := f.calls[operation]
	f.calls[operation]++
	f.mu.Unlock()
	if f.fault != nil && f.fault(operation, call, w) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	out, err := f.answer(operation, call, in)
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	if why := (refusal{}); errors.As(err, &why) {
		refuse(w, why)
		return
	}
	_ = json.NewEncoder(w).Encode(out)
}

func refuse(w http.ResponseWriter, r refusal) {
	status := http.StatusBadRequest
	if r.code == "InternalServerError" {
		status = http.StatusInternalServerError
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"__type": "com.amazonaws.dynamodb.v20120810#" + r.code, "message": r.message})
}

func (f *fake) answer(operation string, call int, in map[string]any) (any, error) {
	if name, ok := in["TableName"]; ok && name != "users" {
		return nil, refusal{"ResourceNotFoundException", fmt.Sprintf("Requested resource not found: Table: %v not found", name)}
	}
	switch operation {
	case "DescribeTable":
		schema, definitions := []any{}, []any{}
		for i, k := range f.keys {
			schema = append(schema, map[string]any{"AttributeName": k[0], "KeyType": []string{"HASH", "RANGE"}[i]})
			definitions = append(definitions, map[string]any{"AttributeName": k[0], "AttributeType": k[1]})
		}
		return map[string]any{"Table": map[string]any{"TableName": "users", "TableStatus": f.status, "KeySchema": schema, "AttributeDefinitions": definitions}}, nil
	case "PutItem":
		it := in["Item"].(map[string]any)
		id, err := f.identity(it, false)
		if err == nil {
			f.items[id] = append(f.items[id], it)
		}
		return map[string]any{}, err
	case "DeleteItem":
		id, err := f.identity(in["Key"].(map[string]any), true)
		delete(f.items, id)
		return map[string]any{}, err
	case "BatchGetItem":
		return f.batch(call, in["RequestItems"].(map[string]any)["users"].(map[string]any))
	}
	return nil, invalid("operation %q", operation)
}

var oneNumber = regexp.MustCompile(`^-?[0-9]+(\.[0-9]+)?(E-?[0-9]+)?$`)

// identity checks a key's attributes as the service does.
func (f *fake) identity(it map[string]any, only bool) (string, error) {
	var id strings.Builder
	for i, k := range f.keys {
		typed, _ := it[k[0]].(map[string]any)
		value, ok := typed[k[1]].(string)
		switch {
		case !ok:
			return "", invalid("The provided key element does not match the schema")
		case value == "":
			return "", invalid("One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string value. Key: %s", k[0])
		case len(value) > 2*2048>>i:
			return "", invalid("One or more parameter values were invalid: Size of key has exceeded the maximum size limit")
		case k[1] == "N" && (!oneNumber.MatchString(value) || len(value) > 42):
			return "", invalid("The parameter cannot be converted to a numeric value: %s", value)
		}
		if k[1] == "N" {
			n, _ := new(big.Rat).SetString(value)
			value = n.RatString()
		}
		fmt.Fprintf(&id, "%q", value)
	}
	if only && len(it) != len(f.keys) {
		return "", invalid("The provided key element does not match the schema")
	}
	return id.String(), nil
}

func (f *fake) batch(call int, in map[string]any) (any, error) {
	f.last = in
	keys := in["Keys"].([]any)
	if len(keys) == 0 || len(keys) > 100 {
		return nil, invalid("Too many items requested for the BatchGetItem call")
	}
	byID, ids, texts := map[string]map[string]any{}, []string{}, []string{}
	for _, k := range keys {
		key := k.(map[string]any)
		id, err := f.identity(key, true)
		if err != nil {
			return nil, err
		}
		if byID[id] != nil {
			return nil, invalid("Provided list of item keys contains duplicates")
		}
		byID[id], ids = key, append(ids, id)
		texts = append(texts, key["id"].(map[string]any)[f.keys[0][1]].(string))
	}
	f.asked = append(f.asked, texts)
	left := map[string]bool{}
	if f.left != nil {
		for _, id := range f.left(call, ids) {
			left[id] = true
		}
	}
	found, unprocessed := []any{}, []any{}
	for _, id := range ids {
		switch versions := f.items[id]; {
		case left[id]:
			unprocessed = append(unprocessed, byID[id])
		case len(versions) > 0:
			if consistent, _ := in["ConsistentRead"].(bool); f.lag && !consistent {
				versions = versions[:max(1, len(versions)-1)]
			}
			it, err := projected(versions[len(versions)-1], in)
			if err != nil {
				return nil, err
			}
			found = append([]any{it}, found...) // in no order
		}
	}
	f.unprocessed += len(unprocessed)
	out := map[string]any{"Responses": map[string]any{"users": found}, "UnprocessedKeys": map[string]any{}}
	if len(unprocessed) > 0 {
		out["UnprocessedKeys"] = map[string]any{"users": map[string]any{"Keys": unprocessed}}
	}
	return out, nil
}

// projected applies a projection. It takes placeholders only: any other name may be a reserved word.
func projected(it, in map[string]any) (map[string]any, error) {
	expression, ok := in["ProjectionExpression"].(string)
	if !ok {
		return it, nil
	}
	names, _ := in["ExpressionAttributeNames"].(map[string]any)
	out, seen := map[string]any{}, map[string]bool{}
	for term := range strings.SplitSeq(expression, ",") {
		term = strings.TrimSpace(term)
		path := strings.Split(term, ".")
		for i, part := range path {
			name, ok := names[part].(string)
			if !ok {
				return nil, invalid("Invalid ProjectionExpression: Attribute name is a reserved keyword; reserved keyword: %s", part)
			}
			path[i] = name
		}
		for i := range path {
			if seen[strings.Join(path[:i+1], ".")] {
				return nil, invalid("Invalid ProjectionExpression: Two document paths overlap with each other")
			}
		}
		seen[strings.Join(path, ".")] = true
		keep(it, out, path)
	}
	return out, nil
}

// keep copies one path of attributes.
func keep(from, to map[string]any, path []string) {
	value, ok := from[path[0]].(map[string]any)
	if !ok {
		return
	}
	if len(path) == 1 {
		to[path[0]] = value
		return
	}
	inner, ok := value["M"].(map[string]any)
	if !ok || inner[path[1]] == nil {
		return
	}
	kept, ok := to[path[0]].(map[string]any)
	if !ok {
		kept = map[string]any{"M": map[string]any{}}
		to[path[0]] = kept
	}
	keep(inner, kept["M"].(map[string]any), path[1:])
}
