package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"gocloud.dev/blob"
)

// Info is what Objects says of an object.
type Info struct {
	Name     string
	Size     int64
	Modified time.Time // by the store's clock
	Tag      string    // changes whenever the object is written
}

func (c *cloud) Objects(ctx context.Context, prefix string) ([]Info, error) {
	if err := readyList(ctx, prefix); err != nil {
		return nil, err
	}
	var infos []Info
	pages := c.b.List(&blob.ListOptions{Prefix: c.prefix + prefix})
	for {
		o, err := pages.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, c.failed(ctx, prefix, err)
		}
		if name := strings.TrimPrefix(o.Key, c.prefix); validName(name) == nil { // other names are not ours
			infos = append(infos, Info{name, o.Size, o.ModTime.UTC(), tag(o.ModTime, o.Size, o.MD5)})
		}
	}
	sortInfos(infos)
	return infos, nil
}

func (c *cloud) Read(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	if err := ready(ctx, name); err != nil {
		return nil, err
	}
	r, err := c.b.NewRangeReader(ctx, c.prefix+name, offset, -1, nil)
	switch {
	case err != nil && c.missing(err):
		return nil, ErrNotFound
	case err != nil:
		return nil, c.failed(ctx, name, err)
	}
	return &cloudReader{r, ctx, c, name}, nil
}

// cloudReader words errors as its bucket does.
type cloudReader struct {
	*blob.Reader
	ctx  context.Context
	c    *cloud
	name string
}

func (r *cloudReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = r.c.failed(r.ctx, r.name, err)
	}
	return n, err
}

func (f *folder) Objects(ctx context.Context, prefix string) ([]Info, error) {
	names, err := f.List(ctx, prefix)
	if err != nil {
		return nil, err
	}
	infos := make([]Info, 0, len(names))
	for _, name := range names {
		info, err := os.Stat(f.path(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, failed(f.path(name), err)
		}
		infos = append(infos, Info{name, info.Size(), info.ModTime().UTC(), tag(info.ModTime(), info.Size(), nil)})
	}
	return infos, nil
}

func (f *folder) Read(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	if err := ready(ctx, name); err != nil {
		return nil, err
	}
	file, err := os.Open(f.path(name))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		if err := f.there(); err != nil {
			return nil, failed(f.root, err)
		}
		return nil, ErrNotFound
	case err != nil:
		return nil, failed(f.path(name), err)
	}
	info, err := file.Stat()
	if err == nil && info.IsDir() {
		file.Close()
		return nil, ErrNotFound
	}
	if err == nil {
		_, err = file.Seek(offset, io.SeekStart)
	}
	if err != nil {
		file.Close()
		return nil, failed(f.path(name), err)
	}
	return &contextReader{file, ctx}, nil
}

func (m *memory) Objects(ctx context.Context, prefix string) ([]Info, error) {
	if err := readyList(ctx, prefix); err != nil {
		return nil, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	var infos []Info
	for name, data := range m.objects {
		if strings.HasPrefix(name, prefix) {
			at := m.written[name]
			infos = append(infos, Info{name, int64(len(data)), at.at, tag(at.at, at.count, nil)})
		}
	}
	sortInfos(infos)
	return infos, nil
}

func (m *memory) Read(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	data, err := m.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	return &contextReader{io.NopCloser(bytes.NewReader(data[min(offset, int64(len(data))):])), ctx}, nil
}

// contextReader ends with its context.
type contextReader struct {
	io.ReadCloser
	ctx context.Context
}

func (r *contextReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.ReadCloser.Read(p)
}

func tag(modified time.Time, size int64, sum []byte) string {
	return fmt.Sprintf("%s %d %x", modified.UTC().Format(time.RFC3339Nano), size, sum)
}

func sortInfos(infos []Info) {
	slices.SortFunc(infos, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
}
