package mysql

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// described is what SHOW FULL COLUMNS says of a column.
type described struct {
	name, base  string // base: the type without its size, such as "varchar"
	size        string // "10,2" of decimal(10,2)
	unsigned    bool
	collation   string // empty: it is no text
	indexed     bool   // an index begins with it
	description string // the type as it stands
}

func describedAs(name, columnType, collation string, indexed bool) described {
	d := described{name: name, collation: collation, indexed: indexed, description: columnType}
	d.base, _, _ = strings.Cut(columnType, " ")
	if base, rest, ok := strings.Cut(columnType, "("); ok {
		d.base = base
		d.size, _, _ = strings.Cut(rest, ")")
	}
	d.unsigned = strings.Contains(columnType, " unsigned")
	return d
}

// keyType is what texts are a key, and how one is a parameter: of another type or character set, the column
// would be converted instead, and its index not used.
type keyType struct {
	place string                           // in the query
	value func(text string) (string, bool) // the value that a text is, in one spelling; false: it is none
	param func(value string) any
	read  func(text string) string // the same spelling of a value that the server sent
}

func same(text string) string { return text }

func keyTypeOf(d described) (keyType, error) {
	k := keyType{place: "?", value: anyText, read: same, param: func(value string) any { return value }}
	switch d.base {
	case "tinyint", "smallint", "mediumint", "int", "bigint":
		k.value, k.param = signed, func(value string) any {
			n, _ := strconv.ParseInt(value, 10, 64) // signed has read it
			return n
		}
		if d.unsigned {
			k.value, k.param = unsigned, func(value string) any {
				n, _ := strconv.ParseUint(value, 10, 64) // unsigned has read it
				return n
			}
		}
	case "decimal":
		// What does not fit is cut, and then finds a row whose value is not the one that was asked for.
		k.place = "CAST(? AS DECIMAL(" + d.size + "))"
		k.value, k.read = decimal, shortest
	case "char", "varchar", "tinytext", "text", "mediumtext", "longtext":
		if d.base == "char" {
			k.read = func(text string) string { return strings.TrimRight(text, " ") } // sql_mode PAD_CHAR_TO_FULL_LENGTH
		}
		if charset, _, _ := strings.Cut(d.collation, "_"); charset != "utf8mb4" {
			if charset == "" || strings.Trim(d.collation, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
				return k, fmt.Errorf("its collation is %q", d.collation)
			}
			// A character that the column cannot hold becomes a question mark, and finds what was not asked for; by
			// itself it would make the whole call an illegal mix of collations.
			k.place = "CONVERT(? USING " + charset + ") COLLATE " + d.collation
		}
	case "varbinary":
		k.param = func(value string) any { return []byte(value) }
	case "uuid":
		k.value = uuid
	case "binary":
		if d.size != "16" {
			return k, fmt.Errorf("type %s cannot be a key, only binary(16), as a uuid", d.description)
		}
		k.value = uuid
		k.param = func(value string) any {
			raw, _ := hex.DecodeString(strings.ReplaceAll(value, "-", "")) // uuid has read it
			return raw
		}
		k.read = func(raw string) string {
			if len(raw) != 16 {
				return ""
			}
			return fmt.Sprintf("%x-%x-%x-%x-%x", raw[:4], raw[4:6], raw[6:8], raw[8:10], raw[10:])
		}
	default:
		return k, fmt.Errorf("type %s cannot be a key: integers, decimal, texts, varbinary, binary(16) and uuid can", d.description)
	}
	return k, nil
}

// anyText is what a column of text can hold.
func anyText(text string) (string, bool) { return text, utf8.ValidString(text) }

// signed is the shortest decimal form of a whole number, and nothing else: "007" is not 7.
func signed(text string) (string, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	return text, err == nil && strconv.FormatInt(n, 10) == text
}

func unsigned(text string) (string, bool) {
	n, err := strconv.ParseUint(text, 10, 64)
	return text, err == nil && strconv.FormatUint(n, 10) == text
}

// decimal is the shortest decimal form of a number without an exponent.
func decimal(text string) (string, bool) {
	digits, point := strings.TrimPrefix(text, "-"), strings.IndexByte(text, '.')
	if digits == "" || len(text) > 100 || strings.Trim(digits, "0123456789.") != "" || strings.Count(digits, ".") > 1 {
		return "", false
	}
	if digits[0] == '.' || digits[0] == '0' && len(digits) > 1 && digits[1] != '.' || text == "-0" {
		return "", false
	}
	if last := text[len(text)-1]; point >= 0 && (last == '.' || last == '0') {
		return "", false
	}
	return text, true
}

// shortest drops the zeros that a decimal's scale and ZEROFILL add.
func shortest(text string) string {
	text = trimZeros(text)
	if strings.IndexByte(text, '.') < 0 {
		return text
	}
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}

// trimZeros drops the zeros in front, which ZEROFILL adds and JSON has not.
func trimZeros(text string) string {
	for len(text) > 1 && text[0] == '0' && text[1] != '.' {
		text = text[1:]
	}
	return text
}

// uuid is the usual form, 8-4-4-4-12 hexadecimal digits in either case.
func uuid(text string) (string, bool) {
	if len(text) != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-' {
		return "", false
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	return strings.ToLower(text), err == nil && len(raw) == 16
}
