// Package blob is the sink for object stores and local folders: files of rows, exactly once by name.
//
// Rows reach the sink when the entry that decides them is saved, under an id that no other rows will
// ever have. One id is one file (with a path template: one in each path), named after the id and written
// only if absent: whoever delivers it again, after a crash or from a process that had been thought dead,
// finds the name taken by the same rows. A reader who ignores names that start with "_" or "." sees every
// row once, and never half a file.
//
// What a file's name and bytes depend on beside its rows is the layout, which is saved with them: a
// pipeline that is started again with another format writes what it had decided to write before in the
// old one.
//
// A file must stay where it is until the pipeline has gone on: the output of each partition's newest
// entry is delivered again when its owner died, and a file that was moved away by then comes back.
// Deleting by age is safe from a few checkpoint intervals on, while the pipeline runs; a pipeline that
// stopped by itself delivers nothing again.
package blob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/stream"
)

// Options says how files are written. The zero value means newline-delimited JSON, a file per checkpoint.
type Options struct {
	// Format is "ndjson" (the default), "csv" or "parquet".
	//
	// NDJSON takes rows as they are. CSV has a header, and nested values as JSON. Parquet has nested
	// objects as groups, arrays as lists, integers as INT64, and timestamps in microseconds. Rows of
	// these two are JSON objects; one that does not fit the columns is rejected alone.
	Format string
	// Compression is "none", "gzip" or "zstd". Parquet compresses its pages with it, knows "snappy" too,
	// and that is its default; the others get the suffix .gz or .zst.
	Compression string
	// Path is a template of the folders, below the prefix, that rows are put in one by one, such as
	// dt={window_start:2006-01-02}/region={user.region}. See parsePath.
	Path string
	// Schema names the columns of CSV and Parquet, such as id:int64,ts:timestamp,user.tier:string,
	// tags:[]string. The types are bool, int64, double, string, timestamp (RFC 3339) and json (any value
	// as text); all may be null. Without it a file has the columns that its rows have: a column in which
	// kinds of values are mixed has the most frequent kind, and a text that is a time everywhere is a
	// timestamp.
	Schema string
	// Unknown is what becomes of a row with fields that Schema does not name: "dead-letter" (the default)
	// rejects it, "ignore" leaves the fields out.
	Unknown string
	// Roll and RollSize say when a file is due: when its first row is this old, or its rows have this many
	// bytes, before compression. Without them every checkpoint makes a file.
	Roll     time.Duration
	RollSize int64
}

// Sink writes files. Safe for concurrent use.
type Sink struct {
	bucket bucket.Bucket
	prefix string
	layout []byte
	every  time.Duration
	size   int64
	limits limits
}

var _ stream.Roller = (*Sink)(nil)

// New writes newline-delimited JSON, a file per checkpoint: Open with no Options.
func New(b bucket.Bucket, prefix string) (*Sink, error) { return Open(b, prefix, Options{}) }

// Open writes below prefix, which is empty or ends in "/", of a bucket. The sink does not close it. It
// creates objects, and reads one only when that failed: its name may be taken, by its own rows.
func Open(b bucket.Bucket, prefix string, o Options) (*Sink, error) {
	if prefix != "" && !strings.HasSuffix(prefix, "/") {
		return nil, fmt.Errorf("prefix %q does not end in /", prefix)
	}
	if o.Roll < 0 || o.RollSize < 0 {
		return nil, fmt.Errorf("roll=%s, roll-size=%d: want no negative bounds", o.Roll, o.RollSize)
	}
	if o.Format == "" {
		o.Format = ndjson
	}
	if o.Compression == "" {
		o.Compression = none
		if o.Format == parquetFormat {
			o.Compression = snappy
		}
	}
	text, err := json.Marshal(layout{layoutVersion, o.Format, o.Compression, o.Path, o.Schema, o.Unknown == "ignore"})
	if err != nil {
		return nil, err
	}
	if o.Unknown != "" && o.Unknown != "ignore" && o.Unknown != "dead-letter" {
		return nil, fmt.Errorf("unknown=%s: want dead-letter or ignore", o.Unknown)
	}
	if _, err := parseLayout(text); err != nil {
		return nil, err
	}
	if o.Unknown == "ignore" && o.Schema == "" {
		return nil, fmt.Errorf("unknown=ignore needs schema=: without it every field has a column")
	}
	return &Sink{b, prefix, text, o.Roll, o.RollSize, limits{together: 16 << 20, paths: 20_000}}, nil
}

// Name implements stream.Roller: it is where the files are.
func (s *Sink) Name() string {
	return strings.TrimSuffix(s.bucket.URL()+"/"+s.prefix, "/")
}

