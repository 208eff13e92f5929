package bigquery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"

	pb "cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// writeStream is one stream into one table.
type writeStream struct {
	name      string
	kind      pb.WriteStream_Type
	table     *table
	rows      []decoded // from flushed on invisible
	flushed   int64
	finalized bool
	created   *timestamppb.Timestamp
	standard  bool // the table's _default
}

type writeServer struct {
	pb.UnimplementedBigQueryWriteServer
	*Server
}

// refusal is a status with the service's own code among its details.
func refusal(code codes.Code, why pb.StorageError_StorageErrorCode, entity, format string, args ...any) error {
	message := fmt.Sprintf(format, args...)
	st, err := status.New(code, message).WithDetails(&pb.StorageError{Code: why, Entity: entity, ErrorMessage: message})
	if err != nil {
		return status.Error(code, message)
	}
	return st.Err()
}

// CreateWriteStream makes a stream of an explicit type.
func (s *writeServer) CreateWriteStream(_ context.Context, in *pb.CreateWriteStreamRequest) (*pb.WriteStream, error) {
	kind := in.GetWriteStream().GetType()
	if kind == pb.WriteStream_TYPE_UNSPECIFIED {
		return nil, refusal(codes.InvalidArgument, pb.StorageError_INVALID_STREAM_TYPE, in.Parent, "the type of the stream is missing")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tables[in.Parent]
	if t == nil {
		return nil, refusal(codes.NotFound, pb.StorageError_TABLE_NOT_FOUND, in.Parent, "Requested entity was not found. Entity: %s", in.Parent)
	}
	s.serial++
	st := &writeStream{name: fmt.Sprintf("%s/streams/Cic%08d", t.path, s.serial), kind: kind, table: t, created: timestamppb.Now()}
	s.streams[st.name] = st
	return st.describe(true), nil
}

func (st *writeStream) describe(schema bool) *pb.WriteStream {
	out := &pb.WriteStream{Name: st.name, Type: st.kind, CreateTime: st.created, WriteMode: pb.WriteStream_INSERT}
	if st.kind == pb.WriteStream_COMMITTED {
		out.CommitTime = st.created
	}
	if schema {
		out.TableSchema = &pb.TableSchema{Fields: storageSchema(st.table.Columns)}
	}
	return out
}

// GetWriteStream describes a stream, with the table's schema if the view is FULL.
func (s *writeServer) GetWriteStream(_ context.Context, in *pb.GetWriteStreamRequest) (*pb.WriteStream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.stream(in.Name)
	if err != nil {
		return nil, err
	}
	return st.describe(in.View == pb.WriteStreamView_FULL), nil
}

var defaultStream = regexp.MustCompile(`^(projects/[^/]+/datasets/[^/]+/tables/[^/]+)(/streams)?/_default$`)

// stream finds a stream by its name; every table has a default one. The caller holds the lock.
func (s *writeServer) stream(name string) (*writeStream, error) {
	if m := defaultStream.FindStringSubmatch(name); m != nil {
		t := s.tables[m[1]]
		if t == nil {
			return nil, refusal(codes.NotFound, pb.StorageError_TABLE_NOT_FOUND, m[1], "Requested entity was not found. Entity: %s", m[1])
		}
		return &writeStream{name: m[1] + "/streams/_default", kind: pb.WriteStream_COMMITTED, table: t, standard: true}, nil
	}
	if st := s.streams[name]; st != nil {
		return st, nil
	}
	return nil, refusal(codes.NotFound, pb.StorageError_STREAM_NOT_FOUND, name, "Requested entity was not found. Entity: %s", name)
}

// AppendRows answers the requests of one connection in their order.
func (s *writeServer) AppendRows(conn pb.BigQueryWrite_AppendRowsServer) error {
	fault := s.taken(Connect, "")
	if err := fault.before(conn.Context()); err != nil {
		return err
	}
	c := &connection{writeServer: s}
	for {
		in, err := conn.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if c.stream == "" && in.WriteStream == "" {
			return status.Error(codes.InvalidArgument, "the first request of a connection must name a stream")
		}
		if in.WriteStream != "" {
			if in.WriteStream != c.stream {
				c.layout = nil
			}
			c.stream = in.WriteStream
		}
		fault := s.taken(AppendRows, c.stream)
		if err := fault.before(conn.Context()); err != nil {
			if fault.Break || fault.Stall {
				return err
			}
			if err := conn.Send(&pb.AppendRowsResponse{WriteStream: c.stream, Response: failed(err)}); err != nil {
				return err
			}
			continue
		}
		if n := proto.Size(in); n > maxRequest {
			return status.Errorf(codes.InvalidArgument, "MessageSize is too large. Max allow: %d Actual: %d", maxRequest, n)
		}
		out := c.append(in)
		if err := fault.after(conn.Context()); err != nil {
			return err
		}
		if err := conn.Send(out); err != nil {
			return err
		}
	}
}

func failed(err error) *pb.AppendRowsResponse_Error {
	return &pb.AppendRowsResponse_Error{Error: status.Convert(err).Proto()}
}

// connection is what a connection remembers from request to request.
type connection struct {
	*writeServer
	stream string
	layout *layout
}

// append does one request: all of its rows or none.
func (c *connection) append(in *pb.AppendRowsRequest) *pb.AppendRowsResponse {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := &pb.AppendRowsResponse{WriteStream: c.stream}
	offset, err := c.rows(in, out)
	if err != nil {
		out.Response = failed(err)
		return out
	}
	result := &pb.AppendRowsResponse_AppendResult{}
	if offset >= 0 {
		result.Offset = wrapperspb.Int64(offset)
	}
	out.Response = &pb.AppendRowsResponse_AppendResult_{AppendResult: result}
	return out
}

func (c *connection) rows(in *pb.AppendRowsRequest, out *pb.AppendRowsResponse) (offset int64, err error) {
	st, err := c.writeServer.stream(c.stream)
	if err != nil {
		return 0, err
	}
	data := in.GetProtoRows()
	if data == nil {
		return 0, status.Error(codes.InvalidArgument, "the request has no protocol buffer rows")
	}
	if c.layout == nil {
		l, err := newLayout(data.GetWriterSchema(), st.table)
		if err != nil {
			return 0, status.Error(codes.InvalidArgument, err.Error())
		}
		if name := extra(l.message, st.table.Columns, l.changes, ""); name != "" {
			return 0, refusal(codes.InvalidArgument, pb.StorageError_SCHEMA_MISMATCH_EXTRA_FIELDS, st.name, "Input schema has more fields than BigQuery schema, extra fields: %s", name)
		}
		c.layout = l
	}
	if c.layout.changes && (!st.standard || len(st.table.PrimaryKey) == 0) {
		return 0, status.Error(codes.InvalidArgument, changeType+" needs the default stream and a table with a primary key")
	}
	next := int64(len(st.rows))
	switch asked := in.GetOffset(); {
	case st.finalized:
		return 0, refusal(codes.InvalidArgument, pb.StorageError_STREAM_FINALIZED, st.name, "Stream has been finalized and cannot be appended. Entity: %s", st.name)
	case asked != nil && st.standard:
		return 0, status.Error(codes.InvalidArgument, "an offset is not allowed in the default stream")
	case asked != nil && asked.Value < next:
		return 0, refusal(codes.AlreadyExists, pb.StorageError_OFFSET_ALREADY_EXISTS, st.name, "The offset is within stream, expected offset %d, received %d", next, asked.Value)
	case asked != nil && asked.Value > next:
		return 0, refusal(codes.OutOfRange, pb.StorageError_OFFSET_OUT_OF_RANGE, st.name, "The offset is beyond stream, expected offset %d, received %d", next, asked.Value)
	}
	var fresh []decoded
	var size int64
	for i, row := range data.GetRows().GetSerializedRows() {
		size += int64(len(row))
		d, err := c.layout.decode(row, st.table)
		if err != nil {
			out.RowErrors = append(out.RowErrors, &pb.RowError{Index: int64(i), Code: pb.RowError_FIELDS_ERROR, Message: err.Error()})
			continue
		}
		fresh = append(fresh, d)
	}
	if len(out.RowErrors) > 0 {
		return 0, status.Errorf(codes.InvalidArgument, "Errors found while processing rows. Please refer to the row_errors field for details. The list may not be complete because of the size limitations. Entity: %s", st.name)
	}
	if c.bytes+size > c.opts.MaxBytes {
		return 0, status.Errorf(codes.ResourceExhausted, "more than %d bytes", c.opts.MaxBytes)
	}
	c.bytes += size
	if st.standard {
		st.table.apply(fresh)
		return -1, nil
	}
	st.rows = append(st.rows, fresh...)
	if st.kind == pb.WriteStream_COMMITTED {
		st.table.apply(fresh)
		st.flushed = int64(len(st.rows))
	}
	return next, nil
}

// FlushRows makes the rows up to an offset, and the one at it, visible.
func (s *writeServer) FlushRows(_ context.Context, in *pb.FlushRowsRequest) (*pb.FlushRowsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.stream(in.WriteStream)
	if err != nil {
		return nil, err
	}
	switch last := in.GetOffset(); {
	case st.kind != pb.WriteStream_BUFFERED:
		return nil, refusal(codes.InvalidArgument, pb.StorageError_INVALID_STREAM_TYPE, st.name, "only a BUFFERED stream is flushed. Entity: %s", st.name)
	case last == nil || last.Value < 0:
		return nil, status.Error(codes.InvalidArgument, "the offset is missing or negative")
	case last.Value >= int64(len(st.rows)):
		return nil, refusal(codes.OutOfRange, pb.StorageError_OFFSET_OUT_OF_RANGE, st.name, "The offset is beyond stream, it has %d rows, received %d", len(st.rows), last.Value)
	case last.Value >= st.flushed:
		st.table.apply(st.rows[st.flushed : last.Value+1])
		st.flushed = last.Value + 1
	}
	return &pb.FlushRowsResponse{Offset: in.GetOffset().GetValue()}, nil
}

// FinalizeWriteStream refuses later appends.
func (s *writeServer) FinalizeWriteStream(_ context.Context, in *pb.FinalizeWriteStreamRequest) (*pb.FinalizeWriteStreamResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.stream(in.Name)
	if err != nil {
		return nil, err
	}
	if st.standard {
		return nil, refusal(codes.InvalidArgument, pb.StorageError_INVALID_STREAM_TYPE, st.name, "the default stream is not finalized")
	}
	st.finalized = true
	return &pb.FinalizeWriteStreamResponse{RowCount: int64(len(st.rows))}, nil
}
