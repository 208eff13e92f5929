package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"gocloud.dev/blob"
)

// attempts is how often a driver offers a request before it reports the failure: callers have retries
// of their own, which know more. It is the AWS SDK's default.
const attempts = 3

// cloud is a bucket of gocloud.dev/blob. What an error means is read from the provider's own error:
// the library calls several failures NotFound that are not an object's absence (a 403 of GCS, any 404
// and an unresolved host name of Azure, a missing bucket of S3).
type cloud struct {
	b      *blob.Bucket
	prefix string
	url    string
	verdict
	remove func(ctx context.Context, key string) error // the library's, unless the driver has a better one
	// before adjusts the driver's writer for so many bytes; nil when there is nothing to adjust.
	before func(size int) func(as func(any) bool) error
	// put creates an object of a known size in one request; nil where the library's writer does as well.
	put func(ctx context.Context, key string, body io.ReadSeeker, size int64) error
}

// verdict reads one provider's errors.
type verdict struct {
	taken   func(error) bool   // a conditional write was refused, for certain, since the name is taken
	missing func(error) bool   // there is no such object, in a bucket that answers
	explain func(error) string // the provider's reason in words, "" when it gave none
}

func (c *cloud) Create(ctx context.Context, name string, data []byte) error {
	if err := ready(ctx, name); err != nil {
		return err
	}
	err := c.write(ctx, name, data, true, nil)
	if err != nil && c.taken(err) {
		return ErrExists
	}
	return c.failed(ctx, name, err)
}

func (c *cloud) Put(ctx context.Context, name string, data []byte) error {
	if err := ready(ctx, name); err != nil {
		return err
	}
	return c.failed(ctx, name, c.write(ctx, name, data, false, nil))
}

// write uploads with a buffer that fits, since the drivers allocate all of theirs before the first
// byte: 16 MiB on GCS, 8 MiB on Azure. One byte more than the data makes it one request. Beyond the
// largest buffer GCS and Azure get several, and check the condition with the last one.
func (c *cloud) write(ctx context.Context, name string, data []byte, ifNotExist bool, metadata map[string]string) error {
	options := blob.WriterOptions{
		IfNotExist: ifNotExist, Metadata: metadata, BufferSize: min(len(data)+1, 8<<20),
		ContentType: "application/octet-stream", DisableContentTypeDetection: true,
	}
	if c.before != nil {
		options.BeforeWrite = c.before(len(data))
	}
	return c.b.WriteAll(ctx, c.prefix+name, data, &options)
}

func (c *cloud) Get(ctx context.Context, name string) ([]byte, error) {
	if err := ready(ctx, name); err != nil {
		return nil, err
	}
	data, err := c.b.ReadAll(ctx, c.prefix+name)
	if err != nil && c.missing(err) {
		return nil, ErrNotFound
	}
	return data, c.failed(ctx, name, err)
}

func (c *cloud) List(ctx context.Context, prefix string) ([]string, error) {
	infos, err := c.Objects(ctx, prefix)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(infos))
	for i := range infos {
		names[i] = infos[i].Name
	}
	return names, nil
}

func (c *cloud) Delete(ctx context.Context, name string) error {
	if err := ready(ctx, name); err != nil {
		return err
	}
	err := c.remove(ctx, c.prefix+name)
	if err != nil && c.missing(err) {
		return nil
	}
	return c.failed(ctx, name, err)
}

func (c *cloud) URL() string  { return c.url }
func (c *cloud) Close() error { return c.b.Close() }

// failure is an error of a provider in one line, without what a signed URL would give away.
type failure struct {
	text string
	err  error
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.err }

func (c *cloud) failed(ctx context.Context, name string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		err = fmt.Errorf("%w (%w)", ctx.Err(), err)
	}
	text := c.explain(err)
	if text == "" {
		text = err.Error()
		var request *url.Error
		if errors.As(err, &request) {
			text = fmt.Sprintf("cannot reach %s: %v", redact(request.URL), request.Err)
		}
	}
	return &failure{fmt.Sprintf("%s: %s", name, strings.Join(strings.Fields(text), " ")), err}
}

// answer words what a provider answered: its code, its message when that says more, and the status.
func answer(code, message string, status int) string {
	if message = strings.TrimSpace(message); message == "" || message == code {
		return fmt.Sprintf("%s (HTTP %d)", code, status)
	}
	return fmt.Sprintf("%s: %s (HTTP %d)", code, message, status)
}

func where(scheme, name, prefix string) string {
	return strings.TrimSuffix(fmt.Sprintf("%s://%s/%s", scheme, name, prefix), "/")
}
