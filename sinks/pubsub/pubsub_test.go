package pubsub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/pubsub/v2"
	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	cloud "github.com/millstream/millstream/cloud/gcp"
	"github.com/millstream/millstream/cloud/retry"
	"github.com/millstream/millstream/stream"
)

// bed is Google's fake with one topic, behind a server in a bubble of virtual time.
type bed struct {
	*testing.T
	fake     *pstest.Server
	listener *bufconn.Listener
	client   *pubsub.Client
	fault    atomic.Pointer[fault]
}

// fault is what happens to requests until it has happened times times; -1 is for ever.
type fault struct {
	times int
	code  codes.Code
	lost  bool // the request is done, and its answer is code
	slow  time.Duration
	only  func(*pb.PublishRequest) bool
	hits  int
	mu    sync.Mutex
}

func (f *fault) hit(in *pb.PublishRequest) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hits == f.times || f.only != nil && !f.only(in) {
		return false
	}
	f.hits++
	return true
}

func (b *bed) intercept(ctx context.Context, in any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	request, publish := in.(*pb.PublishRequest)
	f := b.fault.Load()
	if !publish || f == nil || !f.hit(request) {
		return handle(ctx, in)
	}
	if f.lost {
		if _, err := handle(ctx, in); err != nil {
			return nil, err
		}
	}
	if f.slow > 0 {
		_ = retry.Sleep(ctx, f.slow)
	}
	return nil, status.Error(f.code, "as the test asked")
}

const topic = "projects/p/topics/rows"

func inBubble(t *testing.T, f func(b *bed)) {
	t.Helper()
	fake := pstest.NewServer()
	defer fake.Close()
	synctest.Test(t, func(t *testing.T) {
		b := &bed{T: t, fake: fake, listener: bufconn.Listen(1 << 20)}
		server := grpc.NewServer(grpc.MaxRecvMsgSize(20<<20), grpc.UnaryInterceptor(b.intercept))
		pb.RegisterPublisherServer(server, &fake.GServer)
		served := make(chan struct{})
		go func() {
			defer close(served)
			server.Serve(b.listener)
		}()
		b.client = b.dial()
		defer func() {
			b.client.Close()
			server.Stop()
			<-served
			synctest.Wait()
		}()
		if _, err := b.client.TopicAdminClient.CreateTopic(t.Context(), &pb.Topic{Name: topic}); err != nil {
			t.Fatal(err)
		}
		f(b)
	})
}

func (b *bed) dial(more ...grpc.DialOption) *pubsub.Client {
	b.Helper()
	options := []option.ClientOption{option.WithEndpoint("passthrough:///bed"), option.WithoutAuthentication(), option.WithTelemetryDisabled(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
		option.WithGRPCDialOption(grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return b.listener.DialContext(ctx) }))}
	for _, o := range more {
		options = append(options, option.WithGRPCDialOption(o))
	}
	client, err := pubsub.NewClient(b.Context(), "p", options...)
	if err != nil {
		b.Fatal(err)
	}
	return client
}

