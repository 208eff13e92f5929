package blob

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/sinks/sinktest"
	"github.com/millstream/millstream/stream"
)

// wired is a bucket at the end of a wire.
type wired struct {
	bucket.Bucket
	wire *sinktest.Wire
}

func (w *wired) Create(ctx context.Context, name string, data []byte) error {
	data = bytes.Clone(data) // the call may outlive the caller
	return w.wire.Call(ctx, func(ctx context.Context) error { return w.Bucket.Create(ctx, name, data) })
}

func (w *wired) CreateFrom(ctx context.Context, name string, write func(io.Writer) error) error {
	var data bytes.Buffer
	if err := write(&data); err != nil {
		return err
	}
	return w.Create(ctx, name, data.Bytes())
}

func (w *wired) Read(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	var data []byte
	err := w.wire.Call(ctx, func(ctx context.Context) (err error) { data, err = w.Bucket.Get(ctx, name); return err })
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(data[offset:])), nil
}

// destination is what consumers of a bucket's prefix see.
func destination(t *testing.T, b bucket.Bucket, prefix string) *sinktest.Destination {
	t.Helper()
	open := func(b bucket.Bucket) (stream.Sink, error) { return New(b, prefix) }
	return destinationOf(b, prefix, open, func(name string, data []byte) ([][]byte, error) { return split(nil, name, data) })
}

// destinationOf is that of sinks that open makes, and of files that decode reads.
func destinationOf(b bucket.Bucket, prefix string, open func(bucket.Bucket) (stream.Sink, error), decode func(string, []byte) ([][]byte, error)) *sinktest.Destination {
	return &sinktest.Destination{
		Promise: sinktest.ExactlyOnce, Name: b.URL(),
		Open: func(hook sinktest.Hook) (stream.Sink, error) {
			wire := new(sinktest.Wire)
			wire.Begin(hook)
			return open(&wired{b, wire})
		},
		Seen: func(ctx context.Context) ([][]byte, error) {
			names, err := b.List(ctx, prefix)
			if err != nil {
				return nil, err
			}
			var rows [][]byte
			for _, name := range names {
				if ignored(path.Base(name)) {
					continue
				}
				data, err := b.Get(ctx, name)
				if err != nil {
					return nil, err
				}
				more, err := decode(name, data)
				if err != nil {
					return nil, err
				}
				rows = append(rows, more...)
			}
			return rows, nil
		},
	}
}

func ignored(base string) bool { return strings.HasPrefix(base, "_") || strings.HasPrefix(base, ".") }

// split appends the rows of a file, as a reader of newline-delimited JSON would.
func split(rows [][]byte, name string, data []byte) ([][]byte, error) {
	lines, whole := bytes.CutSuffix(data, []byte("\n"))
	if !whole {
		return nil, fmt.Errorf("%s is empty, or ends within a row", name)
	}
	return append(rows, bytes.Split(lines, []byte("\n"))...), nil
}

func TestMemory(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) *sinktest.Destination { return destination(t, bucket.Memory(), "out/") })
}

// TestFolder looks at the folder as other programs do, not through the bucket.
func TestFolder(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) *sinktest.Destination {
		dir := t.TempDir()
		b, err := bucket.Folder(dir)
		if err != nil {
			t.Fatal(err)
		}
		d := destination(t, b, "")
		d.Seen = func(context.Context) ([][]byte, error) { return read(dir) }
		return d
	})
}

func read(dir string) ([][]byte, error) {
	var rows [][]byte
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && (e.IsDir() || ignored(e.Name())) {
			return nil // a temporary file may go while we look
		}
		if err != nil {
			return err
		}
		if !strings.HasSuffix(name, ".ndjson") {
			return fmt.Errorf("%s has another extension", name)
		}
		data, err := os.ReadFile(name)
		if err == nil {
			rows, err = split(rows, name, data)
		}
		return err
	})
	return rows, err
}

func idOf(number uint64) stream.CheckpointID {
	return stream.CheckpointID{Pipeline: "main", Genesis: "0123456789abcdef", Partition: "0", Number: number}
}

func rowsOf(number uint64) []stream.Row {
	rows := make([]stream.Row, 2000)
	for i := range rows {
		rows[i].Data = fmt.Appendf(nil, `{"entry":%d,"n":%d,"pad":"%0500d"}`, number, i, i)
	}
	return rows
}

