package consumertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/stream"
)

func memoryStream(*testing.T) *Stream {
	const topic = "topic"
	m := NewMemory(3, 7)
	return &Stream{
		Source:  m.Source(topic),
		Publish: func(p string, data ...[]byte) error { m.Append(topic, p, data...); return nil },
		Again:   func() (consumers.Source, error) { return m.Source(topic), nil },
		Bounded: func() (consumers.Source, error) { return m.Bounded(topic), nil },
		End: func(p string) error {
			m.End(topic, p, stream.Partition{Name: p + "a", Parents: []string{p}}, stream.Partition{Name: p + "b", Parents: []string{p}})
			return nil
		},
		Throttle: func(on bool) error {
			for _, p := range []string{"0", "1", "2"} {
				m.Throttle(topic, p, on)
			}
			return nil
		},
		Missing: "3",
	}
}

func TestMemory(t *testing.T) { Run(t, memoryStream) }

// broken disturbs what a good reader returns.
type broken struct {
	consumers.Source
	open func(from *stream.Position, tip *string) error
	read func(r *brokenReader, f *consumers.Fetch)
	deaf bool // does not hear that its context is done
}

type brokenReader struct {
	consumers.Reader
	b    *broken
	n    int // records returned
	over bool
	kept []byte
}

func (b *broken) Open(ctx context.Context, p string, from stream.Position, tip string) (consumers.Reader, error) {
	if b.open != nil {
		if err := b.open(&from, &tip); err != nil {
			return nil, err
		}
	}
	r, err := b.Source.Open(ctx, p, from, tip)
	if err != nil {
		return nil, fmt.Errorf("%w", err)
	}
	return &brokenReader{Reader: r, b: b}, nil
}

func (r *brokenReader) Read(ctx context.Context) (consumers.Fetch, error) {
	if r.b.deaf {
		ctx = context.WithoutCancel(ctx)
	}
	if r.over { // nothing may be read behind an end
		<-ctx.Done()
		return consumers.Fetch{}, context.Cause(ctx)
	}
	f, err := r.Reader.Read(ctx)
	r.over = f.End != nil
	if err == nil && r.b.read != nil {
		r.b.read(r, &f)
	}
	r.n += len(f.Records)
	return f, err
}

// The suite finds each way to break the contract, and in the test that is there for it.
func TestSuiteFinds(t *testing.T) {
	for _, c := range []struct {
		name, found string
		b           broken
	}{
		{"records swapped", "order", broken{read: func(_ *brokenReader, f *consumers.Fetch) { slices.Reverse(f.Records) }}},
		{"a record missing", "order", broken{read: func(r *brokenReader, f *consumers.Fetch) {
			if r.n > 50 && len(f.Records) > 1 {
				f.Records = f.Records[1:]
			}
		}}},
		{"bytes used again", "order", broken{read: func(r *brokenReader, f *consumers.Fetch) {
			clear(r.kept) // of the fetch before
			if len(f.Records) > 0 {
				r.kept = slices.Clone(f.Records[0].Data)
				f.Records[0].Data = r.kept
			}
		}}},
		{"positions all alike", "order", broken{read: func(_ *brokenReader, f *consumers.Fetch) {
			for i := range f.Records {
				f.Records[i].Position = f.Next
			}
		}}},
		{"resumed with the record itself", "resume", broken{open: func(from *stream.Position, _ *string) error { from.Number = max(from.Number-1, 0); return nil }}},
		{"resumed one too far", "resume", broken{open: func(from *stream.Position, _ *string) error {
			if from.Number > 0 && from.Number%7 != 0 {
				from.Number++
			}
			return nil
		}}},
		{"resumed at the fetch", "resume", broken{open: func(from *stream.Position, _ *string) error { from.Number -= from.Number % 7; return nil }}},
		{"context ignored", "cancel", broken{deaf: true}},
		{"never caught up", "caught up", broken{read: func(_ *brokenReader, f *consumers.Fetch) { f.State = stream.Reading }}},
		{"cut off", "largest record", broken{read: func(_ *brokenReader, f *consumers.Fetch) {
			for i, r := range f.Records {
				f.Records[i].Data = r.Data[:min(len(r.Data), 64<<10)]
			}
		}}},
		{"tip ignored", "bounded", broken{open: func(_ *stream.Position, tip *string) error { *tip = ""; return nil }}},
		{"no end", "end of a partition", broken{read: func(_ *brokenReader, f *consumers.Fetch) { f.End = nil }}},
		{"children without parents", "end of a partition", broken{read: func(_ *brokenReader, f *consumers.Fetch) {
			if f.End != nil {
				f.End = &stream.PartitionEnd{Children: []stream.Partition{{Name: "0a"}}}
			}
		}}},
		{"any error for a missing partition", "missing partition", broken{open: func(*stream.Position, *string) error { return errors.New("not found") }}},
		{"throttled in silence", "throttling", broken{read: func(_ *brokenReader, f *consumers.Fetch) {
			if f.State == stream.Throttled {
				f.State = stream.CaughtUp
			}
		}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := slices.IndexFunc(checks, func(k check) bool { return k.name == c.found })
			synctest.Test(t, func(t *testing.T) {
				s := memoryStream(t)
				c.b.Source = s.Source
				s.Source = &c.b
				bounded := s.Bounded
				s.Bounded = func() (consumers.Source, error) {
					src, err := bounded()
					return &broken{Source: src, open: c.b.open, read: c.b.read}, err
				}
				err := checks[i].run(t.Context(), s)
				if err == nil {
					t.Fatal("not found")
				}
				if c.b.deaf { // let the reader go that hears nothing
					if err := s.Publish("0", []byte("wake")); err != nil {
						t.Fatal(err)
					}
				}
				t.Log(strings.ReplaceAll(err.Error(), "\n", " "))
			})
		})
	}
}
