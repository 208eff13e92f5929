package fields

// Kind is the type of a JSON value.
type Kind uint8

// The kinds. The zero Value is Absent: the record has no such field.
const (
	Absent Kind = iota
	Null
	False
	True
	Number
	String
	Object
	Array
)

func (k Kind) String() string {
	switch k {
	case Absent:
		return "absent"
	case Null:
		return "null"
	case False:
		return "false"
	case True:
		return "true"
	case Number:
		return "number"
	case String:
		return "string"
	case Object:
		return "object"
	case Array:
		return "array"
	}
	return "unknown kind"
}

// Value is a field of a record. It may share the memory of the record it came
// from, and is valid as long as nobody writes to that memory; keeping it keeps
// the whole record. A value to be kept for long, as a key or an extreme, is to
// be copied with strings.Clone.
type Value struct {
	// Raw is the text of the value: of a String its meaning, unescaped and
	// without quotes; of everything else its JSON as it stands in the record,
	// which for Object and Array may hold white space and equal keys. Of
	// Absent it is empty.
	Raw  string
	Kind Kind
	// clean is set when Raw is a string that needs no escapes.
	clean bool
}

// String returns the text of the value, as Raw.
func (v Value) String() string { return v.Raw }

// Int64 returns the value of a Number written as an integer, exactly. It is
// not ok for any other kind, for a fraction or exponent, even if the result
// would be whole, and for an integer that int64 cannot hold.
func (v Value) Int64() (n int64, ok bool) {
	if v.Kind != Number {
		return 0, false
	}
	return ParseInt(v.Raw)
}

// Float64 returns the float64 nearest to a Number. It is not ok for any other
// kind, and for a number beyond the largest float64.
func (v Value) Float64() (f float64, ok bool) {
	if v.Kind != Number {
		return 0, false
	}
	return ParseFloat(v.Raw)
}

// AppendJSON appends the value as JSON on one line, without white space around
// tokens. Absent is appended as null.
func (v Value) AppendJSON(dst []byte) []byte {
	switch v.Kind {
	case Absent:
		return append(dst, "null"...)
	case String:
		if v.clean {
			dst = append(dst, '"')
			dst = append(dst, v.Raw...)
			return append(dst, '"')
		}
		return appendQuoted(dst, v.Raw)
	case Object, Array:
		return appendCompact(dst, v.Raw)
	}
	return append(dst, v.Raw...)
}

// appendCompact appends valid JSON without its white space.
func appendCompact(dst []byte, t string) []byte {
	for i := 0; i < len(t); {
		from := i
		for i < len(t) && t[i] > ' ' {
			if t[i] == '"' {
				for i++; t[i] != '"'; i++ {
					if t[i] == '\\' {
						i++
					}
				}
			}
			i++
		}
		dst = append(dst, t[from:i]...)
		for i < len(t) && t[i] <= ' ' {
			i++
		}
	}
	return dst
}
