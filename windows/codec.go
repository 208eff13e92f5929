package windows

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"unsafe"
)

// stateVersion is the first byte of every snapshot and frozen slice.
const stateVersion = 1

// writer encodes state in bounded memory. The first error stays.
type writer struct {
	to  io.Writer
	buf []byte
	n   int64
	err error
}

const writerBytes = 64 << 10

func newWriter(to io.Writer) *writer { return &writer{to: to, buf: make([]byte, 0, writerBytes+1024)} }

func (w *writer) spill() {
	if len(w.buf) >= writerBytes {
		w.flush()
	}
}

func (w *writer) flush() {
	if w.err == nil {
		var n int
		n, w.err = w.to.Write(w.buf)
		w.n += int64(n)
	}
	w.buf = w.buf[:0]
}

func (w *writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

// done flushes and reports what was written, as io.WriterTo wants it.
func (w *writer) done() (int64, error) {
	w.flush()
	return w.n, w.err
}

func (w *writer) byte(b byte) {
	w.buf = append(w.buf, b)
	w.spill()
}

func (w *writer) uvarint(v uint64) {
	w.buf = binary.AppendUvarint(w.buf, v)
	w.spill()
}

func (w *writer) varint(v int64) {
	w.buf = binary.AppendVarint(w.buf, v)
	w.spill()
}

func (w *writer) uint64(v uint64) {
	w.buf = binary.LittleEndian.AppendUint64(w.buf, v)
	w.spill()
}

func (w *writer) float(f float64) { w.uint64(math.Float64bits(f)) }

func (w *writer) bool(b bool) {
	if b {
		w.byte(1)
	} else {
		w.byte(0)
	}
}

func (w *writer) string(s string) {
	w.uvarint(uint64(len(s)))
	w.raw(unsafe.Slice(unsafe.StringData(s), len(s)))
}

// raw writes bytes as they are, around the buffer when they are many.
func (w *writer) raw(b []byte) {
	if len(b) < writerBytes {
		w.buf = append(w.buf, b...)
		w.spill()
		return
	}
	w.flush()
	if w.err == nil {
		var n int
		n, w.err = w.to.Write(b)
		w.n += int64(n)
	}
}

var errDamaged = errors.New("window state is damaged")

// reader decodes state. It never reads beyond its data; the first error stays, and from then on every
// value is zero. Nothing it returns refers to data.
type reader struct {
	data []byte
	err  error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", errDamaged, what)
	}
	r.data = nil
}

func (r *reader) byte() byte {
	if len(r.data) == 0 {
		r.fail("it ends early")
		return 0
	}
	b := r.data[0]
	r.data = r.data[1:]
	return b
}

func (r *reader) bool() bool {
	b := r.byte()
	if b > 1 {
		r.fail("a flag is neither 0 nor 1")
	}
	return b == 1
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.data)
	if n <= 0 {
		r.fail("a number is cut off")
		return 0
	}
	r.data = r.data[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.data)
	if n <= 0 {
		r.fail("a number is cut off")
		return 0
	}
	r.data = r.data[n:]
	return v
}

func (r *reader) uint64() uint64 {
	if len(r.data) < 8 {
		r.fail("it ends early")
		return 0
	}
	v := binary.LittleEndian.Uint64(r.data)
	r.data = r.data[8:]
	return v
}

func (r *reader) float() float64 { return math.Float64frombits(r.uint64()) }

// bytes returns the next length-prefixed bytes, which belong to the reader's data.
func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.data)) {
		r.fail("a length is beyond the end")
		return nil
	}
	b := r.data[:n:n]
	r.data = r.data[n:]
	return b
}

func (r *reader) string() string { return string(r.bytes()) }

// count reads the number of things that take at least size bytes each, so that memory can be taken
// for them: no more than in proportion to the data.
func (r *reader) count(size int) int {
	n := r.uvarint()
	if n > uint64(len(r.data)/size) {
		r.fail("a count is beyond the end")
		return 0
	}
	return int(n)
}

func (r *reader) header(layout string) {
	if v := r.byte(); r.err == nil && v != stateVersion {
		r.err = fmt.Errorf("window state has format version %d, this program reads version %d", v, stateVersion)
		return
	}
	if got := string(r.bytes()); r.err == nil && got != layout {
		r.err = fmt.Errorf("window state holds %q, this program folds %q", clip(got), layout)
		r.data = nil
	}
}

func (w *writer) header(layout string) {
	w.byte(stateVersion)
	w.string(layout)
}

// end reports the first error, or bytes left over.
func (r *reader) end() error {
	if r.err == nil && len(r.data) != 0 {
		r.fail("bytes are left over")
	}
	return r.err
}

// clip bounds a text that comes from outside before it goes into a message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
