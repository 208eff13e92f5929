package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// cloud is a bucket of gocloud.dev/blob.
type cloud struct {
	b      *blob.Bucket
	prefix string
	url    string
	// conflict reports whether a failed conditional write means for certain that the name is taken.
	conflict func(error) bool
}

func (c *cloud) Create(ctx context.Context, name string, data []byte) error {
	err := c.write(ctx, name, data, true)
	if err != nil && c.conflict(err) {
		return ErrExists
	}
	return err
}

func (c *cloud) Put(ctx context.Context, name string, data []byte) error {
	return c.write(ctx, name, data, false)
}

func (c *cloud) write(ctx context.Context, name string, data []byte, ifNotExist bool) error {
	if err := ready(ctx, name); err != nil {
		return err
	}
	// The drivers allocate whole buffers before the first byte: 16 MiB on GCS, 8 MiB on Azure.
	return c.b.WriteAll(ctx, c.prefix+name, data, &blob.WriterOptions{
		IfNotExist: ifNotExist, BufferSize: min(max(len(data), 1<<10), 8<<20),
		ContentType: "application/octet-stream", DisableContentTypeDetection: true,
	})
}

func (c *cloud) Get(ctx context.Context, name string) ([]byte, error) {
	if err := ready(ctx, name); err != nil {
		return nil, err
	}
	data, err := c.b.ReadAll(ctx, c.prefix+name)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil, ErrNotFound
	}
	return data, err
}

func (c *cloud) List(ctx context.Context, prefix string) ([]string, error) {
	var names []string
	pages := c.b.List(&blob.ListOptions{Prefix: c.prefix + prefix})
	for {
		o, err := pages.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if name := strings.TrimPrefix(o.Key, c.prefix); validName(name) == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (c *cloud) Delete(ctx context.Context, name string) error {
	if err := ready(ctx, name); err != nil {
		return err
	}
	err := c.b.Delete(ctx, c.prefix+name)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil
	}
	return err
}

func (c *cloud) URL() string  { return c.url }
func (c *cloud) Close() error { return c.b.Close() }

func failedPrecondition(err error) bool { return gcerrors.Code(err) == gcerrors.FailedPrecondition }

func where(scheme, name, prefix string) string {
	return strings.TrimSuffix(fmt.Sprintf("%s://%s/%s", scheme, name, prefix), "/")
}
