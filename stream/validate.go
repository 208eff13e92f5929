package stream

import (
	"errors"
	"fmt"
	"regexp"
	"runtime/debug"
	"time"
)

const (
	defaultCheckpointEvery = 10 * time.Second
	defaultIdleAfter       = time.Minute
)

// caught, deferred, turns a panic of the user's code into the partition's error: one partition stops
// and starts again, not the process.
func caught(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
	}
}

func (p *Pipeline[E, R]) checkpointEvery() time.Duration {
	if p.CheckpointEvery > 0 {
		return p.CheckpointEvery
	}
	return defaultCheckpointEvery
}

func (p *Pipeline[E, R]) idleAfter() time.Duration {
	if p.IdleAfter > 0 {
		return p.IdleAfter
	}
	return defaultIdleAfter
}

var validName = regexp.MustCompile(`^[a-z0-9._-]+$`)

// Validate reports the first thing that makes the pipeline unable to run. The engine calls it
// before it restores a partition; a program calls it to fail early.
func (p *Pipeline[E, R]) Validate() error {
	switch {
	case p.Name != "" && !validName.MatchString(p.Name):
		return fmt.Errorf("pipeline name %q: use lower-case letters, digits, dots, dashes and underscores", p.Name)
	case p.Decode == nil && p.NewDecoder == nil:
		return errors.New("pipeline: Decode is missing")
	case p.Operator == nil:
		return errors.New("pipeline: Operator is missing: windows.Aggregation, or stream.Map")
	case p.Encode == nil:
		return errors.New("pipeline: Encode is missing")
	case len(p.Sinks) == 0:
		return errors.New("pipeline: Sinks is empty: results would go nowhere")
	case p.OutOfOrder < 0:
		return errors.New("pipeline: OutOfOrder is negative")
	}
	for _, t := range []time.Time{p.From, p.Until} {
		if _, ok := At(t); !t.IsZero() && !ok {
			return fmt.Errorf("pipeline: %s is outside the years 1678 to 2261", t)
		}
	}
	names := make(map[string]bool)
	for _, s := range p.Sinks {
		// What an entry says of a sink goes by its name.
		if r, ok := s.(interface{ Name() string }); ok {
			if names[r.Name()] {
				return fmt.Errorf("pipeline: two sinks are %s, where their rows would be taken for each other's: give each a place of its own", r.Name())
			}
			names[r.Name()] = true
		}
	}
	return p.Operator.Validate()
}

// Plan is what the saved state of this pipeline depends on (A8): its version, and the operator's
// windows. A program whose logic lives in Go says in Version when that logic has changed.
func (p *Pipeline[E, R]) Plan() Plan {
	var plan Plan
	if p.Operator != nil {
		plan = append(plan, p.Operator.Plan()...)
	}
	if p.Version != "" {
		plan = append(plan, Setting{"Version", p.Version})
	}
	return plan
}
