package service

import (
	"context"
	"log/slog"

	kinesissink "github.com/millstream/millstream/sinks/kinesis"
)

// openKinesisSink opens kinesis://STREAM-OR-ARN?region=&endpoint=&aggregate=true|false&partition-key=FIELD as
// a sink or a dead letter.
func openKinesisSink(ctx context.Context, l location, logger *slog.Logger) (openedSink, error) {
	if err := l.only("region", "endpoint", "aggregate", "partition-key"); err != nil {
		return openedSink{}, err
	}
	aggregate, err := l.truth("aggregate", true)
	if err != nil {
		return openedSink{}, err
	}
	sink, err := kinesissink.New(ctx, kinesissink.Options{Stream: l.rest, Region: l.params.Get("region"), Endpoint: l.params.Get("endpoint"), Plain: !aggregate, Logger: logger})
	if err != nil {
		return openedSink{}, unusable(l.setting, err, "%v")
	}
	return openedSink{l.keyed(sink), nil}, nil
}
