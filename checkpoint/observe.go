package checkpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/millstream/millstream/bucket"
)

// observer watches one heartbeat file (A3). Its owner is dead once at least three successful
// readings, spread over a lease of our own monotonic clock with no gap above half of it, have all
// found the same content. That the file is absent is a content. A failed reading starts over.
// Wall clocks play no part.
type observer struct {
	content []byte
	present bool
	reads   int
	first   time.Time // reading of this content
	last    time.Time
	changed bool // it was seen to change: somebody writes it
	beat    heartbeat
}

// failed forgets what was seen.
func (o *observer) failed(r rules) {
	if !r.deafObserver {
		o.reads = 0
	}
}

// saw takes one successful reading. data is nil when the file is absent.
func (o *observer) saw(data []byte, now time.Time, lease time.Duration, r rules) {
	same := o.reads > 0 && o.present == (data != nil) && bytes.Equal(o.content, data)
	if o.reads > 0 && !same {
		o.changed = true
	}
	if !same || !r.deafObserver && now.Sub(o.last) > lease/2 {
		o.reads, o.first = 0, now
		o.content, o.present = data, data != nil
		o.beat = heartbeat{}
		if data != nil {
			_ = json.Unmarshal(data, &o.beat) // damaged content is content; it tells nothing else
		}
	}
	o.reads++
	o.last = now
}

// dead reports whether the file stood still for a lease.
func (o *observer) dead(lease time.Duration, r rules) bool {
	return o.still(lease, r)
}

func (o *observer) still(d time.Duration, r rules) bool {
	if r.hastyObserver {
		return o.reads > 0
	}
	return o.reads >= 3 && o.last.Sub(o.first) >= d
}

// live reports whether the member takes part in the fair shares: it was seen to change, or, when
// that could not be seen yet, its wall clock is not far from ours.
func (o *observer) live(lease time.Duration, r rules) bool {
	if o.reads == 0 || !o.present || o.dead(lease, r) {
		return o.reads == 0 && o.changed // a reading failed: it was alive before
	}
	age := time.Since(o.beat.Clock)
	return o.changed || age < 3*lease && age > -3*lease
}

// look reads a member's file.
func (s *Store) look(ctx context.Context, o *observer, id string) error {
	data, err := s.bucket.Get(ctx, s.path(memberName(id)))
	switch {
	case errors.Is(err, bucket.ErrNotFound):
		data = nil
	case err != nil:
		o.failed(s.rules)
		return err
	case data == nil:
		data = []byte{}
	}
	o.saw(data, time.Now(), s.lease, s.rules)
	return nil
}
