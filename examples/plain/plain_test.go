package main

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millstream/millstream/consumers/kinesis"
	fake "github.com/millstream/millstream/fakes/kinesis"
)

// A second run goes on where the first one stopped, through a split in between.
func TestGoesOn(t *testing.T) {
	server := fake.New(fake.Options{})
	endpoint, err := server.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if err := server.CreateStream("clicks", 2); err != nil {
		t.Fatal(err)
	}
	state := t.TempDir()
	round := func(from, to int) {
		t.Helper()
		var batch []fake.Record
		for i := from; i < to; i++ {
			batch = append(batch, fake.Record{PartitionKey: fmt.Sprint(i), Data: fmt.Appendf(nil, "click %02d", i)})
		}
		if err := server.PutBatch("clicks", batch); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		got := make(chan string, 100)
		err := run(ctx, kinesis.Options{Region: "us-east-1", Endpoint: endpoint}, "clicks", state, func(m *message.Message) error {
			if got <- string(m.Payload); len(got) == to-from {
				stop()
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		close(got)
		var lines, want []string
		for line := range got {
			lines = append(lines, line)
		}
		slices.Sort(lines)
		for i := from; i < to; i++ {
			want = append(want, fmt.Sprintf("click %02d", i))
		}
		if !slices.Equal(lines, want) {
			t.Errorf("read %q, want %q", lines, want)
		}
	}
	round(0, 20)
	if err := server.Split("clicks", "shardId-000000000000"); err != nil {
		t.Fatal(err)
	}
	round(20, 40)
}