func (b *bed) sink(ordering bool) *Sink {
	b.Helper()
	s, err := New(b.Context(), Options{Project: "p", Topic: "rows", Ordering: ordering, Client: b.client, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// row is what a subscriber reads.
type row struct {
	ID string `json:"_id"`
	N  int
}

// copies counts how often each row's n is in the topic, and returns how many have an _id that is not
// their own.
func (b *bed) copies(id stream.CheckpointID) (copies map[int]int, foreign int) {
	b.Helper()
	copies = make(map[int]int)
	for _, m := range b.fake.Messages() {
		var r row
		if err := json.Unmarshal(m.Data, &r); err != nil {
			b.Fatalf("%s: %v", m.Data, err)
		}
		if r.ID != fmt.Sprintf("%s-%d", id, r.N) {
			foreign++
		}
		copies[r.N]++
	}
	return copies, foreign
}

// each wants every row of n exactly once.
func (b *bed) each(id stream.CheckpointID, n int) {
	b.Helper()
	copies, foreign := b.copies(id)
	if len(copies) != n || foreign != 0 {
		b.Fatalf("%d rows, want %d; %d with another _id", len(copies), n, foreign)
	}
	for i, times := range copies {
		if times != 1 {
			b.Fatalf("row %d is there %d times", i, times)
		}
	}
}

func rowsOf(n, padding int) []stream.Row {
	rows := make([]stream.Row, n)
	for i := range rows {
		rows[i] = stream.Row{Key: fmt.Sprint("key", i%7), Data: fmt.Appendf(nil, `{"n":%d,"pad":%q}`, i, strings.Repeat("x", padding))}
	}
	return rows
}

var id = stream.CheckpointID{Pipeline: "main", Genesis: "0123456789abcdef", Partition: "s", Number: 12}

func TestDeliver(t *testing.T) {
	for _, c := range []struct {
		rows, padding int
		ordering      bool
		requests      int
	}{
		{0, 0, false, 0}, {1, 0, false, 1}, {1000, 0, false, 1}, {1001, 0, false, 2}, {3700, 0, false, 4},
		{10, 1 << 19, false, 10}, // 512 KiB and a little each, and a request is full at 1 MiB
		{1, 9_000_000, false, 1}, // larger than a full request, and within the limit
		{14, 0, true, 7},         // one request a key
		{7*1000 + 1, 0, true, 8}, // 1,000 of each, and one more of one
		{18_000, 0, false, 18},   // more than are under way at once
		{40, 100_000, false, 4},  // ten to a request
		{7 * 11, 100_000, true, 7 * 2},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			inBubble(t, func(b *bed) {
				s := b.sink(c.ordering)
				if err := s.Deliver(b.Context(), id, rowsOf(c.rows, c.padding)); err != nil {
					b.Fatal(err)
				}
				b.each(id, c.rows)
				if n := s.Counters(); n != (Counters{Requests: int64(c.requests)}) {
					b.Fatalf("%+v", n)
				}
				for _, m := range b.fake.Messages() {
					if c.ordering != strings.HasPrefix(m.OrderingKey, "key") || m.Attributes != nil {
						b.Fatalf("ordering key %q, attributes %v", m.OrderingKey, m.Attributes)
					}
				}
			})
		})
	}
}

// A request that fails does not hold up the others, and only its messages are sent again.
func TestSomeFail(t *testing.T) {
	inBubble(t, func(b *bed) {
		s := b.sink(false)
		f := &fault{times: 6, code: codes.Unavailable, only: func(in *pb.PublishRequest) bool { return len(in.Messages) == 700 }}
		b.fault.Store(f)
		if err := s.Deliver(b.Context(), id, rowsOf(2700, 0)); err != nil {
			b.Fatal(err)
		}
		b.each(id, 2700)
		if n := s.Counters(); f.hits != 6 || n != (Counters{Requests: 9, Ambiguous: 6}) {
			b.Fatalf("%d hits, %+v", f.hits, n)
		}
	})
}

// The rows of a key stay in their order whatever fails on the way; rows without one go as they come.
func TestOrdering(t *testing.T) {
	inBubble(t, func(b *bed) {
		s := b.sink(true)
		rows := rowsOf(7*1500, 0)
		rows[3].Key = ""
		turn := 0
		b.fault.Store(&fault{times: 10, code: codes.ResourceExhausted, only: func(*pb.PublishRequest) bool { turn++; return turn%2 == 0 }})
		if err := s.Deliver(b.Context(), id, rows); err != nil {
			b.Fatal(err)
		}
		last := make(map[string]int)
		for _, m := range b.fake.Messages() {
			var r row
			if err := json.Unmarshal(m.Data, &r); err != nil {
				b.Fatal(err)
			}
			if m.OrderingKey != rows[r.N].Key || r.N < last[m.OrderingKey] {
				b.Fatalf("row %d after row %d of key %q", r.N, last[m.OrderingKey], m.OrderingKey)
			}
			last[m.OrderingKey] = r.N
		}
		b.each(id, len(rows))
	})
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault *fault
		check func(Counters, map[int]int) bool
	}{
		{"quota", &fault{code: codes.ResourceExhausted}, func(c Counters, n map[int]int) bool { return c.Throttled == 2 && c.Ambiguous == 0 && n[0] == 1 }},
		{"internal", &fault{code: codes.Internal}, func(c Counters, n map[int]int) bool { return c.Ambiguous == 2 && n[0] == 1 }},
		{"aborted", &fault{code: codes.Aborted}, func(c Counters, n map[int]int) bool { return c.Ambiguous == 2 && n[0] == 1 }},
		// The service did the work: the copies bear one _id, and are counted as ambiguous.
		{"lost reply", &fault{code: codes.Unavailable, lost: true}, func(c Counters, n map[int]int) bool { return c.Ambiguous == 2 && n[0] == 3 }},
		{"no reply", &fault{code: codes.Unavailable, slow: time.Hour}, func(c Counters, n map[int]int) bool { return c.Ambiguous == 2 && n[0] == 1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(b *bed) {
				s := b.sink(false)
				c.fault.times = 2
				b.fault.Store(c.fault)
				if err := s.Deliver(b.Context(), id, rowsOf(10, 0)); err != nil {
					b.Fatal(err)
				}
				copies, foreign := b.copies(id)
				if c.fault.hits != 2 || foreign != 0 || !c.check(s.Counters(), copies) {
					b.Fatalf("%d hits, %+v, %v, %d with another _id", c.fault.hits, s.Counters(), copies, foreign)
				}
			})
		})
	}
}

