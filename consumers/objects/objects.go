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
// Objects do not change. One that is written anew is not read again, and told, also when it happened while
// nobody looked: see Source.Changed. One that is written anew before it was read to its end is given up with
// a refused record. An object whose kind nobody knows, a row with too many fields, a stream that breaks off
// are refused records too, which go to the dead letter with reason, place and bytes; the lane goes on.
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
	// MaxNames is how many objects one lane remembers: 24 bytes each, in every checkpoint.
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
	named  map[name]string // the names of listed
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
	infos, err := s.list(ctx, time.Now())
	if err != nil {
		return nil, err
	}
	return s, s.roomy(infos)
}

// roomy says when a lane holds more objects than it can remember: at once for a run that is to end with
// them, and as a warning for one during which finished ones may be moved away.
func (s *Source) roomy(infos []bucket.Info) error {
	counts := make([]int, s.o.Lanes)
	for _, o := range infos {
		counts[s.laneOf(o.Name)]++
	}
	most := slices.Max(counts)
	if most <= MaxNames {
		return nil
	}
	err := fmt.Errorf("%d objects make %d in one of %d lanes, which remembers %d: use %s, or read a smaller prefix at a time",
		len(infos), most, s.o.Lanes, MaxNames, enough(len(infos)))
	if s.o.UntilEnd {
		return err
	}
	s.o.Logger.Warn("a lane will stop unless finished objects are moved away meanwhile", "reason", err)
	return nil
}

// enough is how many lanes can remember so many objects, with room for more.
func enough(objects int) string {
	lanes := objects/(MaxNames*3/4) + 1
	if lanes > MaxLanes {
		return "several pipelines"
	}
	return fmt.Sprintf("lanes=%d", lanes)
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
	infos, err := s.o.Bucket.Objects(ctx, s.o.Only) // one file is asked for by name: its folder may be large
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.o.Bucket.URL(), err)
	}
	infos = slices.DeleteFunc(infos, func(o bucket.Info) bool {
		if s.o.Only != "" {
			return o.Name != s.o.Only
		}
		return hidden(o.Name)
	})
	named := make(map[name]string, len(infos))
	for _, o := range infos {
		named[digest(o.Name)] = o.Name
	}
	s.listed, s.named, s.at = infos, named, at
	return infos, nil
}

// hidden reports whether a name, or a folder in it, begins with _ or a dot: programs that write files keep
// there what is no output, or none yet, and so does the sink of this project.
func hidden(object string) bool {
	for part := range strings.SplitSeq(object, "/") {
		if strings.HasPrefix(part, "_") || strings.HasPrefix(part, ".") {
			return true
		}
	}
	return false
}

// laneOf is the lane of an object.
func (s *Source) laneOf(name string) int { return int(xxhash.Sum64String(name) % uint64(s.o.Lanes)) }

// Open implements consumers.Source.
func (s *Source) Open(_ context.Context, partition string, from stream.Position, end string) (consumers.Reader, error) {
	n, err := strconv.Atoi(strings.TrimPrefix(partition, "lane-"))
	if err != nil || n < 0 || n >= s.o.Lanes {
		return nil, fmt.Errorf("%s: %w", partition, stream.ErrPartitionGone)
	}
	r := &reader{s: s, lane: n, seen: make(map[name]tag)}
	if from.Token != "" {
		if r.scan, err = decodeScan(from.Token); err != nil {
			return nil, fmt.Errorf("position of %s: %w", partition, err)
		}
		r.token, r.index, r.done = from.Token, int(from.Number>>placeBits), from.Number&(1<<placeBits-1)
		if r.index < 0 || r.index > len(r.scan.members) || r.index == len(r.scan.members) && r.done > 0 {
			return nil, fmt.Errorf("position of %s: object %d of %d", partition, r.index, len(r.scan.members))
		}
		r.remember()
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
	index, place := int(p.Number>>placeBits), p.Number&givenUp
	if _, _, ours := strings.Cut(p.Token, "."); !ours {
		return p.String()
	}
	k, ok := memberOf(p.Token, index)
	if !ok {
		return fmt.Sprintf("behind %d objects", index)
	}
	s.mu.Lock()
	object, ok := s.named[k.name]
	s.mu.Unlock()
	if !ok {
		object = fmt.Sprintf("object %x", k.name)
	}
	if place == givenUp {
		return object
	}
	return fmt.Sprintf("%s:%d", object, place)
}

// mostAdded is how many additions are named.
const mostAdded = 20

// Additions names what a bounded run that has ended did not read: objects that were added, or written anew.
// ends holds the position at which each lane ended.
func (s *Source) Additions(ctx context.Context, ends map[string]stream.Position) ([]string, error) {
	infos, err := s.list(ctx, time.Now())
	if err != nil {
		return nil, err
	}
	read := make(map[name]tag)
	for lane, end := range ends {
		if end.Token == "" {
			continue // there was nothing in it
		}
		in, err := decodeScan(end.Token)
		if err != nil {
			return nil, fmt.Errorf("the end of %s: %w", lane, err)
		}
		for _, k := range slices.Concat(in.finished, in.members) {
			read[k.name] = k.tag
		}
	}
	var news []string
	for _, o := range infos {
		switch was, ok := read[digest(o.Name)]; {
		case !ok:
			news = append(news, fmt.Sprintf("%s: added, %d bytes", o.Name, o.Size))
		case was != tagOf(o):
			news = append(news, o.Name+": written anew")
		}
	}
	if len(news) > mostAdded {
		news = append(news[:mostAdded], fmt.Sprintf("and %d more", len(news)-mostAdded))
	}
	return news, nil
}

var errNames = errors.New("too many finished objects are still there")
