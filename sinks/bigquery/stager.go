package bigquery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "cloud.google.com/go/bigquery/storage/apiv1/storagepb"

	"github.com/millstream/millstream/stream"
)

// Stager appends rows so that each becomes visible once. It is safe for concurrent use, as stream.Stager
// asks: partitions do not wait for each other.
type Stager struct {
	*table
	rules rules

	lanes sync.Mutex
	by    map[laneKey]*lane
	sent  map[stream.CheckpointID]delivered
}

var _ stream.Stager = (*Stager)(nil)

// rules can be switched off by tests, to show that each is needed.
type rules struct {
	keepFailed, keepUncommitted, trustExists, freshBytes bool
}

// laneKey is whose rows share a stream.
type laneKey struct{ pipeline, genesis, partition, kind string }

// lane is a partition's stream. Its fields are guarded by Stager.lanes, but next, which belongs to who has
// the turn.
type lane struct {
	turn   chan struct{}
	stream string // empty: none yet
	next   int64  // offset of the next row
	used   time.Time

	committed int64  // rows before this offset are committed
	number    uint64 // of the entry that the rows after committed belong to
	part      int    // of it, the last one staged
}

// token names staged rows.
type token struct {
	Stream string `json:"stream"`
	First  int64  `json:"first"`
	Rows   int64  `json:"rows"`
}

func newStager(t *table) *Stager {
	return &Stager{table: t, by: make(map[laneKey]*lane), sent: make(map[stream.CheckpointID]delivered)}
}

// Name tells the sink from others in the log.
func (s *Stager) Name() string { return "bigquery:" + s.shown }

// Mode returns Append.
func (s *Stager) Mode() Mode { return Append }

// Stage appends rows to the partition's stream, where they stay unseen, and returns the token that names
// them, nil if there are none. Rows that the table does not take stand in the *stream.Rejected that comes
// with the token of the others.
func (s *Stager) Stage(ctx context.Context, id stream.CheckpointID, rows []stream.Row) ([]byte, error) {
	f, err := s.freeze(ctx, len(rows), func(p *plan, i int) ([]byte, error) { return p.encode(rows[i].Data, s.unknown == Ignore) })
	if err != nil {
		return nil, err
	}
	l, err := s.enter(ctx, id)
	if err != nil {
		return nil, err
	}
	defer func() { <-l.turn }()
	for n := 1; len(f.batches) > 0; n++ {
		if s.follows(l, id) {
			s.abandon(l)
		}
		made, err := s.stage(ctx, l, f)
		if err == nil {
			s.staged(l, id)
			if made.Rows == 0 {
				break // the service has refused them all
			}
			text, err := json.Marshal(made)
			if err != nil {
				return nil, fmt.Errorf("bigquery: the token of staged rows: %w", err)
			}
			return text, s.rejection(f)
		}
		if !s.rules.keepFailed {
			s.abandon(l)
		}
		var unusable *unusableStream
		if !errors.As(err, &unusable) || n == attempts {
			return nil, fmt.Errorf("bigquery: table %s: %d rows are not staged: %w", s.shown, len(rows), err)
		}
		s.logger.Debug("staging everything again in a new stream", "table", s.shown, "partition", id.Partition, "reason", err)
	}
	return nil, s.rejection(f)
}

// enter waits for the partition's turn.
func (s *Stager) enter(ctx context.Context, id stream.CheckpointID) (*lane, error) {
	key := laneKey{id.Pipeline, id.Genesis, id.Partition, id.Kind}
	s.lanes.Lock()
	l := s.by[key]
	if l == nil {
		s.forgetIdle()
		l = &lane{turn: make(chan struct{}, 1)}
		s.by[key] = l
	}
	l.used = time.Now()
	s.lanes.Unlock()
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("bigquery: table %s: %w", s.shown, ctx.Err())
	}
	if err := ctx.Err(); err != nil {
		<-l.turn
		return nil, fmt.Errorf("bigquery: table %s: %w", s.shown, err)
	}
	return l, nil
}

// forgetIdle leaves the streams of partitions alone that have moved to other processes: one that comes back
// gets a new one. The caller holds lanes.
func (s *Stager) forgetIdle() {
	const after = 10 * time.Minute
	for key, l := range s.by {
		if time.Since(l.used) < after {
			continue
		}
		select {
		case l.turn <- struct{}{}:
			delete(s.by, key)
			s.service.drop(l.stream)
			<-l.turn
		default:
		}
	}
}

// follows reports that rows of id must not come after what the stream holds: rows that are not committed
// and not of the same entry, or of an attempt at it that was given up.
func (s *Stager) follows(l *lane, id stream.CheckpointID) bool {
	s.lanes.Lock()
	defer s.lanes.Unlock()
	return !s.rules.keepUncommitted && l.stream != "" && l.next > l.committed && (l.number != id.Number || l.part >= id.Part)
}

func (s *Stager) staged(l *lane, id stream.CheckpointID) {
	s.lanes.Lock()
	defer s.lanes.Unlock()
	l.number, l.part, l.used = id.Number, id.Part, time.Now()
}

// abandon lets the next stage begin a new stream.
func (s *Stager) abandon(l *lane) {
	s.lanes.Lock()
	name := l.stream
	l.stream, l.next, l.committed = "", 0, 0
	s.lanes.Unlock()
	if name != "" {
		s.service.drop(name)
	}
}

// unusableStream says that a stream is not what this process made of it.
type unusableStream struct{ why error }

func (e *unusableStream) Error() string { return "the stream cannot be used: " + e.why.Error() }
func (e *unusableStream) Unwrap() error { return e.why }

