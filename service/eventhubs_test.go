package service_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/consumers/consumertest"
	"github.com/millstream/millstream/service"
	"github.com/millstream/millstream/stream"
)

// settings are those of a command line.
func settings(t *testing.T, args ...string) *service.QuerySettings {
	t.Helper()
	s := &service.QuerySettings{}
	f := pflag.NewFlagSet("run", pflag.ContinueOnError)
	s.Register(f)
	if err := f.Parse(append([]string{"--checkpoint", "mem:", "--sink", t.TempDir(), "--http="}, args...)); err != nil {
		t.Fatal(err)
	}
	return s
}

// An event hub that cannot be meant is refused by one line, before anything is asked.
func TestEventHubsIsRefused(t *testing.T) {
	for source, want := range map[string]string{
		"eventhubs://orders-prod":                         "eventhubs://orders-prod: names no event hub: want eventhubs://NAMESPACE/HUB",
		"eventhubs:///orders":                             "eventhubs:///orders: names no event hub: want eventhubs://NAMESPACE/HUB",
		"eventhubs://orders-prod/orders/x":                `event hubs: event hub "orders/x": want a name of at most 256 letters, digits, . _ and -`,
		"eventhubs://orders_prod/orders":                  `event hubs: namespace "orders_prod": want a name such as orders-prod, or orders-prod.servicebus.windows.net`,
		"eventhubs://n/h?consumergroup=x":                 "eventhubs://n/h?consumergroup=x: has no parameter consumergroup: did you mean consumer-group?",
		"eventhubs://n/h?consumer-group=a/b":              `event hubs: consumer group "a/b": want at most 50 letters, digits, . _ and -`,
		"eventhubs://n/h?start=soon":                      "event hubs: start=soon: want earliest, latest or an RFC 3339 time such as 2026-01-02T15:04:05Z",
		"eventhubs://n/h?endpoint=a/b":                    `event hubs: endpoint "a/b": want an address such as 127.0.0.1:5672`,
		"eventhub://n/h":                                  "eventhub://n/h: unknown kind eventhub: did you mean eventhubs?",
		"eventhubs://n/h?endpoint=x:1&endpoint=127.0.0.1": "eventhubs://n/h?endpoint=x:1&endpoint=127.0.0.1: parameter endpoint is given twice",
	} {
		var log bytes.Buffer
		err := service.RunQuery(t.Context(), settings(t, "--source", source), &log)
		var refused *service.SettingError
		if !errors.As(err, &refused) || refused.Setting != "--source" || refused.Problem != want {
			t.Errorf("%s: %v", source, err)
		}
	}
}

// claimed is a source in memory that wants to hear its claims.
type claimed struct {
	consumers.Source
	heard func(claim uint64)
}

func (c *claimed) OpenClaimed(ctx context.Context, p string, from stream.Position, tip string, claim uint64) (consumers.Reader, error) {
	c.heard(claim)
	return c.Source.Open(ctx, p, from, tip)
}

// A run tells its source the claims: what wraps a source must not hide that it can use them.
func TestClaimsReachTheSource(t *testing.T) {
	memory := consumertest.NewMemory(1, 100)
	s := settings(t)
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	var claim uint64
	s.Driver = &claimed{memory.Source("orders"), func(n uint64) { claim = n; stop() }}
	var log bytes.Buffer
	if err := service.RunQuery(ctx, s, &log); err != nil || claim == 0 || !strings.Contains(log.String(), "ledger") {
		t.Errorf("%v, claim %d\n%s", err, claim, log.String())
	}
}
