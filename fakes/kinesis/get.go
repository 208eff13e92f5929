package kinesis

import (
	"encoding/base64"
	"slices"
	"strconv"
	"time"
)

const (
	maxGetRecords = 10_000
	maxGetBytes   = 10 << 20
)

func (s *Server) getShardIterator(c *call) error {
	var in struct {
		reference
		ShardID                *string `json:"ShardId"`
		ShardIteratorType      *string
		StartingSequenceNumber *string
		Timestamp              *epoch
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	var v violations
	in.check(&v)
	v.name(in.ShardID, "shardId", true)
	if in.ShardIteratorType == nil {
		v.add(nil, "shardIteratorType", "not be null")
	} else {
		checkPosition(&v, *in.ShardIteratorType, "shardIteratorType")
	}
	v.digits(in.StartingSequenceNumber, "startingSequenceNumber", 129)
	if err := v.err(); err != nil {
		return err
	}
	st, err := s.lookup(in.reference)
	if err != nil {
		return err
	}
	sh, err := s.shard(st, *in.ShardID)
	if err != nil {
		return err
	}
	next, err := s.position(sh, *in.ShardIteratorType, in.StartingSequenceNumber, in.Timestamp)
	if err != nil {
		return err
	}
	c.reply = append(c.reply, `{"ShardIterator":"`...)
	c.reply = s.iterator(sh, next).append(c.reply)
	c.reply = append(c.reply, `"}`...)
	return nil
}

func checkPosition(v *violations, kind, field string) {
	switch kind {
	case "TRIM_HORIZON", "LATEST", "AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER", "AT_TIMESTAMP":
	default:
		v.add(kind, field, "satisfy enum value set: [AFTER_SEQUENCE_NUMBER, LATEST, AT_TIMESTAMP, AT_SEQUENCE_NUMBER, TRIM_HORIZON]")
	}
}

// position returns the counter of the first record to read.
func (s *Server) position(sh *shard, kind string, number *string, at *epoch) (uint64, error) {
	bySequence := kind == "AT_SEQUENCE_NUMBER" || kind == "AFTER_SEQUENCE_NUMBER"
	if bySequence != (number != nil) {
		with := "no StartingSequenceNumber"
		if number != nil {
			with = "also a StartingSequenceNumber"
		}
		return 0, invalid("Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified %s and %s.", kind, with)
	}
	switch kind {
	case "TRIM_HORIZON":
		return 0, nil // reading skips to the oldest record there then is
	case "LATEST":
		sh.mu.Lock()
		defer sh.mu.Unlock()
		return sh.next, nil
	case "AT_TIMESTAMP":
		if at == nil {
			return 0, invalid("Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has no timestamp parameter.")
		}
		if now := time.Now().UnixMilli(); int64(*at) > now {
			return 0, invalid("The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. timestampInMillis: %d, currentTimestampInMillis: %d", int64(*at), now)
		}
		return sh.atTime(int64(*at)), nil
	}
	n, err := s.counter(sh, *number)
	if err == nil && kind == "AFTER_SEQUENCE_NUMBER" {
		n++
	}
	return n, err
}

// counter returns the counter of a sequence number of sh.
func (s *Server) counter(sh *shard, number string) (uint64, error) {
	where := func(why string) error {
		return invalid("StartingSequenceNumber %s used in GetShardIterator on shard %s in stream %s under account %s is invalid%s.",
			number, sh.id, sh.stream.name, s.opts.AccountID, why)
	}
	seq, ok := parseSequence(number)
	if !ok {
		return 0, where("")
	}
	if seq.shard() != sh.index {
		return 0, invalid("Invalid StartingSequenceNumber. It encodes %s, while it was used in a call to a shard with %s", shardName(seq.shard()), sh.id)
	}
	n := seq.counter()
	if seq.created() != sh.starting.created() {
		return 0, where(" because it did not come from this stream")
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if n == endCounter && sh.closed != 0 {
		return sh.next, nil
	}
	if seq != sh.starting.at(n) || n >= sh.next && n > 0 {
		return 0, where(" because it did not come from this stream")
	}
	return n, nil
}

func (s *Server) getRecords(c *call) error {
	var in struct {
		ShardIterator, StreamARN *string
		Limit                    *int64
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	var v violations
	if in.ShardIterator == nil {
		v.add(nil, "shardIterator", "not be null")
	} else {
		v.length(*in.ShardIterator, "shardIterator", 1, 512)
	}
	reference{StreamARN: in.StreamARN}.checkARN(&v)
	if in.Limit != nil && *in.Limit < 1 {
		v.between(in.Limit, "limit", 1, maxGetRecords)
	}
	if err := v.err(); err != nil {
		return err
	}
	if in.Limit != nil && *in.Limit > maxGetRecords {
		return invalid("Limit %d is greater than %d.", *in.Limit, maxGetRecords)
	}
	sh, it, err := s.resolve(*in.ShardIterator)
	if err != nil {
		return err
	}
	if in.StreamARN != nil {
		if name, _ := nameOfARN(*in.StreamARN); name != sh.stream.name {
			return invalid("ShardIterator is not one of stream %s.", name)
		}
	}
	if s.opts.EnforceLimits && !sh.admitRead(time.Now()) {
		return failure(ProvisionedThroughputExceeded, "Rate exceeded for shard %s in stream %s under account %s.", sh.id, sh.stream.name, s.opts.AccountID)
	}
	if c.fault.Empty {
		c.reply = append(c.reply, `{"Records":[],"MillisBehindLatest":1,"NextShardIterator":"`...)
		c.reply = s.iterator(sh, it.next).append(c.reply)
		c.reply = append(c.reply, `"}`...)
		return nil
	}
	records := maxGetRecords
	if in.Limit != nil {
		records = int(*in.Limit)
	}
	c.reply = append(c.reply, `{"Records":`...)
	page := sh.read(c.reply, it.next, records, maxGetBytes)
	c.reply = append(page.json, `,"MillisBehindLatest":`...)
	c.reply = strconv.AppendInt(c.reply, page.behind, 10)
	if page.end {
		c.reply = sh.appendChildren(append(c.reply, ',')) // and no iterator
	} else {
		c.reply = append(c.reply, `,"NextShardIterator":"`...)
		c.reply = s.iterator(sh, page.next).append(c.reply)
		c.reply = append(c.reply, '"')
	}
	c.reply = append(c.reply, '}')
	if s.opts.EnforceLimits {
		sh.payRead(page.bytes)
	}
	return nil
}

// page is what one read returned.
type page struct {
	json   []byte // the list of records, behind what was there
	next   uint64 // counter of the record after the last one
	last   uint64 // counter of the last one, 0 without records
	bytes  int    // keys and data
	behind int64  // milliseconds, 0 at the tip
	end    bool   // the shard is closed and has no more
}

// read appends records from counter from on as a JSON list: at most that many
// records and, beyond the first, that many bytes.
func (sh *shard) read(dst []byte, from uint64, records, size int) page {
	var few [8]chunk
	v := sh.snapshot(from, records, int64(size), few[:0])
	p := page{next: v.from}
	dst = append(slices.Grow(dst, v.replySize(records, size)), '[')
	var newest int64
	full := false
	for n := 0; n < len(v.chunks) && !full; n++ {
		c := &v.chunks[n]
		for i := int(p.next - c.first); i < c.len(); i++ {
			key, data := c.record(i)
			if records == 0 || p.last != 0 && p.bytes+len(key)+len(data) > size {
				full = true
				break
			}
			if p.last != 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, `{"SequenceNumber":"`...)
			dst = sh.starting.at(p.next).append(dst)
			dst = append(dst, `","ApproximateArrivalTimestamp":`...)
			dst = appendEpoch(dst, c.arrived[i])
			dst = append(dst, `,"Data":"`...)
			dst = base64.StdEncoding.AppendEncode(dst, data)
			dst = append(dst, `","PartitionKey":`...)
			dst = appendString(dst, key)
			dst = append(dst, '}')
			p.bytes += len(key) + len(data)
			p.last, newest = p.next, c.arrived[i]
			p.next++
			records--
		}
	}
	p.json = append(dst, ']')
	if p.next < v.next {
		// At least 1, so that 0 means the tip.
		p.behind = max(1, time.Now().UnixMilli()-newest)
	}
	p.end = v.closed && p.next >= v.next
	return p
}

// replySize is about what at most that many records and bytes take as JSON.
func (v *view) replySize(records, size int) int {
	held, bytes := 0, 0
	for i := range v.chunks {
		c := &v.chunks[i]
		held += c.len()
		bytes += len(c.data)
	}
	return 64 + 160*min(records, held) + min(size, bytes)*3/2
}

// appendChildren writes the member that tells the reader of a closed shard
// where to go on.
func (sh *shard) appendChildren(dst []byte) []byte {
	sh.mu.Lock()
	children := sh.children
	sh.mu.Unlock()
	dst = append(dst, `"ChildShards":[`...)
	for i, child := range children {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"ShardId":"`...)
		dst = append(dst, child.id...)
		dst = append(dst, `","ParentShards":[`...)
		for j, parent := range child.parents {
			if j > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, '"')
			dst = append(dst, parent...)
			dst = append(dst, '"')
		}
		dst = append(dst, `],"HashKeyRange":{"StartingHashKey":"`...)
		dst = append(dst, child.lo.String()...)
		dst = append(dst, `","EndingHashKey":"`...)
		dst = append(dst, child.hi.String()...)
		dst = append(dst, `"}}`...)
	}
	return append(dst, ']')
}
