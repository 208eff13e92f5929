package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/cloud/retry"
	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/stream"
)

const (
	// A fetch ends with fetchRecords records, or with the record that makes it fetchBytes.
	fetchRecords = 2000
	fetchBytes   = 1 << 20
	// patience is how long a reader waits out a store that does not answer.
	patience = 2 * time.Minute
)

// reader reads one lane. One goroutine at a time.
type reader struct {
	s     *Source
	lane  int
	until *tip // objects behind it are not read; nil: all are

	scan  scan
	token string // of scan; empty: there was none yet
	index int    // of the object that is read
	done  int64  // the place in it

	state  stream.ReaderState
	infos  map[name]bucket.Info // of the lane, as listed last
	seen   map[name]tag         // objects that are begun or finished, as they were when they were read
	cursor *cursor              // of the object at index; nil: not open
	listed time.Time
	ended  bool

	failures int
	failing  time.Time
}

func (r *reader) Close() error {
	if r.cursor != nil {
		r.cursor.close()
		r.cursor = nil
	}
	return nil
}

func (r *reader) position() stream.Position {
	return stream.Position{Token: r.token, Number: int64(r.index)<<placeBits | r.done}
}

// Read implements consumers.Reader.
func (r *reader) Read(ctx context.Context) (consumers.Fetch, error) {
	for {
		f, again, err := r.step(ctx)
		switch {
		case err == nil && !again:
			r.failures = 0
			return f, nil
		case err == nil:
			continue
		case ctx.Err() != nil:
			return consumers.Fetch{}, ctx.Err()
		case errors.Is(err, errNames):
			return consumers.Fetch{}, err
		}
		r.Close()
		r.infos, r.listed = nil, time.Time{} // what is read on must still be the same
		if r.failures++; r.failures == 1 {
			r.failing = time.Now()
		}
		if time.Since(r.failing) > patience {
			return consumers.Fetch{}, err
		}
		r.s.o.Logger.Warn("an object cannot be read: trying again", "lane", r.lane, "error", err)
		if err := retry.Sleep(ctx, retry.Backoff(r.failures)); err != nil {
			return consumers.Fetch{}, err
		}
	}
}

// step does one thing: it reads on, goes to the next object, or looks for more. again means that nothing
// came of it.
func (r *reader) step(ctx context.Context) (f consumers.Fetch, again bool, err error) {
	switch {
	case r.ended:
		return consumers.Fetch{Next: r.position(), State: stream.CaughtUp, End: &stream.PartitionEnd{}}, false, nil
	case r.index >= len(r.scan.members):
		return r.look(ctx)
	case r.cursor == nil:
		return f, true, r.open(ctx)
	}
	bytes := 0
	for len(f.Records) < fetchRecords && bytes < fetchBytes {
		e, err := r.cursor.next()
		if errors.Is(err, io.EOF) {
			r.cursor.close()
			r.cursor, r.done = nil, 0
			r.index++
			break
		}
		if err != nil {
			if len(f.Records) > 0 {
				break // what came before goes first; the error comes again
			}
			return f, false, err
		}
		r.done = e.place
		bytes += len(e.data)
		f.Records = append(f.Records, stream.Record{Data: e.data, Position: r.position(), Refused: e.refused})
	}
	if len(f.Records) == 0 {
		return f, true, nil
	}
	f.Next, f.State, r.state = r.position(), stream.Reading, stream.Reading
	return f, false, nil
}

