package stream

import (
	"encoding/binary"
	"errors"
	"io"
)

// partBytes is the size at which staged output is cut into parts: each is written, read back and
// delivered alone, so that a million rows never stand in memory together.
const partBytes = 4 << 20

// rowsWriter encodes rows for the log: per row the lengths of key and data, the window, the bytes.
type rowsWriter []Row

func (rs rowsWriter) WriteTo(w io.Writer) (int64, error) {
	var total int64
	buf := make([]byte, 0, 64<<10)
	flush := func() error {
		n, err := w.Write(buf)
		total += int64(n)
		buf = buf[:0]
		return err
	}
	buf = binary.AppendUvarint(buf, uint64(len(rs)))
	for i := range rs {
		r := &rs[i]
		buf = binary.AppendUvarint(buf, uint64(len(r.Key)))
		buf = append(buf, r.Key...)
		buf = binary.AppendVarint(buf, int64(r.Window.Start))
		buf = binary.AppendVarint(buf, int64(r.Window.End))
		buf = binary.AppendUvarint(buf, uint64(len(r.Data)))
		buf = append(buf, r.Data...)
		if len(buf) >= 64<<10 {
			if err := flush(); err != nil {
				return total, err
			}
		}
	}
	return total, flush()
}

var errRows = errors.New("staged rows are damaged")

// decodeRows is the inverse of rowsWriter. The rows point into data.
func decodeRows(data []byte) ([]Row, error) {
	bad := false
	uvarint := func() uint64 {
		v, n := binary.Uvarint(data)
		if n <= 0 {
			bad, data = true, nil
			return 0
		}
		data = data[n:]
		return v
	}
	varint := func() Instant {
		v, n := binary.Varint(data)
		if n <= 0 {
			bad, data = true, nil
			return 0
		}
		data = data[n:]
		return Instant(v)
	}
	bytes := func() []byte {
		n := uvarint()
		if n > uint64(len(data)) {
			bad, data = true, nil
			return nil
		}
		b := data[:n:n]
		data = data[n:]
		return b
	}
	count := uvarint()
	if count > uint64(len(data))/4 { // a row takes four bytes at least
		return nil, errRows
	}
	rows := make([]Row, 0, count)
	for range count {
		r := Row{Key: string(bytes())}
		r.Window = Window{varint(), varint()}
		r.Data = bytes()
		rows = append(rows, r)
	}
	if bad || len(data) != 0 {
		return nil, errRows
	}
	return rows, nil
}
