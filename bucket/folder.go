package bucket

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// temporary starts the names of files that are being written. A crash may leave one behind; it is
	// never listed, and nothing depends on it.
	temporary = ".tmp-"
	// leftover is how old a temporary file is when it counts as left behind by a crash. Removing the
	// file of a writer that still lives is an error to that writer, never a lost or a damaged object:
	// an object's name is given to it only by link or rename, which then find nothing.
	leftover = time.Hour
)

// Folder opens a local folder as a bucket, making it if need be. An object is a file. It is written
// under a temporary name beside its own, synced, and linked to its name: link(2) fails when the name
// is taken, so that of racing writers, in any number of processes, exactly one wins, and the name
// never holds half an object. Before Create and Put return, the folder and those above it up to the
// bucket's own are synced, so that the object outlives a power cut. Delete leaves empty folders.
//
// A file system without hard links is refused by Create (so by Check): nothing else there both
// excludes a second writer and hides half-written bytes.
func Folder(path string) (Bucket, error) {
	if path == "" {
		return nil, errors.New("the path of the folder is empty")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := makeFolder(abs); err != nil {
		return nil, failed(abs, err)
	}
	return &folder{root: abs, link: os.Link, settled: make(map[string]bool)}, nil
}

type folder struct {
	root string
	link func(from, to string) error // os.Link

	mu      sync.Mutex
	settled map[string]bool // folders that are on the disk under their names, see settle
}

func (f *folder) Create(ctx context.Context, name string, data []byte) error {
	if err := ready(ctx, name); err != nil {
		return err
	}
	to := f.path(name)
	if err := taken(to); err != nil {
		return err // before anything is written
	}
	return f.write(to, whole(data), f.linked)
}

// linked publishes a temporary file under a name that nobody has.
func (f *folder) linked(from, to string) error {
	err := f.link(from, to)
	switch {
	case errors.Is(err, fs.ErrExist):
		return cmp.Or(taken(to), ErrExists) // it may be deleted by now, but it was there
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.ENOTSUP), errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.EMLINK):
		return fmt.Errorf("%s: this file system has no hard links, without which two instances could both own a partition: use another folder or a bucket (%w)", f.root, err)
	}
	return failed(to, err)
}

// whole writes data that is all there.
func whole(data []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}
}

// taken returns ErrExists when there is an object at path, nil when there is nothing.
func taken(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return failed(path, err)
	case info.IsDir():
		return fmt.Errorf("%s: is a folder, not an object", path)
	}
	return ErrExists
}

func (f *folder) Put(ctx context.Context, name string, data []byte) error {
	if err := ready(ctx, name); err != nil {
		return err
	}
	return f.write(f.path(name), whole(data), func(from, to string) error { return failed(to, os.Rename(from, to)) })
}

// write fills a temporary file, publishes that under its name, and makes both last.
func (f *folder) write(to string, fill func(io.Writer) error, publish func(from, to string) error) error {
	dir := filepath.Dir(to)
	file, err := f.temporary(dir)
	if err != nil {
		return failed(to, err)
	}
	defer os.Remove(file.Name())
	if err = fill(file); err == nil {
		err = file.Sync()
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return failed(to, err)
	}
	if err := publish(file.Name(), to); err != nil {
		return err
	}
	_ = os.Remove(file.Name()) // before the sync, which then covers it; after a rename there is none
	return failed(to, syncFolder(dir))
}

// temporary makes a file to be written in dir. The folder may be deleted between making it and that.
func (f *folder) temporary(dir string) (*os.File, error) {
	for attempt := 0; ; attempt++ {
		err := f.settle(dir)
		var file *os.File
		if err == nil {
			file, err = os.OpenFile(filepath.Join(dir, temporary+rand.Text()), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		}
		if !errors.Is(err, fs.ErrNotExist) || attempt == 3 {
			return file, err
		}
		f.mu.Lock()
		clear(f.settled)
		f.mu.Unlock()
	}
}

// settle makes dir, once a process: it syncs its name and those above it, even when another process
// made them, since that one may have been killed before its own sync, and removes what crashes left
// in it.
func (f *folder) settle(dir string) error {
	f.mu.Lock()
	done := f.settled[dir]
	f.mu.Unlock()
	if done {
		return nil
	}
	if dir == f.root {
		if err := f.there(); err != nil {
			return err
		}
	} else {
		parent := filepath.Dir(dir)
		if err := f.settle(parent); err != nil {
			return err
		}
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := syncFolder(parent); err != nil {
			return err
		}
	}
	sweep(dir)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.settled) >= 10_000 {
		clear(f.settled)
	}
	f.settled[dir] = true
	return nil
}