// look lists the objects, and makes the next scan of those that are new.
func (r *reader) look(ctx context.Context) (f consumers.Fetch, again bool, err error) {
	if r.state == stream.CaughtUp {
		if err := retry.Sleep(ctx, time.Until(r.listed.Add(r.s.o.Watch))); err != nil {
			return f, false, err
		}
	}
	if err := r.list(ctx); err != nil {
		return f, false, err
	}
	next := r.followed()
	for n, o := range r.infos {
		if !next.knows(n) && (r.until == nil || r.until.holds(n, o.Modified)) {
			next.members = append(next.members, known{n, tagOf(o)})
		}
	}
	slices.SortFunc(next.members, func(a, b known) int { return strings.Compare(r.infos[a.name].Name, r.infos[b.name].Name) })
	room := MaxNames - len(next.finished)
	if len(next.members) > 0 && room <= 0 {
		return f, false, fmt.Errorf("lane %d of %s: %w: %d of its objects are finished and have not been moved away; move or delete finished ones, or begin anew with %s",
			r.lane, r.s.o.Bucket.URL(), errNames, len(next.finished), enough(len(r.infos)*r.s.o.Lanes))
	}
	next.members = next.members[:min(len(next.members), max(room, 0))]
	if len(next.members) > 0 {
		r.scan, r.token, r.index, r.done = next, next.encode(), 0, 0
		return f, true, nil
	}
	if r.s.o.UntilEnd {
		r.ended = true
		return f, true, nil
	}
	if r.state == stream.CaughtUp {
		return f, true, nil
	}
	r.state = stream.CaughtUp
	return consumers.Fetch{Next: r.position(), State: r.state}, false, nil
}

// remember takes from the position what was read.
func (r *reader) remember() {
	for _, k := range r.scan.finished {
		r.seen[k.name] = k.tag
	}
	for _, k := range r.scan.members[:r.index] {
		r.seen[k.name] = k.tag
	}
	if r.done > 0 {
		r.seen[r.scan.members[r.index].name] = r.scan.members[r.index].tag
	}
}

// followed is what follows a scan that is done, without members: it knows what was finished and is still
// there.
func (r *reader) followed() scan {
	var next scan
	for n, as := range r.seen {
		if _, ok := r.infos[n]; ok {
			next.finished = append(next.finished, known{n, as})
		}
	}
	slices.SortFunc(next.finished, compareKnown)
	return next
}

// list learns which objects of the lane there are, and tells of those that have changed behind its back.
func (r *reader) list(ctx context.Context) error {
	began := time.Now()
	since := began // the end was fixed by another listing, perhaps another process's: the first is not older
	if !r.listed.IsZero() {
		since = r.listed.Add(r.s.o.Watch / 2) // lanes share later ones
	}
	infos, err := r.s.list(ctx, since)
	if err != nil {
		return err
	}
	r.listed = began
	r.infos = make(map[name]bucket.Info)
	for _, o := range infos {
		if r.s.laneOf(o.Name) == r.lane {
			r.infos[digest(o.Name)] = o
		}
	}
	for n, as := range r.seen {
		o, ok := r.infos[n]
		switch {
		case !ok:
			delete(r.seen, n)
		case r.done > 0 && n == r.scan.members[r.index].name: // see open
		case tagOf(o) != as:
			r.s.changed.Add(1)
			r.s.o.Logger.Warn("an object that was read before has been written anew: what is new in it is not read; give it another name", "object", o.Name)
			r.seen[n] = tagOf(o)
		}
	}
	return nil
}

// open opens the object at index where it was left.
func (r *reader) open(ctx context.Context) error {
	if r.done == givenUp {
		r.index, r.done = r.index+1, 0
		return nil
	}
	n := r.scan.members[r.index].name
	if r.infos == nil {
		if err := r.list(ctx); err != nil {
			return err
		}
	}
	o, ok := r.infos[n]
	var err error
	if ok && r.done > 0 && r.seen[n] != tagOf(o) {
		r.s.changed.Add(1)
		r.s.o.Logger.Warn("an object has been written anew while it was read: the rest of it is given up", "object", o.Name, "read", r.done)
		r.cursor, r.seen[n] = changed(o, r.done), tagOf(o)
		return nil
	}
	if m := &r.scan.members[r.index]; ok && r.done == 0 && m.tag != tagOf(o) {
		m.tag = tagOf(o) // written anew before it was begun
		r.token = r.scan.encode()
	}
	if ok {
		r.cursor, err = r.s.begin(ctx, o, r.done)
	}
	if !ok || errors.Is(err, bucket.ErrNotFound) {
		r.s.o.Logger.Warn("an object is gone before it was read to its end", "lane", r.lane, "object", o.Name, "read", r.done)
		r.index++
		r.done = 0
		return nil
	}
	if err != nil {
		return err
	}
	r.seen[n] = tagOf(o)
	return nil
}
