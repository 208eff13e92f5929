// Package dynamodb is the driver of tables in Amazon DynamoDB.
//
// # The life of a call
//
// The text of a key becomes a value of the type that the table's partition key has: itself (S), a number
// (N), or the bytes of which it is the base64 form (B). A text that cannot be one is absent without a
// question. The others go, each once, into one BatchGetItem, which reads up to 100 items. It answers up to
// 16 MB, or 1 MB of one of the service's partitions, and what it has left out for that or because the table
// is throttled it lists as UnprocessedKeys. The driver asks for those again as long as every answer holds
// something new: at once after a large answer, and otherwise after a pause, of which a call has four at
// most. What is then left is in an *enrich.Failed; trying again later is package enrich's work. An item
// becomes a JSON object, its numbers as DynamoDB writes them.
//
// A table that has a sort key too is read at one value of it, the same for every key.
package dynamodb

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsdynamodb "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	cloud "github.com/millstream/millstream/cloud/aws"
	"github.com/millstream/millstream/enrich"
)

const (
	// limit is how many keys a BatchGetItem takes, see
	// https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html.
	limit = 100
	// large is how many bytes of rows show that an answer has ended for its size. The service ends one at
	// 1 MB or more, and an item has at most 400 KB.
	large = 512 << 10
	// pauses is how often one call waits, pause the mean of the first wait; the others double.
	pauses = 4
	pause  = 50 * time.Millisecond
	// verifyWait bounds New.
	verifyWait = 10 * time.Second
)

// Options says which table to read, and how. Only Table is needed.
type Options struct {
	// Table is the table's name or ARN.
	Table string
	// Region and Endpoint are as in cloud/aws.Options; an ARN's region when Region is empty.
	Region, Endpoint string
	// Client is used instead of one made from Region and Endpoint. Its own retries are not used.
	Client *awsdynamodb.Client
	// Key is the attribute that is looked up. It must be the table's partition key, which is the default.
	Key string
	// Sort is "attribute=value" for a table with a sort key: the value at which every key is read, written
	// as keys are. Required then, and refused otherwise.
	Sort string
	// Select names the attributes to read; a.b is attribute b of map a. Default: all of the item.
	Select []string
	// Consistent asks for strongly consistent reads, which cost twice as much. Default: eventually
	// consistent ones, which may miss what was written within the last second.
	Consistent bool
}

// Table reads one table. It is safe for concurrent use.
type Table struct {
	client     *awsdynamodb.Client
	name       string
	partition  keyAttribute
	sort       keyAttribute // without a name when there is none
	sortValue  types.AttributeValue
	projection projection
	consistent bool

	closed context.Context // done after Close
	close  context.CancelCauseFunc
}

var _ enrich.Table = (*Table)(nil)

