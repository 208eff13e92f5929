package bigquery

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	api "google.golang.org/api/bigquery/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	fake "github.com/millstream/millstream/fakes/bigquery"
	"github.com/millstream/millstream/stream"
)

// every is a table with a column of each type.
var every = fake.Table{Name: "p.d.rows", Columns: []fake.Column{
	{Name: "s", Type: "STRING"}, {Name: "i", Type: "INT64"}, {Name: "f", Type: "FLOAT64"}, {Name: "b", Type: "BOOL"},
	{Name: "ts", Type: "TIMESTAMP"}, {Name: "d", Type: "DATE"}, {Name: "dt", Type: "DATETIME"}, {Name: "t", Type: "TIME"},
	{Name: "num", Type: "NUMERIC"}, {Name: "big", Type: "BIGNUMERIC"}, {Name: "j", Type: "JSON"}, {Name: "raw", Type: "BYTES"},
	{Name: "geo", Type: "GEOGRAPHY"}, {Name: "is", Type: "INT64", Mode: "REPEATED"}, {Name: "día-x", Type: "STRING"},
	{Name: "st", Type: "STRUCT", Fields: []fake.Column{
		{Name: "a", Type: "INT64", Mode: "REQUIRED"}, {Name: "deep", Type: "STRUCT", Mode: "REPEATED", Fields: []fake.Column{{Name: "x", Type: "STRING"}, {Name: "ü", Type: "BOOL"}}},
	}},
}}

