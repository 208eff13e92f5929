package kinesis

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/millstream/millstream/fakes/fault"
)

// Fault describes what goes wrong, and with which calls. A Fault without an
// effect only counts the calls it matches.
type Fault struct {
	// Operation ("GetRecords"), Stream and Shard ("shardId-000000000001")
	// narrow the calls; empty matches all. Shard matches the operations that name
	// one: GetShardIterator, GetRecords (by its iterator), SplitShard, MergeShards
	// and SubscribeToShard.
	Operation, Stream, Shard string

	// Skip lets that many matching calls pass first.
	Skip int

	// Times is how many calls are hit; 0 means 1, negative all until Stop.
	Times int

	// Delay holds the call back before anything else happens. It ends early when
	// the client hangs up.
	Delay time.Duration

	// Code answers with this error and does nothing else, for example
	// ProvisionedThroughputExceeded. Message is optional.
	Code, Message string

	// FailEntries makes a PutRecords call fail in part: the entries (numbered
	// from 0) for which it returns true are not stored and answer with Code
	// (default ProvisionedThroughputExceeded) and Message. The others succeed.
	// It may be called from several goroutines at once.
	FailEntries func(entry int) bool

	// Empty makes a GetRecords call return no records and an iterator for the
	// same place, which the service may do at any time.
	Empty bool

	// LoseReply does the work and then resets the connection without a reply.
	LoseReply bool

	// CutReply does the work and resets the connection after half of the reply.
	CutReply bool
}

// Injection is an armed Fault.
type Injection = fault.Injection

// Inject arms a fault. Faults apply in the order in which they were armed; the first that matches a call
// takes it.
func (s *Server) Inject(f Fault) *Injection {
	return s.faults.Inject(f, fault.Times{Skip: f.Skip, Most: f.Times})
}

// ExpireIterators makes every shard iterator handed out so far answer
// ExpiredIteratorException.
func (s *Server) ExpireIterators() { s.epoch.Add(1) }

// take returns the fault that hits this call, or an empty one.
func (s *Server) take(operation string, body []byte) Fault {
	if !s.faults.Any() {
		return Fault{}
	}
	stream, shards := s.subject(body)
	return s.faults.Take(func(f *Fault) bool {
		return (f.Operation == "" || f.Operation == operation) && (f.Stream == "" || f.Stream == stream) &&
			(f.Shard == "" || slices.Contains(shards[:], f.Shard))
	})
}

// subject returns the stream and shards a request is about.
func (s *Server) subject(body []byte) (stream string, shards [3]string) {
	var r struct {
		StreamName, StreamARN, ConsumerARN                   string
		ShardID                                              string `json:"ShardId"`
		ShardToSplit, ShardToMerge, ShardIterator, NextToken string
	}
	// A malformed body has no subject; the operation reports it.
	_ = json.Unmarshal(body, &r)
	stream = r.StreamName
	if stream == "" && r.StreamARN != "" {
		stream, _ = nameOfARN(r.StreamARN)
	}
	if stream == "" && r.ConsumerARN != "" {
		stream, _ = nameOfARN(r.ConsumerARN)
	}
	shards = [3]string{r.ShardID, r.ShardToSplit, r.ShardToMerge}
	if it, ok := parseIterator(r.ShardIterator); ok {
		shards[0] = shardName(int(it.shard))
		if st := s.streamByID(it.stream); st != nil {
			stream = st.name
		}
	}
	return stream, shards
}
