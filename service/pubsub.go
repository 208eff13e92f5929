package service

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/millstream/millstream/consumers/pubsub"
)

// openPubSub opens pubsub://PROJECT/SUBSCRIPTION[,…]?endpoint=&shared=&outstanding=&client=.
func openPubSub(ctx context.Context, l location, s *Settings, logger *slog.Logger) (openedSource, error) {
	if err := l.only("endpoint", "shared", "outstanding", "client"); err != nil {
		return openedSource{}, err
	}
	project, names, _ := strings.Cut(l.rest, "/")
	if project == "" || names == "" {
		return openedSource{}, settingf(l.setting, "%s: names no subscription: want pubsub://PROJECT/SUBSCRIPTION", l.raw)
	}
	if s.UntilEnd {
		return openedSource{}, settingf("--until-end", "is not for pubsub: a subscription has no end that could be known; use --until TIME, or stop the run")
	}
	o := pubsub.Options{Project: project, Subscriptions: strings.Split(names, ","), Endpoint: l.params.Get("endpoint"), DedupeFor: s.DedupeFor, Logger: logger}
	for name, to := range map[string]*int{"shared": &o.Shared, "outstanding": &o.MaxMessages} {
		if !l.params.Has(name) {
			continue
		}
		n, err := strconv.Atoi(l.params.Get(name))
		if err != nil || n < 1 {
			return openedSource{}, settingf(l.setting, "%s: %s=%s: want a number from 1 on", l.raw, name, l.params.Get(name))
		}
		*to = n
	}
	switch client := l.params.Get("client"); client {
	case "", "own":
	case "sdk":
		o.SDK = true
	default:
		return openedSource{}, settingf(l.setting, "%s: client=%s: it is own (the default) or sdk, which leaves streams and acknowledgements to the SDK", l.raw, client)
	}
	starting, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	src, err := pubsub.New(starting, o)
	if err != nil {
		return openedSource{}, unusable(l.setting, err, "%v")
	}
	return openedSource{Source: src, network: true, outOfOrder: time.Minute}, nil
}

// pubsubGuarantee words what keeps a subscription's totals from being exactly once without conditions:
// what all sinks then have in common, or what is to be added to their promise.
func (s *Settings) pubsubGuarantee(l location) (all, more string) {
	if strings.HasPrefix(s.Checkpoint, "mem:") {
		return "at most once after a restart: Pub/Sub forgets what is saved, and so does --checkpoint mem:. Name a folder or a bucket to resume", ""
	}
	if n, err := strconv.Atoi(l.params.Get("shared")); err == nil && n > 1 {
		return fmt.Sprintf("at least once: shared=%d partitions share a subscription, and a message that Pub/Sub delivers again may come to another of them, which does not know it. Use subscriptions with filters that exclude each other for exactly once", n), ""
	}
	return "", fmt.Sprintf(", for messages that Pub/Sub delivers again within --dedupe-for (%s)", s.DedupeFor)
}

// pubsubAccess lists the permissions that reading needs.
func pubsubAccess(l location) []string {
	return []string{"pubsub.subscriptions.consume on subscription " + l.rest + " (role Pub/Sub Subscriber)",
		"pubsub.subscriptions.get on subscription " + l.rest + " (role Pub/Sub Viewer), for its settings to be checked"}
}
