// Package azuretables is the driver of tables in Azure Table Storage, and of Azure Cosmos DB's API for Table.
//
// # The life of a key
//
// An entity is found by its PartitionKey and RowKey. Two templates, Options.Partition and Options.Row, make
// both of a key's text. A text with a character that the service forbids in keys is absent without a
// question. Every other one is a query of its own, PartitionKey eq 'p' and RowKey eq 'r', of which a call has
// a bounded number under way. One query for many keys would be slower: the service permits 15 comparisons in
// a filter, and reads the whole partition when some of them are joined by or. A query, and not the entity's
// address, since only a query can leave properties out ($select), and since its answer to an unknown key
// cannot be mistaken for that to an unknown table.
//
// An entity becomes a JSON object of its properties, Int64 as numbers with all their digits, Guid, DateTime
// (RFC 3339) and Binary (base64) as the strings that the service sends. Reads are strongly consistent.
//
// When the service is busy, a call asks for nothing more: the keys that it has not asked for, and those that
// were refused, are in an *enrich.Failed.
package azuretables

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"github.com/millstream/millstream/enrich"
)

const (
	// limit is how many keys a call takes: so many that its queries keep each other company, so few that a
	// call ends soon.
	limit = 100
	// defaultConcurrency and mostConcurrency bound the queries that a call has under way.
	defaultConcurrency, mostConcurrency = 16, 256
	// mostKey is the most UTF-16 code units of a key.
	mostKey = 1024
	// verifyWait bounds New.
	verifyWait = 10 * time.Second
	// placeholder stands in templates for the text of the key.
	placeholder = "{key}"
)

// Options says which table to read, and how. Table is needed, and Account unless the environment names it.
//
// Of the credentials the first that is there is used: ConnectionString, Key, SAS; the environment's
// AZURE_STORAGE_CONNECTION_STRING, unless Account or Endpoint is given, AZURE_STORAGE_KEY,
// AZURE_STORAGE_SAS_TOKEN; the identity that azidentity's default chain finds.
type Options struct {
	// Table is the table's name.
	Table string
	// Account is the storage account. Default: AZURE_STORAGE_ACCOUNT.
	Account string
	// Endpoint is the address of the account's table service, such as "http://127.0.0.1:10002/devstoreaccount1".
	// Default: https://ACCOUNT.table.core.windows.net.
	Endpoint string
	// ConnectionString is the account's. It says Account and Endpoint, which must be empty then.
	ConnectionString string
	// Key is the account's key, in base64. SAS is a shared access signature.
	Key, SAS string
	// Partition and Row are templates of the two keys of an entity; {key} stands for the text of the key.
	// Partition's default is {key}. Row's default is {key} if Partition is without it, and otherwise empty:
	// Partition "users" finds the entities of one partition by their RowKey, and no templates at all entities
	// that are the only ones of their partition, with an empty RowKey.
	Partition, Row string
	// Select names the properties to read, PartitionKey, RowKey and Timestamp among them. Default: all.
	Select []string
	// Concurrency is how many queries a call has under way, at most 256. Default 16.
	Concurrency int
	// Transport carries the requests. Default: one like http.DefaultTransport that keeps more connections.
	Transport http.RoundTripper
}

// Table reads one table. It is safe for concurrent use.
type Table struct {
	client         *aztables.Client
	http           *http.Client
	name           string
	partition, row string
	fields         selection
	concurrency    int

	closed context.Context // done after Close
	close  context.CancelCauseFunc
}

var _ enrich.Table = (*Table)(nil)

