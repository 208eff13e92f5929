package checkpoint

import (
	"strings"
	"sync"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/bucket/buckettest"
)

var errStore = buckettest.ErrUnavailable

// ill is a bucket whose calls a test can spoil, and spoil otherwise later.
type ill struct {
	*buckettest.Faults
	mu    sync.Mutex
	hooks []hook
}

// hook says what happens to a call; the first fault of several hooks counts.
type hook func(op, name string) buckettest.Fault

func newIll(b bucket.Bucket) *ill {
	i := &ill{}
	i.Faults = &buckettest.Faults{Bucket: b, Hook: func(op, name string) (f buckettest.Fault) {
		i.mu.Lock()
		hooks := i.hooks
		i.mu.Unlock()
		for _, h := range hooks {
			if f = h(op, name); f.Err != nil || f.Hold != nil || f.Hide != nil {
				break
			}
		}
		return f
	}}
	return i
}

func (i *ill) spoil(hooks ...hook) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.hooks = hooks
}

func (i *ill) count(op string) int { return i.Calls(op) }

// fail fails the first times calls of op on names with the given part: nothing happens.
func fail(op, part string, times int) hook {
	return matching(op, part, times, buckettest.Fault{Err: errStore})
}

// hide carries them out, but hides how it went.
func hide(op, part string, times int) hook {
	return matching(op, part, times, buckettest.Fault{Err: errStore, After: true})
}

func matching(op, part string, times int, f buckettest.Fault) hook {
	var mu sync.Mutex
	return func(o, name string) buckettest.Fault {
		mu.Lock()
		defer mu.Unlock()
		if o != op || !strings.Contains(name, part) || times == 0 {
			return buckettest.Fault{}
		}
		times--
		return f
	}
}

// once calls do before the next call of op on a name with the given part, whose answer is err.
func once(op, part string, do func() error) hook {
	var mu sync.Mutex
	var done bool
	return func(o, name string) buckettest.Fault {
		mu.Lock()
		first := !done && o == op && strings.Contains(name, part)
		done = done || first
		mu.Unlock()
		if !first {
			return buckettest.Fault{}
		}
		return buckettest.Fault{Err: do()}
	}
}
