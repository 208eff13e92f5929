package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/millstream/millstream/fakes/eventhubs"
	"github.com/millstream/millstream/fakes/kinesis"
	"github.com/millstream/millstream/service"
)

// click is a record to be put on the demo's stream.
type click struct {
	number int // 1, 2, …
	data   []byte
}

// arrival is a record as it stands on the stream.
type arrival struct {
	data []byte
	at   time.Time
}

// demoSource is a service on loopback that the demo's worker reads.
type demoSource struct {
	name string // with its article
	url  string // for --source
	rate int    // clicks a second
	note string // what is to be known about it, a line
	any  bool   // records come in any order: none may depend on it
	// put appends clicks, and does not keep their bytes.
	put func([]click) error
	// records returns all that was put, by partition, in order.
	records   func() (map[string][]arrival, error)
	partition func(string) string // a partition's name for people
	close     func() error
}

// bound is how much records may be disordered. Where they come in any order it is generous: streams and
// redeliveries overtake each other.
func (s *demoSource) bound() time.Duration {
	if s.any {
		return 5 * demoBound
	}
	return demoBound
}

const (
	demoStream     = "clicks"
	demoPartitions = 4
)

// startDemoSource starts what --source names.
func startDemoSource(ctx context.Context, kind string) (*demoSource, error) {
	switch kind {
	case "kinesis":
		return demoKinesis()
	case "eventhubs":
		return demoEventHubs(ctx)
	case "pubsub":
		return demoPubSub()
	}
	return nil, &service.SettingError{Setting: "--source", Problem: kind + ": the demo has kinesis, pubsub and eventhubs"}
}

// demoKinesis is in this process.
func demoKinesis() (*demoSource, error) {
	server := kinesis.New(kinesis.Options{})
	endpoint, err := server.Start()
	if err == nil {
		err = server.CreateStream(demoStream, demoPartitions)
	}
	if err != nil {
		return nil, errors.Join(err, server.Close())
	}
	return &demoSource{
		name: "An embedded Kinesis",
		url:  "kinesis://" + demoStream + "?region=us-east-1&endpoint=" + endpoint,
		rate: 20_000,
		put: func(clicks []click) error {
			batch := make([]kinesis.Record, len(clicks))
			for i, c := range clicks {
				batch[i] = kinesis.Record{PartitionKey: strconv.Itoa(c.number), Data: c.data}
			}
			if err := server.PutBatch(demoStream, batch); err != nil {
				return fmt.Errorf("embedded Kinesis: %w", err)
			}
			return nil
		},
		records: func() (map[string][]arrival, error) {
			records, err := server.Records(demoStream)
			shards := make(map[string][]arrival)
			for _, r := range records {
				shards[r.ShardID] = append(shards[r.ShardID], arrival{r.Data, r.ArrivedAt})
			}
			return shards, err
		},
		partition: func(name string) string { return strings.Replace(name, "shardId-00000000000", "shard ", 1) },
		close:     server.Close,
	}, nil
}

// demoEventHubs is a process of node, since Event Hubs speaks AMQP 1.0. It has fewer clicks: node and the
// official client spend the processor that the worker needs.
func demoEventHubs(ctx context.Context) (*demoSource, error) {
	server, err := eventhubs.Start(ctx, eventhubs.Options{Log: os.Stderr})
	if err != nil {
		return nil, fmt.Errorf("--source eventhubs: %w (without --source the demo needs nothing)", err)
	}
	if err := server.CreateHub(demoStream, demoPartitions); err != nil {
		return nil, errors.Join(err, server.Close())
	}
	return &demoSource{
		name: "A stand-in for Event Hubs",
		url:  "eventhubs://demo/" + demoStream + "?endpoint=" + server.Endpoint(),
		rate: 10_000,
		put: func(clicks []click) error {
			var of [demoPartitions][][]byte
			for _, c := range clicks {
				of[c.number%demoPartitions] = append(of[c.number%demoPartitions], c.data)
			}
			for i, data := range of {
				if len(data) == 0 {
					continue
				}
				if err := server.Publish(demoStream, strconv.Itoa(i), "", data...); err != nil {
					return err
				}
			}
			return nil
		},
		records: func() (map[string][]arrival, error) {
			partitions := make(map[string][]arrival, demoPartitions)
			for i := range demoPartitions {
				name := strconv.Itoa(i)
				events, err := server.Events(demoStream, name)
				if err != nil {
					return nil, err
				}
				for _, e := range events {
					partitions[name] = append(partitions[name], arrival{e.Data, e.Enqueued})
				}
			}
			return partitions, nil
		},
		partition: func(name string) string { return "partition " + name },
		close:     server.Close,
	}, nil
}
