// Package objects reads files: NDJSON, JSON and CSV, compressed or not, in a bucket or a local folder.
//
// # The life of an object
//
// The objects below a prefix are shared out among lanes, which are the source's partitions, by a hash of
// their names. A lane lists the prefix, takes what is its own and not finished as one scan, in order of
// names, and reads object after object; then it lists again, every Options.Watch, or ends. A record is a
// line of NDJSON, an element of a JSON array (or one of several JSON values), or a row of CSV, which becomes
// an object of strings under the header's names.
//
// A position is the scan, which finished objects that are still there it knows and which objects it is made
// of, in its Token, and how far it is in its Number: the object's place in the scan, and in that object the
// byte behind a line of plain NDJSON, or how many records are read. So every record is a place to resume
// exactly; what is compressed, JSON or CSV is read again from its start, and what was read is skipped.
//
// Objects do not change. One that is written anew is read no more, and told: see Source.Changed. An object
// whose kind nobody knows, a row with too many fields, a stream that breaks off are refused records, which
// go to the dead letter with reason, place and bytes; the lane goes on.
//
// What a lane remembers is bounded: MaxNames finished objects that still stand where it looks. Beyond that
// it stops and says so: move finished objects away, or use more lanes.
package objects

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/stream"
)

const (
	// DefaultLanes, MaxLanes and DefaultWatch bound how objects are shared out and looked for.
	DefaultLanes = 8
	MaxLanes     = 256
	DefaultWatch = 30 * time.Second
	// MaxNames is how many objects one lane remembers: 16 bytes each, in every checkpoint.
	MaxNames = 20_000
)

// Formats and compressions.
const (
	Auto   = "auto"
	NDJSON = "ndjson"
	JSON   = "json"
	CSV    = "csv"
	None   = "none"
	Gzip   = "gzip"
	Zstd   = "zstd"
)

// Options says what to read. Bucket is required; the Source closes it.
type Options struct {
	Bucket      bucket.Bucket
	Format      string        // NDJSON, JSON, CSV; default Auto: by the name's suffix
	Compression string        // None, Gzip, Zstd; default Auto: by the name's suffix
	Watch       time.Duration // between two listings; default DefaultWatch
	Lanes       int           // partitions; default DefaultLanes. Another number is another source
	Only        string        // read this object alone; empty: all of them
	UntilEnd    bool          // end with the objects that are there when the pipeline begins
	Logger      *slog.Logger  // default slog.Default()
}

// Source is the objects of a bucket; it implements consumers.Source.
type Source struct {
	o       Options
	changed atomic.Int64

	mu     sync.Mutex
	listed []bucket.Info
	at     time.Time
	placed map[string]scan // the token that Place was asked about last
}

var (
	_ consumers.Source = (*Source)(nil)
	_ stream.Placer    = (*Source)(nil)
)

