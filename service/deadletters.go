package service

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/spf13/pflag"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/stream"
)

// LetterSettings are what commands on dead letters need: where they are, and which ones.
type LetterSettings struct {
	StoreSettings
	DeadLetter string
	Reasons    []string
	Since      string
}

// Register adds the flags of s to a flag set, with their defaults.
func (s *LetterSettings) Register(f *pflag.FlagSet) {
	s.StoreSettings.Register(f)
	f.StringVar(&s.DeadLetter, "dead-letter", "", "where the dead letters are, as given to run (default: dead-letter/ in the pipeline's folder)")
	f.StringArrayVar(&s.Reasons, "reason", nil, "only letters of this reason (repeatable)")
	f.StringVar(&s.Since, "since", "", "only letters written since then: RFC 3339, or a duration like 2h")
}

// Letter is a dead letter where it lies.
type Letter struct {
	stream.DeadLetter
	Line    []byte    // as it was written
	File    string    // its file's name
	Written time.Time // when its file was
}

// Letters opens the dead letters that the settings name. A range over them yields each in turn, by file;
// files are read one at a time. where says, for people, where they are; done closes them.
func (s *LetterSettings) Letters(ctx context.Context) (letters iter.Seq2[Letter, error], where string, done func(), err error) {
	since, err := s.since(time.Now())
	if err != nil {
		return nil, "", nil, err
	}
	setting, raw, prefix := "--dead-letter", s.DeadLetter, ""
	switch {
	case raw != "":
	case strings.HasPrefix(s.Checkpoint, "mem:"):
		raw = memoryLetters
	default:
		setting, raw, prefix = "--checkpoint", s.Checkpoint, besideLog(s.Name)
	}
	b, err := openLetters(ctx, setting, raw)
	if err != nil {
		return nil, "", nil, err
	}
	all := func(yield func(Letter, error) bool) {
		files, err := b.Objects(ctx, prefix)
		if err != nil {
			yield(Letter{}, err)
			return
		}
		slices.SortStableFunc(files, func(a, b bucket.Info) int { return a.Modified.Compare(b.Modified) })
		for _, file := range files {
			base := file.Name[strings.LastIndexByte(file.Name, '/')+1:]
			if strings.HasPrefix(base, "_") || strings.HasPrefix(base, ".") || file.Modified.Before(since) {
				continue
			}
			if !s.read(ctx, b, file, yield) {
				return
			}
		}
	}
	return all, strings.TrimSuffix(b.URL(), "/") + "/" + prefix, func() { b.Close() }, nil
}

// openLetters opens the place of dead letters without making it.
func openLetters(ctx context.Context, setting, raw string) (bucket.Bucket, error) {
	l, err := parseLocation(setting, raw)
	if err != nil {
		return nil, err
	}
	switch l.scheme {
	case "file":
		if _, ok := l.folder(); !ok {
			return nil, settingf(setting, "%s: no such folder: nothing has been written there, or this is not the setting of the run", absolute(strings.TrimPrefix(l.rest, "//")))
		}
	case "s3", "gs", "azblob":
	default:
		return nil, settingf(setting, "%s: only folders and buckets can be looked into; read the letters with a pipeline whose --source this is", raw)
	}
	return openBucket(ctx, setting, bucketURL(raw)) // how they were written shows in their names
}

// since is the earliest time that is asked for.
func (s *LetterSettings) since(now time.Time) (time.Time, error) {
	if s.Since == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s.Since); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, s.Since)
	if err != nil {
		return time.Time{}, settingf("--since", "%q is neither a time like 2026-01-01T00:00:00Z nor a duration like 2h", s.Since)
	}
	return t, nil
}

// read yields one file's letters, and reports whether to go on.
func (s *LetterSettings) read(ctx context.Context, b bucket.Bucket, file bucket.Info, yield func(Letter, error) bool) bool {
	r, err := b.Read(ctx, file.Name, 0)
	if errors.Is(err, bucket.ErrNotFound) {
		return true // deleted meanwhile
	}
	if err != nil {
		return yield(Letter{}, err)
	}
	defer r.Close()
	text, err := uncompressed(file.Name, r)
	if err != nil {
		return yield(Letter{}, fmt.Errorf("%s: %w", file.Name, err))
	}
	lines := bufio.NewReader(text)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil && !(errors.Is(err, io.EOF) && len(line) > 0) {
			return errors.Is(err, io.EOF) || yield(Letter{}, fmt.Errorf("%s: %w", file.Name, err))
		}
		line = bytes.TrimSuffix(line, []byte("\n"))
		l := Letter{Line: line, File: file.Name, Written: file.Modified}
		if err := json.Unmarshal(line, &l.DeadLetter); err != nil || l.Reason == "" {
			if !yield(Letter{}, fmt.Errorf("%s: a line is no dead letter: %.100q", file.Name, line)) {
				return false
			}
			continue
		}
		if len(s.Reasons) > 0 && !slices.Contains(s.Reasons, l.Reason) {
			continue
		}
		if !yield(l, nil) {
			return false
		}
	}
}

// uncompressed reads the lines of a file of letters.
func uncompressed(name string, r io.Reader) (io.Reader, error) {
	switch path.Ext(name) {
	case ".ndjson":
		return r, nil
	case ".gz":
		return gzip.NewReader(r)
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(64<<20))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return nil, errors.New("only letters written as NDJSON can be read back")
}

// Whole reports whether a letter holds all of its record.
func (l *Letter) Whole() bool { return l.Length <= int64(len(l.Raw)) }
