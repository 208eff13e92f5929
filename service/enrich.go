package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/enrich"
	"github.com/millstream/millstream/query"
	"github.com/millstream/millstream/stream"
)

const enrichSetting = "--enrich"

// enrichment is one --enrich 'NAME=URL?…&on=FIELD'. What is left in its location's parameters is the table's.
type enrichment struct {
	location
	query query.Enrichment
	cache enrich.Config[string, *query.Rows]
	asOf  []string // the fields that say for which time a row is valid
}

// parseEnrichments reads every --enrich, without opening anything.
func (s *QuerySettings) parseEnrichments() ([]enrichment, error) {
	var out []enrichment
	for _, raw := range s.Enrich {
		name, table, ok := strings.Cut(raw, "=")
		if !ok || strings.ContainsAny(name, ":/?.") {
			return nil, settingf(enrichSetting, "%s: write NAME=URL?…&on=FIELD, as in user=users.csv?key=id&on=user_id", shown(raw))
		}
		l, err := parseLocation(enrichSetting, table)
		if err != nil {
			return nil, err
		}
		e := enrichment{location: l, query: query.Enrichment{Name: strings.TrimSpace(name)}}
		if err := e.take(); err != nil {
			return nil, err
		}
		if err := e.refuseClear(); err != nil {
			return nil, err
		}
		if e.inFile() && e.cache.TTL == 0 {
			e.cache.TTL = 30 * time.Second // to look into memory again costs nothing
		}
		out = append(out, e)
	}
	return out, nil
}

// take moves the parameters that every table has out of the location's.
func (e *enrichment) take() error {
	e.cache.Name = e.query.Name
	for name, values := range e.params {
		value := values[0]
		var err error
		field, isDefault := strings.CutPrefix(name, "default.")
		switch {
		case isDefault:
			if e.query.Defaults == nil {
				e.query.Defaults = map[string]string{}
			}
			e.query.Defaults[field] = value
		case name == "on":
			e.query.On = value
		case name == "select":
			e.query.Select = strings.Split(value, ",")
		case name == "missing":
			e.query.Missing = query.Missing(value)
		case name == "on-error":
			e.cache.OnError, err = onError(value)
		case name == "as-of":
			if e.asOf = strings.Split(value, ","); len(e.asOf) != 2 {
				err = errors.New("want two fields, as in valid_from,valid_to")
			}
		case name == "ttl":
			e.cache.TTL, err = positive(value)
		case name == "absent-ttl":
			e.cache.AbsentTTL, err = positive(value)
		case name == "revalidate":
			e.cache.Revalidate, err = positive(value)
		case name == "max-stale":
			e.cache.MaxStale, err = positive(value)
		case name == "timeout":
			e.cache.Timeout, err = positive(value)
		case name == "calls":
			e.cache.Calls, err = strconv.Atoi(value)
			if err != nil || e.cache.Calls < 1 || e.cache.Calls > 1000 {
				err = errors.New("want 1 to 1000 calls at once")
			}
		case name == "rate":
			if e.cache.Rate, err = strconv.ParseFloat(value, 64); err != nil || !(e.cache.Rate > 0) {
				err = errors.New("want calls a second")
			}
		case name == "max":
			err = e.bound(value)
		default:
			continue
		}
		if err == nil && len(values) > 1 {
			err = errors.New("is given twice")
		}
		if err != nil {
			return settingf(enrichSetting, "%s: %s=%s: %v", e.query.Name, name, value, err)
		}
		delete(e.params, name)
	}
	return nil
}

// inFile reports whether the table is a file, which is in memory and is itself read again when it changes.
func (e *enrichment) inFile() bool {
	switch e.scheme {
	case "file", "s3", "gs", "azblob":
		return true
	}
	return false
}

// bound reads max=: a number of rows, or of bytes.
func (e *enrichment) bound(text string) (err error) {
	if rows, notANumber := strconv.Atoi(text); notANumber == nil {
		if rows < 1 {
			return errors.New("keep one row at least")
		}
		e.cache.Max = rows
		return nil
	}
	if e.cache.MaxBytes, err = parseSize(text); err == nil && e.cache.MaxBytes < 1<<20 {
		return errors.New("keep 1MiB at least")
	}
	e.cache.Size = func(key string, rows *query.Rows) int { return len(key) + rows.Size() }
	return err
}

func positive(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, errors.New("want a duration such as 30s or 5m")
	}
	return d, nil
}

func onError(text string) (enrich.OnError, error) {
	var known []string
	for policy := enrich.Wait; policy <= enrich.DeadLetter; policy++ {
		if policy.String() == text {
			return policy, nil
		}
		known = append(known, policy.String())
	}
	return 0, fmt.Errorf("it is one of %s%s", strings.Join(known, ", "), suggest(text, known))
}

