package kinesis

import (
	"bytes"
	"log/slog"
	"testing"

	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"

	cloud "github.com/millstream/millstream/cloud/aws"
	fake "github.com/millstream/millstream/fakes/kinesis"
	"github.com/millstream/millstream/stream"
)

// BenchmarkRead is what a record of 250 bytes costs from the socket to the fetch, the fake's share of
// the work included: plain records, and aggregates of 100.
func BenchmarkRead(b *testing.B) {
	for _, packed := range []int{1, 100} {
		b.Run(map[int]string{1: "plain", 100: "aggregated"}[packed], func(b *testing.B) {
			server := fake.New(fake.Options{})
			defer server.Close()
			endpoint, err := server.Start()
			if err != nil {
				b.Fatal(err)
			}
			const records = 200_000
			if err := server.CreateStream("s", 1); err != nil {
				b.Fatal(err)
			}
			data := bytes.Repeat([]byte("x"), 250)
			if packed > 1 {
				us := make([]fake.UserRecord, packed)
				for i := range us {
					us[i] = fake.UserRecord{PartitionKey: string(rune('a' + i%20)), Data: data}
				}
				data = fake.Aggregate(us)
			}
			for range records / packed {
				if _, _, err := server.Put("s", "k", data); err != nil {
					b.Fatal(err)
				}
			}
			config, err := cloud.Load(b.Context(), cloud.Options{Endpoint: endpoint})
			if err != nil {
				b.Fatal(err)
			}
			s, err := New(b.Context(), Options{Stream: "s", Client: awskinesis.NewFromConfig(config), Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for done := 0; done < b.N; {
				r, err := s.Open(b.Context(), shard0, stream.Position{}, "")
				if err != nil {
					b.Fatal(err)
				}
				for got := 0; got < records && done < b.N; {
					f, err := r.Read(b.Context())
					if err != nil {
						b.Fatal(err)
					}
					got += len(f.Records)
					done += len(f.Records)
				}
			}
			b.SetBytes(250)
		})
	}
}
