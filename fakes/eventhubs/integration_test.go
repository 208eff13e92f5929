//go:build integration

package eventhubs

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

// The official client drives the stand-in. These tests need node and, the first time, npm.

func start(t *testing.T) *Server {
	t.Helper()
	s, err := Start(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var once = azeventhubs.RetryOptions{MaxRetries: -1}

func consumer(t *testing.T, s *Server, hub, group string) *azeventhubs.ConsumerClient {
	t.Helper()
	c := must(azeventhubs.NewConsumerClientFromConnectionString(s.ConnectionString(), hub, group,
		&azeventhubs.ConsumerClientOptions{RetryOptions: once}))(t)
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func producer(t *testing.T, s *Server, hub string) *azeventhubs.ProducerClient {
	t.Helper()
	c := must(azeventhubs.NewProducerClientFromConnectionString(s.ConnectionString(), hub,
		&azeventhubs.ProducerClientOptions{RetryOptions: once}))(t)
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func send(t *testing.T, c *azeventhubs.ProducerClient, o *azeventhubs.EventDataBatchOptions, texts ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	b, err := c.NewEventDataBatch(ctx, o)
	if err != nil {
		return err
	}
	for _, text := range texts {
		do(t, b.AddEventData(&azeventhubs.EventData{Body: []byte(text), Properties: map[string]any{"n": int64(len(text))}}, nil))
	}
	return c.SendEventDataBatch(ctx, b, nil)
}

func reader(t *testing.T, c *azeventhubs.ConsumerClient, partition string, at azeventhubs.StartPosition, level *int64) *azeventhubs.PartitionClient {
	t.Helper()
	p := must(c.NewPartitionClient(partition, &azeventhubs.PartitionClientOptions{StartPosition: at, OwnerLevel: level}))(t)
	t.Cleanup(func() { _ = p.Close(context.Background()) })
	return p
}

func receive(t *testing.T, p *azeventhubs.PartitionClient, n int) ([]*azeventhubs.ReceivedEventData, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	return p.ReceiveEvents(ctx, n, nil)
}

func texts(events []*azeventhubs.ReceivedEventData) (all []string) {
	for _, e := range events {
		all = append(all, string(e.Body))
	}
	return all
}

var earliest = azeventhubs.StartPosition{Earliest: to.Ptr(true)}

func TestIntegrationProperties(t *testing.T) {
	s := start(t)
	do(t, s.CreateHub("Orders", 3))
	c := consumer(t, s, "orders", "$Default")
	hub := must(c.GetEventHubProperties(t.Context(), nil))(t)
	if !slices.Equal(hub.PartitionIDs, []string{"0", "1", "2"}) || time.Since(hub.CreatedOn) > time.Minute {
		t.Errorf("%+v", hub)
	}
	p := must(c.GetPartitionProperties(t.Context(), "1", nil))(t)
	if !p.IsEmpty || p.LastEnqueuedSequenceNumber != -1 || p.BeginningSequenceNumber != 0 {
		t.Errorf("empty: %+v", p)
	}
	do(t, s.Publish("orders", "1", "", []byte("a"), []byte("b"), []byte("c")))
	do(t, s.Trim("orders", "1", 2))
	p = must(c.GetPartitionProperties(t.Context(), "1", nil))(t)
	if p.IsEmpty || p.LastEnqueuedSequenceNumber != 2 || p.BeginningSequenceNumber != 2 || time.Since(p.LastEnqueuedOn) > time.Minute {
		t.Errorf("%+v", p)
	}
	do(t, s.Grow("orders", 5))
	if hub = must(c.GetEventHubProperties(t.Context(), nil))(t); len(hub.PartitionIDs) != 5 {
		t.Errorf("%+v", hub)
	}
	_, err := consumer(t, s, "absent", "$Default").GetEventHubProperties(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), "status code 404") {
		t.Error(err)
	}
}

// What is sent comes back, by partition, by key and in turn, with what the service adds.
func TestIntegrationSendAndReceive(t *testing.T) {
	s := start(t)
	do(t, s.CreateHub("orders", 4))
	p := producer(t, s, "orders")
	do(t, send(t, p, &azeventhubs.EventDataBatchOptions{PartitionID: to.Ptr("2")}, "one", "two", "three"))
	for range 4 {
		do(t, send(t, p, &azeventhubs.EventDataBatchOptions{PartitionKey: to.Ptr("k")}, "keyed"))
	}
	do(t, send(t, p, nil, "anywhere"))
	c := consumer(t, s, "orders", "$Default")
	events := must(receive(t, reader(t, c, "2", earliest, nil), 3))(t)
	if !slices.Equal(texts(events), []string{"one", "two", "three"}) {
		t.Errorf("%q", texts(events))
	}
	for i, e := range events {
		if e.SequenceNumber != int64(i) || e.Offset == "" || e.EnqueuedTime == nil || time.Since(*e.EnqueuedTime) > time.Minute || e.PartitionKey != nil || e.Properties["n"] != int64(len(e.Body)) {
			t.Errorf("%+v", e)
		}
	}
	var keyed, all int
	for i := range 4 {
		held := must(s.Events("orders", fmt.Sprint(i)))(t)
		all += len(held)
		here := 0
		for _, e := range held {
			if e.Key == "k" {
				here++
			}
		}
		keyed = max(keyed, here)
	}
	if keyed != 4 || all != 8 {
		t.Errorf("%d of 4 in the partition of their key, %d in all", keyed, all)
	}
}

func TestIntegrationStartPositions(t *testing.T) {
	s := start(t)
	do(t, s.CreateHub("orders", 1, "Mine"))
	for i := range 5 {
		do(t, s.Publish("orders", "0", "", fmt.Append(nil, i)))
	}
	held := must(s.Events("orders", "0"))(t)
	c := consumer(t, s, "orders", "mine")
	for name, k := range map[string]struct {
		at   azeventhubs.StartPosition
		want string
	}{
		"earliest":        {earliest, "0"},
		"sequence":        {azeventhubs.StartPosition{SequenceNumber: to.Ptr(int64(2))}, "3"},
		"sequence itself": {azeventhubs.StartPosition{SequenceNumber: to.Ptr(int64(2)), Inclusive: true}, "2"},
		"offset":          {azeventhubs.StartPosition{Offset: &held[1].Offset}, "2"},
		"offset itself":   {azeventhubs.StartPosition{Offset: &held[1].Offset, Inclusive: true}, "1"},
		"time":            {azeventhubs.StartPosition{EnqueuedTime: to.Ptr(held[0].Enqueued.Add(-time.Second))}, "0"},
		"later":           {azeventhubs.StartPosition{EnqueuedTime: to.Ptr(time.Now().Add(time.Minute))}, ""},
		"latest":          {azeventhubs.StartPosition{Latest: to.Ptr(true)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if k.want == "" {
				ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
				defer cancel()
			}
			p := must(c.NewPartitionClient("0", &azeventhubs.PartitionClientOptions{StartPosition: k.at}))(t)
			defer p.Close(context.Background())
			events, err := p.ReceiveEvents(ctx, 1, nil)
			if got := strings.Join(texts(events), ""); got != k.want {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// condition is the AMQP error condition that an error of the client tells, whose own error types do not
// unwrap.
func condition(err error) string {
	if m := regexp.MustCompile(`Condition: ([^,]+),`).FindStringSubmatch(fmt.Sprint(err)); m != nil {
		return m[1]
	}
	return fmt.Sprint(err)
}

// A higher owner level puts out a lower one, which is then refused; so are readers without a level.
func TestIntegrationOwnerLevel(t *testing.T) {
	s := start(t)
	do(t, s.CreateHub("orders", 1))
	c := consumer(t, s, "orders", "$Default")
	do(t, s.Publish("orders", "0", "", []byte("a")))
	low := reader(t, c, "0", earliest, to.Ptr(int64(3)))
	must(receive(t, low, 1))(t)
	high := reader(t, c, "0", earliest, to.Ptr(int64(4)))
	must(receive(t, high, 1))(t)
	for name, p := range map[string]*azeventhubs.PartitionClient{
		"put out": low, "lower": reader(t, c, "0", earliest, to.Ptr(int64(3))), "without": reader(t, c, "0", earliest, nil),
	} {
		if _, err := receive(t, p, 1); condition(err) != "amqp:link:stolen" {
			t.Errorf("%s: %v", name, err)
		}
	}
	do(t, s.Publish("orders", "0", "", []byte("b")))
	if events := must(receive(t, high, 1))(t); string(events[0].Body) != "b" {
		t.Errorf("%q", texts(events))
	}
	if n := must(s.Counts())(t); n.Stolen != 1 || n.Refused != 2 {
		t.Errorf("%+v", n)
	}
}

func TestIntegrationRefusals(t *testing.T) {
	s := start(t)
	do(t, s.CreateHub("orders", 1))
	do(t, s.Publish("orders", "0", "", []byte("a")))
	c := consumer(t, s, "orders", "$Default")
	_, err := receive(t, reader(t, consumer(t, s, "orders", "absent"), "0", earliest, nil), 1)
	if condition(err) != "amqp:not-found" || !strings.Contains(err.Error(), "ConsumerGroups/absent") {
		t.Errorf("missing group: %v", err)
	}
	if _, err := receive(t, reader(t, c, "9", earliest, nil), 1); condition(err) != "com.microsoft:argument-out-of-range" {
		t.Errorf("missing partition: %v", err)
	}
	if err := send(t, producer(t, s, "absent"), nil, "x"); condition(err) != "amqp:not-found" {
		t.Errorf("missing hub: %v", err)
	}
	for range 5 {
		must(receive(t, reader(t, c, "0", earliest, nil), 1))(t)
	}
	if _, err := receive(t, reader(t, c, "0", earliest, nil), 1); condition(err) != "amqp:resource-limit-exceeded" {
		t.Errorf("sixth reader: %v", err)
	}
	do(t, s.RefuseTokens(true))
	var told *azeventhubs.Error
	if _, err := receive(t, reader(t, consumer(t, s, "orders", "$Default"), "0", earliest, nil), 1); !errors.As(err, &told) || told.Code != azeventhubs.ErrorCodeUnauthorizedAccess {
		t.Errorf("refused token: %v", err)
	}
}

func TestIntegrationFaults(t *testing.T) {
	s := start(t)
	do(t, s.CreateHub("orders", 1))
	c := consumer(t, s, "orders", "$Default")
	do(t, s.Publish("orders", "0", "", []byte("a")))
	p := reader(t, c, "0", earliest, nil)
	must(receive(t, p, 1))(t)

	if n := must(s.Disconnect("orders"))(t); n != 1 {
		t.Errorf("%d connections", n)
	}
	do(t, s.Publish("orders", "0", "", []byte("b")))
	if _, err := receive(t, p, 1); err == nil {
		t.Error("a broken connection went unnoticed")
	}
	if events := must(receive(t, p, 1))(t); string(events[0].Body) != "b" {
		t.Errorf("%q", texts(events))
	}

	if n := must(s.Silence("orders", "0"))(t); n != 1 {
		t.Errorf("%d readers", n)
	}
	do(t, s.Publish("orders", "0", "", []byte("c")))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if events, err := p.ReceiveEvents(ctx, 1, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%q, %v", texts(events), err)
	}
	if events := must(receive(t, reader(t, c, "0", earliest, nil), 3))(t); string(events[2].Body) != "c" {
		t.Errorf("%q", texts(events))
	}

	do(t, s.Throttle("orders", "0", true))
	if _, err := receive(t, p, 1); condition(err) != "com.microsoft:server-busy" {
		t.Errorf("throttled: %v", err)
	}
	if _, err := c.GetPartitionProperties(t.Context(), "0", nil); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("throttled: %v", err)
	}
	do(t, s.Throttle("orders", "0", false))
	if events := must(receive(t, p, 1))(t); string(events[0].Body) != "c" {
		t.Errorf("%q", texts(events))
	}

	w := producer(t, s, "orders")
	do(t, send(t, w, nil, "d"))
	do(t, s.Busy("orders", true))
	if err := send(t, w, nil, "e"); condition(err) != "com.microsoft:server-busy" {
		t.Errorf("busy: %v", err)
	}
	do(t, s.Busy("orders", false))
	do(t, s.LoseReplies("orders", 1))
	if err := send(t, w, nil, "f"); err == nil {
		t.Error("a lost reply went unnoticed")
	}
	if held := must(s.Events("orders", "0"))(t); string(held[len(held)-1].Data) != "f" || len(held) != 5 {
		t.Errorf("%+v", held)
	}
}

// Events larger than a frame, and batches up to the link's limit.
func TestIntegrationLarge(t *testing.T) {
	s := start(t)
	do(t, s.CreateHub("orders", 1))
	w := producer(t, s, "orders")
	b := must(w.NewEventDataBatch(t.Context(), nil))(t)
	if err := b.AddEventData(&azeventhubs.EventData{Body: make([]byte, 1<<20)}, nil); !errors.Is(err, azeventhubs.ErrEventDataTooLarge) {
		t.Error(err)
	}
	big := strings.Repeat("x", 1<<20-200)
	do(t, send(t, w, nil, big))
	if events := must(receive(t, reader(t, consumer(t, s, "orders", "$Default"), "0", earliest, nil), 1))(t); string(events[0].Body) != big {
		t.Errorf("%d bytes", len(events[0].Body))
	}
}

// Volume: batches through the front door, read by two readers.
func TestIntegrationVolume(t *testing.T) {
	s := start(t)
	do(t, s.CreateHub("orders", 1))
	const n = 20_000
	w := producer(t, s, "orders")
	for i := 0; i < n; i += 1000 {
		var part []string
		for j := range 1000 {
			part = append(part, fmt.Sprint(i+j))
		}
		do(t, send(t, w, nil, part...))
	}
	for _, c := range []*azeventhubs.ConsumerClient{consumer(t, s, "orders", "$Default"), consumer(t, s, "orders", "$Default")} {
		p := must(c.NewPartitionClient("0", &azeventhubs.PartitionClientOptions{StartPosition: earliest, Prefetch: 2000}))(t)
		got := 0
		for got < n {
			for _, e := range must(receive(t, p, 1000))(t) {
				if string(e.Body) != fmt.Sprint(got) || e.SequenceNumber != int64(got) {
					t.Fatalf("event %d is %q, number %d", got, e.Body, e.SequenceNumber)
				}
				got++
			}
		}
		do(t, p.Close(t.Context()))
	}
}
