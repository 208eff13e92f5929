package kinesis

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"

	cloud "github.com/millstream/millstream/cloud/aws"
	source "github.com/millstream/millstream/consumers/kinesis"
	fake "github.com/millstream/millstream/fakes/kinesis"
	"github.com/millstream/millstream/stream"
)

// What is packed, across splits and a merge that the sink has not heard of, Millstream's own source reads row
// by row, each once. The negative control puts the same rows where their record's hash key is unknown to
// them: then the source drops some.
func TestRoundTrip(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "any")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "any")
	for _, own := range []bool{true, false} {
		server := fake.New(fake.Options{})
		defer server.Close()
		endpoint, err := server.Start()
		if err != nil {
			t.Fatal(err)
		}
		if err := server.CreateStream("s", 2); err != nil {
			t.Fatal(err)
		}
		config, err := cloud.Load(t.Context(), cloud.Options{Region: "us-east-1", Endpoint: endpoint})
		if err != nil {
			t.Fatal(err)
		}
		sink, err := New(t.Context(), Options{Stream: "s", Client: awskinesis.NewFromConfig(config), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		const n, rounds = 500, 4
		for round := range rounds {
			id := id
			id.Number = uint64(round)
			if own {
				err = sink.Deliver(t.Context(), id, rowsOf(n, 100))
			} else {
				err = server.PutBatch("s", []fake.Record{{PartitionKey: "key0", Data: fake.Aggregate(userRecords(id, n))}})
			}
			if err != nil {
				t.Fatal(err)
			}
			switch round {
			case 0:
				err = server.Split("s", "shardId-000000000000")
			case 1:
				err = server.Split("s", "shardId-000000000001")
			case 2:
				err = server.Merge("s", "shardId-000000000003", "shardId-000000000004")
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		read := readAll(t, server, endpoint)
		once := len(read) == rounds*n
		for _, copies := range read {
			once = once && copies == 1
		}
		if once != own {
			t.Errorf("rows that bear their record's hash key: %t; %d of %d are read", own, len(read), rounds*n)
		}
	}
}

func userRecords(id stream.CheckpointID, n int) []fake.UserRecord {
	var users []fake.UserRecord
	for i, r := range rowsOf(n, 100) {
		users = append(users, fake.UserRecord{PartitionKey: r.Key, Data: fmt.Appendf(nil, `{"_id":"%s-%d"}`, id, i)})
	}
	return users
}

// readAll reads every shard to its end and returns how often each _id came.
func readAll(t *testing.T, server *fake.Server, endpoint string) map[string]int {
	t.Helper()
	src, err := source.New(t.Context(), source.Options{Stream: "s", Region: "us-east-1", Endpoint: endpoint, UntilEnd: true, PollEvery: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	tip, err := src.Tip(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	shards, err := server.Shards("s")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]int)
	for _, sh := range shards {
		r, err := src.Open(t.Context(), sh.ID, stream.Position{}, tip)
		if err != nil {
			t.Fatal(err)
		}
		for ended := false; !ended; {
			f, err := r.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for i := range f.Records {
				var row struct {
					ID string `json:"_id"`
				}
				if err := json.Unmarshal(f.Records[i].Data, &row); err != nil {
					t.Fatal(err)
				}
				seen[row.ID]++
			}
			ended = f.End != nil
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	return seen
}
