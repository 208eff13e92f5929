//go:build integration

package eventhubs

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	fake "github.com/millstream/millstream/fakes/eventhubs"
	"github.com/millstream/millstream/stream"
)

// BenchmarkDrain reads a partition of 250-byte events with the driver, and with nothing but the SDK's
// partition client as its documentation has it: processor time of this process an event, the service
// being another one.
func BenchmarkDrain(b *testing.B) {
	server, err := fake.Start(b.Context(), fake.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	const events = 200_000
	if err := server.CreateHub("orders", 1); err != nil {
		b.Fatal(err)
	}
	if err := server.Fill("orders", "0", events, fmt.Appendf(nil, `{"id":%0242d}`, 7)); err != nil {
		b.Fatal(err)
	}
	b.Run("driver", func(b *testing.B) {
		src, err := New(b.Context(), Options{Namespace: "local", Hub: "orders", Endpoint: server.Endpoint(), Logger: quietLog})
		if err != nil {
			b.Fatal(err)
		}
		defer src.Close()
		drained(b, events, func() {
			r, err := src.OpenClaimed(b.Context(), "0", stream.Position{}, "", 1)
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			for n := 0; n < events; {
				f, err := r.Read(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				n += len(f.Records)
			}
		})
	})
	for _, prefetch := range []int32{0, -1} {
		b.Run(fmt.Sprint("SDK/prefetch=", prefetch), func(b *testing.B) {
			client, err := azeventhubs.NewConsumerClientFromConnectionString(server.ConnectionString(), "orders", azeventhubs.DefaultConsumerGroup, nil)
			if err != nil {
				b.Fatal(err)
			}
			defer client.Close(context.Background())
			drained(b, events, func() {
				p, err := client.NewPartitionClient("0", &azeventhubs.PartitionClientOptions{StartPosition: azeventhubs.StartPosition{Earliest: to.Ptr(true)}, Prefetch: prefetch})
				if err != nil {
					b.Fatal(err)
				}
				defer p.Close(context.Background())
				for n := 0; n < events; {
					ctx, cancel := context.WithTimeout(b.Context(), time.Second)
					got, err := p.ReceiveEvents(ctx, 1000, nil)
					if cancel(); err != nil {
						b.Fatal(err)
					}
					n += len(got)
				}
			})
		})
	}
}

func drained(b *testing.B, events int, drain func()) {
	before := processor(b)
	for b.Loop() {
		drain()
	}
	b.ReportMetric(float64(processor(b)-before)/float64(b.N*events), "cpu-ns/event")
	b.ReportMetric(float64(b.Elapsed())/float64(b.N*events), "ns/event")
}

// processor is the time that this process has computed for.
func processor(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
