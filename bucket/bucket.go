// Package bucket is the one thing that Millstream needs from a store: objects by name, of which
// exactly one writer wins.
//
// An object is created under a name that nobody has used, once, and never changes; a few names, such
// as a member's heartbeat, are overwritten whole. Create is the only operation on which correctness
// rests: of any number of writers racing for a name exactly one succeeds, and readers see all of its
// bytes or nothing. S3, GCS and Azure Blob promise that with conditional writes, through
// gocloud.dev/blob; a local folder promises it with link(2), which Folder uses, and which that
// library's own folder driver does not. Check finds out, at start-up, whether a store keeps the
// promise.
package bucket

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

var (
	// ErrExists is returned by Create when the name is taken. The bytes there may be the caller's
	// own, from an attempt whose answer was lost: read them back.
	ErrExists = errors.New("the object exists already")
	// ErrNotFound is returned by Get for a name that holds nothing.
	ErrNotFound = errors.New("no such object")
)

// Bucket stores objects. All methods may be called concurrently. Names are relative, of segments
// separated by "/"; no segment is empty, "." or "..", or begins with ".tmp-". Data is not kept by the
// bucket after a call, and what Get returns belongs to the caller.
type Bucket interface {
	// Create writes an object if there is none of that name. ErrExists is certain; after any other
	// error the object may be there, may not be, or may still appear.
	Create(ctx context.Context, name string, data []byte) error
	// Put writes an object whether or not there is one. Readers see the old bytes or the new.
	Put(ctx context.Context, name string, data []byte) error
	// Get reads an object, ErrNotFound when there is none.
	Get(ctx context.Context, name string) ([]byte, error)
	// List returns every name that begins with prefix, sorted.
	List(ctx context.Context, prefix string) ([]string, error)
	// Delete removes an object. One that is not there is no error.
	Delete(ctx context.Context, name string) error
	// URL says where the bucket is, without secrets, for messages.
	URL() string
	Close() error
}

// Open opens a bucket by URL:
//
//	PATH, file:///DIR                      a local folder, made if need be
//	s3://BUCKET/PREFIX?region=&endpoint=   an endpoint means path-style addressing
//	gs://BUCKET/PREFIX?endpoint=           an endpoint, or STORAGE_EMULATOR_HOST, means anonymous access
//	azblob://CONTAINER/PREFIX?account=&endpoint=   or AZURE_STORAGE_CONNECTION_STRING
//	mem:                                   a fresh one in memory, gone with the process
func Open(ctx context.Context, raw string) (Bucket, error) {
	scheme, rest, found := strings.Cut(raw, ":")
	if !found || len(scheme) < 2 || strings.ContainsAny(scheme, `/\.`) {
		return Folder(raw)
	}
	base, query, _ := strings.Cut(strings.TrimPrefix(rest, "//"), "?")
	params, err := url.ParseQuery(query)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", redact(raw), err)
	}
	known := map[string][]string{"file": {}, "mem": {}, "s3": {"region", "endpoint"}, "gs": {"endpoint"}, "azblob": {"account", "endpoint"}}
	allowed, ok := known[scheme]
	if !ok {
		return nil, fmt.Errorf("%s: unknown kind of store %q: it is a path, file://, s3://, gs://, azblob:// or mem:", redact(raw), scheme)
	}
	for name := range params {
		if !slices.Contains(allowed, name) {
			return nil, fmt.Errorf("%s: a %s store has no parameter %s; it has %s", redact(raw), scheme, name, or(strings.Join(allowed, ", "), "none"))
		}
	}
	name, prefix, _ := strings.Cut(base, "/")
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		if err := validName(prefix); err != nil {
			return nil, fmt.Errorf("%s: %w", redact(raw), err)
		}
		prefix += "/"
	}
	if name == "" && scheme != "file" && scheme != "mem" {
		return nil, fmt.Errorf("%s: the bucket's name is missing", redact(raw))
	}
	switch scheme {
	case "file":
		if !strings.HasPrefix(base, "/") {
			return nil, fmt.Errorf("%s: write file:///absolute/path, or a path alone", raw)
		}
		return Folder(base)
	case "mem":
		return Memory(), nil
	case "s3":
		return openS3(ctx, name, prefix, params)
	case "gs":
		return openGS(ctx, name, prefix, params)
	default:
		return openAzure(ctx, name, prefix, params)
	}
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// redact removes what may be a password from a URL.
func redact(raw string) string {
	if u, err := url.Parse(raw); err == nil {
		return u.Redacted()
	}
	return raw
}

// validName refuses names that mean different things to different stores.
func validName(name string) error {
	for segment := range strings.SplitSeq(name, "/") {
		switch {
		case segment == "" || segment == "." || segment == "..":
			return fmt.Errorf("object name %q: a segment is empty, . or ..", name)
		case strings.HasPrefix(segment, temporary):
			return fmt.Errorf("object name %q: segments beginning with %s are temporary", name, temporary)
		case strings.ContainsAny(segment, "\x00\n\r"):
			return fmt.Errorf("object name %q: control characters", name)
		}
	}
	return nil
}
