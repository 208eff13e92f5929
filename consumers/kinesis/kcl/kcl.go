// Package kcl reads where programs built on the Kinesis Client Library (1, 2 and 3) or on
// vmware-go-kcl have stopped: their lease table in DynamoDB.
//
// # The life of a lease
//
// The table has one item a shard. The client library's key is leaseKey, its checkpoint the pair
// checkpoint and checkpointSubSequenceNumber: the last user record that is done. vmware-go-kcl's key is
// ShardID, and its Checkpoint the last Kinesis record, aggregate or not. Before the first record
// checkpoint says where to begin (TRIM_HORIZON, LATEST, AT_TIMESTAMP; vmware-go-kcl has none), and
// after the last one SHARD_END. A lease goes when its shard has been read and its children are begun.
//
// A worker renews its leases all the time, which changes their items: a table that stands still is one
// that nobody works on. Checkpoints that are only prepared (pendingCheckpoint) count for nothing, as
// they do for the library.
package kcl

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	cloud "github.com/millstream/millstream/cloud/aws"
	"github.com/millstream/millstream/consumers/kinesis"
	"github.com/millstream/millstream/stream"
)

// Options says which table to read. Only Table is needed.
type Options struct {
	Table string
	// Region and Endpoint are as in cloud/aws.Options.
	Region, Endpoint string
	// Stream is needed when the table has leases of several: its name.
	Stream string
	// Initial is where the other program begins a shard of which it has no checkpoint:
	// TRIM_HORIZON, LATEST or an RFC 3339 time. It is part of that program's configuration, not of
	// the table, and is asked for when a lease needs it.
	Initial string
	// Now is what LATEST means. Default: the present.
	Now time.Time
	// Client is used instead of one made from Region and Endpoint.
	Client Scanner
}

// Scanner is what is used of the SDK's client.
type Scanner interface {
	Scan(context.Context, *dynamodb.ScanInput, ...func(*dynamodb.Options)) (*dynamodb.ScanOutput, error)
}

// Table is what a lease table said.
type Table struct {
	// Shards are those that have a lease, by name, but for children that were not begun and whose
	// parents are not read to their end yet: Waiting names them. They come by themselves.
	Shards  []stream.RosterRow
	Waiting []string
	// Owners are the workers that hold leases, or held them when they were last heard of.
	Owners []string
	// State changes whenever anybody works on the table.
	State string
}

// lease is one item, in the words of both libraries.
type lease struct {
	shard   string
	stream  string
	parents []string
	owner   string
	place   string // sequence number or sentinel; empty: none
	sub     int64
	whole   bool // place is behind a whole Kinesis record (vmware-go-kcl)
	state   string
}

// Read reads the whole table, with consistent reads.
func Read(ctx context.Context, o Options) (*Table, error) {
	client := o.Client
	where := o.Region
	if client == nil {
		c, err := cloud.Load(ctx, cloud.Options{Region: o.Region, Endpoint: o.Endpoint})
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", o.Table, err)
		}
		client, where = dynamodb.NewFromConfig(c), c.Region
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	var leases []lease
	in := &dynamodb.ScanInput{TableName: &o.Table, ConsistentRead: aws.Bool(true)}
	for {
		out, err := client.Scan(ctx, in)
		if err != nil {
			return nil, explain(o.Table, where, err)
		}
		for _, item := range out.Items {
			l, ok, err := parse(item)
			if err != nil {
				return nil, fmt.Errorf("table %s: %w", o.Table, err)
			}
			if ok {
				leases = append(leases, l)
			}
		}
		if len(out.LastEvaluatedKey) == 0 {
			break
		}
		in.ExclusiveStartKey = out.LastEvaluatedKey
	}
	leases, err := o.ofStream(leases)
	if err != nil {
		return nil, fmt.Errorf("table %s: %w", o.Table, err)
	}
	t, err := o.table(leases)
	if err != nil {
		return nil, fmt.Errorf("table %s: %w", o.Table, err)
	}
	return t, nil
}

