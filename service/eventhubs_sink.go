package service

import (
	"context"
	"log/slog"
	"strings"

	eventhubssink "github.com/millstream/millstream/sinks/eventhubs"
)

// openEventHubsSink opens eventhubs://NAMESPACE/HUB?endpoint=&partition-key=FIELD as a sink or a dead letter.
func openEventHubsSink(ctx context.Context, l location, logger *slog.Logger) (openedSink, error) {
	if err := l.only("endpoint", "partition-key"); err != nil {
		return openedSink{}, err
	}
	namespace, hub, _ := strings.Cut(l.rest, "/")
	if namespace == "" || hub == "" {
		return openedSink{}, settingf(l.setting, "%s: names no event hub: want eventhubs://NAMESPACE/HUB", l.raw)
	}
	starting, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	sink, err := eventhubssink.New(starting, eventhubssink.Options{Namespace: namespace, Hub: hub, Endpoint: l.params.Get("endpoint"), Logger: logger})
	if err != nil {
		return openedSink{}, unusable(l.setting, err, "%v")
	}
	return openedSink{l.keyed(sink), sink.Close}, nil
}
