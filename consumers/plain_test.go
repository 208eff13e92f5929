package consumers_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/consumers/consumertest"
	"github.com/millstream/millstream/stream"
)

// Watermill's universal suite, over a log in memory of four partitions a topic.
func TestWatermillSuite(t *testing.T) {
	memory := consumertest.NewMemory(4, 100)
	var mu sync.Mutex
	logs := make(map[string]*consumertest.Logs)
	join := func(group, topic string) stream.Group {
		mu.Lock()
		defer mu.Unlock()
		name := group + "/" + topic
		if logs[name] == nil {
			logs[name] = consumertest.NewLogs()
		}
		return logs[name].Group()
	}
	construct := func(t *testing.T, group string) (message.Publisher, message.Subscriber) {
		sub, err := consumers.New(consumers.Config{
			Open:         func(_ context.Context, topic string) (consumers.Source, error) { return memory.Source(topic), nil },
			Join:         func(topic string) (stream.Group, error) { return join(group, topic), nil },
			Unmarshal:    consumertest.Unmarshal,
			CloseTimeout: time.Second,
			Logger:       slog.New(slog.NewTextHandler(io.Discard, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		return memory.Publisher(), sub
	}
	features := tests.Features{
		ConsumerGroups:      true,
		ExactlyOnceDelivery: false, // what is acked and not yet saved comes again after a crash
		GuaranteedOrder:     true,  // within a partition
		Persistent:          true,
	}
	tests.TestPubSub(t, features,
		func(t *testing.T) (message.Publisher, message.Subscriber) { return construct(t, "group") }, construct)
}

// plainly subscribes in plain mode to one partition, in a bubble.
func plainly(t *testing.T, memory *consumertest.Memory, logs *consumertest.Logs, cfg consumers.Config) (*consumers.Subscriber, <-chan *message.Message) {
	t.Helper()
	cfg.Source, cfg.Group = memory.Source(topic), logs.Group()
	cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	sub, err := consumers.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := sub.Subscribe(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	return sub, messages
}

func receive(t *testing.T, messages <-chan *message.Message, want string) *message.Message {
	t.Helper()
	select {
	case m := <-messages:
		if string(m.Payload) != want {
			t.Fatalf("received %s, want %s", m.Payload, want)
		}
		return m
	case <-time.After(time.Minute):
		t.Fatalf("nothing came, want %s", want)
		return nil
	}
}

func none(t *testing.T, messages <-chan *message.Message) {
	t.Helper()
	select {
	case m, ok := <-messages:
		if ok {
			t.Fatalf("received %s, want nothing", m.Payload)
		}
	case <-time.After(time.Minute):
	}
}

func TestPlainOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, logs := consumertest.NewMemory(1, 4), consumertest.NewLogs()
		memory.Append(topic, "0", numbers(0, 10)...)
		sub, messages := plainly(t, memory, logs, consumers.Config{})
		m := receive(t, messages, "0")
		none(t, messages) // before the ack
		if m.Metadata.Get(consumers.MetadataPartition) != "0" || m.Metadata.Get(consumers.MetadataPosition) != "1" ||
			m.Metadata.Get(consumers.MetadataKey) != "0" || m.Metadata.Get(consumers.MetadataArrived) == "" || m.UUID != "0-1" {
			t.Errorf("%s %v", m.UUID, m.Metadata)
		}
		m.Nack()
		m = receive(t, messages, "0") // again, and before any other
		if m.Context().Err() != nil {
			t.Error("a context was cancelled before its ack")
		}
		m.Ack()
		synctest.Wait()
		if m.Context().Err() == nil {
			t.Error("the context lives on after the ack")
		}
		for i := 1; i < 10; i++ {
			receive(t, messages, fmt.Sprint(i)).Ack()
		}
		<-time.After(10 * time.Second)
		e := logs.Newest("0")
		if e == nil || e.Position.Number != 10 || e.Ledger.RecordsIn != 10 || e.Ledger.Imbalance() != 0 {
			t.Errorf("saved %+v", e)
		}
		sub.Close()
		if _, open := <-messages; open {
			t.Error("the channel is open")
		}
	})
}

// Acks may come in any order; only the run at the front is saved, and the rest comes again.
func TestPlainContiguousAcks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, logs := consumertest.NewMemory(1, 4), consumertest.NewLogs()
		memory.Append(topic, "0", numbers(0, 10)...)
		sub, messages := plainly(t, memory, logs, consumers.Config{MaxUnacked: 3, CloseTimeout: time.Second})
		first := receive(t, messages, "0")
		second := receive(t, messages, "1")
		receive(t, messages, "2").Ack()
		none(t, messages) // three are out
		if e := logs.Newest("0"); e != nil {
			t.Errorf("saved %+v", e)
		}
		first.Ack()
		fourth := receive(t, messages, "3")
		second.Nack()
		again := receive(t, messages, "1") // before "4"
		start := time.Now()
		closed := make(chan struct{})
		go func() {
			sub.Close()
			close(closed)
		}()
		<-time.After(time.Second / 2)
		if again.Context().Err() != nil {
			t.Error("the context was cancelled while its ack was waited for")
		}
		<-closed
		if d := time.Since(start); d != time.Second {
			t.Errorf("closed after %s", d)
		}
		if again.Context().Err() == nil || fourth.Context().Err() == nil {
			t.Error("contexts live on after Close")
		}
		if e := logs.Newest("0"); e == nil || e.Position.Number != 1 {
			t.Errorf("saved %+v", e)
		}
		_, messages = plainly(t, memory, logs, consumers.Config{})
		for i := 1; i < 10; i++ {
			receive(t, messages, fmt.Sprint(i)).Ack()
		}
		logs.Lose("0", consumertest.ErrTaken) // nothing was saved since: everything comes again
		for i := 1; i < 10; i++ {
			receive(t, messages, fmt.Sprint(i)).Ack()
		}
		memory.End(topic, "0")
		for range messages {
			t.Error("a message after the end")
		}
		if e := logs.Newest("0"); e.Kind != stream.KindEnd || e.Position.Number != 10 || e.Ledger.RecordsIn != 10 {
			t.Errorf("end %+v", e)
		}
	})
}