// The same rows under the same id bear the same _id, whichever process delivers them. The negative
// control is one that delivers them under an id of its own: the copies cannot be told.
func TestStableID(t *testing.T) {
	own := id
	own.Number++
	for _, c := range []struct {
		second  stream.CheckpointID
		foreign int
	}{{id, 0}, {own, 10}} {
		inBubble(t, func(b *bed) {
			for _, as := range []stream.CheckpointID{id, c.second} {
				if err := b.sink(false).Deliver(b.Context(), as, rowsOf(10, 0)); err != nil {
					b.Fatal(err)
				}
			}
			copies, foreign := b.copies(id)
			if foreign != c.foreign || len(copies) != 10 || copies[3] != 2 {
				b.Fatalf("%d of the copies have another _id, want %d: %v", foreign, c.foreign, copies)
			}
		})
	}
}

// What somebody must mend is returned with the topic and the count; when it is mended only the rest
// is sent.
func TestDeliverAgain(t *testing.T) {
	inBubble(t, func(b *bed) {
		s := b.sink(false)
		f := &fault{times: -1, code: codes.PermissionDenied, slow: time.Second, only: func(in *pb.PublishRequest) bool { return len(in.Messages) == 500 }}
		b.fault.Store(f)
		err := s.Deliver(b.Context(), id, rowsOf(2500, 0))
		if !errors.Is(err, cloud.ErrDenied) || !strings.HasPrefix(err.Error(), "pubsub: topic "+topic+": 500 of 2500 messages are not published: access denied") {
			b.Fatal(err)
		}
		b.fault.Store(nil)
		if err := s.Deliver(b.Context(), id, rowsOf(2500, 0)); err != nil {
			b.Fatal(err)
		}
		b.each(id, 2500)
		if n := s.Counters().Requests; n != 4 || slices.Contains(s.unfinished.Resume(id, 2500), true) {
			b.Fatalf("%d requests, or a finished delivery is kept in mind", n)
		}
	})
}

