package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"gocloud.dev/blob"
)

const (
	// wholeUpTo is the size up to which an object goes in one request, as with Create.
	wholeUpTo = 4 << 20
	// uploadBuffer is what each request of a longer upload carries, and what the drivers hold in memory,
	// a few times.
	uploadBuffer = 8 << 20
)

// CreateFrom uploads in several requests what is longer than 4 MiB: GCS and Azure check the condition with
// the last one, and until then there is no object; of an upload that is given up nothing is visible, and
// the store drops its parts after a week. For S3 it goes through a temporary file into one request: see
// wholeS3.
func (c *cloud) CreateFrom(ctx context.Context, name string, write func(io.Writer) error) error {
	if err := ready(ctx, name); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := &spill{ctx: ctx, open: func() (io.WriteCloser, error) {
		if c.put == nil {
			return c.b.NewWriter(ctx, c.prefix+name, streaming())
		}
		return newSpool(func(body io.ReadSeeker, size int64) error { return c.put(ctx, c.prefix+name, body, size) })
	}}
	failure := write(w)
	if failure == nil {
		failure = ctx.Err()
	}
	if failure == nil && w.to == nil {
		return c.Create(ctx, name, w.head.Bytes())
	}
	if failure != nil {
		cancel() // before Close, which would otherwise make the object of what there is
	}
	if w.to != nil {
		closed := w.to.Close()
		if w.failed == nil && failure == nil {
			w.failed, failure = closed, closed
		}
	}
	switch {
	case w.failed == nil || !errors.Is(failure, w.failed):
		return failure
	case c.taken(w.failed):
		return ErrExists
	}
	return c.failed(ctx, name, failure)
}

func streaming() *blob.WriterOptions {
	return &blob.WriterOptions{
		IfNotExist: true, BufferSize: uploadBuffer, MaxConcurrency: 2,
		ContentType: "application/octet-stream", DisableContentTypeDetection: true,
	}
}

// spool is a temporary file without a name, which is uploaded when it is closed.
type spool struct {
	*os.File
	upload func(body io.ReadSeeker, size int64) error
}

func newSpool(upload func(io.ReadSeeker, int64) error) (*spool, error) {
	file, err := os.CreateTemp("", "millstream-upload-")
	if err != nil {
		return nil, fmt.Errorf("an object of more than %d MiB waits in a temporary file (TMPDIR): %w", wholeUpTo>>20, err)
	}
	if err := os.Remove(file.Name()); err != nil {
		file.Close()
		return nil, err
	}
	return &spool{file, upload}, nil
}

// Close uploads and lets the disk go. Under a context that has ended upload sends nothing.
func (s *spool) Close() error {
	defer s.File.Close()
	size, err := s.Seek(0, io.SeekCurrent)
	if err == nil {
		_, err = s.Seek(0, io.SeekStart)
	}
	if err != nil {
		return err
	}
	return s.upload(s.File, size)
}

// spill holds the beginning of an object in memory, and opens the upload when that is not all.
type spill struct {
	ctx    context.Context
	head   bytes.Buffer
	open   func() (io.WriteCloser, error)
	to     io.WriteCloser
	failed error // of the upload
}

func (s *spill) Write(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	if s.to == nil && s.head.Len()+len(p) <= wholeUpTo {
		return s.head.Write(p)
	}
	if s.to == nil {
		if s.to, s.failed = s.open(); s.failed != nil {
			s.to = nil
			return 0, s.failed
		}
		if _, s.failed = s.to.Write(s.head.Bytes()); s.failed != nil {
			return 0, s.failed
		}
		s.head = bytes.Buffer{}
	}
	n, err := s.to.Write(p)
	if err != nil {
		s.failed = err
	}
	return n, err
}

func (m *memory) CreateFrom(ctx context.Context, name string, write func(io.Writer) error) error {
	if err := ready(ctx, name); err != nil {
		return err
	}
	var data bytes.Buffer
	if err := filled(ctx, &data, write); err != nil {
		return err
	}
	return m.Create(ctx, name, data.Bytes())
}

func (f *folder) CreateFrom(ctx context.Context, name string, write func(io.Writer) error) error {
	if err := ready(ctx, name); err != nil {
		return err
	}
	to := f.path(name)
	if err := taken(to); err != nil {
		return err // before anything is written
	}
	return f.write(to, func(w io.Writer) error { return filled(ctx, w, write) }, f.linked)
}

// filled has write fill w, as long as ctx does not end.
func filled(ctx context.Context, w io.Writer, write func(io.Writer) error) error {
	if err := write(&contextWriter{w, ctx}); err != nil {
		return err
	}
	return ctx.Err()
}

// contextWriter ends with its context.
type contextWriter struct {
	io.Writer
	ctx context.Context
}

func (w *contextWriter) Write(p []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	return w.Writer.Write(p)
}
