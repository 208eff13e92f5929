package enrich

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Lookup finds values by key. It is called by many goroutines at once. The slice is the caller's and must
// not be kept; the map is the caller's too. An unknown key is absent from the map, and that is an answer. An
// error is the whole call's and says nothing about any key, unless it is a *Failed, which answers for the
// keys that it does not name. A Lookup does not retry: who calls it does, with back-off.
type Lookup[K comparable, V any] interface {
	Lookup(ctx context.Context, keys []K) (map[K]V, error)
}

// LookupFunc is a function that is a Lookup.
type LookupFunc[K comparable, V any] func(ctx context.Context, keys []K) (map[K]V, error)

// Lookup implements Lookup.
func (f LookupFunc[K, V]) Lookup(ctx context.Context, keys []K) (map[K]V, error) { return f(ctx, keys) }

// Failed is the error of a call that has answered some of its keys: those in Keys it has not, each for its
// own reason (throttled, or a row that cannot be read). The others are answered by the map beside it.
type Failed[K comparable] struct {
	Keys map[K]error
}

func (f *Failed[K]) Error() string {
	for key, err := range f.Keys {
		return fmt.Sprintf("%d keys were not answered, such as %.64v: %v", len(f.Keys), key, err)
	}
	return "no key was not answered"
}

// Unwrap returns the reasons.
func (f *Failed[K]) Unwrap() []error {
	errs := make([]error, 0, len(f.Keys))
	for _, err := range f.Keys {
		errs = append(errs, err)
	}
	return errs
}

// ErrMalformed is the reason of a key whose row is there and cannot be read.
var ErrMalformed = errors.New("malformed row")

// Row is what a table holds under a key: one JSON object, and the time for which it is valid. JSON is never
// written to, by anybody.
type Row struct {
	JSON []byte
	From time.Time // the first moment; zero: since ever
	To   time.Time // the first moment that it is no longer valid; zero: for ever
}

// Table is what a backend's driver is: rows by the text of their key, which for a number is its shortest
// decimal form and otherwise the string itself. A table without validity intervals has one row for a key; one
// with them has every version, by From. The rest is as for every Lookup.
type Table interface {
	Lookup[string, []Row]
	// Limit is the most keys of one call; more are an error. At least 1.
	Limit() int
	// Close gives back connections. Lookups that are under way fail.
	Close() error
}
