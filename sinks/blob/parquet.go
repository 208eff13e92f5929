package blob

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
)

const (
	// rowGroup is how many bytes of rows, as JSON, are in one row group: memory holds one.
	rowGroup = 16 << 20
	// pageBuffer is what a column holds before it becomes a page.
	pageBuffer = 64 << 10
	// batch is how many rows go to the writer at once.
	batch = 64
)

// parquetFile writes Parquet. What it writes depends on the version of the library: see go.mod.
type parquetFile struct {
	out   io.Writer
	plan  *plan
	w     *parquet.GenericWriter[any]
	shred *shredder
	rows  []parquet.Row
	bytes int
}

var codecs = map[string]compress.Codec{
	none: &parquet.Uncompressed, snappy: &parquet.Snappy, gzipped: &parquet.Gzip, zstandard: &parquet.Zstd,
}

func newParquet(w io.Writer, p *plan) *parquetFile {
	return &parquetFile{out: w, plan: p, shred: newShredder(p)}
}

func (f *parquetFile) add(data []byte) (string, error) {
	if len(f.shred.root.fields) == 0 {
		return "it has no columns", nil
	}
	_, reason := f.shred.row(data)
	if reason != "" {
		return reason, nil
	}
	if f.w == nil {
		f.w = parquet.NewGenericWriter[any](f.out, parquet.NewSchema("rows", f.shred.root.node()),
			parquet.Compression(codecs[f.plan.Compression]), parquet.CreatedBy("millstream", "1", ""),
			parquet.PageBufferSize(pageBuffer), parquet.WriteBufferSize(0))
	}
	var row parquet.Row
	if n := len(f.rows); n < cap(f.rows) {
		row = f.rows[:n+1][n][:0]
	}
	for _, values := range f.shred.values {
		row = append(row, values...)
	}
	f.rows = append(f.rows, row)
	f.bytes += len(data)
	if len(f.rows) < batch && f.bytes < rowGroup {
		return "", nil
	}
	if err := f.write(); err != nil {
		return "", err
	}
	if f.bytes >= rowGroup {
		f.bytes = 0
		return "", f.w.Flush()
	}
	return "", nil
}

func (f *parquetFile) write() error {
	_, err := f.w.WriteRows(f.rows)
	f.rows = f.rows[:0]
	return err
}

func (f *parquetFile) end() error {
	if err := f.write(); err != nil {
		return err
	}
	return f.w.Close()
}

// node is the column as the library describes it.
func (c *column) node() parquet.Node {
	switch c.kind {
	case list:
		return parquet.List(parquet.Optional(c.elem.node()))
	case group:
		g := make(parquet.Group, len(c.fields))
		for _, f := range c.fields {
			g[f.name] = parquet.Optional(f.node())
		}
		return g
	case boolean:
		return parquet.Leaf(parquet.BooleanType)
	case integer:
		return parquet.Int(64)
	case double:
		return parquet.Leaf(parquet.DoubleType)
	case timestamp:
		return parquet.Timestamp(parquet.Microsecond)
	case anyJSON:
		return parquet.JSON()
	default:
		return parquet.String()
	}
}

// shredder turns rows into the values of columns, as in https://research.google/pubs/pub36632, and says of
// one that does not fit which column is at fault.
type shredder struct {
	root   *column
	ignore bool // fields that have no column
	values [][]parquet.Value
	path   []string
	leaf   int // the column that comes next
}

func newShredder(p *plan) *shredder {
	s := &shredder{root: p.schema.sorted(), ignore: p.Ignore}
	s.values = make([][]parquet.Value, s.root.count())
	return s
}

// sorted is the column with its groups' fields in the order in which Parquet files have them here.
func (c *column) sorted() *column {
	n := *c
	n.fields = make([]*column, len(c.fields))
	for i, f := range c.fields {
		n.fields[i] = f.sorted()
	}
	slices.SortFunc(n.fields, func(a, b *column) int { return cmp.Compare(a.name, b.name) })
	if c.elem != nil {
		n.elem = c.elem.sorted()
	}
	return &n
}

// count is the number of columns with values.
func (c *column) count() int {
	switch c.kind {
	case group:
		n := 0
		for _, f := range c.fields {
			n += f.count()
		}
		return n
	case list:
		return c.elem.count()
	}
	return 1
}

// row leaves a row's values in s.values, until the next.
func (s *shredder) row(data []byte) (map[string]any, string) {
	row, reason := object(data)
	if reason != "" {
		return nil, reason
	}
	for i := range s.values {
		s.values[i] = s.values[i][:0]
	}
	s.path, s.leaf = s.path[:0], 0
	return row, s.fields(s.root, row, 0, 0, 0)
}

// refused says why a value does not fit.
func (s *shredder) refused(format string, args ...any) string {
	return fmt.Sprintf("column %q: %s", pathOf(s.path), fmt.Sprintf(format, args...))
}

