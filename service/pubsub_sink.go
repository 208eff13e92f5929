package service

import (
	"context"
	"log/slog"
	"strings"

	pubsubsink "github.com/millstream/millstream/sinks/pubsub"
)

// openPubSubSink opens pubsub://PROJECT/TOPIC?endpoint=&ordering=true|false&partition-key=FIELD as a sink or a dead letter.
func openPubSubSink(ctx context.Context, l location, logger *slog.Logger) (openedSink, error) {
	if err := l.only("endpoint", "ordering", "partition-key"); err != nil {
		return openedSink{}, err
	}
	project, topic, _ := strings.Cut(l.rest, "/")
	if project == "" || topic == "" {
		return openedSink{}, settingf(l.setting, "%s: names no topic: want pubsub://PROJECT/TOPIC", l.raw)
	}
	o := pubsubsink.Options{Project: project, Topic: topic, Endpoint: l.params.Get("endpoint"), Logger: logger}
	var err error
	if o.Ordering, err = l.truth("ordering", l.params.Has("partition-key")); err != nil {
		return openedSink{}, err
	}
	if !o.Ordering && l.params.Has("partition-key") {
		return openedSink{}, settingf(l.setting, "%s: partition-key= is the ordering key, and ordering=false leaves that out: drop one of them", l.raw)
	}
	starting, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	sink, err := pubsubsink.New(starting, o)
	if err != nil {
		return openedSink{}, unusable(l.setting, err, "%v")
	}
	return openedSink{l.keyed(sink), sink.Close}, nil
}
