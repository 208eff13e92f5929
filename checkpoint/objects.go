package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/stream"
)

const (
	// inlineMax is the largest blob, compressed, that an entry holds itself: a request saved is worth
	// more than the bytes.
	inlineMax = 32 << 10
	// frozenInlineMax bounds what all frozen slices of an entry hold inline. They are carried from
	// entry to entry for as long as the frontier waits, so beyond it they become objects.
	frozenInlineMax = 256 << 10
	// blobMax is the largest blob before compression that is read back.
	blobMax = 8 << 30
	// cacheMax bounds the bytes of objects that this process keeps for its own reading.
	cacheMax = 32 << 20
)

// packer compresses and decompresses blobs: zstd at its fastest. It is safe for concurrent use. Its
// coders are its own, and start no goroutines.
type packer struct {
	encoders sync.Pool
	decoders sync.Pool
}

// pack returns what from writes, compressed, and its size before.
func (p *packer) pack(from io.WriterTo) ([]byte, int64, error) {
	var buf bytes.Buffer
	enc, _ := p.encoders.Get().(*zstd.Encoder)
	if enc == nil {
		var err error
		enc, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
		if err != nil {
			return nil, 0, fmt.Errorf("zstd: %w", err)
		}
	}
	enc.Reset(&buf)
	n, err := from.WriteTo(enc)
	if err := errors.Join(err, enc.Close()); err != nil {
		return nil, 0, err
	}
	p.encoders.Put(enc)
	return buf.Bytes(), n, nil
}

// unpack is the inverse of pack. It allocates no more than what the stored bytes can plausibly become
// before it has seen them become it, and stops at size.
func (p *packer) unpack(stored []byte, size int64) ([]byte, error) {
	if size < 0 || size > blobMax {
		return nil, fmt.Errorf("a size of %d bytes", size)
	}
	dec, _ := p.decoders.Get().(*zstd.Decoder)
	if dec == nil {
		var err error
		dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderMaxMemory(blobMax))
		if err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
	}
	defer p.decoders.Put(dec)
	if err := dec.Reset(bytes.NewReader(stored)); err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	var buf bytes.Buffer
	buf.Grow(int(min(size, int64(len(stored))*64)) + bytes.MinRead)
	n, err := buf.ReadFrom(io.LimitReader(dec, size+1))
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	if n != size {
		return nil, fmt.Errorf("%d bytes instead of %d", n, size)
	}
	return buf.Bytes(), nil
}

// bytesTo is a run of bytes as something to write.
type bytesTo []byte

func (b bytesTo) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(b)
	return int64(n), err
}

// recent keeps objects that this process wrote, for its own merger and for its commits. It may be
// dropped at any time (M7).
type recent struct {
	mu    sync.Mutex
	data  map[string][]byte
	order []string
	size  int
}

func (c *recent) put(name string, stored []byte) {
	if len(stored) > cacheMax/4 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.data == nil {
		c.data = make(map[string][]byte)
	}
	c.data[name] = stored
	c.order = append(c.order, name)
	c.size += len(stored)
	for c.size > cacheMax {
		c.size -= len(c.data[c.order[0]])
		delete(c.data, c.order[0])
		c.order = c.order[1:]
	}
}

func (c *recent) get(name string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.data[name]
}

// writeObject creates an object of this process, repeating until it is there. An error is ctx's, or
// means that the name holds something else.
func (s *Store) writeObject(ctx context.Context, name string, stored []byte) error {
	for wait := s.backOff(); ; {
		err := s.bucket.Create(ctx, s.path(name), stored)
		if err == nil {
			return nil
		}
		if errors.Is(err, bucket.ErrExists) {
			var there []byte
			if there, err = s.bucket.Get(ctx, s.path(name)); err == nil {
				if bytes.Equal(there, stored) {
					return nil
				}
				return &Damaged{s.path(name), "the name was taken by other bytes"}
			}
		}
		s.logger.Warn("an object cannot be written: trying again", "object", s.path(name), "error", err)
		if err := wait.sleep(ctx); err != nil {
			return fmt.Errorf("object %s: %w", s.path(name), err)
		}
	}
}

// readBlob returns the bytes of a blob.
func (s *Store) readBlob(ctx context.Context, b stream.Blob) ([]byte, error) {
	stored, name := b.Inline, "inline blob"
	if b.Object != "" {
		name = s.path(b.Object)
		if stored = s.recent.get(b.Object); stored == nil {
			var err error
			if stored, err = s.readObject(ctx, b.Object); err != nil {
				return nil, err
			}
		}
		if xxhash.Sum64(stored) != b.Sum && !s.rules.skipDamaged {
			return nil, &Damaged{name, "checksum does not match"}
		}
	}
	data, err := s.pack.unpack(stored, b.Size)
	if err != nil {
		return nil, &Damaged{name, err.Error()}
	}
	return data, nil
}

// readObject gets an object, repeating until the store has answered.
func (s *Store) readObject(ctx context.Context, name string) ([]byte, error) {
	for wait := s.backOff(); ; {
		stored, err := s.bucket.Get(ctx, s.path(name))
		switch {
		case err == nil:
			return stored, nil
		case errors.Is(err, bucket.ErrNotFound):
			return nil, fmt.Errorf("object %s: %w", s.path(name), stream.ErrMissing)
		}
		s.logger.Warn("an object cannot be read: trying again", "object", s.path(name), "error", err)
		if err := wait.sleep(ctx); err != nil {
			return nil, fmt.Errorf("object %s: %w", s.path(name), err)
		}
	}
}
