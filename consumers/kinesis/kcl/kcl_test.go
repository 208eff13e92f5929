package kcl

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

type item = map[string]types.AttributeValue

func s(v string) types.AttributeValue { return &types.AttributeValueMemberS{Value: v} }
func n(v int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: fmt.Sprint(v)}
}
func ss(v ...string) types.AttributeValue { return &types.AttributeValueMemberSS{Value: v} }

// kclLease is an item as DynamoDBLeaseSerializer of amazon-kinesis-client writes it.
func kclLease(shard, checkpoint string, sub int64, parents ...string) item {
	i := item{"leaseKey": s(shard), "leaseCounter": n(42), "leaseOwner": s("worker-1"), "ownerSwitchesSinceCheckpoint": n(0),
		"checkpoint": s(checkpoint), "checkpointSubSequenceNumber": n(sub)}
	if len(parents) > 0 {
		i["parentShardId"] = ss(parents...)
	}
	return i
}

// vmwareLease is an item as vmware-go-kcl's DynamoCheckpoint writes it.
func vmwareLease(shard, checkpoint, parent string) item {
	i := item{"ShardID": s(shard), "AssignedTo": s("worker-1"), "LeaseTimeout": s("2026-01-02T03:04:05Z")}
	if checkpoint != "" {
		i["Checkpoint"] = s(checkpoint)
	}
	if parent != "" {
		i["ParentShardId"] = s(parent)
	}
	return i
}

func with(i item, more item) item {
	for k, v := range more {
		i[k] = v
	}
	return i
}

// pages serves a table, two items a page.
type pages []item

func (p pages) Scan(_ context.Context, in *dynamodb.ScanInput, _ ...func(*dynamodb.Options)) (*dynamodb.ScanOutput, error) {
	if !aws.ToBool(in.ConsistentRead) {
		return nil, fmt.Errorf("an inconsistent read")
	}
	from := 0
	if k := in.ExclusiveStartKey; k != nil {
		fmt.Sscan(text(k["page"]), &from)
	}
	to := min(from+2, len(p))
	out := &dynamodb.ScanOutput{Items: p[from:to]}
	if to < len(p) {
		out.LastEvaluatedKey = item{"page": s(fmt.Sprint(to))}
	}
	return out, nil
}

func show(t *Table) string {
	var lines []string
	for _, r := range t.Shards {
		at := r.From.String()
		if r.Done {
			at = "done"
		}
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s %s", r.Name, at, strings.Join(r.Parents, ","))))
	}
	for _, w := range t.Waiting {
		lines = append(lines, w+" waits")
	}
	return strings.Join(lines, "\n")
}

var now = time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)

