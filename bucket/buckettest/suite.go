// Package buckettest holds what every store behind bucket.Bucket must pass, and a wrapper that makes a
// store fail on purpose.
//
// A Case is a function, not a test, so that a test can also show that it catches a store which breaks
// the rule: see the package's own tests.
package buckettest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/millstream/millstream/bucket"
)

// Case is one rule of bucket.Bucket.
type Case struct {
	Name string
	// Holds returns how b breaks the rule, nil when it keeps it. b is empty below prefix, which ends
	// in "/".
	Holds func(ctx context.Context, b bucket.Bucket, prefix string) error
}

// Cases returns every rule.
func Cases() []Case {
	return []Case{
		{"CreateOnce", createOnce},
		{"CreateAfterDelete", createAfterDelete},
		{"OneWinner", oneWinner},
		{"Check", func(ctx context.Context, b bucket.Bucket, _ string) error { return bucket.Check(ctx, b) }},
		{"PutOverwrites", putOverwrites},
		{"Sizes", sizes},
		{"NothingHalfWritten", nothingHalfWritten},
		{"OwnBytes", ownBytes},
		{"Absent", absent},
		{"List", list},
		{"ListPages", listPages},
		{"Names", names},
		{"BadNames", badNames},
		{"Browse", browse},
		{"Streamed", streamed},
		{"StreamGivenUp", streamGivenUp},
		{"Cancelled", cancelled},
	}
}

// Run runs every case as a subtest, each below a prefix of its own.
func Run(t *testing.T, b bucket.Bucket) {
	for _, c := range Cases() {
		t.Run(c.Name, func(t *testing.T) {
			if err := c.Holds(t.Context(), b, "suite-"+c.Name+"/"); err != nil {
				t.Error(err)
			}
		})
	}
}

func createOnce(ctx context.Context, b bucket.Bucket, prefix string) error {
	name := prefix + "a/b/00000000000000000001"
	if err := b.Create(ctx, name, []byte("first")); err != nil {
		return err
	}
	for range 2 {
		if err := b.Create(ctx, name, []byte("second")); !errors.Is(err, bucket.ErrExists) {
			return fmt.Errorf("Create of a taken name returned %v, want ErrExists", err)
		}
	}
	return holds(ctx, b, name, []byte("first"))
}

