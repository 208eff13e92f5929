package stream_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/stream"
	"github.com/millstream/millstream/stream/streamtest"
)

// slowly takes its own time for every batch, the first of them the longest, and refuses some of the events.
type slowly struct {
	mu      sync.Mutex
	batches int
	active  int
	most    int
	lanes   int
}

type numbered struct{ n, lane int }

// Lane implements stream.LaneEnricher.
func (s *slowly) Lane() stream.Enricher[numbered] {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lanes++
	return laneOf{s, s.lanes}
}

func (s *slowly) Enrich(context.Context, []stream.Event[numbered]) error {
	return errors.New("the lane's own was not asked")
}

type laneOf struct {
	*slowly
	lane int
}

var errSeven = errors.New("seven")

func (l laneOf) Enrich(_ context.Context, events []stream.Event[numbered]) error {
	l.mu.Lock()
	l.batches++
	takes := time.Duration(13-l.batches%13) * time.Second
	l.active++
	l.most = max(l.most, l.active)
	l.mu.Unlock()
	<-time.After(takes)
	for i := range events {
		e := &events[i]
		e.Value.lane = l.lane
		switch {
		case e.Value.n%7 == 0:
			e.Refuse(errSeven)
			e.Refuse(stream.Filtered) // the first call counts
		case e.Value.n%5 == 0:
			e.Refuse(stream.Filtered)
		}
	}
	l.mu.Lock()
	l.active--
	l.mu.Unlock()
	return nil
}

// Batches are enriched ahead of the one at hand, several at once, end in any order, and are processed in theirs.
func TestEnrichedAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowly{}
		p := &stream.Pipeline[numbered, int]{
			Decode: func(r *stream.Record) (e stream.Event[numbered], err error) {
				_, err = fmt.Sscan(string(r.Data), &e.Value.n)
				return e, err
			},
			Enrich:   []stream.Enricher[numbered]{s},
			Keep:     func(e *stream.Event[numbered]) bool { return e.Refused() == nil && e.Value.lane > 0 },
			Operator: &stream.Map[numbered, int]{Func: func(e *stream.Event[numbered]) (int, error) { return e.Value.n, nil }},
			Encode:   func(n *int) (stream.Row, error) { return stream.Row{Data: fmt.Append(nil, *n)}, nil },
			Logger:   slog.New(slog.DiscardHandler),
		}
		const records = 1000
		var in []stream.Record
		var want []string
		wantLedger := stream.Ledger{RecordsIn: records + 1, DeadLettered: 1}
		for n := range records {
			in = append(in, stream.Record{Data: fmt.Append(nil, n)})
			switch {
			case n%7 == 0:
				wantLedger.DeadLettered++
			case n%5 == 0:
				wantLedger.Filtered++
			default:
				wantLedger.Contributed++
				want = append(want, fmt.Sprint(n))
			}
		}
		in = append(in, stream.Record{Data: []byte("x")})
		wantLedger.RowsOut = wantLedger.Contributed
		out, err := streamtest.Do(p, streamtest.Run{Partitions: map[string][]stream.Record{"0": in}, BatchRecords: 20})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range out.Rows {
			got = append(got, string(r.Data))
		}
		if !slices.Equal(got, want) || out.Ledger != wantLedger {
			t.Errorf("%d rows of %d, ledger %+v, want %+v", len(got), len(want), out.Ledger, wantLedger)
		}
		for _, d := range out.DeadLetters {
			if d.Reason != "seven" && d.Reason != stream.ReasonUndecodable {
				t.Errorf("%+v", d)
			}
		}
		if s.most < 3 || s.most > 4 || s.lanes != 1 {
			t.Errorf("%d batches at once, %d lanes", s.most, s.lanes)
		}
	})
}

// Killed at every step while batches are enriched ahead, a pipeline gives the rows of one that nobody disturbed.
func TestEnrichedAheadAndKilled(t *testing.T) {
	p := &stream.Pipeline[numbered, int]{
		Decode: func(r *stream.Record) (e stream.Event[numbered], err error) {
			_, err = fmt.Sscan(string(r.Data), &e.Value.n)
			return e, err
		},
		Enrich:   []stream.Enricher[numbered]{&slowly{}},
		Operator: &stream.Map[numbered, int]{Func: func(e *stream.Event[numbered]) (int, error) { return e.Value.n, nil }},
		Encode:   func(n *int) (stream.Row, error) { return stream.Row{Data: fmt.Append(nil, *n)}, nil },
		Logger:   slog.New(slog.DiscardHandler),
	}
	var in []stream.Record
	for n := range 30 {
		in = append(in, stream.Record{Data: fmt.Append(nil, n)})
	}
	streamtest.KillEverywhere(t, p, in...)
}