// Values, as JSON has them, arrive as the table's types, or the row is rejected with a reason that names
// the column.
func TestValues(t *testing.T) {
	server := serve(t, every)
	s := stagerOf(t, server, Options{})
	micros := func(n int64) time.Time { return time.UnixMicro(n).UTC() }
	for i, c := range []struct {
		row  string
		want fake.Row
		why  string // or a part of the reason
	}{
		{row: `{}`, want: fake.Row{}},
		{row: `{"s":null,"st":null,"is":null}`, want: fake.Row{}},
		{row: `{"s":""}`, want: fake.Row{"s": ""}},
		{row: `{"S":"é\n","I":1}`, want: fake.Row{"s": "é\n", "i": int64(1)}},
		{row: `{"s":12.50,"día-x":true}`, want: fake.Row{"s": "12.50", "día-x": "true"}},
		{row: `{"s":{"a":1}}`, why: "column s is STRING"},
		{row: `{"i":9007199254740993}`, want: fake.Row{"i": int64(9007199254740993)}},
		{row: `{"i":"-9223372036854775808"}`, want: fake.Row{"i": int64(math.MinInt64)}},
		{row: `{"i":1e3}`, want: fake.Row{"i": int64(1000)}},
		{row: `{"i":5.0}`, want: fake.Row{"i": int64(5)}},
		{row: `{"i":0}`, want: fake.Row{"i": int64(0)}},
		{row: `{"i":9223372036854775808}`, why: "column i is INT64: 9223372036854775808 is no whole number of 64 bits"},
		{row: `{"i":1.5}`, why: "column i"},
		{row: `{"i":true}`, why: "column i"},
		{row: `{"i":1e999}`, why: "column i"},
		{row: `{"i":""}`, why: "column i"},
		{row: `{"f":0.1}`, want: fake.Row{"f": 0.1}},
		{row: `{"f":"-1.5e3"}`, want: fake.Row{"f": -1500.0}},
		{row: `{"f":"Infinity"}`, want: fake.Row{"f": math.Inf(1)}},
		{row: `{"f":"0x10"}`, why: "column f"},
		{row: `{"f":1e999}`, why: "column f"},
		{row: `{"b":false}`, want: fake.Row{"b": false}},
		{row: `{"b":"TRUE"}`, want: fake.Row{"b": true}},
		{row: `{"b":1}`, why: "column b is BOOL"},
		{row: `{"ts":"2026-01-01T00:00:00.1234567+01:00"}`, want: fake.Row{"ts": time.Date(2025, 12, 31, 23, 0, 0, 123456000, time.UTC)}},
		{row: `{"ts":"1969-12-31T23:59:59.999999Z"}`, want: fake.Row{"ts": micros(-1)}},
		{row: `{"ts":"2026-01-01 00:00:00 UTC"}`, want: fake.Row{"ts": time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}},
		{row: `{"ts":1767225600000001}`, want: fake.Row{"ts": micros(1767225600000001)}},
		{row: `{"ts":"2026-01-01"}`, why: "column ts is TIMESTAMP"},
		{row: `{"ts":"0000-12-31T23:59:59Z"}`, why: "column ts"},
		{row: `{"ts":253402300800000000}`, why: "column ts"},
		{row: `{"d":"1969-12-31"}`, want: fake.Row{"d": "1969-12-31"}},
		{row: `{"d":"2024-02-29"}`, want: fake.Row{"d": "2024-02-29"}},
		{row: `{"d":"2026-02-29"}`, why: "column d is DATE"},
		{row: `{"d":20000}`, why: "column d"},
		{row: `{"dt":"2026-01-01 10:00:00.5"}`, want: fake.Row{"dt": "2026-01-01T10:00:00.5"}},
		{row: `{"dt":"2026-01-01T10:00:00Z"}`, why: "column dt is DATETIME"},
		{row: `{"dt":"2026-13-01T10:00:00"}`, why: "column dt"},
		{row: `{"t":"23:59:59.999999"}`, want: fake.Row{"t": "23:59:59.999999"}},
		{row: `{"t":"24:00:00"}`, why: "column t is TIME"},
		{row: `{"num":0.30000000000000004}`, want: fake.Row{"num": "0.3"}},
		{row: `{"num":-1e-9}`, want: fake.Row{"num": "-0.000000001"}},
		{row: `{"num":"99999999999999999999999999999.999999999"}`, want: fake.Row{"num": "99999999999999999999999999999.999999999"}},
		{row: `{"num":100}`, want: fake.Row{"num": "100"}},
		{row: `{"num":0}`, want: fake.Row{"num": "0"}},
		{row: `{"num":"0.0000000001"}`, why: "column num is NUMERIC"},
		{row: `{"num":1e29}`, why: "column num"},
		{row: `{"num":"NaN"}`, why: "column num"},
		{row: `{"big":"0.00000000000000000000000000000000000001"}`, want: fake.Row{"big": "0.00000000000000000000000000000000000001"}},
		{row: `{"big":1e38}`, why: "column big is BIGNUMERIC"},
		{row: `{"j":{"a":[1,null]}}`, want: fake.Row{"j": `{"a":[1,null]}`}},
		{row: `{"j":"text"}`, want: fake.Row{"j": `"text"`}},
		{row: `{"raw":"AAH/"}`, want: fake.Row{"raw": []byte{0, 1, 255}}},
		{row: `{"raw":"_w"}`, want: fake.Row{"raw": []byte{255}}},
		{row: `{"raw":"&"}`, why: "column raw is BYTES: the text is not base64"},
		{row: `{"geo":"POINT(1 2)"}`, want: fake.Row{"geo": "POINT(1 2)"}},
		{row: `{"geo":{"type":"Point","coordinates":[1,2]}}`, want: fake.Row{"geo": `{"type":"Point","coordinates":[1,2]}`}},
		{row: `{"is":[1,"2",3]}`, want: fake.Row{"is": []any{int64(1), int64(2), int64(3)}}},
		{row: `{"is":[]}`, want: fake.Row{}},
		{row: `{"is":[1,null]}`, why: "column is has a null in its array"},
		{row: `{"is":1}`, why: "column is is REPEATED, and 1 is no array"},
		{row: `{"st":{"a":1,"deep":[{"x":"y"},{"ü":true},{}]}}`, want: fake.Row{"st": fake.Row{"a": int64(1), "deep": []any{fake.Row{"x": "y"}, fake.Row{"ü": true}, fake.Row{}}}}},
		{row: `{"st":{}}`, why: "column st.a is required, and the row has none"},
		{row: `{"st":{"a":1,"more":2}}`, why: "the table has no column st.more"},
		{row: `{"st":[1]}`, why: "column st is no JSON object"},
		{row: `{"more":1}`, why: "the table has no column more"},
		{row: `{"s":1`, why: "the row is no JSON object"},
		{row: `null`, why: "the row is no JSON object"},
	} {
		before, err := server.Rows("p.d.rows")
		if err != nil {
			t.Fatal(err)
		}
		token, err := s.Stage(t.Context(), idOf(uint64(i), 0), []stream.Row{{Data: []byte(c.row)}})
		var rejected *stream.Rejected
		if c.why != "" {
			if !errors.As(err, &rejected) || !strings.Contains(rejected.Rows[0].Reason, c.why) {
				t.Errorf("%s: %v", c.row, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.row, err)
			continue
		}
		mustCommit(t, s, token)
		rows, err := server.Rows("p.d.rows")
		if err != nil || len(rows) != len(before)+1 || !reflect.DeepEqual(rows[len(rows)-1], c.want) {
			t.Errorf("%s: %v, %v", c.row, rows[len(rows)-1], err)
		}
	}
}

// What becomes of a field that the table has no column for.
func TestUnknown(t *testing.T) {
	rows := []stream.Row{{Data: []byte(`{"row":"a","more":1}`)}, {Data: []byte(`{"row":"b"}`)}}
	for unknown, want := range map[Unknown]string{DeadLetter: "b", Ignore: "a b", Fail: ""} {
		server := serve(t, suiteTable)
		s := stagerOf(t, server, Options{Unknown: unknown})
		if got := s.Fits([]string{"ROW", "n", "more"}); (got == nil) != (unknown == Ignore) {
			t.Errorf("%s: %v", unknown, got)
		}
		if got := s.Fits([]string{"n"}); got == nil || !strings.Contains(got.Error(), "requires the column row") {
			t.Error(got)
		}
		token, err := s.Stage(t.Context(), idOf(1, 0), rows)
		var rejected *stream.Rejected
		if (err == nil) != (unknown == Ignore) || errors.As(err, &rejected) != (unknown == DeadLetter) {
			t.Errorf("%s: %v", unknown, err)
		}
		if token != nil {
			mustCommit(t, s, token)
		}
		if got := labels(t, server); got != want {
			t.Errorf("%s: %s", unknown, got)
		}
	}
}

// A table that cannot be written to is refused, with the reason.
func TestPlan(t *testing.T) {
	long := make([]*api.TableFieldSchema, 0, 9000)
	for i := range cap(long) {
		long = append(long, &api.TableFieldSchema{Name: fmt.Sprint(strings.Repeat("x", 700), i), Type: "STRING"})
	}
	for want, fields := range map[string][]*api.TableFieldSchema{
		"it has no columns": nil,
		"its column at.x is a RANGE, which this sink cannot write, and is required": {{Name: "at", Type: "RECORD", Fields: []*api.TableFieldSchema{{Name: "x", Type: "RANGE", Mode: "REQUIRED"}}}},
		"which leaves no room for rows":                                             long,
	} {
		if _, err := newPlan(&api.Table{Schema: &api.TableSchema{Fields: fields}}, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	p, err := newPlan(&api.Table{Schema: &api.TableSchema{Fields: []*api.TableFieldSchema{{Name: "during", Type: "RANGE"}, {Name: "n", Type: "NUMERIC", Precision: 5, Scale: 2}}}}, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.encode([]byte(`{"during":"x"}`), false); err == nil || !strings.Contains(err.Error(), "column during is RANGE: this sink cannot write that type") {
		t.Error(err)
	}
	if _, err := p.encode([]byte(`{"n":1.005}`), false); err != nil {
		t.Error(err)
	}
	if _, err := p.encode([]byte(`{"n":"1.005"}`), false); err == nil {
		t.Error("a text lost a digit")
	}
	if fieldNumber(18_998) >= 19_000 || fieldNumber(18_999) < 20_000 {
		t.Error("a number that protocol buffers keep for themselves")
	}
}

// FuzzEncode: whatever a row holds, it is refused or becomes a message that its own descriptor reads, the
// same each time; and what is encoded has no field twice that is not repeated.
func FuzzEncode(f *testing.F) {
	for _, seed := range []string{`{"s":"a","i":1}`, `{"st":{"a":1,"deep":[{}]},"is":[1,2]}`, `{"i":"12","I":3}`, `{"DT":"2026-01-01 00:00:00","Dt":"x"}`, `{"ts":"2026-01-01T00:00:00Z","num":1e-3}`, `{"raw":"AA==","j":[],"d":"2026-01-01"}`} {
		f.Add([]byte(seed))
	}
	p, err := newPlan(&api.Table{Schema: &api.TableSchema{Fields: restFields(every.Columns)}}, true)
	if err != nil {
		f.Fatal(err)
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{Name: proto.String("x"), Syntax: proto.String("proto2"), MessageType: []*descriptorpb.DescriptorProto{p.schema.ProtoDescriptor}}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, row []byte) {
		data, err := p.encodeChange(row, "1/2/3", true)
		if err != nil {
			return
		}
		m := dynamicpb.NewMessage(file.Messages().Get(0))
		if err := proto.Unmarshal(data, m); err != nil {
			t.Fatalf("%q: %v", row, err)
		}
		if got := m.Get(m.Descriptor().Fields().ByName(changeSequence)).String(); got != "1/2/3" {
			t.Fatalf("%q: %s", row, got)
		}
		again, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil || proto.Size(m) > len(data)+16 || len(again) == 0 {
			t.Fatalf("%q: %v", row, err)
		}
		if twice, err := p.encodeChange(row, "1/2/3", true); err != nil || !slices.Equal(twice, data) {
			t.Fatalf("%q is not the same twice: %v", row, err)
		}
	})
}

func restFields(columns []fake.Column) []*api.TableFieldSchema {
	out := make([]*api.TableFieldSchema, len(columns))
	for i, c := range columns {
		out[i] = &api.TableFieldSchema{Name: c.Name, Type: c.Type, Mode: c.Mode, Fields: restFields(c.Fields)}
	}
	return out
}
