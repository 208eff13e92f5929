package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/millstream/millstream/bucket"
)

// turnover lets a fleet change hands quickly without anybody looking at everything all the time. It is
// one small object, members/_turnover, written anew by a member that lets partitions go or leaves, and
// read by each about once a second: a reader that finds it changed looks at members and logs at once.
// The protocol does not depend on it. A note that is lost costs a few seconds, no more.
type turnover struct {
	s      *Store
	seen   []byte
	readAt time.Time
	toldAt time.Time
}

// tellEvery bounds how often a member writes the note while it lets many partitions go.
const tellEvery = 250 * time.Millisecond

func (t *turnover) may() bool { return time.Since(t.toldAt) >= tellEvery }

const turnoverName = "members/_turnover"

// turnoverEvery is how often the note is read: a read a second costs a dollar a month.
func (s *Store) turnoverEvery() time.Duration { return min(s.lease/5, time.Second) }

// due is how long the note need not be read again.
func (t *turnover) due() time.Duration { return t.s.turnoverEvery() - time.Since(t.readAt) }

// changed reads the note when it is due, and reports whether somebody has written it since.
func (t *turnover) changed(ctx context.Context) bool {
	if t.due() > 0 {
		return false
	}
	t.readAt = time.Now()
	note, err := t.s.bucket.Get(ctx, t.s.path(turnoverName))
	if err != nil && !errors.Is(err, bucket.ErrNotFound) {
		return false
	}
	if bytes.Equal(note, t.seen) {
		return false
	}
	t.seen = note
	return true
}

// tell writes the note.
func (t *turnover) tell(ctx context.Context) {
	if t.s.rules.noTurnover {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, t.s.lease/4)
	defer cancel()
	note := []byte(nonce())
	t.toldAt = time.Now()
	if err := t.s.bucket.Put(ctx, t.s.path(turnoverName), note); err != nil {
		t.s.logger.Info("the others cannot be told that partitions are free; they will find out", "error", err)
		return
	}
	t.seen = note
}
