package consumertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/stream"
)

// Stream is one stream at a service, real or fake, that nobody else uses. Source and Publish are
// needed. What stands in the other fields is tested too.
type Stream struct {
	Source consumers.Source
	// Publish appends records to a partition, in order, and returns when they are there.
	Publish func(partition string, data ...[]byte) error
	// Redelivers says that a position resumes nothing: what is not settled comes again. Partitions then
	// keep their order all the same.
	Redelivers bool
	// Again makes another source of the same stream, as a new process would.
	Again func() (consumers.Source, error)
	// Bounded makes a source of the same stream whose Tip is not empty.
	Bounded func() (consumers.Source, error)
	// End ends a partition for good, as a reshard does.
	End func(partition string) error
	// Disconnect breaks the connections of readers, or what they hold at the service, once.
	Disconnect func() error
	// Throttle makes the service refuse reads, or accept them again.
	Throttle func(on bool) error
	// Missing is a name that a partition could have and none has.
	Missing string
	// Largest is the size of the largest record that the service takes. Default 1 MiB.
	Largest int
}

// patience is how long anything may take, on a slow machine or with a deadline of a minute to wait for.
const patience = 90 * time.Second

// Run holds a driver to the contract of consumers.Source and consumers.Reader. Each test opens a
// stream of its own; open registers with t.Cleanup what is to be undone.
func Run(t *testing.T, open func(t *testing.T) *Stream) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) { c.try(t, open, 4*patience) })
	}
}

// RunVirtual is Run for a driver that has to wait: every test is in a testing/synctest bubble of its own,
// which open begins in.
func RunVirtual(t *testing.T, open func(t *testing.T) *Stream) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { c.try(t, open, time.Hour) })
		})
	}
}

