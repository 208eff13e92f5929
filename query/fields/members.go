package fields

// Field is a key at the top level of a record, with its value.
type Field struct {
	Key   string
	Value Value
}

// Fields appends all fields at the top level of a record to dst, in the
// record's order, whatever the plan. Of equal keys the last one stands, in its
// place. What Scan says about memory and errors holds here too; keys share the
// memory of the record like values. After an error dst is returned as it was.
func (s *Scanner) Fields(record []byte, dst []Field) ([]Field, error) {
	have := len(dst)
	rec, i := s.open(view(record))
	if i >= 0 {
		i = s.members(rec, i, func(m member) bool {
			f := Field{Key: rec[m.key:m.keyEnd], Value: Value{Raw: rec[m.value:m.end], Kind: m.kind}}
			if m.keyEscaped {
				f.Key = s.unescape(f.Key)
			}
			if m.kind == String {
				f.Value.Raw, f.Value.clean = rec[m.value+1:m.end-1], !m.escaped
				if m.escaped {
					f.Value.Raw = s.unescape(f.Value.Raw)
				}
			}
			dst = append(dst, f)
			return true
		})
	}
	if i >= 0 {
		i = s.close(rec, i)
	}
	if i < 0 {
		return dst[:have], s.failure()
	}
	return dst[:have+len(lastOfEach(dst[have:]))], nil
}

// lastOfEach removes all but the last of the fields with one key, in place.
func lastOfEach(fields []Field) []Field {
	const few = 16
	later := func(i int) bool {
		for _, f := range fields[i+1:] {
			if f.Key == fields[i].Key {
				return true
			}
		}
		return false
	}
	if len(fields) > few {
		last := make(map[string]int, len(fields))
		for i, f := range fields {
			last[f.Key] = i
		}
		later = func(i int) bool { return last[fields[i].Key] != i }
	}
	kept := fields[:0]
	for i := range fields {
		if !later(i) {
			kept = append(kept, fields[i])
		}
	}
	return kept
}

// member is where a key and its value stand in an object.
type member struct {
	key, keyEnd int // the key without its quotes
	value, end  int // the value, a string with its quotes
	kind        Kind
	keyEscaped  bool
	escaped     bool
}

// members calls yield for each member of the object at the top, until it says
// stop. The index i is the one after the object's brace; the result is the one
// after its closing brace, or -1 after a failure or a stop.
func (s *Scanner) members(rec string, i int, yield func(member) bool) int {
	if i = space(rec, i); i < len(rec) && rec[i] == '}' {
		return i + 1
	}
	for {
		if i >= len(rec) || rec[i] != '"' {
			return s.refuse(rec, i, wantKey)
		}
		var m member
		m.key = i + 1
		if m.keyEnd, m.keyEscaped = s.text(rec, plain(rec, m.key)); m.keyEnd < 0 {
			return -1
		}
		if i = s.colon(rec, m.keyEnd+1); i < 0 {
			return -1
		}
		m.value = space(rec, i)
		if m.value < len(rec) && rec[m.value] == '"' {
			end, escaped := s.text(rec, plain(rec, m.value+1))
			if end < 0 {
				return -1
			}
			m.end, m.kind, m.escaped = end+1, String, escaped
		} else if m.end, m.kind = s.skip(rec, m.value, 1); m.end < 0 {
			return -1
		}
		if !yield(m) {
			return -1
		}
		if i = space(rec, m.end); i < len(rec) && rec[i] == '}' {
			return i + 1
		}
		if i >= len(rec) || rec[i] != ',' {
			return s.refuse(rec, i, wantCommaBrace)
		}
		i = space(rec, i+1)
	}
}
