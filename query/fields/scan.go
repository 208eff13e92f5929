package fields

import (
	"math/bits"
	"strconv"
)

// Error says why a record is refused. Its text depends on nothing but the
// bytes of the record, and quotes none of them.
type Error struct {
	Offset  int    // of the byte where the record stops being acceptable
	Reason  string // what is wrong there
	Content bool   // Offset counts in the content of a record that is a string
}

func (e *Error) Error() string {
	at := "offset " + strconv.Itoa(e.Offset) + ": " + e.Reason
	if e.Content {
		return "the JSON in the string, " + at
	}
	return at
}

const (
	endOfRecord      = "unexpected end of the record"
	notObject        = "not a JSON object"
	afterObject      = "more data after the object"
	wantKey          = "expected a key"
	wantColon        = "expected ':' after the key"
	wantValue        = "expected a value"
	wantCommaBrace   = "expected ',' or '}'"
	wantCommaBracket = "expected ',' or ']'"
	invalidNumber    = "invalid number"
	invalidEscape    = "invalid escape in a string"
	controlCharacter = "control character in a string"
	invalidUTF8      = "invalid UTF-8"
	tooDeep          = "nested deeper than 64"
)

// Scanner scans records for the fields of its plan. It is not safe for
// concurrent use; values it has returned may be used anywhere.
type Scanner struct {
	plan   *Plan
	found  []span // of each path, and one nobody reads
	layout layout
	arena  []byte // memory for unescaped strings, see unescape
	// content is set while the text scanned is the content of a string.
	content bool
	err     *Error // why the scan under way failed
}

// span is where a value stands: of a string, without its quotes.
type span struct {
	start, end int
	kind       Kind
	escaped    bool
}

// Scan finds the plan's fields in a record and puts them into out, in the
// order of the paths given to Compile; out must be that long. A field that
// the record lacks is Absent. After an error, which is an *Error, all are.
//
// The values share the memory of record: it must not be written to while any
// of them is in use. Scan itself keeps nothing of it. The size of a record is
// the caller's to limit. Scan allocates only for wanted strings with escapes,
// for records that are strings, and for errors.
func (s *Scanner) Scan(record []byte, out []Value) error {
	if len(out) != s.plan.paths {
		panic("fields: Scan needs one Value for each path of the plan")
	}
	clear(s.found)
	rec, i := s.open(view(record))
	if i >= 0 {
		places := s.layout.begin()
		if i = s.object(rec, i, 1, s.plan.root.next, places); i >= 0 {
			i = s.close(rec, i)
		}
	}
	if i < 0 {
		clear(out)
		return s.failure()
	}
	for slot := range out {
		out[slot] = s.value(rec, &s.found[slot])
	}
	for _, same := range s.plan.same {
		out[same[0]] = out[same[1]]
	}
	if s.layout.learn {
		s.learnLayout(rec)
	}
	return nil
}

// value returns the value at a span.
func (s *Scanner) value(rec string, at *span) Value {
	v := Value{Raw: rec[at.start:at.end], Kind: at.kind, clean: !at.escaped}
	if at.escaped {
		v.Raw = s.unescape(v.Raw)
	}
	return v
}

// open finds the object in a record, and returns the text it stands in and
// the index after its brace. The text is the record, or its content if the
// record is a string.
func (s *Scanner) open(rec string) (string, int) {
	s.content = false
	i := space(rec, 0)
	if i < len(rec) && rec[i] == '"' {
		end, escaped := s.text(rec, plain(rec, i+1))
		if end < 0 {
			return "", -1
		}
		content := rec[i+1 : end]
		if i = space(rec, end+1); i < len(rec) {
			return "", s.fail(i, afterObject)
		}
		if escaped {
			content = s.unescape(content)
		}
		rec, i = content, space(content, 0)
		s.content = true
	}
	if i == len(rec) {
		return "", s.fail(i, endOfRecord)
	}
	if rec[i] != '{' {
		return "", s.fail(i, notObject)
	}
	return rec, i + 1
}

// close checks that nothing follows the object.
func (s *Scanner) close(rec string, i int) int {
	if i = space(rec, i); i < len(rec) {
		return s.fail(i, afterObject)
	}
	return i
}

