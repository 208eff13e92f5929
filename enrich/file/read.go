package file

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/enrich"
)

// stamp is what changes with the file.
func (t *Table) stamp(ctx context.Context) (string, error) {
	if t.o.Bucket == nil {
		info, err := os.Stat(t.o.Path)
		if err != nil {
			return "", err
		}
		return fmt.Sprint(info.Size(), " ", info.ModTime().UnixNano()), nil
	}
	all, err := t.o.Bucket.Objects(ctx, t.o.Path)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(all, func(o bucket.Info) bool { return o.Name == t.o.Path })
	if i < 0 {
		return "", fmt.Errorf("%s: %w", t.o.Path, bucket.ErrNotFound)
	}
	return fmt.Sprintf("%+v", all[i]), nil
}

// open opens the file as it lies there.
func (t *Table) open(ctx context.Context) (io.ReadCloser, error) {
	if t.o.Bucket != nil {
		return t.o.Bucket.Read(ctx, t.o.Path, 0)
	}
	return os.Open(t.o.Path)
}

// read reads the whole file. It is read again when it has changed meanwhile.
func (t *Table) read(ctx context.Context) (*contents, error) {
	for range 3 {
		before, err := t.stamp(ctx)
		if err != nil {
			return nil, err
		}
		c, err := t.readOnce(ctx)
		after, stampErr := t.stamp(ctx)
		switch {
		case stampErr != nil:
			return nil, stampErr
		case before != after:
			continue // what was read may be half of each
		case err != nil:
			return nil, fmt.Errorf("%s: %w", t.o.Path, err)
		}
		c.stamp = after
		return c, nil
	}
	return nil, fmt.Errorf("%s: changes all the time", t.o.Path)
}

func (t *Table) readOnce(ctx context.Context) (*contents, error) {
	in, err := t.open(ctx)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	plain, name, err := unpacked(in, path.Base(t.o.Path))
	if err != nil {
		return nil, err
	}
	plain = &bounded{in: plain, left: t.o.MaxBytes, ctx: ctx}
	kind := t.o.Format
	if kind == "" {
		kind = strings.TrimPrefix(path.Ext(name), ".")
	}
	b := newBuilder(t)
	switch kind {
	case "csv":
		err = b.csv(plain)
	case "json":
		err = b.json(plain)
	case "ndjson", "jsonl":
		err = b.ndjson(plain)
	case "parquet":
		err = b.parquet(plain)
	default:
		return nil, fmt.Errorf("the format %q is not known: say csv, json, ndjson or parquet", kind)
	}
	if err != nil {
		return nil, err
	}
	return b.done()
}

// unpacked decompresses by the name's last suffix, and returns the name without it.
func unpacked(in io.Reader, name string) (io.Reader, string, error) {
	switch path.Ext(name) {
	case ".gz":
		z, err := gzip.NewReader(in)
		return z, strings.TrimSuffix(name, ".gz"), err
	case ".zst":
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(64<<20))
		if err != nil {
			return nil, "", err
		}
		return z.IOReadCloser(), strings.TrimSuffix(name, ".zst"), nil
	}
	return in, name, nil
}

// bounded ends a file that is larger than allowed with an error, and one that nobody waits for.
type bounded struct {
	in   io.Reader
	left int64
	ctx  context.Context //nolint:containedctx // of this one reading
}

func (b *bounded) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.in.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n, errors.New("the file is larger than allowed (MaxBytes)")
	}
	return n, err
}

// csv reads rows under a header. An empty cell is null; every other is a string.
func (b *builder) csv(in io.Reader) error {
	r := csv.NewReader(withoutBOM(in))
	r.ReuseRecord = true
	header, err := r.Read()
	if err != nil {
		return fmt.Errorf("no header: %w", err)
	}
	header = slices.Clone(header)
	column := func(name string) int { return slices.Index(header, name) }
	key := column(b.t.o.Key)
	if key < 0 {
		return fmt.Errorf("there is no column %q: the columns are %s", b.t.o.Key, strings.Join(header, ", "))
	}
	for _, name := range []string{b.t.o.ValidFrom, b.t.o.ValidTo} {
		if name != "" && column(name) < 0 {
			return fmt.Errorf("there is no column %q: the columns are %s", name, strings.Join(header, ", "))
		}
	}
	names := make([][]byte, len(header))
	for i, name := range header {
		if names[i], err = json.Marshal(name); err != nil {
			return err
		}
	}
	cell := func(row []string, name string) string {
		if name == "" {
			return ""
		}
		return row[column(name)]
	}
	for at := 2; ; at++ {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		object := []byte{'{'}
		for i, value := range row {
			if i > 0 {
				object = append(object, ',')
			}
			object = append(append(object, names[i]...), ':')
			if value == "" {
				object = append(object, "null"...)
				continue
			}
			text, err := json.Marshal(value)
			if err != nil {
				return err
			}
			object = append(object, text...)
		}
		if err := b.add(at, row[key], cell(row, b.t.o.ValidFrom), cell(row, b.t.o.ValidTo), append(object, '}')); err != nil {
			return err
		}
	}
}

func withoutBOM(in io.Reader) *bufio.Reader {
	b := bufio.NewReaderSize(in, 64<<10)
	if start, err := b.Peek(3); err == nil && string(start) == "\xEF\xBB\xBF" {
		_, _ = b.Discard(3) // it is there
	}
	return b
}

