package redis

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	goredis "github.com/redis/go-redis/v9"

	"github.com/millstream/millstream/enrich"
)

// call is what one Lookup has got so far: every key that was asked is in rows, in failed, or absent.
type call struct {
	table  *Table
	rows   map[string][]enrich.Row
	failed map[string]error
	size   int // bytes of rows
}

// errFull is the reason of keys whose rows do not fit into the call beside the others.
var errFull = errors.New("the rows of the call are too large together: ask for fewer keys")

// ask answers keys, in halves if an answer is too large for a connection.
func (c *call) ask(ctx context.Context, keys []string) {
	tooLarge := c.try(ctx, keys)
	switch {
	case len(tooLarge) == 0:
	case len(keys) == 1:
		c.fail(keys[0], fmt.Errorf("%w: %w", enrich.ErrMalformed, errTooLarge))
	case len(tooLarge) == 1:
		c.ask(ctx, tooLarge)
	default:
		half := len(tooLarge) / 2
		c.ask(ctx, tooLarge[:half])
		c.ask(ctx, tooLarge[half:])
	}
}

// answer is what Lookup returns.
func (c *call) answer(ctx context.Context, keys []string) (map[string][]enrich.Row, error) {
	if len(c.failed) == 0 {
		return c.rows, nil
	}
	failed := &enrich.Failed[string]{Keys: c.failed}
	if len(c.failed) < len(keys) || errors.Is(failed, enrich.ErrMalformed) {
		return c.rows, failed
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("redis %s: %w", c.table.where, err)
	}
	return nil, fmt.Errorf("redis %s: %w", c.table.where, c.failed[keys[0]])
}

// try asks for all keys at once, and returns those that were not answered because the answer is too large.
func (c *call) try(ctx context.Context, keys []string) []string {
	if c.size >= c.table.most {
		for _, key := range keys {
			c.fail(key, errFull)
		}
		return nil
	}
	switch {
	case c.table.kind == Hash && c.table.names != nil:
		return c.someFields(ctx, keys)
	case c.table.kind == Hash:
		return c.allFields(ctx, keys)
	case c.table.single && len(keys) > 1:
		return c.mget(ctx, keys)
	}
	return c.get(ctx, keys)
}

func (c *call) name(key string) string { return c.table.prefix + key }

func (c *call) fail(key string, err error) {
	c.failed[key] = fmt.Errorf("key %s: %w", c.table.describe(key), err)
}

// keep keeps a row, or why there is none.
func (c *call) keep(key string, row []byte, err error) {
	switch {
	case err != nil:
		c.fail(key, err)
	case c.size+len(row) > c.table.most:
		c.fail(key, errFull)
	default:
		c.size += len(row)
		c.rows[key] = []enrich.Row{{JSON: row}}
	}
}

// mget asks for strings by one command. A nil may be a key of another type.
func (c *call) mget(ctx context.Context, keys []string) (tooLarge []string) {
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = c.name(key)
	}
	values, err := c.table.client.MGet(ctx, names...).Result()
	if errors.Is(err, errTooLarge) {
		return keys
	}
	if err == nil && len(values) != len(keys) {
		err = fmt.Errorf("%d answers to %d keys", len(values), len(keys))
	}
	if err != nil {
		for _, key := range keys {
			c.fail(key, err)
		}
		return nil
	}
	var missing []string
	for i, key := range keys {
		switch value := values[i].(type) {
		case nil:
			missing = append(missing, key)
		case string:
			row, err := c.table.fields.Object([]byte(value))
			c.keep(key, row, err)
		default:
			c.fail(key, fmt.Errorf("an answer of type %T", value))
		}
	}
	if missing == nil {
		return nil
	}
	return c.get(ctx, missing)
}

// get asks for strings by a command each.
func (c *call) get(ctx context.Context, keys []string) []string {
	return c.pipeline(ctx, keys, "get", func(key string, value any) error {
		text, ok := value.(string)
		if !ok {
			return fmt.Errorf("an answer of type %T", value)
		}
		row, err := c.table.fields.Object([]byte(text))
		c.keep(key, row, err)
		return nil
	})
}

