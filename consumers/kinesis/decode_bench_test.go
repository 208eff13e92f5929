package kinesis

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"

	cloud "github.com/millstream/millstream/cloud/aws"
	"github.com/millstream/millstream/stream"
)

// serving is set in the process that serves BenchmarkDrain.
const serving = "MILLSTREAM_TEST_SERVE_REPLIES"

func TestMain(m *testing.M) {
	if os.Getenv(serving) == "" {
		os.Exit(m.Run())
	}
	serveReplies()
}

// serveReplies answers GetRecords with one and the same full reply, as cheaply as can be, until its
// standard input ends.
func serveReplies() {
	full := replyOf(maxRecords, 250, rand.New(rand.NewPCG(1, 1)))
	full = bytes.Replace(full, []byte(`"MillisBehindLatest":0`), []byte(`"MillisBehindLatest":9`), 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		var reply []byte
		switch target := r.Header.Get("X-Amz-Target"); {
		case strings.HasSuffix(target, "ListShards"):
			reply = []byte(`{"Shards":[{"ShardId":"` + shard0 + `","HashKeyRange":{"StartingHashKey":"0","EndingHashKey":"340282366920938463463374607431768211455"},"SequenceNumberRange":{"StartingSequenceNumber":"0"}}]}`)
		case strings.HasSuffix(target, "GetShardIterator"):
			reply = []byte(`{"ShardIterator":"AAA"}`)
		default:
			reply = full
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.Header().Set("Content-Length", fmt.Sprint(len(reply)))
		_, _ = w.Write(reply)
	}))
	fmt.Println(server.URL)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// BenchmarkDrain is what a record of 250 bytes costs this process, by the operating system's account, when
// another process serves full replies: through the SDK's client alone with an empty handler (drain), and
// through this package's reader with the SDK's decoder (sdk) and its own (own). They take turns in one
// run, and the ratios are to the drain.
func BenchmarkDrain(b *testing.B) {
	server := exec.CommandContext(b.Context(), os.Args[0])
	server.Env = append(os.Environ(), serving+"=1")
	server.Stderr = os.Stderr
	hold, err := server.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := server.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := server.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		hold.Close()
		_ = server.Wait()
	}()
	endpoint, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	config, err := cloud.Load(b.Context(), cloud.Options{Endpoint: strings.TrimSpace(endpoint)})
	if err != nil {
		b.Fatal(err)
	}
	client := awskinesis.NewFromConfig(config)
	read := func(sdk bool) func(context.Context) (int, error) {
		s, err := New(b.Context(), Options{Stream: "s", Client: client, SDKDecoder: sdk, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		r, err := s.Open(b.Context(), shard0, stream.Position{}, "")
		if err != nil {
			b.Fatal(err)
		}
		return func(ctx context.Context) (int, error) {
			f, err := r.Read(ctx)
			return len(f.Records), err
		}
	}
	iterator := "AAA"
	ways := []struct {
		name string
		next func(context.Context) (int, error)
		took time.Duration
	}{
		{name: "drain", next: func(ctx context.Context) (int, error) {
			out, err := client.GetRecords(ctx, &awskinesis.GetRecordsInput{ShardIterator: &iterator})
			if err != nil {
				return 0, err
			}
			return len(out.Records), nil
		}},
		{name: "sdk", next: read(true)},
		{name: "own", next: read(false)},
	}
	records := 0
	for records < b.N {
		for i := range ways {
			began := processTime(b)
			for n := 0; n < 10*maxRecords; {
				got, err := ways[i].next(b.Context())
				if err != nil || got == 0 {
					b.Fatal(got, err)
				}
				n += got
			}
			ways[i].took += processTime(b) - began
		}
		records += 10 * maxRecords
	}
	for _, w := range ways {
		b.ReportMetric(float64(w.took)/float64(records), w.name+"-ns/record")
		b.ReportMetric(float64(ways[0].took)/float64(w.took), "drain/"+w.name)
	}
}

// processTime is the processor time that this process has used.
func processTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkDecode is a record of 250 bytes in a full reply: decoded by the SDK, and by this package.
func BenchmarkDecode(b *testing.B) {
	body := replyOf(maxRecords, 250, rand.New(rand.NewPCG(1, 1)))
	for name, p := range map[string]protocol{"sdk": sdk(), "own": ours()} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for done := 0; done < b.N; done += maxRecords {
				if out, err := decodeWith(p, body); err != nil || len(out.records) != maxRecords {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkBase64(b *testing.B) {
	src := []byte(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("x"), 250)))
	dst := make([]byte, 300)
	b.Run("own", func(b *testing.B) {
		for b.Loop() {
			if _, ok := decodeBase64(dst, src); !ok {
				b.Fatal()
			}
		}
	})
	b.Run("std", func(b *testing.B) {
		for b.Loop() {
			if _, err := base64.StdEncoding.Decode(dst, src); err != nil {
				b.Fatal(err)
			}
		}
	})
}