// ndjson reads one object a line.
func (b *builder) ndjson(in io.Reader) error {
	lines := bufio.NewScanner(withoutBOM(in))
	lines.Buffer(make([]byte, 64<<10), enrich.MaxRow+2)
	at := 0
	for lines.Scan() {
		at++
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		if err := b.object(at, lines.Bytes()); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("line %d: %w", at+1, err)
	}
	return nil
}

// json reads an array of objects, or an object that has each row under its key.
func (b *builder) json(in io.Reader) error {
	d := json.NewDecoder(withoutBOM(in))
	first, err := d.Token()
	if err != nil {
		return err
	}
	delim, _ := first.(json.Delim)
	if delim != '[' && delim != '{' {
		return errors.New("want an array of objects, or an object of rows by key")
	}
	for at := 1; d.More(); at++ {
		key := ""
		if delim == '{' {
			name, err := d.Token()
			if err != nil {
				return err
			}
			key, _ = name.(string)
		}
		var row json.RawMessage
		if err := d.Decode(&row); err != nil {
			return err
		}
		if delim == '{' {
			if err := b.keyed(at, key, row); err != nil {
				return err
			}
		} else if err := b.object(at, row); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return err
	}
	if d.More() {
		return errors.New("something follows behind the rows")
	}
	return nil
}

// object adds a row whose key is one of its fields.
func (b *builder) object(at int, row []byte) error {
	key, from, to, err := b.outer(row)
	if err != nil {
		return fmt.Errorf("row %d: %w", at, err)
	}
	if key == "" {
		return fmt.Errorf("row %d: there is no key %q", at, b.t.o.Key)
	}
	return b.add(at, key, from, to, row)
}

// keyed adds a row that stands under its key.
func (b *builder) keyed(at int, key string, row []byte) error {
	_, from, to, err := b.outer(row)
	if err != nil {
		return fmt.Errorf("row %d: %w", at, err)
	}
	return b.add(at, key, from, to, row)
}

// outer reads the fields of a row that matter here.
func (b *builder) outer(row []byte) (key, from, to string, err error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(row, &fields); err != nil {
		return "", "", "", fmt.Errorf("%w: %w", enrich.ErrMalformed, err)
	}
	if fields == nil {
		return "", "", "", fmt.Errorf("%w: not an object", enrich.ErrMalformed)
	}
	for _, f := range []struct {
		name string
		to   *string
	}{{b.t.o.Key, &key}, {b.t.o.ValidFrom, &from}, {b.t.o.ValidTo, &to}} {
		if raw := fields[f.name]; f.name != "" && raw != nil {
			if *f.to, err = text(raw); err != nil {
				return "", "", "", fmt.Errorf("%s: %w", f.name, err)
			}
		}
	}
	return key, from, to, nil
}

// text is a string, number or truth as a key has it; nothing of null.
func text(raw json.RawMessage) (string, error) {
	switch raw[0] {
	case '"':
		var s string
		err := json.Unmarshal(raw, &s)
		return s, err
	case 'n':
		return "", nil
	case '{', '[':
		return "", errors.New("want a string or a number")
	case 't', 'f':
		return string(raw), nil
	}
	if i, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return strconv.FormatInt(i, 10), nil
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil {
		return "", err
	}
	out, err := json.Marshal(f)
	return string(out), err
}

// parquet reads rows of any schema. The file is held in memory meanwhile, since its directory is at its end.
func (b *builder) parquet(in io.Reader) (err error) {
	defer func() {
		if v := recover(); v != nil { // the library's answer to some damaged files
			err = fmt.Errorf("the Parquet file cannot be read: %v", v)
		}
	}()
	data, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	f, err := parquet.OpenFile(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return err
	}
	r := parquet.NewGenericReader[any](f)
	defer r.Close()
	rows, at := make([]any, 256), 0
	for {
		n, err := r.Read(rows)
		for _, row := range rows[:n] {
			at++
			object, err := json.Marshal(legible(f.Schema(), row))
			if err == nil {
				err = b.object(at, object)
			}
			if err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// legible makes times of a row's timestamps and dates, and text of its strings.
func legible(node parquet.Node, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for _, field := range node.Fields() {
			if inner, ok := v[field.Name()]; ok {
				v[field.Name()] = legible(field, inner)
			}
		}
		return v
	case []any:
		for i := range v {
			v[i] = legible(node, v[i])
		}
		return v
	}
	if !node.Leaf() || node.Type().LogicalType() == nil {
		return v
	}
	switch kind := node.Type().LogicalType().Value.(type) {
	case *format.TimestampType:
		n, ok := v.(int64)
		if !ok {
			return v
		}
		var at time.Time
		switch kind.Unit.Value.(type) {
		case *format.MilliSeconds:
			at = time.UnixMilli(n)
		case *format.MicroSeconds:
			at = time.UnixMicro(n)
		default:
			at = time.Unix(0, n)
		}
		return at.UTC().Format(time.RFC3339Nano)
	case *format.DateType:
		if days, ok := v.(int32); ok {
			return time.Unix(int64(days)*86400, 0).UTC().Format(time.DateOnly)
		}
	}
	return v
}
