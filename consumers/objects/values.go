package objects

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/millstream/millstream/stream"
)

var errLarge = fmt.Errorf("a record is larger than %d bytes", MaxRecord)

// rationed ends a stream from which more than a record's size is read without a record's end.
type rationed struct {
	in   io.Reader
	left int
}

func (r *rationed) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, errLarge
	}
	n, err := r.in.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}

// refill is called at a record's end. What is read ahead counts for the next.
func (r *rationed) refill() { r.left = MaxRecord + 64<<10 }

// bom is what some programs write at the start of a text.
var bom = []byte("\xEF\xBB\xBF")

func withoutBOM(in io.Reader) *bufio.Reader {
	b := bufio.NewReaderSize(in, 64<<10)
	if start, err := b.Peek(len(bom)); err == nil && bytes.Equal(start, bom) {
		_, _ = b.Discard(len(bom)) // it is there
	}
	return b
}

// values are the elements of a JSON array, or JSON values one behind the other.
type values struct {
	ration *rationed
	in     *bufio.Reader
	dec    *json.Decoder
	array  bool
	count  int64
}

func newValues(in io.Reader) *values {
	v := &values{ration: &rationed{in: in}}
	v.ration.refill()
	v.in = withoutBOM(v.ration)
	return v
}

func (v *values) next() (element, error) {
	if v.dec == nil {
		if err := v.start(); err != nil {
			return element{}, err
		}
	}
	if v.array && !v.dec.More() {
		if _, err := v.dec.Token(); err != nil { // the bracket
			return element{}, unexpected(err)
		}
		v.array = false
	}
	var raw json.RawMessage
	if err := v.dec.Decode(&raw); err != nil {
		if v.array {
			err = unexpected(err)
		}
		return element{}, err
	}
	v.ration.refill()
	v.count++
	var flat bytes.Buffer
	if err := json.Compact(&flat, raw); err != nil {
		return element{}, err
	}
	e := element{data: flat.Bytes(), place: v.count}
	if flat.Len() > MaxRecord {
		e.data, e.refused = bytes.Clone(flat.Bytes()[:refusedKept]), stream.TooLarge(int64(flat.Len()))
	}
	return e, nil
}

// start looks whether it is an array.
func (v *values) start() error {
	for {
		b, err := v.in.ReadByte()
		if err != nil {
			return err
		}
		if b == ' ' || b == '\n' || b == '\t' || b == '\r' {
			continue
		}
		if err := v.in.UnreadByte(); err != nil {
			return err
		}
		v.dec = json.NewDecoder(v.in)
		if v.array = b == '['; v.array {
			_, err = v.dec.Token()
		}
		return err
	}
}

// unexpected is an end where there should be more.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// rows are CSV with a header.
type rows struct {
	ration *rationed
	in     *csv.Reader
	taken  bytes.Buffer // what in has read, from the offset from on
	from   int64
	header []string
	count  int64
}

func newRows(in io.Reader) *rows {
	r := &rows{ration: &rationed{in: in}}
	r.ration.refill()
	r.in = csv.NewReader(io.TeeReader(withoutBOM(r.ration), &r.taken))
	r.in.FieldsPerRecord = -1
	return r
}

func (r *rows) next() (element, error) {
	if r.header == nil {
		header, raw, err := r.row()
		if err != nil {
			return element{}, err
		}
		if !utf8.Valid(raw) {
			return element{}, errors.New("the header is not UTF-8")
		}
		r.header = header
	}
	fields, raw, err := r.row()
	var wrong *csv.ParseError
	if err != nil && !errors.As(err, &wrong) {
		return element{}, err
	}
	r.count++
	e := element{place: r.count}
	switch {
	case wrong != nil && errors.Is(err, errLarge):
		return element{}, errLarge
	case wrong != nil:
		e.data, e.refused = raw, &stream.Refusal{Reason: ReasonRow, Detail: wrong.Error()}
	case len(fields) != len(r.header):
		e.data, e.refused = raw, &stream.Refusal{Reason: ReasonRow, Detail: fmt.Sprintf("%d fields under a header of %d", len(fields), len(r.header))}
	case !utf8.Valid(raw):
		e.data, e.refused = raw, &stream.Refusal{Reason: ReasonRow, Detail: "not UTF-8"}
	default:
		e.data = object(r.header, fields)
	}
	if e.refused != nil && len(e.data) > refusedKept {
		e.refused.Length, e.data = int64(len(e.data)), e.data[:refusedKept]
	}
	return e, nil
}

// row reads a row, and its bytes.
func (r *rows) row() (fields []string, raw []byte, err error) {
	fields, err = r.in.Read()
	to := r.in.InputOffset()
	raw = bytes.TrimRight(bytes.Clone(r.taken.Next(int(to-r.from))), "\r\n")
	r.from = to
	r.ration.refill()
	return fields, raw, err
}

// object is a row under its header.
func object(header, fields []string) []byte {
	out := []byte{'{'}
	for i, f := range fields {
		if i > 0 {
			out = append(out, ',')
		}
		name, _ := json.Marshal(header[i]) // strings always marshal
		value, _ := json.Marshal(f)
		out = append(append(append(out, name...), ':'), value...)
	}
	return append(out, '}')
}
