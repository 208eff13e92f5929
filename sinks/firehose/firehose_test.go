package firehose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awsfirehose "github.com/aws/aws-sdk-go-v2/service/firehose"

	cloud "github.com/millstream/millstream/cloud/aws"
	fake "github.com/millstream/millstream/fakes/firehose"
	"github.com/millstream/millstream/sinks/sinktest"
	"github.com/millstream/millstream/stream"
)

var quiet = slog.New(slog.DiscardHandler)

func client(web *http.Client) *awsfirehose.Client {
	return awsfirehose.New(awsfirehose.Options{Region: "us-east-1", BaseEndpoint: aws.String("http://127.0.0.1"), HTTPClient: cloud.Steady(web),
		Credentials: credentials.NewStaticCredentialsProvider("any", "any", "")})
}

// bed is a fake service with one delivery stream, in a bubble of virtual time.
type bed struct {
	*testing.T
	server *fake.Server
}

func inBubble(t *testing.T, fault func(operation string, calls int) fake.Fault, f func(b *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		server := fake.New(fake.Options{Fault: fault})
		if err := server.CreateDeliveryStream("events"); err != nil {
			t.Fatal(err)
		}
		f(&bed{t, server})
	})
}

func (b *bed) sink(pack int) *Sink {
	b.Helper()
	s, err := New(b.Context(), Options{Stream: "events", Client: client(b.server.Client()), Pack: pack, Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// lines are the rows that somebody finds in what was delivered.
func (b *bed) lines() [][]byte {
	whole := bytes.Join(b.server.Records("events"), nil)
	if len(whole) == 0 {
		return nil
	}
	return bytes.Split(bytes.TrimSuffix(whole, []byte("\n")), []byte("\n"))
}

var id = stream.CheckpointID{Pipeline: "main", Genesis: "0123456789abcdef", Partition: "p", Number: 12}

func rowsOf(n, padding int) []stream.Row {
	rows := make([]stream.Row, n)
	for i := range rows {
		rows[i].Data = fmt.Appendf(nil, `{"n":%d,"pad":%q}`, i, strings.Repeat("x", padding))
	}
	return rows
}

// each wants every row of n exactly once, each under its _id.
func (b *bed) each(n int) {
	b.Helper()
	seen := make(map[string]bool)
	for _, l := range b.lines() {
		seen[string(l[:bytes.Index(l, []byte(`,"pad"`))])] = true
	}
	for i := range n {
		if !seen[fmt.Sprintf(`{"_id":"%s-%d","n":%d`, id, i, i)] {
			b.Fatalf("row %d is not there: %.200q", i, b.lines())
		}
	}
	if len(b.lines()) != n {
		b.Fatalf("%d rows, want %d", len(b.lines()), n)
	}
}

// wired sends requests over a wire. A request may outlive its caller.
type wired struct {
	wire *sinktest.Wire
	http.RoundTripper
}

func (w *wired) RoundTrip(r *http.Request) (reply *http.Response, err error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	err = w.wire.Call(r.Context(), func(ctx context.Context) error {
		again := r.Clone(ctx)
		again.Body = io.NopCloser(bytes.NewReader(body))
		got, err := w.RoundTripper.RoundTrip(again)
		reply = got
		return err
	})
	if err != nil {
		return nil, err
	}
	return reply, nil
}

func TestSuite(t *testing.T) {
	packs := []int{0, Off}
	if testing.Short() { // the race detector makes it ten times as long
		packs = packs[:1]
	}
	for _, pack := range packs {
		for _, c := range sinktest.Cases() {
			t.Run(fmt.Sprint(pack, " ", c.Name), func(t *testing.T) {
				inBubble(t, nil, func(b *bed) {
					err := c.Holds(b.Context(), &sinktest.Destination{
						Promise: sinktest.AtLeastOnceByID, Name: "delivery stream events",
						Open: func(hook sinktest.Hook) (stream.Sink, error) {
							wire := new(sinktest.Wire)
							web := &http.Client{Transport: &wired{wire, b.server.Client().Transport}}
							s, err := New(b.Context(), Options{Stream: "events", Client: client(web), Pack: pack, Logger: quiet})
							wire.Begin(hook)
							return s, err
						},
						Seen: func(context.Context) ([][]byte, error) { return b.lines(), nil },
					})
					if err != nil {
						b.Error(err)
					}
				})
			})
		}
	}
}

// Packed rows cost a twentieth of what rows cost alone.
func TestBilled(t *testing.T) {
	billed := make(map[int]fake.Stats)
	for _, pack := range []int{Off, 5 << 10, 0} {
		inBubble(t, nil, func(b *bed) {
			s := b.sink(pack)
			if err := s.Deliver(b.Context(), id, rowsOf(20_000, 174)); err != nil { // 254 bytes with its _id
				b.Fatal(err)
			}
			b.each(20_000)
			billed[pack] = b.server.Stats("events")
			if n := s.Counters(); n.Calls != billed[pack].Calls || n.Records != billed[pack].Records {
				b.Errorf("%+v, the service counted %+v", n, billed[pack])
			}
		})
	}
	alone, small, large := billed[Off].BilledBytes, billed[5<<10].BilledBytes, billed[0].BilledBytes
	t.Logf("billed: %d alone, %d in 5 KB, %d in 500 KB; bytes %d", alone, small, large, billed[0].Bytes)
	if alone < 15*small || alone < 19*large || float64(large) > 1.01*float64(billed[0].Bytes) {
		t.Errorf("billed: %d alone, %d in 5 KB, %d in 500 KB, for %d bytes", alone, small, large, billed[0].Bytes)
	}
}

// Only the entries that failed are sent again: no row is there twice, though half of each call fails several times.
func TestPartialFailures(t *testing.T) {
	for _, pack := range []int{Off, 5 << 10} {
		fault := func(operation string, calls int) fake.Fault {
			if operation != "PutRecordBatch" || calls > 6 {
				return fake.Fault{}
			}
			return fake.Fault{FailEntries: func(i int) bool { return i%2 == calls%2 }}
		}
		inBubble(t, fault, func(b *bed) {
			s := b.sink(pack)
			if err := s.Deliver(b.Context(), id, rowsOf(1500, 100)); err != nil {
				b.Fatal(err)
			}
			b.each(1500)
			if n := s.Counters(); n.Throttled == 0 || n.Ambiguous != 0 {
				b.Errorf("%+v", n)
			}
		})
	}
}

// A call whose reply is lost is counted, and its rows come again under the same _id; the negative control
// of each.
func TestLostReply(t *testing.T) {
	fault := func(operation string, calls int) fake.Fault {
		return fake.Fault{LoseReply: operation == "PutRecordBatch" && calls == 1}
	}
	inBubble(t, fault, func(b *bed) {
		s := b.sink(0)
		if err := s.Deliver(b.Context(), id, rowsOf(10, 0)); err != nil {
			b.Fatal(err)
		}
		copies := make(map[string]int)
		for _, l := range b.lines() {
			copies[string(l)]++
		}
		if len(copies) != 10 || len(b.lines()) != 20 || s.Counters().Ambiguous != 1 {
			b.Errorf("%d rows of %d kinds, %+v", len(b.lines()), len(copies), s.Counters())
		}
	})
}

// Faults that pass hold rows back and lose none; those that stay are told, and name the delivery stream.
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		code  string
		stays bool
	}{{"ServiceUnavailableException", false}, {"InternalFailure", false}, {"LimitExceededException", false}, {"ThrottlingException", false},
		{"AccessDeniedException", true}, {"InvalidKMSResourceException", true}} {
		var healthy atomic.Bool
		fault := func(operation string, calls int) fake.Fault {
			if operation == "PutRecordBatch" && (calls <= 2 || c.stays) && !healthy.Load() {
				return fake.Fault{Code: c.code}
			}
			return fake.Fault{}
		}
		inBubble(t, fault, func(b *bed) {
			s := b.sink(0)
			err := s.Deliver(b.Context(), id, rowsOf(700, 0))
			if (err != nil) != c.stays || err != nil && !strings.Contains(err.Error(), "delivery stream events") {
				b.Errorf("%s: %v", c.code, err)
			}
			healthy.Store(true)
			if c.stays {
				if err := s.Deliver(b.Context(), id, rowsOf(700, 0)); err != nil {
					b.Error(err)
				}
			}
			b.each(700)
		})
	}
}

func TestNothingStoredForLong(t *testing.T) {
	all := func(operation string, _ int) fake.Fault {
		return fake.Fault{FailEntries: func(int) bool { return operation == "PutRecordBatch" }}
	}
	inBubble(t, all, func(b *bed) {
		began := time.Now()
		err := b.sink(0).Deliver(b.Context(), id, rowsOf(3, 0))
		if err == nil || !strings.Contains(err.Error(), "nothing stored for 1m0s") || time.Since(began) > 2*time.Minute {
			b.Errorf("after %s: %v", time.Since(began), err)
		}
	})
}

func TestRefused(t *testing.T) {
	inBubble(t, func(operation string, _ int) fake.Fault {
		if operation == "DescribeDeliveryStream" {
			return fake.Fault{Code: "AccessDeniedException"}
		}
		return fake.Fault{}
	}, func(b *bed) {
		if err := b.sink(0).Deliver(b.Context(), id, rowsOf(1, 0)); err != nil { // who may put need not be allowed to ask
			b.Error(err)
		}
	})
	inBubble(t, nil, func(b *bed) {
		for name, want := range map[string]string{"absent": "delivery stream absent does not exist in us-east-1", "a/b": "want a delivery stream's name"} {
			if _, err := New(b.Context(), Options{Stream: name, Client: client(b.server.Client())}); err == nil || !strings.Contains(err.Error(), want) {
				b.Errorf("%s: %v", name, err)
			}
		}
		if _, err := New(b.Context(), Options{Stream: "events", Client: client(b.server.Client()), Pack: 2 << 20}); err == nil {
			b.Error("records of 2 MB")
		}
		rows := rowsOf(3, 0)
		rows[1] = rowsOf(1, maxRecord)[0]
		err := b.sink(0).Deliver(b.Context(), id, rows)
		var rejected *stream.Rejected
		if !errors.As(err, &rejected) || len(rejected.Rows) != 1 || rejected.Rows[0].Index != 1 || !strings.Contains(rejected.Rows[0].Reason, "at most 1024000") {
			b.Errorf("%v", err)
		}
	})
}

func TestPublish(t *testing.T) {
	inBubble(t, nil, func(b *bed) {
		p, err := NewPublisher(b.Context(), PublisherOptions{Client: client(b.server.Client()), Logger: quiet})
		if err != nil {
			b.Fatal(err)
		}
		if err := p.Publish("events", message.NewMessage("1", []byte("a")), message.NewMessage("2", []byte("b\n"))); err != nil {
			b.Fatal(err)
		}
		if got := string(bytes.Join(b.server.Records("events"), []byte("|"))); got != "a\nb\n" {
			b.Errorf("%q", got)
		}
		if err := p.Publish("events", message.NewMessage("3", bytes.Repeat([]byte("x"), maxRecord))); err == nil || !strings.Contains(err.Error(), "message 3") {
			b.Error(err)
		}
		if err := p.Publish("absent", message.NewMessage("4", nil)); err == nil {
			b.Error("published to nowhere")
		}
		if err := errors.Join(p.Close(), p.Close()); err != nil {
			b.Error(err)
		}
		if err := p.Publish("events", message.NewMessage("5", nil)); !errors.Is(err, ErrClosed) {
			b.Error(err)
		}
	})
}
