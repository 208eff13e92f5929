package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	"github.com/millstream/millstream/fakes/eventhubs"
)

const benchHub = "bench"

// eventhubsBed is a hub whose events stay. Its server is a process as it is, of node.
func eventhubsBed(ctx context.Context, load sourceLoad) (*sourceBed, error) {
	if _, _, err := eventhubs.Runtime(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", errAbsent, err)
	}
	server, err := eventhubs.Start(ctx, eventhubs.Options{})
	if err != nil {
		return nil, err
	}
	if err := fillHub(server, load); err != nil {
		server.Close()
		return nil, err
	}
	return &sourceBed{
		ways:   []sourceWay{{"sdk", "eventhubs://local/" + benchHub + "?endpoint=" + server.Endpoint(), 0.8}},
		drain:  func(ctx context.Context) (int, error) { return drainHub(ctx, server.ConnectionString(), load) },
		refill: func(context.Context) error { return nil },
		close:  server.Close,
	}, nil
}

func fillHub(server *eventhubs.Server, load sourceLoad) error {
	if err := server.CreateHub(benchHub, load.Partitions); err != nil {
		return err
	}
	for i, records := range load.generate().partitions {
		for some := range slices.Chunk(records, 5000) {
			data := make([][]byte, len(some))
			for j, r := range some {
				data[j] = r.Data
			}
			if err := server.Fill(benchHub, strconv.Itoa(i), len(data), data...); err != nil {
				return err
			}
		}
	}
	return nil
}

// drainHub reads every partition to its last event, all at once.
func drainHub(ctx context.Context, connection string, load sourceLoad) (int, error) {
	client, err := azeventhubs.NewConsumerClientFromConnectionString(connection, benchHub, azeventhubs.DefaultConsumerGroup, nil)
	if err != nil {
		return 0, err
	}
	defer client.Close(context.WithoutCancel(ctx))
	var got atomic.Int64
	err = eachOf(ctx, load.Partitions, func(ctx context.Context, i int) error {
		name := strconv.Itoa(i)
		end, err := client.GetPartitionProperties(ctx, name, nil)
		if err != nil || end.IsEmpty {
			return err
		}
		p, err := client.NewPartitionClient(name, &azeventhubs.PartitionClientOptions{StartPosition: azeventhubs.StartPosition{Earliest: to.Ptr(true)}})
		if err != nil {
			return err
		}
		defer p.Close(context.WithoutCancel(ctx))
		// ReceiveEvents waits until as many have come as it is asked for.
		for left := end.LastEnqueuedSequenceNumber - end.BeginningSequenceNumber + 1; left > 0; {
			events, err := p.ReceiveEvents(ctx, int(min(left, 1000)), nil)
			if err != nil {
				return err
			}
			got.Add(int64(len(events)))
			left -= int64(len(events))
		}
		return nil
	})
	return int(got.Load()), err
}
