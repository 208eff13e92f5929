package kinesis

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// shardIndex reads a shard's name: "shardId-000000000007" or, as the service
// does, any text before the dash and fewer digits.
func shardIndex(id string) (int, bool) {
	if _, digits, found := strings.Cut(id, "-"); found {
		id = digits
	}
	n, err := strconv.ParseUint(id, 10, 31)
	return int(n), err == nil
}

// shard finds the shard a request names.
func (s *Server) shard(st *stream, id string) (*shard, error) {
	if index, ok := shardIndex(id); ok {
		if sh := st.lookup(index); sh != nil {
			return sh, nil
		}
	}
	return nil, notFound("Could not find shard %s in stream %s under account %s.", id, st.name, s.opts.AccountID)
}

// shardFilter selects shards by the time at which they were open.
type shardFilter struct {
	Type      string
	ShardID   *string `json:"ShardId"`
	Timestamp *epoch
}

// nextToken is what a NextToken of ListShards holds.
type nextToken struct {
	Stream uint64
	After  int
	Filter *shardFilter `json:",omitempty"`
	Issued int64
	Page   int
}

const tokenLifetime = 300 * time.Second

func (t nextToken) String() string {
	b, _ := json.Marshal(t) // numbers and strings only
	return base64.StdEncoding.EncodeToString(b)
}

func parseToken(text string) (t nextToken, ok bool) {
	b, err := base64.StdEncoding.DecodeString(text)
	return t, err == nil && json.Unmarshal(b, &t) == nil && t.Stream != 0
}

