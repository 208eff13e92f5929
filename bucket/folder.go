package bucket

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// temporary starts the names of files that are being written. A crash may leave one behind; it is
// never listed, and nothing depends on it.
const temporary = ".tmp-"

// Folder opens a local folder as a bucket, making it if need be. An object is a file. It is written
// under a temporary name beside its own, synced, and linked to its name: link(2) fails when the name
// is taken, so that of racing writers, in any number of processes, exactly one wins, and the name
// never holds half an object. The folder is synced before Create and Put return.
func Folder(path string) (Bucket, error) {
	if path == "" {
		return nil, errors.New("the path of the folder is empty")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := makeFolder(abs); err != nil {
		return nil, plain(err)
	}
	return &folder{root: abs}, nil
}

type folder struct{ root string }

func (f *folder) Create(ctx context.Context, name string, data []byte) error {
	return f.write(ctx, name, data, func(from, to string) error {
		err := os.Link(from, to)
		switch {
		case errors.Is(err, fs.ErrExist):
			return ErrExists
		case errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.EMLINK):
			return fmt.Errorf("%s: this file system has no hard links, without which two instances could both own a partition: use another folder or a bucket (%w)", f.root, err)
		}
		return err
	})
}

func (f *folder) Put(ctx context.Context, name string, data []byte) error {
	return f.write(ctx, name, data, os.Rename)
}

// write puts data under a temporary name and publishes it.
func (f *folder) write(ctx context.Context, name string, data []byte, publish func(from, to string) error) error {
	if err := ready(ctx, name); err != nil {
		return err
	}
	to := f.path(name)
	dir := filepath.Dir(to)
	from := filepath.Join(dir, temporary+rand.Text())
	file, err := os.OpenFile(from, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeFolder(dir); err != nil {
			return plain(err)
		}
		file, err = os.OpenFile(from, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	}
	if err != nil {
		return plain(err)
	}
	defer os.Remove(from)
	if _, err := file.Write(data); err != nil {
		file.Close()
		return plain(err)
	}
	if err := file.Sync(); err != nil {
		file.Close()
		return plain(err)
	}
	if err := file.Close(); err != nil {
		return plain(err)
	}
	if err := publish(from, to); err != nil {
		return plain(err)
	}
	return plain(syncFolder(dir))
}

func (f *folder) Get(ctx context.Context, name string) ([]byte, error) {
	if err := ready(ctx, name); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(f.path(name))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, ErrNotFound
	}
	return data, plain(err)
}

func (f *folder) List(ctx context.Context, prefix string) ([]string, error) {
	dir := ""
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		dir = prefix[:i]
		if err := validName(dir); err != nil {
			return nil, err
		}
	}
	var names []string
	err := filepath.WalkDir(f.path(dir), func(path string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // deleted meanwhile, or nothing was ever written here
			}
			return err
		}
		if d.IsDir() || strings.HasPrefix(d.Name(), temporary) {
			return nil
		}
		name, err := filepath.Rel(f.root, path)
		if err != nil {
			return err
		}
		if name = filepath.ToSlash(name); strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
		return nil
	})
	slices.Sort(names)
	return names, plain(err)
}

func (f *folder) Delete(ctx context.Context, name string) error {
	if err := ready(ctx, name); err != nil {
		return err
	}
	err := os.Remove(f.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return plain(err)
}

func (f *folder) URL() string             { return "file://" + filepath.ToSlash(f.root) }
func (f *folder) Close() error            { return nil }
func (f *folder) path(name string) string { return filepath.Join(f.root, filepath.FromSlash(name)) }

// makeFolder makes a folder and its parents, and syncs each folder that got a new entry: a name whose
// parents are lost in a power cut is lost with them.
func makeFolder(dir string) error {
	if info, err := os.Stat(dir); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s is a file, not a folder", dir)
		}
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeFolder(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
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

// plain words what an operator can mend.
func plain(err error) error {
	var path *fs.PathError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &path) && errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("the disk is full: %s: %w", path.Path, path.Err)
	case errors.As(err, &path) && errors.Is(err, syscall.EROFS):
		return fmt.Errorf("the file system is read-only: %s: %w", path.Path, path.Err)
	}
	return err
}
