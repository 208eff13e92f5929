package firestore

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/api/option"
	"google.golang.org/genproto/googleapis/type/latlng"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/millstream/millstream/enrich"
	"github.com/millstream/millstream/enrich/enrichtest"
	fake "github.com/millstream/millstream/fakes/firestore"
)

func serve(t *testing.T) (*fake.Server, *firestore.Client, string) {
	t.Helper()
	server := fake.New(fake.Options{Project: "p"})
	address, err := server.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	client, err := firestore.NewClient(context.Background(), "p", option.WithEndpoint(address), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return server, client, address
}

func open(t *testing.T, o Options) *Table {
	t.Helper()
	o.Project, o.Collection = "p", "users"
	table, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = table.Close() })
	return table
}

// The official client writes what the driver reads.
func TestSuite(t *testing.T) {
	enrichtest.Run(t, func(t *testing.T) *enrichtest.Harness {
		server, client, address := serve(t)
		users := client.Collection("users")
		return &enrichtest.Harness{
			Table: open(t, Options{Endpoint: address}),
			// Ids of documents have no slashes.
			Keys: []string{"a", "B", "0", "7", "-1", "007", "a b", "ä", "日本", "it's", `"quoted"`, `back\slash`, "a|b", "%41", "💥", "null", "*", "#?", "{}"},
			Put: func(ctx context.Context, key string, row map[string]any) error {
				_, err := users.Doc(key).Set(ctx, row)
				return err
			},
			Delete: func(ctx context.Context, key string) error {
				_, err := users.Doc(key).Delete(ctx)
				return err
			},
			Select: func(fields ...string) (enrich.Table, error) {
				return open(t, Options{Endpoint: address, Select: fields}), nil
			},
			Down: server.Close,
		}
	})
}

func TestTypes(t *testing.T) {
	_, client, address := serve(t)
	users := client.Collection("users")
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if _, err := users.Doc("u").Set(t.Context(), map[string]any{"n": math.MaxInt64, "f": 1.5, "nan": math.NaN(), "s": "ä", "b": true, "raw": []byte{1, 2}, "at": at, "none": nil,
		"list": []any{1, "x"}, "in": map[string]any{"city": "Z"}, "ref": users.Doc("v"), "geo": &latlng.LatLng{Latitude: 1, Longitude: 2}, "odd name": 1}); err != nil {
		t.Fatal(err)
	}
	const want = `{"at":"2026-01-02T03:04:05Z","b":true,"f":1.5,"geo":{"latitude":1,"longitude":2},"in":{"city":"Z"},"list":[1,"x"],"n":9223372036854775807,"nan":null,"none":null,"odd name":1,"raw":"AQI=","ref":"projects/p/databases/(default)/documents/users/v","s":"ä"}`
	found, err := open(t, Options{Endpoint: address}).Lookup(t.Context(), []string{"u", "a/b", "..", "", "__x__", strings.Repeat("x", 2000)})
	if err != nil || len(found) != 1 || string(found["u"][0].JSON) != want {
		t.Errorf("%v, %s", err, found["u"])
	}
	found, err = open(t, Options{Endpoint: address, Select: []string{"odd name", "in.city"}}).Lookup(t.Context(), []string{"u"})
	if err != nil || string(found["u"][0].JSON) != `{"in":{"city":"Z"},"odd name":1}` {
		t.Errorf("%v, %s", err, found["u"])
	}
}

// What a stream has not named when it ends is a failure, however it ends.
func TestCutOff(t *testing.T) {
	server, client, address := serve(t)
	table := open(t, Options{Endpoint: address})
	for _, id := range []string{"a", "b", "c"} {
		if _, err := client.Collection("users").Doc(id).Set(t.Context(), map[string]any{"id": id}); err != nil {
			t.Fatal(err)
		}
	}
	for _, well := range []bool{false, true} {
		cut := server.Inject(fake.Fault{Operation: "BatchGetDocuments", After: 2, CutWell: well})
		found, err := table.Lookup(t.Context(), []string{"a", "b", "c", "d"})
		var failed *enrich.Failed[string]
		if !errors.As(err, &failed) || len(found) != 2 || len(failed.Keys) != 2 || failed.Keys["d"] == nil || cut.Hits() != 1 {
			t.Errorf("cut off, well %t: %v, %v", well, found, err)
		}
	}
	for _, code := range []codes.Code{codes.ResourceExhausted, codes.Unavailable, codes.PermissionDenied} {
		server.Inject(fake.Fault{Code: code})
		if found, err := table.Lookup(t.Context(), []string{"a"}); err == nil || len(found) > 0 {
			t.Errorf("%s: %v, %v", code, found, err)
		}
	}
	for want, o := range map[string]Options{
		"want a project":          {Project: "p", Collection: "users/u"},
		"want HOST:PORT":          {Project: "p", Collection: "users", Endpoint: "nowhere"},
		"is not this one":         {Project: "other", Collection: "users", Endpoint: address},
		"not the name of a field": {Project: "p", Collection: "users", Endpoint: address, Select: []string{"a..b"}},
	} {
		if _, err := New(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