func TestRead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		items pages
		o     Options
		want  string
	}{
		{"KCL: every kind of checkpoint, across pages", pages{kclLease("a", "49", 0), kclLease("b", "50", 3), kclLease("c", "SHARD_END", 0),
			kclLease("d", "TRIM_HORIZON", 0), kclLease("e", "LATEST", 0)}, Options{},
			"a 49/1\nb 50/4\nc done\nd @\ne @2026-05-06T07:08:09.000Z"},
		{"a child waits for a parent that is being read", pages{kclLease("p", "49", 0), kclLease("c", "TRIM_HORIZON", 0, "p")}, Options{}, "p 49/1\nc waits"},
		{"a child whose parents are read begins", pages{kclLease("p", "SHARD_END", 0), kclLease("q", "SHARD_END", 0), kclLease("c", "TRIM_HORIZON", 0, "q", "p")}, Options{},
			"c @ p,q\np done\nq done"},
		{"a child whose parents' leases are gone begins", pages{kclLease("c", "TRIM_HORIZON", 0, "p")}, Options{}, "c @ p"},
		{"a child that was begun goes on beside its parent", pages{kclLease("p", "49", 0), kclLease("c", "51", 0, "p")}, Options{}, "c 51/1 p\np 49/1"},
		{"a waiting child that is continued must not pass for read", pages{kclLease("p", "49", 0), kclLease("c", "TRIM_HORIZON", 0, "p"), kclLease("d", "52", 0, "c")}, Options{},
			"c @ p\nd 52/1 c\np 49/1"},
		{"prepared checkpoints count for nothing", pages{with(kclLease("a", "49", 0), item{"pendingCheckpoint": s("60"), "pendingCheckpointSubSequenceNumber": n(1)})}, Options{}, "a 49/1"},
		{"KCL 3: what is no lease", pages{with(kclLease("a", "49", 0), item{"throughputKBps": n(3), "entityType": s("LEASE")}),
			{"leaseKey": s("Migration3.0"), "entityType": s("CLIENT_VERSION_MIGRATION")}}, Options{}, "a 49/1"},
		{"at a time", pages{kclLease("a", "AT_TIMESTAMP", 0)}, Options{Initial: "2026-01-02T03:04:05Z"}, "a @2026-01-02T03:04:05.000Z"},
		{"several streams", pages{
			with(kclLease("1:s:9:shard-0", "49", 0, "shard-x"), item{"streamName": s("1:s:9"), "shardId": s("shard-0")}),
			with(kclLease("1:r:9:shard-0", "50", 0), item{"streamName": s("1:r:9"), "shardId": s("shard-0")})}, Options{Stream: "s"}, "shard-0 49/1 shard-x"},
		{"a stream's name where leases have none", pages{kclLease("a", "49", 0)}, Options{Stream: "s"}, "a 49/1"},
		{"vmware-go-kcl", pages{vmwareLease("a", "49", ""), vmwareLease("b", "SHARD_END", "a"), vmwareLease("c", "", "b"), vmwareLease("d", "", "a")}, Options{},
			"a 49\nb done a\nc @ b\nd waits"},
		{"vmware-go-kcl without a checkpoint", pages{vmwareLease("a", "", "")}, Options{Initial: "LATEST"}, "a @2026-05-06T07:08:09.000Z"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.o.Table, c.o.Client, c.o.Now = "t", c.items, now
			got, err := Read(t.Context(), c.o)
			if err != nil {
				t.Fatal(err)
			}
			if show(got) != c.want {
				t.Errorf("got\n%s\nwant\n%s", show(got), c.want)
			}
		})
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		items pages
		o     Options
		want  string
	}{
		{"empty", nil, Options{}, "no leases"},
		{"another table", pages{{"id": s("x")}}, Options{}, "neither leaseKey nor ShardID"},
		{"no checkpoint", pages{{"leaseKey": s("a")}}, Options{}, "lease a has no checkpoint"},
		{"an unknown word", pages{kclLease("a", "SOMEWHERE", 0)}, Options{}, `"SOMEWHERE"`},
		{"a time is not in the table", pages{kclLease("a", "AT_TIMESTAMP", 0)}, Options{}, "add initial="},
		{"a time that is none", pages{kclLease("a", "AT_TIMESTAMP", 0)}, Options{Initial: "LATEST"}, "initial=LATEST is none"},
		{"an initial that is none", pages{vmwareLease("a", "", "")}, Options{Initial: "soon"}, "initial=soon"},
		{"a negative sub-sequence", pages{kclLease("a", "49", -1)}, Options{}, "is no count"},
		{"twins", pages{kclLease("a", "49", 0), kclLease("a", "50", 0)}, Options{}, "two leases of shard a"},
		{"several streams", pages{with(kclLease("x", "1", 0), item{"streamName": s("1:s:9"), "shardId": s("a")}), with(kclLease("y", "1", 0), item{"streamName": s("1:r:9"), "shardId": s("a")})},
			Options{}, "1:r:9, 1:s:9: add stream=NAME"},
		{"none of the stream", pages{with(kclLease("x", "1", 0), item{"streamName": s("1:s:9"), "shardId": s("a")})}, Options{Stream: "q"}, "no leases of stream q"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.o.Table, c.o.Client = "t", c.items
			if _, err := Read(t.Context(), c.o); err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "table t") {
				t.Errorf("says %v, want %q", err, c.want)
			}
		})
	}
}

// A renewed lease changes the table's state, whatever its checkpoint.
func TestState(t *testing.T) {
	t.Parallel()
	read := func(items ...item) string {
		t.Helper()
		table, err := Read(t.Context(), Options{Table: "t", Client: pages(items)})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(table.Owners, []string{"worker-1"}) {
			t.Errorf("owners are %q", table.Owners)
		}
		return table.State
	}
	if read(kclLease("a", "49", 0), kclLease("b", "49", 0)) != read(kclLease("b", "49", 0), kclLease("a", "49", 0)) {
		t.Error("the order of items is part of the state")
	}
	for _, pair := range [][2]item{
		{kclLease("a", "49", 0), with(kclLease("a", "49", 0), item{"leaseCounter": n(43)})},
		{kclLease("a", "49", 0), kclLease("a", "49", 1)},
		{vmwareLease("a", "49", ""), with(vmwareLease("a", "49", ""), item{"LeaseTimeout": s("2026-01-02T03:04:15Z")})},
	} {
		if read(pair[0]) == read(pair[1]) {
			t.Errorf("%v and %v are the same state", pair[0], pair[1])
		}
	}
}
