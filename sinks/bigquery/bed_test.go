package bigquery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	pb "cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	api "google.golang.org/api/bigquery/v2"

	fake "github.com/millstream/millstream/fakes/bigquery"
	"github.com/millstream/millstream/sinks/sinktest"
	"github.com/millstream/millstream/stream"
)

// wired is a backend whose calls pass through a Wire.
type wired struct {
	backend
	wire *sinktest.Wire
}

func (w *wired) create(ctx context.Context, table string) (name string, err error) {
	err = w.wire.Call(ctx, func(ctx context.Context) error {
		made, err := w.backend.create(ctx, table)
		if err == nil {
			name = made
		}
		return err
	})
	return name, err
}

func (w *wired) append(ctx context.Context, r request) (*pb.AppendRowsResponse, error) {
	type answer struct{ out *pb.AppendRowsResponse }
	answered := make(chan answer, 1)
	err := w.wire.Call(ctx, func(ctx context.Context) error {
		out, err := w.backend.append(ctx, r)
		answered <- answer{out}
		return err
	})
	if err != nil {
		return nil, err
	}
	return (<-answered).out, nil
}

func (w *wired) flush(ctx context.Context, stream string, last int64) error {
	return w.wire.Call(ctx, func(ctx context.Context) error { return w.backend.flush(ctx, stream, last) })
}

func (w *wired) table(ctx context.Context, name string) (*api.Table, error) {
	return w.backend.table(ctx, name)
}

// suiteTable takes what the suite delivers.
var suiteTable = fake.Table{Name: "p.d.rows", Columns: []fake.Column{
	{Name: "row", Type: "STRING", Mode: "REQUIRED"}, {Name: "n", Type: "INT64"}, {Name: "pad", Type: "STRING"},
}}

func serve(t testing.TB, tables ...fake.Table) *fake.Server {
	t.Helper()
	server := fake.New(fake.Options{})
	t.Cleanup(server.Close)
	if _, err := server.Start(); err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		if err := server.CreateTable(table); err != nil {
			t.Fatal(err)
		}
	}
	return server
}

// openSink makes a sink that waits for nothing between attempts, and whose calls pass through wire unless it
// is nil.
func openSink(t testing.TB, server *fake.Server, o Options, wire *sinktest.Wire) (Sink, error) {
	t.Helper()
	if o.Table == "" {
		o.Project, o.Dataset, o.Table = "p", "d", "rows"
	}
	o.Endpoint, o.Logger = server.Address(), slog.New(slog.DiscardHandler)
	if o.Deadline == 0 {
		o.Deadline = 20 * time.Second
	}
	service, err := dial(t.Context(), o.Endpoint)
	if err != nil {
		return nil, err
	}
	var b backend = service
	if wire != nil {
		b = &wired{service, wire}
	}
	s, err := newSink(t.Context(), o, b)
	if err != nil {
		return nil, errors.Join(err, service.close())
	}
	t.Cleanup(func() { _ = s.Close() }) // a test may have closed it
	atOnce := func(ctx context.Context, _ int) error { return ctx.Err() }
	switch s := s.(type) {
	case *Stager:
		s.pause = atOnce
	case *Upserter:
		s.pause = atOnce
	}
	return s, nil
}

func mustOpen(t testing.TB, server *fake.Server, o Options) Sink {
	t.Helper()
	s, err := openSink(t, server, o, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// seen returns the suite's rows as they were delivered.
func seen(server *fake.Server) ([][]byte, error) {
	rows, err := server.Rows("p.d.rows")
	if err != nil {
		return nil, err
	}
	out := make([][]byte, len(rows))
	for i, r := range rows {
		label, err := json.Marshal(r["row"])
		if err != nil {
			return nil, err
		}
		out[i] = fmt.Appendf(nil, `{"row":%s`, label)
		if n, ok := r["n"]; ok {
			out[i] = fmt.Appendf(out[i], `,"n":%d`, n)
		}
		if pad, ok := r["pad"]; ok {
			out[i] = fmt.Appendf(out[i], `,"pad":"%s"`, pad)
		}
		out[i] = append(out[i], '}')
	}
	return out, nil
}

func destination(t *testing.T, table fake.Table, r rules) *sinktest.Destination {
	server := serve(t, table)
	return &sinktest.Destination{
		Promise: sinktest.ExactlyOnce, Name: "p.d.rows",
		Open: func(hook sinktest.Hook) (stream.Sink, error) {
			wire := new(sinktest.Wire)
			s, err := openSink(t, server, Options{}, wire)
			if stager, ok := s.(*Stager); ok {
				stager.rules = r
			}
			wire.Begin(hook)
			return s, err
		},
		Seen: func(context.Context) ([][]byte, error) { return seen(server) },
	}
}

// The suite holds for rows that are appended.
func TestSuiteAppend(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, func(t *testing.T) *sinktest.Destination { return destination(t, suiteTable, rules{}) })
}

// And for rows that are upserted: each is its own key.
func TestSuiteUpsert(t *testing.T) {
	t.Parallel()
	keyed := suiteTable
	keyed.PrimaryKey = []string{"row"}
	sinktest.Run(t, func(t *testing.T) *sinktest.Destination {
		d := destination(t, keyed, rules{})
		server := serve(t, keyed)
		d.Open = func(hook sinktest.Hook) (stream.Sink, error) {
			wire := new(sinktest.Wire)
			s, err := openSink(t, server, Options{Write: Upsert}, wire)
			wire.Begin(hook)
			return s, err
		}
		d.Seen = func(context.Context) ([][]byte, error) { return seen(server) }
		return d
	})
}
