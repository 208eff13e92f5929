package fields

import (
	"encoding/binary"
	"unsafe"
)

// view returns the bytes as a string that shares their memory. It is sound as
// long as nobody writes to them, which is the contract of [Scanner.Scan].
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// load returns the eight bytes from i on, the first one lowest. The caller has
// checked that 0 <= i and i+8 <= len(s).
func load(s string, i int) uint64 {
	return binary.LittleEndian.Uint64((*[8]byte)(unsafe.Add(unsafe.Pointer(unsafe.StringData(s)), i))[:])
}
