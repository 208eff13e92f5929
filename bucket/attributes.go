package bucket

import (
	"context"
	"strings"
)

// Attributes are what a store keeps of an object beside its bytes.
type Attributes struct {
	Metadata map[string]string // by lower-case name
	Tag      string            // changes whenever the object is written
}

// Describer is a bucket whose objects have attributes: those of S3, GCS and Azure. Millstream itself
// keeps nothing in them; other programs do.
type Describer interface {
	// Attributes reads an object's, ErrNotFound when there is none.
	Attributes(ctx context.Context, name string) (Attributes, error)
}

// Marker is a bucket whose objects can be given metadata. Keys are lower-case letters and digits.
type Marker interface {
	// PutMetadata writes an object without bytes that has these metadata, whether or not there is one.
	PutMetadata(ctx context.Context, name string, metadata map[string]string) error
}

var (
	_ Describer = (*cloud)(nil)
	_ Marker    = (*cloud)(nil)
)

func (c *cloud) Attributes(ctx context.Context, name string) (Attributes, error) {
	if err := ready(ctx, name); err != nil {
		return Attributes{}, err
	}
	got, err := c.b.Attributes(ctx, c.prefix+name)
	switch {
	case err != nil && c.missing(err):
		return Attributes{}, ErrNotFound
	case err != nil:
		return Attributes{}, c.failed(ctx, name, err)
	}
	a := Attributes{Metadata: make(map[string]string, len(got.Metadata)), Tag: got.ETag + got.ModTime.UTC().Format(" 2006-01-02T15:04:05.999999999Z")}
	for k, v := range got.Metadata {
		a.Metadata[strings.ToLower(k)] = v
	}
	return a, nil
}

func (c *cloud) PutMetadata(ctx context.Context, name string, metadata map[string]string) error {
	if err := ready(ctx, name); err != nil {
		return err
	}
	return c.failed(ctx, name, c.write(ctx, name, nil, false, metadata))
}
