package kinesis_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/millstream/millstream/fakes/kinesis"
)

// newClient returns the official client, which does not retry unless asked to,
// so that a test sees every answer.
func newClient(endpoint string, options ...func(*sdk.Options)) *sdk.Client {
	o := sdk.Options{
		Region:       "us-east-1",
		BaseEndpoint: aws.String(endpoint),
		Credentials:  credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", ""),
		Retryer:      aws.NopRetryer{},
	}
	return sdk.New(o, options...)
}

// start returns a server on a real socket with its client.
func start(t testing.TB, opts kinesis.Options) (*kinesis.Server, *sdk.Client) {
	t.Helper()
	server := kinesis.New(opts)
	endpoint, err := server.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	// A connection pool of its own, so that none is left to a closed server.
	return server, newClient(endpoint, func(o *sdk.Options) { o.HTTPClient = &http.Client{Transport: kinesis.DetachBody(&http.Transport{})} })
}

// inMemory returns a server whose client needs no socket, for virtual time.
// Close the server before the bubble ends.
func inMemory(opts kinesis.Options) (*kinesis.Server, *sdk.Client) {
	server := kinesis.New(opts)
	client := newClient("http://kinesis.test", func(o *sdk.Options) { o.HTTPClient = server.Client() })
	return server, client
}

// code returns the protocol's error type in err, or the text of another error.
func code(err error) string {
	var api interface{ ErrorCode() string } // smithy.APIError, and direct calls' errors
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &api):
		return api.ErrorCode()
	default:
		return err.Error()
	}
}

func wantCode(t testing.TB, err error, want string) {
	t.Helper()
	if got := code(err); got != want {
		t.Errorf("error code %q, want %q (%v)", got, want, err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// iterate returns an iterator at a shard's oldest record.
func iterate(t testing.TB, client *sdk.Client, stream, shard string) string {
	t.Helper()
	return iterateAt(t, client, &sdk.GetShardIteratorInput{
		StreamName: &stream, ShardId: &shard, ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
	})
}

func iterateAt(t testing.TB, client *sdk.Client, in *sdk.GetShardIteratorInput) string {
	t.Helper()
	out, err := client.GetShardIterator(context.Background(), in)
	must(t, err)
	return *out.ShardIterator
}

// get reads one page.
func get(t testing.TB, client *sdk.Client, iterator string) *sdk.GetRecordsOutput {
	t.Helper()
	out, err := client.GetRecords(context.Background(), &sdk.GetRecordsInput{ShardIterator: &iterator})
	must(t, err)
	return out
}

// drain reads a shard from its oldest record to the tip or the end, and reports
// which it was.
func drain(t testing.TB, client *sdk.Client, stream, shard string) (records []types.Record, ended bool) {
	t.Helper()
	return drainFrom(t, client, iterate(t, client, stream, shard))
}

func drainFrom(t testing.TB, client *sdk.Client, iterator string) (records []types.Record, ended bool) {
	t.Helper()
	for empty := 0; ; {
		out := get(t, client, iterator)
		records = append(records, out.Records...)
		if out.NextShardIterator == nil {
			return records, true
		}
		if len(out.Records) == 0 {
			// Servers other than ours end a closed shard one empty read late.
			if empty++; empty == 3 {
				return records, false
			}
		}
		iterator = *out.NextShardIterator
	}
}

func texts(records []types.Record) []string {
	var all []string
	for _, r := range records {
		all = append(all, string(r.Data))
	}
	return all
}

func shardID(n int) string { return fmt.Sprintf("shardId-%012d", n) }

// within bounds a wait for something that happens at once unless it is broken.
func within(t testing.TB, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s did not happen", what)
	}
}
