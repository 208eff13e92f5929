package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	gcppubsub "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awsfirehose "github.com/aws/aws-sdk-go-v2/service/firehose"
	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/klauspost/compress/gzip"
	"github.com/parquet-go/parquet-go"

	cloud "github.com/millstream/millstream/cloud/aws"
	fakefirehose "github.com/millstream/millstream/fakes/firehose"
	fakekinesis "github.com/millstream/millstream/fakes/kinesis"
	fakepubsub "github.com/millstream/millstream/fakes/pubsub"
	sinkbigquery "github.com/millstream/millstream/sinks/bigquery"
	"github.com/millstream/millstream/sinks/blob"
	"github.com/millstream/millstream/sinks/firehose"
	"github.com/millstream/millstream/sinks/kinesis"
	"github.com/millstream/millstream/sinks/pubsub"
	"github.com/millstream/millstream/stream"
)

// sinkBed is a sink over a service of our own that counts what the real one bills. Prices are those of
// us-east-1 in November 2026, without what is paid by the hour.
type sinkBed struct {
	name  string
	unit  string
	price float64 // dollars a unit
	says  string
	open  func(ctx context.Context) (stream.Sink, func() (usage, error), error)
	live  func(context.Context, sinkPlan) (*sinkResult, error) // instead of open, in real time
}

const (
	kinesisUnit = 25 << 10
	kinesisSays = "$0.014 a million PUT payload units of 25 KB (https://aws.amazon.com/kinesis/data-streams/pricing/)"
	firehoseSay = "$0.029 a GB, each record rounded up to 5 KB (https://aws.amazon.com/firehose/pricing/)"
	pubsubSays  = "$40 a TiB published, at least 1,000 bytes a request (https://cloud.google.com/pubsub/pricing)"
	blobSays    = "$0.005 a thousand PUT requests (https://aws.amazon.com/s3/pricing/)"
)

var sinkBeds = []sinkBed{
	{"kinesis", "25 KB", 0.014 / 1e6, kinesisSays, kinesisSink(kinesis.Options{}), nil},
	{"kinesis aggregate=false", "25 KB", 0.014 / 1e6, kinesisSays, kinesisSink(kinesis.Options{Plain: true}), nil},
	{"firehose", "GB", 0.029, firehoseSay, firehoseSink(0), nil},
	{"firehose pack=5KiB", "GB", 0.029, firehoseSay, firehoseSink(5 << 10), nil},
	{"firehose pack=off", "GB", 0.029, firehoseSay, firehoseSink(firehose.Off), nil},
	{"pubsub", "GiB", 40.0 / 1024, pubsubSays, pubsubSink, nil},
	{"eventhubs", "event", 0, "", nil, eventhubsSink},
	{"bigquery write=append", "GB", 0, "", nil, bigquerySink(sinkbigquery.Append)},
	{"bigquery write=upsert", "GB", 0, "", nil, bigquerySink(sinkbigquery.Upsert)},
	{"s3", "PUT", 0.005 / 1e3, blobSays, blobSink(blob.Options{}), nil},
	{"s3 compression=gzip", "PUT", 0.005 / 1e3, blobSays, blobSink(blob.Options{Compression: "gzip"}), nil},
	{"s3 format=parquet", "PUT", 0.005 / 1e3, blobSays, blobSink(blob.Options{Format: "parquet"}), nil},
	{"s3 roll=1m", "PUT", 0.005 / 1e3, blobSays, blobSink(blob.Options{Roll: time.Minute}), nil},
}

// awsConfig are a client's settings for a service in this process.
func awsConfig(web *http.Client) (region string, endpoint *string, h aws.HTTPClient, c aws.CredentialsProvider) {
	return "us-east-1", aws.String("http://127.0.0.1"), cloud.Steady(web), credentials.NewStaticCredentialsProvider("any", "any", "")
}

var quiet = slog.New(slog.DiscardHandler)

