package enrich

import (
	"context"
	"fmt"
	"sync"

	"github.com/millstream/millstream/stream"
)

// With is an enricher that looks up a key of each event and hands the value to set. The lookup is usually a
// *Cache; any other is called once for each batch, with the batch's distinct keys, and its error ends the
// partition's assignment, which starts again from its last checkpoint.
//
// key returns false for an event that has none, for which nothing is looked up. set is called for every event,
// in order, with found false if there is no value; its error refuses the event: stream.Filtered filters it,
// another one sends it to the dead letter. A key may point into the record's bytes; if it is not a string but
// holds strings, it keeps the record's memory for as long as it is in the cache.
func With[E any, K comparable, V any](lookup Lookup[K, V], key func(*stream.Event[E]) (K, bool), set func(e *stream.Event[E], value V, found bool) error) stream.Enricher[E] {
	cache, _ := lookup.(*Cache[K, V])
	return &with[E, K, V]{lookup: lookup, cache: cache, key: key, set: set}
}

type with[E any, K comparable, V any] struct {
	lookup  Lookup[K, V]
	cache   *Cache[K, V] // nil: lookup is another
	key     func(*stream.Event[E]) (K, bool)
	set     func(*stream.Event[E], V, bool) error
	scratch sync.Pool // *[]*entry[K, V]
}

// Enrich implements stream.Enricher.
func (w *with[E, K, V]) Enrich(ctx context.Context, events []stream.Event[E]) error {
	apply, err := w.fetch(ctx, events)
	if err == nil {
		apply()
	}
	return err
}

// fetch finds the values of a batch, and returns what hands them to its events.
func (w *with[E, K, V]) fetch(ctx context.Context, events []stream.Event[E]) (apply func(), err error) {
	kept, _ := w.scratch.Get().(*[]*entry[K, V])
	if kept == nil {
		kept = new([]*entry[K, V])
	}
	if cap(*kept) < len(events) {
		*kept = make([]*entry[K, V], len(events))
	}
	entries := (*kept)[:len(events)] // nil: nothing was looked up
	clear(entries)
	if w.cache != nil {
		err = w.cached(ctx, events, entries)
	} else {
		err = w.direct(ctx, events, entries)
	}
	if err != nil {
		return nil, err
	}
	return func() {
		w.apply(events, entries)
		w.scratch.Put(kept)
	}, nil
}

// cached finds the entries of events in the cache, or by way of it.
func (w *with[E, K, V]) cached(ctx context.Context, events []stream.Event[E], entries []*entry[K, V]) error {
	var missing missing[K]
	r := w.cache.reading()
	for i := range events {
		if events[i].Refused() != nil {
			continue
		}
		if key, ok := w.key(&events[i]); ok {
			entries[i] = r.peek(key)
		}
	}
	for i := range events {
		e, peeked := &events[i], entries[i]
		entries[i] = nil
		if e.Refused() != nil {
			continue
		}
		if key, ok := w.key(e); ok {
			if entries[i] = r.read(key, peeked); entries[i] == nil {
				missing.add(i, key)
			}
		}
	}
	r.done()
	return w.cache.wait(ctx, &missing, entries)
}

// apply hands what was found to the events.
func (w *with[E, K, V]) apply(events []stream.Event[E], entries []*entry[K, V]) {
	var none V
	for i := range events {
		e := &events[i]
		if e.Refused() != nil {
			continue
		}
		value, found := none, false
		if known := entries[i]; known != nil {
			if known.err != nil {
				e.Refuse(&unanswered{w.cache.cfg.Name, known.err})
				continue
			}
			value, found = known.value, known.found
		}
		if err := w.set(e, value, found); err != nil {
			e.Refuse(err)
		}
	}
}

// direct asks a lookup that is no cache, for the distinct keys of the batch.
func (w *with[E, K, V]) direct(ctx context.Context, events []stream.Event[E], entries []*entry[K, V]) error {
	known := make(map[K]*entry[K, V])
	var distinct []K
	for i := range events {
		if events[i].Refused() != nil {
			continue
		}
		key, ok := w.key(&events[i])
		if !ok {
			continue
		}
		e := known[key]
		if e == nil {
			e = &entry[K, V]{key: key}
			known[key] = e
			distinct = append(distinct, key)
		}
		entries[i] = e
	}
	if len(distinct) == 0 {
		return nil
	}
	found, err := w.lookup.Lookup(ctx, distinct)
	if err != nil {
		return err
	}
	for key, value := range found {
		if e := known[key]; e != nil {
			e.value, e.found = value, true
		}
	}
	return nil
}

// unanswered is why an event goes to the dead letter that nobody knows anything about.
type unanswered struct {
	name string
	err  error
}

func (u *unanswered) Error() string  { return u.err.Error() }
func (u *unanswered) Unwrap() error  { return u.err }
func (u *unanswered) Reason() string { return fmt.Sprintf("enrich %s: the lookup failed", u.name) }

// Together runs enrichers at once that do not depend on each other, and is as slow as the slowest. Those of
// With look up at once and set one after the other, so that their sets may touch the same fields; others run
// after them, in order.
func Together[E any](enrichers ...stream.Enricher[E]) stream.Enricher[E] {
	return together[E](enrichers)
}

type together[E any] []stream.Enricher[E]

// phased is an enricher whose waiting is apart from its setting.
type phased[E any] interface {
	fetch(ctx context.Context, events []stream.Event[E]) (apply func(), err error)
}

// Enrich implements stream.Enricher.
func (t together[E]) Enrich(ctx context.Context, events []stream.Event[E]) error {
	applies, errs, panics := make([]func(), len(t)), make([]error, len(t)), make([]any, len(t))
	var wg sync.WaitGroup
	for i, e := range t {
		if p, ok := e.(phased[E]); ok {
			wg.Go(func() {
				defer func() { panics[i] = recover() }()
				applies[i], errs[i] = p.fetch(ctx, events)
			})
		}
	}
	wg.Wait()
	for i, e := range t {
		if panics[i] != nil {
			panic(panics[i]) // where the lane can see it
		}
		if errs[i] == nil && applies[i] == nil {
			errs[i] = e.Enrich(ctx, events)
		}
		if errs[i] != nil {
			return errs[i]
		}
		if applies[i] != nil {
			applies[i]()
		}
	}
	return nil
}