// stage appends all batches to the lane's stream, which it makes if need be. The caller has the turn.
func (s *Stager) stage(ctx context.Context, l *lane, f *frozen) (token, error) {
	if l.stream == "" {
		name, err := s.create(ctx)
		if err != nil {
			return token{}, err
		}
		s.lanes.Lock()
		l.stream, l.next, l.committed = name, 0, 0
		s.lanes.Unlock()
	}
	made := token{Stream: l.stream, First: l.next}
	for i := range f.batches {
		if err := s.appendBatch(ctx, l, f, &f.batches[i]); err != nil {
			return token{}, err
		}
	}
	made.Rows = l.next - made.First
	return made, nil
}

// appendBatch appends one batch at the stream's next offset: the same bytes until they are there.
func (s *Stager) appendBatch(ctx context.Context, l *lane, f *frozen, b *batch) error {
	asked := false // these very bytes may be there
	for n := 1; len(b.rows) > 0; {
		out, err := s.request(ctx, request{l.stream, f.plan, l.next, b.rows})
		var st *status.Status
		switch {
		case err != nil:
		case len(out.RowErrors) > 0:
			if !s.refuse(f, b, out.RowErrors) {
				return fmt.Errorf("the service refuses rows that it was not sent: %v", out.RowErrors)
			}
			if asked && !s.rules.freshBytes {
				return &unusableStream{errors.New("rows were refused that an earlier attempt may have stored")}
			}
			continue
		case out.GetError() != nil:
			st = status.FromProto(out.GetError())
			err = st.Err()
		case out.GetAppendResult().GetOffset() != nil && out.GetAppendResult().Offset.Value != l.next:
			return &unusableStream{fmt.Errorf("rows for offset %d went to %d", l.next, out.GetAppendResult().Offset.Value)}
		default:
			s.advance(l, len(b.rows))
			return nil
		}
		switch code := status.Code(err); {
		case st != nil && code == codes.AlreadyExists && (asked || s.rules.trustExists):
			s.advance(l, len(b.rows))
			return nil
		case st != nil && (code == codes.AlreadyExists || code == codes.OutOfRange), code == codes.NotFound:
			return &unusableStream{explain(err)}
		case st != nil && code == codes.InvalidArgument:
			s.stale()
			if storageCode(st) == pb.StorageError_STREAM_FINALIZED || storageCode(st) == pb.StorageError_INVALID_STREAM_STATE {
				return &unusableStream{explain(err)}
			}
			return explain(err)
		}
		if st == nil || status.Code(err) != codes.ResourceExhausted { // which refuses before anything is done
			asked = true
			s.ambiguous.Add(1)
		}
		if err := s.again(ctx, n, err); err != nil {
			return err
		}
		n++
	}
	return nil
}

// advance counts rows that are in the stream.
func (s *Stager) advance(l *lane, rows int) {
	s.lanes.Lock()
	defer s.lanes.Unlock()
	l.next += int64(rows)
}

// Commit makes the rows visible that a token names.
func (s *Stager) Commit(ctx context.Context, text []byte) error {
	var t token
	if err := json.Unmarshal(text, &t); err != nil || t.Stream == "" || t.Rows <= 0 || t.First < 0 {
		return fmt.Errorf("bigquery: table %s: %w: the token %q is none of this sink's", s.shown, ErrGone, text)
	}
	for n := 1; ; n++ {
		s.flushes.Add(1)
		bounded, cancel := context.WithTimeout(ctx, s.deadline)
		err := s.service.flush(bounded, t.Stream, t.First+t.Rows-1)
		cancel()
		code := status.Code(err)
		switch {
		case err == nil, code == codes.AlreadyExists: // the mark is there, or beyond
			s.committed(t)
			return nil
		case code == codes.NotFound, code == codes.OutOfRange:
			return fmt.Errorf("bigquery: table %s: %w: %d rows in the stream %s, of which the service says %w", s.shown, ErrGone, t.Rows, t.Stream, explain(err))
		case !hopeless(err) && code != codes.ResourceExhausted:
			s.ambiguous.Add(1)
		}
		if err := s.again(ctx, n, err); err != nil {
			return fmt.Errorf("bigquery: table %s: %d rows are not committed: %w", s.shown, t.Rows, err)
		}
	}
}

func (s *Stager) committed(t token) {
	s.lanes.Lock()
	defer s.lanes.Unlock()
	for _, l := range s.by {
		if l.stream == t.Stream {
			l.committed = max(l.committed, t.First+t.Rows)
		}
	}
}

// delivered is what Deliver has staged and could not commit.
type delivered struct {
	token []byte
	err   error // a *stream.Rejected, or nil
}

// Deliver stages and commits, for use as a dead letter sink: rows that are delivered again by the same
// process are seen once, by another one again.
func (s *Stager) Deliver(ctx context.Context, id stream.CheckpointID, rows []stream.Row) error {
	s.lanes.Lock()
	d, begun := s.sent[id]
	s.lanes.Unlock()
	if !begun {
		var rejected *stream.Rejected
		if d.token, d.err = s.Stage(ctx, id, rows); d.err != nil && !errors.As(d.err, &rejected) {
			return d.err
		}
	}
	if d.token != nil {
		if err := s.Commit(ctx, d.token); err != nil {
			s.lanes.Lock()
			defer s.lanes.Unlock()
			if len(s.sent) >= mostBegun {
				clear(s.sent)
			}
			s.sent[id] = d
			return err
		}
	}
	s.lanes.Lock()
	defer s.lanes.Unlock()
	delete(s.sent, id)
	return d.err
}

// mostBegun bounds what Deliver remembers: most deliveries are repeated at once, those of a lost partition
// never.
const mostBegun = 1000
