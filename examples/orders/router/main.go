// Command router runs the pipeline of examples/orders on a Watermill router built by hand, for
// programs that have one already. Nothing is hidden: a bucket, the pipeline's store in it, a source, a
// subscriber, a sink, a handler.
//
//	go run ./examples/orders/router examples/orders/orders.ndjson /tmp/orders-state /tmp/orders-out
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/checkpoint"
	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/consumers/file"
	"github.com/millstream/millstream/examples/orders/pipeline"
	"github.com/millstream/millstream/sinks/blob"
	"github.com/millstream/millstream/stream"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: router FILE STATE-FOLDER OUTPUT-FOLDER")
		os.Exit(2)
	}
	// A cancelled context drains: reading stops, what is under way is saved and committed.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, input, state, output string) error {
	p := pipeline.Totals()
	p.OutOfOrder = stream.Unbounded // the file is read to its end: nothing is late

	out, err := bucket.Open(ctx, output)
	if err != nil {
		return err
	}
	defer out.Close()
	sink, err := blob.New(out, "")
	if err != nil {
		return err
	}
	letters, err := blob.New(out, "dead-letter/")
	if err != nil {
		return err
	}
	p.Sinks, p.DeadLetter = []stream.Sink{sink}, letters

	src, err := file.New(file.Options{Path: input, UntilEnd: true})
	if err != nil {
		return err
	}
	defer src.Close()

	logs, err := bucket.Open(ctx, state)
	if err != nil {
		return err
	}
	defer logs.Close()
	plan := append(stream.Plan{{Name: "source", Value: src.Identity()}}, p.Plan()...)
	store, err := checkpoint.Open(ctx, checkpoint.Config{Bucket: logs, Name: p.Name, Plan: plan})
	if err != nil {
		return err
	}

	sub, err := consumers.New(consumers.Config{Source: src, Group: store.Group()})
	if err != nil {
		return err
	}
	// CloseTimeout is how long a drain may take. Which middlewares are safe is in package consumers.
	// The router would call the end of the file an error; what matters the engine says, through slog.
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 100 * time.Second}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	router.AddConsumerHandler(p.Name, input, sub.Batches(), p.Handle)
	if err := errors.Join(router.Run(ctx), sub.Err()); err != nil && !errors.Is(err, stream.ErrFinished) {
		return err
	}
	ledger, err := store.Ledger(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	slog.Info("ledger", "records_in", ledger.RecordsIn, "contributed", ledger.Contributed, "filtered", ledger.Filtered,
		"late", ledger.Late, "dead_lettered", ledger.DeadLettered, "rows_out", ledger.RowsOut)
	return nil
}
