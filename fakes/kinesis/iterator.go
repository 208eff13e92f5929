package kinesis

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"time"
)

// iterator is what a ShardIterator string holds. It is opaque to clients; the
// checksum only tells a damaged one from a good one.
type iterator struct {
	stream uint64
	shard  uint32
	epoch  uint32
	issued int64  // Unix milliseconds
	next   uint64 // counter of the record to read
}

const iteratorBytes = 1 + 8 + 4 + 4 + 8 + 8 + 4

var iteratorEncoding = base64.StdEncoding.Strict()

func (it iterator) append(dst []byte) []byte {
	var b [iteratorBytes]byte
	b[0] = 1
	binary.BigEndian.PutUint64(b[1:], it.stream)
	binary.BigEndian.PutUint32(b[9:], it.shard)
	binary.BigEndian.PutUint32(b[13:], it.epoch)
	binary.BigEndian.PutUint64(b[17:], uint64(it.issued))
	binary.BigEndian.PutUint64(b[25:], it.next)
	binary.BigEndian.PutUint32(b[33:], crc32.ChecksumIEEE(b[:33]))
	return iteratorEncoding.AppendEncode(dst, b[:])
}

func parseIterator(text string) (iterator, bool) {
	b, err := iteratorEncoding.DecodeString(text)
	if err != nil || len(b) != iteratorBytes || b[0] != 1 ||
		binary.BigEndian.Uint32(b[33:]) != crc32.ChecksumIEEE(b[:33]) {
		return iterator{}, false
	}
	return iterator{
		stream: binary.BigEndian.Uint64(b[1:]),
		shard:  binary.BigEndian.Uint32(b[9:]),
		epoch:  binary.BigEndian.Uint32(b[13:]),
		issued: int64(binary.BigEndian.Uint64(b[17:])),
		next:   binary.BigEndian.Uint64(b[25:]),
	}, true
}

// iterator issues one for a place in sh.
func (s *Server) iterator(sh *shard, next uint64) iterator {
	return iterator{
		stream: sh.stream.id, shard: uint32(sh.index), epoch: s.epoch.Load(),
		issued: time.Now().UnixMilli(), next: next,
	}
}

// resolve finds the shard an iterator points into.
func (s *Server) resolve(text string) (*shard, iterator, error) {
	it, ok := parseIterator(text)
	now := time.Now()
	if !ok || it.issued > now.UnixMilli() || it.epoch > s.epoch.Load() {
		return nil, it, invalid("Invalid ShardIterator.")
	}
	issued := time.UnixMilli(it.issued)
	if it.epoch < s.epoch.Load() || now.Sub(issued) > s.opts.IteratorLifetime {
		const layout = "Mon Jan 02 15:04:05 MST 2006"
		return nil, it, failure(ExpiredIterator, "Iterator expired. The iterator was created at time %s while right now it is %s which is further in the future than the tolerated delay of %d milliseconds.",
			issued.UTC().Format(layout), now.UTC().Format(layout), s.opts.IteratorLifetime.Milliseconds())
	}
	st := s.streamByID(it.stream)
	if st == nil {
		return nil, it, notFound("Shard %s does not exist: its stream was deleted.", shardName(int(it.shard)))
	}
	sh := st.lookup(int(it.shard))
	if sh == nil {
		return nil, it, notFound("Shard %s in stream %s under account %s does not exist", shardName(int(it.shard)), st.name, s.opts.AccountID)
	}
	return sh, it, nil
}
