package checkpoint

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/millstream/millstream/stream"
)

// An entry's object is
//
//	magic    "MSE"
//	version  1 byte
//	header   uvarint length, then stream.Entry as JSON
//	blobs    for every blob without an object name, in the order of Entry.Blobs:
//	         uvarint length, then its stored bytes
//	sum      8 bytes, little endian: XXH64 of everything before
const (
	entryMagic   = "MSE"
	entryVersion = 1
	entrySum     = 8
)

// Damaged means that an object of the log is not what was written, or is gone. The partition stops; it is never
// started from an older entry, whose successors' output may be visible (A9).
type Damaged struct {
	Object  string // full name in the bucket
	Problem string
}

func (d *Damaged) Error() string {
	return fmt.Sprintf("object %s is damaged: %s; restore it, from the bucket's versions or a backup, or start again with `checkpoints reset` or a new --name", d.Object, d.Problem)
}

// encodeEntry makes the bytes of an entry.
func encodeEntry(e *stream.Entry) ([]byte, error) {
	header, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("entry header: %w", err)
	}
	size := len(entryMagic) + 1 + binary.MaxVarintLen64 + len(header) + entrySum
	e.Blobs(func(b *stream.Blob) { size += binary.MaxVarintLen64 + len(b.Inline) })
	data := make([]byte, 0, size)
	data = append(data, entryMagic...)
	data = append(data, entryVersion)
	data = binary.AppendUvarint(data, uint64(len(header)))
	data = append(data, header...)
	e.Blobs(func(b *stream.Blob) {
		if b.Object == "" {
			data = binary.AppendUvarint(data, uint64(len(b.Inline)))
			data = append(data, b.Inline...)
		}
	})
	return binary.LittleEndian.AppendUint64(data, xxhash.Sum64(data)), nil
}

// decodeEntry is the inverse of encodeEntry. Inline blobs point into data.
func decodeEntry(data []byte) (*stream.Entry, error) {
	if len(data) < len(entryMagic)+1+1+entrySum {
		return nil, fmt.Errorf("only %d bytes", len(data))
	}
	if string(data[:len(entryMagic)]) != entryMagic {
		return nil, errors.New("not an entry")
	}
	if v := data[len(entryMagic)]; v != entryVersion {
		return nil, fmt.Errorf("entry format %d, but this program reads format %d: a newer one wrote it", v, entryVersion)
	}
	body := data[:len(data)-entrySum]
	if xxhash.Sum64(body) != binary.LittleEndian.Uint64(data[len(body):]) {
		return nil, errors.New("checksum does not match")
	}
	rest := body[len(entryMagic)+1:]
	header, rest, err := cut(rest)
	if err != nil {
		return nil, err
	}
	e := new(stream.Entry)
	if err := json.Unmarshal(header, e); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	e.Blobs(func(b *stream.Blob) {
		if b.Object == "" && err == nil {
			b.Inline, rest, err = cut(rest)
		}
	})
	if err != nil {
		return nil, err
	}
	if len(rest) != 0 {
		return nil, fmt.Errorf("%d bytes too many", len(rest))
	}
	if e.Nonce == "" || e.Kind == "" {
		return nil, errors.New("an entry without kind or nonce")
	}
	return e, nil
}

// cut takes a length and as many bytes from the front.
func cut(data []byte) (front, rest []byte, err error) {
	n, used := binary.Uvarint(data)
	if used <= 0 || n > uint64(len(data)-used) {
		return nil, nil, errors.New("a length is beyond the end")
	}
	data = data[used:]
	return data[:n:n], data[n:], nil
}