// childFolder is where a child process of TestKilled delivers.
const childFolder = "MILLSTREAM_TEST_BLOB_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childFolder); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

const children = 20

// child delivers, and says before each delivery that it is about to.
func child(dir string) error {
	b, err := bucket.Folder(dir)
	if err != nil {
		return err
	}
	s, err := New(b, "")
	if err != nil {
		return err
	}
	for n := uint64(1); n <= children; n++ {
		fmt.Println(n)
		if err := s.Deliver(context.Background(), idOf(n), rowsOf(n)); err != nil {
			return err
		}
	}
	return nil
}

// TestKilled: a process that is killed with SIGKILL at any moment leaves whole files and hidden ones; its
// successor completes the rows; what was left behind goes.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	for n := 1; n <= children; n++ {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childFolder+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range n {
			if !lines.Scan() {
				t.Fatalf("the child ended before delivery %d", n)
			}
		}
		cmd.Process.Kill()
		cmd.Wait()
		if _, err := read(dir); err != nil {
			t.Fatal(err)
		}
	}
	b, err := bucket.Folder(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(b, "")
	if err != nil {
		t.Fatal(err)
	}
	for n := uint64(1); n <= children; n++ {
		if err := s.Deliver(t.Context(), idOf(n), rowsOf(n)); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := read(dir)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, row := range rows {
		seen[string(row)] = true
	}
	for n := uint64(1); n <= children; n++ {
		for _, row := range rowsOf(n) {
			if !seen[string(row.Data)] {
				t.Fatalf("entry %d lacks a row", n)
			}
		}
	}
	if want := children * len(rowsOf(1)); len(rows) != want || len(seen) != want {
		t.Errorf("%d rows, %d different ones, want %d", len(rows), len(seen), want)
	}

	// What a crash leaves behind is hidden, and removed by a later process once it is old.
	left := filepath.Join(dir, ".tmp-left")
	if err := os.WriteFile(left, []byte(`{"half`), 0o644); err != nil {
		t.Fatal(err)
	}
	if half, err := read(dir); err != nil || len(half) != len(rows) {
		t.Errorf("%d rows beside half a file: %v", len(half), err)
	}
	old := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(left, old, old); err != nil {
		t.Fatal(err)
	}
	if b, err = bucket.Folder(dir); err != nil {
		t.Fatal(err)
	}
	if s, err = New(b, ""); err != nil {
		t.Fatal(err)
	}
	if err := s.Deliver(t.Context(), idOf(children+1), rowsOf(children+1)); err != nil {
		t.Fatal(err)
	}
	hidden, err := filepath.Glob(filepath.Join(dir, ".tmp-left"))
	if err != nil || len(hidden) != 0 {
		t.Errorf("left behind: %q, %v", hidden, err)
	}
}

// TestWriteTorn is TestKilled's negative control: a half-written file under its final name is noticed.
func TestWriteTorn(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "x.ndjson"), []byte("{}\n{\"half"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := read(dir); err == nil {
		t.Error("half a row passes")
	}
}

// TestTaken: a name that holds other bytes is not a delivery.
func TestTaken(t *testing.T) {
	b := bucket.Memory()
	s, err := New(b, "out/")
	if err != nil {
		t.Fatal(err)
	}
	rows := []stream.Row{{Data: []byte(`{"n":1}`)}, {Data: []byte(`{"n":2}`)}}
	name := "out/main-0123456789ab-0-00000000000000000007-0000.ndjson"
	for _, there := range []string{"", "{\"n\":1}\n", "{\"n\":1}\n{\"n\":3}\n"} {
		if err := b.Put(t.Context(), name, []byte(there)); err != nil {
			t.Fatal(err)
		}
		if err := s.Deliver(t.Context(), idOf(7), rows); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: %v", there, err)
		}
		if got, err := b.Get(t.Context(), name); err != nil || string(got) != there {
			t.Errorf("%q was overwritten with %q: %v", there, got, err)
		}
	}
	if err := b.Delete(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Deliver(t.Context(), idOf(7), rows); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := b.Get(t.Context(), name); err != nil || string(got) != "{\"n\":1}\n{\"n\":2}\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestTakenAndGone: a file that is there when it is written and gone when it is read is no delivery.
func TestTakenAndGone(t *testing.T) {
	b := bucket.Memory()
	s, err := New(&vanishing{b}, "")
	if err != nil {
		t.Fatal(err)
	}
	rows := []stream.Row{{Data: []byte(`{}`)}}
	for range 2 {
		err = s.Deliver(t.Context(), idOf(1), rows)
	}
	if !errors.Is(err, bucket.ErrNotFound) {
		t.Error(err)
	}
}

type vanishing struct{ bucket.Bucket }

func (*vanishing) Read(context.Context, string, int64) (io.ReadCloser, error) {
	return nil, bucket.ErrNotFound
}

// TestHangsUp: a server that refuses a taken name by breaking the connection keeps nobody waiting for ever,
// but a broken connection alone is no delivery.
func TestHangsUp(t *testing.T) {
	b := &hangsUp{Bucket: bucket.Memory()}
	s, err := New(b, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Deliver(t.Context(), idOf(1), rowsOf(1)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	b.done = true
	for range 2 {
		if err := s.Deliver(t.Context(), idOf(1), rowsOf(1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Deliver(t.Context(), idOf(1), rowsOf(2)); err == nil || !strings.Contains(err.Error(), "holds") {
		t.Error(err)
	}
}

type hangsUp struct {
	bucket.Bucket
	done bool
}

func (h *hangsUp) CreateFrom(ctx context.Context, name string, write func(io.Writer) error) error {
	if h.done {
		if err := h.Bucket.CreateFrom(ctx, name, write); err != nil && !errors.Is(err, bucket.ErrExists) {
			return err
		}
	}
	return io.ErrUnexpectedEOF
}

// TestNothing: no rows, or none that can be delivered, leave no file behind.
func TestNothing(t *testing.T) {
	b := bucket.Memory()
	s, err := New(b, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Deliver(t.Context(), idOf(1), nil); err != nil {
		t.Error(err)
	}
	var rejected *stream.Rejected
	if err := s.Deliver(t.Context(), idOf(2), []stream.Row{{Data: []byte("a\nb")}}); !errors.As(err, &rejected) {
		t.Error(err)
	}
	if names, err := b.List(t.Context(), ""); err != nil || len(names) != 0 {
		t.Errorf("%q, %v", names, err)
	}
}

func TestFileName(t *testing.T) {
	change := func(f func(*stream.CheckpointID)) stream.CheckpointID { id := idOf(7); f(&id); return id }
	long := strings.Repeat("ä", 200)
	for _, c := range []struct {
		id   stream.CheckpointID
		want string
	}{
		{idOf(7), "main-0123456789ab-0-00000000000000000007-0000"},
		{change(func(id *stream.CheckpointID) { id.Partition, id.Kind = "a/b c", "dead" }), "main-0123456789ab-a%2Fb%20c-00000000000000000007-0000-dead"},
		{change(func(id *stream.CheckpointID) { id.Pipeline = "_x" }), "%5Fx-0123456789ab-0-00000000000000000007-0000"},
		{change(func(id *stream.CheckpointID) { id.Pipeline = ".x" }), "%2Ex-0123456789ab-0-00000000000000000007-0000"},
		{change(func(id *stream.CheckpointID) { id.Partition = "___0x" }), "main-0123456789ab-_%5F_0x-00000000000000000007-0000"},
		{change(func(id *stream.CheckpointID) { id.Partition = long }),
			"main-0123456789ab-" + strings.Repeat("%C3%A4", 12) + "~2e9f2db459a49bf4765b88195a10d317-00000000000000000007-0000"},
	} {
		if got := fileName(c.id); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
	longest := change(func(id *stream.CheckpointID) {
		id.Pipeline, id.Partition, id.Kind, id.Part = strings.Repeat("p", 1000), long, "rejected-10", 1<<20
	})
	if n := len(fileName(longest)); n > maxName {
		t.Errorf("%d bytes", n)
	}
}

func TestNew(t *testing.T) {
	if _, err := New(bucket.Memory(), "a"); err == nil {
		t.Error("a prefix that is no folder passes")
	}
}