func TestNothingStoredForLong(t *testing.T) {
	inBubble(t, func(b *bed) {
		s := b.sink(false)
		b.fault.Store(&fault{times: -1, code: codes.Unavailable})
		began := time.Now()
		err := s.Deliver(b.Context(), id, rowsOf(3, 0))
		if err == nil || !strings.Contains(err.Error(), "nothing stored for 1m0s: Unavailable: as the test asked") || time.Since(began) > 2*patience {
			b.Fatalf("after %s: %v", time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(b.Context(), 3*time.Second)
		defer cancel()
		if err := s.Deliver(ctx, id, rowsOf(3, 0)); !errors.Is(err, context.DeadlineExceeded) {
			b.Fatal(err)
		}
	})
}

// Rows that the topic can never take are rejected alone: those that are too large before they are
// sent, those that a schema refuses by halving the request.
func TestRejected(t *testing.T) {
	inBubble(t, func(b *bed) {
		s := b.sink(false)
		rows := rowsOf(100, 0)
		overhead := len(fmt.Sprintf(`{"_id":"%s-4",`, id)) - 1 + len(`{"n":4,"pad":""}`)
		for at, more := range map[int]int{1: 1, 4: 0} { // 4 fits to the byte
			frame := 2*(1+varint(maxRequest)) + len(topic) + 3 // lengths of message and data, and the topic
			rows[at].Data = fmt.Appendf(nil, `{"n":%d,"pad":%q}`, at, strings.Repeat("x", maxRequest+more-overhead-frame))
		}
		b.fault.Store(&fault{times: -1, code: codes.InvalidArgument, only: func(in *pb.PublishRequest) bool {
			return slices.ContainsFunc(in.Messages, func(m *pb.PubsubMessage) bool {
				return strings.Contains(string(m.Data), `"n":77,`) || strings.Contains(string(m.Data), `"n":12,`)
			})
		}})
		err := s.Deliver(b.Context(), id, rows)
		var rejected *stream.Rejected
		if !errors.As(err, &rejected) || len(rejected.Rows) != 3 || s.Counters().Rejected != 3 {
			b.Fatalf("%v", err)
		}
		reasons := map[int]string{}
		for _, r := range rejected.Rows {
			reasons[r.Index] = r.Reason
		}
		if !strings.Contains(reasons[1], "a topic takes at most") || reasons[12] != "InvalidArgument: as the test asked" || reasons[77] != reasons[12] {
			b.Fatalf("%v", reasons)
		}
		copies, foreign := b.copies(id)
		if len(copies) != 97 || foreign != 0 || copies[4] != 1 || copies[1]+copies[12]+copies[77] != 0 {
			b.Fatalf("%v", copies)
		}
	})
}

func TestMissing(t *testing.T) {
	inBubble(t, func(b *bed) {
		for name, want := range map[string]string{"absent": "pubsub: topic projects/p/topics/absent does not exist", "no name": "want a name"} {
			began := time.Now()
			if _, err := New(b.Context(), Options{Project: "p", Topic: name, Client: b.client}); err == nil || !strings.Contains(err.Error(), want) || time.Since(began) > time.Second {
				b.Errorf("%s: after %s: %v", name, time.Since(began), err)
			}
		}
		// It can also go later.
		s := b.sink(false)
		if err := b.client.TopicAdminClient.DeleteTopic(b.Context(), &pb.DeleteTopicRequest{Topic: topic}); err != nil {
			b.Fatal(err)
		}
		err := s.Deliver(b.Context(), id, rowsOf(3, 0))
		if err == nil || err.Error() != "pubsub: topic "+topic+": 3 of 3 messages are not published: it does not exist" {
			b.Fatal(err)
		}
	})
}

// Whoever may only publish need not be able to ask for the topic; a service that does not answer is an
// error after a while.
func TestAsking(t *testing.T) {
	inBubble(t, func(b *bed) {
		for code, want := range map[codes.Code]string{codes.PermissionDenied: "", codes.Unavailable: "Unavailable: so it is"} {
			_, err := newWriter(b.Context(), answering(code), topic, new(counters), slog.New(slog.DiscardHandler))
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				b.Errorf("%s: %v", code, err)
			}
		}
	})
}

type answering codes.Code

func (a answering) GetTopic(context.Context, *pb.GetTopicRequest, ...gax.CallOption) (*pb.Topic, error) {
	return nil, status.Error(codes.Code(a), "so it is")
}

func (a answering) Publish(context.Context, *pb.PublishRequest, ...gax.CallOption) (*pb.PublishResponse, error) {
	return nil, status.Error(codes.Code(a), "so it is")
}

func TestOrderingKey(t *testing.T) {
	long := strings.Repeat("ä", 513)
	for key, want := range map[string]string{
		"plain":                  "plain",
		"":                       "",
		strings.Repeat("ä", 512): strings.Repeat("ä", 512),
		long:                     orderingKey(long),
		"\xff not UTF-8":         orderingKey("\xff not UTF-8"),
	} {
		if got := orderingKey(key); got != want || len(got) > maxOrderingKey {
			t.Errorf("%.20q: %.20q", key, got)
		}
	}
	if orderingKey(long) == orderingKey(long+"x") || len(orderingKey(long)) != 64 {
		t.Error("different keys became one")
	}
}

func TestPublish(t *testing.T) {
	inBubble(t, func(b *bed) {
		p, err := NewPublisher(b.Context(), PublisherOptions{Project: "p", Client: b.client, Ordering: true, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		keyed := message.NewMessage("u1", []byte("one"))
		keyed.Metadata.Set(MetadataOrderingKey, "mine")
		keyed.Metadata.Set("colour", "red")
		if err := p.Publish("rows", keyed); err != nil {
			b.Fatal(err)
		}
		if err := p.Publish(topic, message.NewMessage("u2", []byte("two"))); err != nil {
			b.Fatal(err)
		}
		var got []string
		for _, m := range b.fake.Messages() {
			got = append(got, fmt.Sprint(m.OrderingKey, "=", string(m.Data), m.Attributes))
		}
		if !slices.Equal(got, []string{"mine=one" + "map[_watermill_message_uuid:u1 colour:red]", "=two" + "map[_watermill_message_uuid:u2]"}) {
			b.Fatalf("%q", got)
		}
		if err := p.Publish("absent", keyed); err == nil || !strings.Contains(err.Error(), "topic projects/p/topics/absent does not exist") {
			b.Fatal(err)
		}
		for _, bad := range []*message.Message{message.NewMessage("u3", make([]byte, maxRequest)), message.NewMessage("", nil)} {
			if err := p.Publish("rows", message.NewMessage("u4", nil), bad); err == nil || len(b.fake.Messages()) != 2 {
				b.Fatalf("%v, %d stored", err, len(b.fake.Messages()))
			}
		}
		b.fault.Store(&fault{times: -1, code: codes.InvalidArgument, only: func(in *pb.PublishRequest) bool {
			return slices.ContainsFunc(in.Messages, func(m *pb.PubsubMessage) bool { return string(m.Data) == "bad" })
		}})
		err = p.Publish("rows", message.NewMessage("u5", []byte("good")), message.NewMessage("u6", []byte("bad")))
		if err == nil || !strings.Contains(err.Error(), "refuses 1 of 2 messages, message u6 with") || len(b.fake.Messages()) != 3 {
			b.Fatal(err)
		}

		// Close ends a Publish that cannot get through.
		b.fault.Store(&fault{times: -1, code: codes.Unavailable})
		failed := make(chan error)
		go func() { failed <- p.Publish("rows", keyed) }()
		synctest.Wait()
		go p.Close()
		if err := <-failed; !errors.Is(err, ErrClosed) {
			b.Fatal(err)
		}
		p.Close()
		if err := p.Publish("rows", keyed); !errors.Is(err, ErrClosed) {
			b.Fatal(err)
		}
	})
}

// A client that New makes from an address finds a stand-in without credentials, also by the
// environment, and Close closes it.
func TestEndpoint(t *testing.T) {
	fake := pstest.NewServer()
	defer fake.Close()
	if _, err := fake.GServer.CreateTopic(t.Context(), &pb.Topic{Name: topic}); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{{Project: "p", Topic: "rows", Endpoint: fake.Addr}, {Project: "p", Topic: "rows"}} {
		t.Setenv(cloud.EmulatorVariable, fake.Addr)
		if o.Endpoint != "" {
			t.Setenv(cloud.EmulatorVariable, "127.0.0.1:1")
		}
		s, err := New(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Deliver(t.Context(), id, rowsOf(3, 0)); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
