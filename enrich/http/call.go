package http

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	nethttp "net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"github.com/millstream/millstream/enrich"
)

// call is what one Lookup has got so far: every key that was asked is in rows, in failed, or absent.
type call struct {
	table *Table

	mu     sync.Mutex
	rows   map[string][]enrich.Row
	failed map[string]error
}

// Lookup implements enrich.Lookup. When ctx ends before all is answered, what is answered is returned, and
// the others are in an *enrich.Failed.
func (t *Table) Lookup(ctx context.Context, keys []string) (map[string][]enrich.Row, error) {
	if len(keys) > t.limit {
		return nil, fmt.Errorf("http %s: %d keys in one call, %d at most", t.where, len(keys), t.limit)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(t.closed, func() { cancel(errClosed) })()
	if t.closed.Err() != nil {
		return nil, fmt.Errorf("http %s: %w", t.where, errClosed)
	}
	keys = slices.Clone(keys)
	slices.Sort(keys)
	keys = slices.Compact(keys)
	c := &call{table: t, rows: make(map[string][]enrich.Row, len(keys)), failed: map[string]error{}}
	if keys = c.possible(keys); t.place == nowhere {
		c.batch(ctx, keys)
	} else {
		c.each(ctx, keys)
	}
	return c.answer(ctx, keys)
}

// possible returns the keys that can be asked for.
func (c *call) possible(keys []string) []string {
	var possible []string
	for _, key := range keys {
		switch {
		case c.table.place == nowhere && !utf8.ValidString(key):
			c.fail(key, fmt.Errorf("%w: the key is not UTF-8, as JSON is", enrich.ErrMalformed))
		case c.table.place != nowhere && key == "", c.table.place == inPath && (key == "." || key == ".."):
			// Its URL would be that of something else, such as the list of all.
		default:
			possible = append(possible, key)
		}
	}
	return possible
}

// each asks for keys one by one, several at a time.
func (c *call) each(ctx context.Context, keys []string) {
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(c.table.workers, len(keys)) {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(keys)); i = next.Add(1) - 1 {
				c.one(ctx, keys[i])
			}
		})
	}
	workers.Wait()
}

// one asks for one key.
func (c *call) one(ctx context.Context, key string) {
	escaped := url.PathEscape(key)
	if c.table.place == inQuery {
		escaped = url.QueryEscape(key)
	}
	answer, err := c.table.request(ctx, nethttp.MethodGet, c.table.before+escaped+c.table.after, nil, maxOne)
	var status *StatusError
	switch {
	case errors.As(err, &status) && (status.Status == nethttp.StatusNotFound || status.Status == nethttp.StatusGone):
		return
	case errors.Is(err, errTooLarge):
		err = fmt.Errorf("%w: larger than %d bytes", enrich.ErrMalformed, maxOne)
	case err == nil:
		var row json.RawMessage
		if row, err = c.table.inside(answer); err == nil {
			c.keep(key, row)
			return
		}
		err = fmt.Errorf("%w: %w", enrich.ErrMalformed, err)
	}
	c.fail(key, err)
}

// batch asks for all keys at once, or for halves of them when the server or the answer asks for it.
func (c *call) batch(ctx context.Context, keys []string) {
	if len(keys) == 0 {
		return
	}
	err := c.post(ctx, keys)
	var status *StatusError
	switch {
	case err == nil:
		return
	case errors.Is(err, errTooLarge), errors.As(err, &status) && status.Status == nethttp.StatusRequestEntityTooLarge:
		if half := len(keys) / 2; half > 0 {
			c.batch(ctx, keys[:half])
			c.batch(ctx, keys[half:])
			return
		}
		if status == nil {
			err = fmt.Errorf("%w: larger than %d bytes", enrich.ErrMalformed, c.table.most)
		}
	}
	for _, key := range keys {
		c.fail(key, err)
	}
}

func (c *call) post(ctx context.Context, keys []string) error {
	question, err := json.Marshal(keys)
	if err != nil {
		return err
	}
	answer, err := c.table.request(ctx, nethttp.MethodPost, c.table.before, question, c.table.most)
	if err != nil {
		return err
	}
	inside, err := c.table.inside(answer)
	if err != nil {
		return err
	}
	var rows map[string]json.RawMessage
	var twice []string
	if c.table.key == nil {
		rows, twice, err = members(inside)
	} else {
		rows, twice, err = elements(inside, c.table.key)
	}
	if err != nil {
		return err
	}
	for key := range rows {
		if _, asked := slices.BinarySearch(keys, key); !asked {
			return fmt.Errorf("a row of key %.64q, which was not asked for", key)
		}
	}
	for _, key := range twice {
		c.fail(key, fmt.Errorf("%w: two rows", enrich.ErrMalformed))
		delete(rows, key)
	}
	for key, row := range rows {
		c.keep(key, row)
	}
	return nil
}

// keep keeps a row, or why there is none.
func (c *call) keep(key string, text json.RawMessage) {
	if isNull(text) {
		return
	}
	row, err := c.table.fields.Object(text)
	if err != nil {
		c.fail(key, err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rows[key] = []enrich.Row{{JSON: row}}
}

func (c *call) fail(key string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed[key] = fmt.Errorf("key %.64q: %w", key, err)
}

// answer is what Lookup returns.
func (c *call) answer(ctx context.Context, keys []string) (map[string][]enrich.Row, error) {
	if len(c.failed) == 0 {
		return c.rows, nil
	}
	failed := &enrich.Failed[string]{Keys: c.failed}
	if len(c.failed) < len(keys) || errors.Is(failed, enrich.ErrMalformed) {
		return c.rows, failed
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("http %s: %w", c.table.where, context.Cause(ctx))
	}
	return nil, fmt.Errorf("http %s: %w", c.table.where, c.failed[keys[0]])
}
