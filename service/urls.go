package service

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/cloud/secret"
	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/consumers/file"
	"github.com/millstream/millstream/sinks"
	"github.com/millstream/millstream/sinks/stdout"
	"github.com/millstream/millstream/stream"
)

// location is a URL of ours, split by hand: stream ARNs and endpoints in parameters are not always
// URLs by the book.
type location struct {
	setting string // the flag it came from
	raw     string
	scheme  string // "file" for a plain path
	rest    string // between scheme and parameters
	params  url.Values
	secrets map[string]secret.Secret // of params that are references, once resolveSecrets has read them
}

func parseLocation(setting, raw string) (location, error) {
	l := location{setting: setting, raw: raw, params: url.Values{}}
	switch raw {
	case "":
		return l, settingf(setting, "is missing: give a URL or a path")
	case "-":
		l.scheme = "stdin"
		return l, nil
	}
	path, query, _ := strings.Cut(raw, "?")
	if scheme, rest, found := strings.Cut(path, ":"); found && !strings.ContainsAny(scheme, `/\.`) && len(scheme) >= 2 {
		l.scheme, l.rest = scheme, strings.TrimPrefix(rest, "//")
	} else {
		l.scheme, l.rest = "file", path
	}
	params, err := url.ParseQuery(query)
	if err != nil {
		return l, settingf(setting, "%s: %v", raw, err)
	}
	l.params = params
	return l, nil
}

// only refuses parameters that the driver does not know.
func (l location) only(known ...string) error {
	for name, values := range l.params {
		if !slices.Contains(known, name) {
			return settingf(l.setting, "%s: has no parameter %s%s", l.raw, name, suggest(name, known))
		}
		if len(values) > 1 {
			return settingf(l.setting, "%s: parameter %s is given twice", l.raw, name)
		}
	}
	return nil
}

// truth reads a parameter that is true or false.
func (l location) truth(name string, otherwise bool) (bool, error) {
	switch text := l.params.Get(name); text {
	case "true":
		return true, nil
	case "false":
		return false, nil
	case "":
		if !l.params.Has(name) {
			return otherwise, nil
		}
	}
	return false, settingf(l.setting, "%s: %s=%s: want true or false", l.raw, name, l.params.Get(name))
}

// keyed has a stream sink take partition-key= for the key of its rows.
func (l location) keyed(s stream.Sink) stream.Sink {
	if field := l.params.Get("partition-key"); field != "" {
		return sinks.KeyedBy(field, s)
	}
	return s
}

var schemes = map[string][]string{
	"--source":      {"file", "stdin", "kinesis", "pubsub", "eventhubs", "s3", "gs", "azblob"},
	"--sink":        {"file", "stdout", "firehose", "bigquery", "kinesis", "pubsub", "eventhubs", "s3", "gs", "azblob"},
	enrichSetting:   {"file", "s3", "gs", "azblob", "dynamodb", "azuretables", "firestore", "datastore", "redis", "rediss", "postgres", "mysql", "http", "https"},
	"--dead-letter": {"file", "stdout", "firehose", "bigquery", "kinesis", "pubsub", "eventhubs", "s3", "gs", "azblob"},
}

func (l location) unknown() error {
	known := slices.Clone(schemes[l.setting])
	hint := suggest(l.scheme, known)
	if hint == "" {
		hint = ": it is one of " + strings.Join(known, ", ")
	}
	return settingf(l.setting, "%s: unknown kind %s%s", l.raw, l.scheme, hint)
}

// openedSource is a source with what its kind implies.
type openedSource struct {
	consumers.Source
	network    bool          // its records are lost to a container that forgets its position
	outOfOrder time.Duration // default bound
}

// openSource is the one switch from URLs to source drivers.
func openSource(ctx context.Context, s *Settings, logger *slog.Logger) (openedSource, error) {
	if s.Driver != nil {
		return openedSource{Source: s.Driver}, nil
	}
	l, err := parseLocation("--source", s.Source)
	if err != nil {
		return openedSource{}, err
	}
	if l.readsObjects() {
		return openObjects(ctx, l, s, logger)
	}
	switch l.scheme {
	case "file", "stdin":
		o, err := file.Parse(s.Source)
		if err != nil {
			return openedSource{}, sourceProblem(err)
		}
		o.UntilEnd = s.UntilEnd
		src, err := file.New(o)
		if errors.Is(err, fs.ErrNotExist) {
			return openedSource{}, settingf("--source", "%s: no such file or folder", absolute(o.Path))
		}
		if err != nil {
			return openedSource{}, sourceProblem(err)
		}
		return openedSource{Source: src}, nil
	case "kinesis":
		return openKinesis(ctx, l, s, logger)
	case "eventhubs":
		return openEventHubs(ctx, l, s, logger)
	case "pubsub":
		return openPubSub(ctx, l, s, logger)
	}
	return openedSource{}, l.unknown()
}

