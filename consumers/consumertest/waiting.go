package consumertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/millstream/millstream/stream"
)

// A Read that waits returns with an error once its context is done, and loses nothing.
func checkCancel(ctx context.Context, s *Stream) error {
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
	closed := sync.OnceValue(r.Close)
	defer func() { _ = closed() }()
	r.durable = true
	if err := r.all(ctx, want); err != nil {
		return err
	}
	waiting, cancel := context.WithCancel(ctx)
	time.AfterFunc(50*time.Millisecond, cancel)
	outcome := make(chan error, 1)
	go func() {
		for {
			f, err := r.Read(waiting)
			if err != nil || len(f.Records) > 0 {
				outcome <- err
				return
			}
		}
	}()
	select {
	case err := <-outcome:
		if err == nil {
			return errors.New("Read returned records that nobody published")
		}
	case <-time.After(patience):
		return errors.New("Read goes on although its context is done")
	}
	if err := closed(); err != nil {
		return fmt.Errorf("Close: %w", err)
	}
	more := some(p, 10, 10)
	if err := s.Publish(p, more...); err != nil {
		return err
	}
	want = append(want, more...)
	if s.Redelivers {
		want = more
	}
	_, err = read(ctx, s.Source, p, stream.Position{}, want)
	return err
}

// A reader says that it has caught up, with its last records or behind them, and only then waits;
// it wakes for what comes.
func checkCaughtUp(ctx context.Context, s *Stream) error {
	p, err := first(ctx, s)
	if err != nil {
		return err
	}
	r, err := open(ctx, s.Source, p, stream.Position{}, "")
	if err != nil {
		return err
	}
	defer r.Close()
	caughtUp := func() bool { n := len(r.fetches); return n > 0 && r.fetches[n-1].State == stream.CaughtUp }
	var want [][]byte
	for range 3 {
		if err := r.until(ctx, "the state caught up", caughtUp); err != nil {
			return err
		}
		more := some(p, len(want), 5)
		if err := s.Publish(p, more...); err != nil {
			return err
		}
		want = append(want, more...)
		if err := r.all(ctx, want); err != nil {
			return err
		}
	}
	if err := r.until(ctx, "the state caught up", caughtUp); err != nil {
		return err
	}
	return r.same(want)
}
