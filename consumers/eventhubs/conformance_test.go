package eventhubs

import (
	"log/slog"
	"testing"
	"time"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/consumers/consumertest"
)

// The conformance suite over the hub in memory, in real time, so that it also runs where there is no
// node; the integration tests run it over AMQP.
func TestConformance(t *testing.T) {
	consumertest.Run(t, func(t *testing.T) *consumertest.Stream {
		m := newMemory(2)
		source := func(o Options) (*Source, error) {
			o.CheckEvery, o.Logger = 20*time.Millisecond, slog.New(slog.DiscardHandler)
			return m.try(t, o)
		}
		src, err := source(Options{})
		if err != nil {
			t.Fatal(err)
		}
		return &consumertest.Stream{
			Source: src,
			Publish: func(partition string, data ...[]byte) error {
				m.publish(partition, data...)
				return nil
			},
			Again:      func() (consumers.Source, error) { return source(Options{}) },
			Bounded:    func() (consumers.Source, error) { return source(Options{UntilEnd: true}) },
			Disconnect: func() error { m.breakLinks(errLost); return nil },
			Throttle: func(on bool) error {
				if !on {
					m.refuse(nil, nil)
					return nil
				}
				m.refuse(errBusy, errBusy)
				m.breakLinks(errBusy)
				return nil
			},
			Missing: "99",
		}
	})
}
