package kinesis

import (
	"sort"
	"strings"
	"time"
)

// reference names a stream in a request.
type reference struct {
	StreamName *string
	StreamARN  *string
}

// nameOfARN returns the stream's name in a stream's or consumer's ARN.
func nameOfARN(arn string) (string, bool) {
	rest, ok := strings.CutPrefix(arn, "arn:")
	_, resource, found := strings.Cut(rest, ":stream/")
	name, _, _ := strings.Cut(resource, "/")
	return name, ok && found && strings.Contains(rest, ":kinesis:") && isName(name) && len(name) <= 128
}

// check adds what is wrong with the reference.
func (r reference) check(v *violations) {
	v.name(r.StreamName, "streamName", r.StreamARN == nil)
	r.checkARN(v)
}

func (r reference) checkARN(v *violations) {
	if r.StreamARN == nil {
		return
	}
	if _, ok := nameOfARN(*r.StreamARN); !ok {
		v.add(*r.StreamARN, "streamARN", "satisfy regular expression pattern: arn:aws.*:kinesis:.*:\\d{12}:stream/\\S+")
	}
}

// lookup finds the stream a checked reference names.
func (s *Server) lookup(r reference) (*stream, error) {
	if r.StreamARN == nil {
		return s.stream(*r.StreamName)
	}
	name, _ := nameOfARN(*r.StreamARN)
	if r.StreamName != nil && *r.StreamName != name {
		return nil, invalid("StreamName %s and StreamARN %s name different streams.", *r.StreamName, *r.StreamARN)
	}
	return s.stream(name)
}

// inState refuses a stream in any other state.
func (s *Server) inState(st *stream, states ...string) error {
	now := st.state(time.Now().UnixMilli())
	for _, state := range states {
		if now == state {
			return nil
		}
	}
	return failure(codeInUse, "Stream %s under account %s not %s, instead in state %s", st.name, s.opts.AccountID, strings.Join(states, " or "), now)
}