var (
	errThrottled = errors.New("left out of DynamoDB's answers: the table's read capacity may be used up")
	errClosed    = errors.New("the table was closed")
	errSlow      = fmt.Errorf("no answer within %v: check region=, endpoint= and the network: %w", verifyWait, context.DeadlineExceeded)

	tableName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{3,255}$`)
	tableARN  = regexp.MustCompile(`^arn:[a-z-]+:dynamodb:([a-z0-9-]+):[0-9]{12}:table/[a-zA-Z0-9_.-]{3,255}$`)
)

// New makes a Table. It asks for the table's description and for one item, so that a table that is missing,
// unreadable or keyed otherwise is an error here. It takes ten seconds at most.
func New(ctx context.Context, o Options) (*Table, error) {
	if m := tableARN.FindStringSubmatch(o.Table); m != nil {
		if o.Region == "" {
			o.Region = m[1]
		}
	} else if !tableName.MatchString(o.Table) {
		return nil, fmt.Errorf("dynamodb: table %q: want a name of 3 to 255 letters, digits, _ . and -, or a table's ARN", o.Table)
	}
	for _, path := range o.Select {
		if slices.Contains(strings.Split(path, "."), "") {
			return nil, fmt.Errorf("dynamodb: select %q: want an attribute's name, or names with a dot between them", path)
		}
	}
	ctx, stop := context.WithTimeoutCause(ctx, verifyWait, errSlow)
	defer stop()
	if o.Client == nil {
		c, err := cloud.Load(ctx, cloud.Options{Region: o.Region, Endpoint: o.Endpoint})
		if err != nil {
			return nil, fmt.Errorf("dynamodb: %w", err)
		}
		o.Client = awsdynamodb.NewFromConfig(c)
	}
	t := &Table{client: o.Client, name: o.Table, consistent: o.Consistent}
	t.closed, t.close = context.WithCancelCause(context.Background())
	if err := t.describe(ctx, o); err != nil {
		return nil, fmt.Errorf("dynamodb: table %s: %w", t.name, err)
	}
	t.projection = project(o.Select, t.partition.name, t.sort.name)
	_, err := t.Lookup(ctx, []string{t.partition.probe()})
	var partly *enrich.Failed[string] // a row that cannot be read, or a table that is throttled, is no reason not to start
	if err != nil && !errors.As(err, &partly) && cloud.Classify(err) != cloud.Throttled {
		return nil, err
	}
	return t, nil
}

// describe learns the table's keys and checks the options against them.
func (t *Table) describe(ctx context.Context, o Options) error {
	out, err := t.client.DescribeTable(ctx, &awsdynamodb.DescribeTableInput{TableName: &t.name}, once)
	if err != nil {
		return t.explain(ctx, "DescribeTable", err)
	}
	if out.Table == nil {
		return errors.New("DescribeTable has no description")
	}
	switch status := out.Table.TableStatus; status {
	case types.TableStatusActive, types.TableStatusUpdating:
	default:
		return fmt.Errorf("is %s: wait until it is ACTIVE, or name another", status)
	}
	for _, k := range out.Table.KeySchema {
		a := keyAttribute{name: aws.ToString(k.AttributeName), most: mostPartition}
		for _, d := range out.Table.AttributeDefinitions {
			if aws.ToString(d.AttributeName) == a.name {
				a.kind = d.AttributeType
			}
		}
		if !slices.Contains(a.kind.Values(), a.kind) {
			return fmt.Errorf("key %s has no known type", a.name)
		}
		if k.KeyType == types.KeyTypeRange {
			a.most = mostSort
			t.sort = a
		} else {
			t.partition = a
		}
	}
	if t.partition.name == "" {
		return errors.New("has no partition key")
	}
	if o.Key != "" && o.Key != t.partition.name {
		return fmt.Errorf("its partition key is %s and not %s: items are found by their partition key only", t.partition.name, o.Key)
	}
	return t.fixSort(o.Sort)
}

// fixSort takes Options.Sort.
func (t *Table) fixSort(sort string) error {
	name, value, _ := strings.Cut(sort, "=")
	switch {
	case t.sort.name == "" && sort == "":
		return nil
	case t.sort.name == "":
		return fmt.Errorf("it has no sort key: leave out sort=%s", sort)
	case name != t.sort.name || value == "":
		return fmt.Errorf("its items have the sort key %s too: say at which value to read, as sort=%s=VALUE", t.sort.name, t.sort.name)
	}
	v, _, ok := t.sort.parse(value)
	if !ok {
		return fmt.Errorf("its sort key %s is of type %s, which %q cannot be", t.sort.name, t.sort.kind, value)
	}
	t.sortValue = v
	return nil
}

// once is the option that switches the SDK's own retries off, which package enrich neither sees nor counts.
func once(o *awsdynamodb.Options) { o.Retryer = aws.NopRetryer{} }

// Limit is 100.
func (t *Table) Limit() int { return limit }

// Close ends the lookups that are under way. Idle connections are closed by the SDK's client, 90 seconds
// after their last use.
func (t *Table) Close() error {
	t.close(errClosed)
	return nil
}

// item is an item's attributes, or those of its key.
type item = map[string]types.AttributeValue

// Lookup reads the items of keys. It implements enrich.Table.
func (t *Table) Lookup(ctx context.Context, keys []string) (map[string][]enrich.Row, error) {
	if len(keys) > limit {
		return nil, fmt.Errorf("dynamodb: %d keys in one call: it takes %d", len(keys), limit)
	}
	if t.closed.Err() != nil {
		return nil, fmt.Errorf("dynamodb: table %s: %w", t.name, errClosed)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(t.closed, func() { cancel(errClosed) })()

	c := call{table: t, texts: make(map[string][]string, len(keys)), found: make(map[string][]enrich.Row, len(keys))}
	for _, text := range keys {
		c.ask(text)
	}
	if err := c.run(ctx); err != nil {
		return nil, fmt.Errorf("dynamodb: table %s: %w", t.name, err)
	}
	if c.failed != nil {
		return c.found, &enrich.Failed[string]{Keys: c.failed}
	}
	return c.found, nil
}

// call is one Lookup.
type call struct {
	table   *Table
	pending []item              // the keys still to be asked for
	texts   map[string][]string // by the identity of a key, how the caller writes it
	found   map[string][]enrich.Row
	failed  map[string]error
}

// ask adds a key to what is pending. Two texts may be one key (1000 and 1e3), which DynamoDB takes only
// once.
func (c *call) ask(text string) {
	value, id, ok := c.table.partition.parse(text)
	if !ok {
		return
	}
	texts, asked := c.texts[id]
	if !asked {
		key := item{c.table.partition.name: value}
		if c.table.sort.name != "" {
			key[c.table.sort.name] = c.table.sortValue
		}
		c.pending = append(c.pending, key)
	}
	if !slices.Contains(texts, text) {
		c.texts[id] = append(texts, text)
	}
}

// run asks until every key is found, absent or failed. An error is the whole call's.
func (c *call) run(ctx context.Context) error {
	for first, paused := true, 0; len(c.pending) > 0; first = false {
		asked := len(c.pending)
		out, err := c.table.client.BatchGetItem(ctx, c.request(), once)
		if err != nil {
			err = c.table.explain(ctx, "BatchGetItem", err)
			if first || ctx.Err() != nil {
				return err
			}
			return c.fail(err)
		}
		read, err := c.take(out)
		switch {
		case err != nil:
			return err
		case len(c.pending) == 0:
			return nil
		case len(c.pending) >= asked:
			return c.fail(errThrottled)
		case read >= large:
			continue
		case paused == pauses || !wait(ctx, pause<<paused):
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return c.fail(errThrottled)
		}
		paused++
	}
	return nil
}

// wait pauses for d on average. It reports false when ctx leaves no time for it.
func wait(ctx context.Context, d time.Duration) bool {
	d = d/2 + rand.N(d)
	if end, bounded := ctx.Deadline(); bounded && time.Until(end) <= d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *call) request() *awsdynamodb.BatchGetItemInput {
	t := c.table
	return &awsdynamodb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{t.name: {
		Keys:                     c.pending,
		ConsistentRead:           aws.Bool(t.consistent),
		ProjectionExpression:     t.projection.expression,
		ExpressionAttributeNames: t.projection.names,
	}}}
}

// take keeps the items of an answer, and what it left out as pending. It returns the bytes of the rows. The
// service names a table as it pleases, and there is only one.
func (c *call) take(out *awsdynamodb.BatchGetItemOutput) (read int, err error) {
	if out.Responses == nil {
		return 0, errors.New("the answer of BatchGetItem has no Responses")
	}
	for _, items := range out.Responses {
		for _, it := range items {
			texts, err := c.textsOf(it)
			if err != nil {
				return 0, err
			}
			row, err := c.table.projection.row(it)
			read += len(row)
			for _, text := range texts {
				if err != nil {
					c.put(text, err)
				} else {
					c.found[text] = []enrich.Row{{JSON: row}}
				}
			}
		}
	}
	c.pending = nil
	for _, left := range out.UnprocessedKeys {
		for _, key := range left.Keys {
			if _, err := c.textsOf(key); err != nil {
				return 0, err
			}
			c.pending = append(c.pending, key)
		}
	}
	return read, nil
}

// textsOf finds out for whom an item is. One that nobody asked for is an error: somebody's would seem
// absent.
func (c *call) textsOf(it item) ([]string, error) {
	id, ok := c.table.partition.identity(it[c.table.partition.name])
	texts, asked := c.texts[id]
	if !ok || !asked {
		return nil, fmt.Errorf("the answer of BatchGetItem has an item that was not asked for, with %s %.64q", c.table.partition.name, id)
	}
	return texts, nil
}

// fail gives what is pending up for a reason.
func (c *call) fail(why error) error {
	for _, key := range c.pending {
		texts, err := c.textsOf(key)
		if err != nil {
			return err
		}
		for _, text := range texts {
			c.put(text, why)
		}
	}
	return nil
}

func (c *call) put(text string, why error) {
	if c.failed == nil {
		c.failed = map[string]error{}
	}
	c.failed[text] = why
}

// explain makes one line of an error.
func (t *Table) explain(ctx context.Context, operation string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var missing *types.ResourceNotFoundException
	if errors.As(err, &missing) {
		return fmt.Errorf("is not in region %s: create it, or mend its name or region= (%w)", t.client.Options().Region, err)
	}
	if told := cloud.Explain(err); told != nil {
		return fmt.Errorf("%s: %w (reading needs dynamodb:DescribeTable and dynamodb:BatchGetItem)", operation, told)
	}
	return fmt.Errorf("%s: %w", operation, err)
}
