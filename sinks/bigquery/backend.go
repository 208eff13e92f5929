package bigquery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	storage "cloud.google.com/go/bigquery/storage/apiv1"
	pb "cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"github.com/googleapis/gax-go/v2"
	api "google.golang.org/api/bigquery/v2"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Limits of the Storage Write API, see https://cloud.google.com/bigquery/quotas#write-api-limits.
const (
	maxRequest      = 10_000_000
	requestOverhead = 4096 // names, offset and framing of a request
	// packRequest is where a request is full unless one row is larger.
	packRequest = 8 << 20
)

// backend is what the package asks of BigQuery. It does each call once: who calls decides about a second
// attempt. Safe for concurrent use.
type backend interface {
	// table describes a table, by its full name.
	table(ctx context.Context, name string) (*api.Table, error)
	// create makes a buffered stream into a table.
	create(ctx context.Context, table string) (stream string, err error)
	// append sends one request and returns its answer, which may say that it was refused. An error leaves
	// open whether it was done.
	append(ctx context.Context, r request) (*pb.AppendRowsResponse, error)
	flush(ctx context.Context, stream string, last int64) error
	// drop forgets what is kept for a stream that is not used any more.
	drop(stream string)
	close() error
}

// request is one AppendRows request.
type request struct {
	stream string
	plan   *plan
	offset int64 // of its first row; -1: at the end, wherever that is
	rows   [][]byte
}

// cloud is the service, or a server that stands in for it.
type cloud struct {
	tables *api.Service
	write  *storage.BigQueryWriteClient

	mu     sync.Mutex
	conns  map[string]*connection // by stream
	closed bool
}

// dial makes the clients. It makes no call but looks for credentials.
func dial(ctx context.Context, endpoint string) (*cloud, error) {
	var rest, write []option.ClientOption
	if endpoint != "" {
		if _, bare, found := strings.Cut(endpoint, "://"); found {
			endpoint = bare
		}
		endpoint = strings.TrimSuffix(endpoint, "/")
		host, port, err := net.SplitHostPort(endpoint)
		if err != nil || host == "" || port == "" || strings.ContainsAny(endpoint, " /") {
			return nil, fmt.Errorf("endpoint %q: want an address such as 127.0.0.1:9050", endpoint)
		}
		rest = []option.ClientOption{option.WithEndpoint("http://" + endpoint + "/bigquery/v2/"), option.WithoutAuthentication(), option.WithTelemetryDisabled()}
		write = []option.ClientOption{option.WithEndpoint(endpoint), option.WithoutAuthentication(), option.WithTelemetryDisabled(),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials()))}
	}
	tables, err := api.NewService(ctx, rest...)
	if err != nil {
		return nil, explain(err)
	}
	client, err := storage.NewBigQueryWriteClient(ctx, write...)
	if err != nil {
		return nil, explain(err)
	}
	return &cloud{tables: tables, write: client, conns: make(map[string]*connection)}, nil
}

// once switches the client's own retries of a call off, which nobody sees and nobody counts.
func once() gax.CallOption { return gax.WithRetry(func() gax.Retryer { return nil }) }

func (c *cloud) table(ctx context.Context, name string) (*api.Table, error) {
	p := strings.Split(name, "/")
	return c.tables.Tables.Get(p[1], p[3], p[5]).Context(ctx).Do()
}

func (c *cloud) create(ctx context.Context, table string) (string, error) {
	out, err := c.write.CreateWriteStream(ctx, &pb.CreateWriteStreamRequest{Parent: table, WriteStream: &pb.WriteStream{Type: pb.WriteStream_BUFFERED}}, once())
	if err != nil {
		return "", err
	}
	return out.Name, nil
}

func (c *cloud) flush(ctx context.Context, stream string, last int64) error {
	_, err := c.write.FlushRows(ctx, &pb.FlushRowsRequest{WriteStream: stream, Offset: wrapperspb.Int64(last)}, once())
	return err
}