// fail notes why the scan fails, and returns the -1 that stops it.
func (s *Scanner) fail(offset int, reason string) int {
	s.err = &Error{Offset: offset, Reason: reason, Content: s.content}
	return -1
}

// refuse fails because of the byte at i, or because there is none.
func (s *Scanner) refuse(rec string, i int, reason string) int {
	if i >= len(rec) {
		return s.fail(len(rec), endOfRecord)
	}
	return s.fail(i, reason)
}

func (s *Scanner) failure() error {
	err := s.err
	s.err = nil
	return err
}

// space returns the index of the first byte from i on that is not white space.
func space(rec string, i int) int {
	for i < len(rec) && rec[i] <= ' ' && (rec[i] == ' ' || rec[i] == '\n' || rec[i] == '\t' || rec[i] == '\r') {
		i++
	}
	return i
}

// object scans an object for some keys. The index i is the one after its
// opening brace; the result is the one after its closing brace, or -1. The
// keys are expected in the order of places, as far as these go.
func (s *Scanner) object(rec string, i, depth int, wanted *keys, places []place) int {
	if i = space(rec, i); i < len(rec) && rec[i] == '}' {
		return i + 1
	}
	for {
		var child *node
		if len(places) > 0 && places[0].is(rec, i) {
			child = places[0].child
			i += places[0].size
			places = places[1:]
		} else {
			if len(places) > 0 {
				places = s.layout.next(rec, i, places)
			}
			if i, child = s.key(rec, i, wanted); i < 0 {
				return -1
			}
		}
		if i < len(rec) && rec[i] <= ' ' {
			i = space(rec, i)
		}
		if i < len(rec) && rec[i] == '"' {
			start := i + 1
			i = plain(rec, start)
			escaped := false
			if i >= len(rec) || rec[i] != '"' {
				if i, escaped = s.text(rec, i); i < 0 {
					return -1
				}
			}
			if child.below != nil {
				s.forget(child)
			}
			s.found[child.slot] = span{start, i, String, escaped}
			i++
		} else if i = s.other(rec, i, depth, child); i < 0 {
			return -1
		}
		if i+2 < len(rec) && rec[i] == ',' {
			if rec[i+1] == '"' {
				i++
				continue
			}
			if rec[i+1] == ' ' && rec[i+2] == '"' {
				i += 2
				continue
			}
		}
		if i = space(rec, i); i < len(rec) && rec[i] == '}' {
			return i + 1
		}
		if i >= len(rec) || rec[i] != ',' {
			return s.refuse(rec, i, wantCommaBrace)
		}
		i = space(rec, i+1)
	}
}

// forget drops what an earlier, equal key held below a node.
func (s *Scanner) forget(n *node) {
	for _, slot := range n.below {
		s.found[slot] = span{}
	}
}

// key scans a key and the colon after it. It returns the index after the
// colon, or -1, and the node of the key.
func (s *Scanner) key(rec string, i int, wanted *keys) (int, *node) {
	if i+19 <= len(rec) && rec[i] == '"' {
		// The mask has all bits below the first special byte.
		w, w2 := load(rec, i+1), load(rec, i+9)
		m, m2 := special(w), special(w2)
		long := ^uint64(int64(m|-m) >> 63) // all ones if m is 0
		below, below2 := m&-m>>7-1, (m2&-m2>>7-1)&long
		end := i + 1 + (bits.TrailingZeros64(m)+bits.TrailingZeros64(m2)&int(long))>>3
		if m|m2 != 0 && rec[end] == '"' && rec[end+1] == ':' {
			return end + 2, wanted.short(w&below, w2&below2, s.plan.nothing)
		}
	}
	if i >= len(rec) || rec[i] != '"' {
		return s.refuse(rec, i, wantKey), nil
	}
	start := i + 1
	end, escaped := s.text(rec, plain(rec, start))
	if end < 0 {
		return -1, nil
	}
	if i = s.colon(rec, end+1); i < 0 {
		return -1, nil
	}
	if key := rec[start:end]; escaped {
		return i, wanted.find(s.unescape(key), s.plan.nothing)
	} else if len(key) <= shortKey {
		return i, wanted.short(word(key, 0), word(key, 8), s.plan.nothing)
	} else {
		return i, wanted.find(key, s.plan.nothing)
	}
}

