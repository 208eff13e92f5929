package file

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millstream/millstream/enrich"
)

// contents are the rows of one state of the file. They do not change.
type contents struct {
	stamp    string
	single   map[string][]byte       // without validity
	versions map[string][]enrich.Row // with it
	count    int
}

// rows returns what is under a key, nil if nothing is.
func (c *contents) rows(key string) []enrich.Row {
	if c.versions != nil {
		return slices.Clone(c.versions[key])
	}
	if row, ok := c.single[key]; ok {
		return []enrich.Row{{JSON: row}}
	}
	return nil
}

// builder collects the rows of a file.
type builder struct {
	t      *Table
	c      *contents
	memory []byte         // for rows
	from   map[string]int // where keys stand
}

// chunk is how much memory for rows is taken at once.
const chunk = 1 << 20

func newBuilder(t *Table) *builder {
	b := &builder{t: t, c: &contents{}, from: map[string]int{}}
	if t.o.ValidFrom != "" || t.o.ValidTo != "" {
		b.c.versions = map[string][]enrich.Row{}
	} else {
		b.c.single = map[string][]byte{}
	}
	return b
}

// add takes a row: its key, the text of its validity, and all of it as JSON. at is where it stands, for errors.
func (b *builder) add(at int, key, from, to string, object []byte) error {
	row, err := b.t.fields.Object(object)
	if err != nil {
		return fmt.Errorf("row %d: %w", at, err)
	}
	if cap(b.memory)-len(b.memory) < len(row) {
		b.memory = make([]byte, 0, max(chunk, len(row)))
	}
	start := len(b.memory)
	b.memory = append(b.memory, row...)
	row = b.memory[start:len(b.memory):len(b.memory)]
	b.c.count++
	if b.c.versions == nil {
		if b.c.single[key] != nil {
			return fmt.Errorf("row %d: the key %.64q stands in row %d already: name the fields that say when a row is valid, or make keys unique", at, key, b.from[key])
		}
		key = strings.Clone(key)
		b.c.single[key], b.from[key] = row, at
		return nil
	}
	v := enrich.Row{JSON: row}
	if v.From, err = moment(from); err != nil {
		return fmt.Errorf("row %d: %s: %w", at, b.t.o.ValidFrom, err)
	}
	if v.To, err = moment(to); err != nil {
		return fmt.Errorf("row %d: %s: %w", at, b.t.o.ValidTo, err)
	}
	if !v.To.IsZero() && !v.From.IsZero() && !v.From.Before(v.To) {
		return fmt.Errorf("row %d: valid from %s to %s, which is no time at all", at, from, to)
	}
	b.c.versions[key] = append(b.c.versions[key], v)
	return nil
}

// done orders versions and refuses those that overlap.
func (b *builder) done() (*contents, error) {
	for key, rows := range b.c.versions {
		slices.SortStableFunc(rows, func(x, y enrich.Row) int { return x.From.Compare(y.From) })
		for i := 1; i < len(rows); i++ {
			if before := rows[i-1]; before.To.IsZero() || before.To.After(rows[i].From) {
				return nil, fmt.Errorf("two rows of the key %.64q are valid at once, from %s on", key, rows[i].From.Format(time.RFC3339))
			}
		}
	}
	b.from = nil
	return b.c, nil
}

// moment reads the time at which a row begins or ceases to be valid.
func moment(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999", "2006-01-02"} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	return time.Time{}, errors.New("want a time such as 2026-01-31T15:04:05Z, or a date")
}
