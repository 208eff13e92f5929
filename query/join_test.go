package query_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millstream/millstream/enrich"
	"github.com/millstream/millstream/query"
	"github.com/millstream/millstream/stream"
	"github.com/millstream/millstream/stream/streamtest"
)

// tables are rows by enrichment and key; asked notes what is looked up.
type tables struct {
	rows  map[string]map[string][]query.Version
	asked map[string][]string
}

// joined runs a query with its joins over tables, and returns its rows and the reasons of dead letters.
func joined(t *testing.T, cfg query.Config, tables *tables, records ...string) (rows, dead []string, ledger stream.Ledger) {
	t.Helper()
	q, err := query.Compile(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := q.Pipeline()
	tables.asked = map[string][]string{}
	joins := q.Joins()
	slices.SortStableFunc(joins, func(a, b *query.Join) int { return a.Stage() - b.Stage() })
	for _, j := range joins {
		lookup := enrich.LookupFunc[string, *query.Rows](func(_ context.Context, keys []string) (map[string]*query.Rows, error) {
			out := map[string]*query.Rows{}
			for _, key := range keys {
				tables.asked[j.Name()] = append(tables.asked[j.Name()], strings.Clone(key))
				if versions, ok := tables.rows[j.Name()][key]; ok {
					rows, err := j.Parse(versions)
					if err != nil {
						return nil, err
					}
					out[key] = rows
				}
			}
			return out, nil
		})
		p.Enrich = append(p.Enrich, enrich.With(lookup, j.Key, j.Set))
	}
	p.Enrich = append(p.Enrich, q.Finish())
	var in []stream.Record
	for _, r := range records {
		in = append(in, stream.Record{Data: []byte(r)})
	}
	out, err := streamtest.Do(p, streamtest.Run{Partitions: map[string][]stream.Record{"0": in}})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range out.Rows {
		rows = append(rows, string(r.Data))
	}
	for _, d := range out.DeadLetters {
		dead = append(dead, d.Stage+": "+d.Reason)
	}
	return rows, dead, out.Ledger
}

func one(row string) []query.Version { return []query.Version{{JSON: []byte(row)}} }

var users = map[string][]query.Version{
	"a": one(`{"tier":"gold","country":"CH","n":9007199254740993}`),
	"b": one(`{"tier":null, "country":"DE"}`),
	"7": one(`{"tier":"seven"}`),
}

func TestJoins(t *testing.T) {
	countries := map[string][]query.Version{"CH": one(`{"name":"Switzerland"}`), "DE": one(`{"name":"Germany"}`)}
	user := query.Enrichment{Name: "user", On: "user_id", Defaults: map[string]string{"tier": "free"}}
	at := func(s string) time.Time {
		when, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	for name, c := range map[string]struct {
		cfg     query.Config
		tables  map[string]map[string][]query.Version
		records []string
		rows    []string
		dead    []string
		asked   map[string][]string
	}{
		"whole rows, defaults, and nobody": {
			cfg:     query.Config{Enrich: []query.Enrichment{user}},
			records: []string{`{"user_id":"a","x":1,"user":"hidden"}`, `{"user_id":"b"}`, `{"user_id":"z"}`, `{"x":2}`, `{"user_id":7}`, `{"user_id":7.0}`},
			rows: []string{`{"user_id":"a","x":1,"user":{"tier":"gold","country":"CH","n":9007199254740993}}`, `{"user_id":"b","user":{"tier":"free","country":"DE"}}`,
				`{"user_id":"z","user":null}`, `{"x":2,"user":null}`, `{"user_id":7,"user":{"tier":"seven"}}`, `{"user_id":7.0,"user":{"tier":"seven"}}`},
			asked: map[string][]string{"user": {"a", "b", "z", "7"}},
		},
		"chosen fields": {
			cfg:     query.Config{Enrich: []query.Enrichment{user}, Select: `user_id, user.tier ?? "unknown" as tier, user.country as country`},
			records: []string{`{"user_id":"a"}`, `{"user_id":"b"}`, `{"user_id":"z"}`},
			rows:    []string{`{"user_id":"a","tier":"gold","country":"CH"}`, `{"user_id":"b","tier":"free","country":"DE"}`, `{"user_id":"z","tier":"unknown","country":null}`},
		},
		"what --where excludes by itself is not looked up": {
			cfg:     query.Config{Enrich: []query.Enrichment{user}, Where: `kind == "x" and user.tier == "gold"`, Select: "user_id"},
			records: []string{`{"user_id":"a","kind":"x"}`, `{"user_id":"b","kind":"x"}`, `{"user_id":"c","kind":"y"}`},
			rows:    []string{`{"user_id":"a"}`},
			asked:   map[string][]string{"user": {"a", "b"}},
		},
		"nor what does not meet a requirement of its own": {
			cfg:     query.Config{Enrich: []query.Enrichment{user}, Require: []string{`kind == "x"`, `user.tier == "gold"`}, Select: "user_id"},
			records: []string{`{"user_id":"a","kind":"x"}`, `{"user_id":"b","kind":"x"}`, `{"user_id":"c","kind":"y"}`},
			rows:    []string{`{"user_id":"a"}`},
			dead:    []string{`require: --require: user.tier == "gold"`, `require: --require: kind == "x"`},
			asked:   map[string][]string{"user": {"a", "b"}},
		},
		"but the conditions keep their order": {
			cfg:     query.Config{Enrich: []query.Enrichment{user}, Where: `user.tier == "gold"`, Require: []string{`kind == "x"`}, Select: "user_id"},
			records: []string{`{"user_id":"a","kind":"y"}`, `{"user_id":"b","kind":"y"}`},
			dead:    []string{`require: --require: kind == "x"`},
		},
		"one after the other": {
			cfg:     query.Config{Enrich: []query.Enrichment{{Name: "place", On: "user.country"}, user}, Select: "user_id, place.name as place"},
			tables:  map[string]map[string][]query.Version{"user": users, "place": countries},
			records: []string{`{"user_id":"a"}`, `{"user_id":"b"}`, `{"user_id":"7"}`},
			rows:    []string{`{"user_id":"a","place":"Switzerland"}`, `{"user_id":"b","place":"Germany"}`, `{"user_id":"7","place":null}`},
		},
		"drop": {
			cfg:     query.Config{Enrich: []query.Enrichment{{Name: "user", On: "user_id", Missing: query.MissingDrop}}, Select: "user_id"},
			records: []string{`{"user_id":"a"}`, `{"user_id":"z"}`},
			rows:    []string{`{"user_id":"a"}`},
		},
		"dead letter": {
			cfg:     query.Config{Enrich: []query.Enrichment{{Name: "user", On: "user_id", Missing: query.MissingDeadLetter}}, Select: "user_id", Where: `user_id != "y"`},
			records: []string{`{"user_id":"a"}`, `{"user_id":"z"}`, `{"user_id":"y"}`},
			rows:    []string{`{"user_id":"a"}`},
			dead:    []string{"enrich: enrich user: no row"},
		},
		"keys and aggregates": {
			cfg: query.Config{Enrich: []query.Enrichment{user}, Key: []string{"user.country", "kind"}, Time: "at", Window: "tumbling:1m", Aggregate: "count() as n, sum(user.n) as total", Require: []string{`user.tier != "banned"`}},
			records: []string{`{"user_id":"a","kind":"x","at":"2026-01-01T00:00:00Z"}`, `{"user_id":"b","kind":"x","at":"2026-01-01T00:00:01Z"}`,
				`{"user_id":"a","kind":"x","at":"2026-01-01T00:00:02Z"}`, `{"user_id":"z","kind":"x","at":"2026-01-01T00:00:03Z"}`},
			rows: []string{`{"window_start":"2026-01-01T00:00:00Z","window_end":"2026-01-01T00:01:00Z","user_country":"CH","kind":"x","n":2,"total":18014398509481986}`,
				`{"window_start":"2026-01-01T00:00:00Z","window_end":"2026-01-01T00:01:00Z","user_country":"DE","kind":"x","n":1,"total":null}`},
			dead: []string{"enrich: no key"},
		},
		"the row that was valid at the event's time": {
			cfg: query.Config{Enrich: []query.Enrichment{{Name: "rate", On: "currency"}}, Time: "at", Select: "rate.value as rate"},
			tables: map[string]map[string][]query.Version{"rate": {"EUR": {
				{JSON: []byte(`{"value":3}`), From: at("2026-03-01T00:00:00Z")},
				{JSON: []byte(`{"value":1}`), From: at("2026-01-01T00:00:00Z"), To: at("2026-02-01T00:00:00Z")},
				{JSON: []byte(`{"value":0}`), To: at("2026-01-01T00:00:00Z")},
			}}},
			records: []string{`{"currency":"EUR","at":"2026-04-01T00:00:00Z"}`, `{"currency":"EUR","at":"2026-01-31T23:59:59Z"}`, `{"currency":"EUR","at":"2026-02-01T00:00:00Z"}`, `{"currency":"EUR","at":"2020-02-01T00:00:00Z"}`},
			rows:    []string{`{"rate":3}`, `{"rate":1}`, `{"rate":null}`, `{"rate":0}`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := &tables{rows: c.tables}
			if in.rows == nil {
				in.rows = map[string]map[string][]query.Version{"user": users}
			}
			rows, dead, ledger := joined(t, c.cfg, in, c.records...)
			if !slices.Equal(rows, c.rows) || !slices.Equal(dead, c.dead) {
				t.Errorf("got  %q, %q\nwant %q, %q", rows, dead, c.rows, c.dead)
			}
			if c.asked != nil && !maps.EqualFunc(in.asked, c.asked, slices.Equal) {
				t.Errorf("asked for %v, not %v", in.asked, c.asked)
			}
			if ledger.RecordsIn != ledger.Contributed+ledger.Filtered+ledger.DeadLettered {
				t.Errorf("%+v", ledger)
			}
		})
	}
}

func TestJoinSettings(t *testing.T) {
	for want, cfg := range map[string]query.Config{
		`"a b" cannot be the name of a field`:           {Enrich: []query.Enrichment{{Name: "a b", On: "x"}}},
		`two are named u`:                               {Enrich: []query.Enrichment{{Name: "u", On: "x"}, {Name: "u", On: "y"}}},
		`add on=FIELD`:                                  {Enrich: []query.Enrichment{{Name: "u"}}},
		`a field that comes from itself`:                {Enrich: []query.Enrichment{{Name: "u", On: "v.x"}, {Name: "v", On: "u.x"}}},
		`did you mean "dead-letter"?`:                   {Enrich: []query.Enrichment{{Name: "u", On: "x", Missing: "deadletter"}}},
		`the watermark moves before`:                    {Enrich: []query.Enrichment{{Name: "u", On: "x"}}, Time: "u.at"},
		`u.teir is not among the fields that u selects`: {Enrich: []query.Enrichment{{Name: "u", On: "x", Select: []string{"tier"}}}, Where: `u.teir == "x"`},
		`defaults to fields of the row itself`:          {Enrich: []query.Enrichment{{Name: "u", On: "x", Defaults: map[string]string{"a.b": "1"}}}},
	} {
		if _, err := query.Compile(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, not %q", err, want)
		}
	}
}
