package kinesis

import (
	"fmt"
	"time"
	"unicode/utf8"
)

const (
	maxPutRecords = 500
	maxPutBytes   = 10 << 20
)

// entry is one record of a request.
type entry struct {
	Data            []byte // nil when absent
	PartitionKey    *string
	ExplicitHashKey *string
}

// check adds what is wrong with the entry; i is its place in the request.
func (e *entry) check(v *violations, i int) {
	if e.Data == nil {
		v.add(nil, field(i, "data"), "not be null")
	}
	switch {
	case e.PartitionKey == nil:
		v.add(nil, field(i, "partitionKey"), "not be null")
	case len(*e.PartitionKey) == 0 || len(*e.PartitionKey) > 256:
		v.length(*e.PartitionKey, field(i, "partitionKey"), 1, 256)
	}
	if e.ExplicitHashKey != nil {
		v.digits(e.ExplicitHashKey, field(i, "explicitHashKey"), 39)
	}
}

// field names a field of entry i, of the only one if i is negative.
func field(i int, name string) string {
	if i < 0 {
		return name
	}
	return fmt.Sprintf("records.%d.member.%s", i+1, name)
}

// size is what counts against limits.
func (e *entry) size() int { return len(e.Data) + len(*e.PartitionKey) }

// hash returns the hash key that routes the entry.
func (e *entry) hash() (hash, error) {
	if e.ExplicitHashKey == nil {
		return hashOf([]byte(*e.PartitionKey)), nil
	}
	h, ok := parseHash(*e.ExplicitHashKey)
	if !ok {
		return h, invalid("Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was %s", *e.ExplicitHashKey)
	}
	return h, nil
}

// writable finds a stream that takes records.
func (s *Server) writable(r reference) (*stream, error) {
	st, err := s.lookup(r)
	if err != nil {
		return nil, err
	}
	switch st.state(time.Now().UnixMilli()) {
	case statusActive, statusUpdating:
		return st, nil
	}
	return nil, notFound("Stream %s under account %s not found.", st.name, s.opts.AccountID)
}

// store puts one checked entry into its shard.
func (s *Server) store(st *stream, e *entry, h hash, now time.Time, limits bool) (*shard, uint64, *serviceError) {
	sh := st.route(h)
	if sh == nil {
		return nil, 0, failure(InternalFailure, "No open shard of stream %s has hash key %s.", st.name, h)
	}
	if limits && !sh.admitWrite(now, e.size()) {
		return nil, 0, failure(ProvisionedThroughputExceeded, "Rate exceeded for shard %s in stream %s under account %s.", sh.id, st.name, s.opts.AccountID)
	}
	return sh, sh.append(*e.PartitionKey, e.Data, now.UnixMilli()), nil
}

