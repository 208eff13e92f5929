package bigquery

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	pb "cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// The columns that a change has beside the table's own, see
// https://cloud.google.com/bigquery/docs/change-data-capture.
const (
	changeType     = "_CHANGE_TYPE"
	changeSequence = "_CHANGE_SEQUENCE_NUMBER"
)

// decoded is a row that fits its table.
type decoded struct {
	row      Row
	change   string // UPSERT or DELETE; empty: it is appended
	sequence [4]uint64
}

// layout is how a connection encodes the rows of a table.
type layout struct {
	message protoreflect.MessageDescriptor
	changes bool                                                              // it has a field for the kind of change
	columns map[protoreflect.FullName]map[string]protoreflect.FieldDescriptor // of each message, by the column's name in lower case
}

// newLayout reads the descriptor that came with a connection's first rows.
func newLayout(schema *pb.ProtoSchema, t *table) (*layout, error) {
	if schema.GetProtoDescriptor() == nil {
		return nil, errors.New("the first request of a connection must have a writer schema")
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("row.proto"), Syntax: proto.String("proto2"),
		MessageType: []*descriptorpb.DescriptorProto{schema.ProtoDescriptor},
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("invalid proto schema: %w", err)
	}
	l := &layout{message: file.Messages().Get(0)}
	l.changes = l.message.Fields().ByName(changeType) != nil
	l.columns = make(map[protoreflect.FullName]map[string]protoreflect.FieldDescriptor)
	l.index(l.message)
	return l, nil
}

// index remembers which field is which column.
func (l *layout) index(m protoreflect.MessageDescriptor) {
	if l.columns[m.FullName()] != nil {
		return
	}
	by := make(map[string]protoreflect.FieldDescriptor, m.Fields().Len())
	l.columns[m.FullName()] = by
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		by[strings.ToLower(columnName(f))] = f
		if f.Message() != nil {
			l.index(f.Message())
		}
	}
}

// extra returns a field that the table has no column for.
func extra(m protoreflect.MessageDescriptor, columns []Column, changes bool, within string) string {
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		name := columnName(f)
		if changes && (name == changeType || name == changeSequence) {
			continue
		}
		c := column(columns, name)
		if c == nil {
			return within + name
		}
		if c.Type == "STRUCT" && f.Message() != nil {
			if name := extra(f.Message(), c.Fields, false, within+name+"."); name != "" {
				return name
			}
		}
	}
	return ""
}

// columnName is a field's name, or what its annotation says.
func columnName(f protoreflect.FieldDescriptor) string {
	if o, ok := f.Options().(*descriptorpb.FieldOptions); ok && proto.HasExtension(o, pb.E_ColumnName) {
		return proto.GetExtension(o, pb.E_ColumnName).(string)
	}
	return string(f.Name())
}

// decode reads one row. The error is the row's own.
func (l *layout) decode(data []byte, t *table) (decoded, error) {
	m := dynamicpb.NewMessage(l.message)
	if err := proto.Unmarshal(data, m); err != nil {
		return decoded{}, fmt.Errorf("the row does not decode: %w", err)
	}
	var d decoded
	columns := t.Columns
	if l.changes {
		var err error
		if d.change, d.sequence, err = changeOf(m); err != nil {
			return d, err
		}
		if d.change == "DELETE" { // only the key counts
			columns = slices.Clone(columns)
			for i := range columns {
				if !slices.ContainsFunc(t.PrimaryKey, func(k string) bool { return strings.EqualFold(k, columns[i].Name) }) && columns[i].Mode == "REQUIRED" {
					columns[i].Mode = "NULLABLE"
				}
			}
		}
	}
	var err error
	d.row, err = l.structOf(m, columns, "")
	return d, err
}

// changeOf reads what a change has beside its row.
func changeOf(m protoreflect.Message) (kind string, sequence [4]uint64, err error) {
	kind = m.Get(m.Descriptor().Fields().ByName(changeType)).String()
	if kind != "UPSERT" && kind != "DELETE" {
		return "", sequence, fmt.Errorf("%s is %q: want UPSERT or DELETE", changeType, kind)
	}
	f := m.Descriptor().Fields().ByName(changeSequence)
	if f == nil || !m.Has(f) {
		return kind, sequence, nil
	}
	parts := strings.Split(m.Get(f).String(), "/")
	if len(parts) > 4 {
		return "", sequence, fmt.Errorf("%s has %d parts, and at most 4 are allowed", changeSequence, len(parts))
	}
	for i, part := range parts {
		if sequence[i], err = strconv.ParseUint(part, 16, 64); err != nil || len(part) > 16 {
			return "", sequence, fmt.Errorf("%s: %q is no hexadecimal number of at most 16 digits", changeSequence, part)
		}
	}
	return kind, sequence, nil
}

func (l *layout) structOf(m protoreflect.Message, columns []Column, within string) (Row, error) {
	if len(m.GetUnknown()) > 0 {
		return nil, fmt.Errorf("%s has a field that its descriptor does not know", strings.TrimSuffix("the row "+within, "."))
	}
	row := make(Row, len(columns))
	fields := l.columns[m.Descriptor().FullName()]
	for i := range columns {
		c := &columns[i]
		f := fields[strings.ToLower(c.Name)]
		if f == nil || !m.Has(f) {
			if c.Mode == "REQUIRED" {
				return nil, fmt.Errorf("required field %s%s is missing", within, c.Name)
			}
			continue
		}
		v := m.Get(f)
		if f.IsList() != (c.Mode == "REPEATED") {
			return nil, fmt.Errorf("field %s%s is %s in the table, and the other way in the row", within, c.Name, c.Mode)
		}
		if !f.IsList() {
			value, err := l.valueOf(f, v, c, within)
			if err != nil {
				return nil, fmt.Errorf("field %s%s: %w", within, c.Name, err)
			}
			row[c.Name] = value
			continue
		}
		list := make([]any, v.List().Len())
		for j := range list {
			value, err := l.valueOf(f, v.List().Get(j), c, within)
			if err != nil {
				return nil, fmt.Errorf("field %s%s[%d]: %w", within, c.Name, j, err)
			}
			list[j] = value
		}
		row[c.Name] = list
	}
	return row, nil
}