// A message that waits to be taken steps back behind one that was nacked meanwhile.
func TestPlainNackedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, logs := consumertest.NewMemory(1, 4), consumertest.NewLogs()
		memory.Append(topic, "0", numbers(0, 10)...)
		sub, messages := plainly(t, memory, logs, consumers.Config{MaxUnacked: 3, CloseTimeout: time.Second})
		m := receive(t, messages, "0")
		receive(t, messages, "1").Ack()
		synctest.Wait() // "2" is offered
		m.Nack()
		synctest.Wait()
		receive(t, messages, "0").Ack()
		receive(t, messages, "2").Ack()
		sub.Close()
		if e := logs.Newest("0"); e.Position.Number != 3 {
			t.Errorf("saved %+v", e)
		}
	})
}

// An ack that comes while the subscription drains still counts.
func TestPlainDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, logs := consumertest.NewMemory(1, 4), consumertest.NewLogs()
		memory.Append(topic, "0", numbers(0, 10)...)
		sub, messages := plainly(t, memory, logs, consumers.Config{})
		m := receive(t, messages, "0")
		go func() {
			<-time.After(5 * time.Second)
			m.Ack()
		}()
		sub.Close()
		if e := logs.Newest("0"); e == nil || e.Position.Number != 1 {
			t.Errorf("saved %+v", e)
		}
		entries := logs.Entries("0")
		if last := entries[len(entries)-1]; last.Kind != stream.KindRelease {
			t.Errorf("last entry %+v", last)
		}
	})
}

// A reader's error ends the assignment; records that cannot be unmarshalled or are too large come raw.
func TestPlainOddities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, logs := consumertest.NewMemory(1, 4), consumertest.NewLogs()
		memory.Append(topic, "0", []byte("good"), []byte("bad"))
		memory.AppendOversize(topic, "0", []byte("head"), 1<<30)
		sub, messages := plainly(t, memory, logs, consumers.Config{Unmarshal: func(_ string, r *stream.Record) (*message.Message, error) {
			if string(r.Data) != "good" {
				return nil, errors.New("no envelope")
			}
			return message.NewMessage("id", []byte("unmarshalled")), nil
		}})
		if m := receive(t, messages, "unmarshalled"); m.UUID != "id" || !m.Ack() {
			t.Error(m.UUID)
		}
		if m := receive(t, messages, "bad"); m.Metadata.Get(consumers.MetadataError) != "no envelope" || !m.Ack() {
			t.Error(m.Metadata)
		}
		if m := receive(t, messages, "head"); m.Metadata.Get(consumers.MetadataOversize) != "1073741824" || !m.Ack() {
			t.Error(m.Metadata)
		}
		<-time.After(10 * time.Second) // saved
		memory.Fail(topic, "0", errRefused)
		<-time.After(time.Second)
		memory.Append(topic, "0", []byte("good"))
		receive(t, messages, "unmarshalled").Ack()
		var kinds []string
		for _, e := range logs.Entries("0") {
			kinds = append(kinds, string(e.Kind))
		}
		if got := strings.Join(kinds, " "); got != "claim checkpoint claim" {
			t.Error(got)
		}
		sub.Close()
	})
}
