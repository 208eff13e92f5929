package bucket

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
)

const (
	checkWriters = 8
	checkNames   = 16
)

// Check finds out whether the store keeps Create's promise (A10): eight writers race for sixteen
// names below a fresh prefix, exactly one may win each, and its bytes must be read back. What it wrote
// it deletes again. The error names the store and what it did wrong, or why it could not be reached.
func Check(ctx context.Context, b Bucket) error {
	prefix := "_check-" + rand.Text() + "/"
	name := func(n int) string { return fmt.Sprintf("%s%02d", prefix, n) }
	defer func() {
		for n := range checkNames {
			_ = b.Delete(context.WithoutCancel(ctx), name(n)) // a leftover is named _check- and harmless
		}
	}()
	won := make([][]int, checkWriters)
	errs := make([]error, checkWriters)
	var wait sync.WaitGroup
	start := make(chan struct{})
	for w := range checkWriters {
		wait.Go(func() {
			<-start
			for n := range checkNames {
				switch err := b.Create(ctx, name(n), content(w, n)); {
				case err == nil:
					won[w] = append(won[w], n)
				case !errors.Is(err, ErrExists):
					errs[w] = err
				}
			}
		})
	}
	close(start)
	wait.Wait()
	winner := make(map[int]int)
	for w, names := range won {
		for _, n := range names {
			if _, twice := winner[n]; twice {
				return refused(b, "two writers both created the same object")
			}
			winner[n] = w
		}
	}
	for n := range checkNames {
		w, ok := winner[n]
		if !ok {
			if err := errors.Join(errs...); err != nil {
				return fmt.Errorf("%s: cannot be written: %w", b.URL(), errs[firstError(errs)])
			}
			return refused(b, "nobody could create a new object")
		}
		data, err := b.Get(ctx, name(n))
		if err != nil {
			return fmt.Errorf("%s: cannot be read: %w", b.URL(), err)
		}
		if !bytes.Equal(data, content(w, n)) {
			return refused(b, "an object holds other bytes than its creator's")
		}
	}
	names, err := b.List(ctx, prefix)
	if err != nil {
		return fmt.Errorf("%s: cannot be listed: %w", b.URL(), err)
	}
	if len(names) != checkNames {
		return refused(b, fmt.Sprintf("it lists %d of %d new objects", len(names), checkNames))
	}
	return nil
}

func content(writer, name int) []byte { return fmt.Appendf(nil, "writer %d, name %d", writer, name) }

func firstError(errs []error) int {
	for i, err := range errs {
		if err != nil {
			return i
		}
	}
	return 0
}

func refused(b Bucket, what string) error {
	return fmt.Errorf("%s: %s: this store ignores conditional writes, and totals would not be safe on it; use another one", b.URL(), what)
}
