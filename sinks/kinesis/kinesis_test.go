package kinesis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	cloud "github.com/millstream/millstream/cloud/aws"
	fake "github.com/millstream/millstream/fakes/kinesis"
	"github.com/millstream/millstream/stream"
)

// bed is a fake service with one stream, in a bubble of virtual time.
type bed struct {
	*testing.T
	server *fake.Server
	client *awskinesis.Client
}

func inBubble(t *testing.T, o fake.Options, f func(b *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		server := fake.New(o)
		web := server.Client()
		client := awskinesis.New(awskinesis.Options{
			Region: "us-east-1", BaseEndpoint: aws.String("http://127.0.0.1"), HTTPClient: cloud.Steady(web),
			Credentials: credentials.NewStaticCredentialsProvider("any", "any", ""),
		})
		defer func() {
			web.CloseIdleConnections()
			server.Close()
			synctest.Wait()
		}()
		if err := server.CreateStream("s", 1); err != nil {
			t.Fatal(err)
		}
		f(&bed{t, server, client})
	})
}

// sink sends each row as a record of its own.
func (b *bed) sink() *Sink { return b.sinkWith(Options{Plain: true}) }

func (b *bed) sinkWith(o Options) *Sink {
	b.Helper()
	o.Stream, o.Client, o.Logger = "s", b.client, slog.New(slog.DiscardHandler)
	s, err := New(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// stored returns the records in the stream as a client library shows them, in order.
func (b *bed) stored() []fake.Record {
	b.Helper()
	records, err := b.server.UserRecords("s")
	if err != nil {
		b.Fatal(err)
	}
	return records
}

// copies counts how often each row's n is in the stream, and checks every _id.
func (b *bed) copies(id stream.CheckpointID) map[int]int {
	b.Helper()
	n := make(map[int]int)
	for _, r := range b.stored() {
		var row struct {
			ID string `json:"_id"`
			N  int
		}
		if err := json.Unmarshal(r.Data, &row); err != nil {
			b.Fatalf("%s: %v", r.Data, err)
		}
		if want := fmt.Sprintf("%s-%d", id, row.N); row.ID != want {
			b.Fatalf("_id %q, want %q", row.ID, want)
		}
		n[row.N]++
	}
	return n
}

// each wants every row of n exactly once.
func (b *bed) each(id stream.CheckpointID, n int) {
	b.Helper()
	copies := b.copies(id)
	for i := range n {
		if copies[i] != 1 {
			b.Fatalf("row %d is there %d times", i, copies[i])
		}
	}
	if len(copies) != n {
		b.Fatalf("%d rows, want %d", len(copies), n)
	}
}

func rowsOf(n, padding int) []stream.Row {
	rows := make([]stream.Row, n)
	for i := range rows {
		rows[i] = stream.Row{Key: fmt.Sprint("key", i%7), Data: fmt.Appendf(nil, `{"n":%d,"pad":%q}`, i, strings.Repeat("x", padding))}
	}
	return rows
}

var id = stream.CheckpointID{Pipeline: "main", Genesis: "0123456789abcdef", Partition: "shardId-000000000000", Number: 12}

func TestDeliver(t *testing.T) {
	for _, c := range []struct{ rows, padding, requests int }{
		{0, 0, 0}, {1, 0, 1}, {500, 0, 1}, {501, 0, 2}, {1700, 0, 4},
		{20, 1 << 19, 3}, // 512 KiB each, and 5 MiB a request
		{4, 1<<20 - 200, 1},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			inBubble(t, fake.Options{}, func(b *bed) {
				s := b.sink()
				if err := s.Deliver(b.Context(), id, rowsOf(c.rows, c.padding)); err != nil {
					b.Fatal(err)
				}
				b.each(id, c.rows)
				if n := s.Counters(); n != (Counters{Requests: int64(c.requests)}) {
					b.Fatalf("%+v", n)
				}
				for _, r := range b.stored() {
					if !strings.HasPrefix(r.PartitionKey, "key") {
						b.Fatalf("key %q", r.PartitionKey)
					}
				}
			})
		})
	}
}

// Only the entries that failed are sent again: no row is there twice, though half of each request
// fails several times.
func TestPartialFailures(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		s := b.sink()
		hit := b.server.Inject(fake.Fault{Operation: "PutRecords", Times: 6, FailEntries: func(i int) bool { return i%2 == 0 }})
		if err := s.Deliver(b.Context(), id, rowsOf(700, 0)); err != nil {
			b.Fatal(err)
		}
		b.each(id, 700)
		if n := s.Counters(); hit.Hits() != 6 || n.Throttled < 250 || n.Ambiguous != 0 {
			b.Fatalf("%d hits, %+v", hit.Hits(), n)
		}
	})
}

