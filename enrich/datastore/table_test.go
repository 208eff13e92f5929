package datastore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/datastore"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/millstream/millstream/enrich"
	"github.com/millstream/millstream/enrich/enrichtest"
	fake "github.com/millstream/millstream/fakes/datastore"
)

func serve(t *testing.T) (*fake.Server, string) {
	t.Helper()
	server := fake.New(fake.Options{Project: "p"})
	address, err := server.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return server, address
}

func open(t *testing.T, o Options) *Table {
	t.Helper()
	o.Project, o.Kind = "p", "User"
	table, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = table.Close() })
	return table
}

func TestSuite(t *testing.T) {
	enrichtest.Run(t, func(t *testing.T) *enrichtest.Harness {
		server, address := serve(t)
		return &enrichtest.Harness{
			Table: open(t, Options{Endpoint: address}),
			Put: func(_ context.Context, key string, row map[string]any) error {
				server.Put("User", key, row)
				return nil
			},
			Delete: func(_ context.Context, key string) error { server.Delete("User", key); return nil },
			Select: func(fields ...string) (enrich.Table, error) {
				return open(t, Options{Endpoint: address, Select: fields}), nil
			},
			Down: server.Close,
		}
	})
}

// What the official client writes is read, by name and by id, in every type that JSON can tell.
func TestOfficialClient(t *testing.T) {
	_, address := serve(t)
	client, err := datastore.NewClient(t.Context(), "p", option.WithEndpoint(address), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	row := datastore.PropertyList{
		{Name: "n", Value: int64(math.MaxInt64)}, {Name: "f", Value: 1.5}, {Name: "nan", Value: math.NaN()}, {Name: "s", Value: "ä"}, {Name: "b", Value: true},
		{Name: "raw", Value: []byte{1, 2}, NoIndex: true}, {Name: "at", Value: at}, {Name: "none", Value: nil}, {Name: "list", Value: []any{int64(1), "x"}},
		{Name: "key", Value: datastore.NameKey("K", "a", datastore.IDKey("P", 7, nil))}, {Name: "geo", Value: datastore.GeoPoint{Lat: 1, Lng: 2}},
		{Name: "in", Value: &datastore.Entity{Properties: []datastore.Property{{Name: "city", Value: "Z"}}}},
	}
	for _, key := range []*datastore.Key{datastore.NameKey("User", "u", nil), datastore.IDKey("User", 42, nil)} {
		if _, err := client.Put(t.Context(), key, &row); err != nil {
			t.Fatal(err)
		}
	}
	const want = `{"at":"2026-01-02T03:04:05Z","b":true,"f":1.5,"geo":{"latitude":1,"longitude":2},"in":{"city":"Z"},"key":["P",7,"K","a"],"list":[1,"x"],"n":9223372036854775807,"nan":null,"none":null,"raw":"AQI=","s":"ä"}`
	for key, table := range map[string]*Table{"u": open(t, Options{Endpoint: address}), "42": open(t, Options{Endpoint: address, IDs: true, Eventual: true})} {
		found, err := table.Lookup(t.Context(), []string{key, "042", "-1", "x", "__x__", strings.Repeat("x", 2000)})
		if err != nil || len(found) != 1 || string(found[key][0].JSON) != want {
			t.Errorf("%s: %v, %s", key, err, found[key])
		}
	}
}

// Keys that an answer leaves out are asked for again; those that never come are failures, and never absent.
func TestDeferred(t *testing.T) {
	server, address := serve(t)
	table := open(t, Options{Endpoint: address})
	var keys []string
	for i := range 50 {
		keys = append(keys, fmt.Sprint("u", i))
		server.Put("User", keys[i], map[string]any{"n": int64(i)})
	}
	left := server.Inject(fake.Fault{Operation: "Lookup", Times: 1, Defer: 15})
	found, err := table.Lookup(t.Context(), keys)
	if err != nil || len(found) != 50 || left.Hits() != 1 {
		t.Errorf("%d rows, %v, deferred %d times", len(found), err, left.Hits())
	}
	never := server.Inject(fake.Fault{Operation: "Lookup", Times: -1, Defer: 20})
	found, err = table.Lookup(t.Context(), keys)
	var failed *enrich.Failed[string]
	if !errors.As(err, &failed) || len(found)+len(failed.Keys) != 50 || len(failed.Keys) != 20 || never.Hits() > 5 {
		t.Errorf("%d rows, %v, %d calls", len(found), err, never.Hits())
	}
	never.Stop()
	half := server.Inject(fake.Fault{Operation: "Lookup", Times: 1, Defer: 20})
	busy := server.Inject(fake.Fault{Operation: "Lookup", Times: 1, Code: codes.ResourceExhausted})
	found, err = table.Lookup(t.Context(), keys)
	if !errors.As(err, &failed) || len(found) != 30 || len(failed.Keys) != 20 || half.Hits() != 1 || busy.Hits() != 1 {
		t.Errorf("%d rows, %v", len(found), err)
	}
}

// An error is never an absence.
func TestErrors(t *testing.T) {
	server, address := serve(t)
	table := open(t, Options{Endpoint: address})
	server.Put("User", "a", map[string]any{"s": strings.Repeat("x", enrich.MaxRow)})
	server.Put("User", "b", map[string]any{"s": "fine"})
	found, err := table.Lookup(t.Context(), []string{"a", "b"})
	var failed *enrich.Failed[string]
	if !errors.As(err, &failed) || !errors.Is(failed.Keys["a"], enrich.ErrMalformed) || len(found["b"]) != 1 {
		t.Errorf("a row that is too large: %v", err)
	}
	for _, f := range []fake.Fault{{Code: codes.ResourceExhausted}, {Code: codes.Unavailable}, {Code: codes.PermissionDenied}, {LoseReply: true}} {
		server.Inject(f)
		if found, err := table.Lookup(t.Context(), []string{"b"}); err == nil || len(found) > 0 {
			t.Errorf("%+v: %v, %v", f, found, err)
		}
	}
	server.Inject(fake.Fault{Delay: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := table.Lookup(ctx, []string{"b"}); err == nil {
		t.Error("no answer was taken for one")
	}
	for want, o := range map[string]Options{
		"project and kind are needed": {},
		"want HOST:PORT":              {Project: "p", Kind: "User", Endpoint: "nowhere"},
		"is not this one":             {Project: "other", Kind: "User", Endpoint: address},
		"not the name of a field":     {Project: "p", Kind: "User", Endpoint: address, Select: []string{"a..b"}},
	} {
		if _, err := New(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
