package fields

import (
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	ones     = 0x0101010101010101
	highs    = 0x8080808080808080
	quotes   = '"' * ones
	slashes  = '\\' * ones
	controls = 0x20 * ones
)

// special marks, by its high bit, the first byte of w that may not simply be
// passed over inside a string: a quote, a backslash, a control character or a
// byte of a longer UTF-8 sequence. Bytes above the first one may be marked
// wrongly, because a subtraction borrows from them. The result is 0 when all
// eight bytes are plain.
func special(w uint64) uint64 {
	return (((w ^ quotes) - ones) | ((w ^ slashes) - ones) | (w - controls) | w) & highs
}

// plain returns the index of the first byte from i on that is not plain, or
// the end of the record.
func plain(rec string, i int) int {
	for i+8 <= len(rec) {
		if m := special(load(rec, i)); m != 0 {
			return i + bits.TrailingZeros64(m)>>3
		}
		i += 8
	}
	for i < len(rec) && rec[i] >= ' ' && rec[i] < utf8.RuneSelf && rec[i] != '"' && rec[i] != '\\' {
		i++
	}
	return i
}

// text crosses a string whose plain bytes end at i and returns the index of
// its closing quote, and whether there is an escape before it. It returns -1
// after a failure.
func (s *Scanner) text(rec string, i int) (end int, escaped bool) {
	for {
		if i >= len(rec) {
			return s.fail(len(rec), endOfRecord), false
		}
		switch c := rec[i]; {
		case c == '"':
			return i, escaped
		case c == '\\':
			n, reason := escape(rec[i:])
			if n == 0 {
				if reason == endOfRecord {
					i = len(rec)
				}
				return s.fail(i, reason), false
			}
			escaped = true
			i += n
		case c < ' ':
			return s.fail(i, controlCharacter), false
		case c >= utf8.RuneSelf:
			r, n := utf8.DecodeRuneInString(rec[i:])
			if r == utf8.RuneError && n == 1 {
				return s.fail(i, invalidUTF8), false
			}
			i += n
			continue // text of one script rarely goes back to ASCII at once
		}
		i = plain(rec, i)
	}
}

// escape returns the length of the valid escape that t starts with, or 0 and
// what is wrong with it.
func escape(t string) (int, string) {
	if len(t) < 2 {
		return 0, endOfRecord
	}
	switch t[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2, ""
	case 'u':
		for k := 2; k < 6; k++ {
			if k >= len(t) {
				return 0, endOfRecord
			}
			if unhex(t[k]) > 15 {
				return 0, invalidEscape
			}
		}
		return 6, ""
	}
	return 0, invalidEscape
}

// unhex returns the value of a hexadecimal digit, or 255.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 255
}

// codeUnit returns the value of the \uXXXX that t starts with, or -1.
func codeUnit(t string) rune {
	if len(t) < 6 || t[0] != '\\' || t[1] != 'u' {
		return -1
	}
	var r rune
	for k := 2; k < 6; k++ {
		r = r<<4 | rune(unhex(t[k]))
	}
	return r
}

// appendUnescaped appends the meaning of string content that text has passed.
// It is never longer than the content.
func appendUnescaped(dst []byte, t string) []byte {
	for i := 0; i < len(t); {
		if t[i] != '\\' {
			k := i + 1
			for k < len(t) && t[k] != '\\' {
				k++
			}
			dst = append(dst, t[i:k]...)
			i = k
			continue
		}
		c := t[i+1]
		switch c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r := codeUnit(t[i:])
			i += 6
			if utf16.IsSurrogate(r) {
				// Half a pair alone becomes U+FFFD, and what follows it
				// stands for itself.
				pair := utf16.DecodeRune(r, codeUnit(t[i:]))
				if pair != utf8.RuneError {
					i += 6
				}
				r = pair
			}
			dst = utf8.AppendRune(dst, r)
			continue
		}
		dst = append(dst, c)
		i += 2
	}
	return dst
}

// chunk is how much memory for unescaped strings is taken at once. Strings
// share a chunk, so it is also what one small string may keep alive.
const chunk = 4 << 10

// unescape returns the meaning of string content. The result lives as long as
// anyone holds it: memory is handed out once, and never reused.
func (s *Scanner) unescape(t string) string {
	if len(t) > chunk/4 {
		return view(appendUnescaped(make([]byte, 0, len(t)), t))
	}
	if cap(s.arena)-len(s.arena) < len(t) {
		s.arena = make([]byte, 0, chunk)
	}
	from := len(s.arena)
	s.arena = appendUnescaped(s.arena, t)
	return view(s.arena[from:])
}

// appendQuoted appends t as a JSON string. Only what JSON requires is escaped.
func appendQuoted(dst []byte, t string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; ; {
		from := i
		for i < len(t) && t[i] >= ' ' && t[i] != '"' && t[i] != '\\' {
			i++
		}
		dst = append(dst, t[from:i]...)
		if i == len(t) {
			return append(dst, '"')
		}
		switch c := t[i]; c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
	}
}
