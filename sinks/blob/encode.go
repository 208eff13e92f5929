package blob

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/millstream/millstream/sinks"
	"github.com/millstream/millstream/stream"
)

// encoder writes the rows of one file. Its bytes depend on the rows and the plan alone.
type encoder interface {
	// add writes a row, or says why it cannot be in such a file. It keeps nothing of data.
	add(data []byte) (reason string, err error)
	// end writes what is left.
	end() error
}

// encoder writes to w; without compression, if that goes around the file, unless compressed is set.
func (p *plan) encoder(w io.Writer, compressed bool) (encoder, error) {
	if p.Format == parquetFormat {
		return newParquet(w, p), nil
	}
	var around io.WriteCloser
	switch {
	case !compressed:
	case p.Compression == gzipped:
		around = gzip.NewWriter(w) // its header has no time and no name
	case p.Compression == zstandard:
		z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return nil, err
		}
		around = z
	}
	if around != nil {
		w = around
	}
	var e encoder = &lines{w: w}
	if p.Format == csvFormat {
		e = newCSV(w, p)
	}
	if around == nil {
		return e, nil
	}
	return &enclosed{e, around}, nil
}

// plain reads a file as it was before a compression around it.
func (p *plan) plain(r io.Reader) (io.Reader, error) {
	switch {
	case p.Format == parquetFormat || p.Compression == none:
		return r, nil
	case p.Compression == gzipped:
		return gzip.NewReader(r)
	}
	return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
}

// enclosed ends the compression with the file.
type enclosed struct {
	encoder
	around io.Closer
}

func (e *enclosed) end() error {
	if err := e.encoder.end(); err != nil {
		return err
	}
	return e.around.Close()
}

// lines is newline-delimited JSON.
type lines struct{ w io.Writer }

var newline = []byte{'\n'}

func (l *lines) add(data []byte) (string, error) {
	if bytes.IndexByte(data, '\n') < 0 {
		if _, err := l.w.Write(data); err != nil {
			return "", err
		}
		_, err := l.w.Write(newline)
		return "", err
	}
	line, rejected := sinks.Lines([]stream.Row{{Data: data}})
	if rejected != nil {
		return rejected.Rows[0].Reason, nil
	}
	_, err := l.w.Write(line)
	return "", err
}

func (l *lines) end() error { return nil }

// csv has a header, and "\n" at the end of lines. A field that is absent or null is empty, and an empty text
// is "".
type csv struct {
	w       io.Writer
	plan    *plan
	index   map[string]int // columns of a learned header
	shred   *shredder      // checks rows against a schema that was given; nil for a learned one
	headed  bool
	cells   [][]byte
	line    []byte
	columns [][]string
}

func newCSV(w io.Writer, p *plan) *csv {
	c := &csv{w: w, plan: p}
	if p.Schema != "" {
		c.shred, c.columns = newShredder(p), p.schema.leaves()
	} else {
		c.index = make(map[string]int)
		for i, f := range p.schema.fields {
			c.index[f.name] = i
			c.columns = append(c.columns, []string{f.name})
		}
	}
	c.cells = make([][]byte, len(c.columns))
	return c
}

func (c *csv) add(data []byte) (string, error) {
	clear(c.cells)
	reason := ""
	if c.shred != nil {
		reason = c.bySchema(data)
	} else {
		reason = c.asLearned(data)
	}
	if reason != "" {
		return reason, nil
	}
	c.line = c.line[:0]
	if !c.headed {
		c.headed = true
		for i, names := range c.columns {
			c.line = cell(append(c.line, separator(i)...), []byte(strings.Join(names, ".")), true)
		}
		c.line = append(c.line, '\n')
	}
	for i, text := range c.cells {
		c.line = cell(append(c.line, separator(i)...), text, text != nil)
	}
	if len(c.cells) == 1 && c.cells[0] == nil {
		c.line = append(c.line, `""`...) // else readers skip the line
	}
	c.line = append(c.line, '\n')
	_, err := c.w.Write(c.line)
	return "", err
}

func separator(i int) string {
	if i == 0 {
		return ""
	}
	return ","
}

// cell appends a field, in quotes when it needs them.
func cell(line, text []byte, there bool) []byte {
	if !there {
		return line
	}
	if len(text) > 0 && !bytes.ContainsAny(text, ",\"\r\n") && text[0] != ' ' && text[len(text)-1] != ' ' {
		return append(line, text...)
	}
	line = append(line, '"')
	line = append(line, bytes.ReplaceAll(text, []byte{'"'}, []byte{'"', '"'})...)
	return append(line, '"')
}

func (c *csv) asLearned(data []byte) string {
	reason := ""
	err := members(data, func(name string, raw json.RawMessage) {
		i, ok := c.index[name]
		switch text := bytes.TrimSpace(raw); {
		case !ok:
			reason = fmt.Sprintf("column %q: the file's rows have more than %d columns: choose them with schema=", name, maxColumns)
		case string(text) == "null":
			c.cells[i] = nil
		case text[0] == '"':
			var s string
			if json.Unmarshal(text, &s) == nil {
				c.cells[i] = append([]byte{}, s...)
			}
		case text[0] == '{', text[0] == '[':
			var b bytes.Buffer
			if json.Compact(&b, text) == nil {
				c.cells[i] = b.Bytes()
			}
		default:
			c.cells[i] = text
		}
	})
	if err != nil {
		return notAnObject(err)
	}
	return reason
}

func (c *csv) bySchema(data []byte) string {
	row, reason := c.shred.row(data)
	if reason != "" {
		return reason
	}
	for i, names := range c.columns {
		var v any = row
		for _, name := range names {
			fields, _ := v.(map[string]any) // else it is null
			v = fields[name]
		}
		switch v := v.(type) {
		case nil:
		case string:
			c.cells[i] = append([]byte{}, v...)
		default:
			c.cells[i] = []byte(asJSON(v))
		}
	}
	return ""
}

func (c *csv) end() error { return nil }

// members calls f for each member of a JSON object, in order.
func members(data []byte, f func(name string, raw json.RawMessage)) error {
	d := json.NewDecoder(bytes.NewReader(data))
	t, err := d.Token()
	if err != nil {
		return err
	}
	if t != json.Delim('{') {
		return errNoObject
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return err
		}
		name, _ := t.(string) // of an object it is one
		f(name, raw)
	}
	if _, err := d.Token(); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errNoObject
	}
	return nil
}
