package bigquery_test

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	pb "cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/millstream/millstream/fakes/bigquery"
)

// A value of a protocol buffer's type becomes one of the column's type, or an error of its row.
func TestTypes(t *testing.T) {
	const (
		text    = descriptorpb.FieldDescriptorProto_TYPE_STRING
		int64s  = descriptorpb.FieldDescriptorProto_TYPE_INT64
		int32s  = descriptorpb.FieldDescriptorProto_TYPE_INT32
		uint32s = descriptorpb.FieldDescriptorProto_TYPE_UINT32
		raw     = descriptorpb.FieldDescriptorProto_TYPE_BYTES
		boolean = descriptorpb.FieldDescriptorProto_TYPE_BOOL
	)
	for _, c := range []struct {
		column string
		kind   descriptorpb.FieldDescriptorProto_Type
		value  any // a text or a number
		want   any // nil: the row is refused
	}{
		{"STRING", text, "é", "é"}, {"STRING", text, "\xff", nil}, {"STRING", int64s, 1, nil},
		{"INT64", int64s, -1, int64(-1)}, {"INT64", uint32s, 7, int64(7)}, {"INT64", text, "1", nil},
		{"BOOL", boolean, 1, true}, {"BOOL", int64s, 0, false}, {"BOOL", text, "true", nil},
		{"BYTES", raw, "\x00", []byte{0}}, {"BYTES", text, "ab", []byte("ab")},
		{"FLOAT64", int64s, 1, nil}, {"GEOGRAPHY", text, "POINT(1 2)", "POINT(1 2)"},
		{"JSON", text, `{"a":1}`, `{"a":1}`}, {"JSON", text, `{"a"`, nil},
		{"TIMESTAMP", int64s, 1, time.UnixMicro(1).UTC()}, {"TIMESTAMP", int64s, 253402300800000000, nil},
		{"TIMESTAMP", text, "2026-01-01 00:00:00Z", time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}, {"TIMESTAMP", text, "soon", nil},
		{"DATE", int32s, -1, "1969-12-31"}, {"DATE", text, "2024-02-29", "2024-02-29"}, {"DATE", text, "2026-02-29", nil},
		{"DATE", int32s, 99999999, nil},
		{"TIME", text, "23:59:59.5", "23:59:59.5"}, {"TIME", text, "24:00:00", nil}, {"TIME", int64s, 1, nil},
		{"DATETIME", text, "2026-01-01T23:59:59", "2026-01-01T23:59:59"}, {"DATETIME", text, "2026-02-30T00:00:00", nil},
		{"NUMERIC", text, "-1.5", "-1.5"}, {"NUMERIC", int64s, 12, "12"}, {"NUMERIC", text, "1e28", "1e28"},
		{"NUMERIC", text, "1e29", nil}, {"NUMERIC", text, "0.0000000001", nil}, {"NUMERIC", text, "1/3", nil}, {"NUMERIC", raw, "\x01", nil},
		{"BIGNUMERIC", text, "0.00000000000000000000000000000000000001", "0.00000000000000000000000000000000000001"}, {"BIGNUMERIC", text, "1e38", nil},
		{"STRUCT", text, "x", nil},
	} {
		table := bigquery.Table{Name: "p.d.orders", Columns: []bigquery.Column{{Name: "V", Type: c.column}}}
		if c.column == "STRUCT" {
			table.Columns[0].Fields = []bigquery.Column{{Name: "a", Type: "STRING"}}
		}
		b := newBed(t, table)
		b.schema = &descriptorpb.DescriptorProto{Name: proto.String("Row"), Field: []*descriptorpb.FieldDescriptorProto{{
			Name: proto.String("v"), Number: proto.Int32(1), Type: c.kind.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		}}}
		var row []byte
		switch v := c.value.(type) {
		case string:
			row = protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), v)
		case int:
			row = protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(v))
		}
		got := b.connect(b.stream(pb.WriteStream_COMMITTED)).append(0, "!"+string(row))
		if (got == "ok 0") != (c.want != nil) || c.want == nil && !strings.HasPrefix(got, "InvalidArgument [0 ") {
			t.Errorf("%+v: %s", c, got)
			continue
		}
		if rows, err := b.server.Rows("p.d.orders"); err != nil || c.want != nil && !reflect.DeepEqual(rows[0]["V"], c.want) {
			t.Errorf("%+v: %v, %v", c, rows, err)
		}
	}
}