// The negative control: a client that sends the whole request again leaves rows there twice, and each
// notices.
func TestWholeRequestAgainIsCaught(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		s := b.sink()
		s.putter.api = &wholeAgain{api: s.putter.api}
		b.server.Inject(fake.Fault{Operation: "PutRecords", Times: 2, FailEntries: func(i int) bool { return i%2 == 0 }})
		if err := s.Deliver(b.Context(), id, rowsOf(100, 0)); err != nil {
			b.Fatal(err)
		}
		twice := 0
		for _, n := range b.copies(id) {
			if n > 1 {
				twice++
			}
		}
		if twice != 50 {
			b.Fatalf("%d rows are there twice", twice)
		}
	})
}

// wholeAgain calls every entry failed when one has.
type wholeAgain struct{ api }

func (w *wholeAgain) PutRecords(ctx context.Context, in *awskinesis.PutRecordsInput, o ...func(*awskinesis.Options)) (*awskinesis.PutRecordsOutput, error) {
	out, err := w.api.PutRecords(ctx, in, o...)
	if err == nil && aws.ToInt32(out.FailedRecordCount) > 0 {
		for i := range out.Records {
			out.Records[i] = types.PutRecordsResultEntry{ErrorCode: aws.String("InternalFailure")}
		}
	}
	return out, err
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault fake.Fault
		check func(Counters, map[int]int) bool
	}{
		{"throttled", fake.Fault{Code: fake.ProvisionedThroughputExceeded}, func(c Counters, n map[int]int) bool { return c.Throttled == 2 && c.Ambiguous == 0 && n[0] == 1 }},
		{"internal", fake.Fault{Code: fake.InternalFailure}, func(c Counters, n map[int]int) bool { return c.Ambiguous == 2 && n[0] == 1 }},
		// The service did the work: the copies bear one _id, and are counted as ambiguous.
		{"lost reply", fake.Fault{LoseReply: true}, func(c Counters, n map[int]int) bool { return c.Ambiguous == 2 && n[0] == 3 }},
		{"half a reply", fake.Fault{CutReply: true}, func(c Counters, n map[int]int) bool { return c.Ambiguous == 2 && n[0] == 3 }},
		{"no reply", fake.Fault{Delay: time.Hour}, func(c Counters, n map[int]int) bool { return c.Ambiguous == 2 && n[0] == 1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, fake.Options{}, func(b *bed) {
				s := b.sink()
				c.fault.Operation, c.fault.Times = "PutRecords", 2
				hit := b.server.Inject(c.fault)
				if err := s.Deliver(b.Context(), id, rowsOf(10, 0)); err != nil {
					b.Fatal(err)
				}
				if hit.Hits() != 2 || !c.check(s.Counters(), b.copies(id)) {
					b.Fatalf("%d hits, %+v, %v", hit.Hits(), s.Counters(), b.copies(id))
				}
			})
		})
	}
}

// What somebody must mend is returned; when it is mended only the rest is sent.
func TestDeliverAgain(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		s := b.sink()
		b.server.Inject(fake.Fault{Operation: "PutRecords", FailEntries: func(i int) bool { return i >= 300 }})
		b.server.Inject(fake.Fault{Operation: "PutRecords", Code: fake.ExpiredToken})
		err := s.Deliver(b.Context(), id, rowsOf(500, 0))
		if !errors.Is(err, cloud.ErrExpired) {
			b.Fatal(err)
		}
		if n := len(b.stored()); n != 300 {
			b.Fatalf("%d rows stored", n)
		}
		if err := s.Deliver(b.Context(), id, rowsOf(500, 0)); err != nil {
			b.Fatal(err)
		}
		b.each(id, 500)
		if stored := s.unfinished.Resume(id, 500); slices.Contains(stored, true) {
			b.Fatal("a finished delivery is kept in mind")
		}
	})
}

func TestNothingStoredForLong(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		s := b.sink()
		b.server.Inject(fake.Fault{Operation: "PutRecords", Times: -1, FailEntries: func(int) bool { return true }})
		began := time.Now()
		err := s.Deliver(b.Context(), id, rowsOf(3, 0))
		if err == nil || !strings.Contains(err.Error(), "nothing stored for 1m0s") || time.Since(began) > 2*time.Minute {
			b.Fatalf("after %s: %v", time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(b.Context(), 3*time.Second)
		defer cancel()
		if err := s.Deliver(ctx, id, rowsOf(3, 0)); !errors.Is(err, context.DeadlineExceeded) {
			b.Fatal(err)
		}
	})
}