func kinesisSink(o kinesis.Options) func(context.Context) (stream.Sink, func() (usage, error), error) {
	return func(ctx context.Context) (stream.Sink, func() (usage, error), error) {
		server := fakekinesis.New(fakekinesis.Options{MaxBytes: 8 << 30})
		if err := server.CreateStream("rows", 10); err != nil {
			return nil, nil, err
		}
		web := server.Client()
		var c awskinesis.Options
		c.Region, c.BaseEndpoint, c.HTTPClient, c.Credentials = awsConfig(web)
		o.Stream, o.Client, o.Logger = "rows", awskinesis.New(c), quiet
		sink, err := kinesis.New(ctx, o)
		return sink, func() (usage, error) {
			u := usage{calls: sink.Counters().Requests}
			records, err := server.Records("rows")
			if err != nil {
				return u, err
			}
			for _, r := range records {
				size := len(r.Data) + len(r.PartitionKey)
				u.bytes += int64(size)
				u.units += float64((size + kinesisUnit - 1) / kinesisUnit)
			}
			users, err := server.UserRecords("rows")
			u.rows = int64(len(users))
			web.CloseIdleConnections()
			return u, errors.Join(err, server.Close())
		}, err
	}
}

func firehoseSink(pack int) func(context.Context) (stream.Sink, func() (usage, error), error) {
	return func(ctx context.Context) (stream.Sink, func() (usage, error), error) {
		server := fakefirehose.New(fakefirehose.Options{})
		if err := server.CreateDeliveryStream("rows"); err != nil {
			return nil, nil, err
		}
		var c awsfirehose.Options
		c.Region, c.BaseEndpoint, c.HTTPClient, c.Credentials = awsConfig(server.Client())
		sink, err := firehose.New(ctx, firehose.Options{Stream: "rows", Client: awsfirehose.New(c), Pack: pack, Logger: quiet})
		return sink, func() (usage, error) {
			stats := server.Stats("rows")
			u := usage{calls: stats.Calls, bytes: stats.Bytes, units: float64(stats.BilledBytes) / 1e9}
			for _, r := range server.Records("rows") {
				u.rows += int64(bytes.Count(r, []byte("\n")))
			}
			return u, server.Close()
		}, err
	}
}

func pubsubSink(ctx context.Context) (stream.Sink, func() (usage, error), error) {
	const topic, reader = "projects/p/topics/rows", "projects/p/subscriptions/rows"
	server := fakepubsub.New(fakepubsub.Options{MaxBytes: 8 << 30})
	if err := errors.Join(server.CreateTopic(topic), server.CreateSubscription(&pubsubpb.Subscription{Name: reader, Topic: topic})); err != nil {
		return nil, nil, err
	}
	client, err := gcppubsub.NewClient(ctx, "p", server.ClientOptions()...)
	if err != nil {
		return nil, nil, err
	}
	sink, err := pubsub.New(ctx, pubsub.Options{Project: "p", Topic: topic, Client: client, Logger: quiet})
	return sink, func() (usage, error) {
		messages, err := server.Messages(reader)
		u := usage{rows: int64(len(messages)), calls: sink.Counters().Requests}
		for _, m := range messages {
			u.bytes += int64(len(m.Data))
			for name, value := range m.Attributes {
				u.bytes += int64(len(name) + len(value))
			}
		}
		u.units = float64(max(u.bytes, 1000*u.calls)) / (1 << 30)
		err = errors.Join(err, client.Close())
		server.Close()
		return u, err
	}, err
}

func blobSink(o blob.Options) func(context.Context) (stream.Sink, func() (usage, error), error) {
	return func(ctx context.Context) (stream.Sink, func() (usage, error), error) {
		store := newWires(newShelves())
		sink, err := blob.Open(store, "rows/", o)
		return sink, func() (usage, error) { return blobUsage(ctx, store) }, err
	}
}

// blobUsage counts requests, and the rows in the files.
func blobUsage(ctx context.Context, store *wires) (usage, error) {
	var u usage
	for what, n := range store.counted() {
		u.calls += n
		if strings.HasPrefix(what, "PUT") {
			u.units += float64(n)
		}
	}
	names, err := store.shelves.List(ctx, "rows/")
	for _, name := range names {
		data, err := store.shelves.Get(ctx, name)
		if err != nil {
			return u, fmt.Errorf("%s: %w", name, err)
		}
		u.bytes += int64(len(data))
		rows, err := rowsIn(name, data)
		if err != nil {
			return u, fmt.Errorf("%s: %w", name, err)
		}
		u.rows += rows
	}
	return u, err
}

// rowsIn counts the rows of a file.
func rowsIn(name string, data []byte) (int64, error) {
	switch {
	case strings.HasSuffix(name, ".parquet"):
		f, err := parquet.OpenFile(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return 0, err
		}
		return f.NumRows(), nil
	case strings.HasSuffix(name, ".gz"):
		z, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return 0, err
		}
		if data, err = io.ReadAll(z); err != nil {
			return 0, err
		}
	}
	return int64(bytes.Count(data, []byte("\n"))), nil
}
