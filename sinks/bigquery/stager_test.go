package bigquery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"google.golang.org/grpc/codes"

	fake "github.com/millstream/millstream/fakes/bigquery"
	"github.com/millstream/millstream/sinks/sinktest"
	"github.com/millstream/millstream/stream"
)

func idOf(number uint64, part int) stream.CheckpointID {
	return stream.CheckpointID{Pipeline: "main", Genesis: "GENESIS", Partition: "p0", Number: number, Part: part}
}

// rowsOf makes rows with labels a0, a1, …
func rowsOf(label string, n int) []stream.Row {
	rows := make([]stream.Row, n)
	for i := range rows {
		rows[i].Data = fmt.Appendf(nil, `{"row":"%s%d","n":%d}`, label, i, i)
	}
	return rows
}

func stagerOf(t testing.TB, server *fake.Server, o Options) *Stager {
	t.Helper()
	return mustOpen(t, server, o).(*Stager)
}

func mustStage(t testing.TB, s *Stager, id stream.CheckpointID, rows []stream.Row) []byte {
	t.Helper()
	token, err := s.Stage(t.Context(), id, rows)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func mustCommit(t testing.TB, s *Stager, tokens ...[]byte) {
	t.Helper()
	for _, token := range tokens {
		if err := s.Commit(t.Context(), token); err != nil {
			t.Fatal(err)
		}
	}
}

// labels are the visible rows, in order, with a count for what is there twice.
func labels(t testing.TB, server *fake.Server) string {
	t.Helper()
	rows, err := server.Rows("p.d.rows")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	times := make(map[any]int)
	for _, r := range rows {
		times[r["row"]]++
		text := fmt.Sprint(r["row"])
		if n := times[r["row"]]; n > 1 {
			text += fmt.Sprintf("(%d)", n)
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

func streams(t testing.TB, server *fake.Server) []fake.StreamInfo {
	t.Helper()
	info, err := server.Streams("p.d.rows")
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// One stream serves a partition from checkpoint to checkpoint, and the parts of one entry.
func TestOneStream(t *testing.T) {
	server := serve(t, suiteTable)
	s := stagerOf(t, server, Options{})
	for n := range uint64(5) {
		a, b := mustStage(t, s, idOf(n, 0), rowsOf(fmt.Sprint("a", n, "-"), 2)), mustStage(t, s, idOf(n, 1), rowsOf(fmt.Sprint("b", n, "-"), 1))
		if got := labels(t, server); strings.Contains(got, fmt.Sprint("a", n)) {
			t.Errorf("staged rows are visible: %s", got)
		}
		mustCommit(t, s, a, b, b, a)
	}
	if got := len(streams(t, server)); got != 1 {
		t.Errorf("%d streams for one partition", got)
	}
	if got := len(strings.Fields(labels(t, server))); got != 15 || strings.Contains(labels(t, server), "(") {
		t.Error(labels(t, server))
	}
	if c := s.Counters(); c.Streams != 1 || c.Requests != 10 || c.Flushes != 20 || c.Ambiguous != 0 {
		t.Errorf("%+v", c)
	}
}

// What was staged and never saved is not swept along by what is committed after it; the control shows that
// it would be.
func TestUncommitted(t *testing.T) {
	for _, control := range []bool{false, true} {
		server := serve(t, suiteTable)
		s := stagerOf(t, server, Options{})
		s.rules.keepUncommitted = control
		mustCommit(t, s, mustStage(t, s, idOf(1, 0), rowsOf("saved", 1)))
		mustStage(t, s, idOf(2, 0), rowsOf("lost", 2))   // the process that staged it was fenced
		mustStage(t, s, idOf(3, 0), rowsOf("again", 1))  // an attempt at entry 3 that was given up …
		mustStage(t, s, idOf(3, 1), rowsOf("again1", 1)) // … after its second part
		first := mustStage(t, s, idOf(3, 0), rowsOf("third", 1))
		second := mustStage(t, s, idOf(3, 1), rowsOf("fourth", 1))
		mustCommit(t, s, first, second)
		got := labels(t, server)
		if (got == "saved0 third0 fourth0") == control {
			t.Errorf("control %t: %s", control, got)
		}
	}
}

// A token of a stream that was abandoned shows what it names, and nothing else of that stream.
func TestTokenOfAbandonedStream(t *testing.T) {
	server := serve(t, suiteTable)
	s := stagerOf(t, server, Options{})
	kept := mustStage(t, s, idOf(1, 0), rowsOf("kept", 2))
	server.Inject(fake.Fault{Operation: fake.AppendRows, Times: attempts, LoseReply: true, Skip: 0})
	stop := server.Inject(fake.Fault{Operation: fake.AppendRows, Times: -1, Break: true})
	if _, err := s.Stage(t.Context(), idOf(1, 1), rowsOf("failed", 2)); err == nil {
		t.Fatal("a broken stream staged rows")
	}
	stop.Stop()
	more := mustStage(t, s, idOf(1, 1), rowsOf("failed", 2))
	mustCommit(t, s, more, kept, kept)
	if got := labels(t, server); got != "failed0 failed1 kept0 kept1" {
		t.Error(got)
	}
}

// Lost replies to an append: the same bytes at the same offset are stored once. In the control a stage that
// failed goes on in the same stream, and its rows are seen twice.
func TestFailedStage(t *testing.T) {
	for _, control := range []bool{false, true} {
		server := serve(t, suiteTable)
		s := stagerOf(t, server, Options{})
		s.rules.keepFailed = control
		s.rules.keepUncommitted = control // which would abandon it too
		mustCommit(t, s, mustStage(t, s, idOf(1, 0), rowsOf("first", 1)))
		s.full = 1 // each row is a request of its own
		large := rowsOf("b", 2)
		stop := server.Inject(fake.Fault{Operation: fake.AppendRows, Skip: 1, Times: -1, Break: true})
		if _, err := s.Stage(t.Context(), idOf(2, 0), large); err == nil {
			t.Fatal("a broken stream staged rows")
		}
		stop.Stop()
		mustCommit(t, s, mustStage(t, s, idOf(2, 0), large))
		got := labels(t, server)
		if (got == "first0 b0 b1") == control {
			t.Errorf("control %t: %s", control, got)
		}
	}
}

// ALREADY_EXISTS is success only for the very bytes that were sent before; the control loses a row.
func TestAlreadyExists(t *testing.T) {
	for _, control := range []bool{false, true} {
		server := serve(t, suiteTable)
		s := stagerOf(t, server, Options{})
		s.rules.trustExists = control
		mustCommit(t, s, mustStage(t, s, idOf(1, 0), rowsOf("first", 1)))
		// Somebody else writes into our stream.
		other := stagerOf(t, server, Options{})
		f, err := other.freeze(t.Context(), 1, func(p *plan, _ int) ([]byte, error) { return p.encode([]byte(`{"row":"foreign"}`), false) })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.service.append(t.Context(), request{streams(t, server)[0].Name, f.plan, 1, f.batches[0].rows}); err != nil {
			t.Fatal(err)
		}
		mustCommit(t, s, mustStage(t, s, idOf(2, 0), rowsOf("second", 1)))
		got := labels(t, server)
		if (got == "first0 second0") == control {
			t.Errorf("control %t: %s", control, got)
		}
	}
}

// lateAppend refuses the first row of the first append with an unknown end, whose bytes arrive later.
type lateAppend struct {
	backend
	calls int
	first request
}

func (l *lateAppend) append(ctx context.Context, r request) (*pb.AppendRowsResponse, error) {
	switch l.calls++; l.calls {
	case 1: // held up on the way
		l.first = r
		return nil, sinktest.ErrLost
	case 2:
		return &pb.AppendRowsResponse{RowErrors: []*pb.RowError{{Index: 0, Message: "not now"}}}, nil
	case 3: // and there it is
		if _, err := l.backend.append(ctx, l.first); err != nil {
			return nil, err
		}
	}
	return l.backend.append(ctx, r)
}

// corrupting spoils rows on their way to the service.
type corrupting struct{ backend }

func (c *corrupting) append(ctx context.Context, r request) (*pb.AppendRowsResponse, error) {
	r.rows = slices.Clone(r.rows)
	for i, row := range r.rows {
		if bytes.Contains(row, []byte("corrupt")) {
			r.rows[i] = []byte{0xff}
		}
	}
	return c.backend.append(ctx, r)
}

// hangingUp needs a connection for each request.
type hangingUp struct{ backend }

func (h *hangingUp) append(ctx context.Context, r request) (*pb.AppendRowsResponse, error) {
	h.drop(r.stream)
	return h.backend.append(ctx, r)
}

// A row that is refused after an attempt with an unknown end: what lies at the offset may be the bytes with
// the row, so the rest must go to a new stream. In the control they are taken for stored.
func TestRefusedAfterAmbiguousAppend(t *testing.T) {
	for _, control := range []bool{false, true} {
		server := serve(t, suiteTable)
		s := stagerOf(t, server, Options{})
		s.rules.freshBytes = control
		late := &lateAppend{backend: s.service}
		s.service = late
		// Both are rows that the service takes; the first is refused once, as it is while a schema changes.
		rows := []stream.Row{{Data: []byte(`{"row":"refused"}`)}, {Data: []byte(`{"row":"good"}`)}}
		token, err := s.Stage(t.Context(), idOf(1, 0), rows)
		var rejected *stream.Rejected
		if !errors.As(err, &rejected) || len(rejected.Rows) != 1 || rejected.Rows[0].Index != 0 {
			t.Fatal(err)
		}
		mustCommit(t, s, token)
		if got := labels(t, server); (got == "good") == control {
			t.Errorf("control %t: %s", control, got)
		}
	}
}

// A stream that does not answer is given up after the deadline and the rows go over another connection.
func TestStalled(t *testing.T) {
	for _, done := range []bool{false, true} {
		server := serve(t, suiteTable)
		s := stagerOf(t, server, Options{Deadline: 200 * time.Millisecond})
		mustCommit(t, s, mustStage(t, s, idOf(1, 0), rowsOf("a", 2)))
		stall := server.Inject(fake.Fault{Operation: fake.AppendRows, Stall: true, LoseReply: done})
		mustCommit(t, s, mustStage(t, s, idOf(2, 0), rowsOf("b", 2)))
		if got := labels(t, server); got != "a0 a1 b0 b1" || stall.Hits() != 1 || s.Counters().Ambiguous != 1 {
			t.Error(done, got, stall.Hits(), s.Counters())
		}
	}
}

// Without the deadline the same stream holds the partition for ever.
func TestStalledControl(t *testing.T) {
	server := serve(t, suiteTable)
	s := stagerOf(t, server, Options{Deadline: time.Hour})
	stall := server.Inject(fake.Fault{Operation: fake.AppendRows, Stall: true})
	ctx, giveUp := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := s.Stage(ctx, idOf(1, 0), rowsOf("a", 2))
		ended <- err
	}()
	<-stall.Done()
	select {
	case err := <-ended:
		t.Fatal("it ended by itself:", err)
	case <-time.After(300 * time.Millisecond):
	}
	giveUp()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// One bad row among many is rejected alone, each time.
func TestOneBadRow(t *testing.T) {
	for bad, c := range map[string]struct {
		rows int
		why  string
	}{
		`{"n":1}`:                        {10_000, "column row is required, and the row has none"},
		`{"row":"x","more":1}`:           {100, "the table has no column more"},
		`{"row":"x","n":"many"}`:         {100, "column n is INT64"},
		`[]`:                             {100, "no JSON object"},
		`{"row":"x","pad":"\ufffe\ud8"}`: {1, "no JSON object"},
	} {
		server := serve(t, suiteTable)
		s := stagerOf(t, server, Options{})
		rows := rowsOf("r", c.rows)
		at := c.rows * 3 / 4
		rows[at].Data = []byte(bad)
		for n := range uint64(2) {
			token, err := s.Stage(t.Context(), idOf(n, 0), rows)
			var rejected *stream.Rejected
			if !errors.As(err, &rejected) || len(rejected.Rows) != 1 || rejected.Rows[0].Index != at || !strings.Contains(rejected.Rows[0].Reason, c.why) {
				t.Fatalf("%s: %v", bad, err)
			}
			if token != nil {
				mustCommit(t, s, token)
			}
		}
		if visible, err := server.Rows("p.d.rows"); err != nil || len(visible) != 2*(c.rows-1) {
			t.Error(len(visible), err)
		}
	}
}

// The service's own row errors reject those rows, wherever in several requests they are.
func TestRowErrors(t *testing.T) {
	server := serve(t, suiteTable)
	s := stagerOf(t, server, Options{})
	s.service = &corrupting{s.service}
	rows := rowsOf("r", 3000)
	s.full = 14_000 // in some requests
	for _, i := range []int{0, 1, 1500, 2999} {
		rows[i].Data = []byte(`{"row":"corrupt"}`)
	}
	token, err := s.Stage(t.Context(), idOf(1, 0), rows)
	var rejected *stream.Rejected
	if !errors.As(err, &rejected) || len(rejected.Rows) != 4 || rejected.Rows[2].Index != 1500 || !strings.Contains(rejected.Rows[0].Reason, "refuses the row: the row does not decode") {
		t.Fatal(err)
	}
	mustCommit(t, s, token)
	if visible, _ := server.Rows("p.d.rows"); len(visible) != 2996 || len(streams(t, server)) != 1 || s.Counters().Requests < 5 {
		t.Error(len(visible), streams(t, server))
	}
	// All of them: there is nothing to commit.
	token, err = s.Stage(t.Context(), idOf(2, 0), []stream.Row{{Data: []byte(`{"row":"corrupt"}`)}})
	if token != nil || !errors.As(err, &rejected) {
		t.Error(token, err)
	}
}

// Commit of rows that are gone is an error, not silence.
func TestGone(t *testing.T) {
	server := serve(t, suiteTable)
	s := stagerOf(t, server, Options{})
	token := mustStage(t, s, idOf(1, 0), rowsOf("a", 2))
	if err := server.Expire(streams(t, server)[0].Name); err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{token, []byte("{}"), []byte("x"), nil} {
		if err := s.Commit(t.Context(), bad); !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "p.d.rows") {
			t.Error(err)
		}
	}
	mustCommit(t, s, mustStage(t, s, idOf(2, 0), rowsOf("b", 1)))
	// A stream that has expired while nothing waited in it is made anew without a word.
	if err := server.Expire(streams(t, server)[0].Name); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, s, mustStage(t, s, idOf(3, 0), rowsOf("c", 1)))
	if got := labels(t, server); got != "b0 c0" {
		t.Error(got)
	}
}

// The service may say that a flush was done before.
func TestFlushedBefore(t *testing.T) {
	server := serve(t, suiteTable)
	s := stagerOf(t, server, Options{})
	token := mustStage(t, s, idOf(1, 0), rowsOf("a", 2))
	mustCommit(t, s, token)
	server.Inject(fake.Fault{Operation: "FlushRows", Code: codes.AlreadyExists})
	mustCommit(t, s, token)
	server.Inject(fake.Fault{Operation: "FlushRows", Times: 3, LoseReply: true})
	mustCommit(t, s, mustStage(t, s, idOf(2, 0), rowsOf("b", 1)))
	if got := labels(t, server); got != "a0 a1 b0" {
		t.Error(got)
	}
}

// A process that dies at any call, and one that follows it: whoever looks sees each row at most once at
// every moment, and in the end all. The successor commits what was saved, or stages again.
func TestFollowed(t *testing.T) {
	for call := 1; ; call++ {
		met := false
		for _, done := range []bool{false, true} {
			server := serve(t, suiteTable)
			looking, stop := context.WithCancel(t.Context())
			var wait sync.WaitGroup
			wait.Go(func() {
				for looking.Err() == nil {
					rows, err := server.Rows("p.d.rows")
					if err != nil {
						t.Error(err)
					}
					once := make(map[any]bool)
					for _, r := range rows {
						if once[r["row"]] {
							t.Error("a reader sees twice", r["row"])
						}
						once[r["row"]] = true
					}
				}
			})
			wire := new(sinktest.Wire)
			opened, err := openSink(t, server, Options{}, wire)
			if err != nil {
				t.Fatal(err)
			}
			wire.Begin(func(n int) sinktest.Fault {
				met = met || n == call
				return sinktest.Fault{Killed: n == call, Lost: n == call && done}
			})
			type entry struct {
				number uint64
				tokens [][]byte
			}
			var saved *entry // the newest in the log
			work := func(s *Stager, from uint64, dies bool) bool {
				for n := from; n <= 3; n++ {
					e := &entry{number: n}
					for part := range 2 {
						token, err := s.Stage(t.Context(), idOf(n+map[bool]uint64{false: 100}[dies], part), rowsOf(fmt.Sprintf("e%d-%d-", n, part), 3))
						if err != nil {
							return false
						}
						e.tokens = append(e.tokens, token)
					}
					saved = e
					for _, token := range e.tokens {
						if s.Commit(t.Context(), token) != nil {
							return false
						}
					}
				}
				return true
			}
			work(opened.(*Stager), 1, true)
			successor := stagerOf(t, server, Options{})
			from := uint64(1)
			if saved != nil {
				mustCommit(t, successor, saved.tokens...)
				from = saved.number + 1
			}
			if !work(successor, from, false) {
				t.Fatal("the successor failed")
			}
			if saved != nil {
				mustCommit(t, successor, saved.tokens...) // as a zombie does
			}
			stop()
			wait.Wait()
			if got := labels(t, server); len(strings.Fields(got)) != 18 || strings.Contains(got, "(") {
				t.Errorf("killed at call %d (done: %t): %s", call, done, got)
			}
		}
		if !met {
			if call < 10 {
				t.Errorf("only %d calls were disturbed", call)
			}
			return
		}
	}
}

// The suite finds each broken rule.
func TestSuiteFindsBrokenRules(t *testing.T) {
	for name, r := range map[string]rules{"what was never saved": {keepUncommitted: true}} {
		caught := 0
		for _, c := range sinktest.Cases() {
			if c.Name == "Abandoned" && c.Holds(t.Context(), destination(t, suiteTable, r)) != nil {
				caught++
			}
		}
		if caught == 0 {
			t.Error("nobody misses the rule about", name)
		}
	}
}

// Every call fails now and then, in every way; what is staged and committed is there once.
func TestService(t *testing.T) {
	for name, f := range map[string]fake.Fault{
		"refused":  {Code: codes.Unavailable},
		"quota":    {Code: codes.ResourceExhausted},
		"internal": {Code: codes.Internal},
		"broken":   {Operation: fake.AppendRows, Break: true},
		"lost":     {LoseReply: true},
		"no way":   {Operation: fake.Connect, Code: codes.Unavailable},
	} {
		server := serve(t, suiteTable)
		s := stagerOf(t, server, Options{})
		f.Every, f.Times = 3, -1
		if f.Operation == fake.Connect {
			f.Every = 2
			s.service = &hangingUp{backend: s.service}
		}
		armed := server.Inject(f)
		for n := range uint64(20) {
			mustCommit(t, s, mustStage(t, s, idOf(n, 0), rowsOf(fmt.Sprint("e", n, "-"), 5)))
		}
		if got := labels(t, server); len(strings.Fields(got)) != 100 || strings.Contains(got, "(") || armed.Hits() == 0 {
			t.Errorf("%s (%d hits): %s", name, armed.Hits(), got)
		}
	}
}