// Roll implements stream.Roller.
func (s *Sink) Roll() (every time.Duration, size int64) { return s.every, s.size }

// Layout implements stream.Roller.
func (s *Sink) Layout() []byte { return s.layout }

// Deliver implements stream.Sink: it is Write of one part.
func (s *Sink) Deliver(ctx context.Context, id stream.CheckpointID, rows []stream.Row) error {
	return s.Write(ctx, id, s.layout, func(yield func([]stream.Row, error) bool) { yield(rows, nil) })
}

// Write implements stream.Roller. No rows make no file. Rows that the format cannot hold are in a
// *stream.Rejected; the others are then written. Memory does not grow with the rows: see job.
func (s *Sink) Write(ctx context.Context, id stream.CheckpointID, saved []byte, parts iter.Seq2[[]stream.Row, error]) error {
	if len(saved) == 0 {
		saved = s.layout
	}
	plan, err := parseLayout(saved)
	if err != nil {
		return fmt.Errorf("%s: the saved layout: %w", s.bucket.URL(), err)
	}
	j := &job{bucket: s.bucket, prefix: s.prefix, base: fileName(id) + plan.suffix(), plan: plan, parts: parts, limits: s.limits}
	rejected, err := j.write(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", s.bucket.URL(), err)
	case len(rejected) > 0:
		return &stream.Rejected{Rows: rejected}
	}
	return nil
}

// The formats and compressions, as they are written in URLs.
const (
	ndjson, csvFormat, parquetFormat = "ndjson", "csv", "parquet"
	none, gzipped, zstandard, snappy = "none", "gzip", "zstd", "snappy"
)

const layoutVersion = 1

// layout is how Sink.Layout is written.
type layout struct {
	Version     int    `json:"version"`
	Format      string `json:"format"`
	Compression string `json:"compression"`
	Path        string `json:"path,omitempty"`
	Schema      string `json:"schema,omitempty"`
	Ignore      bool   `json:"ignore_unknown,omitempty"`
}

// plan is a layout that can be followed.
type plan struct {
	layout
	path   template // nil: all rows are in one file
	schema *column  // nil: to be learned from the rows, if the format has columns
}

func parseLayout(text []byte) (*plan, error) {
	p := new(plan)
	if err := json.Unmarshal(text, &p.layout); err != nil {
		return nil, err
	}
	if p.Version != layoutVersion {
		return nil, fmt.Errorf("layout version %d is not known here: a newer version wrote it", p.Version)
	}
	compressions := []string{none, gzipped, zstandard}
	switch p.Format {
	case ndjson, csvFormat:
	case parquetFormat:
		compressions = append(compressions, snappy)
	default:
		return nil, fmt.Errorf("format=%s: want ndjson, csv or parquet", p.Format)
	}
	if list := strings.Join(compressions, ", "); !strings.Contains(", "+list+", ", ", "+p.Compression+", ") {
		return nil, fmt.Errorf("compression=%s: want one of %s", p.Compression, list)
	}
	var err error
	if p.path, err = parsePath(p.Path); err != nil {
		return nil, err
	}
	if p.Schema == "" {
		return p, nil
	}
	if p.Format == ndjson {
		return nil, fmt.Errorf("schema= is for csv and parquet: ndjson takes rows as they are")
	}
	p.schema, err = parseSchema(p.Schema)
	return p, err
}

func (p *plan) suffix() string {
	s := "." + p.Format
	switch {
	case p.Format == parquetFormat:
	case p.Compression == gzipped:
		s += ".gz"
	case p.Compression == zstandard:
		s += ".zst"
	}
	return s
}

const (
	// maxName leaves room for an extension within the 255 bytes that file systems allow.
	maxName = 240
	// What is left of a pipeline's or partition's name that is too long, before its hash.
	maxPipeline, maxPartition = 40, 24
)

// fileName is the id's string, as every store takes it and no reader ignores it.
func fileName(id stream.CheckpointID) string {
	name := id.String()
	if len(name) > maxName {
		id.Partition = shorten(id.Partition, maxPartition)
		name = id.String()
	}
	if len(name) > maxName {
		id.Pipeline = shorten(id.Pipeline, maxPipeline)
		name = id.String()
	}
	return visible(name)
}

// visible changes what readers ignore at the beginning of a name, and what gocloud.dev takes for its own
// escapes.
func visible(name string) string {
	switch name[0] {
	case '_':
		name = "%5F" + name[1:]
	case '.':
		name = "%2E" + name[1:]
	}
	return strings.ReplaceAll(name, "__0x", "%5F_0x")
}

// shorten keeps the beginning of a name and tells it from others by a hash of the whole.
func shorten(name string, keep int) string {
	if len(name) <= keep {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:keep] + "~" + hex.EncodeToString(sum[:16])
}
