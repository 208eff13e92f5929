//go:build integration

package kinesis

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	cloud "github.com/millstream/millstream/cloud/aws"
	source "github.com/millstream/millstream/consumers/kinesis"
	"github.com/millstream/millstream/stream"
)

// Rows reach servers that others wrote, each once; consumers/kinesis says how to start them.
func TestPeers(t *testing.T) {
	for _, variable := range []string{"MILLSTREAM_TEST_KINESALITE", "MILLSTREAM_TEST_KINESIS_LOCAL"} {
		t.Run(variable, func(t *testing.T) {
			endpoint := os.Getenv(variable)
			if endpoint == "" {
				t.Fatalf("%s is not set", variable)
			}
			config, err := cloud.Load(t.Context(), cloud.Options{Endpoint: endpoint})
			if err != nil {
				t.Fatal(err)
			}
			client := awskinesis.NewFromConfig(config)
			if _, err := New(t.Context(), Options{Stream: "absent", Client: client}); err == nil || !strings.Contains(err.Error(), "stream absent does not exist") {
				t.Errorf("missing stream: %v", err)
			}
			name, one := fmt.Sprintf("t-%d", time.Now().UnixNano()), int32(1)
			if _, err := client.CreateStream(t.Context(), &awskinesis.CreateStreamInput{StreamName: &name, ShardCount: &one}); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_, err := client.DeleteStream(context.Background(), &awskinesis.DeleteStreamInput{StreamName: &name})
				if err != nil {
					t.Error(err)
				}
			})
			err = awskinesis.NewStreamExistsWaiter(client, func(o *awskinesis.StreamExistsWaiterOptions) {
				o.MinDelay, o.MaxDelay = 20*time.Millisecond, 100*time.Millisecond
			}).Wait(t.Context(), &awskinesis.DescribeStreamInput{StreamName: &name}, 20*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			s, err := New(t.Context(), Options{Stream: name, Client: client, Plain: true, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			rows := rowsOf(1200, 0)
			rows[7].Data = fmt.Appendf(nil, `{"n":7,"pad":%q}`, strings.Repeat("x", 900<<10))
			if err := s.Deliver(t.Context(), id, rows); err != nil {
				t.Fatal(err)
			}
			if n := s.Counters(); n.Requests != 3 || n.Failed+n.Throttled+n.Ambiguous != 0 {
				t.Errorf("%+v", n)
			}
			shard := "shardId-000000000000"
			it, err := client.GetShardIterator(t.Context(), &awskinesis.GetShardIteratorInput{
				StreamName: &name, ShardId: &shard, ShardIteratorType: types.ShardIteratorTypeTrimHorizon})
			if err != nil {
				t.Fatal(err)
			}
			seen := make(map[string]bool)
			for next := it.ShardIterator; len(seen) < len(rows); {
				out, err := client.GetRecords(t.Context(), &awskinesis.GetRecordsInput{ShardIterator: next})
				if err != nil {
					t.Fatal(err)
				}
				if len(out.Records) == 0 {
					t.Fatalf("%d of %d rows", len(seen), len(rows))
				}
				for _, r := range out.Records {
					rowID, _, _ := strings.Cut(string(r.Data), ",")
					if seen[rowID] {
						t.Fatalf("%s is there twice", rowID)
					}
					seen[rowID] = true
				}
				next = out.NextShardIterator
			}
			readBack(t, client, endpoint, name, rows)
		})
	}
}

// readBack delivers rows in aggregates, behind as many plain ones, and reads them as Millstream's own source.
func readBack(t *testing.T, client *awskinesis.Client, endpoint, name string, rows []stream.Row) {
	t.Helper()
	s, err := New(t.Context(), Options{Stream: name, Client: client, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Deliver(t.Context(), id, rows); err != nil {
		t.Fatal(err)
	}
	if n := s.Counters(); n.Requests > 2 { // the large row alone takes most of one
		t.Errorf("%+v", n)
	}
	src, err := source.New(t.Context(), source.Options{Stream: name, Endpoint: endpoint})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	r, err := src.Open(t.Context(), "shardId-000000000000", stream.Position{}, "")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	seen := make(map[string]int)
	for n := 0; n < 2*len(rows); {
		f, err := r.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range f.Records {
			rowID, _, _ := strings.Cut(string(f.Records[i].Data), ",")
			seen[rowID]++
			n++
		}
	}
	for rowID, n := range seen {
		if n != 2 || len(seen) != len(rows) {
			t.Fatalf("%s is there %d times, and %d rows of %d", rowID, n, len(seen), len(rows))
		}
	}
}
