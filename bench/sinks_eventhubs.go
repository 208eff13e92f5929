package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/millstream/millstream/fakes/eventhubs"
	sink "github.com/millstream/millstream/sinks/eventhubs"
)

// eventhubsSink delivers rows to an event hub, without the engine, in the parts in which the engine does.
func eventhubsSink(ctx context.Context, p sinkPlan) (r *sinkResult, err error) {
	r = &sinkResult{Sink: p.Sink, Unit: "event", Price: "$0.028 a million ingress events (https://azure.microsoft.com/pricing/details/event-hubs/)"}
	if _, _, err := eventhubs.Runtime(ctx); err != nil {
		r.Result = fmt.Sprintf("%v: %v", errAbsent, err)
		return r, nil
	}
	server, err := eventhubs.Start(ctx, eventhubs.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	const partitions = 4
	if err := server.CreateHub("rows", partitions); err != nil {
		return nil, err
	}
	to, err := sink.New(ctx, sink.Options{Namespace: "local", Hub: "rows", Endpoint: server.Endpoint(), Logger: quiet})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	rows := min(p.Rows, liveRows)
	if err := deliverRows(ctx, p, rows, to); err != nil {
		return nil, err
	}
	events, million := 0, 1e6/float64(rows)
	for i := range partitions {
		got, err := server.Events("rows", strconv.Itoa(i))
		if err != nil {
			return nil, err
		}
		for _, e := range got {
			r.Bytes += float64(len(e.Data)) * million
		}
		events += len(got)
	}
	if events != rows {
		return nil, fmt.Errorf("%d rows came of %d", events, rows)
	}
	r.Calls, r.Units, r.Result = float64(to.Counters().Requests)*million, float64(events)*million, "exact"
	r.Dollars = r.Units * 0.028 / 1e6
	return r, nil
}