func createAfterDelete(ctx context.Context, b bucket.Bucket, prefix string) error {
	name := prefix + "again"
	for _, content := range []string{"one", "two"} {
		if err := b.Create(ctx, name, []byte(content)); err != nil {
			return err
		}
		if err := holds(ctx, b, name, []byte(content)); err != nil {
			return err
		}
		if err := b.Delete(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// oneWinner races writers over names without waiting for each other, as a check at start-up does not.
func oneWinner(ctx context.Context, b bucket.Bucket, prefix string) error {
	const writers, count = 8, 20
	return Race(ctx, b, prefix, writers, count)
}

// Race lets writers create the same count names below prefix at once, and returns an error unless
// each name had exactly one winner, whose bytes it holds. An outcome that a store leaves open is
// settled by reading back.
func Race(ctx context.Context, b bucket.Bucket, prefix string, writers, count int) error {
	content := func(w, n int) []byte { return fmt.Appendf(nil, "writer %d of name %d", w, n) }
	won := make([][]bool, writers)
	errs := make([]error, writers)
	var wait sync.WaitGroup
	for w := range writers {
		won[w] = make([]bool, count)
		wait.Go(func() {
			for n := range count {
				name := fmt.Sprintf("%s%05d", prefix, n)
				err := b.Create(ctx, name, content(w, n))
				if err != nil && !errors.Is(err, bucket.ErrExists) {
					data, readErr := b.Get(ctx, name)
					if readErr != nil {
						errs[w] = fmt.Errorf("%w, and then %w", err, readErr)
						return
					}
					if bytes.Equal(data, content(w, n)) {
						err = nil
					}
				}
				won[w][n] = err == nil
			}
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for n := range count {
		var winners []int
		for w := range writers {
			if won[w][n] {
				winners = append(winners, w)
			}
		}
		if len(winners) != 1 {
			return fmt.Errorf("name %d has winners %v, want one", n, winners)
		}
		if err := holds(ctx, b, fmt.Sprintf("%s%05d", prefix, n), content(winners[0], n)); err != nil {
			return err
		}
	}
	return nil
}

func putOverwrites(ctx context.Context, b bucket.Bucket, prefix string) error {
	name := prefix + "members/me"
	for _, content := range []string{"one", "a longer one", "2"} {
		if err := b.Put(ctx, name, []byte(content)); err != nil {
			return err
		}
		if err := holds(ctx, b, name, []byte(content)); err != nil {
			return err
		}
	}
	if err := b.Create(ctx, name, nil); !errors.Is(err, bucket.ErrExists) {
		return fmt.Errorf("Create of a name that was Put returned %v, want ErrExists", err)
	}
	return nil
}

// sizes crosses every buffer and part size of the drivers.
func sizes(ctx context.Context, b bucket.Bucket, prefix string) error {
	for _, size := range []int{0, 1, 1 << 10, 256 << 10, 5 << 20, 8<<20 - 1, 8 << 20, 8<<20 + 1, 17 << 20} {
		data := pattern(size, size)
		name := fmt.Sprintf("%s%d", prefix, size)
		if err := b.Create(ctx, name, data); err != nil {
			return fmt.Errorf("%d bytes: %w", size, err)
		}
		// A server may refuse and hang up before it has read several MB, which looks like any lost connection.
		err := b.Create(ctx, name, pattern(size, 1))
		if err == nil || size <= 1<<20 && !errors.Is(err, bucket.ErrExists) {
			return fmt.Errorf("%d bytes: Create of a taken name returned %v, want ErrExists", size, err)
		}
		if err := holds(ctx, b, name, data); err != nil {
			return err
		}
		if err := b.Delete(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// nothingHalfWritten reads while others write.
func nothingHalfWritten(ctx context.Context, b bucket.Bucket, prefix string) error {
	const size, rounds = 512 << 10, 20
	put, done := prefix+"put", make(chan struct{})
	if err := b.Put(ctx, put, pattern(size, 0)); err != nil {
		return err
	}
	var written error
	go func() {
		defer close(done)
		for n := range rounds {
			written = errors.Join(written, b.Put(ctx, put, pattern(size, n)), b.Create(ctx, fmt.Sprintf("%screate-%d", prefix, n), pattern(size, n)))
		}
	}()
	whole := func(name string) error {
		data, err := b.Get(ctx, name)
		if errors.Is(err, bucket.ErrNotFound) && name != put {
			return nil
		}
		if err != nil {
			return err
		}
		if len(data) != size || !bytes.Equal(data, pattern(size, int(data[0]))) {
			return fmt.Errorf("%s: a reader saw %d bytes that nobody wrote as a whole", name, len(data))
		}
		return nil
	}
	var read error
	for n, running := 0, true; running && read == nil; n++ {
		select {
		case <-done:
			running = false
		default:
		}
		read = errors.Join(whole(put), whole(fmt.Sprintf("%screate-%d", prefix, n%rounds)))
		listed, err := b.List(ctx, prefix+"create-")
		read = errors.Join(read, err)
		if len(listed) > 0 {
			read = errors.Join(read, whole(listed[len(listed)-1]))
		}
	}
	<-done
	return errors.Join(written, read)
}

// ownBytes: the caller owns what it handed in and what it got.
func ownBytes(ctx context.Context, b bucket.Bucket, prefix string) error {
	name, data := prefix+"a", []byte("kept")
	if err := b.Create(ctx, name, data); err != nil {
		return err
	}
	copy(data, "XXXX")
	got, err := b.Get(ctx, name)
	if err != nil {
		return err
	}
	if string(got) != "kept" {
		return fmt.Errorf("Create kept the caller's slice: %q", got)
	}
	copy(got, "YYYY")
	return holds(ctx, b, name, []byte("kept"))
}

func absent(ctx context.Context, b bucket.Bucket, prefix string) error {
	if err := b.Put(ctx, prefix+"dir/object", nil); err != nil {
		return err
	}
	for _, name := range []string{prefix + "nothing", prefix + "no/thing", prefix + "dir", prefix + "dir/object/below"} {
		if _, err := b.Get(ctx, name); !errors.Is(err, bucket.ErrNotFound) {
			return fmt.Errorf("Get of %s returned %v, want ErrNotFound", name, err)
		}
		if err := b.Delete(ctx, name); err != nil {
			return fmt.Errorf("Delete of %s: %w", name, err)
		}
	}
	return holds(ctx, b, prefix+"dir/object", nil)
}

func list(ctx context.Context, b bucket.Bucket, prefix string) error {
	objects := []string{"a", "a-b", "a.b", "a/1", "a/2", "a/10", "b/c/d", "é", "z"}
	for _, name := range objects {
		if err := b.Put(ctx, prefix+name, []byte(name)); err != nil {
			// A folder cannot hold both "a" and "a/1"; whoever chooses names does without.
			if name == "a/1" {
				if err := b.Delete(ctx, prefix+"a"); err != nil {
					return err
				}
				if err := b.Put(ctx, prefix+name, []byte(name)); err != nil {
					return err
				}
				objects = objects[1:]
				continue
			}
			return err
		}
	}
	for _, p := range []string{"", "a", "a/", "a/1", "a/10", "b", "b/", "b/c", "b/c/d", "b/c/d/", "nothing", "no/thing/", "é"} {
		var want []string
		for _, name := range objects {
			if strings.HasPrefix(name, p) {
				want = append(want, prefix+name)
			}
		}
		slices.Sort(want)
		got, err := b.List(ctx, prefix+p)
		if err != nil {
			return err
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("List of %q returned %q, want %q", p, got, want)
		}
	}
	return nil
}

// listPages needs more names than a page of any driver holds.
func listPages(ctx context.Context, b bucket.Bucket, prefix string) error {
	const count = 1100
	want := make([]string, count)
	errs := make([]error, 8)
	var wait sync.WaitGroup
	for n := range want {
		want[n] = fmt.Sprintf("%s%020d", prefix, n)
	}
	for w := range errs {
		wait.Go(func() {
			for n := w; n < count && errs[w] == nil; n += len(errs) {
				errs[w] = b.Create(ctx, want[n], []byte{1})
			}
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	got, err := b.List(ctx, prefix)
	if err != nil {
		return err
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("List returned %d of %d names, or in another order", len(got), count)
	}
	return nil
}

// names that partitions, pipelines and sinks use come back as they were.
func names(ctx context.Context, b bucket.Bucket, prefix string) error {
	for _, name := range []string{
		"log/shardId-000000000000/00000000000000000001", "log/projects%2Fp%2Fsubscriptions%2Fs/1", "log/ns.servicebus.windows.net:hub$Default:0/1",
		"dt=2026-01-02/hour=03/part+1.ndjson.gz", "with space", "a&b=c;d,e@f!g'h(i)j*k~l", "#?", `"quoted"`, "été", "foo.", "a...b", "_x", ".hidden",
		strings.Repeat("n", 200) + "/" + strings.Repeat("m", 200),
	} {
		name = prefix + name
		if err := b.Create(ctx, name, []byte(name)); err != nil {
			return err
		}
		if err := holds(ctx, b, name, []byte(name)); err != nil {
			return err
		}
		got, err := b.List(ctx, name)
		if err != nil {
			return err
		}
		if !slices.Equal(got, []string{name}) {
			return fmt.Errorf("List of %q returned %q", name, got)
		}
		if err := b.Delete(ctx, name); err != nil {
			return err
		}
		if _, err := b.Get(ctx, name); !errors.Is(err, bucket.ErrNotFound) {
			return fmt.Errorf("%q is still there after Delete: %w", name, err)
		}
	}
	return nil
}

func badNames(ctx context.Context, b bucket.Bucket, prefix string) error {
	for _, name := range []string{
		"", "/", "/a", prefix, "..", "../a", prefix + "../a", prefix + "a/..", prefix + "a../b", prefix + "a//b", prefix + "./a", prefix + "a\x00b", prefix + "a\nb",
		prefix + `a\b`, prefix + "a\xff", prefix + ".tmp-a", prefix + ".tmp-a/b", prefix + "__0x2f__", prefix + strings.Repeat("n", 1000),
	} {
		_, getErr := b.Get(ctx, name)
		for op, err := range map[string]error{"Create": b.Create(ctx, name, nil), "Put": b.Put(ctx, name, nil), "Get": getErr, "Delete": b.Delete(ctx, name)} {
			if err == nil || errors.Is(err, bucket.ErrNotFound) || errors.Is(err, bucket.ErrExists) {
				return fmt.Errorf("%s of name %q returned %v, want it refused", op, name, err)
			}
		}
	}
	if _, err := b.List(ctx, prefix+"../"); err == nil {
		return errors.New("List left the bucket")
	}
	return nil
}

// browse reads from any byte, and has a tag change with every write.
func browse(ctx context.Context, b bucket.Bucket, prefix string) error {
	name, data := prefix+"a/b", pattern(100_000, 1)
	if err := b.Create(ctx, name, data); err != nil {
		return err
	}
	if err := b.Put(ctx, prefix+"a-", nil); err != nil {
		return err
	}
	for _, offset := range []int64{0, 1, 99_999} {
		r, err := b.Read(ctx, name, offset)
		if err != nil {
			return fmt.Errorf("reading from %d: %w", offset, err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || !bytes.Equal(got, data[offset:]) {
			return fmt.Errorf("from %d come %d bytes, %w", offset, len(got), err)
		}
	}
	if _, err := b.Read(ctx, prefix+"absent", 0); !errors.Is(err, bucket.ErrNotFound) {
		return fmt.Errorf("reading what is not there: %w", err)
	}
	tags := make(map[string]bool)
	for n := range 3 {
		infos, err := b.Objects(ctx, prefix+"a")
		if err != nil {
			return err
		}
		if len(infos) != 2 || infos[0].Name != prefix+"a-" || infos[0].Size != 0 || infos[1].Name != name || infos[1].Size != int64(100_000-n) || infos[1].Modified.IsZero() {
			return fmt.Errorf("listed are %+v", infos)
		}
		if tags[infos[1].Tag] {
			return fmt.Errorf("the tag %s stays, though other bytes were written", infos[1].Tag)
		}
		tags[infos[1].Tag] = true
		if err := b.Put(ctx, name, pattern(100_000-n-1, n+2)); err != nil {
			return err
		}
	}
	return nil
}

func cancelled(ctx context.Context, b bucket.Bucket, prefix string) error {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	name := prefix + "a"
	_, getErr := b.Get(ctx, name)
	_, listErr := b.List(ctx, prefix)
	for op, err := range map[string]error{"Create": b.Create(ctx, name, nil), "Put": b.Put(ctx, name, nil), "Get": getErr, "List": listErr, "Delete": b.Delete(ctx, name)} {
		if !errors.Is(err, context.Canceled) {
			return fmt.Errorf("%s with a cancelled context returned %v", op, err)
		}
	}
	return nil
}

func holds(ctx context.Context, b bucket.Bucket, name string, want []byte) error {
	got, err := b.Get(ctx, name)
	if err != nil {
		return fmt.Errorf("reading %s back: %w", name, err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%s holds %d bytes %.40q, want %d bytes %.40q", name, len(got), got, len(want), want)
	}
	return nil
}

// pattern is size bytes that begin with seed and whose every part tells from which seed it comes.
func pattern(size, seed int) []byte {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(seed + i/4096)
	}
	return data
}

// streamed writes objects bit by bit, some of them longer than any buffer.
func streamed(ctx context.Context, b bucket.Bucket, prefix string) error {
	bit := bytes.Repeat([]byte("0123456789abcdef"), 1<<12) // 64 KiB
	for _, bits := range []int{0, 1, 63, 64, 65, 400} {
		name := fmt.Sprintf("%s%d/bits", prefix, bits)
		calls := 0
		write := func(last string) func(io.Writer) error {
			return func(w io.Writer) error {
				calls++
				for range bits {
					if _, err := w.Write(bit); err != nil {
						return err
					}
				}
				_, err := io.WriteString(w, last)
				return err
			}
		}
		if err := b.CreateFrom(ctx, name, write("first")); err != nil {
			return fmt.Errorf("%d bits: %w", bits, err)
		}
		for range 2 {
			// A server may hang up on what it refuses: then the outcome is open, and what is there counts.
			if err := b.CreateFrom(ctx, name, write("second")); err == nil || bits == 0 && !errors.Is(err, bucket.ErrExists) {
				return fmt.Errorf("CreateFrom of a taken name, %d bits, returned %v, want ErrExists", bits, err)
			}
		}
		if calls > 3 {
			return fmt.Errorf("write was called %d times for 3 objects", calls)
		}
		if err := holds(ctx, b, name, append(bytes.Repeat(bit, bits), "first"...)); err != nil {
			return err
		}
		if bits < 400 {
			continue
		}
		r, err := b.Read(ctx, name, 0)
		if err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, r)
		r.Close()
		if want := int64(bits*len(bit) + 5); err != nil || n != want {
			return fmt.Errorf("%d of %d bytes are read: %w", n, want, err)
		}
	}
	return nil
}

// streamGivenUp: nothing is visible of an object whose writer failed, or whose context ended, before the
// first byte or after many.
func streamGivenUp(ctx context.Context, b bucket.Bucket, prefix string) error {
	broken := errors.New("broken")
	bit := make([]byte, 64<<10)
	for _, bits := range []int{0, 1, 65, 400} {
		for _, how := range []string{"fails", "ends"} {
			name := fmt.Sprintf("%s%s/%d", prefix, how, bits)
			writing, cancel := context.WithCancel(ctx)
			err := b.CreateFrom(writing, name, func(w io.Writer) error {
				for range bits {
					if _, err := w.Write(bit); err != nil {
						return err
					}
				}
				if how == "fails" {
					return broken
				}
				cancel()
				return nil
			})
			cancel()
			if how == "fails" && !errors.Is(err, broken) || how == "ends" && err == nil {
				return fmt.Errorf("a writer that %s after %d bits: %v", how, bits, err)
			}
			if err := absentNow(ctx, b, name); err != nil {
				return err
			}
		}
	}
	names, err := b.List(ctx, prefix)
	if err != nil || len(names) > 0 {
		return fmt.Errorf("listed are %q: %w", names, err)
	}
	return nil
}

func absentNow(ctx context.Context, b bucket.Bucket, name string) error {
	if _, err := b.Get(ctx, name); !errors.Is(err, bucket.ErrNotFound) {
		return fmt.Errorf("%s was given up, and Get returns %v", name, err)
	}
	return nil
}
