// Package file reads newline-delimited records from a file, from the *.ndjson files of a folder, or
// from the standard input.
//
// A file is a partition, named by its base name. A record is a line without its LF or CRLF; empty
// lines are skipped. The position of a record, and of a fetch, is the number of bytes from the
// file's beginning to the first byte behind the line, its line end included; so a record's first
// byte is at its position less its length and line end. A reader resumes at exactly that byte.
//
// Files may only grow at their end. A reader waits for more, and takes a line without a line end for
// unfinished; with Options.UntilEnd it ends at the size that the file had when the pipeline began,
// and a last line without a line end is a record. A file that has become shorter than its position,
// or another file, is an error.
//
// The standard input is one partition that cannot be read twice: after a crash its unsaved records
// are gone (at most once), and a restarted pipeline reads what its new standard input holds.
package file

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/stream"
)

const (
	// MaxRecord is the longest line that is delivered whole, 10 MiB. Of a longer one, which is
	// skipped without being held in memory, a record has only the first OversizeKept bytes.
	MaxRecord    = 10 << 20
	OversizeKept = 64 << 10

	stdin     = "stdin"
	extension = ".ndjson"
)

// Options says what to read.
type Options struct {
	Path     string    // a file, a folder, or "-" for the standard input
	Rate     int       // records a second of each partition; 0: as fast as they are taken
	UntilEnd bool      // end where the files end when the pipeline begins, instead of waiting for more
	Stdin    io.Reader // read for "-"; default os.Stdin
}

// Parse reads a source as the command line has it: PATH, file:///DIR-or-FILE?rate=N, stdin: or -.
func Parse(source string) (Options, error) {
	if source == "-" || source == "stdin:" {
		return Options{Path: "-"}, nil
	}
	if !strings.HasPrefix(source, "file:") {
		if source == "" {
			return Options{}, errors.New("source: the path is empty")
		}
		return Options{Path: source}, nil
	}
	u, err := url.Parse(source)
	if err != nil {
		return Options{}, fmt.Errorf("source %s: %w", source, err)
	}
	if u.Host != "" || u.Opaque != "" || u.Path == "" {
		return Options{}, fmt.Errorf("source %s: write file:///absolute/path, or a path alone", source)
	}
	o := Options{Path: u.Path}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Options{}, fmt.Errorf("source %s: %w", source, err)
	}
	for name, values := range query {
		if name != "rate" {
			return Options{}, fmt.Errorf("source %s: unknown parameter %s; a file source has only rate", source, name)
		}
		if o.Rate, err = strconv.Atoi(values[len(values)-1]); err != nil || o.Rate < 1 {
			return Options{}, fmt.Errorf("source %s: rate is records a second, a whole number from 1", source)
		}
	}
	return o, nil
}

// Source is a file source; it implements consumers.Source.
type Source struct {
	o      Options
	path   string // absolute
	folder bool

	mu    sync.Mutex
	stdin *lines // the one reader of the standard input
}

var _ consumers.Source = (*Source)(nil)

// New checks that the path can be read.
func New(o Options) (*Source, error) {
	if o.Rate < 0 {
		return nil, fmt.Errorf("source %s: rate is negative", o.Path)
	}
	s := &Source{o: o}
	if o.Path == "-" {
		if o.Stdin == nil {
			s.o.Stdin = os.Stdin
		}
		return s, nil
	}
	abs, err := filepath.Abs(o.Path)
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", o.Path, err)
	}
	s.path = abs
	info, err := os.Stat(abs)
	if err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	switch {
	case info.IsDir():
		s.folder = true
		names, err := s.names()
		if err != nil {
			return nil, err
		}
		if o.UntilEnd && len(names) == 0 {
			return nil, fmt.Errorf("source %s: the folder has no *%s files, and there is no waiting for them until the end", o.Path, extension)
		}
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("source %s: neither a file nor a folder; pipe it into the standard input and use -", o.Path)
	case filepath.Base(abs) == stream.MergerPartition:
		return nil, fmt.Errorf("source %s: the name is reserved, rename the file", o.Path)
	default:
		f, err := os.Open(abs)
		if err != nil {
			return nil, fmt.Errorf("source: %w", err)
		}
		f.Close()
	}
	return s, nil
}

// Identity is "file:" and the absolute path, or "stdin:".
func (s *Source) Identity() string {
	if s.path == "" {
		return "stdin:"
	}
	return "file:" + s.path
}

