package kinesis

import "encoding/binary"

// base64Pairs says which 12 bits two base64 characters stand for, the first of them in the index's low
// byte; notBase64 marks what is no such pair. What texts use of it fits a processor's first cache.
var base64Pairs = func() *[1 << 16]uint16 {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	pairs := new([1 << 16]uint16)
	for i := range pairs {
		pairs[i] = notBase64
	}
	for high, first := range []byte(alphabet) {
		for low, second := range []byte(alphabet) {
			pairs[uint16(first)|uint16(second)<<8] = uint16(high<<6 | low)
		}
	}
	return pairs
}()

const notBase64 = 1 << 15

// decodeBase64 decodes src, in the standard alphabet with padding, into dst, which has room for
// len(src)/4*3 bytes. It reports false for anything else, line breaks included, and then dst holds nothing
// of use. The bits behind the last byte are not looked at, as encoding/base64 does not.
func decodeBase64(dst, src []byte) (n int, ok bool) {
	if len(src)%4 != 0 {
		return 0, false
	}
	if len(src) == 0 {
		return 0, true
	}
	last := src[len(src)-4:]
	src = src[:len(src)-4]
	pairs := base64Pairs
	bad := uint64(0)
	for len(src) >= 8 && len(dst) >= 8 {
		in := binary.LittleEndian.Uint64(src)
		pair := uint64(pairs[uint16(in)])
		bad |= pair
		out := pair
		pair = uint64(pairs[uint16(in>>16)])
		bad |= pair
		out = out<<12 | pair
		pair = uint64(pairs[uint16(in>>32)])
		bad |= pair
		out = out<<12 | pair
		pair = uint64(pairs[uint16(in>>48)])
		bad |= pair
		out = out<<12 | pair
		binary.BigEndian.PutUint64(dst, out<<16)
		src, dst, n = src[8:], dst[6:], n+6
	}
	for ; len(src) >= 4; src, dst, n = src[4:], dst[3:], n+3 {
		a, b := pairs[binary.LittleEndian.Uint16(src)], pairs[binary.LittleEndian.Uint16(src[2:])]
		bad |= uint64(a | b)
		dst[0], dst[1], dst[2] = byte(a>>4), byte(a<<4|b>>8), byte(b)
	}
	padding := 0
	for last[3-padding] == '=' && padding < 2 {
		padding++
	}
	whole := [4]byte{'A', 'A', 'A', 'A'}
	copy(whole[:], last[:4-padding])
	a, b := pairs[binary.LittleEndian.Uint16(whole[:])], pairs[binary.LittleEndian.Uint16(whole[2:])]
	bad |= uint64(a | b)
	bytes := [3]byte{byte(a >> 4), byte(a<<4 | b>>8), byte(b)}
	return n + copy(dst, bytes[:3-padding]), bad&notBase64 == 0
}