func (c *check) try(t *testing.T, open func(t *testing.T) *Stream, within time.Duration) {
	s := open(t)
	if !c.applies(s) {
		t.Logf("the stream has nothing to test this with")
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if err := c.run(ctx, s); err != nil {
		t.Error(err)
	}
}

type check struct {
	name    string
	applies func(*Stream) bool
	run     func(context.Context, *Stream) error
}

func always(*Stream) bool { return true }

var checks = []check{
	{"order", always, checkOrder},
	{"resume", func(s *Stream) bool { return !s.Redelivers }, checkResume},
	{"redelivery", func(s *Stream) bool { return s.Redelivers }, checkRedelivery},
	{"cancel", always, checkCancel},
	{"caught up", always, checkCaughtUp},
	{"largest record", always, checkLargest},
	{"identity", func(s *Stream) bool { return s.Again != nil }, checkIdentity},
	{"bounded", func(s *Stream) bool { return s.Bounded != nil }, checkBounded},
	{"end of a partition", func(s *Stream) bool { return s.End != nil }, checkEnd},
	{"missing partition", func(s *Stream) bool { return s.Missing != "" }, checkMissing},
	{"disconnect", func(s *Stream) bool { return s.Disconnect != nil }, checkDisconnect},
	{"throttling", func(s *Stream) bool { return s.Throttle != nil }, checkThrottling},
}

// some makes n records that tell partition and number.
func some(partition string, from, n int) [][]byte {
	data := make([][]byte, n)
	for i := range data {
		data[i] = fmt.Appendf(nil, "%s record %d of this stream", partition, from+i)
	}
	return data
}

// partitions lists the stream's partitions by name.
func partitions(ctx context.Context, src consumers.Source) ([]stream.Partition, error) {
	ps, err := src.Partitions(ctx)
	if err != nil {
		return nil, fmt.Errorf("Partitions: %w", err)
	}
	slices.SortFunc(ps, func(a, b stream.Partition) int { return strings.Compare(a.Name, b.Name) })
	return ps, nil
}

// first returns the stream's first partition.
func first(ctx context.Context, s *Stream) (string, error) {
	ps, err := partitions(ctx, s.Source)
	if err == nil && len(ps) == 0 {
		err = errors.New("the stream has no partition")
	}
	if err != nil {
		return "", err
	}
	return ps[0].Name, nil
}

// session reads a partition with one reader and keeps everything.
type session struct {
	consumers.Reader
	records []stream.Record
	fetches []consumers.Fetch
	states  map[stream.ReaderState]bool
	end     *stream.PartitionEnd
	durable bool // settles what it reads
}

func open(ctx context.Context, src consumers.Source, partition string, from stream.Position, tip string) (*session, error) {
	r, err := src.Open(ctx, partition, from, tip)
	if err != nil {
		return nil, fmt.Errorf("Open %s at %q: %w", partition, from, err)
	}
	return &session{Reader: r, states: make(map[stream.ReaderState]bool)}, nil
}

// until reads until enough says so.
func (s *session) until(ctx context.Context, what string, enough func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !enough() {
		if s.end != nil {
			return fmt.Errorf("waiting for %s: the partition ended after %d records", what, len(s.records))
		}
		f, err := s.Read(ctx)
		if err != nil {
			return fmt.Errorf("waiting for %s, after %d records: %w", what, len(s.records), err)
		}
		if s.durable {
			settleAll([]consumers.Fetch{f}, nil)
		}
		s.fetches = append(s.fetches, f)
		s.records = append(s.records, f.Records...)
		s.states[f.State] = true
		s.end = f.End
	}
	return nil
}

// all reads exactly want, and holds the records to what the contract says of them.
func (s *session) all(ctx context.Context, want [][]byte) error {
	if err := s.until(ctx, fmt.Sprintf("%d records", len(want)), func() bool { return len(s.records) >= len(want) }); err != nil {
		return err
	}
	return s.same(want)
}

func (s *session) same(want [][]byte) error {
	seen := map[stream.Position]bool{{}: true}
	for i, r := range s.records {
		if i == len(want) {
			return fmt.Errorf("%d records instead of %d: one more is %q", len(s.records), len(want), clip(r.Data))
		}
		if string(r.Data) != string(want[i]) {
			return fmt.Errorf("record %d is %q instead of %q", i, clip(r.Data), clip(want[i]))
		}
		if seen[r.Position] {
			return fmt.Errorf("record %d has position %q, which is zero or another record's", i, r.Position)
		}
		seen[r.Position] = true
	}
	if len(s.records) < len(want) {
		return fmt.Errorf("%d records instead of %d", len(s.records), len(want))
	}
	return nil
}

func clip(b []byte) []byte { return b[:min(len(b), 60)] }

// read opens a reader, reads exactly want, and closes it.
func read(ctx context.Context, src consumers.Source, partition string, from stream.Position, want [][]byte) (*session, error) {
	r, err := open(ctx, src, partition, from, "")
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return r, r.all(ctx, want)
}

// Records come in the order in which they were published, none twice, none missing, in every
// partition, and their bytes stay what they are while later ones are read.
func checkOrder(ctx context.Context, s *Stream) error {
	ps, err := partitions(ctx, s.Source)
	if err != nil {
		return err
	}
	for _, p := range ps {
		want := some(p.Name, 0, 300)
		for i := 0; i < len(want); i += 100 {
			if err := s.Publish(p.Name, want[i:i+100]...); err != nil {
				return err
			}
		}
		r, err := open(ctx, s.Source, p.Name, stream.Position{}, "")
		if err != nil {
			return err
		}
		defer r.Close()
		if err := r.all(ctx, want); err != nil {
			return fmt.Errorf("partition %s: %w", p.Name, err)
		}
		more := some(p.Name, 300, 100)
		if err := s.Publish(p.Name, more...); err != nil {
			return err
		}
		if err := r.all(ctx, append(want, more...)); err != nil {
			return fmt.Errorf("partition %s: %w", p.Name, err)
		}
	}
	return nil
}

// A reader opened behind any record, or behind any fetch, goes on with the very next record.
func checkResume(ctx context.Context, s *Stream) error {
	p, err := first(ctx, s)
	if err != nil {
		return err
	}
	want := some(p, 0, 25)
	if err := s.Publish(p, want...); err != nil {
		return err
	}
	whole, err := read(ctx, s.Source, p, stream.Position{}, want)
	if err != nil {
		return err
	}
	next := some(p, len(want), 1)
	if err := s.Publish(p, next...); err != nil {
		return err
	}
	want = append(want, next...)
	for i, r := range whole.records {
		if _, err := read(ctx, s.Source, p, r.Position, want[i+1:]); err != nil {
			return fmt.Errorf("resumed behind record %d: %w", i, err)
		}
	}
	n := 0
	for _, f := range whole.fetches {
		n += len(f.Records)
		if f.Next == (stream.Position{}) && n > 0 {
			return fmt.Errorf("a fetch behind %d records has no Next", n)
		}
		if _, err := read(ctx, s.Source, p, f.Next, want[n:]); err != nil {
			return fmt.Errorf("resumed behind the fetch that ended with record %d: %w", n-1, err)
		}
	}
	return nil
}

// The largest record arrives whole, between small ones.
func checkLargest(ctx context.Context, s *Stream) error {
	p, err := first(ctx, s)
	if err != nil {
		return err
	}
	size := s.Largest
	if size == 0 {
		size = 1 << 20
	}
	big := []byte(strings.Repeat("0123456789abcdef", size/16+1))[:size]
	want := [][]byte{[]byte("before"), big, []byte("after")}
	for _, d := range want {
		if err := s.Publish(p, d); err != nil {
			return err
		}
	}
	_, err = read(ctx, s.Source, p, stream.Position{}, want)
	return err
}

// Another process calls the source the same.
func checkIdentity(ctx context.Context, s *Stream) error {
	again, err := s.Again()
	if err != nil {
		return err
	}
	defer again.Close()
	if a, b := s.Source.Identity(), again.Identity(); a != b || a == "" {
		return fmt.Errorf("Identity is %q, then %q", a, b)
	}
	p, err := first(ctx, s)
	if err != nil {
		return err
	}
	want := some(p, 0, 10)
	if err := s.Publish(p, want...); err != nil {
		return err
	}
	r, err := read(ctx, s.Source, p, stream.Position{}, want)
	if err != nil {
		return err
	}
	from, rest := r.records[4].Position, want[5:]
	if s.Redelivers {
		rest = want
	}
	if _, err := read(ctx, again, p, from, rest); err != nil {
		return fmt.Errorf("resumed by another source: %w", err)
	}
	return nil
}

// Every partition ends at the tip, from wherever it is read, whatever comes behind.
func checkBounded(ctx context.Context, s *Stream) error {
	ps, err := partitions(ctx, s.Source)
	if err != nil {
		return err
	}
	records := func(i int) int { return 10 * (len(ps) - 1 - i) } // none in the last one
	if len(ps) == 1 {
		records = func(int) int { return 10 }
	}
	for i, p := range ps {
		if n := records(i); n > 0 {
			if err := s.Publish(p.Name, some(p.Name, 0, n)...); err != nil {
				return err
			}
		}
	}
	src, err := s.Bounded()
	if err != nil {
		return err
	}
	defer src.Close()
	tip, err := src.Tip(ctx)
	if err != nil {
		return fmt.Errorf("Tip: %w", err)
	}
	if tip == "" {
		return errors.New("Tip of a bounded source is empty")
	}
	for i, p := range ps {
		want := some(p.Name, 0, records(i))
		if err := s.Publish(p.Name, []byte("behind the tip")); err != nil {
			return err
		}
		var from stream.Position
		for {
			r, err := open(ctx, src, p.Name, from, tip)
			if err != nil {
				return err
			}
			err = r.until(ctx, "the end", func() bool { return r.end != nil })
			if err == nil {
				err = r.same(want)
			}
			r.Close()
			if err != nil {
				return fmt.Errorf("partition %s from %q: %w", p.Name, from, err)
			}
			if len(want) == 0 {
				break
			}
			from, want = r.records[0].Position, want[1:]
		}
	}
	return nil
}

// A partition that has ended is read to its end, which comes once and again, and names its children;
// they are listed with their parents, and are read from their beginning.
func checkEnd(ctx context.Context, s *Stream) error {
	p, err := first(ctx, s)
	if err != nil {
		return err
	}
	want := some(p, 0, 20)
	if err := s.Publish(p, want...); err != nil {
		return err
	}
	if err := s.End(p); err != nil {
		return err
	}
	r, err := open(ctx, s.Source, p, stream.Position{}, "")
	if err != nil {
		return err
	}
	defer r.Close()
	if err := r.until(ctx, "the end", func() bool { return r.end != nil }); err != nil {
		return err
	}
	if err := r.same(want); err != nil {
		return err
	}
	again, err := open(ctx, s.Source, p, r.records[len(r.records)-1].Position, "")
	if err != nil {
		return err
	}
	defer again.Close()
	if err := again.until(ctx, "the end once more", func() bool { return again.end != nil }); err != nil {
		return err
	}
	if err := again.same(nil); err != nil {
		return err
	}
	ps, err := partitions(ctx, s.Source)
	if err != nil {
		return err
	}
	for _, child := range r.end.Children {
		i := slices.IndexFunc(ps, func(q stream.Partition) bool { return q.Name == child.Name })
		if !slices.Contains(child.Parents, p) || i < 0 || !slices.Contains(ps[i].Parents, p) {
			return fmt.Errorf("child %+v of %s is not listed with its parent: %+v", child, p, ps)
		}
		want := some(child.Name, 0, 10)
		if err := s.Publish(child.Name, want...); err != nil {
			return err
		}
		if _, err := read(ctx, s.Source, child.Name, stream.Position{}, want); err != nil {
			return fmt.Errorf("child %s: %w", child.Name, err)
		}
	}
	return nil
}

func checkMissing(ctx context.Context, s *Stream) error {
	r, err := s.Source.Open(ctx, s.Missing, stream.Position{}, "")
	if err == nil {
		defer r.Close()
		_, err = r.Read(ctx)
	}
	if !errors.Is(err, stream.ErrPartitionGone) {
		return fmt.Errorf("the error of a partition that does not exist wraps ErrPartitionGone, not %w", err)
	}
	return nil
}

// A reader outlives a broken connection, without a gap and without a repetition.
func checkDisconnect(ctx context.Context, s *Stream) error {
	p, err := first(ctx, s)
	if err != nil {
		return err
	}
	r, err := open(ctx, s.Source, p, stream.Position{}, "")
	if err != nil {
		return err
	}
	defer r.Close()
	r.durable = true
	var want [][]byte
	for range 4 {
		more := some(p, len(want), 50)
		if err := s.Publish(p, more...); err != nil {
			return err
		}
		want = append(want, more...)
		if err := r.until(ctx, "a record", func() bool { return len(r.records) > len(want)-50 }); err != nil {
			return err
		}
		if err := s.Disconnect(); err != nil {
			return err
		}
	}
	return r.all(ctx, want)
}

// A reader says that it is throttled, and reads everything afterwards.
func checkThrottling(ctx context.Context, s *Stream) error {
	p, err := first(ctx, s)
	if err != nil {
		return err
	}
	want := some(p, 0, 10)
	if err := s.Publish(p, want...); err != nil {
		return err
	}
	r, err := open(ctx, s.Source, p, stream.Position{}, "")
	if err != nil {
		return err
	}
	defer r.Close()
	r.durable = true
	if err := r.all(ctx, want); err != nil {
		return err
	}
	clear(r.states)
	if err := s.Throttle(true); err != nil {
		return err
	}
	if err := r.until(ctx, "the state throttled", func() bool { return r.states[stream.Throttled] }); err != nil {
		return err
	}
	more := some(p, 10, 50)
	if err := s.Publish(p, more...); err != nil {
		return err
	}
	if err := s.Throttle(false); err != nil {
		return err
	}
	return r.all(ctx, append(want, more...))
}
