package consumers

import (
	"context"
	"errors"

	"github.com/millstream/millstream/stream"
)

// fetched is one outcome of Reader.Read.
type fetched struct {
	Fetch
	err error
}

// read opens a partition and reads it, one fetch ahead of whoever receives: while a fetch waits for
// room, the next one is on its way, and no more. The channel yields at most one error, last, and is
// never closed; reading stops when ctx is done. The reader is closed once settled is, or the
// assignment is lost. A partition that the source no longer has ends at once, as lost.
func (sub *subscription) read(ctx context.Context, a *stream.Assignment, settled <-chan struct{}) <-chan fetched {
	fetches := make(chan fetched)
	sub.flights.Go(func() {
		r, err := sub.open(ctx, a)
		if err == nil {
			defer func() {
				if err := r.Close(); err != nil {
					sub.cfg.Logger.Debug("a reader did not close cleanly", "partition", a.Partition, "error", err)
				}
			}()
			err = readAll(ctx, r, fetches)
		}
		if err != nil {
			last := fetched{err: err}
			if errors.Is(err, stream.ErrPartitionGone) {
				last = fetched{Fetch: Fetch{End: &stream.PartitionEnd{Lost: true}}}
			}
			select {
			case fetches <- last:
			case <-ctx.Done():
			}
		}
		select {
		case <-settled:
		case <-a.Lost:
		}
	})
	return fetches
}

// open opens a reader for the assignment, with its claim where the source can use it.
func (sub *subscription) open(ctx context.Context, a *stream.Assignment) (Reader, error) {
	if src, ok := sub.src.(ClaimedSource); ok {
		return src.OpenClaimed(ctx, a.Partition, resume(a), a.Tip, a.Claim)
	}
	return sub.src.Open(ctx, a.Partition, resume(a), a.Tip)
}

// errUnread is what records are settled with that were fetched for an assignment that had ended.
var errUnread = errors.New("fetched, and not read any more")

// readAll hands on what r reads until its end, an error, or ctx is done.
func readAll(ctx context.Context, r Reader, fetches chan<- fetched) error {
	for {
		f, err := r.Read(ctx)
		if err != nil {
			return err
		}
		select {
		case fetches <- fetched{Fetch: f}:
		case <-ctx.Done():
			f.settle(0, len(f.Records), errUnread)
			return nil
		}
		if f.End != nil {
			return nil
		}
	}
}

// resume is where the assignment starts to read.
func resume(a *stream.Assignment) stream.Position {
	if a.Base == nil {
		return a.From
	}
	return a.Base.Position
}

// stopping returns a context that is done as soon as the assignment should be read no further:
// lost, over, draining, or failed.
func stopping(parent context.Context, a *stream.Assignment, failed <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	go func() {
		select {
		case <-a.Lost:
		case <-a.Over():
		case <-a.Draining:
		case <-failed:
		case <-ctx.Done():
		}
		cancel()
	}()
	return ctx, cancel
}

func done(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
