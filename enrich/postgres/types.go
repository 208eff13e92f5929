package postgres

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

const oidText = pgtype.TextOID

// kind is how a value is written in JSON.
type kind byte

const (
	kindString kind = iota
	kindBool
	kindNumber // as the server writes it, which is JSON's way too, but for NaN and infinity
	kindJSON
	kindBytes
	kindDate
	kindTimestamp
	kindTimestampTZ
	kindArray
)

// column is how a column's values are read. An array has its elements' kind and their separator.
type column struct {
	kind, element kind
	separator     byte
}

var kinds = map[uint32]kind{
	pgtype.BoolOID: kindBool,
	pgtype.Int2OID: kindNumber, pgtype.Int4OID: kindNumber, pgtype.Int8OID: kindNumber, pgtype.OIDOID: kindNumber,
	pgtype.NumericOID: kindNumber, pgtype.Float4OID: kindNumber, pgtype.Float8OID: kindNumber,
	pgtype.JSONOID: kindJSON, pgtype.JSONBOID: kindJSON, pgtype.ByteaOID: kindBytes,
	pgtype.DateOID: kindDate, pgtype.TimestampOID: kindTimestamp, pgtype.TimestamptzOID: kindTimestampTZ,
}

// typeRow is what the catalogue says of a type.
type typeRow struct {
	oid, base, element, array uint32
	name, category, separator string
}

// describe reads types from the catalogue, and the ones they are made of: a domain is its base type.
func describe(ctx context.Context, conn *pgconn.PgConn, oids []uint32) (map[uint32]typeRow, error) {
	list := make([]string, len(oids))
	for i, oid := range oids {
		list[i] = strconv.FormatUint(uint64(oid), 10)
	}
	rows, err := query(ctx, conn, `WITH RECURSIVE r(oid) AS (SELECT unnest($1::oid[]) UNION
 SELECT CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.typelem END FROM r JOIN pg_type t ON t.oid = r.oid
 WHERE t.typtype = 'd' OR t.typoutput = 'array_out'::regproc)
 SELECT t.oid, t.typbasetype, CASE WHEN t.typoutput = 'array_out'::regproc THEN t.typelem ELSE 0 END, t.typarray,
 t.typname, t.typcategory, t.typdelim FROM r JOIN pg_type t ON t.oid = r.oid`, string(appendArray(nil, list)))
	if err != nil {
		return nil, fmt.Errorf("read the types of its columns: %w", err)
	}
	types := make(map[uint32]typeRow, len(rows))
	for _, row := range rows {
		var n [4]uint32
		for i := range n {
			oid, err := strconv.ParseUint(row[i], 10, 32)
			if err != nil {
				return nil, fmt.Errorf("read the types of its columns: %w", err)
			}
			n[i] = uint32(oid)
		}
		types[n[0]] = typeRow{oid: n[0], base: n[1], element: n[2], array: n[3], name: row[4], category: row[5], separator: row[6]}
	}
	return types, nil
}

// base follows domains to what they are of.
func base(types map[uint32]typeRow, oid uint32) typeRow {
	row := types[oid]
	for range 100 {
		if row.base == 0 {
			break
		}
		row = types[row.base]
	}
	return row
}

// learn remembers how values of these types are read.
func (t *Table) learn(ctx context.Context, conn *pgconn.PgConn, oids []uint32) error {
	types, err := describe(ctx, conn, oids)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, oid := range oids {
		c, row := column{}, base(types, oid)
		if row.element != 0 {
			c.kind, c.element, c.separator = kindArray, kinds[base(types, row.element).oid], ','
			if row.separator != "" {
				c.separator = row.separator[0] // the array's type has that of its elements
			}
		} else {
			c.kind = kinds[row.oid]
		}
		t.types[oid] = c
	}
	return nil
}

// columns is how the columns of an answer are read, or the types that are not known yet.
func (t *Table) columns(fields []pgconn.FieldDescription) (columns []column, unknown []uint32) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	columns = make([]column, len(fields))
	for i, f := range fields {
		c, ok := t.types[f.DataTypeOID]
		if !ok {
			if k, builtin := kinds[f.DataTypeOID]; builtin {
				c, ok = column{kind: k}, true
			}
		}
		if !ok {
			unknown = append(unknown, f.DataTypeOID)
		}
		columns[i] = c
	}
	return columns, unknown
}

// keyType is what texts are a key. The server is sent an array of exactly this type: of another, the column
// would be cast, and its index not used.
type keyType struct {
	array uint32
	value func(text string) (string, bool) // the value that a text is, in one spelling; false: it is none
	read  func(text string) string         // the same spelling of a value that the server wrote
}

func (t *Table) keyType(ctx context.Context, conn *pgconn.PgConn, oid uint32) (keyType, error) {
	types, err := describe(ctx, conn, []uint32{oid})
	if err != nil {
		return keyType{}, err
	}
	row := base(types, oid)
	k := keyType{array: row.array, value: anyText, read: func(text string) string { return text }}
	switch {
	case row.array == 0:
		return k, fmt.Errorf("there are no arrays of type %s", row.name)
	case row.oid == pgtype.Int2OID:
		k.value = integer(16)
	case row.oid == pgtype.Int4OID:
		k.value = integer(32)
	case row.oid == pgtype.Int8OID:
		k.value = integer(64)
	case row.oid == pgtype.NumericOID:
		k.value, k.read = decimal, shortest
	case row.oid == pgtype.UUIDOID:
		k.value = uuid
	case row.oid == pgtype.BPCharOID:
		k.read = func(text string) string { return strings.TrimRight(text, " ") }
		k.value = func(text string) (string, bool) {
			_, ok := anyText(text)
			return text, ok && !strings.HasSuffix(text, " ")
		}
	case row.category != "S" || row.oid == pgtype.NameOID || row.oid == pgtype.QCharOID:
		return k, fmt.Errorf("type %s cannot be a key: integers, numeric, uuid and texts can", row.name)
	}
	return k, nil
}

// anyText is what a column of text can hold.
func anyText(text string) (string, bool) {
	return text, utf8.ValidString(text) && strings.IndexByte(text, 0) < 0
}

// integer is the shortest decimal form of a whole number of so many bits, and nothing else: "007" is not 7.
func integer(bits int) func(string) (string, bool) {
	return func(text string) (string, bool) {
		n, err := strconv.ParseInt(text, 10, bits)
		return text, err == nil && strconv.FormatInt(n, 10) == text
	}
}

// decimal is the shortest decimal form of a number without an exponent.
func decimal(text string) (string, bool) {
	digits, point := strings.TrimPrefix(text, "-"), strings.IndexByte(text, '.')
	if digits == "" || len(text) > 1000 || strings.Trim(digits, "0123456789.") != "" || strings.Count(digits, ".") > 1 {
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

// shortest drops the zeros that a numeric's scale adds.
func shortest(text string) string {
	if strings.IndexByte(text, '.') < 0 {
		return text
	}
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}

// uuid is the usual form, 8-4-4-4-12 hexadecimal digits in either case.
func uuid(text string) (string, bool) {
	if len(text) != 36 {
		return "", false
	}
	for i := range len(text) {
		c := text[i]
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return "", false
			}
		} else if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return "", false
		}
	}
	return strings.ToLower(text), true
}
