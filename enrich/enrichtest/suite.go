// Package enrichtest holds the drivers of tables to their contract. A driver's test makes a Harness over its
// fake or server and calls Run.
package enrichtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/millstream/millstream/enrich"
)

// Harness is an empty table behind a driver, and hands on what it stands on.
type Harness struct {
	Table enrich.Table
	// Put writes the row of a key, {"tier":…, "n":…, "tags":…}, so that the next Lookup sees it.
	Put func(ctx context.Context, key string, row map[string]any) error
	// Delete removes it; nil where rows cannot be removed.
	Delete func(ctx context.Context, key string) error
	// KeyField is the field of the row that is the key, if rows hold it.
	KeyField string
	// Keys are texts that may be keys here. Default: all that the suite can think of.
	Keys []string
	// Number returns the i-th of many keys, where not every number is one. Default: its decimal form.
	Number func(i int) string
	// Select returns another table over the same rows that reads only these fields; nil where drivers of
	// this kind cannot.
	Select func(fields ...string) (enrich.Table, error)
	// Flat says that rows are fields of strings only: what the suite puts, and finds, are then such.
	Flat bool
	// Down makes the backend unreachable; nil where it cannot be.
	Down func()
}

// texts are keys that have broken encodings before.
var texts = []string{"a", "B", "0", "7", "-1", "007", "1e3", "a b", "ä", "日本", "it's", `"quoted"`, `back\slash`, "a/b", "a|b", "a,b", "%41", "a%", "_", "*", "💥", "null", "true",
	"ffffffff-ffff-ffff-ffff-ffffffffffff", "x=1&y=2", "#?", "a:b", "{}", "[1]", "$1", "@p"}

// Run runs every case, each on a fresh harness.
func Run(t *testing.T, fresh func(t *testing.T) *Harness) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, h *Harness)
	}{
		{"KnownAndUnknown", knownAndUnknown},
		{"Keys", everyKey},
		{"Full", fullCall},
		{"Changes", changes},
		{"Select", selected},
		{"Concurrent", concurrent},
		{"Cancelled", cancelled},
		{"Down", down},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := fresh(t)
			if h.Keys == nil {
				h.Keys = texts
			}
			if h.Number == nil {
				h.Number = func(i int) string { return fmt.Sprint(i) }
			}
			t.Cleanup(func() { _ = h.Table.Close() })
			c.run(t, h)
		})
	}
}

// row is what the suite keeps under the i-th key.
func (h *Harness) row(i int) map[string]any {
	if h.Flat {
		return map[string]any{"tier": fmt.Sprintf("tier-%d", i), "n": fmt.Sprint(i), "city": "Zürich"}
	}
	return map[string]any{"tier": fmt.Sprintf("tier-%d", i), "n": float64(i), "nested": map[string]any{"city": "Zürich"}}
}

func put(t *testing.T, h *Harness, key string, r map[string]any) {
	t.Helper()
	if err := h.Put(t.Context(), key, r); err != nil {
		t.Fatalf("put %q: %v", key, err)
	}
}

// decode returns the fields of rows without the key's own.
func decode(t *testing.T, h *Harness, found map[string][]enrich.Row) map[string]map[string]any {
	t.Helper()
	out := map[string]map[string]any{}
	for key, rows := range found {
		if len(rows) != 1 {
			t.Fatalf("%q has %d rows", key, len(rows))
		}
		var fields map[string]any
		if err := json.Unmarshal(rows[0].JSON, &fields); err != nil || fields == nil {
			t.Fatalf("%q: %s is not an object: %v", key, rows[0].JSON, err)
		}
		delete(fields, h.KeyField)
		out[key] = fields
	}
	return out
}

func look(t *testing.T, h *Harness, keys ...string) map[string]map[string]any {
	t.Helper()
	found, err := h.Table.Lookup(t.Context(), keys)
	if err != nil {
		t.Fatalf("lookup of %d keys: %v", len(keys), err)
	}
	return decode(t, h, found)
}

