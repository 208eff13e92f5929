package stream

import "context"

type delayKey struct{}

// Delayed tells the fleet what the batch being enriched waits for, such as a backend that is down; nil
// that it goes on. ctx is the one that Enrich was given. What it says stands in the lane's status, in
// heartbeats, and in what `millstream explain` prints.
func Delayed(ctx context.Context, err error) {
	if tell, ok := ctx.Value(delayKey{}).(func(error)); ok {
		tell(err)
	}
}

// WithDelays returns a context whose Delayed calls tell. It is how a lane listens, and a test may.
func WithDelays(ctx context.Context, tell func(error)) context.Context {
	return context.WithValue(ctx, delayKey{}, tell)
}

// delayed keeps what enriching waits for, and wakes the lane to report it.
func (l *lane[E, R]) delayed(err error) {
	var text *string
	if err != nil {
		s := err.Error()
		text = &s
	}
	if l.delay.Swap(text) == nil && text == nil {
		return
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}