// colon returns the index after the colon at i, white space aside, or -1.
func (s *Scanner) colon(rec string, i int) int {
	if i < len(rec) && rec[i] == ':' {
		return i + 1
	}
	if i = space(rec, i); i >= len(rec) || rec[i] != ':' {
		return s.refuse(rec, i, wantColon)
	}
	return i + 1
}

// other scans a value that is not a string, notes it for its node, and returns
// the index after it, or -1.
func (s *Scanner) other(rec string, i, depth int, n *node) int {
	start := i
	if n.next != nil && i < len(rec) && rec[i] == '{' {
		// A path has at most MaxDepth segments, so this cannot be too deep.
		s.forget(n)
		i = s.object(rec, i+1, depth+1, n.next, nil)
		s.found[n.slot] = span{start: start, end: i, kind: Object}
		return i
	}
	i, kind := s.skip(rec, i, depth)
	s.forget(n)
	s.found[n.slot] = span{start: start, end: i, kind: kind}
	return i
}

// skip crosses a value, and returns the index after it, or -1, and its kind.
// The depth is that of the object or array around it.
func (s *Scanner) skip(rec string, i, depth int) (int, Kind) {
	if i < len(rec) {
		switch c := rec[i]; c {
		case '"':
			end, _ := s.text(rec, plain(rec, i+1))
			if end < 0 {
				return -1, Absent
			}
			return end + 1, String
		case '{':
			return s.skipNested(rec, i, depth), Object
		case '[':
			return s.skipNested(rec, i, depth), Array
		case 't':
			return s.literal(rec, i, "true"), True
		case 'f':
			return s.literal(rec, i, "false"), False
		case 'n':
			return s.literal(rec, i, "null"), Null
		default:
			if c == '-' || c-'0' <= 9 {
				end := number(rec, i)
				if end < 0 {
					end = s.refuse(rec, ^end, invalidNumber)
				}
				return end, Number
			}
		}
	}
	return s.refuse(rec, i, wantValue), Absent
}

// literal crosses the word t, of which the first byte is known to stand at i.
func (s *Scanner) literal(rec string, i int, t string) int {
	for k := 1; k < len(t); k++ {
		if i+k >= len(rec) || rec[i+k] != t[k] {
			return s.refuse(rec, i+k, wantValue)
		}
	}
	return i + len(t)
}

// skipNested crosses the object or array that starts at i. It does not
// recurse: a bit for each open level says whether that is an object.
func (s *Scanner) skipNested(rec string, i, depth int) int {
	var objects uint64
	outside := depth
	for {
		// A value starts at i.
		if i < len(rec) && (rec[i] == '{' || rec[i] == '[') {
			if depth == MaxDepth {
				return s.fail(i, tooDeep)
			}
			depth++
			objects <<= 1
			closing := byte(']')
			if rec[i] == '{' {
				objects |= 1
				closing = '}'
			}
			i = space(rec, i+1)
			if i >= len(rec) || rec[i] != closing {
				if closing == '}' {
					i = s.skipKey(rec, i)
				}
				if i < 0 {
					return -1
				}
				continue
			}
			i++
			depth--
			objects >>= 1
		} else if i, _ = s.skip(rec, i, depth); i < 0 {
			return -1
		}
		// A value ends at i.
		for {
			if depth == outside {
				return i
			}
			i = space(rec, i)
			if i < len(rec) && rec[i] == ',' {
				i = space(rec, i+1)
				break
			}
			closing, reason := byte(']'), wantCommaBracket
			if objects&1 == 1 {
				closing, reason = '}', wantCommaBrace
			}
			if i >= len(rec) || rec[i] != closing {
				return s.refuse(rec, i, reason)
			}
			i++
			depth--
			objects >>= 1
		}
		if objects&1 == 1 {
			if i = s.skipKey(rec, i); i < 0 {
				return -1
			}
		}
	}
}

// skipKey crosses a key, its colon, and the white space up to the value.
func (s *Scanner) skipKey(rec string, i int) int {
	if i >= len(rec) || rec[i] != '"' {
		return s.refuse(rec, i, wantKey)
	}
	end, _ := s.text(rec, plain(rec, i+1))
	if end < 0 {
		return -1
	}
	if end = s.colon(rec, end+1); end < 0 {
		return -1
	}
	return space(rec, end)
}