// joiner opens the tables of a query and puts caches before them.
type joiner struct {
	query       *query.Query
	enrichments []enrichment
}

// open opens every table, and returns the enrichers of the pipeline in their order.
func (j *joiner) open(ctx context.Context, w *wiring, logger *slog.Logger) ([]stream.Enricher[query.Event], error) {
	joins := j.query.Joins()
	if len(joins) == 0 {
		return nil, nil
	}
	var stages [][]stream.Enricher[query.Event]
	for i, join := range joins {
		e := j.enrichments[i]
		if len(e.query.Select) == 0 {
			e.query.Select = join.Fields()
		}
		table, err := openTable(ctx, &e, logger)
		if err != nil {
			return nil, err
		}
		w.closing(table.Close)
		e.cache.Limit, e.cache.Logger = min(table.Limit(), mostKeys), logger
		e.cache.Hot = &hotKeys{w.bucket, w.settings.Name + "/cache/" + join.Name() + ".json"}
		cache, err := enrich.NewCache[string, *query.Rows](parsing{table, join}, e.cache)
		if err != nil {
			return nil, settingf(enrichSetting, "%v", err)
		}
		w.closing(cache.Close)
		w.caches = append(w.caches, namedCache{join.Name(), cache})
		for len(stages) <= join.Stage() {
			stages = append(stages, nil)
		}
		stages[join.Stage()] = append(stages[join.Stage()], enrich.With(cache, join.Key, join.Set))
	}
	var out []stream.Enricher[query.Event]
	for _, independent := range stages {
		out = append(out, enrich.Together(independent...))
	}
	return append(out, j.query.Finish()), nil
}

// mostKeys of one call are enough: what a table in memory takes at once would only make rows wait for others.
const mostKeys = 1000

// namedCache is a cache for the status page.
type namedCache struct {
	name  string
	cache interface{ Stats() enrich.Stats }
}

// parsing is a table as the query reads it: a row is parsed when it is looked up, not with every event.
type parsing struct {
	table enrich.Table
	join  *query.Join
}

// Lookup implements enrich.Lookup.
func (p parsing) Lookup(ctx context.Context, keys []string) (map[string]*query.Rows, error) {
	found, err := p.table.Lookup(ctx, keys)
	var some *enrich.Failed[string]
	if err != nil && !errors.As(err, &some) {
		return nil, err
	}
	failed := map[string]error{}
	if some != nil {
		failed = some.Keys
	}
	out := make(map[string]*query.Rows, len(found))
	for key, rows := range found {
		versions := make([]query.Version, len(rows))
		for i, row := range rows {
			versions[i] = query.Version(row)
		}
		parsed, err := p.join.Parse(versions)
		if err != nil {
			failed[key] = fmt.Errorf("%w of key %.64q: %w", enrich.ErrMalformed, key, err)
			continue
		}
		out[key] = parsed
	}
	if len(failed) > 0 {
		return out, &enrich.Failed[string]{Keys: failed}
	}
	return out, nil
}

// hotKeys keeps a cache's hot keys beside the pipeline's log.
type hotKeys struct {
	bucket bucket.Bucket
	name   string
}

// Load implements enrich.Shelf.
func (h *hotKeys) Load(ctx context.Context) ([]byte, error) {
	data, err := h.bucket.Get(ctx, h.name)
	if errors.Is(err, bucket.ErrNotFound) {
		return nil, nil
	}
	return data, err
}

// Save implements enrich.Shelf.
func (h *hotKeys) Save(ctx context.Context, data []byte) error {
	return h.bucket.Put(ctx, h.name, data)
}

// describe words an enrichment for check.
func (e *enrichment) describe() string {
	policy := "events wait"
	switch e.cache.OnError {
	case enrich.Stale:
		policy = "rows are served that are older than they should be; events without one wait"
	case enrich.Missing:
		policy = "events go on as if there were no row"
	case enrich.DeadLetter:
		policy = "events go to the dead letter"
	case enrich.Wait:
	}
	ttl := e.cache.TTL
	if ttl == 0 {
		ttl = 5 * time.Minute
	}
	seen := ttl.String()
	if e.inFile() {
		seen += " after the file is read again"
	}
	when := "the row of the day it runs"
	if e.asOf != nil {
		when = "the row that was valid at the event's time"
	}
	return fmt.Sprintf("readable; a changed row is seen within %s; while it does not answer %s; a replay sees %s", seen, policy, when)
}

// shown is the text of an --enrich without its parameters, which may hold what is secret.
func shown(raw string) string {
	before, _, _ := strings.Cut(raw, "?")
	return before
}
