// Package file looks rows up in a file: CSV, JSON, NDJSON or Parquet, on this machine or in a bucket.
//
// The file is read whole into memory, as compact JSON, a map from key to row beside it. Every so often its size
// and time, or its tag in the bucket, are compared, and a file that has changed is read again and takes the old
// one's place at once, so that no lookup sees half of it. A new one that cannot be read is told and not used: the
// old one stays.
package file

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/enrich"
)

// Options say which file, and what in it.
type Options struct {
	// Path is the file on this machine. With Bucket it is the object's name.
	Path   string
	Bucket bucket.Bucket // nil: this machine. It is not closed
	// Format is csv, json, ndjson or parquet. Default: by the path's suffix, in front of .gz or .zst.
	Format string
	// Key is the field by which rows are looked up. Default: id.
	Key string
	// Select names the fields to keep; a.b is field b of object a. Default: all.
	Select []string
	// ValidFrom and ValidTo are the fields that say for which time a row is valid, RFC 3339 or a date: from the
	// first moment to the one when it is no longer; null and an empty cell are without end. With either there
	// may be many rows for a key, which must not overlap; without, a key that stands twice is an error.
	ValidFrom, ValidTo string
	Reload             time.Duration // how often a change is looked for; default 30s
	MaxBytes           int64         // the most bytes of the file, decompressed; default 1 GiB
	Logger             *slog.Logger  // default slog.Default()
}

// Table is an enrich.Table in memory.
type Table struct {
	o      Options
	fields enrich.Fields
	now    atomic.Pointer[contents]
	failed atomic.Pointer[error] // why the newest file is not in use
	stop   context.CancelFunc
	done   chan struct{}
	once   sync.Once
}

var _ enrich.Table = (*Table)(nil)

// New reads the file.
func New(ctx context.Context, o Options) (*Table, error) {
	if o.Path == "" {
		return nil, errors.New("file: no path")
	}
	if o.Key == "" {
		o.Key = "id"
	}
	if o.Reload <= 0 {
		o.Reload = 30 * time.Second
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 1 << 30
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	t := &Table{o: o, done: make(chan struct{})}
	var err error
	if t.fields, err = enrich.SelectFields(o.Select); err != nil {
		return nil, fmt.Errorf("%s: %w", o.Path, err)
	}
	c, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	t.now.Store(c)
	watching, stop := context.WithCancel(context.Background())
	t.stop = stop
	go t.watch(watching)
	return t, nil
}

// Limit implements enrich.Table: memory takes as many keys as there are.
func (t *Table) Limit() int { return 1 << 20 }

// Lookup implements enrich.Table.
func (t *Table) Lookup(_ context.Context, keys []string) (map[string][]enrich.Row, error) {
	if len(keys) > t.Limit() {
		return nil, fmt.Errorf("%s: %d keys in one call", t.o.Path, len(keys))
	}
	c := t.now.Load()
	found := make(map[string][]enrich.Row)
	for _, key := range keys {
		if rows := c.rows(key); rows != nil {
			found[key] = rows
		}
	}
	return found, nil
}

// Len is the number of rows.
func (t *Table) Len() int { return t.now.Load().count }

// Err is why the newest file is not in use, nil if it is.
func (t *Table) Err() error {
	if err := t.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// Close stops looking for changes. Lookups still work.
func (t *Table) Close() error {
	t.once.Do(func() {
		t.stop()
		<-t.done
	})
	return nil
}

// watch reads the file again when it has changed.
func (t *Table) watch(ctx context.Context) {
	defer close(t.done)
	every := time.NewTicker(t.o.Reload)
	defer every.Stop()
	refused := "" // the stamp of a file that could not be read
	for {
		select {
		case <-every.C:
		case <-ctx.Done():
			return
		}
		stamp, err := t.stamp(ctx)
		if err == nil && (stamp == t.now.Load().stamp || stamp == refused) {
			if stamp != refused {
				t.failed.Store(nil)
			}
			continue
		}
		var c *contents
		if err == nil {
			refused = stamp
			c, err = t.read(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if t.failed.Swap(&err) == nil {
				t.o.Logger.Error("the table has changed and cannot be read: the old one stays in use", "table", t.o.Path, "error", err)
			}
		default:
			refused = ""
			t.failed.Store(nil)
			t.now.Store(c)
			t.o.Logger.Info("the table has changed and was read again", "table", t.o.Path, "rows", c.count)
		}
	}
}
