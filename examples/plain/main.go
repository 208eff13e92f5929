// Command plain is a Watermill router on a Kinesis stream, one record a message, for programs that want
// a subscriber and no pipeline. Positions are checkpointed in a folder or bucket; several processes with
// the same one share the shards, and reshards are followed.
//
//	go run ./examples/plain STREAM STATE [ENDPOINT]
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/checkpoint"
	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/consumers/kinesis"
	"github.com/millstream/millstream/stream"
)

func main() {
	if len(os.Args) < 3 || len(os.Args) > 4 {
		fmt.Fprintln(os.Stderr, "usage: plain STREAM STATE [ENDPOINT]")
		os.Exit(2)
	}
	o := kinesis.Options{}
	if len(os.Args) == 4 {
		o.Region, o.Endpoint = "us-east-1", os.Args[3]
	}
	// A cancelled context drains: what is acked is saved, and the shards are released.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	err := run(ctx, o, os.Args[1], os.Args[2], func(m *message.Message) error {
		_, err := fmt.Println(string(m.Payload)) // an error would bring the message again
		return err
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o kinesis.Options, name, state string, handle message.NoPublishHandlerFunc) error {
	b, err := bucket.Open(ctx, state)
	if err != nil {
		return err
	}
	defer b.Close()
	store, err := checkpoint.Open(ctx, checkpoint.Config{Bucket: b, Name: "plain",
		Plan: stream.Plan{{Name: "stream", Value: name}}}) // what the saved positions belong to
	if err != nil {
		return err
	}
	sub, err := kinesis.NewSubscriber(o, consumers.Config{Group: store.Group()})
	if err != nil {
		return err
	}
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	router.AddConsumerHandler("print", name, sub, handle)
	return router.Run(ctx)
}