func explain(table, region string, err error) error {
	var missing *types.ResourceNotFoundException
	if errors.As(err, &missing) {
		return fmt.Errorf("table %s does not exist in %s: the lease table bears the other program's application name", table, region)
	}
	if told := cloud.Explain(err); told != nil {
		err = told
	}
	return fmt.Errorf("table %s: %w", table, err)
}

// parse reads an item; ok is false for one that is no lease: version 3 keeps other things in the table.
func parse(item map[string]types.AttributeValue) (l lease, ok bool, err error) {
	key := text(item["leaseKey"])
	if key == "" {
		return parseVMware(item)
	}
	if kind := text(item["entityType"]); kind != "" && !strings.EqualFold(kind, "LEASE") {
		return l, false, nil
	}
	l = lease{shard: key, stream: text(item["streamName"]), parents: texts(item["parentShardId"]), owner: text(item["leaseOwner"]), place: text(item["checkpoint"])}
	if name := text(item["shardId"]); name != "" {
		l.shard = name // the key of several streams' leases begins with the stream
	}
	for i, p := range l.parents {
		l.parents[i] = p[strings.LastIndexByte(p, ':')+1:]
	}
	if l.place == "" {
		return l, false, fmt.Errorf("lease %s has no checkpoint: is this a lease table?", key)
	}
	if n := number(item["checkpointSubSequenceNumber"]); n != "" {
		if l.sub, err = strconv.ParseInt(n, 10, 64); err != nil || l.sub < 0 {
			return l, false, fmt.Errorf("lease %s: checkpointSubSequenceNumber %q is no count", key, n)
		}
	}
	l.state = strings.Join([]string{key, l.owner, number(item["leaseCounter"]), l.place, fmt.Sprint(l.sub)}, "|")
	return l, true, nil
}

func parseVMware(item map[string]types.AttributeValue) (l lease, ok bool, err error) {
	key := text(item["ShardID"])
	if key == "" {
		return l, false, fmt.Errorf("an item has neither leaseKey nor ShardID: %s; is this a lease table?", slices.Sorted(maps.Keys(item)))
	}
	l = lease{shard: key, owner: text(item["AssignedTo"]), place: text(item["Checkpoint"]), whole: true}
	if p := text(item["ParentShardId"]); p != "" {
		l.parents = []string{p}
	}
	l.state = strings.Join([]string{key, l.owner, text(item["LeaseTimeout"]), l.place}, "|")
	return l, true, nil
}

func text(v types.AttributeValue) string {
	if s, ok := v.(*types.AttributeValueMemberS); ok {
		return s.Value
	}
	return ""
}

func number(v types.AttributeValue) string {
	if n, ok := v.(*types.AttributeValueMemberN); ok {
		return n.Value
	}
	return ""
}

// texts reads a set, or a single text.
func texts(v types.AttributeValue) []string {
	if s, ok := v.(*types.AttributeValueMemberSS); ok {
		return slices.Sorted(slices.Values(s.Value))
	}
	if s := text(v); s != "" {
		return []string{s}
	}
	return nil
}

// ofStream picks the leases of one stream. A multi-stream lease says account:stream:epoch.
func (o *Options) ofStream(leases []lease) ([]lease, error) {
	found := make(map[string]bool)
	for _, l := range leases {
		found[l.stream] = true
	}
	named := func(id string) bool {
		parts := strings.Split(id, ":")
		return id == o.Stream || len(parts) == 3 && parts[1] == o.Stream
	}
	if o.Stream != "" && !(len(found) == 1 && found[""]) {
		leases = slices.DeleteFunc(leases, func(l lease) bool { return !named(l.stream) })
	} else if len(found) > 1 {
		return nil, fmt.Errorf("it has leases of several streams, %s: add stream=NAME", strings.Join(slices.Sorted(maps.Keys(found)), ", "))
	}
	if len(leases) == 0 {
		return nil, errors.New("it has no leases" + map[bool]string{true: " of stream " + o.Stream}[o.Stream != ""])
	}
	slices.SortFunc(leases, func(a, b lease) int { return strings.Compare(a.shard, b.shard) })
	for i := 1; i < len(leases); i++ {
		if leases[i].shard == leases[i-1].shard {
			return nil, fmt.Errorf("it has two leases of shard %s", leases[i].shard)
		}
	}
	return leases, nil
}

