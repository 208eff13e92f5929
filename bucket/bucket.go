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
//
// A store that cannot be asked is never an empty one: a missing bucket, a refused permission or a
// host name that does not resolve is an error, and only an object's own absence is ErrNotFound.
package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

var (
	// ErrExists is returned by Create when the name is taken. The bytes there may be the caller's
	// own, from an attempt whose answer was lost: read them back.
	ErrExists = errors.New("the object exists already")
	// ErrNotFound is returned by Get for a name that holds nothing.
	ErrNotFound = errors.New("no such object")
)

// Bucket stores objects. All methods may be called concurrently. Data is not kept by the bucket after
// a call, and what Get returns belongs to the caller. Errors fit on one line, and name the object unless
// they are ErrExists, ErrNotFound or the context's; those of the operating system can be found in them
// with errors.Is.
//
// Names are relative, of segments separated by "/", UTF-8, at most 1,000 bytes. No segment is empty,
// ".", begins with ".tmp-" or ends in ".."; control characters, "\" and "__0x" are refused, since
// stores would change them.
type Bucket interface {
	// Create writes an object if there is none of that name. ErrExists is certain; after any other
	// error the object may be there, may not be, or may still appear.
	Create(ctx context.Context, name string, data []byte) error
	// CreateFrom is Create of an object of any size, whose bytes write hands over in order; memory is
	// bounded by some 30 MiB (all of it in a bucket in memory). write is called once or, when the name is
	// known to be taken, not at all. When it fails, or ctx ends, nothing is visible, and its error comes back.
	CreateFrom(ctx context.Context, name string, write func(io.Writer) error) error
	// Put writes an object whether or not there is one. Readers see the old bytes or the new.
	Put(ctx context.Context, name string, data []byte) error
	// Get reads an object, ErrNotFound when there is none.
	Get(ctx context.Context, name string) ([]byte, error)
	// List returns every name that begins with prefix, sorted by bytes. The prefix may end anywhere
	// in a name.
	List(ctx context.Context, prefix string) ([]string, error)
	// Objects lists as List does, with what else the store says of each object.
	Objects(ctx context.Context, prefix string) ([]Info, error)
	// Read opens an object at one of its bytes, 0 the first, ErrNotFound when there is none: for
	// objects that are too large for Get. ctx ends reading too. What comes back is for one goroutine, and
	// to be closed.
	Read(ctx context.Context, name string, offset int64) (io.ReadCloser, error)
	// Delete removes an object. One that is not there is no error.
	Delete(ctx context.Context, name string) error
	// URL says where the bucket is, without secrets, for messages.
	URL() string
	// Close releases connections. No other method may be called afterwards.
	Close() error
}

// parameters are what a URL of each kind may carry after its "?".
var parameters = map[string][]string{
	"file": {}, "mem": {}, "s3": {"endpoint", "region"}, "gs": {"endpoint"}, "azblob": {"account", "endpoint"},
}

