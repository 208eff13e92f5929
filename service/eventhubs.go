package service

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/consumers/eventhubs"
	"github.com/millstream/millstream/consumers/eventhubs/blobstore"
	"github.com/millstream/millstream/stream"
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

// mirrored makes a group copy an event hub's positions to checkpoint blobs when the state is in Azure
// Blob: to the container itself, where the SDKs have theirs, whatever the state's prefix.
func (w *wiring) mirrored(ctx context.Context, g stream.Group, logger *slog.Logger) (stream.Group, error) {
	src, ok := w.source.Source.(*eventhubs.Source)
	if !ok {
		return g, nil
	}
	l, err := parseLocation("--checkpoint", w.settings.Checkpoint)
	if err != nil || l.scheme != "azblob" {
		return g, err
	}
	container, _, _ := strings.Cut(l.rest, "/")
	root, err := openBucket(ctx, "--checkpoint", strings.TrimSuffix("azblob://"+container+"?"+l.params.Encode(), "?"))
	if err != nil {
		return nil, err
	}
	w.closing(root.Close)
	to, ok := root.(bucket.Marker)
	if !ok {
		return g, nil
	}
	return &mirror{Group: g, group: src.Group(), to: to, logger: logger}, nil
}

// mirror is a group that copies the positions of its partitions, as saved, to checkpoint blobs, for
// scalers and tools that know those. Nothing here reads them: a mirror that lags or fails is a warning.
// After a crash a copied position may be ahead of output that the next start commits.
type mirror struct {
	stream.Group
	group  string
	to     bucket.Marker
	logger *slog.Logger
}

const (
	mirrorEvery  = 10 * time.Second
	mirrorWithin = 2 * time.Second // keeps a release short
)

// Run is Run of the group, beside which every partition is copied, a last time when its assignment has
// ended without being lost.
func (m *mirror) Run(ctx context.Context, src stream.Source, serve func(*stream.Assignment) error) error {
	return m.Group.Run(ctx, src, func(a *stream.Assignment) error {
		if a.Partition == stream.MergerPartition {
			return serve(a)
		}
		ended, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			m.follow(context.WithoutCancel(ctx), a, ended)
		}()
		err := serve(a)
		close(ended)
		<-done
		return err
	})
}

func (m *mirror) follow(ctx context.Context, a *stream.Assignment, ended <-chan struct{}) {
	tick := time.NewTicker(mirrorEvery)
	defer tick.Stop()
	var copied stream.Position
	failed := false
	for last := false; ; {
		at, err := m.copy(ctx, a, copied)
		if copied = at; err != nil && !failed {
			m.logger.Warn("the position is not copied to the checkpoint blob: tools show an old one", "partition", a.Partition, "group", m.group, "error", err)
		}
		if failed = err != nil; last {
			return
		}
		select {
		case <-tick.C:
		case <-ended:
			last = true
		case <-a.Lost:
		}
		select {
		case <-a.Lost: // it is another's to copy
			return
		default:
		}
	}
}

// copy copies the newest position unless it is copied, and returns the one that is.
func (m *mirror) copy(ctx context.Context, a *stream.Assignment, copied stream.Position) (stream.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, mirrorWithin)
	defer cancel()
	e, err := a.Log.Newest(ctx, a.Partition)
	if err != nil || e == nil || e.Position.Token == "" || e.Position == copied {
		return copied, err
	}
	if err := blobstore.Write(ctx, m.to, m.group, a.Partition, e.Position); err != nil {
		return copied, err
	}
	return e.Position, nil
}