func (s *Server) putRecord(c *call) error {
	var in struct {
		reference
		entry
		SequenceNumberForOrdering *string
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	var v violations
	in.reference.check(&v)
	in.entry.check(&v, -1)
	v.digits(in.SequenceNumberForOrdering, "sequenceNumberForOrdering", 129)
	if err := v.err(); err != nil {
		return err
	}
	st, err := s.writable(in.reference)
	if err != nil {
		return err
	}
	if err := tooLarge(&in.entry, -1, st.maxRecord); err != nil {
		return err
	}
	h, err := in.hash()
	if err != nil {
		return err
	}
	st.mu.RLock()
	defer st.mu.RUnlock()
	sh, n, refused := s.store(st, &in.entry, h, time.Now(), s.opts.EnforceLimits)
	if refused != nil {
		return refused
	}
	st.evict()
	c.reply = append(c.reply, `{"SequenceNumber":"`...)
	c.reply = sh.starting.at(n).append(c.reply)
	c.reply = append(c.reply, `","ShardId":"`...)
	c.reply = append(c.reply, sh.id...)
	c.reply = append(c.reply, `"}`...)
	return nil
}

func tooLarge(e *entry, i, most int) error {
	if e.size() <= most {
		return nil
	}
	var v violations
	v.add(fmt.Sprintf("java.nio.HeapByteBuffer[pos=0 lim=%d cap=%d]", len(e.Data), len(e.Data)), field(i, "data"),
		"have length less than or equal to %d", most)
	return v.err()
}

func (s *Server) putRecords(c *call) error {
	var in struct {
		reference
		Records []entry
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	var v violations
	in.check(&v)
	switch n := len(in.Records); {
	case in.Records == nil:
		v.add(nil, "records", "not be null")
	case n == 0:
		v.add("[]", "records", "have length greater than or equal to 1")
	case n > maxPutRecords:
		v.add(fmt.Sprintf("[%d records]", n), "records", "have length less than or equal to %d", maxPutRecords)
	}
	for i := range in.Records {
		in.Records[i].check(&v, i)
	}
	if err := v.err(); err != nil {
		return err
	}
	st, err := s.writable(in.reference)
	if err != nil {
		return err
	}
	total := 0
	hashes := make([]hash, len(in.Records))
	for i := range in.Records {
		e := &in.Records[i]
		if err := tooLarge(e, i, st.maxRecord); err != nil {
			return err
		}
		if hashes[i], err = e.hash(); err != nil {
			return err
		}
		total += e.size()
	}
	if total > maxPutBytes {
		return invalid("Records size exceeds %d MB limit", maxPutBytes>>20)
	}
	s.putAll(c, st, in.Records, hashes)
	return nil
}

// putAll stores what can be stored and writes the reply.
func (s *Server) putAll(c *call, st *stream, entries []entry, hashes []hash) {
	now := time.Now()
	failed := 0
	c.reply = append(c.reply, `{"Records":[`...)
	st.mu.RLock()
	defer st.mu.RUnlock()
	for i := range entries {
		if i > 0 {
			c.reply = append(c.reply, ',')
		}
		sh, n, err := s.putOne(c.fault, i, st, &entries[i], hashes[i], now)
		if err != nil {
			failed++
			c.reply = append(c.reply, `{"ErrorCode":`...)
			c.reply = appendString(c.reply, []byte(err.code))
			c.reply = append(c.reply, `,"ErrorMessage":`...)
			c.reply = appendString(c.reply, []byte(err.message))
			c.reply = append(c.reply, '}')
			continue
		}
		c.reply = append(c.reply, `{"SequenceNumber":"`...)
		c.reply = sh.starting.at(n).append(c.reply)
		c.reply = append(c.reply, `","ShardId":"`...)
		c.reply = append(c.reply, sh.id...)
		c.reply = append(c.reply, `"}`...)
	}
	st.evict()
	c.reply = append(c.reply, `],"FailedRecordCount":`...)
	c.reply = fmt.Appendf(c.reply, "%d}", failed)
}

// putOne stores entry i of a PutRecords call unless the fault says otherwise.
func (s *Server) putOne(f Fault, i int, st *stream, e *entry, h hash, now time.Time) (*shard, uint64, *serviceError) {
	if f.FailEntries != nil && f.FailEntries(i) {
		code, message := f.Code, f.Message
		if code == "" {
			code = ProvisionedThroughputExceeded
		}
		if message == "" {
			message = "Injected fault."
		}
		return nil, 0, failure(code, "%s", message)
	}
	return s.store(st, e, h, now, s.opts.EnforceLimits)
}

// checkRecord is for direct calls what the protocol's validation is for
// requests.
func checkRecord(r *Record, most int) error {
	switch {
	case r.PartitionKey == "" || utf8.RuneCountInString(r.PartitionKey) > 256:
		return failure(codeValidation, "A partition key has 1 to 256 characters, not %d.", utf8.RuneCountInString(r.PartitionKey))
	case !utf8.ValidString(r.PartitionKey):
		return failure(codeValidation, "The partition key is not valid UTF-8.")
	case len(r.PartitionKey)+len(r.Data) > most:
		return failure(codeValidation, "A record has at most %d bytes, not %d.", most, len(r.PartitionKey)+len(r.Data))
	}
	return nil
}
