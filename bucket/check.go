package bucket

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	checkWriters = 8
	checkNames   = 16
	checkWithin  = 30 * time.Second
	checkCleanUp = 5 * time.Second // of a store that has stopped answering
)

// Check finds out within half a minute whether the store keeps Create's promise (A10): eight writers
// race for sixteen fresh names, one name after the other, exactly one may win each, and its bytes must
// be read back. What it wrote it deletes again; what a crash or a late write leaves is named _check-
// and harmless. The error names the store and what it did wrong, or why it could not be used.
func Check(ctx context.Context, b Bucket) error {
	prefix := "_check-" + rand.Text() + "-"
	names := make([]string, checkNames)
	for n := range names {
		names[n] = fmt.Sprintf("%s%02d", prefix, n)
	}
	raced := 0
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkCleanUp)
		defer cancel()
		var wait sync.WaitGroup
		for _, name := range names[:raced] {
			wait.Go(func() { _ = b.Delete(ctx, name) })
		}
		wait.Wait()
	}()
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	for _, name := range names {
		raced++
		if err := race(ctx, b, name); err != nil {
			return fmt.Errorf("%s: %w", b.URL(), err)
		}
	}
	listed, err := b.List(ctx, prefix)
	if err != nil {
		return fmt.Errorf("%s: cannot be listed: %w", b.URL(), err)
	}
	if !slices.Equal(listed, names) {
		return fmt.Errorf("%s: lists %d of %d new objects: this store is refused", b.URL(), len(listed), checkNames)
	}
	return nil
}

// race lets the writers create one object at the same time. An error other than ErrExists leaves the
// outcome open, and an ErrExists may be about the writer's own bytes, so a race without a winner is
// lost only when nothing can be read back.
func race(ctx context.Context, b Bucket, name string) error {
	contents := make([][]byte, checkWriters)
	errs := make([]error, checkWriters)
	var wait sync.WaitGroup
	start := make(chan struct{})
	for w := range checkWriters {
		contents[w] = fmt.Appendf(nil, "writer %d of %s", w, name)
		wait.Go(func() {
			<-start
			errs[w] = b.Create(ctx, name, contents[w])
		})
	}
	close(start)
	wait.Wait()

	var winners [][]byte
	var unknown error
	for w, err := range errs {
		switch {
		case err == nil:
			winners = append(winners, contents[w])
		case !errors.Is(err, ErrExists) && unknown == nil:
			unknown = err
		}
	}
	if len(winners) > 1 {
		return refused("two writers both created the same object")
	}
	data, err := b.Get(ctx, name)
	switch {
	case errors.Is(err, ErrNotFound) && len(winners) == 0 && unknown != nil:
		return fmt.Errorf("cannot be written: %w", unknown)
	case errors.Is(err, ErrNotFound):
		return refused("a new object cannot be read back")
	case err != nil && unknown != nil && len(winners) == 0:
		return fmt.Errorf("cannot be written: %w", unknown)
	case err != nil:
		return fmt.Errorf("cannot be read: %w", err)
	}
	if len(winners) == 0 {
		winners = contents
	}
	if !slices.ContainsFunc(winners, func(content []byte) bool { return bytes.Equal(content, data) }) {
		return refused("an object holds other bytes than its creator's")
	}
	// Nobody races now: a store that has any regard for the condition says that the name is taken.
	if err := b.Create(ctx, name, []byte("too late")); err == nil {
		return refused("a taken name could be created again")
	}
	return nil
}

func refused(what string) error {
	return fmt.Errorf("%s: this store ignores conditional writes, and totals would not be safe on it; use another one", what)
}
