package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/millstream/millstream/bucket"
)

// shelves is a bucket in memory for very many objects: one bucket.Memory for each folder, so that
// listing a log does not look at every object of the fleet.
type shelves struct {
	mu  sync.Mutex
	all map[string]bucket.Bucket
}

func newShelves() *shelves { return &shelves{all: make(map[string]bucket.Bucket)} }

// at returns the folder of a name.
func (s *shelves) at(name string) bucket.Bucket {
	folder := name[:strings.LastIndexByte(name, '/')+1]
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.all[folder]
	if b == nil {
		b = bucket.Memory()
		s.all[folder] = b
	}
	return b
}

func (s *shelves) Create(ctx context.Context, name string, data []byte) error {
	return s.at(name).Create(ctx, name, data)
}

func (s *shelves) Put(ctx context.Context, name string, data []byte) error {
	return s.at(name).Put(ctx, name, data)
}

func (s *shelves) Get(ctx context.Context, name string) ([]byte, error) {
	return s.at(name).Get(ctx, name)
}

func (s *shelves) Delete(ctx context.Context, name string) error { return s.at(name).Delete(ctx, name) }

func (s *shelves) List(ctx context.Context, prefix string) (names []string, err error) {
	s.mu.Lock()
	folders := make(map[string]bucket.Bucket)
	own := prefix[:strings.LastIndexByte(prefix, '/')+1]
	if b := s.all[own]; b != nil {
		folders[own] = b
	}
	if strings.Count(prefix, "/") < logDepth { // of a log nothing is below
		for folder, b := range s.all {
			if strings.HasPrefix(folder, prefix) {
				folders[folder] = b
			}
		}
	}
	s.mu.Unlock()
	for _, folder := range slices.Sorted(maps.Keys(folders)) {
		some, err := folders[folder].List(ctx, prefix)
		if err != nil {
			return nil, err
		}
		names = append(names, some...)
	}
	slices.Sort(names)
	return names, nil
}

// logDepth is how many slashes the prefix of one partition's log has: fleet/log/PARTITION/.
const logDepth = 3

func (s *shelves) URL() string  { return "mem:" }
func (s *shelves) Close() error { return nil }

var errCut = errors.New("the instance is cut off from the store")

// requests counts what an instance asked of the store, by what it was for: "PUT log", "GET members".
type requests map[string]int64

func (r requests) plus(o requests) requests {
	sum := maps.Clone(r)
	for what, n := range o {
		sum[what] += n
	}
	return sum
}

func (r requests) minus(o requests) requests {
	left := make(requests)
	for what, n := range r {
		if n -= o[what]; n != 0 {
			left[what] = n
		}
	}
	return left
}

// dollars is what requests cost at S3's prices, dated in prices.
func (r requests) dollars() (sum float64) {
	for what, n := range r {
		op, _, _ := strings.Cut(what, " ")
		sum += float64(n) * prices[op]
	}
	return sum
}

// prices are S3's for a request in us-east-1, November 2026 (https://aws.amazon.com/s3/pricing/). DELETE
// costs nothing.
var prices = map[string]float64{"PUT": 0.005 / 1000, "LIST": 0.005 / 1000, "GET": 0.0004 / 1000}

// wires are one instance's way to the store. They count, and can be cut.
type wires struct {
	*shelves
	mu     sync.Mutex
	counts requests
	cut    bool
}

func newWires(s *shelves) *wires { return &wires{shelves: s, counts: make(requests)} }

// pass counts a request, or fails it when the wires are cut. A list is as many requests as it has pages.
func (w *wires) pass(op, name string, pages int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		return errCut
	}
	what := "other"
	if parts := strings.SplitN(name, "/", 3); len(parts) > 1 {
		if what = parts[1]; what == "log" && strings.HasPrefix(parts[len(parts)-1], "_merger/") {
			what = "merger's log"
		}
	}
	w.counts[op+" "+what] += int64(pages)
	return nil
}

func (w *wires) counted() requests {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.counts)
}

func (w *wires) die() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = true
}

func (w *wires) Create(ctx context.Context, name string, data []byte) error {
	if err := w.pass("PUT", name, 1); err != nil {
		return err
	}
	return w.shelves.Create(ctx, name, data)
}

func (w *wires) CreateFrom(ctx context.Context, name string, write func(io.Writer) error) error {
	var data bytes.Buffer
	if err := write(&data); err != nil {
		return err
	}
	return w.Create(ctx, name, data.Bytes())
}

func (w *wires) Put(ctx context.Context, name string, data []byte) error {
	if err := w.pass("PUT", name, 1); err != nil {
		return err
	}
	return w.shelves.Put(ctx, name, data)
}

func (w *wires) Get(ctx context.Context, name string) ([]byte, error) {
	if err := w.pass("GET", name, 1); err != nil {
		return nil, err
	}
	return w.shelves.Get(ctx, name)
}

func (w *wires) Delete(ctx context.Context, name string) error {
	if err := w.pass("DELETE", name, 1); err != nil {
		return err
	}
	return w.shelves.Delete(ctx, name)
}

// Objects and Read are for files, of which there are none here.
func (w *wires) Objects(context.Context, string) ([]bucket.Info, error) {
	return nil, errors.ErrUnsupported
}

func (w *wires) Read(context.Context, string, int64) (io.ReadCloser, error) {
	return nil, errors.ErrUnsupported
}

// listPage is how many names S3 returns at a time.
const listPage = 1000

func (w *wires) List(ctx context.Context, prefix string) ([]string, error) {
	names, err := w.shelves.List(ctx, prefix)
	if err != nil {
		return nil, err
	}
	return names, w.pass("LIST", prefix, 1+len(names)/listPage)
}
