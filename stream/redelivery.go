package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// Redelivering is a Source that forgets a record only when it is told to, and until then may deliver
// it again, to anybody, in any order (Pub/Sub). Its records have an ID. A lane counts no id twice that
// is in an entry of its log which --dedupe-for still covers.
type Redelivering interface {
	Source
	// RedeliversWithin is how long after a claim records may still come that an earlier owner had
	// received and not counted. For so long the lane's watermark stays where the log has it, so that
	// none of them is late for having been held by somebody else.
	RedeliversWithin() time.Duration
}

// Past is a checkpoint that may hold ids.
type Past struct {
	*Entry
	Age time.Duration // at least; it grows only while the partition is owned (A6)
}

// known is what a lane knows of records that may come again: the ids that saved checkpoints counted,
// and those counted since. It forgets a checkpoint's ids once they are older than keep.
type known struct {
	keep  time.Duration
	ids   map[uint64]struct{}
	saved []counted // oldest first
	fresh []uint64  // counted since the last capture
}

// counted are the ids of one checkpoint.
type counted struct {
	ids []uint64
	at  time.Time // monotonic: when it was captured
}

// fresher drops the records whose ids are known, and returns the ids of the others, which are known from
// now on. They are in no checkpoint before they are given to count. A record without an id is never known.
func (k *known) fresher(records []Record) (kept []Record, ids []uint64) {
	kept = records[:0:0]
	dropped := false
	for i := range records {
		id := records[i].ID
		if _, seen := k.ids[id]; seen && id != 0 {
			if !dropped {
				kept, dropped = append(kept, records[:i]...), true
			}
			continue
		}
		if id != 0 {
			k.ids[id] = struct{}{}
			ids = append(ids, id)
		}
		if dropped {
			kept = append(kept, records[i])
		}
	}
	if !dropped {
		kept = records
	}
	return kept, ids
}

// count says that records with these ids have been processed: they belong to the next checkpoint.
func (k *known) count(ids []uint64) { k.fresh = append(k.fresh, ids...) }

// capture returns the ids counted since the last one, and forgets what is too old.
func (k *known) capture(now time.Time) []uint64 {
	for len(k.saved) > 0 && now.Sub(k.saved[0].at) > k.keep {
		for _, id := range k.saved[0].ids {
			delete(k.ids, id)
		}
		k.saved = k.saved[1:]
	}
	ids := k.fresh
	if len(ids) > 0 {
		k.saved, k.fresh = append(k.saved, counted{ids, now}), nil
	}
	return ids
}

// remember takes ids that an entry of the log holds.
func (k *known) remember(ids []uint64, at time.Time) {
	for _, id := range ids {
		k.ids[id] = struct{}{}
	}
	k.saved = append(k.saved, counted{ids, at})
}

// recall makes what a lane knows out of its log.
func recall(ctx context.Context, log Log) (*known, error) {
	past, keep, err := log.History(ctx)
	if err != nil {
		return nil, err
	}
	k := &known{keep: keep, ids: make(map[uint64]struct{})}
	now := time.Now()
	for i := len(past) - 1; i >= 0; i-- {
		for _, blob := range past[i].IDs {
			data, err := log.ReadBlob(ctx, blob)
			if err != nil {
				return nil, fmt.Errorf("ids of entry %d: %w", past[i].Number, err)
			}
			ids, err := decodeIDs(data)
			if err != nil {
				return nil, fmt.Errorf("entry %d: %w", past[i].Number, err)
			}
			k.remember(ids, now.Add(-past[i].Age))
		}
	}
	return k, nil
}

// idsWriter encodes ids for the log, 8 bytes each: they do not compress.
type idsWriter []uint64

func (ids idsWriter) WriteTo(w io.Writer) (int64, error) {
	data := make([]byte, 0, 8*len(ids))
	for _, id := range ids {
		data = binary.LittleEndian.AppendUint64(data, id)
	}
	n, err := w.Write(data)
	return int64(n), err
}

// decodeIDs is the inverse of idsWriter.
func decodeIDs(data []byte) ([]uint64, error) {
	if len(data)%8 != 0 {
		return nil, errors.New("the ids are cut off")
	}
	ids := make([]uint64, len(data)/8)
	for i := range ids {
		ids[i] = binary.LittleEndian.Uint64(data[8*i:])
	}
	return ids, nil
}
