package service

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/millstream/millstream/sinks/blob"
)

// blobParameters say how files are written; a bucket's own parameters come beside them.
var blobParameters = []string{"format", "compression", "path", "schema", "unknown", "roll", "roll-size"}

// bucketURL is the URL of a sink of files without what says how they are written.
func bucketURL(raw string) string {
	for _, name := range blobParameters {
		raw = dropParam(raw, name)
	}
	return raw
}

// openBlobSink opens a folder or a bucket, PATH?format=ndjson|csv|parquet&compression=none|gzip|zstd|snappy
// &path=TEMPLATE&schema=NAME:TYPE,…&unknown=dead-letter|ignore&roll=DURATION&roll-size=BYTES, as a sink or a
// dead letter.
func openBlobSink(ctx context.Context, l location) (openedSink, error) {
	o, err := l.blobOptions()
	if err != nil {
		return openedSink{}, err
	}
	b, err := openBucket(ctx, l.setting, bucketURL(l.raw))
	if err != nil {
		return openedSink{}, err
	}
	sink, err := blob.Open(b, "", o)
	if err != nil {
		b.Close()
		return openedSink{}, settingf(l.setting, "%s: %v", b.URL(), err)
	}
	if err := writable(ctx, b); err != nil {
		b.Close()
		return openedSink{}, unusable(l.setting, err, "%s: cannot be written: %v", b.URL())
	}
	return openedSink{sink, b.Close}, nil
}

// blobOptions reads the parameters of a sink of files.
func (l location) blobOptions() (blob.Options, error) {
	known := map[string][]string{"s3": {"endpoint", "region"}, "gs": {"endpoint"}, "azblob": {"account", "endpoint"}}[l.scheme]
	o := blob.Options{}
	if err := l.only(append(slices.Clone(blobParameters), known...)...); err != nil {
		return o, err
	}
	for _, name := range slices.Sorted(maps.Keys(l.params)) {
		if slices.Contains(blobParameters, name) && l.params.Get(name) == "" {
			return o, settingf(l.setting, "%s: parameter %s is empty", l.raw, name)
		}
	}
	for name, values := range map[string][]string{
		"format": {"ndjson", "csv", "parquet"}, "compression": {"none", "gzip", "zstd", "snappy"}, "unknown": {"dead-letter", "ignore"},
	} {
		if v := l.params.Get(name); v != "" && !slices.Contains(values, v) {
			return o, settingf(l.setting, "%s: %s=%s is not known here%s", l.raw, name, v, orOne(v, values))
		}
	}
	o = blob.Options{
		Format: l.params.Get("format"), Compression: l.params.Get("compression"), Path: l.params.Get("path"),
		Schema: l.params.Get("schema"), Unknown: l.params.Get("unknown"),
	}
	if l.setting == "--dead-letter" {
		for _, name := range []string{"path", "schema", "unknown", "roll", "roll-size"} {
			if l.params.Has(name) {
				return o, settingf(l.setting, "%s: has no parameter %s: dead letters are written with every checkpoint", l.raw, name)
			}
		}
		if o.Format != "" && o.Format != "ndjson" {
			return o, settingf(l.setting, "%s: dead letters are written with format=ndjson only, so that they can be read back", l.raw)
		}
	}
	if text := l.params.Get("roll"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 {
			return o, settingf(l.setting, "%s: roll=%s: want a duration such as 5m", l.raw, text)
		}
		o.Roll = d
	}
	if text := l.params.Get("roll-size"); text != "" {
		n, err := parseSize(text)
		if err != nil || n == 0 {
			return o, settingf(l.setting, "%s: roll-size=%s: want a size such as 128MiB", l.raw, text)
		}
		o.RollSize = n
	}
	return o, nil
}

// orOne suggests one of some values, or names them all.
func orOne(given string, values []string) string {
	if hint := suggest(given, slices.Clone(values)); hint != "" {
		return hint
	}
	text := ": want "
	for i, v := range values {
		switch {
		case i > 0 && i == len(values)-1:
			text += " or "
		case i > 0:
			text += ", "
		}
		text += v
	}
	return text
}
