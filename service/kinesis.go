package service

import (
	"context"
	"log/slog"
	"time"

	"github.com/millstream/millstream/consumers/kinesis"
)

// openKinesis opens kinesis://STREAM-OR-ARN?region=&endpoint=&start=&consumer=&client=.
func openKinesis(ctx context.Context, l location, s *Settings, logger *slog.Logger) (openedSource, error) {
	if err := l.only("region", "endpoint", "start", "consumer", "client"); err != nil {
		return openedSource{}, err
	}
	o := kinesis.Options{Stream: l.rest, Region: l.params.Get("region"), Endpoint: l.params.Get("endpoint"),
		Start: l.params.Get("start"), Consumer: l.params.Get("consumer"), UntilEnd: s.UntilEnd, Logger: logger}
	if l.params.Has("consumer") && o.Consumer == "" {
		return openedSource{}, settingf(l.setting, "%s: consumer= names no consumer: leave it out to poll", l.raw)
	}
	switch client := l.params.Get("client"); client {
	case "", "own":
	case "sdk":
		o.SDKDecoder = true
	default:
		return openedSource{}, settingf(l.setting, "%s: client=%s: it is own (the default) or sdk, which leaves the decoding of records to the SDK", l.raw, client)
	}
	within := startWithin
	if o.Consumer != "" {
		within += kinesis.CreatingPatience // of one that was registered a moment ago
	}
	starting, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	src, err := kinesis.New(starting, o)
	if err != nil {
		return openedSource{}, unusable(l.setting, err, "%v")
	}
	return openedSource{Source: src, network: true, outOfOrder: 5 * time.Second}, nil
}

// kinesisAccess lists the permissions that reading needs.
func kinesisAccess(l location) []string {
	name := l.params.Get("consumer")
	if name == "" {
		return []string{"kinesis:ListShards, kinesis:GetShardIterator, kinesis:GetRecords on stream " + l.rest}
	}
	return []string{
		"kinesis:ListShards, kinesis:DescribeStreamSummary on stream " + l.rest,
		"kinesis:DescribeStreamConsumer, kinesis:SubscribeToShard on consumer " + name + " of stream " + l.rest,
	}
}
