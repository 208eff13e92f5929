//go:build unix && !race

package pubsub_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	gcp "cloud.google.com/go/pubsub/v2"
	apiv1 "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/millstream/millstream/fakes/pubsub"
)

const (
	speedMessages = 400_000
	speedTopic    = "projects/p/topics/speed"
	speedName     = "projects/p/subscriptions/speed"
)

// filled returns a server with speedMessages messages of 254 bytes in one subscription.
func filled(t testing.TB) (server *pubsub.Server, address string) {
	t.Helper()
	server = pubsub.New(pubsub.Options{})
	t.Cleanup(server.Close)
	address, err := server.Start()
	must(t, err)
	must(t, server.CreateTopic(speedTopic))
	must(t, server.CreateSubscription(&pubsubpb.Subscription{Name: speedName, Topic: speedTopic}))
	fill(t, server, speedMessages)
	return server, address
}

func fill(t testing.TB, server *pubsub.Server, n int) {
	t.Helper()
	messages := make([]pubsub.Message, 1000)
	for i := range messages {
		messages[i].Data = bytes.Repeat([]byte("x"), 254)
	}
	for range n / len(messages) {
		_, err := server.Publish(speedTopic, messages...)
		must(t, err)
	}
}

// raw is a codec that leaves bytes as they are.
type raw struct{ encoding.CodecV2 }

func (r raw) Unmarshal(data mem.BufferSlice, v any) error {
	if b, ok := v.(*[]byte); ok {
		*b = data.Materialize()
		return nil
	}
	return r.CodecV2.Unmarshal(data, v)
}

// drain reads n messages over streams that decode nothing but ack ids, and acknowledges them on the
// same stream: what the server alone costs, gRPC included.
func drain(t testing.TB, address string, n, streams int) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var left atomic.Int64
	left.Store(int64(n))
	all := make(chan struct{}) // closed when all have come
	var running sync.WaitGroup
	for range streams {
		running.Go(func() {
			conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{encoding.GetCodecV2("proto")})),
				grpc.WithInitialWindowSize(1<<20), grpc.WithInitialConnWindowSize(4<<20))
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/google.pubsub.v1.Subscriber/StreamingPull")
			if err == nil {
				err = stream.SendMsg(&pubsubpb.StreamingPullRequest{Subscription: speedName, StreamAckDeadlineSeconds: 60})
			}
			if err != nil {
				t.Error(err)
				return
			}
			var sending sync.Mutex
			running.Go(func() {
				select {
				case <-all:
				case <-ctx.Done():
				}
				sending.Lock()
				defer sending.Unlock()
				stream.CloseSend() // the server ends the stream when it has read what came before
			})
			for {
				var in []byte
				if err := stream.RecvMsg(&in); err != nil {
					if !errors.Is(err, io.EOF) {
						t.Error(err)
					}
					return
				}
				acks := &pubsubpb.StreamingPullRequest{AckIds: ackIDs(in)}
				sending.Lock()
				err := stream.SendMsg(acks)
				sending.Unlock()
				if err != nil {
					t.Error(err)
					return
				}
				if n := int64(len(acks.AckIds)); n > 0 && left.Add(-n) == 0 {
					close(all)
				}
			}
		})
	}
	running.Wait()
	if n := left.Load(); n != 0 {
		t.Errorf("%d messages have not come", n)
	}
}

// ackIDs finds the ack ids of a StreamingPullResponse.
func ackIDs(b []byte) (ids []string) {
	for len(b) > 0 {
		number, _, n := protowire.ConsumeTag(b)
		value, m := protowire.ConsumeBytes(b[n:])
		b = b[n+m:]
		if number != 1 {
			continue
		}
		_, _, n = protowire.ConsumeTag(value)
		id, _ := protowire.ConsumeString(value[n:])
		ids = append(ids, id)
	}
	return ids
}

// client drains with the generated client and batched Acknowledge calls, what a program does that goes
// below the SDK's Subscriber.
func client(t testing.TB, address string, n int) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	c, err := apiv1.NewSubscriptionAdminClient(ctx, option.WithEndpoint(address), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	must(t, err)
	defer c.Close()
	stream, err := c.StreamingPull(ctx)
	must(t, err)
	must(t, stream.Send(&pubsubpb.StreamingPullRequest{Subscription: speedName, StreamAckDeadlineSeconds: 60}))
	for n > 0 {
		in, err := stream.Recv()
		must(t, err)
		ids := make([]string, len(in.ReceivedMessages))
		for i, m := range in.ReceivedMessages {
			ids[i] = m.AckId
		}
		must(t, c.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: speedName, AckIds: ids}))
		n -= len(ids)
	}
	must(t, stream.CloseSend())
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("in place of the end: %v", err)
	}
}

// receive drains with the SDK's Subscriber and an empty handler.
func receive(t testing.TB, address string, n int) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	c, err := gcp.NewClient(ctx, "p", option.WithEndpoint(address), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	must(t, err)
	defer c.Close()
	var got atomic.Int64
	subscriber := c.Subscriber("speed")
	subscriber.ReceiveSettings.MaxOutstandingMessages = 100_000
	must(t, subscriber.Receive(ctx, func(_ context.Context, m *gcp.Message) {
		m.Ack()
		if got.Add(1) == int64(n) {
			stop()
		}
	}))
}

// TestSpeed reports the rates and fails when one is far below what it should be. It judges by
// processor time, of client and server together, so that a busy machine passes and a lock or a copy a
// message does not.
func TestSpeed(t *testing.T) {
	server, address := filled(t)
	rate := func(name string, n int, floor float64, run func()) {
		t.Helper()
		began, used := time.Now(), cpuTime(t)
		run()
		perSecond := float64(n) / time.Since(began).Seconds()
		perCore := float64(n) / (cpuTime(t) - used).Seconds()
		t.Logf("%s: %.0f messages/s, %.0f a core-second", name, perSecond, perCore)
		if perCore < floor {
			t.Errorf("%s: %.0f messages a core-second, want %.0f or more", name, perCore, floor)
		}
	}
	rate("StreamingPull and acks, nothing decoded", speedMessages, 200_000, func() { drain(t, address, speedMessages, 2) })
	settle(t, server)
	rate("Publish", speedMessages, 400_000, func() { fill(t, server, speedMessages) })
	rate("StreamingPull and Acknowledge, generated client", speedMessages, 100_000, func() { client(t, address, speedMessages) })
	settle(t, server)
}

// settle waits until the subscription is empty, and wants all memory let go.
func settle(t testing.TB, server *pubsub.Server) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	must(t, server.Wait(ctx, speedName, func(s pubsub.Stats) bool { return s.Backlog+s.Outstanding == 0 }))
	if n := server.Bytes(); n != 0 {
		t.Errorf("%d bytes are held for an empty subscription", n)
	}
}

// cpuTime is what this process has used, user and system.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	must(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkStreamingPull(b *testing.B) {
	for name, run := range map[string]func(b *testing.B, address string){
		"wire":   func(b *testing.B, address string) { drain(b, address, speedMessages, 2) },
		"client": func(b *testing.B, address string) { client(b, address, speedMessages) },
		"sdk":    func(b *testing.B, address string) { receive(b, address, speedMessages) },
	} {
		b.Run(name, func(b *testing.B) {
			server, address := filled(b)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if n > 0 {
					b.StopTimer()
					settle(b, server)
					fill(b, server, speedMessages)
					b.StartTimer()
				}
				run(b, address)
				n += speedMessages
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}