// table turns leases into a roster.
func (o *Options) table(leases []lease) (*Table, error) {
	byName, continued := make(map[string]*lease, len(leases)), make(map[string]bool)
	for i := range leases {
		byName[leases[i].shard] = &leases[i]
		for _, p := range leases[i].parents {
			continued[p] = true
		}
	}
	t := &Table{}
	owners := make(map[string]bool)
	var state strings.Builder
	for i := range leases {
		l := &leases[i]
		state.WriteString(l.state + "\n")
		if l.owner != "" {
			owners[l.owner] = true
		}
		row := stream.RosterRow{Partition: stream.Partition{Name: l.shard, Parents: l.parents}}
		behindParents := slices.ContainsFunc(l.parents, func(p string) bool { return byName[p] != nil && byName[p].place != "SHARD_END" })
		switch at, err := o.place(l); {
		case err != nil:
			return nil, err
		case l.place == "SHARD_END":
			row.Done = true
		case at == kinesis.Oldest() && behindParents && !continued[l.shard]:
			t.Waiting = append(t.Waiting, l.shard)
			continue
		default:
			row.From = at
		}
		t.Shards = append(t.Shards, row)
	}
	t.Owners, t.State = slices.Sorted(maps.Keys(owners)), state.String()
	return t, nil
}

// place is where a lease's shard is to be read from.
func (o *Options) place(l *lease) (stream.Position, error) {
	sentinel := l.place
	switch l.place {
	case "SHARD_END":
		return stream.Position{}, nil
	case "":
		if len(l.parents) > 0 {
			return kinesis.Oldest(), nil // a child is read from its first record, or some are lost
		}
		sentinel = o.Initial
	case "AT_TIMESTAMP":
		sentinel = o.Initial
		if sentinel == "TRIM_HORIZON" || sentinel == "LATEST" {
			return stream.Position{}, fmt.Errorf("lease %s begins at a time: initial=%s is none", l.shard, sentinel)
		}
	}
	switch sentinel {
	case "TRIM_HORIZON":
		return kinesis.Oldest(), nil
	case "LATEST":
		return kinesis.Since(o.Now), nil
	case "":
		return stream.Position{}, fmt.Errorf("shard %s has no checkpoint: add initial=TRIM_HORIZON, LATEST or a time, as the other program is configured (InitialPositionInStream)", l.shard)
	}
	if l.place == "" || l.place == "AT_TIMESTAMP" {
		at, err := time.Parse(time.RFC3339Nano, sentinel)
		if err != nil {
			return stream.Position{}, fmt.Errorf("initial=%s: want TRIM_HORIZON, LATEST or an RFC 3339 time", sentinel)
		}
		return kinesis.Since(at), nil
	}
	if strings.Trim(l.place, "0123456789") != "" {
		return stream.Position{}, fmt.Errorf("shard %s: checkpoint %q is neither a sequence number nor a word that is known", l.shard, l.place)
	}
	if l.whole {
		return stream.Position{Token: l.place}, nil
	}
	return kinesis.Behind(l.place, l.sub), nil
}

// Rest is where shards begin that have no lease, and none above or below them: nothing of them is known
// to be done.
var Rest = kinesis.Oldest()

// Words says for people where a position of this package is.
func Words(p stream.Position) string {
	at, ok := strings.CutPrefix(p.Token, "@")
	switch {
	case ok && at == "":
		return "from its oldest record"
	case ok:
		return "from what has arrived since " + at
	case p.Number == 0:
		return "behind record " + p.Token
	}
	return fmt.Sprintf("behind record %s, user record %d", p.Token, p.Number-1)
}