// Open opens a bucket by URL:
//
//	PATH, file:///DIR                      a local folder, made if need be
//	s3://BUCKET/PREFIX?region=&endpoint=   an endpoint means path-style addressing
//	gs://BUCKET/PREFIX?endpoint=           an endpoint, or STORAGE_EMULATOR_HOST, means anonymous access
//	azblob://CONTAINER/PREFIX?account=&endpoint=
//	mem:                                   a fresh one in memory, gone with the process
//
// Names are looked up below PREFIX. Credentials come from the environment, never from the URL: the
// AWS SDK's usual chain; Google's application default credentials; AZURE_STORAGE_CONNECTION_STRING,
// or AZURE_STORAGE_ACCOUNT (unless the URL has it) with AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or
// else an Azure identity. Nothing is created or contacted, except that a folder is made: Check does
// that.
func Open(ctx context.Context, raw string) (Bucket, error) {
	scheme, rest, found := strings.Cut(raw, ":")
	if !found || len(scheme) < 2 || strings.ContainsAny(scheme, `/\.`) {
		if path, query, found := strings.Cut(raw, "?"); found {
			return nil, fmt.Errorf("%s: a folder has no parameter %s; in a file:// URL a name's own question mark is %%3F", path, keys(query))
		}
		return Folder(raw)
	}
	allowed, ok := parameters[scheme]
	if !ok {
		return nil, fmt.Errorf("%s: unknown kind of store %q: it is a path, file://, s3://, gs://, azblob:// or mem:", redact(raw), scheme)
	}
	base, query, _ := strings.Cut(strings.TrimPrefix(rest, "//"), "?")
	params, err := url.ParseQuery(query)
	if err != nil {
		return nil, fmt.Errorf("%s: the parameters cannot be read", redact(raw)) // err quotes them, and they may be secret
	}
	for _, name := range slices.Sorted(maps.Keys(params)) {
		switch {
		case len(allowed) == 0:
			return nil, fmt.Errorf("%s: a %s: store has no parameters (%s)", redact(raw), scheme, name)
		case !slices.Contains(allowed, name):
			return nil, fmt.Errorf("%s: a %s: store has no parameter %s; it has %s", redact(raw), scheme, name, strings.Join(allowed, ", "))
		case len(params[name]) > 1:
			return nil, fmt.Errorf("%s: parameter %s is given twice", redact(raw), name)
		}
	}
	switch scheme {
	case "mem":
		if base != "" {
			return nil, fmt.Errorf("%s: write mem: alone; every one is separate", redact(raw))
		}
		return Memory(), nil
	case "file":
		path, err := url.PathUnescape(base)
		if err != nil || !strings.HasPrefix(path, "/") {
			return nil, fmt.Errorf("%s: write file:///absolute/path, or a path alone", redact(raw))
		}
		return Folder(path)
	}
	name, prefix, _ := strings.Cut(base, "/")
	if name == "" {
		return nil, fmt.Errorf("%s: the bucket's name is missing", redact(raw))
	}
	if strings.Contains(name, "@") {
		return nil, fmt.Errorf("%s: credentials do not belong in the URL; they come from the environment", redact(raw))
	}
	if prefix = strings.TrimSuffix(prefix, "/"); prefix != "" {
		if err := validName(prefix); err != nil {
			return nil, fmt.Errorf("%s: %w", redact(raw), err)
		}
		prefix += "/"
	}
	switch scheme {
	case "s3":
		return openS3(ctx, name, prefix, params)
	case "gs":
		return openGS(ctx, name, prefix, params)
	default:
		return openAzure(ctx, name, prefix, params)
	}
}

// keys returns the names of parameters without their values.
func keys(query string) string {
	var names []string
	for pair := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(pair, "=")
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// redact removes what may be secret from a URL: the user and every parameter.
func redact(raw string) string {
	base, _, _ := strings.Cut(raw, "?")
	scheme, rest, found := strings.Cut(base, "://")
	if !found {
		return base
	}
	host, path, slash := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		host = host[i+1:]
	}
	if slash {
		path = "/" + path
	}
	return scheme + "://" + host + path
}

// maxName leaves room for a prefix below the 1,024 bytes that S3, GCS and Azure Blob allow.
const maxName = 1000

// validName refuses names that mean different things to different stores.
func validName(name string) error {
	switch {
	case len(name) > maxName:
		return fmt.Errorf("object name %q…: longer than %d bytes", name[:40], maxName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("object name %q: control characters or invalid UTF-8", name)
	case strings.Contains(name, `\`) || strings.Contains(name, "__0x"):
		return fmt.Errorf(`object name %q: \ or __0x, which some stores change`, name)
	}
	for segment := range strings.SplitSeq(name, "/") {
		switch {
		case segment == "" || segment == "." || strings.HasSuffix(segment, ".."):
			return fmt.Errorf("object name %q: a segment is empty, . or ends in ..", name)
		case strings.HasPrefix(segment, temporary):
			return fmt.Errorf("object name %q: segments beginning with %s are temporary", name, temporary)
		}
	}
	return nil
}

// ready is asked before every operation on an object.
func ready(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return validName(name)
}

// readyList is asked before every list: whole segments of the prefix are as in a name, the last one
// may be the beginning of one.
func readyList(ctx context.Context, prefix string) error {
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		return ready(ctx, prefix[:i])
	}
	return ctx.Err()
}