// sweep removes the temporary files that crashes left in dir. One that cannot be removed does no harm.
func sweep(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || !strings.HasPrefix(e.Name(), temporary) {
			continue
		}
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > leftover {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

func (f *folder) Get(ctx context.Context, name string) ([]byte, error) {
	if err := ready(ctx, name); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(f.path(name))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR):
		if err := f.there(); err != nil {
			return nil, failed(f.root, err)
		}
		return nil, ErrNotFound
	case err != nil:
		return nil, failed(f.path(name), err)
	}
	return data, nil
}

// there is an error when the bucket's own folder was removed or its disk unmounted: objects then are
// out of reach, not absent, and a folder made anew would hold a log without its beginning.
func (f *folder) there() error {
	info, err := os.Stat(f.root)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "open", Path: f.root, Err: syscall.ENOTDIR}
	}
	return err
}

func (f *folder) List(ctx context.Context, prefix string) ([]string, error) {
	if err := readyList(ctx, prefix); err != nil {
		return nil, err
	}
	if err := f.there(); err != nil {
		return nil, failed(f.root, err)
	}
	names, err := f.list(ctx, nil, prefix[:strings.LastIndexByte(prefix, '/')+1], prefix)
	if err != nil {
		return nil, failed(f.path(prefix), err)
	}
	slices.Sort(names)
	return names, nil
}

// list appends the names below dir, which is empty or ends in "/", that begin with prefix. Symbolic
// links to folders are followed on the way to dir, as Get does, but not below it, where they could go
// round in circles.
func (f *folder) list(ctx context.Context, names []string, dir, prefix string) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(f.path(dir))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return names, nil // deleted meanwhile, or nothing was ever written here
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name := dir + e.Name()
		switch {
		case validName(name) != nil: // temporary, or nothing of ours
		case e.IsDir():
			if below := name + "/"; strings.HasPrefix(below, prefix) || strings.HasPrefix(prefix, below) {
				if names, err = f.list(ctx, names, below, prefix); err != nil {
					return nil, err
				}
			}
		case strings.HasPrefix(name, prefix) && isFile(f.path(name), e):
			names = append(names, name)
		}
	}
	return names, nil
}

func isFile(path string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.Type().IsRegular()
	}
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func (f *folder) Delete(ctx context.Context, name string) error {
	if err := ready(ctx, name); err != nil {
		return err
	}
	err := syscall.Unlink(f.path(name)) // not os.Remove, which would also take an empty folder
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil
	}
	if info, statErr := os.Lstat(f.path(name)); statErr == nil && info.IsDir() {
		return nil // a folder of that name is not an object
	}
	return failed(f.path(name), err)
}

func (f *folder) URL() string             { return "file://" + filepath.ToSlash(f.root) }
func (f *folder) Close() error            { return nil }
func (f *folder) path(name string) string { return filepath.Join(f.root, filepath.FromSlash(name)) }

// makeFolder makes a folder and its parents, and syncs each folder that got a new entry: a name whose
// parents are lost in a power cut is lost with them.
func makeFolder(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return &fs.PathError{Op: "open", Path: dir, Err: syscall.ENOTDIR}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeFolder(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		if info, statErr := os.Stat(dir); statErr != nil || !info.IsDir() { // else another process made it
			return err
		}
	}
	return syncFolder(parent)
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// failed says in one line which path could not be used and why, and what an operator can mend.
// Temporary files are named by what they were to become.
func failed(path string, err error) error {
	var at *fs.PathError
	var link *os.LinkError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &at):
		if !strings.HasPrefix(filepath.Base(at.Path), temporary) {
			path = at.Path
		}
		err = at.Err
	case errors.As(err, &link):
		err = link.Err
	}
	cause := ""
	switch {
	case errors.Is(err, syscall.ENOSPC):
		cause = "the disk is full: "
	case errors.Is(err, syscall.EDQUOT):
		cause = "the disk quota is used up: "
	case errors.Is(err, syscall.EROFS):
		cause = "the file system is read-only: "
	case errors.Is(err, syscall.ENOTDIR):
		cause = "a file is where a folder should be: "
	}
	return fmt.Errorf("%s: %s%w", path, cause, err)
}
