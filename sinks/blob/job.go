package blob

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/stream"
)

// limits bound what a job holds.
type limits struct {
	// together is how many bytes of rows, of several paths, are held in memory at once; a path that has
	// more is written on its own, part after part.
	together int64
	// paths is how many are known at once. Rows that have more are taken in rounds.
	paths int
}

// abreast is how many small files are written at once.
const abreast = 4

// job is the files of one id. One file is written as its rows are read. With a path template the rows are
// read once to learn the paths and how many bytes go to each; then again for every 16 MiB of paths that are
// written together, and for every path that has more than that. So a job holds 16 MiB of rows, the paths of
// a round, and what its files' writers hold, however many rows there are.
type job struct {
	bucket bucket.Bucket
	prefix string
	base   string // the files' name
	plan   *plan
	parts  iter.Seq2[[]stream.Row, error]
	limits limits

	mu       sync.Mutex
	rejected []stream.RejectedRow
}

// numbered is a row and its index among all.
type numbered struct {
	index int
	row   *stream.Row
}

// errParts marks an error that came with the rows, which no other attempt can mend.
type errParts struct{ error }

func (e errParts) Unwrap() error { return e.error }

// rows yields all rows of all parts.
func (j *job) rows(ctx context.Context) iter.Seq2[numbered, error] {
	return func(yield func(numbered, error) bool) {
		index := 0
		for rows, err := range j.parts {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(numbered{}, errParts{err})
				return
			}
			for i := range rows {
				if !yield(numbered{index, &rows[i]}, nil) {
					return
				}
				index++
			}
		}
	}
}

