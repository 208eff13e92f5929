package postgres

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/millstream/millstream/enrich"
)

// settings makes the transaction of a call one that can only read, in the given time, and that writes values
// as they are parsed here. A pipeline up to its end is one transaction, and `true` is: until its end.
const settings = `SELECT set_config('transaction_read_only', 'on', true), set_config('statement_timeout', $1, true),
 set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO, YMD', true), set_config('IntervalStyle', 'iso_8601', true),
 set_config('extra_float_digits', '3', true), set_config('bytea_output', 'hex', true)`

// ask sends the query and gives its rows to c. A column of a type that was not met before is looked up, and
// then the query is sent again.
func (t *Table) ask(ctx context.Context, c *enrich.Collector) error {
	conn, err := t.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	param := appendArray(nil, c.Values())
	for range 2 {
		c.Reset()
		var unknown []uint32
		err := pipeline(ctx, conn.Conn().PgConn(), t.query, [][]byte{param}, []uint32{t.key.array}, func(rows *pgconn.ResultReader) error {
			fields := rows.FieldDescriptions()
			var columns []column
			columns, unknown = t.columns(fields)
			if unknown != nil {
				return nil
			}
			for rows.NextRow() {
				if err := t.add(c, fields, columns, rows.Values()); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || unknown == nil {
			return err
		}
		if err := t.learn(ctx, conn.Conn().PgConn(), unknown); err != nil {
			return err
		}
	}
	return errors.New("the types of its columns change too fast")
}

// pipeline runs one query behind the settings, in one round trip.
func pipeline(ctx context.Context, conn *pgconn.PgConn, sql string, params [][]byte, types []uint32, read func(*pgconn.ResultReader) error) error {
	timeout := "0"
	if deadline, ok := ctx.Deadline(); ok {
		timeout = strconv.FormatInt(max(1, time.Until(deadline).Milliseconds()), 10)
	}
	batch := &pgconn.Batch{}
	batch.ExecParams(settings, [][]byte{[]byte(timeout)}, []uint32{oidText}, nil, nil)
	batch.ExecParams(sql, params, types, nil, nil)
	results := conn.ExecBatch(ctx, batch)
	var err error
	for i := 0; results.NextResult(); i++ {
		rows := results.ResultReader()
		if i == 1 {
			err = read(rows)
		}
		_, closed := rows.Close()
		err = cmp.Or(err, closed)
	}
	if closed := results.Close(); closed != nil {
		return closed
	}
	return err
}

// query reads small answers whole, for the catalogue.
func query(ctx context.Context, conn *pgconn.PgConn, sql string, params ...string) (rows [][]string, err error) {
	values := make([][]byte, len(params))
	for i, p := range params {
		values[i] = []byte(p)
	}
	err = pipeline(ctx, conn, sql, values, nil, func(r *pgconn.ResultReader) error {
		for r.NextRow() {
			row := make([]string, len(r.Values()))
			for i, v := range r.Values() {
				row[i] = string(v)
			}
			rows = append(rows, row)
		}
		return nil
	})
	return rows, err
}

// open reads the catalogue, builds the query, and runs it once with no keys at all.
func (t *Table) open(ctx context.Context, o Options, quoted string) error {
	acquired, err := t.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer acquired.Release()
	conn := acquired.Conn().PgConn()
	if encoding := conn.ParameterStatus("server_encoding"); encoding != "" && encoding != "UTF8" {
		return fmt.Errorf("the database's encoding is %s, and only UTF8 holds every key", encoding)
	}
	found, err := query(ctx, conn, `SELECT a.attname, a.atttypid, EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indkey[0] = a.attnum),
 a.attrelid IN (SELECT oid FROM pg_class WHERE relkind IN ('r', 'p', 'm'))
 FROM pg_attribute a WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`, quoted)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return errors.New("it does not exist for this user: upper and lower case matter, and USAGE on its schema is needed")
	}
	types := map[string]uint32{}
	names := make([]string, len(found))
	for i, row := range found {
		oid, err := strconv.ParseUint(row[1], 10, 32)
		if err != nil {
			return fmt.Errorf("the type of column %s: %w", row[0], err)
		}
		names[i], types[row[0]] = row[0], uint32(oid)
		if row[0] == o.Key && row[2] == "f" && row[3] == "t" && o.Logger != nil {
			o.Logger.Warn("no index begins with the key: every call reads the whole table", "table", o.Table, "key", o.Key)
		}
	}
	if types[o.Key] == 0 {
		return fmt.Errorf("it has no column %q, but %s", o.Key, strings.Join(names, ", "))
	}
	read, keep, narrow, err := enrich.SelectColumns(o.Select, names)
	if err != nil {
		return err
	}
	t.keep = keep
	list := "t." + quote(o.Key)
	for _, v := range []struct {
		name  string
		place *int
	}{{o.ValidFrom, &t.from}, {o.ValidTo, &t.to}} {
		if v.name == "" {
			continue
		}
		if types[v.name] == 0 {
			return fmt.Errorf("it has no column %q, but %s", v.name, strings.Join(names, ", "))
		}
		t.asOf++
		*v.place = t.asOf
		list += ", t." + quote(v.name)
	}
	if len(read) == 0 {
		list += ", t.*"
	}
	for _, name := range read {
		list += ", t." + quote(name)
	}
	t.query = "SELECT " + list + " FROM " + quoted + " AS t WHERE t." + quote(o.Key) + " = ANY($1)"

	oids := make([]uint32, 0, len(types))
	for _, oid := range types {
		oids = append(oids, oid)
	}
	if err := t.learn(ctx, conn, oids); err != nil {
		return err
	}
	if t.key, err = t.keyType(ctx, conn, types[o.Key]); err != nil {
		return fmt.Errorf("column %q: %w", o.Key, err)
	}
	for _, name := range narrow {
		if t.types[types[name]].kind != kindJSON {
			return fmt.Errorf("column %q has no fields: it is no json or jsonb", name)
		}
	}
	for _, name := range []string{o.ValidFrom, o.ValidTo} {
		if k := t.types[types[name]].kind; name != "" && k != kindDate && k != kindTimestamp && k != kindTimestampTZ {
			return fmt.Errorf("column %q says when a row is valid, and is no timestamptz, timestamp or date", name)
		}
	}
	err = pipeline(ctx, conn, t.query, [][]byte{[]byte("{}")}, []uint32{t.key.array}, func(*pgconn.ResultReader) error { return nil })
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "42501" {
		return fmt.Errorf("user %s may not read it: GRANT SELECT ON %s TO %s: %w", o.User, quoted, quote(o.User), err)
	}
	return err
}

// add gives a row to c, as the query has it: the key, when it is valid, and then the columns.
func (t *Table) add(c *enrich.Collector, fields []pgconn.FieldDescription, columns []column, values [][]byte) error {
	if values[0] == nil {
		return nil
	}
	value := t.key.read(string(values[0]))
	if !c.Wants(value) {
		return nil
	}
	row, err := t.row(fields, columns, values)
	if err == nil && row.JSON == nil {
		return nil
	}
	return c.Add(value, row, err)
}

// row is the row of the query's values: JSON, and when it is valid. One that never is has no JSON.
func (t *Table) row(fields []pgconn.FieldDescription, columns []column, values [][]byte) (row enrich.Row, err error) {
	if t.asOf > 0 {
		from, to, err := t.valid(values)
		if err != nil {
			return row, fmt.Errorf("%w: %w", enrich.ErrMalformed, err)
		}
		if from.infinite > 0 || to.infinite < 0 || from.infinite == 0 && to.infinite == 0 && from.time.Equal(to.time) {
			return row, nil
		}
		row.From, row.To = from.time, to.time
	}
	out := bytes.NewBuffer(make([]byte, 0, 256))
	out.WriteByte('{')
	first, nested := 1+t.asOf, false
	for i := first; i < len(values); i++ {
		nested = nested || columns[i].kind == kindJSON || columns[i].element == kindJSON
		if i > first {
			out.WriteByte(',')
		}
		appendString(out, fields[i].Name)
		out.WriteByte(':')
		if err := columns[i].append(out, values[i]); err != nil {
			return row, fmt.Errorf("%w: column %s: %w", enrich.ErrMalformed, fields[i].Name, err)
		}
	}
	out.WriteByte('}')
	row.JSON = out.Bytes()
	if nested {
		row.JSON, err = t.keep.Object(row.JSON)
	}
	return row, err
}

// valid reads when a row is valid.
func (t *Table) valid(values [][]byte) (from, to instant, err error) {
	from, to = instant{infinite: -1}, instant{infinite: 1}
	if t.from > 0 && values[t.from] != nil {
		if from, err = parseInstant(string(values[t.from])); err != nil {
			return from, to, err
		}
	}
	if t.to > 0 && values[t.to] != nil {
		to, err = parseInstant(string(values[t.to]))
	}
	return from, to, err
}

// quoteTable is "table" or "schema.table" as SQL has it, whatever is in the names.
func quoteTable(name string) (string, error) {
	var parts []string
	for rest := name; ; {
		part, after, more := "", "", false
		if strings.HasPrefix(rest, `"`) {
			end := strings.IndexByte(rest[1:], '"')
			if end < 0 {
				return "", fmt.Errorf("postgres: table %q: a double quote is not closed", name)
			}
			part, after = rest[1:1+end], rest[2+end:]
			if after, more = strings.CutPrefix(after, "."); !more && after != "" {
				return "", fmt.Errorf("postgres: table %q: %q comes after a double quote", name, after)
			}
		} else {
			part, after, more = strings.Cut(rest, ".")
		}
		if part == "" || strings.ContainsAny(part, "\x00\"") || len(parts) == 2 {
			return "", fmt.Errorf("postgres: %q is not a table: table or schema.table is", name)
		}
		parts = append(parts, quote(part))
		if !more {
			return strings.Join(parts, "."), nil
		}
		rest = after
	}
}

func quote(identifier string) string {
	return `"` + strings.ReplaceAll(identifier, `"`, `""`) + `"`
}
