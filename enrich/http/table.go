// Package http is the driver of tables behind an HTTP interface that answers in JSON.
//
// # The life of a call
//
// A URL with {key} in it is asked by GET for every key, up to 16 at a time; one without is sent the keys of a
// call as a JSON array, by POST. A row is the JSON object that comes back under its own URL, or under its
// key in an object, or in an array of rows that hold their keys. Status 404 of a row's own URL, a null, and a
// key that an answer to many leaves out are absent rows. Everything else is a failure: of the key where one
// key was asked for, so that the others have their answers in the same call, and of the call where all were.
// An answer that comes whole and is not what was promised is malformed; one that is cut off is a failure.
//
// Bodies are read up to 1 MiB, for a batch up to 16 MiB. A batch whose answer would be larger is asked for in
// halves. Connections are kept and used again, no more of them than Concurrency.
package http

import (
	"context"
	"errors"
	"fmt"
	"net"
	nethttp "net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/millstream/millstream/enrich"
)

const (
	// maxOne and maxBatch are the most bytes of a body.
	maxOne   = enrich.MaxRow
	maxBatch = 16 << 20
	// maxHeader is the most bytes of an answer's header.
	maxHeader = 64 << 10
	// verifyWait bounds New.
	verifyWait = 10 * time.Second
	// answerWait bounds one request of a call whose context has no deadline.
	answerWait = 30 * time.Second
	// placeholder is where the key goes in a URL.
	placeholder = "{key}"
)

// Options says what to ask, and how. Only URL is needed.
type Options struct {
	// URL is http or https. With {key} in its path or query, as in https://host/users/{key}, it is one row's,
	// and the key is escaped as its place needs. Without, it takes keys as a JSON array by POST.
	URL string
	// Header goes with every request: Authorization above all. It is in no error.
	Header nethttp.Header
	// Rows is where in an answer the row is, or the rows of a batch are: field names, as in data.users.
	// Default: the answer itself.
	Rows string
	// Key is the field, or a path as in user.id, by which the rows of a batch name their keys. The answer is
	// then an array of rows. Default: the answer is an object that has every row under its key.
	Key string
	// Batch is the most keys of one call. Default: 100.
	Batch int
	// Concurrency is the most requests under way, of all calls together. Default: 16.
	Concurrency int
	// Probe is a key that is known to be there, for New to ask for. An interface answers 404 to what it does
	// not know, be it the key or a mistyped path, and only such a key tells these apart.
	Probe string
	// Select names the fields to keep of a row; a.b is field b of object a. Default: all.
	Select []string
	// Client is used instead of one with the environment's proxy and the system's roots: for certificates of
	// one's own. Its redirects are bounded as described, its Timeout holds.
	Client *nethttp.Client
}

// Table asks one URL. It is safe for concurrent use.
type Table struct {
	client  *nethttp.Client
	before  string // the URL up to the key
	after   string
	place   place
	header  nethttp.Header
	where   string // the URL without what may be secret
	rows    []string
	key     []string
	limit   int
	most    int // bytes of a batch's answer
	fields  enrich.Fields
	slots   chan struct{}
	workers int
	idle    func() // closes connections; nil when they are not the table's own

	closed context.Context // done after Close
	close  context.CancelCauseFunc
}

// place is where in the URL the key is.
type place int

const (
	nowhere place = iota // it is posted
	inPath
	inQuery
)

var _ enrich.Table = (*Table)(nil)

var errClosed = errors.New("the table is closed")

// New asks for Options.Probe, which must be there, or for the key 0, to which any answer is good that is not
// a refusal. It takes ten seconds at most.
func New(ctx context.Context, o Options) (*Table, error) {
	t, err := open(o)
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, verifyWait)
	defer cancel()
	if err := t.verify(ctx, o.Probe); err != nil {
		_ = t.Close()
		return nil, err
	}
	return t, nil
}

func open(o Options) (*Table, error) {
	t := &Table{limit: o.Batch, most: maxBatch, workers: o.Concurrency, header: o.Header.Clone()}
	if t.limit <= 0 {
		t.limit = 100
	}
	if t.workers <= 0 {
		t.workers = 16
	}
	t.slots = make(chan struct{}, t.workers)
	if err := t.parse(o.URL); err != nil {
		return nil, err
	}
	var err error
	if t.fields, err = enrich.SelectFields(o.Select); err != nil {
		return nil, err
	}
	if t.rows, err = path("rows", o.Rows); err != nil {
		return nil, err
	}
	if t.key, err = path("key", o.Key); err != nil {
		return nil, err
	}
	if t.key != nil && t.place != nowhere {
		return nil, errors.New("a URL with {key} answers with one row: leave Key out, or {key}")
	}
	if o.Client != nil {
		c := *o.Client
		t.client = &c
	} else {
		connections := transport(t.workers)
		t.client = &nethttp.Client{Transport: connections}
		t.idle = connections.CloseIdleConnections
	}
	t.client.CheckRedirect = sameHost
	t.closed, t.close = context.WithCancelCause(context.Background())
	return t, nil
}