// New makes a Source, and lists the bucket once, so that one that cannot be read is an error here.
func New(ctx context.Context, o Options) (*Source, error) {
	if o.Format == "" {
		o.Format = Auto
	}
	if o.Compression == "" {
		o.Compression = Auto
	}
	if !slices.Contains([]string{Auto, NDJSON, JSON, CSV}, o.Format) {
		return nil, fmt.Errorf("format=%s: it is ndjson, json, csv or auto", o.Format)
	}
	if !slices.Contains([]string{Auto, None, Gzip, Zstd}, o.Compression) {
		return nil, fmt.Errorf("compression=%s: it is none, gzip, zstd or auto", o.Compression)
	}
	if o.Lanes == 0 {
		o.Lanes = DefaultLanes
	}
	if o.Lanes < 1 || o.Lanes > MaxLanes {
		return nil, fmt.Errorf("lanes=%d: from 1 to %d", o.Lanes, MaxLanes)
	}
	if o.Watch == 0 {
		o.Watch = DefaultWatch
	}
	if o.Watch < time.Second {
		return nil, fmt.Errorf("watch=%s: at least 1s", o.Watch)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	s := &Source{o: o}
	if _, err := s.list(ctx, time.Now()); err != nil {
		return nil, err
	}
	return s, nil
}

// Identity is where the objects are, and how they are shared out.
func (s *Source) Identity() string {
	where := s.o.Bucket.URL()
	if s.o.Only != "" {
		where = strings.TrimSuffix(where, "/") + "/" + s.o.Only
	}
	return fmt.Sprintf("%s?lanes=%d", where, s.o.Lanes)
}

// Close closes the bucket.
func (s *Source) Close() error { return s.o.Bucket.Close() }

// Changed counts objects that were written anew after they were begun or finished, and not read again.
func (s *Source) Changed() int64 { return s.changed.Load() }

// Partitions implements consumers.Source.
func (s *Source) Partitions(context.Context) ([]stream.Partition, error) {
	lanes := make([]stream.Partition, s.o.Lanes)
	for i := range lanes {
		lanes[i].Name = fmt.Sprintf("lane-%03d", i)
	}
	return lanes, nil
}

// Tip is when the newest object was written, and which were written just then, when there is an end: what
// comes later is not read. Stores date objects to the second, so that others may bear the same time.
func (s *Source) Tip(ctx context.Context) (string, error) {
	if !s.o.UntilEnd {
		return "", nil
	}
	infos, err := s.list(ctx, time.Now())
	if err != nil {
		return "", err
	}
	end := tip{at: time.Unix(0, 1).UTC(), with: make(map[name]bool)} // of nothing
	for _, o := range infos {
		if o.Modified.After(end.at) {
			end.at = o.Modified
			clear(end.with)
		}
		if o.Modified.Equal(end.at) {
			end.with[digest(o.Name)] = true
		}
	}
	return end.encode(), nil
}

// tip is where a bounded source ends.
type tip struct {
	at   time.Time
	with map[name]bool // of those that were written at that time, these; empty: all
}

// mostAtOnce is how many objects of one time are told apart.
const mostAtOnce = 2000

func (t *tip) encode() string {
	text := t.at.UTC().Format(time.RFC3339Nano)
	if len(t.with) > mostAtOnce {
		return text
	}
	for _, n := range slices.SortedFunc(maps.Keys(t.with), compareNames) {
		text += fmt.Sprintf(" %x", n)
	}
	return text
}

func decodeTip(text string) (t tip, err error) {
	at, rest, _ := strings.Cut(text, " ")
	t.with = make(map[name]bool)
	for _, digits := range strings.Fields(rest) {
		data, err := hex.DecodeString(digits)
		if err != nil || len(data) != len(name{}) {
			return t, errToken
		}
		t.with[name(data)] = true
	}
	t.at, err = time.Parse(time.RFC3339Nano, at)
	return t, err
}

// holds reports whether an object is to be read.
func (t *tip) holds(n name, modified time.Time) bool {
	if modified.Equal(t.at) {
		return len(t.with) == 0 || t.with[n]
	}
	return modified.Before(t.at)
}

// list returns every object, listed at since or later.
func (s *Source) list(ctx context.Context, since time.Time) ([]bucket.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listed != nil && !s.at.Before(since) {
		return s.listed, nil
	}
	at := time.Now()
	infos, err := s.o.Bucket.Objects(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.o.Bucket.URL(), err)
	}
	s.listed, s.at = slices.DeleteFunc(infos, func(o bucket.Info) bool {
		base := path.Base(o.Name)
		if s.o.Only != "" {
			return o.Name != s.o.Only
		}
		return strings.HasPrefix(base, "_") || strings.HasPrefix(base, ".") // never output, so never input
	}), at
	return s.listed, nil
}

// laneOf is the lane of an object.
func (s *Source) laneOf(name string) int { return int(xxhash.Sum64String(name) % uint64(s.o.Lanes)) }

// Open implements consumers.Source.
func (s *Source) Open(_ context.Context, partition string, from stream.Position, end string) (consumers.Reader, error) {
	n, err := strconv.Atoi(strings.TrimPrefix(partition, "lane-"))
	if err != nil || n < 0 || n >= s.o.Lanes {
		return nil, fmt.Errorf("%s: %w", partition, stream.ErrPartitionGone)
	}
	r := &reader{s: s, lane: n, tags: make(map[name]string)}
	if from.Token != "" {
		if r.scan, err = decodeScan(from.Token); err != nil {
			return nil, fmt.Errorf("position of %s: %w", partition, err)
		}
		r.token, r.index, r.done = from.Token, int(from.Number>>placeBits), from.Number&(1<<placeBits-1)
		if r.index > len(r.scan.members) {
			return nil, fmt.Errorf("position of %s: object %d of %d", partition, r.index, len(r.scan.members))
		}
	}
	if s.o.UntilEnd && end != "" {
		until, err := decodeTip(end)
		if err != nil {
			return nil, fmt.Errorf("the end of %s: %w", partition, err)
		}
		r.until = &until
	}
	return r, nil
}

// Place says which object a position is in, and where there.
func (s *Source) Place(p stream.Position) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	in, known := s.placed[p.Token]
	if !known {
		var err error
		if in, err = decodeScan(p.Token); err != nil {
			return p.String()
		}
		s.placed = map[string]scan{p.Token: in}
	}
	index := int(p.Number >> placeBits)
	if index >= len(in.members) {
		return fmt.Sprintf("behind %d objects", index)
	}
	object := fmt.Sprintf("object %x", in.members[index])
	for _, o := range s.listed {
		if digest(o.Name) == in.members[index] {
			object = o.Name
			break
		}
	}
	return fmt.Sprintf("%s:%d", object, p.Number&(1<<placeBits-1))
}

var errNames = errors.New("too many finished objects are still there")
