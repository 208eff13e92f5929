package checkpoint

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/millstream/millstream/bucket"
)

var errStore = errors.New("the store is ill")

// ill is a bucket whose calls a test can spoil. before is asked first, and may wait: an error of it
// means that nothing happened. after is asked when the call was carried out: an error of it hides
// the outcome. ops are create, put, get, list, delete.
type ill struct {
	bucket.Bucket
	mu     sync.Mutex
	before func(op, name string) error
	after  func(op, name string) error
	calls  map[string]int
}

func newIll(b bucket.Bucket) *ill { return &ill{Bucket: b, calls: make(map[string]int)} }

func (b *ill) spoil(before, after func(op, name string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.before, b.after = before, after
}

func (b *ill) count(op string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls[op]
}

func (b *ill) do(op, name string, call func() error) error {
	b.mu.Lock()
	before, after := b.before, b.after
	b.calls[op]++
	b.mu.Unlock()
	if before != nil {
		if err := before(op, name); err != nil {
			return err
		}
	}
	if err := call(); err != nil {
		return err
	}
	if after != nil {
		return after(op, name)
	}
	return nil
}

func (b *ill) Create(ctx context.Context, name string, data []byte) error {
	return b.do("create", name, func() error { return b.Bucket.Create(ctx, name, data) })
}

func (b *ill) Put(ctx context.Context, name string, data []byte) error {
	return b.do("put", name, func() error { return b.Bucket.Put(ctx, name, data) })
}

func (b *ill) Get(ctx context.Context, name string) (data []byte, err error) {
	err = b.do("get", name, func() (err error) { data, err = b.Bucket.Get(ctx, name); return err })
	return data, err
}

func (b *ill) List(ctx context.Context, prefix string) (names []string, err error) {
	err = b.do("list", prefix, func() (err error) { names, err = b.Bucket.List(ctx, prefix); return err })
	return names, err
}

func (b *ill) Delete(ctx context.Context, name string) error {
	return b.do("delete", name, func() error { return b.Bucket.Delete(ctx, name) })
}

// fail returns a hook that fails the first times calls of op on names with the given part.
func fail(op, part string, times int) func(op, name string) error {
	var mu sync.Mutex
	return func(o, name string) error {
		mu.Lock()
		defer mu.Unlock()
		if o != op || !strings.Contains(name, part) || times == 0 {
			return nil
		}
		times--
		return errStore
	}
}

// both asks one hook, then another.
func both(a, b func(op, name string) error) func(op, name string) error {
	return func(op, name string) error { return errors.Join(a(op, name), b(op, name)) }
}
