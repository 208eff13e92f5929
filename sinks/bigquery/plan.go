package bigquery

import (
	"encoding/base64"
	"fmt"
	"strings"

	pb "cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	api "google.golang.org/api/bigquery/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// The columns that a change has beside the table's own, see
// https://cloud.google.com/bigquery/docs/change-data-capture.
const (
	changeType     = "_CHANGE_TYPE"
	changeSequence = "_CHANGE_SEQUENCE_NUMBER"
)

// plan is a table's schema, made ready to encode rows by it. It does not change.
type plan struct {
	columns    []*column
	primaryKey []string
	schema     *pb.ProtoSchema // what a connection is told first
	changes    bool            // rows are changes by primary key
	maxRow     int             // bytes of the largest row that fits into a request
}

// column is one column of a table, or a field of a STRUCT.
type column struct {
	name               string
	kind               string // in the standard dialect: INT64, STRUCT
	required, repeated bool
	number             protoreflect.FieldNumber
	scale              int64 // of a NUMERIC or a BIGNUMERIC: digits after the point
	fields             []*column
}

// standard are the names of types that REST gives in the first dialect.
var standard = map[string]string{"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}

// wireTypes are how columns are encoded, of what
// https://cloud.google.com/bigquery/docs/supported-data-types allows: texts where a text is exact and the
// packed form is not documented beyond one vendor's library.
var wireTypes = map[string]descriptorpb.FieldDescriptorProto_Type{
	"STRING": descriptorpb.FieldDescriptorProto_TYPE_STRING, "GEOGRAPHY": descriptorpb.FieldDescriptorProto_TYPE_STRING,
	"JSON": descriptorpb.FieldDescriptorProto_TYPE_STRING, "NUMERIC": descriptorpb.FieldDescriptorProto_TYPE_STRING,
	"BIGNUMERIC": descriptorpb.FieldDescriptorProto_TYPE_STRING, "DATETIME": descriptorpb.FieldDescriptorProto_TYPE_STRING,
	"TIME": descriptorpb.FieldDescriptorProto_TYPE_STRING, "BYTES": descriptorpb.FieldDescriptorProto_TYPE_BYTES,
	"INT64": descriptorpb.FieldDescriptorProto_TYPE_INT64, "TIMESTAMP": descriptorpb.FieldDescriptorProto_TYPE_INT64,
	"DATE": descriptorpb.FieldDescriptorProto_TYPE_INT32, "FLOAT64": descriptorpb.FieldDescriptorProto_TYPE_DOUBLE,
	"BOOL": descriptorpb.FieldDescriptorProto_TYPE_BOOL, "STRUCT": descriptorpb.FieldDescriptorProto_TYPE_MESSAGE,
}

// newPlan reads a table's description. changes asks for rows that are changes by the primary key.
func newPlan(t *api.Table, changes bool) (*plan, error) {
	if t.Schema == nil || len(t.Schema.Fields) == 0 {
		return nil, fmt.Errorf("it has no columns")
	}
	p := &plan{changes: changes}
	if t.TableConstraints != nil && t.TableConstraints.PrimaryKey != nil {
		p.primaryKey = t.TableConstraints.PrimaryKey.Columns
	}
	var err error
	if p.columns, err = columnsOf(t.Schema.Fields, ""); err != nil {
		return nil, err
	}
	message := describe("Row", p.columns)
	if changes {
		for i, name := range []string{changeType, changeSequence} {
			message.Field = append(message.Field, &descriptorpb.FieldDescriptorProto{
				Name: proto.String(name), Number: proto.Int32(int32(p.change(i))),
				Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
			})
		}
	}
	p.schema = &pb.ProtoSchema{ProtoDescriptor: message}
	p.maxRow = maxRequest - proto.Size(p.schema) - requestOverhead
	if p.maxRow < packRequest/2 {
		return nil, fmt.Errorf("its schema takes %d bytes, which leaves no room for rows", proto.Size(p.schema))
	}
	return p, nil
}

// change is the number of the i-th of the fields that a change has beside its columns.
func (p *plan) change(i int) protoreflect.FieldNumber {
	return protoreflect.FieldNumber(fieldNumber(len(p.columns) + i))
}

// fieldNumber is the number of the i-th field, past those that protocol buffers keep for themselves.
func fieldNumber(i int) int {
	if i+1 >= 19_000 {
		return i + 1 + 1000
	}
	return i + 1
}

func columnsOf(fields []*api.TableFieldSchema, within string) ([]*column, error) {
	out := make([]*column, len(fields))
	for i, f := range fields {
		c := &column{name: f.Name, kind: strings.ToUpper(f.Type), number: protoreflect.FieldNumber(fieldNumber(i)),
			required: strings.EqualFold(f.Mode, "REQUIRED"), repeated: strings.EqualFold(f.Mode, "REPEATED")}
		if name := standard[c.kind]; name != "" {
			c.kind = name
		}
		switch c.kind {
		case "NUMERIC":
			c.scale = 9
		case "BIGNUMERIC":
			c.scale = 38
		}
		if f.Precision > 0 {
			c.scale = f.Scale
		}
		if wireTypes[c.kind] == 0 && c.required {
			return nil, fmt.Errorf("its column %s%s is a %s, which this sink cannot write, and is required", within, c.name, c.kind)
		}
		if c.kind == "STRUCT" {
			var err error
			if c.fields, err = columnsOf(f.Fields, within+c.name+"."); err != nil {
				return nil, err
			}
		}
		out[i] = c
	}
	return out, nil
}

// describe makes the descriptor of a message with the columns that can be written. Fields are optional
// also where the column is required: a row that lacks one is then an error of that row alone.
func describe(name string, columns []*column) *descriptorpb.DescriptorProto {
	out := &descriptorpb.DescriptorProto{Name: proto.String(name)}
	for _, c := range columns {
		kind := wireTypes[c.kind]
		if kind == 0 {
			continue
		}
		f := &descriptorpb.FieldDescriptorProto{Name: proto.String(c.name), Number: proto.Int32(int32(c.number)),
			Type: kind.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
		if c.repeated {
			f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		}
		if !protoreflect.Name(c.name).IsValid() {
			f.Name = proto.String("col_" + strings.NewReplacer("-", "_a", "_", "_b").Replace(base64.RawURLEncoding.EncodeToString([]byte(c.name))))
			f.Options = &descriptorpb.FieldOptions{}
			proto.SetExtension(f.Options, pb.E_ColumnName, c.name)
		}
		if kind == descriptorpb.FieldDescriptorProto_TYPE_MESSAGE {
			nested := fmt.Sprintf("%s_%d", name, c.number)
			out.NestedType = append(out.NestedType, describe(nested, c.fields))
			f.TypeName = proto.String(nested)
		}
		out.Field = append(out.Field, f)
	}
	return out
}

// find looks a column up by its name, whose case does not matter to BigQuery.
func find(columns []*column, name string) *column {
	for _, c := range columns {
		if strings.EqualFold(c.name, name) {
			return c
		}
	}
	return nil
}