// sourceProblem drops what the driver's error and the setting's name both say.
func sourceProblem(err error) error {
	text := strings.TrimPrefix(err.Error(), "source")
	return settingf("--source", "%s", strings.TrimLeft(text, ": "))
}

// refuseLoop refuses a sink that writes into the folder that the source reads: its files would be
// taken for new partitions, without end.
func (s *Settings) refuseLoop() error {
	if s.Driver != nil {
		return nil
	}
	source, err := parseLocation("--source", s.Source)
	if err != nil {
		return err
	}
	in, ok := source.folder()
	if !ok {
		return nil
	}
	sinks := append([]string{s.DeadLetter}, s.Sinks...)
	for i, raw := range sinks {
		if raw == "" {
			continue
		}
		setting := "--sink"
		if i == 0 {
			setting = "--dead-letter"
		}
		l, err := parseLocation(setting, raw)
		if err != nil {
			return err
		}
		if out, ok := l.folder(); ok && os.SameFile(in, out) {
			return settingf(setting, "%s: is the folder that --source reads: its own rows would be read again; use another one", raw)
		}
	}
	return nil
}

// folder looks at the local folder that a location names, if there is one.
func (l location) folder() (fs.FileInfo, bool) {
	if l.scheme != "file" {
		return nil, false
	}
	path := l.rest
	if strings.HasPrefix(l.raw, "file:") {
		if decoded, err := url.PathUnescape(path); err == nil {
			path = decoded
		}
	}
	info, err := os.Stat(path)
	return info, err == nil && info.IsDir()
}

// openedSink is a sink and what it has to close.
type openedSink struct {
	stream.Sink
	close func() error
}

// openSink is the one switch from URLs to sink drivers.
func openSink(ctx context.Context, setting, raw string, logger *slog.Logger) (openedSink, error) {
	l, err := parseLocation(setting, raw)
	if err != nil {
		return openedSink{}, err
	}
	switch l.scheme {
	case "file", "s3", "gs", "azblob":
		return openBlobSink(ctx, l)
	case "stdout":
		if err := l.only(); err != nil {
			return openedSink{}, err
		}
		return openedSink{stdout.New(os.Stdout), nil}, nil
	case "kinesis":
		return openKinesisSink(ctx, l, logger)
	case "firehose":
		return openFirehoseSink(ctx, l, logger)
	case "bigquery":
		return openBigQuerySink(ctx, l, logger)
	case "pubsub":
		return openPubSubSink(ctx, l, logger)
	case "eventhubs":
		return openEventHubsSink(ctx, l, logger)
	}
	return openedSink{}, l.unknown()
}

// startWithin bounds what a driver may take to find out whether its service is there.
const startWithin = 10 * time.Second

// writable tries to write, so that a sink that cannot be reached stops the start and not the first
// commit. Names that begin with _ are never output.
func writable(ctx context.Context, b bucket.Bucket) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	name := "_check-" + rand.Text()
	// Nobody else knows the name: what exists already is what a client's own first attempt wrote.
	if err := b.Create(ctx, name, []byte("millstream can write here\n")); err != nil && !errors.Is(err, bucket.ErrExists) {
		return err
	}
	return b.Delete(ctx, name)
}

// dropParam removes a parameter that is ours from a URL that goes on to a bucket.
func dropParam(raw, name string) string {
	base, query, found := strings.Cut(raw, "?")
	if !found {
		return raw
	}
	params, err := url.ParseQuery(query)
	if err != nil {
		return raw
	}
	params.Del(name)
	if len(params) == 0 {
		return base
	}
	return base + "?" + params.Encode()
}

func openBucket(ctx context.Context, setting, raw string) (bucket.Bucket, error) {
	b, err := bucket.Open(ctx, raw)
	if err != nil {
		return nil, settingf(setting, "%v", err)
	}
	return b, nil
}

// isLocal reports whether a checkpoint URL is a folder of this machine.
func isLocal(raw string) bool {
	l, err := parseLocation("--checkpoint", raw)
	return err == nil && l.scheme == "file"
}

// absolute makes a path independent of the working directory, for messages.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