// Rows that the stream can never take are rejected alone.
func TestOversize(t *testing.T) {
	for _, c := range []struct {
		name   string
		server fake.Options
		denied bool
		limit  int
	}{
		{"as the stream says", fake.Options{MaxRecordBytes: 2 << 20}, false, 2 << 20},
		{"without the permission to ask", fake.Options{MaxRecordBytes: 2 << 20}, true, 1 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, c.server, func(b *bed) {
				if c.denied {
					b.server.Inject(fake.Fault{Operation: "DescribeStreamSummary", Code: "AccessDeniedException"})
				}
				s := b.sink()
				rows := rowsOf(6, 0)
				for at, more := range map[int]int{1: 1, 4: 0} { // 4 fits to the byte
					prefix := len(fmt.Sprintf(`{"_id":"%s-%d",`, id, at)) - 1
					empty := len(fmt.Sprintf(`{"n":%d,"pad":""}`, at))
					rows[at].Data = fmt.Appendf(nil, `{"n":%d,"pad":%q}`, at, strings.Repeat("x", c.limit+more-prefix-empty-len(rows[at].Key)))
				}
				err := s.Deliver(b.Context(), id, rows)
				var rejected *stream.Rejected
				if !errors.As(err, &rejected) || len(rejected.Rows) != 1 || rejected.Rows[0].Index != 1 || !strings.Contains(rejected.Rows[0].Reason, "takes at most") {
					b.Fatalf("%v", err)
				}
				if n := b.copies(id); len(n) != 5 || n[1] != 0 || n[4] != 1 {
					b.Fatalf("%v", n)
				}
			})
		})
	}
}

func TestMissing(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		for name, want := range map[string]string{"absent": "stream absent does not exist in us-east-1", "no name": "want a name"} {
			if _, err := New(b.Context(), Options{Stream: name, Client: b.client}); err == nil || !strings.Contains(err.Error(), want) {
				b.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestPartitionKey(t *testing.T) {
	long := strings.Repeat("ä", 257)
	for key, want := range map[string]string{
		"plain":                    "plain",
		"":                         "the id",
		strings.Repeat("ä", 256):   strings.Repeat("ä", 256),
		long:                       partitionKey(long, ""),
		"\xff not UTF-8":           partitionKey("\xff not UTF-8", ""),
		strings.Repeat("x", 1<<20): partitionKey(strings.Repeat("x", 1<<20), ""),
	} {
		if got := partitionKey(key, "the id"); got != want || len([]rune(got)) > 256 {
			t.Errorf("%.20q: %.20q", key, got)
		}
	}
	if partitionKey(long, "") == partitionKey(long+"x", "") || len(partitionKey(long, "")) != 64 {
		t.Error("different keys became one")
	}
}

func TestPublish(t *testing.T) {
	inBubble(t, fake.Options{}, func(b *bed) {
		p, err := NewPublisher(b.Context(), PublisherOptions{Client: b.client, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		keyed := message.NewMessage("u1", []byte("one"))
		keyed.Metadata.Set(MetadataPartitionKey, "mine")
		if err := p.Publish("s", keyed, message.NewMessage("u2", []byte("two")), message.NewMessage("", nil)); err != nil {
			b.Fatal(err)
		}
		var got []string
		for _, r := range b.stored() {
			got = append(got, r.PartitionKey+"="+string(r.Data))
		}
		if !slices.Equal(got, []string{"mine=one", "u2=two", "0="}) {
			b.Fatalf("%q", got)
		}
		if err := p.Publish("absent", keyed); err == nil || !strings.Contains(err.Error(), "stream absent does not exist") {
			b.Fatal(err)
		}
		big := message.NewMessage("u3", make([]byte, 1<<20))
		if err := p.Publish("s", message.NewMessage("u4", nil), big); err == nil || len(b.stored()) != 3 {
			b.Fatalf("%v, %d stored", err, len(b.stored()))
		}

		// Close ends a Publish that cannot get through.
		b.server.Inject(fake.Fault{Operation: "PutRecords", Code: fake.ServiceUnavailable, Times: -1})
		failed := make(chan error)
		go func() { failed <- p.Publish("s", keyed) }()
		synctest.Wait()
		p.Close()
		if err := <-failed; !errors.Is(err, ErrClosed) {
			b.Fatal(err)
		}
		if err := p.Publish("s", keyed); !errors.Is(err, ErrClosed) {
			b.Fatal(err)
		}
	})
}