var (
	errClosed = errors.New("the table was closed")
	errSlow   = fmt.Errorf("no answer within %v: check account=, endpoint= and the network: %w", verifyWait, context.DeadlineExceeded)

	// See https://learn.microsoft.com/rest/api/storageservices/Understanding-the-Table-Service-Data-Model.
	tableName    = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]{2,62}$`)
	propertyName = regexp.MustCompile(`^[\p{L}_][\p{L}\p{N}_]*$`)
)

// New makes a Table. It asks for one entity, so that a table that is missing or cannot be read is an error
// here. It takes ten seconds at most.
func New(ctx context.Context, o Options) (*Table, error) {
	if !tableName.MatchString(o.Table) {
		return nil, fmt.Errorf("azuretables: table %q: want 3 to 63 letters and digits, a letter first", o.Table)
	}
	t, err := prepare(o)
	if err != nil {
		return nil, fmt.Errorf("azuretables: table %s: %w", o.Table, err)
	}
	ctx, stop := context.WithTimeoutCause(ctx, verifyWait, errSlow)
	defer stop()
	if err := t.verify(ctx); err != nil {
		return nil, fmt.Errorf("azuretables: table %s: %w", o.Table, err)
	}
	return t, nil
}

// prepare makes a Table of options, and asks nobody.
func prepare(o Options) (*Table, error) {
	t := &Table{name: o.Table, partition: o.Partition, row: o.Row, concurrency: o.Concurrency}
	t.closed, t.close = context.WithCancelCause(context.Background())
	if t.partition == "" {
		t.partition = placeholder
	}
	if !strings.Contains(t.partition, placeholder) && t.row == "" {
		t.row = placeholder
	}
	if !strings.Contains(t.partition+t.row, placeholder) {
		return nil, fmt.Errorf("every key would be one entity: put %s into partition=%s or row=%s", placeholder, o.Partition, o.Row)
	}
	for _, template := range []string{t.partition, t.row} {
		if !mayBeKey(template) {
			return nil, fmt.Errorf("%q cannot be in a key: / \\ # ? and control characters are forbidden", template)
		}
	}
	switch {
	case o.Concurrency < 0 || o.Concurrency > mostConcurrency:
		return nil, fmt.Errorf("%d queries at once: want 1 to %d", o.Concurrency, mostConcurrency)
	case o.Concurrency == 0:
		t.concurrency = defaultConcurrency
	}
	for _, name := range o.Select {
		if !propertyName.MatchString(name) {
			return nil, fmt.Errorf("select %q: want a property's name", name)
		}
	}
	t.fields = newSelection(o.Select)
	t.http = newHTTP(o.Transport)
	var err error
	t.client, err = connect(o, t.http)
	return t, err
}

// verify asks for an entity. A row that cannot be read, or a service that is busy, is no reason not to start.
func (t *Table) verify(ctx context.Context) error {
	_, _, err := t.get(ctx, "millstream", "millstream")
	switch {
	case err == nil, errors.Is(err, enrich.ErrMalformed), busy(err):
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return err
}

// Limit is 100.
func (t *Table) Limit() int { return limit }

// Close ends the lookups that are under way and closes idle connections.
func (t *Table) Close() error {
	t.close(errClosed)
	t.http.CloseIdleConnections()
	return nil
}

// Lookup reads the entities of keys. It implements enrich.Table.
func (t *Table) Lookup(ctx context.Context, keys []string) (map[string][]enrich.Row, error) {
	if len(keys) > limit {
		return nil, fmt.Errorf("azuretables: %d keys in one call: it takes %d", len(keys), limit)
	}
	if t.closed.Err() != nil {
		return nil, fmt.Errorf("azuretables: table %s: %w", t.name, errClosed)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(t.closed, func() { cancel(errClosed) })()

	c := &call{table: t, cancel: cancel, found: make(map[string][]enrich.Row, len(keys))}
	seen := make(map[string]bool, len(keys))
	for _, text := range keys {
		if !seen[text] {
			seen[text] = true
			c.add(text)
		}
	}
	if err := c.run(ctx); err != nil {
		return nil, fmt.Errorf("azuretables: table %s: %w", t.name, err)
	}
	if c.failed != nil {
		return c.found, &enrich.Failed[string]{Keys: c.failed}
	}
	return c.found, nil
}

// call is one Lookup.
type call struct {
	table     *Table
	cancel    context.CancelCauseFunc
	questions []question
	next      atomic.Int64 // the first question that is nobody's

	mu       sync.Mutex
	found    map[string][]enrich.Row
	failed   map[string]error
	answered int   // questions that the service answered in some way
	refusal  error // why nothing more is asked
}

type question struct{ text, partition, row string }

// add makes a key's question, unless no entity can have the key.
func (c *call) add(text string) {
	q := question{text, strings.ReplaceAll(c.table.partition, placeholder, text), strings.ReplaceAll(c.table.row, placeholder, text)}
	if mayBeKey(q.partition) && mayBeKey(q.row) {
		c.questions = append(c.questions, q)
	}
}

// mayBeKey reports whether the service takes the text as a key.
func mayBeKey(text string) bool {
	if !utf8.ValidString(text) {
		return false
	}
	units := 0
	for _, r := range text {
		units += utf16.RuneLen(r)
		if r < ' ' || r >= 0x7f && r <= 0x9f || strings.ContainsRune(`/\#?`, r) {
			return false
		}
	}
	return units <= mostKey
}

// run asks every question. An error is the whole call's.
func (c *call) run(ctx context.Context) error {
	var workers sync.WaitGroup
	for range min(c.table.concurrency, len(c.questions)) {
		workers.Go(func() { c.work(ctx) })
	}
	workers.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if c.answered == 0 && c.refusal != nil {
		return c.refusal
	}
	return nil
}

func (c *call) work(ctx context.Context) {
	for ctx.Err() == nil {
		i := int(c.next.Add(1)) - 1
		if i >= len(c.questions) {
			return
		}
		q := c.questions[i]
		if why := c.refused(); why != nil {
			c.fail(q.text, fmt.Errorf("not asked for: %w", why))
			continue
		}
		row, ok, err := c.table.get(ctx, q.partition, q.row)
		c.settle(q.text, row, ok, err)
	}
}

func (c *call) refused() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refusal
}

// settle takes the answer to a question.
func (c *call) settle(text string, row []byte, ok bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var broken *rowError
	var fatal *fatalError
	switch {
	case errors.As(err, &fatal):
		c.cancel(err)
	case errors.As(err, &broken):
		c.answered++
		c.put(text, err)
	case err != nil:
		c.put(text, err)
		if c.refusal == nil {
			c.refusal = err
		}
	default:
		c.answered++
		if ok {
			c.found[text] = []enrich.Row{{JSON: row}}
		}
	}
}

func (c *call) fail(text string, why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.put(text, why)
}

// put must be called with the lock.
func (c *call) put(text string, why error) {
	if c.failed == nil {
		c.failed = map[string]error{}
	}
	c.failed[text] = why
}