// connection is the bidirectional call on which a stream's requests are answered in their order, one at a
// time.
type connection struct {
	turn chan struct{}

	// Guarded by turn.
	api    pb.BigQueryWrite_AppendRowsClient
	plan   *plan // what the connection is told
	told   bool  // and has understood: an answer to it was no refusal
	ctx    context.Context
	cancel context.CancelFunc
	used   time.Time
}

// idle is when the service closes a connection that nothing is sent on, less a margin.
const idle = 9 * time.Minute

func (c *cloud) connection(stream string) (*connection, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed
	}
	conn := c.conns[stream]
	if conn == nil {
		conn = &connection{turn: make(chan struct{}, 1)}
		c.conns[stream] = conn
	}
	return conn, nil
}

func (c *cloud) append(ctx context.Context, r request) (*pb.AppendRowsResponse, error) {
	conn, err := c.connection(r.stream)
	if err != nil {
		return nil, err
	}
	select {
	case conn.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if conn.api != nil && (conn.plan != r.plan || time.Since(conn.used) > idle) {
		conn.end()
	}
	if conn.cancel == nil {
		// It outlives the caller, and ends when an answer is late.
		conn.ctx, conn.cancel = context.WithCancel(metadata.AppendToOutgoingContext(context.Background(),
			"x-goog-request-params", "write_stream="+url.QueryEscape(r.stream)))
	}
	cancel := conn.cancel
	type answer struct {
		out *pb.AppendRowsResponse
		err error
	}
	answered := make(chan answer, 1)
	go func() {
		out, err := conn.exchange(c.write, r)
		if err != nil {
			conn.end()
		}
		<-conn.turn
		answered <- answer{out, err}
	}()
	select {
	case a := <-answered:
		return a.out, a.err
	case <-ctx.Done():
		cancel()
		return nil, ctx.Err()
	}
}

// exchange sends a request and reads its answer. The caller has the turn.
func (conn *connection) exchange(client *storage.BigQueryWriteClient, r request) (*pb.AppendRowsResponse, error) {
	data := &pb.AppendRowsRequest_ProtoData{Rows: &pb.ProtoRows{SerializedRows: r.rows}}
	in := &pb.AppendRowsRequest{Rows: &pb.AppendRowsRequest_ProtoRows{ProtoRows: data}}
	if r.offset >= 0 {
		in.Offset = wrapperspb.Int64(r.offset)
	}
	if conn.api == nil {
		opened, err := client.AppendRows(conn.ctx)
		if err != nil {
			return nil, err
		}
		conn.api, conn.plan, conn.told = opened, r.plan, false
	}
	if !conn.told {
		in.WriteStream, in.TraceId, data.WriterSchema = r.stream, "millstream", r.plan.schema
	}
	if err := conn.api.Send(in); err != nil && !errors.Is(err, io.EOF) { // after io.EOF, Recv has the reason
		return nil, err
	}
	out, err := conn.api.Recv()
	if errors.Is(err, io.EOF) {
		return nil, errEnded
	}
	conn.used = time.Now()
	conn.told = conn.told || out.GetAppendResult() != nil
	return out, err
}

var (
	errEnded  = errors.New("the service ended the connection")
	errClosed = errors.New("the sink is closed")
)

// end hangs up. The caller has the turn.
func (conn *connection) end() {
	if conn.cancel != nil {
		conn.cancel()
	}
	conn.api, conn.cancel = nil, nil
}

func (c *cloud) drop(stream string) {
	c.mu.Lock()
	conn := c.conns[stream]
	delete(c.conns, stream)
	c.mu.Unlock()
	if conn != nil {
		go conn.hangUp() // when an answer that is awaited has come, or its caller has given up
	}
}

func (conn *connection) hangUp() {
	conn.turn <- struct{}{}
	conn.end()
	<-conn.turn
}

func (c *cloud) close() error {
	c.mu.Lock()
	c.closed = true
	conns := c.conns
	c.conns = nil
	c.mu.Unlock()
	for _, conn := range conns {
		go conn.hangUp()
	}
	return c.write.Close()
}
