package kinesis

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	cloud "github.com/millstream/millstream/cloud/aws"
	"github.com/millstream/millstream/cloud/retry"
	"github.com/millstream/millstream/stream"
)

// shard is what the listing says of one.
type shard struct {
	partition stream.Partition
	hashes    cloud.HashRange
}

// Partitions lists every shard that the service has, closed ones included until their last record
// has expired. A shard names its parents even when they have expired themselves.
func (s *Source) Partitions(ctx context.Context) ([]stream.Partition, error) {
	shards, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	ps := make([]stream.Partition, 0, len(shards))
	for _, sh := range shards {
		ps = append(ps, sh.partition)
	}
	slices.SortFunc(ps, byName)
	return ps, nil
}

func byName(a, b stream.Partition) int { return strings.Compare(a.Name, b.Name) }

// list reads all pages of ListShards and remembers what they say.
func (s *Source) list(ctx context.Context) (map[string]shard, error) {
	shards := make(map[string]shard)
	seen := make(map[string]bool)
	in := &awskinesis.ListShardsInput{StreamARN: s.stream.ARN, StreamName: s.stream.NameOnly()}
	for {
		out, err := control(ctx, s, "ListShards", func(ctx context.Context) (*awskinesis.ListShardsOutput, error) {
			return s.api.ListShards(ctx, in, once)
		})
		if err != nil {
			return nil, err
		}
		for i := range out.Shards {
			sh, err := parseShard(&out.Shards[i])
			if err != nil {
				return nil, fmt.Errorf("kinesis: stream %s: ListShards: %w", s.stream.Name, err)
			}
			shards[sh.partition.Name] = sh
		}
		token := aws.ToString(out.NextToken)
		if token == "" {
			break
		}
		if seen[token] {
			return nil, fmt.Errorf("kinesis: stream %s: ListShards: the same page again and again", s.stream.Name)
		}
		seen[token] = true
		in = &awskinesis.ListShardsInput{NextToken: &token} // which says what the stream is
	}
	s.mu.Lock()
	s.shards = shards
	s.mu.Unlock()
	return shards, nil
}

func parseShard(sh *types.Shard) (shard, error) {
	p := stream.Partition{Name: aws.ToString(sh.ShardId)}
	if p.Name == "" {
		return shard{}, fmt.Errorf("a shard without a name")
	}
	for _, parent := range []*string{sh.ParentShardId, sh.AdjacentParentShardId} {
		if name := aws.ToString(parent); name != "" {
			p.Parents = append(p.Parents, name)
		}
	}
	r, err := cloud.ParseHashRange(sh.HashKeyRange)
	if err != nil {
		return shard{}, fmt.Errorf("shard %s: %w", p.Name, err)
	}
	return shard{p, r}, nil
}

// shard returns a shard by name, listing again when it is not known yet.
func (s *Source) shard(ctx context.Context, name string) (shard, error) {
	s.mu.Lock()
	sh, ok := s.shards[name]
	s.mu.Unlock()
	if ok {
		return sh, nil
	}
	shards, err := s.list(ctx)
	if err != nil {
		return shard{}, err
	}
	if sh, ok = shards[name]; !ok {
		return shard{}, fmt.Errorf("%s: %w", s.subject(name), stream.ErrPartitionGone)
	}
	return sh, nil
}

// childLookups is how often a closed shard's children are looked for. A reshard lists them before it
// closes the parent, so the first look finds them; a listing may be a moment old.
const childLookups = 4

// children returns the partitions that continue a closed shard, with all parents of each. told is
// what the last reply of GetRecords said; servers that stand in for the service may leave it out, or
// name the children without their parents, and then the listing is asked.
func (s *Source) children(ctx context.Context, parent string, told []types.ChildShard) ([]stream.Partition, error) {
	var ps []stream.Partition
	complete := len(told) > 0
	for _, c := range told {
		p := stream.Partition{Name: aws.ToString(c.ShardId), Parents: c.ParentShards}
		complete = complete && p.Name != "" && slices.Contains(p.Parents, parent)
		ps = append(ps, p)
	}
	if complete {
		return ps, nil
	}
	for n := 1; ; n++ {
		shards, err := s.list(ctx)
		if err != nil {
			return nil, err
		}
		ps = ps[:0]
		for _, sh := range shards {
			if slices.Contains(sh.partition.Parents, parent) {
				ps = append(ps, sh.partition)
			}
		}
		if len(ps) > 0 {
			slices.SortFunc(ps, byName)
			return ps, nil
		}
		if n == childLookups {
			s.logger.Warn("a closed shard has no children: is the stream being deleted?", "stream", s.stream.Name, "shard", parent)
			return nil, nil
		}
		if err := retry.Sleep(ctx, retry.Backoff(n)); err != nil {
			return nil, err
		}
	}
}
