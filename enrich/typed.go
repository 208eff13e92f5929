package enrich

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/millstream/millstream/stream"
)

// JSON is a table as a lookup of values: each row is read into a V by encoding/json when it is looked up. Of a
// table with validity intervals it has the row that is valid without end; Versions has all of them.
func JSON[V any](t Table) Lookup[string, V] {
	return typed(t, func(rows []Row) (V, bool, error) {
		var v V
		if len(rows) == 0 || !rows[len(rows)-1].To.IsZero() {
			return v, false, nil
		}
		err := json.Unmarshal(rows[len(rows)-1].JSON, &v)
		return v, true, err
	})
}

// Version is a value and the time for which it is valid: from From to before To.
type Version[V any] struct {
	Value    V
	From, To stream.Instant
}

// Versions is a table with validity intervals as a lookup of all versions of a value, by their beginning.
func Versions[V any](t Table) Lookup[string, []Version[V]] {
	return typed(t, func(rows []Row) ([]Version[V], bool, error) {
		versions := make([]Version[V], len(rows))
		for i, row := range rows {
			v := &versions[i]
			if err := json.Unmarshal(row.JSON, &v.Value); err != nil {
				return nil, false, err
			}
			v.From, v.To = stream.Beginning, stream.EndOfTime
			if !row.From.IsZero() {
				v.From, _ = stream.At(row.From)
			}
			if !row.To.IsZero() {
				v.To, _ = stream.At(row.To)
			}
		}
		return versions, len(versions) > 0, nil
	})
}

// AsOf makes a set for With out of one that wants a single value: it gets the version that is valid at the
// event's time.
func AsOf[E, V any](set func(e *stream.Event[E], value V, found bool) error) func(*stream.Event[E], []Version[V], bool) error {
	return func(e *stream.Event[E], versions []Version[V], _ bool) error {
		for i := len(versions) - 1; i >= 0; i-- {
			if v := &versions[i]; e.Time >= v.From && e.Time < v.To {
				return set(e, v.Value, true)
			}
		}
		var none V
		return set(e, none, false)
	}
}

// typed reads a table's rows. One that cannot be read is its key's failure.
func typed[V any](t Table, read func([]Row) (V, bool, error)) Lookup[string, V] {
	return LookupFunc[string, V](func(ctx context.Context, keys []string) (map[string]V, error) {
		rows, err := t.Lookup(ctx, keys)
		var some *Failed[string]
		if err != nil && !errors.As(err, &some) {
			return nil, err
		}
		found, failed := make(map[string]V, len(rows)), map[string]error{}
		if some != nil {
			failed = some.Keys
		}
		for key, versions := range rows {
			v, ok, err := read(versions)
			switch {
			case err != nil:
				failed[key] = fmt.Errorf("%w of key %.64q: %w", ErrMalformed, key, err)
			case ok:
				found[key] = v
			}
		}
		if len(failed) > 0 {
			return found, &Failed[string]{failed}
		}
		return found, nil
	})
}
