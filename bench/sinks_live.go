package main

import (
	"context"
	"errors"
	"strconv"

	"github.com/millstream/millstream/fakes/bigquery"
	sink "github.com/millstream/millstream/sinks/bigquery"
	"github.com/millstream/millstream/stream"
)

const (
	// liveRows is how many rows a service gets at most that is not driven in virtual time.
	liveRows = 100_000
	// partSize is how much of an entry's output the engine delivers at once.
	partSize = 4 << 20
)

// deliverRows hands rows to a sink without the engine, in the parts in which the engine does.
func deliverRows(ctx context.Context, p sinkPlan, rows int, to stream.Sink) error {
	for at, number := 0, uint64(1); at < rows; number++ {
		var part []stream.Row
		for size := 0; at < rows && size < partSize; at++ {
			key := strconv.Itoa(at % 997)
			part = append(part, stream.Row{Key: key, Data: rowOf(p.Size, key, at)})
			size += p.Size
		}
		id := stream.CheckpointID{Pipeline: "sinks", Genesis: "bench", Partition: "p", Number: number}
		stager, ok := to.(stream.Stager)
		if !ok {
			if err := to.Deliver(ctx, id, part); err != nil {
				return err
			}
			continue
		}
		token, err := stager.Stage(ctx, id, part)
		if err == nil {
			err = stager.Commit(ctx, token)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bigquerySink appends rows to a table, or upserts them by their number.
func bigquerySink(mode sink.Mode) func(context.Context, sinkPlan) (*sinkResult, error) {
	return func(ctx context.Context, p sinkPlan) (r *sinkResult, err error) {
		server := bigquery.New(bigquery.Options{})
		defer server.Close()
		address, err := server.Start()
		if err != nil {
			return nil, err
		}
		table := bigquery.Table{Name: "p.d.rows", Columns: []bigquery.Column{
			{Name: "key", Type: "STRING"}, {Name: "n", Type: "INT64", Mode: "REQUIRED"}, {Name: "pad", Type: "STRING"}}}
		if mode == sink.Upsert {
			table.PrimaryKey = []string{"n"}
		}
		if err := server.CreateTable(table); err != nil {
			return nil, err
		}
		to, err := sink.New(ctx, sink.Options{Project: "p", Dataset: "d", Table: "rows", Write: mode, Endpoint: address, Logger: quiet})
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, to.Close()) }()
		rows := min(p.Rows, liveRows)
		if err := deliverRows(ctx, p, rows, to); err != nil {
			return nil, err
		}
		there, err := server.Rows(table.Name)
		if err != nil {
			return nil, err
		}
		c, million := to.Counters(), 1e6/float64(rows)
		r = &sinkResult{Sink: p.Sink, Calls: float64(c.Requests+c.Flushes) * million, Bytes: float64(c.Bytes) * million, Unit: "GB",
			Price: "$0.025 a GB (https://cloud.google.com/bigquery/pricing)", Result: "exact"}
		if len(there) != rows {
			return r, errors.New(strconv.Itoa(len(there)) + " rows are there")
		}
		r.Units = r.Bytes / 1e9
		r.Dollars = r.Units * 0.025
		return r, nil
	}
}
