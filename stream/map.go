package stream

import (
	"errors"
	"io"
	"time"
)

// Map is the Operator of pipelines without windows: each event becomes one result, at once, and no
// state is kept. Use its address.
type Map[E, R any] struct {
	// Func makes the result of an event. An error stops the partition: what is wrong with a single
	// record is for Decode and Require to say. The event is reused after the call, so what is kept of
	// its key and of its value's memory must be cloned. Func is called by many lanes at once.
	Func func(*Event[E]) (R, error)
	// Version names what Func does, for the pipeline's plan (A8). Empty: Func may change freely.
	Version string
}

// Lane implements Operator.
func (m *Map[E, R]) Lane() LaneState[E, R] { return &mapLane[E, R]{f: m.Func} }

// Merger implements Operator: rows leave the lanes directly.
func (m *Map[E, R]) Merger() MergeState[R] { return nil }

// Slice implements Operator: there are no slices.
func (m *Map[E, R]) Slice() time.Duration { return 0 }

// Plan implements Operator.
func (m *Map[E, R]) Plan() Plan {
	if m.Version == "" {
		return nil
	}
	return Plan{{Name: "map", Value: m.Version}}
}

// Validate implements Operator.
func (m *Map[E, R]) Validate() error {
	if m.Func == nil {
		return errors.New("map: Func is missing")
	}
	return nil
}

// mapLane collects results until the lane takes them.
type mapLane[E, R any] struct {
	f    func(*Event[E]) (R, error)
	rows []R
}

func (l *mapLane[E, R]) Add(e *Event[E], _ Instant) (bool, error) {
	r, err := l.f(e)
	if err != nil {
		return false, err
	}
	l.rows = append(l.rows, r)
	return true, nil
}

// Rows hands the results over: they stay valid for one batch, then their memory is used again.
func (l *mapLane[E, R]) Rows() []R {
	rows := l.rows
	l.rows = l.rows[:0]
	return rows
}

func (l *mapLane[E, R]) Ripe(Instant) bool            { return false }
func (l *mapLane[E, R]) Freeze(Instant) []FrozenSlice { return nil }
func (l *mapLane[E, R]) Open() int                    { return 0 }
func (l *mapLane[E, R]) Snapshot() io.WriterTo        { return nil }
func (l *mapLane[E, R]) Restore([]byte) error         { return nil }
