//go:build unix && !race

package kinesis_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/kinesis"

	"github.com/millstream/millstream/fakes/kinesis"
)

const (
	speedShards  = 4
	speedRecords = 100_000
)

// filled returns a server with speedRecords records of 254 bytes, evenly spread.
func filled(t testing.TB) (*kinesis.Server, *sdk.Client) {
	t.Helper()
	server, client := start(t, kinesis.Options{})
	must(t, server.CreateStream(stream, speedShards))
	must(t, server.PutBatch(stream, batch(speedRecords)))
	return server, client
}

func batch(n int) []kinesis.Record {
	data := bytes.Repeat([]byte("x"), 254)
	records := make([]kinesis.Record, n)
	for i := range records {
		records[i] = kinesis.Record{PartitionKey: strconv.Itoa(i), Data: data}
	}
	return records
}

// readAllSDK reads every shard to its tip, all shards at once, with the official
// client.
func readAllSDK(t testing.TB, client *sdk.Client) int {
	var total atomic.Int64
	var wait sync.WaitGroup
	for shard := range speedShards {
		wait.Go(func() {
			iterator := iterate(t, client, stream, shardID(shard))
			for {
				out, err := client.GetRecords(ctx, &sdk.GetRecordsInput{ShardIterator: &iterator})
				if err != nil {
					t.Error(err)
					return
				}
				total.Add(int64(len(out.Records)))
				if *out.MillisBehindLatest == 0 {
					return
				}
				iterator = *out.NextShardIterator
			}
		})
	}
	wait.Wait()
	return int(total.Load())
}

// readAllRaw does the same without decoding records: what the server alone costs,
// HTTP included.
func readAllRaw(t testing.TB, endpoint string, client *sdk.Client) int {
	var total atomic.Int64
	var wait sync.WaitGroup
	transport := &http.Client{Transport: &http.Transport{}}
	for shard := range speedShards {
		wait.Go(func() {
			iterator := iterate(t, client, stream, shardID(shard))
			var body bytes.Buffer
			for {
				request, err := http.NewRequest("POST", endpoint, strings.NewReader(`{"ShardIterator":"`+iterator+`"}`))
				if err != nil {
					t.Error(err)
					return
				}
				request.Header.Set("Content-Type", "application/x-amz-json-1.1")
				request.Header.Set("X-Amz-Target", "Kinesis_20131202.GetRecords")
				response, err := transport.Do(request)
				if err != nil {
					t.Error(err)
					return
				}
				body.Reset()
				if _, err := io.Copy(&body, response.Body); err != nil {
					t.Error(err)
					return
				}
				response.Body.Close()
				total.Add(int64(bytes.Count(body.Bytes(), []byte(`"SequenceNumber"`))))
				tail := body.Bytes()[bytes.LastIndexByte(body.Bytes(), ']'):]
				if bytes.Contains(tail, []byte(`"MillisBehindLatest":0`)) {
					return
				}
				const member = `"NextShardIterator":"`
				at := bytes.Index(tail, []byte(member)) + len(member)
				iterator = string(tail[at : at+bytes.IndexByte(tail[at:], '"')])
			}
		})
	}
	wait.Wait()
	return int(total.Load())
}

// TestSpeed reports the rates and fails when one is an order of magnitude below
// what it should be. It judges by processor time, of client and server together,
// so that a busy machine passes and a lock or a copy a record does not.
func TestSpeed(t *testing.T) {
	server, client := filled(t)
	endpoint, err := server.Start()
	must(t, err)
	rate := func(name string, floor float64, run func() int) {
		began, used := time.Now(), cpuTime(t)
		n := run()
		perSecond := float64(n) / time.Since(began).Seconds()
		perCore := float64(n) / (cpuTime(t) - used).Seconds()
		t.Logf("%s: %.0f records/s, %.0f a core-second", name, perSecond, perCore)
		if n != speedRecords || perCore < floor {
			t.Errorf("%s: %d records at %.0f a core-second, want %d at %.0f or more", name, n, perCore, speedRecords, floor)
		}
	}
	rate("GetRecords, official client", 30_000, func() int { return readAllSDK(t, client) })
	rate("GetRecords, raw HTTP", 90_000, func() int { return readAllRaw(t, endpoint, client) })
	records := batch(speedRecords)
	rate("PutBatch", 200_000, func() int {
		must(t, server.PutBatch(stream, records))
		return len(records)
	})
}

// cpuTime is what this process has used, user and system.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	must(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkGetRecords(b *testing.B) {
	server, client := filled(b)
	endpoint, err := server.Start()
	must(b, err)
	for name, read := range map[string]func() int{
		"sdk": func() int { return readAllSDK(b, client) },
		"raw": func() int { return readAllRaw(b, endpoint, client) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				n += read()
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

func BenchmarkPut(b *testing.B) {
	server := kinesis.New(kinesis.Options{MaxBytes: 64 << 20})
	must(b, server.CreateStream(stream, speedShards))
	records := batch(1000)
	b.Run("direct", func(b *testing.B) {
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			must(b, server.PutBatch(stream, records))
			n += len(records)
		}
		b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "records/s")
	})
	endpoint, err := server.Start()
	must(b, err)
	b.Cleanup(func() { server.Close() })
	var body strings.Builder
	body.WriteString(`{"StreamName":"` + stream + `","Records":[`)
	for i := range 500 {
		if i > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, `{"PartitionKey":"%d","Data":"%s"}`, i, strings.Repeat("eHh4", 85))
	}
	body.WriteString("]}")
	b.Run("PutRecords", func(b *testing.B) {
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			request, err := http.NewRequest("POST", endpoint, strings.NewReader(body.String()))
			must(b, err)
			request.Header.Set("Content-Type", "application/x-amz-json-1.1")
			request.Header.Set("X-Amz-Target", "Kinesis_20131202.PutRecords")
			response, err := http.DefaultClient.Do(request)
			must(b, err)
			reply, err := io.ReadAll(response.Body)
			must(b, err)
			response.Body.Close()
			if !bytes.Contains(reply, []byte(`"FailedRecordCount":0`)) {
				b.Fatalf("%s", reply)
			}
			n += 500
		}
		b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "records/s")
	})
}
