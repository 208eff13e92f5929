package main

import (
	"context"
	"fmt"
	"math/big"
	"sync/atomic"

	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	cloud "github.com/millstream/millstream/cloud/aws"
	fake "github.com/millstream/millstream/fakes/kinesis"
)

const benchStream = "bench"

// kinesisBed is a stream whose records stay.
func kinesisBed(ctx context.Context, load sourceLoad) (*sourceBed, error) {
	server, err := startServer(ctx, load)
	if err != nil {
		return nil, err
	}
	url := "kinesis://" + benchStream + "?endpoint=" + server.endpoint
	return &sourceBed{
		ways:   []sourceWay{{"own", url, 3}, {"sdk", url + "&client=sdk", 0.8}},
		drain:  func(ctx context.Context) (int, error) { return drainKinesis(ctx, server.endpoint) },
		refill: func(context.Context) error { return nil },
		close:  server.close,
	}, nil
}

// serveKinesis puts each partition's records into a shard of its own.
func serveKinesis(load sourceLoad) (endpoint string, do func(string) error, err error) {
	server := fake.New(fake.Options{MaxBytes: int64(load.Events)*2*ysbSize + 64<<20})
	if err := server.CreateStream(benchStream, load.Partitions); err != nil {
		return "", nil, err
	}
	for i, records := range load.generate().partitions {
		width := new(big.Int).Div(new(big.Int).Lsh(big.NewInt(1), 128), big.NewInt(int64(load.Partitions)))
		within := new(big.Int).Mul(width, big.NewInt(int64(i)))
		batch := make([]fake.Record, len(records))
		for j, r := range records {
			batch[j] = fake.Record{PartitionKey: fmt.Sprint("user-", j%1000), Data: r.Data, ExplicitHashKey: within.String()}
		}
		if err := server.PutBatch(benchStream, batch); err != nil {
			return "", nil, err
		}
	}
	endpoint, err = server.Start()
	return endpoint, func(string) error { return nil }, err
}

// drainKinesis polls every shard to its end, all at once.
func drainKinesis(ctx context.Context, endpoint string) (int, error) {
	config, err := cloud.Load(ctx, cloud.Options{Endpoint: endpoint})
	if err != nil {
		return 0, err
	}
	client := awskinesis.NewFromConfig(config)
	name := benchStream
	shards, err := client.ListShards(ctx, &awskinesis.ListShardsInput{StreamName: &name})
	if err != nil {
		return 0, err
	}
	var got atomic.Int64
	err = eachOf(ctx, len(shards.Shards), func(ctx context.Context, i int) error {
		at, err := client.GetShardIterator(ctx, &awskinesis.GetShardIteratorInput{StreamName: &name, ShardId: shards.Shards[i].ShardId, ShardIteratorType: types.ShardIteratorTypeTrimHorizon})
		if err != nil {
			return err
		}
		for iterator := at.ShardIterator; ; {
			out, err := client.GetRecords(ctx, &awskinesis.GetRecordsInput{ShardIterator: iterator})
			if err != nil {
				return err
			}
			got.Add(int64(len(out.Records)))
			if *out.MillisBehindLatest == 0 {
				return nil
			}
			iterator = out.NextShardIterator
		}
	})
	return int(got.Load()), err
}