// allFields asks for hashes. One without fields does not exist.
func (c *call) allFields(ctx context.Context, keys []string) []string {
	return c.pipeline(ctx, keys, "hgetall", func(key string, value any) error {
		values, ok := value.([]any)
		if !ok || len(values)%2 != 0 {
			return fmt.Errorf("an answer of type %T", value)
		}
		fields := make(map[string]string, len(values)/2)
		for i := 0; i < len(values); i += 2 {
			name, isName := values[i].(string)
			text, isText := values[i+1].(string)
			if !isName || !isText {
				return fmt.Errorf("fields of type %T and %T", values[i], values[i+1])
			}
			fields[name] = text
		}
		if len(fields) > 0 {
			row, err := object(fields)
			c.keep(key, row, err)
		}
		return nil
	})
}

// someFields asks for fields of hashes. Those of which it gets none may be absent, or without these fields.
func (c *call) someFields(ctx context.Context, keys []string) []string {
	var missing []string
	names := c.table.names
	tooLarge := c.pipeline(ctx, keys, "hmget", func(key string, value any) error {
		values, ok := value.([]any)
		if !ok || len(values) != len(names) {
			return fmt.Errorf("an answer of type %T", value)
		}
		fields := make(map[string]string, len(values))
		for i, value := range values {
			switch text := value.(type) {
			case string:
				fields[names[i]] = text
			case nil:
			default:
				return fmt.Errorf("field %.64q of type %T", names[i], value)
			}
		}
		if len(fields) == 0 {
			missing = append(missing, key)
			return nil
		}
		row, err := object(fields)
		c.keep(key, row, err)
		return nil
	}, names...)
	if missing == nil {
		return tooLarge
	}
	return append(tooLarge, c.pipeline(ctx, missing, "hlen", func(key string, value any) error {
		n, ok := value.(int64)
		if !ok {
			return fmt.Errorf("an answer of type %T", value)
		}
		if n > 0 {
			c.keep(key, []byte("{}"), nil)
		}
		return nil
	})...)
}

// pipeline sends a command for every key, name first and more after it, all before the first answer. It
// hands on the answers that are not nil, and returns the keys of answers that are too large.
func (c *call) pipeline(ctx context.Context, keys []string, command string, answered func(key string, value any) error, more ...string) (tooLarge []string) {
	p := c.table.client.Pipeline()
	commands := make([]*goredis.Cmd, len(keys))
	for i, key := range keys {
		args := make([]any, 0, 2+len(more))
		args = append(args, command, c.name(key))
		for _, m := range more {
			args = append(args, m)
		}
		commands[i] = p.Do(ctx, args...)
	}
	_, sendErr := p.Exec(ctx)
	for i, key := range keys {
		// Only what was received counts. The client leaves commands that it never sent, since a connection
		// cannot log in, without an error; and in a cluster it gives those that are answered one, when the
		// time is over before all are.
		value, err := commands[i].Result()
		switch {
		case err == nil && value == nil && sendErr != nil:
			err = sendErr
		case err == nil && value == nil:
			err = errors.New("not answered")
		case err == nil, isWhole(value) && isTime(err):
			err = answered(key, value)
		}
		switch {
		case err == nil, errors.Is(err, goredis.Nil):
		case errors.Is(err, errTooLarge):
			tooLarge = append(tooLarge, key)
		case strings.HasPrefix(err.Error(), "WRONGTYPE"):
			c.fail(key, fmt.Errorf("%w: not of kind %s", enrich.ErrMalformed, c.table.kind))
		default:
			c.fail(key, err)
		}
	}
	return tooLarge
}

// isWhole reports whether a value beside an error was received: the client leaves zero values where it was not.
func isWhole(value any) bool {
	switch value := value.(type) {
	case string:
		return value != ""
	case []any:
		return value != nil
	case int64:
		return value != 0
	}
	return false
}

// isTime reports whether an error is that of a context; a connection that is waited for too long has its own.
func isTime(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// object is a hash's fields as JSON, by name.
func object(fields map[string]string) ([]byte, error) {
	for name, value := range fields {
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return nil, fmt.Errorf("%w: field %.64q is not UTF-8", enrich.ErrMalformed, name)
		}
	}
	var row bytes.Buffer
	encoder := json.NewEncoder(&row)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(fields); err != nil {
		return nil, err
	}
	row.Truncate(row.Len() - 1) // the end of the line
	if row.Len() > enrich.MaxRow {
		return nil, fmt.Errorf("%w: larger than %d bytes", enrich.ErrMalformed, enrich.MaxRow)
	}
	return row.Bytes(), nil
}