func (s *Server) listShards(c *call) error {
	var in struct {
		reference
		NextToken               *string
		ExclusiveStartShardID   *string `json:"ExclusiveStartShardId"`
		MaxResults              *int64
		StreamCreationTimestamp *epoch
		ShardFilter             *shardFilter
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	if in.NextToken == nil && in.StreamName == nil && in.StreamARN == nil {
		return invalid("Either NextToken or StreamName should be provided.")
	}
	var v violations
	if in.NextToken == nil {
		in.check(&v)
	}
	v.name(in.ExclusiveStartShardID, "exclusiveStartShardId", false)
	v.between(in.MaxResults, "maxResults", 1, 10000)
	if f := in.ShardFilter; f != nil {
		f.check(&v)
	}
	if err := v.err(); err != nil {
		return err
	}

	var st *stream
	var err error
	now := time.Now().UnixMilli()
	token := nextToken{After: -1, Filter: in.ShardFilter}
	if in.NextToken != nil {
		switch {
		case in.StreamName != nil || in.StreamARN != nil:
			return invalid("NextToken and StreamName cannot be provided together.")
		case in.StreamCreationTimestamp != nil:
			return invalid("NextToken and StreamCreationTimestamp cannot be provided together.")
		case in.ExclusiveStartShardID != nil || in.ShardFilter != nil:
			return invalid("NextToken and ExclusiveStartShardId or ShardFilter cannot be provided together.")
		}
		var ok bool
		if token, ok = parseToken(*in.NextToken); !ok || token.Issued > now {
			return invalid("NextToken is invalid.")
		}
		if now-token.Issued > tokenLifetime.Milliseconds() {
			return failure(codeExpiredNextToken, "NextToken expired: it is older than %d seconds.", int(tokenLifetime.Seconds()))
		}
		if st = s.streamByID(token.Stream); st == nil {
			return notFound("The stream of NextToken under account %s not found.", s.opts.AccountID)
		}
	} else {
		if st, err = s.lookup(in.reference); err != nil {
			return err
		}
		if t := in.StreamCreationTimestamp; t != nil && int64(*t)/1000 != st.created/1000 {
			return notFound("Stream %s under account %s not found: it was not created at that time.", st.name, s.opts.AccountID)
		}
		if token.After, err = startAfter(in.ExclusiveStartShardID); err != nil {
			return err
		}
		if f := token.Filter; f != nil && f.Type == "AFTER_SHARD_ID" {
			if token.After, err = startAfter(f.ShardID); err != nil {
				return err
			}
		}
	}
	if err := s.inState(st, statusActive, statusUpdating); err != nil {
		return err
	}
	keep, err := token.Filter.keep(st, now)
	if err != nil {
		return err
	}
	var out struct {
		Shards    []shardJSON
		NextToken string `json:",omitempty"`
	}
	most := 1000
	if token.Page > 0 {
		most = token.Page
	}
	if in.MaxResults != nil {
		most = limit(in.MaxResults, 1000)
	}
	shards, last, more := st.list(token.After, most, keep)
	if out.Shards = shards; more {
		out.NextToken = nextToken{Stream: st.id, After: last, Filter: token.Filter, Issued: now, Page: most}.String()
	}
	return c.answer(out)
}

func (f *shardFilter) check(v *violations) {
	switch f.Type {
	case "AT_TRIM_HORIZON", "FROM_TRIM_HORIZON", "AT_LATEST":
	case "AFTER_SHARD_ID":
		if f.ShardID == nil {
			v.add(nil, "shardFilter.shardId", "not be null")
		}
	case "AT_TIMESTAMP", "FROM_TIMESTAMP":
		if f.Timestamp == nil {
			v.add(nil, "shardFilter.timestamp", "not be null")
		}
	default:
		v.add(f.Type, "shardFilter.type", "satisfy enum value set: [AFTER_SHARD_ID, AT_TRIM_HORIZON, FROM_TRIM_HORIZON, AT_LATEST, AT_TIMESTAMP, FROM_TIMESTAMP]")
	}
}

// keep returns the filter's test, nil for one that lets all through.
func (f *shardFilter) keep(st *stream, now int64) (func(*shard) bool, error) {
	if f == nil {
		return nil, nil
	}
	// Nothing is known of times before the horizon, or before the stream.
	at := max(st.horizon(now), st.created)
	since := false
	switch f.Type {
	case "AFTER_SHARD_ID", "FROM_TRIM_HORIZON":
		return nil, nil // what has expired is not listed anyway
	case "AT_LATEST":
		return func(sh *shard) bool { return !sh.isClosed() }, nil
	case "AT_TIMESTAMP", "FROM_TIMESTAMP":
		if int64(*f.Timestamp) > now {
			return nil, invalid("Timestamp %d is in the future: it is %d.", int64(*f.Timestamp), now)
		}
		at = max(at, int64(*f.Timestamp))
		since = f.Type == "FROM_TIMESTAMP"
	}
	return func(sh *shard) bool { return sh.openAt(at, since) }, nil
}

func (s *Server) splitShard(c *call) error {
	var in struct {
		reference
		ShardToSplit, NewStartingHashKey *string
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	var v violations
	in.check(&v)
	v.name(in.ShardToSplit, "shardToSplit", true)
	if in.NewStartingHashKey == nil {
		v.add(nil, "newStartingHashKey", "not be null")
	}
	v.digits(in.NewStartingHashKey, "newStartingHashKey", 39)
	if err := v.err(); err != nil {
		return err
	}
	st, sh, err := s.shardOf(in.reference, *in.ShardToSplit)
	if err != nil {
		return err
	}
	start, ok := parseHash(*in.NewStartingHashKey)
	if !ok || !sh.lo.next().less(start) || !start.less(sh.hi) {
		return invalid("NewStartingHashKey %s used in SplitShard() on shard %s in stream %s under account %s is not both greater than one plus the shard's StartingHashKey %s and less than the shard's EndingHashKey %s.",
			*in.NewStartingHashKey, sh.id, st.name, s.opts.AccountID, sh.lo, sh.hi)
	}
	return s.split(st, sh, start)
}

// shardOf finds an active stream and its shard, for resharding.
func (s *Server) shardOf(r reference, id string) (*stream, *shard, error) {
	st, err := s.lookup(r)
	if err != nil {
		return nil, nil, err
	}
	if err := s.inState(st, statusActive); err != nil {
		return nil, nil, err
	}
	sh, err := s.shard(st, id)
	return st, sh, err
}

// split splits an open shard at start, which lies inside it.
func (s *Server) split(st *stream, sh *shard, start hash) error {
	if err := s.allow(1); err != nil {
		return err
	}
	now := time.Now().UnixMilli()
	st.mu.Lock()
	defer st.mu.Unlock()
	if sh.isClosed() {
		return invalid("Shard %s in stream %s under account %s has already been merged or split, and thus is not eligible for merging or splitting.", sh.id, st.name, s.opts.AccountID)
	}
	if err := st.roomFor(2); err != nil {
		return err
	}
	st.split(sh, start, now)
	s.updating(st, now)
	return nil
}

// maxShards bounds the shards a stream lists, closed ones included.
const maxShards = 10_000

// roomFor refuses resharding that would list too many shards. The caller holds
// mu.
func (st *stream) roomFor(additional int) error {
	if len(st.shards)+additional > maxShards {
		return failure(codeLimitExceeded, "Stream %s would list more than %d shards; closed ones go when their records have expired.", st.name, maxShards)
	}
	return nil
}

// updating makes a stream UPDATING for the configured time. The caller holds the
// stream's lock.
func (s *Server) updating(st *stream, now int64) {
	if s.opts.Transition > 0 {
		st.enter(statusUpdating, now, s.opts.Transition)
	}
}

func (s *Server) mergeShards(c *call) error {
	var in struct {
		reference
		ShardToMerge, AdjacentShardToMerge *string
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	var v violations
	in.check(&v)
	v.name(in.ShardToMerge, "shardToMerge", true)
	v.name(in.AdjacentShardToMerge, "adjacentShardToMerge", true)
	if err := v.err(); err != nil {
		return err
	}
	st, parent, err := s.shardOf(in.reference, *in.ShardToMerge)
	if err != nil {
		return err
	}
	adjacent, err := s.shard(st, *in.AdjacentShardToMerge)
	if err != nil {
		return err
	}
	return s.merge(st, parent, adjacent)
}

// merge merges two open shards with adjoining ranges.
func (s *Server) merge(st *stream, parent, adjacent *shard) error {
	now := time.Now().UnixMilli()
	st.mu.Lock()
	defer st.mu.Unlock()
	a, b := parent, adjacent
	if b.lo.less(a.lo) {
		a, b = b, a
	}
	if a == b || a.hi == maxHash || a.hi.next() != b.lo {
		return invalid("Shards %s and %s in stream %s under account %s are not an adjacent pair of shards eligible for merging",
			parent.id, adjacent.id, st.name, s.opts.AccountID)
	}
	for _, sh := range []*shard{parent, adjacent} {
		if sh.isClosed() {
			return invalid("Shard %s in stream %s under account %s has already been merged or split, and thus is not eligible for merging or splitting.", sh.id, st.name, s.opts.AccountID)
		}
	}
	if err := st.roomFor(1); err != nil {
		return err
	}
	st.merge(a, b, parent, adjacent, now)
	s.updating(st, now)
	return nil
}

func (s *Server) updateShardCount(c *call) error {
	var in struct {
		reference
		TargetShardCount *int64
		ScalingType      *string
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	var v violations
	in.check(&v)
	if in.TargetShardCount == nil {
		v.add(nil, "targetShardCount", "not be null")
	}
	v.between(in.TargetShardCount, "targetShardCount", 1, 100_000)
	if in.ScalingType == nil {
		v.add(nil, "scalingType", "not be null")
	} else if *in.ScalingType != "UNIFORM_SCALING" {
		v.add(*in.ScalingType, "scalingType", "satisfy enum value set: [UNIFORM_SCALING]")
	}
	if err := v.err(); err != nil {
		return err
	}
	st, err := s.lookup(in.reference)
	if err != nil {
		return err
	}
	if err := s.inState(st, statusActive); err != nil {
		return err
	}
	current, err := s.rescale(st, int(*in.TargetShardCount))
	if err != nil {
		return err
	}
	return c.answer(struct {
		StreamName, StreamARN               string
		CurrentShardCount, TargetShardCount int
	}{st.name, st.arn, current, int(*in.TargetShardCount)})
}

// rescale changes the number of open shards, at most to twice and at least to
// half of it, and returns what it was.
func (s *Server) rescale(st *stream, target int) (current int, err error) {
	st.mu.RLock()
	current = len(st.open)
	st.mu.RUnlock()
	if target > 2*current {
		return 0, invalid("UpdateShardCount cannot scale up over double your current open shard count. Current open shard count: %d Target shard count: %d", current, target)
	}
	if 2*target < current {
		return 0, invalid("UpdateShardCount cannot scale down below half your current open shard count. Current open shard count: %d Target shard count: %d", current, target)
	}
	if err := s.allow(target - current); err != nil {
		return 0, err
	}
	now := time.Now().UnixMilli()
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := st.covered(); err != nil {
		return 0, err
	}
	if err := st.roomFor(2*target + 2*current); err != nil {
		return 0, err
	}
	st.rescale(target, now)
	s.updating(st, now)
	return current, nil
}

// covered reports a gap in the open shards' ranges, which only
// [Server.CloseShard] makes. The caller holds mu.
func (st *stream) covered() error {
	var lo hash
	for _, sh := range st.open {
		if sh.lo != lo {
			return invalid("Stream %s has hash keys without an open shard, so it cannot be scaled.", st.name)
		}
		lo = sh.hi.next()
	}
	if lo != (hash{}) || len(st.open) == 0 {
		return invalid("Stream %s has hash keys without an open shard, so it cannot be scaled.", st.name)
	}
	return nil
}
