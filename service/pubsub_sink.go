package service

import (
	"context"
	"log/slog"
	"strings"

	pubsubsink "github.com/millstream/millstream/sinks/pubsub"
)

// openPubSubSink opens pubsub://PROJECT/TOPIC?endpoint=&ordering=true|false as a sink or a dead letter.
func openPubSubSink(ctx context.Context, l location, logger *slog.Logger) (openedSink, error) {
	if err := l.only("endpoint", "ordering"); err != nil {
		return openedSink{}, err
	}
	project, topic, _ := strings.Cut(l.rest, "/")
	if project == "" || topic == "" {
		return openedSink{}, settingf(l.setting, "%s: names no topic: want pubsub://PROJECT/TOPIC", l.raw)
	}
	o := pubsubsink.Options{Project: project, Topic: topic, Endpoint: l.params.Get("endpoint"), Logger: logger}
	switch ordering := l.params.Get("ordering"); ordering {
	case "true":
		o.Ordering = true
	case "", "false":
	default:
		return openedSink{}, settingf(l.setting, "%s: ordering=%s: want true or false", l.raw, ordering)
	}
	starting, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	sink, err := pubsubsink.New(starting, o)
	if err != nil {
		return openedSink{}, unusable(l.setting, err, "%v")
	}
	return openedSink{sink, sink.Close}, nil
}