// fields takes the fields of a group that is there: rep and def are its levels, depth is the number of
// lists around it.
func (s *shredder) fields(c *column, row map[string]any, rep, def, depth int) string {
	found := 0
	for _, f := range c.fields {
		v, ok := row[f.name]
		if ok {
			found++
		}
		s.path = append(s.path, f.name)
		if reason := s.value(f, v, rep, def, depth); reason != "" {
			return reason
		}
		s.path = s.path[:len(s.path)-1]
	}
	if found == len(row) || s.ignore {
		return ""
	}
	names := make([]string, 0, len(row))
	for name := range row {
		if c.field(name) == nil {
			names = append(names, name)
		}
	}
	s.path = append(s.path, slices.Min(names))
	return s.refused("the file has no such column")
}

// value takes a value that may be null.
func (s *shredder) value(c *column, v any, rep, def, depth int) string {
	if v == nil {
		s.null(c, rep, def)
		return ""
	}
	switch c.kind {
	case group:
		row, ok := v.(map[string]any)
		if !ok {
			return s.refused("it is %s, want an object", named(v))
		}
		return s.fields(c, row, rep, def+1, depth)
	case list:
		elems, ok := v.([]any)
		if !ok {
			return s.refused("it is %s, want an array", named(v))
		}
		if len(elems) == 0 {
			s.null(c, rep, def+1)
			return ""
		}
		s.path = append(s.path, "[]")
		first := s.leaf
		for i, e := range elems {
			s.leaf = first
			if i > 0 {
				rep = depth + 1
			}
			if reason := s.value(c.elem, e, rep, def+2, depth+1); reason != "" {
				return reason
			}
		}
		s.path = s.path[:len(s.path)-1]
		return ""
	}
	value, reason := s.scalar(c.kind, v)
	if reason != "" {
		return reason
	}
	s.values[s.leaf] = append(s.values[s.leaf], value.Level(rep, def+1, s.leaf))
	s.leaf++
	return ""
}

// null leaves out everything below a column.
func (s *shredder) null(c *column, rep, def int) {
	for range c.count() {
		s.values[s.leaf] = append(s.values[s.leaf], parquet.NullValue().Level(rep, def, s.leaf))
		s.leaf++
	}
}

func (s *shredder) scalar(k kind, v any) (parquet.Value, string) {
	switch k {
	case boolean:
		if b, ok := v.(bool); ok {
			return parquet.BooleanValue(b), ""
		}
	case integer:
		if n, ok := v.(json.Number); ok {
			i, ok := whole(string(n))
			if !ok {
				return parquet.Value{}, s.refused("%s is no integer of 64 bits", short(string(n)))
			}
			return parquet.Int64Value(i), ""
		}
	case double:
		if n, ok := v.(json.Number); ok {
			f, err := strconv.ParseFloat(string(n), 64)
			if err != nil || !strings.ContainsAny(string(n), ".eE") && !exact(string(n), f) {
				return parquet.Value{}, s.refused("%s cannot be held exactly as a double", short(string(n)))
			}
			return parquet.DoubleValue(f), ""
		}
	case text:
		if t, ok := v.(string); ok {
			return parquet.ByteArrayValue([]byte(t)), ""
		}
	case timestamp:
		if t, ok := v.(string); ok {
			at, ok := instant(t)
			if !ok {
				return parquet.Value{}, s.refused("%q is no time in RFC 3339", short(t))
			}
			return parquet.Int64Value(at.UnixMicro()), ""
		}
	case anyJSON:
		return parquet.ByteArrayValue([]byte(asJSON(v))), ""
	}
	return parquet.Value{}, s.refused("it is %s, want %s", named(v), k)
}

// whole reads an integer, however it is written.
func whole(n string) (int64, bool) {
	if i, err := strconv.ParseInt(n, 10, 64); err == nil {
		return i, true
	}
	f, err := strconv.ParseFloat(n, 64)
	if err != nil || !strings.ContainsAny(n, ".eE") || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	return int64(f), true
}

// exact reports whether an integer is the same as a double.
func exact(n string, f float64) bool {
	i, err := strconv.ParseInt(n, 10, 64)
	return err == nil && math.Abs(f) < 1<<63 && int64(f) == i
}

// named says what a JSON value is.
func named(v any) string {
	switch v := v.(type) {
	case bool:
		return "a boolean"
	case json.Number:
		return "the number " + short(string(v))
	case string:
		return "the text " + strconv.Quote(short(v))
	case []any:
		return "an array"
	}
	return "an object"
}

// short keeps a reason readable.
func short(s string) string {
	if len(s) > 40 {
		return strings.ToValidUTF8(s[:40], "") + "…"
	}
	return s
}