func same(t *testing.T, got, want map[string]map[string]any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func knownAndUnknown(t *testing.T, h *Harness) {
	a, b, c := h.Keys[0], h.Keys[1], h.Keys[2]
	put(t, h, a, h.row(1))
	put(t, h, b, h.row(2))
	same(t, look(t, h, a, c, b), map[string]map[string]any{a: h.row(1), b: h.row(2)})
	same(t, look(t, h, c), map[string]map[string]any{})
	same(t, look(t, h), map[string]map[string]any{})
	same(t, look(t, h, b, b, b), map[string]map[string]any{b: h.row(2)})
}

func everyKey(t *testing.T, h *Harness) {
	limit := max(1, min(len(h.Keys), h.Table.Limit()))
	want := map[string]map[string]any{}
	for i, key := range h.Keys {
		want[key] = h.row(i)
		put(t, h, key, h.row(i))
	}
	got := map[string]map[string]any{}
	for chunk := range slices.Chunk(h.Keys, limit) {
		maps.Copy(got, look(t, h, chunk...))
	}
	same(t, got, want)
}

// fullCall asks for as many keys as one call takes, and for one more.
func fullCall(t *testing.T, h *Harness) {
	n := min(h.Table.Limit(), 500)
	if n < 1 {
		t.Fatalf("a call takes %d keys", n)
	}
	keys, want := make([]string, n), map[string]map[string]any{}
	for i := range keys {
		keys[i] = h.Number(1000 + i)
		if i%2 == 0 {
			put(t, h, keys[i], h.row(i))
			want[keys[i]] = h.row(i)
		}
	}
	same(t, look(t, h, keys...), want)
	if limit := h.Table.Limit(); limit <= 10_000 {
		if _, err := h.Table.Lookup(t.Context(), slices.Repeat([]string{keys[0]}, limit+1)); err == nil {
			t.Errorf("%d keys, one more than the limit, were taken", limit+1)
		}
	}
}

// changes: the next call sees a row that was put, changed or removed.
func changes(t *testing.T, h *Harness) {
	key := h.Keys[0]
	same(t, look(t, h, key), map[string]map[string]any{})
	put(t, h, key, h.row(1))
	same(t, look(t, h, key), map[string]map[string]any{key: h.row(1)})
	put(t, h, key, h.row(2))
	same(t, look(t, h, key), map[string]map[string]any{key: h.row(2)})
	if h.Delete == nil {
		return
	}
	if err := h.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	same(t, look(t, h, key), map[string]map[string]any{})
}

func selected(t *testing.T, h *Harness) {
	if h.Select == nil {
		return
	}
	table, err := h.Select("tier", "absent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = table.Close() })
	key := h.Keys[0]
	put(t, h, key, h.row(3))
	found, err := table.Lookup(t.Context(), []string{key})
	if err != nil {
		t.Fatal(err)
	}
	same(t, decode(t, h, found), map[string]map[string]any{key: {"tier": "tier-3"}})
}

func concurrent(t *testing.T, h *Harness) {
	put(t, h, h.Keys[0], h.row(0))
	want := map[string]map[string]any{h.Keys[0]: h.row(0)}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				found, err := h.Table.Lookup(t.Context(), h.Keys[:min(2, h.Table.Limit())])
				if err != nil {
					t.Error(err)
					return
				}
				same(t, decode(t, h, found), want)
				clear(found) // the map is the caller's
			}
		})
	}
	wg.Wait()
}

// cancelled: a call ends with its context, which is neither an answer nor the key's fault.
func cancelled(t *testing.T, h *Harness) {
	put(t, h, h.Keys[0], h.row(0))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	found, err := h.Table.Lookup(ctx, h.Keys[:1])
	if err == nil && len(found) == 1 {
		return // it needed nobody: a table in memory
	}
	var failed *enrich.Failed[string]
	if err == nil || errors.As(err, &failed) {
		t.Errorf("%v, %v after the context was done", found, err)
	}
}

// down: a backend that cannot be reached is an error, never an absent row.
func down(t *testing.T, h *Harness) {
	if h.Down == nil {
		return
	}
	put(t, h, h.Keys[0], h.row(0))
	h.Down()
	if found, err := h.Table.Lookup(t.Context(), h.Keys[:1]); err == nil {
		t.Errorf("%v and no error from a backend that is down", found)
	}
}