func (j *job) write(ctx context.Context) ([]stream.RejectedRow, error) {
	if j.plan.Format != ndjson && j.plan.schema == nil {
		if err := j.learn(ctx); err != nil {
			return nil, err
		}
	}
	var err error
	if j.plan.path == nil {
		err = j.file(ctx, "", j.rows(ctx))
	} else {
		err = j.routed(ctx)
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(j.rejected, func(a, b stream.RejectedRow) int { return a.Index - b.Index })
	return j.rejected, nil
}

// learn finds the columns that the rows have.
func (j *job) learn(ctx context.Context) error {
	l := newLearner(j.plan.Format == csvFormat)
	for r, err := range j.rows(ctx) {
		if err != nil {
			return err
		}
		l.see(r.row.Data)
	}
	j.plan.schema = l.schema()
	return nil
}

// routed writes a file for each path, and begins anew with more rounds when one has too many paths: what
// was written by then is the same.
func (j *job) routed(ctx context.Context) error {
	for rounds := uint64(1); ; rounds *= 2 {
		fit := true
		j.rejected = nil
		for round := uint64(0); round < rounds && fit; round++ {
			sizes, ok, err := j.paths(ctx, rounds, round)
			if err != nil {
				return err
			}
			if fit = ok; !fit {
				break
			}
			if err := j.round(ctx, sizes); err != nil {
				return err
			}
		}
		if fit {
			return nil
		}
	}
}

// paths returns how many bytes go to each path of a round; false when there are too many.
func (j *job) paths(ctx context.Context, rounds, round uint64) (map[string]int64, bool, error) {
	sizes := make(map[string]int64)
	for r, err := range j.rows(ctx) {
		if err != nil {
			return nil, false, err
		}
		path := j.plan.path.of(r.row)
		if rounds > 1 {
			h := fnv.New64a()
			_, _ = h.Write([]byte(path)) // which cannot fail
			if h.Sum64()%rounds != round {
				continue
			}
		}
		if sizes[path] += int64(len(r.row.Data)) + 64; len(sizes) > j.limits.paths {
			return nil, false, nil
		}
	}
	return sizes, true, nil
}

// round writes the files of some paths, together as many as fit in memory.
func (j *job) round(ctx context.Context, sizes map[string]int64) error {
	group, size := make(map[string][]numbered), int64(0)
	for _, path := range slices.Sorted(maps.Keys(sizes)) {
		if sizes[path] > j.limits.together {
			if err := j.file(ctx, path, j.of(ctx, path)); err != nil {
				return err
			}
			continue
		}
		if size+sizes[path] > j.limits.together {
			if err := j.grouped(ctx, group); err != nil {
				return err
			}
			clear(group)
			size = 0
		}
		group[path] = nil
		size += sizes[path]
	}
	return j.grouped(ctx, group)
}

// of yields the rows of one path.
func (j *job) of(ctx context.Context, path string) iter.Seq2[numbered, error] {
	return func(yield func(numbered, error) bool) {
		for r, err := range j.rows(ctx) {
			if (err != nil || j.plan.path.of(r.row) == path) && !yield(r, err) {
				return
			}
		}
	}
}

// grouped collects the rows of some paths, and writes their files.
func (j *job) grouped(ctx context.Context, group map[string][]numbered) error {
	if len(group) == 0 {
		return nil
	}
	for r, err := range j.rows(ctx) {
		if err != nil {
			return err
		}
		path := j.plan.path.of(r.row)
		if rows, ok := group[path]; ok {
			row := *r.row // whose memory is the next part's
			row.Data = bytes.Clone(row.Data)
			group[path] = append(rows, numbered{r.index, &row})
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	paths := make(chan string)
	var wait sync.WaitGroup
	for range min(abreast, len(group)) {
		wait.Go(func() {
			for path := range paths {
				if ctx.Err() != nil {
					continue
				}
				err := j.file(ctx, path, func(yield func(numbered, error) bool) {
					for _, r := range group[path] {
						if !yield(r, nil) {
							return
						}
					}
				})
				if err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, path := range slices.Sorted(maps.Keys(group)) {
		paths <- path
	}
	close(paths)
	wait.Wait()
	return context.Cause(ctx)
}

// errNothing ends a file that would have no rows.
var errNothing = errors.New("no rows")

// file writes one file of rows, unless it is there.
func (j *job) file(ctx context.Context, path string, rows iter.Seq2[numbered, error]) error {
	var rejected []stream.RejectedRow
	fill := func(w io.Writer, compressed bool) error {
		rejected = nil
		out := bufio.NewWriterSize(w, 64<<10)
		e, err := j.plan.encoder(out, compressed)
		if err != nil {
			return err
		}
		taken := 0
		for r, err := range rows {
			if err != nil {
				return err
			}
			reason, err := e.add(r.row.Data)
			switch {
			case err != nil:
				return err
			case reason != "":
				rejected = append(rejected, stream.RejectedRow{Index: r.index, Reason: reason})
			default:
				taken++
			}
		}
		if taken == 0 {
			return errNothing
		}
		if err := e.end(); err != nil {
			return err
		}
		return out.Flush()
	}
	if err := j.create(ctx, j.prefix+path+j.base, fill); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.rejected = append(j.rejected, rejected...)
	return nil
}

// create writes a file unless it is there, and after any failure reads what is. That a name is taken
// proves nothing about the bytes: a file that was damaged, or that somebody else put there, must not
// pass for the rows. Another error leaves the outcome open: the reply was lost, or the server refused
// a taken name and hung up before it had read several MB, which the client then sees as a broken
// connection, however often it tries.
func (j *job) create(ctx context.Context, name string, fill func(w io.Writer, compressed bool) error) error {
	failure := j.bucket.CreateFrom(ctx, name, func(w io.Writer) error { return fill(w, true) })
	var parts errParts
	switch {
	case failure == nil, errors.Is(failure, errNothing):
		return nil
	case ctx.Err() != nil, errors.As(failure, &parts):
		return failure
	}
	there, err := j.bucket.Read(ctx, name, 0)
	if err != nil {
		return unread(name, failure, err)
	}
	defer there.Close()
	err = j.compare(name, there, fill)
	var broken errRead
	switch {
	case errors.Is(err, errNothing):
		return nil
	case errors.As(err, &broken):
		return unread(name, failure, broken.error)
	}
	return err
}

// unread is what follows from a file that could not be written and then not be read.
func unread(name string, failure, err error) error {
	if errors.Is(failure, bucket.ErrExists) {
		return fmt.Errorf("%s exists, and cannot be read back: %w", name, err)
	}
	return failure
}

// compare reads a file beside its rows, as they were before a compression: another version of the
// compressor, or of the processor, may write other bytes for the same.
func (j *job) compare(name string, there io.Reader, fill func(w io.Writer, compressed bool) error) error {
	source := &noting{Reader: there}
	plain, err := j.plan.plain(source)
	if err == nil {
		err = fill(&comparing{plain, make([]byte, 64<<10)}, false)
	}
	if err == nil {
		var one [1]byte
		switch _, end := io.ReadFull(plain, one[:]); {
		case end == nil:
			err = errDiffers
		case !errors.Is(end, io.EOF):
			err = end
		}
	}
	var parts errParts
	switch {
	case source.err != nil:
		return errRead{source.err}
	case err == nil, errors.Is(err, errNothing), errors.As(err, &parts):
		return err
	}
	return fmt.Errorf("%s holds bytes that are not those of its rows: move it away, and the rows are written", name)
}

// errRead is a failure of the store, while a file was read that may well be the right one.
type errRead struct{ error }

// errDiffers says that a file has other bytes.
var errDiffers = errors.New("other bytes")

// noting keeps the error of a store apart from what a decompressor says.
type noting struct {
	io.Reader
	err error
}

func (n *noting) Read(p []byte) (int, error) {
	count, err := n.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		n.err = err
	}
	return count, err
}

// comparing is a Writer that fails at the first byte that there is not.
type comparing struct {
	there io.Reader
	buf   []byte
}

func (c *comparing) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), len(c.buf))
		if _, err := io.ReadFull(c.there, c.buf[:n]); err != nil || !bytes.Equal(c.buf[:n], rest[:n]) {
			return 0, errDiffers
		}
		rest = rest[n:]
	}
	return len(p), nil
}

// pathOf names a column in a reason.
func pathOf(names []string) string { return strings.ReplaceAll(strings.Join(names, "."), ".[]", "[]") }
