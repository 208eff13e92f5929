package file

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"time"
)

// tail is a file that may grow while it is read.
type tail struct {
	f    *os.File
	path string
	at   int64  // of the next read
	mark string // of the bytes before at when it was saved; empty: unknown
	end  int64  // reading ends here
}

// resume checks that the file is the one whose position was saved, as far as its bytes tell, and
// goes there.
func (t *tail) resume() error {
	info, err := t.f.Stat()
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	if info.Size() < t.at {
		return t.truncated(info.Size())
	}
	if t.at > 0 && t.at < min(t.end, info.Size()) {
		var b [2]byte
		if _, err := t.f.ReadAt(b[:], t.at-1); err != nil {
			return fmt.Errorf("source: %w", err)
		}
		if b[0] != '\n' && b[1] != '\n' && b[1] != '\r' {
			return fmt.Errorf("source %s: no line begins at byte %d, where reading goes on: the file was replaced, or its last line, taken as complete, was continued; use a new --name to read it from the beginning", t.path, t.at)
		}
	}
	if err := t.recognize(); err != nil {
		return err
	}
	if _, err := t.f.Seek(t.at, io.SeekStart); err != nil {
		return fmt.Errorf("source: %w", err)
	}
	return nil
}

// markBytes is how many bytes before a position its mark covers at most.
const markBytes = 1 << 10

// markOf is the length and checksum of the bytes that read ends with. Files only grow, so whoever resumes
// behind them finds the same bytes there, unless it is another file, or another content, of that name.
func markOf(read []byte) string {
	b := read[max(0, len(read)-markBytes):]
	return fmt.Sprintf("%x-%08x", len(b), crc32.ChecksumIEEE(b))
}

// recognize compares the bytes before the position with its mark.
func (t *tail) recognize() error {
	var n int
	if _, err := fmt.Sscanf(t.mark, "%x-", &n); err != nil || n > markBytes || int64(n) > t.at {
		return nil // saved without one
	}
	b := make([]byte, n)
	if _, err := t.f.ReadAt(b, t.at-int64(n)); err != nil {
		return fmt.Errorf("source: %w", err)
	}
	if markOf(b) != t.mark {
		return fmt.Errorf("source %s: the %d bytes before byte %d, where reading goes on, are not those that were read: the file was replaced or rewritten; use a new --name to read it from the beginning", t.path, n, t.at)
	}
	return nil
}

func (t *tail) truncated(size int64) error {
	return fmt.Errorf("source %s: the file has %d bytes, but %d were read from it: it was truncated or replaced; use a new --name to read it from the beginning", t.path, size, t.at)
}

func (t *tail) read(_ context.Context, p []byte) (int, bool, error) {
	n, err := t.f.Read(p)
	t.at += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("source: %w", err)
	}
	return n, n < len(p), err
}

func (t *tail) follow() (bool, error) {
	if t.at >= t.end {
		return false, nil
	}
	here, err := t.f.Stat()
	if err != nil {
		return false, fmt.Errorf("source: %w", err)
	}
	if here.Size() < t.at || t.end != unlimited && here.Size() < t.end {
		return false, t.truncated(here.Size())
	}
	there, err := os.Stat(t.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return here.Size() > t.at, nil // removed: all of it is read, and nothing can follow
	case err != nil:
		return false, fmt.Errorf("source: %w", err)
	case !os.SameFile(here, there):
		return false, fmt.Errorf("source %s: another file took its place while it was read; use a new --name to read that one", t.path)
	}
	return true, nil
}

func (t *tail) wait(ctx context.Context, d time.Duration) error { return pause(ctx, d) }

func (t *tail) close() error { return t.f.Close() }

// pump reads a stream that cannot be interrupted on a goroutine of its own, one chunk ahead.
type pump struct {
	chunks chan []byte // closed at the end, after err is set
	stop   chan struct{}
	err    error
	rest   []byte
	ended  bool
}

const chunkSize = 64 << 10

func newPump(in io.Reader) *pump {
	p := &pump{chunks: make(chan []byte), stop: make(chan struct{})}
	go func() {
		defer close(p.chunks)
		for {
			buf := make([]byte, chunkSize)
			n, err := in.Read(buf)
			if n > 0 {
				select {
				case p.chunks <- buf[:n]:
				case <-p.stop:
					return
				}
			}
			if err != nil {
				if err != io.EOF {
					p.err = fmt.Errorf("standard input: %w", err)
				}
				return
			}
		}
	}()
	return p
}

func (p *pump) read(_ context.Context, b []byte) (int, bool, error) {
	if len(p.rest) == 0 && !p.ended {
		select {
		case chunk, ok := <-p.chunks:
			p.got(chunk, ok)
		default:
		}
	}
	if len(p.rest) == 0 {
		if p.ended && p.err != nil {
			return 0, true, p.err
		}
		return 0, true, io.EOF
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, false, nil
}

func (p *pump) got(chunk []byte, ok bool) { p.rest, p.ended = chunk, !ok }

func (p *pump) follow() (bool, error) { return !p.ended, nil }

func (p *pump) wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case chunk, ok := <-p.chunks:
		p.got(chunk, ok)
		return nil
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *pump) close() error {
	close(p.stop)
	return nil
}
