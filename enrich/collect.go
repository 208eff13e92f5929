package enrich

import (
	"fmt"
	"slices"
	"time"
)

const (
	// maxAnswer is the most bytes of JSON of one call's rows together.
	maxAnswer = 64 << 20
	// maxVersions is the most versions of a key.
	maxVersions = 10_000
)

// Collector makes the answer of one call out of rows that come in any order, for drivers of backends that
// answer a query with rows: it asks for every value once however it is spelled, tells a key with two rows
// apart from one with two versions, and bounds what is held. It is for one goroutine.
type Collector struct {
	texts    map[string][]string // what was asked, by the value that it is
	values   []string
	versions bool
	rows     map[string][]Row
	bad      map[string]error
	bytes    int
}

// NewCollector takes the keys of a call. Value returns the value that a text is, in one spelling, and false if
// it is none that a row can have: that key is absent. With versions, a key may have many rows.
func NewCollector(keys []string, value func(text string) (string, bool), versions bool) *Collector {
	c := &Collector{texts: make(map[string][]string, len(keys)), versions: versions}
	for _, key := range keys {
		v, ok := value(key)
		if !ok || slices.Contains(c.texts[v], key) {
			continue
		}
		if c.texts[v] == nil {
			c.values = append(c.values, v)
		}
		c.texts[v] = append(c.texts[v], key)
	}
	c.Reset()
	return c
}

// Values are the values to ask for. The slice is the Collector's.
func (c *Collector) Values() []string { return c.values }

// Reset forgets all rows, because the query is sent again.
func (c *Collector) Reset() {
	c.rows, c.bad, c.bytes = make(map[string][]Row, len(c.values)), map[string]error{}, 0
}

// Wants reports whether another row of this value changes the answer: not if nobody asked for it (the backend
// may find more than is the same byte for byte), or if the value has failed already.
func (c *Collector) Wants(value string) bool { return c.texts[value] != nil && c.bad[value] == nil }

// Add takes a row of a value that it Wants, or the reason why the row cannot be read, which then is the key's.
// Its error is the whole call's, and there is no use in more rows.
func (c *Collector) Add(value string, row Row, err error) error {
	if !c.Wants(value) {
		return nil
	}
	had := len(c.rows[value])
	switch {
	case err != nil:
	case len(row.JSON) > MaxRow:
		err = fmt.Errorf("%w: %d bytes of JSON, the most is %d", ErrMalformed, len(row.JSON), MaxRow)
	case !c.versions && had == 1:
		err = fmt.Errorf("%w: more than one row has this key", ErrMalformed)
	case had == maxVersions:
		err = fmt.Errorf("%w: more than %d versions", ErrMalformed, maxVersions)
	}
	if err != nil {
		delete(c.rows, value)
		c.bad[value] = err
		return nil
	}
	if c.bytes += len(row.JSON); c.bytes > maxAnswer {
		return fmt.Errorf("the rows of %d keys are more than %d MiB: select fewer fields", len(c.values), maxAnswer>>20)
	}
	c.rows[value] = append(c.rows[value], row)
	return nil
}

// Answer is what Lookup returns: every text that was asked has the rows of its value.
func (c *Collector) Answer() (map[string][]Row, error) {
	found, failed := make(map[string][]Row, len(c.rows)), map[string]error{}
	for value, texts := range c.texts {
		rows, err := c.rows[value], c.bad[value]
		if err == nil && c.versions {
			err = order(rows)
		}
		for i, text := range texts {
			switch {
			case err != nil:
				failed[text] = err
			case len(rows) == 0:
			case i == 0:
				found[text] = rows
			default:
				found[text] = slices.Clone(rows)
			}
		}
	}
	if len(failed) > 0 {
		return found, &Failed[string]{Keys: failed}
	}
	return found, nil
}

// order sorts the versions of a key by the time from which they are valid. Two at one time are malformed:
// there is no telling which one is meant.
func order(rows []Row) error {
	slices.SortFunc(rows, func(a, b Row) int { return a.From.Compare(b.From) })
	for i, r := range rows {
		switch {
		case !r.To.IsZero() && !r.To.After(r.From):
			return fmt.Errorf("%w: a version ends at %s and begins at %s", ErrMalformed, r.To.Format(time.RFC3339Nano), r.From.Format(time.RFC3339Nano))
		case i > 0 && (rows[i-1].To.IsZero() || r.From.Before(rows[i-1].To)):
			return fmt.Errorf("%w: two versions are valid at %s", ErrMalformed, r.From.Format(time.RFC3339Nano))
		}
	}
	return nil
}