// valueOf converts a field by https://cloud.google.com/bigquery/docs/supported-data-types.
func (l *layout) valueOf(f protoreflect.FieldDescriptor, v protoreflect.Value, c *Column, within string) (any, error) {
	if m := f.Message(); m != nil {
		if c.Type == "STRUCT" {
			return l.structOf(v.Message(), c.Fields, within+c.Name+".")
		}
		inner := m.Fields().ByName("value") // a wrapper
		if inner == nil || m.Fields().Len() != 1 {
			return nil, fmt.Errorf("a message cannot be a %s", c.Type)
		}
		f, v = inner, v.Message().Get(inner)
	}
	kind := f.Kind()
	var number *int64
	switch kind {
	case protoreflect.Int32Kind, protoreflect.Int64Kind, protoreflect.Sint32Kind, protoreflect.Sint64Kind, protoreflect.Sfixed32Kind, protoreflect.Sfixed64Kind:
		number = proto.Int64(v.Int())
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		number = proto.Int64(int64(v.Uint())) // 32 bits
	}
	text, isText := "", kind == protoreflect.StringKind
	if isText {
		text = v.String()
	}
	switch {
	case c.Type == "STRING" && isText:
		if !utf8.ValidString(text) {
			return nil, errors.New("the text is not UTF-8")
		}
		return text, nil
	case c.Type == "STRING" && kind == protoreflect.EnumKind:
		return string(f.Enum().Values().ByNumber(v.Enum()).Name()), nil
	case c.Type == "GEOGRAPHY" && isText:
		return text, nil
	case c.Type == "INT64" && number != nil:
		return *number, nil
	case c.Type == "FLOAT64" && (kind == protoreflect.DoubleKind || kind == protoreflect.FloatKind):
		return v.Float(), nil
	case c.Type == "BOOL" && kind == protoreflect.BoolKind:
		return v.Bool(), nil
	case c.Type == "BOOL" && number != nil:
		return *number != 0, nil
	case c.Type == "BYTES" && kind == protoreflect.BytesKind:
		return slices.Clone(v.Bytes()), nil
	case c.Type == "BYTES" && isText:
		return []byte(text), nil
	case c.Type == "JSON" && isText:
		if !json.Valid([]byte(text)) {
			return nil, errors.New("the text is not JSON")
		}
		return text, nil
	case c.Type == "TIMESTAMP" && kind != protoreflect.Int32Kind && number != nil:
		return inRange(time.UnixMicro(*number).UTC())
	case c.Type == "TIMESTAMP" && isText:
		t, err := time.Parse(time.RFC3339Nano, strings.Replace(text, " ", "T", 1))
		if err != nil {
			return nil, fmt.Errorf("%q is no timestamp", text)
		}
		return inRange(t.UTC().Truncate(time.Microsecond))
	case c.Type == "DATE" && number != nil:
		t, err := inRange(time.Unix(0, 0).UTC().AddDate(0, 0, int(*number)))
		return t.Format(time.DateOnly), err
	case (c.Type == "NUMERIC" || c.Type == "BIGNUMERIC") && (isText || number != nil):
		if number != nil {
			text = strconv.FormatInt(*number, 10)
		}
		return text, numeric(text, c.Type)
	case isText && civil[c.Type] != nil:
		if !civil[c.Type].MatchString(text) {
			return nil, fmt.Errorf("%q is no %s", text, c.Type)
		}
		if _, err := time.Parse(time.DateOnly, text[:min(10, len(text))]); c.Type != "TIME" && err != nil {
			return nil, fmt.Errorf("%q is no %s", text, c.Type)
		}
		return text, nil
	}
	return nil, fmt.Errorf("a %s cannot be a %s", kind, c.Type)
}

func inRange(t time.Time) (time.Time, error) {
	if t.Year() < 1 || t.Year() > 9999 {
		return t, fmt.Errorf("%s is out of the range of years 1 to 9999", t)
	}
	return t, nil
}

var civil = map[string]*regexp.Regexp{
	"DATE":     regexp.MustCompile(`^\d{4}-\d{2}-\d{2}$`),
	"TIME":     regexp.MustCompile(`^([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?$`),
	"DATETIME": regexp.MustCompile(`^\d{4}-\d{2}-\d{2}[T ]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?$`),
}

var decimal = regexp.MustCompile(`^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$`)

// numeric checks a decimal number's digits before and after the point: 29 and 9, or 38 and 38.
func numeric(text, kind string) error {
	before, after := 29, 9
	if kind == "BIGNUMERIC" {
		before, after = 38, 38
	}
	r, ok := new(big.Rat).SetString(text)
	if !ok || !decimal.MatchString(text) {
		return fmt.Errorf("%q is no number", text)
	}
	shift := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(after)), nil))
	scaled := new(big.Rat).Mul(r, shift)
	most := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(before+after)), nil)
	if !scaled.IsInt() || scaled.Num().CmpAbs(most) >= 0 {
		return fmt.Errorf("%s has more digits than a %s, %d before the point and %d after it", text, kind, before, after)
	}
	return nil
}
