package pubsub

import (
	"bytes"
	"testing"

	fake "github.com/millstream/millstream/fakes/pubsub"
)

// BenchmarkDrain reads and acknowledges messages of 254 bytes, with each client, from a server in the same
// process, which costs about as much as the own client.
func BenchmarkDrain(b *testing.B) {
	for name, sdk := range map[string]bool{"own": false, "sdk": true} {
		b.Run(name, func(b *testing.B) {
			s := newService(b)
			endpoint, err := s.Start()
			s.must(err)
			o := s.options()
			o.SDK, o.Endpoint, o.ClientOptions, o.Streams = sdk, endpoint, nil, 4
			src, err := New(b.Context(), o)
			s.must(err)
			messages := make([]fake.Message, b.N)
			for i := range messages {
				messages[i].Data = bytes.Repeat([]byte("x"), 254)
			}
			_, err = s.Publish(topic, messages...)
			s.must(err)
			b.ReportAllocs()
			b.ResetTimer()
			r := s.open(src, "orders")
			for n := 0; n < b.N; {
				f, err := r.Read(b.Context())
				s.must(err)
				n += len(f.Records)
				if f.Settle != nil {
					f.Settle(0, len(f.Records), nil)
				}
			}
			s.wait("acks", func(st fake.Stats) bool { return st.Acked >= int64(b.N) })
			b.StopTimer()
			s.must(r.Close())
			s.must(src.Close())
		})
	}
}