func (s *Server) createStream(c *call) error {
	var in struct {
		StreamName         *string
		ShardCount         *int64
		MaxRecordSizeInKiB *int64
		StreamModeDetails  *struct{ StreamMode string }
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	var v violations
	v.name(in.StreamName, "streamName", true)
	v.between(in.ShardCount, "shardCount", 1, 100_000)
	v.between(in.MaxRecordSizeInKiB, "maxRecordSizeInKiB", 1024, 10240)
	mode := "PROVISIONED"
	if in.StreamModeDetails != nil {
		mode = in.StreamModeDetails.StreamMode
	}
	if mode != "PROVISIONED" && mode != "ON_DEMAND" {
		v.add(mode, "streamModeDetails.streamMode", "satisfy enum value set: [PROVISIONED, ON_DEMAND]")
	}
	if err := v.err(); err != nil {
		return err
	}
	shards := int64(4) // what the service gives a new on-demand stream
	switch {
	case mode == "PROVISIONED" && in.ShardCount == nil:
		return invalid("ShardCount must be specified when creating a stream in PROVISIONED mode.")
	case mode == "ON_DEMAND" && in.ShardCount != nil:
		return invalid("ShardCount must not be specified when creating a stream in ON_DEMAND mode.")
	case in.ShardCount != nil:
		shards = *in.ShardCount
	}
	maxRecord := 0
	if in.MaxRecordSizeInKiB != nil {
		maxRecord = int(*in.MaxRecordSizeInKiB) << 10
	}
	return s.create(*in.StreamName, int(shards), maxRecord, mode)
}

func (s *Server) deleteStream(c *call) error {
	var in struct {
		reference
		EnforceConsumerDeletion bool
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	var v violations
	in.check(&v)
	if err := v.err(); err != nil {
		return err
	}
	st, err := s.lookup(in.reference)
	if err != nil {
		return err
	}
	st.mu.RLock()
	consumers := len(st.consumers)
	st.mu.RUnlock()
	if consumers > 0 && !in.EnforceConsumerDeletion {
		return failure(codeInUse, "Stream %s under account %s still has %d registered consumers.", st.name, s.opts.AccountID, consumers)
	}
	s.remove(st)
	return nil
}

type shardJSON struct {
	ShardID               string `json:"ShardId"`
	ParentShardID         string `json:"ParentShardId,omitempty"`
	AdjacentParentShardID string `json:"AdjacentParentShardId,omitempty"`
	HashKeyRange          rangeJSON
	SequenceNumberRange   struct {
		StartingSequenceNumber string
		EndingSequenceNumber   string `json:",omitempty"`
	}
}

type rangeJSON struct{ StartingHashKey, EndingHashKey string }

func (sh *shard) json() shardJSON {
	j := shardJSON{ShardID: sh.id, HashKeyRange: rangeJSON{sh.lo.String(), sh.hi.String()}}
	if len(sh.parents) > 0 {
		j.ParentShardID = sh.parents[0]
	}
	if len(sh.parents) > 1 {
		j.AdjacentParentShardID = sh.parents[1]
	}
	j.SequenceNumberRange.StartingSequenceNumber = sh.starting.String()
	if sh.isClosed() {
		j.SequenceNumberRange.EndingSequenceNumber = sh.starting.at(endCounter).String()
	}
	return j
}

// list returns at most limit listed shards behind index after that keep lets
// through, and whether there are more.
func (st *stream) list(after, limit int, keep func(*shard) bool) (shards []shardJSON, last int, more bool) {
	st.forget(time.Now().UnixMilli())
	st.mu.RLock()
	defer st.mu.RUnlock()
	shards = []shardJSON{}
	for _, sh := range st.shards {
		if sh.index <= after || keep != nil && !keep(sh) {
			continue
		}
		if len(shards) == limit {
			return shards, last, true
		}
		shards, last = append(shards, sh.json()), sh.index
	}
	return shards, last, false
}

type modeJSON struct{ StreamMode string }

// monitoring is the empty list that every description carries.
var monitoring = []struct{ ShardLevelMetrics []string }{{ShardLevelMetrics: []string{}}}

func (s *Server) describeStream(c *call) error {
	var in struct {
		reference
		ExclusiveStartShardID *string `json:"ExclusiveStartShardId"`
		Limit                 *int64
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	var v violations
	in.check(&v)
	v.name(in.ExclusiveStartShardID, "exclusiveStartShardId", false)
	v.between(in.Limit, "limit", 1, 10000)
	if err := v.err(); err != nil {
		return err
	}
	st, err := s.lookup(in.reference)
	if err != nil {
		return err
	}
	after, err := startAfter(in.ExclusiveStartShardID)
	if err != nil {
		return err
	}
	type description struct {
		StreamName, StreamARN, StreamStatus string
		StreamModeDetails                   modeJSON
		Shards                              []shardJSON
		HasMoreShards                       bool
		RetentionPeriodHours                int
		StreamCreationTimestamp             epoch
		EnhancedMonitoring                  any
		EncryptionType                      string
	}
	d := description{
		StreamName: st.name, StreamARN: st.arn, StreamStatus: st.state(time.Now().UnixMilli()),
		StreamModeDetails: modeJSON{st.mode}, Shards: []shardJSON{},
		RetentionPeriodHours: st.retentionHours(), StreamCreationTimestamp: epoch(st.created),
		EnhancedMonitoring: monitoring, EncryptionType: "NONE",
	}
	if d.StreamStatus != statusCreating {
		d.Shards, _, d.HasMoreShards = st.list(after, limit(in.Limit, 100), nil)
	}
	return c.answer(struct{ StreamDescription description }{d})
}

func (s *Server) describeStreamSummary(c *call) error {
	var in struct{ reference }
	if err := c.decode(&in); err != nil {
		return err
	}
	var v violations
	in.check(&v)
	if err := v.err(); err != nil {
		return err
	}
	st, err := s.lookup(in.reference)
	if err != nil {
		return err
	}
	st.mu.RLock()
	open, consumers := len(st.open), len(st.consumers)
	st.mu.RUnlock()
	type summary struct {
		StreamName, StreamARN, StreamStatus string
		StreamModeDetails                   modeJSON
		RetentionPeriodHours                int
		StreamCreationTimestamp             epoch
		EnhancedMonitoring                  any
		EncryptionType                      string
		OpenShardCount, ConsumerCount       int
		MaxRecordSizeInKiB                  int
	}
	return c.answer(struct{ StreamDescriptionSummary summary }{summary{
		StreamName: st.name, StreamARN: st.arn, StreamStatus: st.state(time.Now().UnixMilli()),
		StreamModeDetails: modeJSON{st.mode}, RetentionPeriodHours: st.retentionHours(),
		StreamCreationTimestamp: epoch(st.created), EnhancedMonitoring: monitoring, EncryptionType: "NONE",
		OpenShardCount: open, ConsumerCount: consumers, MaxRecordSizeInKiB: st.maxRecord >> 10,
	}})
}

// retentionHours rounds up: a test's retention may be seconds.
func (st *stream) retentionHours() int {
	return int((st.retention + time.Hour - 1) / time.Hour)
}

func (s *Server) listStreams(c *call) error {
	var in struct {
		ExclusiveStartStreamName, NextToken *string
		Limit                               *int64
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	var v violations
	v.name(in.ExclusiveStartStreamName, "exclusiveStartStreamName", false)
	v.name(in.NextToken, "nextToken", false)
	v.between(in.Limit, "limit", 1, 10000)
	if err := v.err(); err != nil {
		return err
	}
	after := in.ExclusiveStartStreamName
	if in.NextToken != nil { // the last name of the page before
		after = in.NextToken
	}
	s.mu.RLock()
	all := make([]*stream, 0, len(s.streams))
	for _, st := range s.streams {
		all = append(all, st)
	}
	s.mu.RUnlock()
	sort.Slice(all, func(i, j int) bool { return all[i].name < all[j].name })

	type summary struct {
		StreamName, StreamARN, StreamStatus string
		StreamModeDetails                   modeJSON
		StreamCreationTimestamp             epoch
	}
	out := struct {
		StreamNames     []string
		StreamSummaries []summary
		HasMoreStreams  bool
		NextToken       string `json:",omitempty"`
	}{StreamNames: []string{}, StreamSummaries: []summary{}}
	most := limit(in.Limit, 100)
	for _, st := range all {
		status := st.state(time.Now().UnixMilli())
		if status == "" || after != nil && st.name <= *after {
			continue
		}
		if len(out.StreamNames) == most {
			out.HasMoreStreams = true
			out.NextToken = out.StreamNames[most-1]
			break
		}
		out.StreamNames = append(out.StreamNames, st.name)
		out.StreamSummaries = append(out.StreamSummaries, summary{st.name, st.arn, status, modeJSON{st.mode}, epoch(st.created)})
	}
	return c.answer(out)
}

// limit returns the wanted page size, at most the default.
func limit(wanted *int64, most int) int {
	if wanted == nil {
		return most
	}
	return int(min(*wanted, int64(most)))
}

// startAfter returns the index of an exclusive start shard, -1 without one.
func startAfter(id *string) (int, error) {
	if id == nil {
		return -1, nil
	}
	index, ok := shardIndex(*id)
	if !ok {
		return 0, invalid("ExclusiveStartShardId %s is not the name of a shard.", *id)
	}
	return index, nil
}
