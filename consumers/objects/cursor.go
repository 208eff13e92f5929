package objects

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/stream"
)

// Reasons of refused records.
const (
	ReasonUnknown = "unknown kind of file"
	ReasonBroken  = "broken file"
	ReasonRow     = "row does not fit its header"
	ReasonChanged = "file was written anew while it was read"
)

const (
	// MaxRecord is the largest record that is delivered whole, refusedKept what is kept of others.
	MaxRecord   = 10 << 20
	refusedKept = 64 << 10
	// Beyond freely bytes an object that unpacks to more than mostRatio times its size is refused.
	freely    = 64 << 20
	mostRatio = 100
)

// element is a record, and the place behind it.
type element struct {
	data    []byte
	place   int64
	refused *stream.Refusal
}

// format reads the records of an object one by one. io.EOF is the end; another error is the content's, and
// the last.
type format interface {
	next() (element, error)
}

// cursor reads an object from a place on.
type cursor struct {
	source *source
	format format
	skip   int64  // the place from which records are new
	broken bool   // the content's error is told
	at     int64  // the place behind the last record
	reason string // of the refused record that the content's error is
}

// source is an object's bytes, and what was wrong with reading them.
type source struct {
	io.ReadCloser
	read int64
	err  error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	s.read += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// begin opens an object at a place.
func (s *Source) begin(ctx context.Context, o bucket.Info, place int64) (*cursor, error) {
	kind, packed := s.kindOf(o.Name)
	if kind == "" {
		return &cursor{
			format: &failing{fmt.Errorf("%s: a name ends in .ndjson, .jsonl, .json or .csv, with .gz or .zst if it is compressed; else say format=", o.Name)},
			skip:   place, reason: ReasonUnknown,
		}, nil
	}
	offset := int64(0)
	if kind == NDJSON && packed == None {
		offset = place
		if offset >= o.Size {
			return &cursor{format: &failing{io.EOF}}, nil
		}
	}
	raw, err := s.o.Bucket.Read(ctx, o.Name, offset)
	if err != nil {
		return nil, err
	}
	c := &cursor{source: &source{ReadCloser: raw}, skip: place, reason: ReasonBroken}
	text, err := c.unpacked(packed)
	if err != nil {
		if c.source.err != nil {
			c.close()
			return nil, c.source.err
		}
		c.format = &failing{fmt.Errorf("%s: %w", o.Name, err)}
		return c, nil
	}
	switch kind {
	case NDJSON:
		c.format = &lines{in: bufio.NewReaderSize(text, 64<<10), at: offset, counts: packed != None, first: offset == 0}
	case JSON:
		c.format = newValues(text)
	case CSV:
		c.format = newRows(text)
	}
	return c, nil
}

// changed is the rest of an object that was written anew.
func changed(o bucket.Info, place int64) *cursor {
	return &cursor{
		format: &failing{fmt.Errorf("%s: what is behind place %d was not read, since it belongs to another content", o.Name, place)},
		skip:   place, at: givenUp - 1, reason: ReasonChanged,
	}
}

// kindOf says what an object holds, by its name where the options do not say.
func (s *Source) kindOf(object string) (kind, packed string) {
	base := strings.ToLower(path.Base(object))
	packed = s.o.Compression
	for suffix, c := range map[string]string{".gz": Gzip, ".gzip": Gzip, ".zst": Zstd, ".zstd": Zstd} {
		if strings.HasSuffix(base, suffix) {
			base = strings.TrimSuffix(base, suffix)
			if packed == Auto {
				packed = c
			}
			break
		}
	}
	if packed == Auto {
		packed = None
	}
	if s.o.Format != Auto {
		return s.o.Format, packed
	}
	switch path.Ext(base) {
	case ".ndjson", ".jsonl":
		return NDJSON, packed
	case ".json":
		return JSON, packed
	case ".csv":
		return CSV, packed
	}
	return "", packed
}

func (c *cursor) unpacked(packed string) (io.Reader, error) {
	switch packed {
	case Gzip:
		z, err := gzip.NewReader(bufio.NewReaderSize(c.source, 64<<10))
		if err != nil {
			return nil, err
		}
		return &bounded{in: z, source: c.source}, nil
	case Zstd:
		z, err := zstd.NewReader(c.source, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, err
		}
		return &bounded{in: z.IOReadCloser(), source: c.source}, nil
	}
	return c.source, nil
}

// bounded ends a stream that unpacks to more than it should.
type bounded struct {
	in     io.Reader
	source *source
	out    int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.in.Read(p)
	b.out += int64(n)
	if err == nil && b.out > freely && b.out > mostRatio*b.source.read {
		return 0, fmt.Errorf("it unpacks to more than %d times its size", mostRatio)
	}
	return n, err
}

func (c *cursor) close() {
	if c.source != nil {
		c.source.Close()
	}
}

// next returns the next record that is new; io.EOF at the end. What is wrong with the content is a refused
// record, the last one; another error is the store's.
func (c *cursor) next() (element, error) {
	for {
		if c.broken {
			return element{}, io.EOF
		}
		e, err := c.format.next()
		switch {
		case c.source != nil && c.source.err != nil && (err != nil || e.refused != nil):
			return element{}, c.source.err // which may be why it does not fit
		case err == nil:
		case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			return element{}, io.EOF
		default:
			c.broken = true
			e = element{data: []byte{}, place: c.at + 1, refused: &stream.Refusal{Reason: c.reason, Detail: err.Error()}}
		}
		c.at = e.place
		if e.place > c.skip {
			return e, nil
		}
	}
}

// failing is content that cannot be read at all.
type failing struct{ err error }

func (f *failing) next() (element, error) { return element{}, f.err }

// lines are NDJSON. Places are bytes, or count records where bytes cannot be asked for.
type lines struct {
	in     *bufio.Reader
	at     int64
	counts bool
	count  int64
	first  bool // nothing is read yet, and at is the object's beginning
}

func (l *lines) next() (element, error) {
	for {
		var line []byte
		length := int64(0)
		for {
			part, err := l.in.ReadSlice('\n')
			length += int64(len(part))
			if len(line)+len(part) <= MaxRecord+2 {
				line = append(line, part...)
			}
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if err != nil && (!errors.Is(err, io.EOF) || length == 0) {
				return element{}, err
			}
			break
		}
		l.at += length
		text := bytes.TrimRight(line, "\r\n")
		if l.first {
			l.first, text = false, bytes.TrimPrefix(text, bom)
		}
		if len(bytes.TrimSpace(text)) == 0 && length == int64(len(line)) {
			continue
		}
		l.count++
		e := element{data: text, place: l.at}
		if l.counts {
			e.place = l.count
		}
		if length > int64(len(line)) || len(text) > MaxRecord {
			e.data, e.refused = bytes.Clone(text[:min(len(text), refusedKept)]), stream.TooLarge(length)
		}
		return e, nil
	}
}
