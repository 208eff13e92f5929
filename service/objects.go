package service

import (
	"context"
	"log/slog"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millstream/millstream/consumers/objects"
)

// objectParameters say how files are read; a bucket's own parameters come beside them.
var objectParameters = []string{"format", "compression", "watch", "lanes"}

// readsObjects reports whether a source of files is read object by object: buckets, and what of the local
// ones is not plain NDJSON that grows at its end.
func (l location) readsObjects() bool {
	switch l.scheme {
	case "s3", "gs", "azblob":
		return true
	case "file":
		for _, name := range objectParameters {
			if l.params.Has(name) {
				return true
			}
		}
		return slices.Contains([]string{".gz", ".gzip", ".zst", ".zstd", ".json", ".csv"}, strings.ToLower(path.Ext(l.rest)))
	}
	return false
}

// openObjects opens s3://, gs://, azblob:// and file: with format=ndjson|json|csv|auto&compression=none|gzip|
// zstd|auto&watch=30s&lanes=8 as a source.
func openObjects(ctx context.Context, l location, s *Settings, logger *slog.Logger) (openedSource, error) {
	known := map[string][]string{"s3": {"endpoint", "region"}, "gs": {"endpoint"}, "azblob": {"account", "endpoint"}}[l.scheme]
	if err := l.only(append(slices.Clone(objectParameters), known...)...); err != nil {
		return openedSource{}, err
	}
	o := objects.Options{Format: l.params.Get("format"), Compression: l.params.Get("compression"), UntilEnd: s.UntilEnd, Logger: logger}
	var err error
	if text := l.params.Get("watch"); text != "" {
		if o.Watch, err = time.ParseDuration(text); err != nil || o.Watch < time.Second {
			return openedSource{}, settingf(l.setting, "%s: watch=%s: want a duration from 1s on, such as 30s", l.raw, text)
		}
	}
	if text := l.params.Get("lanes"); text != "" {
		if o.Lanes, err = strconv.Atoi(text); err != nil || o.Lanes < 1 || o.Lanes > objects.MaxLanes {
			return openedSource{}, settingf(l.setting, "%s: lanes=%s: want a number from 1 to %d", l.raw, text, objects.MaxLanes)
		}
	}
	where := l.raw
	for _, name := range objectParameters {
		where = dropParam(where, name)
	}
	if l.scheme == "file" {
		local := l.localPath()
		info, err := os.Stat(local)
		if err != nil {
			return openedSource{}, settingf(l.setting, "%s: no such file or folder", absolute(local))
		}
		if where = local; !info.IsDir() {
			where, o.Only = filepath.Split(absolute(local))
		}
	}
	if err := s.refuseNested(l); err != nil {
		return openedSource{}, err
	}
	if o.Bucket, err = openBucket(ctx, l.setting, where); err != nil {
		return openedSource{}, err
	}
	starting, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	src, err := objects.New(starting, o)
	if err != nil {
		o.Bucket.Close()
		return openedSource{}, unusable(l.setting, err, "%s: %v", l.raw)
	}
	return openedSource{Source: src, network: l.scheme != "file"}, nil
}

// localPath is the path that a file location names.
func (l location) localPath() string {
	if strings.HasPrefix(l.raw, "file:") {
		if decoded, err := url.PathUnescape(l.rest); err == nil {
			return decoded
		}
	}
	return l.rest
}

// refuseNested refuses a sink, a dead letter or a checkpoint below what is read: everything below is.
func (s *Settings) refuseNested(source location) error {
	place := func(l location) string {
		if l.scheme == "file" {
			return "file:" + absolute(l.localPath()) + "/"
		}
		return l.scheme + ":" + strings.Trim(l.rest, "/") + "/"
	}
	in := place(source)
	for setting, raws := range map[string][]string{"--sink": s.Sinks, "--dead-letter": {s.deadLetter()}, "--checkpoint": {s.Checkpoint}} {
		for _, raw := range raws {
			if raw == "" || raw == "mem:" {
				continue
			}
			l, err := parseLocation(setting, raw)
			if err == nil && strings.HasPrefix(place(l), in) {
				return settingf(setting, "%s: lies in what --source reads, and would be read: use another place", raw)
			}
		}
	}
	return nil
}