// names lists the source's files.
func (s *Source) names() ([]string, error) {
	if !s.folder {
		return []string{filepath.Base(s.path)}, nil
	}
	entries, err := os.ReadDir(s.path)
	if err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	var names []string
	for _, e := range entries {
		if !s.isPartition(e.Name()) {
			continue
		}
		// A symbolic link counts as what it leads to. Pipes and devices are not files.
		if info, err := os.Stat(s.file(e.Name())); err == nil && info.Mode().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, nil // ReadDir has sorted them
}

func (s *Source) isPartition(name string) bool {
	if !s.folder {
		return name == filepath.Base(s.path)
	}
	return strings.HasSuffix(name, extension) && name[0] != '_' && name[0] != '.' && !strings.ContainsRune(name, filepath.Separator)
}

func (s *Source) file(partition string) string {
	if s.folder {
		return filepath.Join(s.path, partition)
	}
	return s.path
}

// Partitions implements stream.Source.
func (s *Source) Partitions(context.Context) ([]stream.Partition, error) {
	if s.path == "" {
		return []stream.Partition{{Name: stdin}}, nil
	}
	names, err := s.names()
	ps := make([]stream.Partition, len(names))
	for i, name := range names {
		ps[i].Name = name
	}
	return ps, err
}

// sizes returns the present size of every file.
func (s *Source) sizes() (map[string]int64, error) {
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	sizes := make(map[string]int64, len(names))
	for _, name := range names {
		info, err := os.Stat(s.file(name))
		if errors.Is(err, fs.ErrNotExist) && s.folder {
			continue // removed since it was listed
		}
		if err != nil {
			return nil, fmt.Errorf("source: %w", err)
		}
		sizes[name] = info.Size()
	}
	return sizes, nil
}

// Tip implements stream.Source: with UntilEnd the size of every file, so that a bounded run is exact
// although files grow. A file that is not in it is empty for that run.
func (s *Source) Tip(context.Context) (string, error) {
	if !s.o.UntilEnd || s.path == "" {
		return "", nil
	}
	sizes, err := s.sizes()
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(sizes)
	return string(b), err
}

// Additions names what a bounded run that has ended did not read, one text a file: files that were
// added, and bytes that were appended. ends holds the position at which each partition ended.
func (s *Source) Additions(_ context.Context, ends map[string]stream.Position) ([]string, error) {
	if s.path == "" {
		return nil, nil
	}
	sizes, err := s.sizes()
	if err != nil {
		return nil, err
	}
	var news []string
	for name, size := range sizes {
		end, known := ends[name]
		switch {
		case !known || end.Number == 0 && size > 0:
			news = append(news, fmt.Sprintf("%s: added, %d bytes", name, size))
		case size > end.Number:
			news = append(news, fmt.Sprintf("%s: %d bytes appended", name, size-end.Number))
		}
	}
	slices.Sort(news)
	return news, nil
}

// Open implements consumers.Source.
func (s *Source) Open(_ context.Context, partition string, from stream.Position, tip string) (consumers.Reader, error) {
	if s.path == "" {
		return s.openStdin(partition, from)
	}
	if !s.isPartition(partition) {
		return nil, fmt.Errorf("source %s has no partition %q", s.path, partition)
	}
	path := s.file(partition)
	end, err := s.limit(partition, path, tip)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("source %s: %w", path, stream.ErrPartitionGone)
	}
	if err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	t := &tail{f: f, path: path, at: from.Number, mark: from.Token, end: end}
	if err := t.resume(); err != nil {
		f.Close()
		return nil, err
	}
	return newLines(t, from, end, s.o.Rate), nil
}

// limit is the byte at which reading ends, unlimited without a tip.
func (s *Source) limit(partition, path, tip string) (int64, error) {
	if tip != "" {
		var ends map[string]int64
		if err := json.Unmarshal([]byte(tip), &ends); err != nil {
			return 0, fmt.Errorf("source %s: the saved end is not one of a file source: %w", s.path, err)
		}
		return ends[partition], nil
	}
	if !s.o.UntilEnd {
		return unlimited, nil
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("source %s: %w", path, stream.ErrPartitionGone)
	}
	if err != nil {
		return 0, fmt.Errorf("source: %w", err)
	}
	return info.Size(), nil
}

func (s *Source) openStdin(partition string, from stream.Position) (consumers.Reader, error) {
	if partition != stdin {
		return nil, fmt.Errorf("the standard input has no partition %q", partition)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stdin == nil {
		s.stdin = newLines(newPump(s.o.Stdin), from, unlimited, s.o.Rate)
	}
	if s.stdin.at != from.Number {
		return nil, fmt.Errorf("the standard input cannot be read again from byte %d: %d bytes of it have been read", from.Number, s.stdin.at)
	}
	return shared{s.stdin}, nil
}

// shared is the reader of the standard input, which goes on where the last claim left off.
type shared struct{ *lines }

func (shared) Close() error { return nil }

// Close implements consumers.Source.
func (s *Source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stdin == nil {
		return nil
	}
	in := s.stdin
	s.stdin = nil
	return in.Close()
}
