package bigquery_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	gcp "cloud.google.com/go/bigquery"
	storage "cloud.google.com/go/bigquery/storage/apiv1"
	pb "cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"cloud.google.com/go/bigquery/storage/managedwriter"
	"cloud.google.com/go/bigquery/storage/managedwriter/adapt"
	"github.com/googleapis/gax-go/v2"
	"github.com/googleapis/gax-go/v2/apierror"
	"google.golang.org/api/googleapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/millstream/millstream/fakes/bigquery"
)

const ordersPath = "projects/p/datasets/d/tables/orders"

var orders = bigquery.Table{Name: "p.d.orders", Columns: []bigquery.Column{
	{Name: "id", Type: "STRING", Mode: "REQUIRED"}, {Name: "n", Type: "INT64"},
}}

// bed is a server with one table, and the raw client of the Write API.
type bed struct {
	*testing.T
	server  *bigquery.Server
	client  *storage.BigQueryWriteClient
	message protoreflect.MessageDescriptor
	schema  *descriptorpb.DescriptorProto
}

func newBed(t *testing.T, table bigquery.Table, extra ...*pb.TableFieldSchema) *bed {
	t.Helper()
	server := bigquery.New(bigquery.Options{})
	t.Cleanup(server.Close)
	if _, err := server.Start(); err != nil {
		t.Fatal(err)
	}
	if err := server.CreateTable(table); err != nil {
		t.Fatal(err)
	}
	client, err := storage.NewBigQueryWriteClient(t.Context(), server.WriteOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	stream, err := client.GetWriteStream(t.Context(), &pb.GetWriteStreamRequest{Name: ordersPath + "/streams/_default", View: pb.WriteStreamView_FULL})
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{T: t, server: server, client: client}
	b.message, b.schema = described(t, append(stream.TableSchema.Fields, extra...))
	return b
}

// described makes a descriptor as the official library does.
func described(t *testing.T, fields []*pb.TableFieldSchema) (protoreflect.MessageDescriptor, *descriptorpb.DescriptorProto) {
	t.Helper()
	d, err := adapt.StorageSchemaToProto2Descriptor(&pb.TableSchema{Fields: fields}, "root")
	if err != nil {
		t.Fatal(err)
	}
	message := d.(protoreflect.MessageDescriptor)
	schema, err := adapt.NormalizeDescriptor(message)
	if err != nil {
		t.Fatal(err)
	}
	return message, schema
}

// encoded makes rows of JSON objects; a text that starts with ! stands for bytes as they are.
func (b *bed) encoded(rows ...string) [][]byte {
	b.Helper()
	out := make([][]byte, len(rows))
	for i, row := range rows {
		if raw, ok := strings.CutPrefix(row, "!"); ok {
			out[i] = []byte(raw)
			continue
		}
		m := dynamicpb.NewMessage(b.message)
		if err := (protojson.UnmarshalOptions{AllowPartial: true}).Unmarshal([]byte(row), m); err != nil {
			b.Fatal(err)
		}
		data, err := proto.MarshalOptions{AllowPartial: true}.Marshal(m)
		if err != nil {
			b.Fatal(err)
		}
		out[i] = data
	}
	return out
}

func (b *bed) stream(kind pb.WriteStream_Type) string {
	b.Helper()
	st, err := b.client.CreateWriteStream(b.Context(), &pb.CreateWriteStreamRequest{Parent: ordersPath, WriteStream: &pb.WriteStream{Type: kind}})
	if err != nil {
		b.Fatal(err)
	}
	return st.Name
}

// noRetry has a call tell what the first attempt met.
func noRetry() gax.CallOption { return gax.WithRetry(func() gax.Retryer { return nil }) }

type conn struct {
	*bed
	api    pb.BigQueryWrite_AppendRowsClient
	stream string
	begun  bool
}

func (b *bed) connect(stream string) *conn {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	b.Cleanup(cancel)
	api, err := b.client.AppendRows(ctx)
	if err != nil {
		b.Fatal(err)
	}
	return &conn{bed: b, api: api, stream: stream}
}

func (c *conn) send(offset int64, rows ...string) (*pb.AppendRowsResponse, error) {
	c.Helper()
	data := &pb.AppendRowsRequest_ProtoData{Rows: &pb.ProtoRows{SerializedRows: c.encoded(rows...)}}
	in := &pb.AppendRowsRequest{Rows: &pb.AppendRowsRequest_ProtoRows{ProtoRows: data}}
	if !c.begun {
		in.WriteStream, data.WriterSchema, c.begun = c.stream, &pb.ProtoSchema{ProtoDescriptor: c.schema}, true
	}
	if offset >= 0 {
		in.Offset = wrapperspb.Int64(offset)
	}
	if err := c.api.Send(in); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return c.api.Recv()
}

// append expects an answer, and returns it as one text: ok at an offset, or the code.
func (c *conn) append(offset int64, rows ...string) string {
	c.Helper()
	out, err := c.send(offset, rows...)
	switch {
	case err != nil:
		return "broken " + status.Code(err).String()
	case out.GetError() != nil:
		text := status.FromProto(out.GetError()).Code().String()
		for _, d := range status.FromProto(out.GetError()).Details() {
			text += " " + d.(*pb.StorageError).Code.String()
		}
		for _, r := range out.RowErrors {
			text += fmt.Sprintf(" [%d %s]", r.Index, r.Message)
		}
		return text
	case out.GetAppendResult().Offset == nil:
		return "ok"
	}
	return fmt.Sprint("ok ", out.GetAppendResult().Offset.Value)
}

func (b *bed) flush(stream string, offset int64) string {
	out, err := b.client.FlushRows(b.Context(), &pb.FlushRowsRequest{WriteStream: stream, Offset: wrapperspb.Int64(offset)}, noRetry())
	if err != nil {
		return status.Code(err).String()
	}
	return fmt.Sprint("ok ", out.Offset)
}

func (b *bed) ids() string {
	b.Helper()
	rows, err := b.server.Rows("p.d.orders")
	if err != nil {
		b.Fatal(err)
	}
	var out []string
	for _, r := range rows {
		out = append(out, fmt.Sprint(r["id"], "=", r["n"]))
	}
	return strings.Join(out, " ")
}

func (b *bed) want(what, got, want string) {
	b.Helper()
	if got != want {
		b.Errorf("%s: %s, want %s", what, got, want)
	}
}

// An offset is the next one or nothing happens, also on another connection.
func TestOffsets(t *testing.T) {
	b := newBed(t, orders)
	st := b.stream(pb.WriteStream_BUFFERED)
	c := b.connect(st)
	b.want("first", c.append(0, `{"id":"a"}`, `{"id":"b"}`), "ok 0")
	b.want("again", c.append(0, `{"id":"a"}`, `{"id":"b"}`), "AlreadyExists OFFSET_ALREADY_EXISTS")
	b.want("overlapping", c.append(1, `{"id":"c"}`), "AlreadyExists OFFSET_ALREADY_EXISTS")
	b.want("beyond", c.append(3, `{"id":"c"}`), "OutOfRange OFFSET_OUT_OF_RANGE")
	b.want("next", b.connect(st).append(2, `{"id":"c"}`), "ok 2")
	b.want("without", c.append(-1, `{"id":"d"}`), "ok 3")
	b.want("flushed", b.flush(st, 3), "ok 3")
	b.want("rows", b.ids(), "a=<nil> b=<nil> c=<nil> d=<nil>")
}

// What is flushed is visible once and for ever, and nothing else is.
func TestFlush(t *testing.T) {
	b := newBed(t, orders)
	st := b.stream(pb.WriteStream_BUFFERED)
	c := b.connect(st)
	b.want("append", c.append(0, `{"id":"a"}`, `{"id":"b"}`, `{"id":"c"}`), "ok 0")
	b.want("nothing flushed", b.ids(), "")
	b.want("flush to the second", b.flush(st, 1), "ok 1")
	b.want("rows", b.ids(), "a=<nil> b=<nil>")
	b.want("flush again", b.flush(st, 1), "ok 1")
	b.want("flush below", b.flush(st, 0), "ok 0")
	b.want("rows", b.ids(), "a=<nil> b=<nil>")
	b.want("flush beyond", b.flush(st, 3), "OutOfRange")
	b.want("negative", b.flush(st, -1), "InvalidArgument")
	b.want("flush all", b.flush(st, 2), "ok 2")
	b.want("rows", b.ids(), "a=<nil> b=<nil> c=<nil>")
	b.want("flush of the default stream", b.flush(ordersPath+"/streams/_default", 0), "InvalidArgument")
	info, err := b.server.Streams("p.d.orders")
	if err != nil || !reflect.DeepEqual(info, []bigquery.StreamInfo{{Name: st, Type: "BUFFERED", Rows: 3, Flushed: 3}}) {
		t.Error(info, err)
	}
	if err := b.server.Expire(st); err != nil {
		t.Fatal(err)
	}
	b.want("an expired stream", b.flush(st, 2), "NotFound")
	b.want("append to it", c.append(3, `{"id":"d"}`), "NotFound STREAM_NOT_FOUND")
	b.want("what was visible", b.ids(), "a=<nil> b=<nil> c=<nil>")
}

// Rows that do not fit are named, and the whole request is refused.
func TestRowErrors(t *testing.T) {
	b := newBed(t, orders)
	c := b.connect(b.stream(pb.WriteStream_COMMITTED))
	got := c.append(0, `{"id":"a"}`, `{"n":"1"}`, `{"id":"c"}`, "!\xff")
	if !strings.HasPrefix(got, "InvalidArgument [1 ") || !strings.Contains(got, "required") || !strings.Contains(got, "[3 the row does not decode") {
		t.Error(got)
	}
	b.want("rows", b.ids(), "")
	b.want("the others", c.append(0, `{"id":"a"}`, `{"id":"c"}`), "ok 0")
	b.want("rows", b.ids(), "a=<nil> c=<nil>")
	b = newBed(t, orders, &pb.TableFieldSchema{Name: "more", Type: pb.TableFieldSchema_STRING, Mode: pb.TableFieldSchema_NULLABLE})
	b.want("extra field", b.connect(b.stream(pb.WriteStream_COMMITTED)).append(0, `{"id":"a"}`), "InvalidArgument SCHEMA_MISMATCH_EXTRA_FIELDS")
}

func TestFinalized(t *testing.T) {
	b := newBed(t, orders)
	st := b.stream(pb.WriteStream_BUFFERED)
	c := b.connect(st)
	b.want("append", c.append(0, `{"id":"a"}`), "ok 0")
	out, err := b.client.FinalizeWriteStream(t.Context(), &pb.FinalizeWriteStreamRequest{Name: st})
	if err != nil || out.RowCount != 1 {
		t.Error(out, err)
	}
	b.want("after", c.append(1, `{"id":"b"}`), "InvalidArgument STREAM_FINALIZED")
	b.want("pending", b.connect(b.stream(pb.WriteStream_PENDING)).append(0, `{"id":"p"}`), "ok 0")
	b.want("rows", b.ids(), "")
	b.want("flush", b.flush(st, 0), "ok 0")
	b.want("rows", b.ids(), "a=<nil>")
}

// Changes: the largest sequence number of a key counts, whatever comes when.
func TestChanges(t *testing.T) {
	keyed := orders
	keyed.PrimaryKey = []string{"id"}
	text := func(name string) *pb.TableFieldSchema {
		return &pb.TableFieldSchema{Name: name, Type: pb.TableFieldSchema_STRING, Mode: pb.TableFieldSchema_NULLABLE}
	}
	b := newBed(t, keyed, text("_CHANGE_TYPE"), text("_CHANGE_SEQUENCE_NUMBER"))
	c := b.connect(ordersPath + "/streams/_default")
	change := func(kind, id string, n int, sequence string) string {
		return c.append(-1, fmt.Sprintf(`{"id":%q,"n":"%d","_CHANGE_TYPE":%q,"_CHANGE_SEQUENCE_NUMBER":%q}`, id, n, kind, sequence))
	}
	b.want("upsert", change("UPSERT", "a", 1, "5/0"), "ok")
	b.want("another", change("UPSERT", "b", 1, "1"), "ok")
	b.want("older", change("UPSERT", "a", 2, "4/FF"), "ok")
	b.want("rows", b.ids(), "a=1 b=1")
	b.want("equal", change("UPSERT", "a", 3, "5"), "ok")
	b.want("by number, not by text", change("UPSERT", "a", 4, "1F/0/0/1"), "ok")
	b.want("rows", b.ids(), "a=4 b=1")
	b.want("delete", change("DELETE", "b", 0, "2"), "ok")
	b.want("older than the delete", change("UPSERT", "b", 9, "1/9"), "ok")
	b.want("rows", b.ids(), "a=4")
	b.want("newer", change("UPSERT", "b", 10, "3"), "ok")
	b.want("rows", b.ids(), "a=4 b=10")
	for _, bad := range []string{"", "x", "1/2/3/4/5", "11111111111111111", "1//2", "-1"} {
		if got := change("UPSERT", "a", 1, bad); !strings.HasPrefix(got, "InvalidArgument [0 ") {
			t.Errorf("%q: %s", bad, got)
		}
	}
	if got := change("INSERT", "a", 1, "9"); !strings.HasPrefix(got, "InvalidArgument [0 ") {
		t.Error(got)
	}
	b.want("with an offset", c.append(0, `{"id":"a"}`), "InvalidArgument")
	b.want("in another stream", b.connect(b.stream(pb.WriteStream_COMMITTED)).append(0, `{"id":"a"}`), "InvalidArgument")
	plain := newBed(t, orders, text("_CHANGE_TYPE"))
	plain.want("without a key", plain.connect(ordersPath+"/streams/_default").append(-1, `{"id":"a","_CHANGE_TYPE":"UPSERT"}`), "InvalidArgument")
}

func TestTooLarge(t *testing.T) {
	b := newBed(t, orders)
	st := b.stream(pb.WriteStream_COMMITTED)
	large := fmt.Sprintf(`{"id":%q}`, strings.Repeat("x", 9_999_000))
	b.want("just fits", b.connect(st).append(0, large), "ok 0")
	b.want("too large", b.connect(st).append(1, large, `{"id":"`+strings.Repeat("y", 1000)+`"}`), "broken InvalidArgument")
	b.want("after it", b.connect(st).append(1, `{"id":"z"}`), "ok 1")

	small := bigquery.New(bigquery.Options{MaxBytes: 10})
	defer small.Close()
	if _, err := small.Start(); err != nil {
		t.Fatal(err)
	}
	if err := small.CreateTable(orders); err != nil {
		t.Fatal(err)
	}
	client, err := storage.NewBigQueryWriteClient(t.Context(), small.WriteOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	full := &bed{T: t, server: small, client: client, message: b.message, schema: b.schema}
	b.want("no room", full.connect(ordersPath+"/streams/_default").append(-1, `{"id":"more than ten bytes"}`), "ResourceExhausted")
}

// Each fault does what it says, and counts.
func TestFaults(t *testing.T) {
	b := newBed(t, orders)
	st := b.stream(pb.WriteStream_BUFFERED)
	c := b.connect(st)

	refused := b.server.Inject(bigquery.Fault{Operation: bigquery.AppendRows, Resource: "orders", Skip: 1, Code: codes.ResourceExhausted})
	b.want("skipped", c.append(0, `{"id":"a"}`), "ok 0")
	b.want("refused", c.append(1, `{"id":"b"}`), "ResourceExhausted")
	b.want("passed", c.append(1, `{"id":"b"}`), "ok 1")
	<-refused.Done()
	if refused.Hits() != 1 {
		t.Error(refused.Hits())
	}
	b.server.Inject(bigquery.Fault{Operation: bigquery.AppendRows, Break: true})
	b.want("broken", c.append(2, `{"id":"c"}`), "broken Unavailable")
	c = b.connect(st)
	b.server.Inject(bigquery.Fault{Operation: bigquery.AppendRows, LoseReply: true})
	b.want("lost", c.append(2, `{"id":"c"}`), "broken Unavailable")
	c = b.connect(st)
	b.want("done", c.append(2, `{"id":"c"}`), "AlreadyExists OFFSET_ALREADY_EXISTS")

	for _, done := range []bool{false, true} {
		stall := b.server.Inject(bigquery.Fault{Operation: bigquery.AppendRows, Stall: true, LoseReply: done})
		ctx, hangUp := context.WithCancel(t.Context())
		api, err := b.client.AppendRows(ctx)
		if err != nil {
			t.Fatal(err)
		}
		stalled := &conn{bed: b, api: api, stream: st}
		answer := make(chan string, 1)
		go func() { answer <- stalled.append(3, `{"id":"d"}`) }()
		<-stall.Done()
		if !done {
			hangUp()
			b.want("stalled", <-answer, "broken Canceled")
			continue
		}
		for info, _ := b.server.Streams("p.d.orders"); info[0].Rows != 4 && t.Context().Err() == nil; info, _ = b.server.Streams("p.d.orders") {
			runtime.Gosched()
		}
		hangUp()
		b.want("stalled", <-answer, "broken Canceled")
	}

	b.server.Inject(bigquery.Fault{Operation: "FlushRows", LoseReply: true})
	b.want("flush", b.flush(st, 1), "Unavailable")
	b.want("rows", b.ids(), "a=<nil> b=<nil>")
	b.server.Inject(bigquery.Fault{Operation: "FlushRows", Code: codes.AlreadyExists})
	b.want("flush", b.flush(st, 2), "AlreadyExists")
	b.want("rows", b.ids(), "a=<nil> b=<nil>")

	every := b.server.Inject(bigquery.Fault{Operation: "FlushRows", Every: 3, Times: -1, Code: codes.Unavailable})
	var got []string
	for range 7 {
		got = append(got, b.flush(st, 0))
	}
	b.want("every third", strings.Join(got, ","), "ok 0,ok 0,Unavailable,ok 0,ok 0,Unavailable,ok 0")
	every.Stop()
	b.want("stopped", b.flush(st, 0)+b.flush(st, 0), "ok 0ok 0")

	b.server.Inject(bigquery.Fault{Operation: bigquery.Connect, Code: codes.Unavailable})
	b.want("no connection", b.connect(st).append(4, `{"id":"e"}`), "broken Unavailable")
	if b.server.DropConnections() == 0 {
		t.Error("no connection was open")
	}
	b.want("dropped", c.append(4, `{"id":"e"}`), "broken Unavailable")
	b.want("opened again", b.connect(st).append(4, `{"id":"e"}`), "ok 4")
}

// The official libraries make a table, describe it, and write to it.
func TestOfficialClients(t *testing.T) {
	server := bigquery.New(bigquery.Options{})
	defer server.Close()
	if _, err := server.Start(); err != nil {
		t.Fatal(err)
	}
	client, err := gcp.NewClient(t.Context(), "p", server.RESTOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Dataset("d").Create(t.Context(), &gcp.DatasetMetadata{}); err != nil {
		t.Fatal(err)
	}
	schema := gcp.Schema{
		{Name: "id", Type: gcp.StringFieldType, Required: true}, {Name: "n", Type: gcp.IntegerFieldType},
		{Name: "lines", Type: gcp.RecordFieldType, Repeated: true, Schema: gcp.Schema{{Name: "price", Type: gcp.FloatFieldType}}},
		{Name: "at", Type: gcp.TimestampFieldType}, {Name: "día", Type: gcp.DateFieldType}, {Name: "raw", Type: gcp.BytesFieldType}, {Name: "ok", Type: gcp.BooleanFieldType},
	}
	table := client.Dataset("d").Table("orders")
	if err := table.Create(t.Context(), &gcp.TableMetadata{Schema: schema, TableConstraints: &gcp.TableConstraints{PrimaryKey: &gcp.PrimaryKey{Columns: []string{"id"}}}}); err != nil {
		t.Fatal(err)
	}
	metadata, err := table.Metadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(metadata.Schema, schema) || metadata.TableConstraints.PrimaryKey.Columns[0] != "id" {
		t.Errorf("%+v", metadata)
	}
	var refused *googleapi.Error
	if err := table.Create(t.Context(), &gcp.TableMetadata{Schema: schema}); !errors.As(err, &refused) || refused.Code != 409 {
		t.Error(err)
	}
	if _, err := client.Dataset("d").Table("absent").Metadata(t.Context()); !errors.As(err, &refused) || refused.Code != 404 {
		t.Error(err)
	}

	storageSchema, err := adapt.BQSchemaToStorageTableSchema(schema)
	if err != nil {
		t.Fatal(err)
	}
	message, descriptor := described(t, storageSchema.Fields)
	b := &bed{T: t, server: server, message: message, schema: descriptor}
	writer, err := managedwriter.NewClient(t.Context(), "p", server.WriteOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	for _, kind := range []managedwriter.StreamType{managedwriter.BufferedStream, managedwriter.DefaultStream} {
		stream, err := writer.NewManagedStream(t.Context(), managedwriter.WithDestinationTable(ordersPath), managedwriter.WithType(kind), managedwriter.WithSchemaDescriptor(descriptor))
		if err != nil {
			t.Fatal(err)
		}
		var options []managedwriter.AppendOption
		if kind == managedwriter.BufferedStream {
			options = append(options, managedwriter.WithOffset(0))
		}
		day := string(message.Fields().Get(4).Name())
		rows := b.encoded(`{"id":"`+string(kind)+`","n":"9007199254740993","lines":[{"price":1.5},{}],"at":"1767225600000001","`+day+`":20454,"raw":"AAE=","ok":true}`, `{"id":"b"}`)
		result, err := stream.AppendRows(t.Context(), rows, options...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := result.GetResult(t.Context()); err != nil {
			t.Error(err)
		}
		if kind == managedwriter.BufferedStream {
			seen, _ := server.Rows("p.d.orders")
			if _, err := stream.FlushRows(t.Context(), 1); err != nil || len(seen) != 0 {
				t.Error(err, seen)
			}
			again, err := stream.AppendRows(t.Context(), rows, managedwriter.WithOffset(0))
			if err != nil {
				t.Fatal(err)
			}
			_, err = again.GetResult(t.Context())
			told, _ := apierror.FromError(err)
			storageError := &pb.StorageError{}
			if told == nil || told.Details().ExtractProtoMessage(storageError) != nil || storageError.Code != pb.StorageError_OFFSET_ALREADY_EXISTS {
				t.Error(err)
			}
		}
		if err := stream.Close(); err != nil && !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	}
	rows, err := server.Rows("p.d.orders")
	if err != nil || len(rows) != 4 {
		t.Fatal(rows, err)
	}
	want := bigquery.Row{"id": "BUFFERED", "n": int64(9007199254740993), "lines": []any{bigquery.Row{"price": 1.5}, bigquery.Row{}},
		"at": time.Date(2026, 1, 1, 0, 0, 0, 1000, time.UTC), "día": "2026-01-01", "raw": []byte{0, 1}, "ok": true}
	if !reflect.DeepEqual(rows[0], want) {
		t.Errorf("%v, want %v", rows[0], want)
	}
}