// parse takes the URL apart. An error does not print it: keys of access may be in it.
func (t *Table) parse(text string) error {
	if text == "" {
		return errors.New("no URL: give one such as https://host/users/" + placeholder)
	}
	if n := strings.Count(text, placeholder); n > 1 {
		return fmt.Errorf("the URL has %s %d times: once is enough", placeholder, n)
	}
	var found bool
	t.before, t.after, found = strings.Cut(text, placeholder)
	sample := text
	if found {
		sample = t.before + "0" + t.after
	}
	u, err := url.Parse(sample)
	switch {
	case err != nil:
		return errors.New("the URL cannot be parsed")
	case u.Scheme != "https" && u.Scheme != "http", u.Host == "":
		return errors.New("the URL is not of the form https://host/path")
	case u.User != nil:
		return errors.New("the URL has a user or password in it: give them as header Authorization")
	case u.Fragment != "":
		return errors.New("the URL has a # in it: what follows is never sent")
	}
	t.where = u.Scheme + "://" + u.Host + u.Path
	if !found {
		return nil
	}
	host := u.Scheme + "://" + u.Host
	switch rest, ok := strings.CutPrefix(t.before, host); {
	case !ok || !strings.HasPrefix(rest, "/") && !strings.HasPrefix(rest, "?"):
		return fmt.Errorf("the URL has %s outside of its path and query", placeholder)
	case strings.Contains(t.before, "?"):
		t.place = inQuery
	default:
		t.place = inPath
		path, _, _ := strings.Cut(rest, "?")
		after, _, _ := strings.Cut(t.after, "?")
		t.where = host + path + placeholder + after
	}
	return nil
}

// path is the names of a dotted path.
func path(option, text string) ([]string, error) {
	if text == "" {
		return nil, nil
	}
	names := strings.Split(text, ".")
	if slices.Contains(names, "") {
		return nil, fmt.Errorf("%s: %q is not a path of fields", option, text)
	}
	return names, nil
}

func transport(connections int) *nethttp.Transport {
	return &nethttp.Transport{
		Proxy:             nethttp.ProxyFromEnvironment,
		DialContext:       (&net.Dialer{Timeout: verifyWait, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2: true, TLSHandshakeTimeout: verifyWait,
		MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections, MaxIdleConns: connections,
		IdleConnTimeout: 90 * time.Second, MaxResponseHeaderBytes: maxHeader,
	}
}

// sameHost follows redirects that stay with the server, keep the method and are few. Others would carry
// headers and keys to whom they are not meant for, or answer something else.
func sameHost(next *nethttp.Request, before []*nethttp.Request) error {
	first := before[0]
	switch {
	case next.URL.Scheme != first.URL.Scheme || next.URL.Host != first.URL.Host:
		return &redirectError{fmt.Sprintf("redirects to %s://%s: use its URL, if it is to be trusted", next.URL.Scheme, next.URL.Host)}
	case next.Method != first.Method:
		return &redirectError{fmt.Sprintf("redirects a %s to a %s: use the URL that it redirects to", first.Method, next.Method)}
	case len(before) > 3:
		return &redirectError{"redirects more than three times"}
	}
	return nil
}

type redirectError struct{ text string }

func (e *redirectError) Error() string { return e.text }

// Limit returns Options.Batch.
func (t *Table) Limit() int { return t.limit }

// Close closes connections, except those of Options.Client. Lookups that are under way fail.
func (t *Table) Close() error {
	t.close(errClosed)
	if t.idle != nil {
		t.idle()
	}
	return nil
}

// verify asks for the probe, or for a key that may be unknown.
func (t *Table) verify(ctx context.Context, probe string) error {
	key := probe
	if key == "" {
		key = "0"
	}
	rows, err := t.Lookup(ctx, []string{key})
	var status *StatusError
	switch {
	case probe != "" && err == nil && rows[key] == nil:
		return fmt.Errorf("http %s: there is no row of the probe %q: is the path right?", t.where, probe)
	case probe != "" || err == nil:
		return err
	case errors.Is(err, enrich.ErrMalformed):
		return nil // of that row
	case !errors.As(err, &status):
		return err
	}
	switch status.Status {
	case nethttp.StatusBadRequest, nethttp.StatusUnprocessableEntity:
		return nil // 0 is not one of its keys
	case nethttp.StatusTooManyRequests:
		return nil
	case nethttp.StatusUnauthorized, nethttp.StatusForbidden:
		return fmt.Errorf("%w: give a header, such as Authorization, that may read", err)
	case nethttp.StatusNotFound, nethttp.StatusMethodNotAllowed:
		if t.place == nowhere {
			return fmt.Errorf("%w: a URL without {key} must take keys by POST", err)
		}
	}
	return err
}
