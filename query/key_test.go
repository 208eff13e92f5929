package query

import (
	"encoding/json"
	"fmt"
	"math/big"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/millstream/millstream/stream"
)

// TestKeys holds group keys to their promise: equal exactly when all values are equal with their JSON
// types, and the values come back from the key.
func TestKeys(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	values := []string{`""`, `"a"`, `"b"`, `"1"`, `1`, `1.0`, `1e0`, `-0`, `0`, `0.0`, `0.5`, `5e-1`, `-1`, `true`, `false`, `"true"`, `"\u0001a"`, `"\u0002a"`, `"\u0002"`,
		`"\u0007"`, `"\u0008"`, `"a\u0000b"`, `9007199254740993`, `9007199254740992.0`, `9007199254740992`, `12345678901234567890`, `1e400`, `"|"`, `"a|b"`, `"é"`, `100000000000000000000`, `1e20`, `1e-7`}
	for n := 1; n <= 3; n++ {
		var names []string
		for i := range n {
			names = append(names, fmt.Sprintf("k%d", i))
		}
		q := compiled(t, Config{Key: names, Time: "t", Window: "tumbling:1s", Aggregate: "count()"})
		d := q.newDecoder().(*decoder)
		meanings := map[string]string{} // by key
		keys := map[string]string{}     // by meaning
		for range 3000 {
			var parts []string
			var meaning []any
			for i := range n {
				v := values[r.IntN(len(values))]
				parts = append(parts, fmt.Sprintf(`"k%d":%s`, i, v))
				meaning = append(meaning, canonical(t, v))
			}
			var e stream.Event[Event]
			d.Reset()
			if err := d.Decode(&stream.Record{Data: []byte(`{"t":0,` + strings.Join(parts, ",") + `}`)}, &e); err != nil {
				t.Fatal(err)
			}
			key, means := strings.Clone(e.Key), fmt.Sprintf("%#v", meaning)
			if other, ok := meanings[key]; ok && other != means {
				t.Fatalf("the key %q is that of %s and of %s", key, other, means)
			}
			if other, ok := keys[means]; ok && other != key {
				t.Fatalf("%s has the keys %q and %q", means, other, key)
			}
			meanings[key], keys[means] = means, key
			var back []any
			keyParts(key, n, func(_ int, part string, isString bool) {
				if !isString {
					if !json.Valid([]byte(part)) {
						t.Fatalf("%q is not JSON", part)
					}
					back = append(back, canonical(t, part))
					return
				}
				back = append(back, part)
			})
			if !reflect.DeepEqual(back, meaning) {
				t.Fatalf("the key %q gives back %#v, not %#v", key, back, meaning)
			}
		}
	}
}

// canonical is a JSON value such that equal values are equal in Go: numbers exactly.
func canonical(t *testing.T, v string) any {
	if v[0] == '"' {
		var s string
		if err := json.Unmarshal([]byte(v), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	if v == "true" || v == "false" {
		return v == "true"
	}
	r, ok := new(big.Rat).SetString(v)
	if !ok {
		t.Fatal(v)
	}
	return [2]string{"number", r.RatString()}
}

// TestNoAllocations holds the hot path to its promise. The machine, which does allocate, shows that
// the measurement can fail.
func TestNoAllocations(t *testing.T) {
	batch := ysb(1, 500)[0]
	measure := func(cfg Config) float64 {
		q := compiled(t, cfg)
		q.absent.watching.Store(false)
		p := q.Pipeline()
		d, lane, events := p.NewDecoder(), p.Operator.Lane(), make([]stream.Event[Event], len(batch))
		return testing.AllocsPerRun(20, func() {
			if kept, err := drive(p, d, lane, events, batch); err != nil || kept == 0 || kept == len(batch) {
				t.Fatal(kept, err)
			}
		})
	}
	for _, c := range []struct {
		what   string
		change func(*Config)
		most   float64 // allocations a batch of 500
	}{
		{"where, key, count", func(*Config) {}, 0},
		{"several keys", func(c *Config) { c.Key = []string{"ad_id", "ad_type"} }, 0},
		{"aggregates of fields", func(c *Config) {
			c.Aggregate = "sum(event_time), min(event_time), count(ip_address), avg(event_time * 2 - 1)"
		}, 0},
		{"conditions", func(c *Config) {
			c.Where = `event_type in ["view", "click"] and not (ad_type startsWith "m") and event_time != nil`
			c.Require = []string{`ip_address contains "."`}
		}, 0},
		{"rows", func(c *Config) { *c = Config{Where: c.Where, Select: "ad_id as ad, *"} }, 3}, // chunks
	} {
		cfg := ysbQuery
		c.change(&cfg)
		if got := measure(cfg); got > c.most {
			t.Errorf("%s: %v allocations a batch", c.what, got)
		}
	}
	cfg := ysbQuery
	cfg.Where = `upper(event_type) == "VIEW"`
	if measure(cfg) < float64(len(batch)) {
		t.Error("the machine does not allocate: is anything measured?")
	}
}
