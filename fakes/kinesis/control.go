package kinesis

import (
	"bytes"
	"time"
)

// Record is a record to put, and what [Server.Records] returns.
type Record struct {
	PartitionKey string // 1 to 256 characters
	Data         []byte

	// ExplicitHashKey, a decimal number below 2^128, routes the record in place
	// of the partition key. It is not stored.
	ExplicitHashKey string

	// ArrivedAt is the time of arrival, in whole milliseconds; when putting, the
	// zero value means now. In a shard it never decreases: an earlier time
	// becomes the newest record's.
	ArrivedAt time.Time

	// ShardID and SequenceNumber are set by Records and ignored by PutBatch.
	ShardID, SequenceNumber string
}

// Shard describes one shard.
type Shard struct {
	ID                             string
	ParentID, AdjacentParentID     string // empty without
	StartingHashKey, EndingHashKey string // inclusive, decimal
	Closed                         bool
	Records                        int    // that can be read now
	Trimmed                        uint64 // that could once
}

// CreateStream adds a stream with shards equal ranges.
func (s *Server) CreateStream(name string, shards int) error {
	if !isName(name) || len(name) > 128 {
		return failure(codeValidation, "%q is not a stream name.", name)
	}
	if shards < 1 {
		return failure(codeValidation, "A stream has at least one shard, not %d.", shards)
	}
	return s.create(name, shards, 0, "PROVISIONED")
}

// Put stores one record, of which it keeps a copy, and returns its place.
func (s *Server) Put(stream, key string, data []byte) (shardID, sequenceNumber string, err error) {
	sh, n, err := s.put(stream, []Record{{PartitionKey: key, Data: data}})
	if err != nil {
		return "", "", err
	}
	return sh.id, sh.starting.at(n).String(), nil
}

// PutBatch stores records in order, of which it keeps copies. An error says that
// the record it names and all after it were not stored.
func (s *Server) PutBatch(stream string, records []Record) error {
	_, _, err := s.put(stream, records)
	return err
}

// put stores records and returns the place of the last one.
func (s *Server) put(stream string, records []Record) (sh *shard, n uint64, err error) {
	st, err := s.writable(reference{StreamName: &stream})
	if err != nil {
		return nil, 0, err
	}
	now := time.Now()
	st.mu.RLock()
	defer st.mu.RUnlock()
	for i := range records {
		r := &records[i]
		e := entry{Data: r.Data, PartitionKey: &r.PartitionKey}
		if r.ExplicitHashKey != "" {
			e.ExplicitHashKey = &r.ExplicitHashKey
		}
		err := checkRecord(r, st.maxRecord)
		var h hash
		if err == nil {
			h, err = e.hash()
		}
		if err != nil {
			return nil, 0, failure(codeInvalidArgument, "record %d: %v", i, err)
		}
		at := now
		if !r.ArrivedAt.IsZero() {
			at = r.ArrivedAt
		}
		var refused *serviceError
		if sh, n, refused = s.store(st, &e, h, at, false); refused != nil {
			return nil, 0, refused
		}
		if i&0xff == 0xff {
			st.evict()
		}
	}
	st.evict()
	return sh, n, nil
}

// Split closes an open shard and opens two for the halves of its range.
func (s *Server) Split(stream, shardID string) error {
	st, sh, err := s.shardOf(reference{StreamName: &stream}, shardID)
	if err != nil {
		return err
	}
	if sh.lo == sh.hi {
		return invalid("Shard %s holds a single hash key.", shardID)
	}
	return s.split(st, sh, middle(sh.lo, sh.hi))
}

// Merge closes two open shards with adjoining ranges and opens one for both. The
// first becomes the child's parent, the second its adjacent parent.
func (s *Server) Merge(stream, shardID, adjacentShardID string) error {
	st, parent, err := s.shardOf(reference{StreamName: &stream}, shardID)
	if err != nil {
		return err
	}
	adjacent, err := s.shard(st, adjacentShardID)
	if err != nil {
		return err
	}
	return s.merge(st, parent, adjacent)
}

// CloseShard ends a shard without children, so that its readers come to an end,
// which the service never does. Records whose hash keys it held are refused with
// InternalFailure from then on.
func (s *Server) CloseShard(stream, shardID string) error {
	st, sh, err := s.shardOf(reference{StreamName: &stream}, shardID)
	if err != nil {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if sh.isClosed() {
		return invalid("Shard %s of stream %s is closed.", shardID, stream)
	}
	st.retire(sh)
	sh.close(time.Now().UnixMilli())
	return nil
}

// Trim moves the stream's trim horizon to before, as if the retention period of
// everything older had just ended: records that arrived earlier disappear, and
// so do shards that closed earlier. It never moves back.
func (s *Server) Trim(stream string, before time.Time) error {
	st, err := s.stream(stream)
	if err != nil {
		return err
	}
	ms := before.UnixMilli()
	for {
		old := st.trimmed.Load()
		if old >= ms || st.trimmed.CompareAndSwap(old, ms) {
			break
		}
	}
	now := time.Now().UnixMilli()
	st.forget(now)
	st.mu.RLock()
	defer st.mu.RUnlock()
	for _, sh := range st.shards {
		sh.mu.Lock()
		sh.trim(st.horizon(now))
		sh.mu.Unlock()
	}
	return nil
}

// Shards lists the stream's shards, closed ones that have not vanished included,
// in the order in which they were opened.
func (s *Server) Shards(stream string) ([]Shard, error) {
	st, err := s.stream(stream)
	if err != nil {
		return nil, err
	}
	now := time.Now().UnixMilli()
	st.forget(now)
	st.mu.RLock()
	defer st.mu.RUnlock()
	shards := make([]Shard, len(st.shards))
	for i, sh := range st.shards {
		sh.mu.Lock()
		sh.trim(st.horizon(now))
		shards[i] = Shard{
			ID: sh.id, StartingHashKey: sh.lo.String(), EndingHashKey: sh.hi.String(),
			Closed: sh.closed != 0, Records: int(sh.next - sh.first), Trimmed: sh.first - 1,
		}
		sh.mu.Unlock()
		if len(sh.parents) > 0 {
			shards[i].ParentID = sh.parents[0]
		}
		if len(sh.parents) > 1 {
			shards[i].AdjacentParentID = sh.parents[1]
		}
	}
	return shards, nil
}

// Records returns copies of all readable records of the stream, shard by shard
// in the order of Shards. It is meant for a test that looks at what was
// published; it copies everything.
func (s *Server) Records(stream string) ([]Record, error) {
	st, err := s.stream(stream)
	if err != nil {
		return nil, err
	}
	st.forget(time.Now().UnixMilli())
	st.mu.RLock()
	shards := append([]*shard(nil), st.shards...)
	st.mu.RUnlock()
	var all []Record
	for _, sh := range shards {
		v := sh.snapshot(0, 1<<62, 1<<62, nil)
		next := v.from
		for n := range v.chunks {
			c := &v.chunks[n]
			for i := int(next - c.first); i < c.len(); i++ {
				key, data := c.record(i)
				all = append(all, Record{
					PartitionKey: string(key), Data: bytes.Clone(data), ArrivedAt: time.UnixMilli(c.arrived[i]),
					ShardID: sh.id, SequenceNumber: sh.starting.at(next).String(),
				})
				next++
			}
		}
	}
	return all, nil
}
