package service

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/millstream/millstream/consumers/eventhubs"
)

// openEventHubs opens eventhubs://NAMESPACE/HUB?consumer-group=&start=&endpoint=.
func openEventHubs(ctx context.Context, l location, s *Settings, logger *slog.Logger) (openedSource, error) {
	if err := l.only("consumer-group", "start", "endpoint"); err != nil {
		return openedSource{}, err
	}
	namespace, hub, found := strings.Cut(l.rest, "/")
	if !found || namespace == "" || hub == "" {
		return openedSource{}, settingf("--source", "%s: names no event hub: want eventhubs://NAMESPACE/HUB", l.raw)
	}
	starting, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	src, err := eventhubs.New(starting, eventhubs.Options{Namespace: namespace, Hub: hub, Endpoint: l.params.Get("endpoint"),
		ConsumerGroup: l.params.Get("consumer-group"), Start: l.params.Get("start"), UntilEnd: s.UntilEnd, Logger: logger})
	if err != nil {
		return openedSource{}, unusable("--source", err, "%v")
	}
	return openedSource{Source: src, network: true, outOfOrder: 5 * time.Second}, nil
}
