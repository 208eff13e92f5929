package pubsub

import (
	"context"
	"log/slog"
	"testing"

	"google.golang.org/grpc"

	"github.com/millstream/millstream/sinks/sinktest"
	"github.com/millstream/millstream/stream"
)

func TestSuite(t *testing.T) {
	for _, c := range sinktest.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			inBubble(t, func(b *bed) {
				err := c.Holds(b.Context(), &sinktest.Destination{
					Promise: sinktest.AtLeastOnceByID, Name: "topic " + topic,
					Open: func(hook sinktest.Hook) (stream.Sink, error) {
						wire := new(sinktest.Wire)
						client := b.dial(grpc.WithUnaryInterceptor(func(ctx context.Context, method string, in, out any, c *grpc.ClientConn, invoke grpc.UnaryInvoker, o ...grpc.CallOption) error {
							return wire.Call(ctx, func(ctx context.Context) error { return invoke(ctx, method, in, out, c, o...) })
						}))
						b.Cleanup(func() { client.Close() })
						s, err := New(b.Context(), Options{Project: "p", Topic: "rows", Client: client, Logger: slog.New(slog.DiscardHandler)})
						wire.Begin(hook)
						return s, err
					},
					Seen: func(context.Context) ([][]byte, error) {
						messages := b.fake.Messages()
						rows := make([][]byte, len(messages))
						for i := range messages {
							rows[i] = messages[i].Data
						}
						return rows, nil
					},
				})
				if err != nil {
					b.Error(err)
				}
			})
		})
	}
}