// Tables that cannot be are refused, by the Go API and by REST.
func TestBadTables(t *testing.T) {
	server := bigquery.New(bigquery.Options{})
	defer server.Close()
	address, err := server.Start()
	if err != nil {
		t.Fatal(err)
	}
	text := []bigquery.Column{{Name: "s", Type: "STRING"}}
	for want, table := range map[string]bigquery.Table{
		"want PROJECT.DATASET.TABLE":  {Name: "p.d", Columns: text},
		"has no columns":              {Name: "p.d.t"},
		"nameless or there twice":     {Name: "p.d.t", Columns: append(text, bigquery.Column{Name: "S", Type: "STRING"})},
		`unknown type "TEXT"`:         {Name: "p.d.t", Columns: []bigquery.Column{{Name: "a", Type: "TEXT"}}},
		`unknown mode "ONCE"`:         {Name: "p.d.t", Columns: []bigquery.Column{{Name: "a", Type: "STRING", Mode: "ONCE"}}},
		`"st." has no columns`:        {Name: "p.d.t", Columns: []bigquery.Column{{Name: "st", Type: "STRUCT"}}},
		`primary key's "k" is no col`: {Name: "p.d.t", Columns: text, PrimaryKey: []string{"k"}},
	} {
		if err := server.CreateTable(table); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	for _, missing := range []error{second(server.Rows("p.d.none")), second(server.Rows("none")), second(server.Streams("p.d.none")), server.Expire("none")} {
		if missing == nil {
			t.Error("what is not there was found")
		}
	}
	base := "http://" + address + "/bigquery/v2/projects/p/datasets"
	call := func(method, path, body string) int {
		in, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		out, err := http.DefaultClient.Do(in)
		if err != nil {
			t.Fatal(err)
		}
		if err := out.Body.Close(); err != nil {
			t.Error(err)
		}
		return out.StatusCode
	}
	const made = `{"tableReference":{"tableId":"t"},"schema":{"fields":[{"name":"a","type":"STRING"}]}}`
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{"GET", "/d", "", 404}, {"POST", "", `{`, 400}, {"POST", "", `{}`, 400},
		{"POST", "/d/tables", made, 404}, {"POST", "", `{"datasetReference":{"datasetId":"d"}}`, 200}, {"GET", "/d", "", 200},
		{"POST", "", `{"datasetReference":{"datasetId":"d"}}`, 409},
		{"POST", "/d/tables", `{`, 400}, {"POST", "/d/tables", strings.Replace(made, "STRING", "TEXT", 1), 400}, {"POST", "/d/tables", made, 200},
		{"POST", "/d/tables", made, 409}, {"GET", "/d/tables/t", "", 200}, {"DELETE", "/d/tables/t", "", 501}, {"GET", "/d/tables/t/data", "", 501},
	} {
		if got := call(c.method, c.path, c.body); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
	for code, want := range map[codes.Code]int{codes.PermissionDenied: 403, codes.Unauthenticated: 401, codes.NotFound: 404, codes.Internal: 503} {
		server.Inject(bigquery.Fault{Operation: bigquery.REST, Resource: "datasets/d", Code: code})
		if got := call("GET", "/d", ""); got != want {
			t.Errorf("%s: %d", code, got)
		}
	}
	server.Inject(bigquery.Fault{Operation: bigquery.REST, LoseReply: true})
	if got := call("POST", "", `{"datasetReference":{"datasetId":"e"}}`); got != 503 || call("GET", "/e", "") != 200 {
		t.Error(got)
	}
}

func second[T any](_ T, err error) error { return err }
