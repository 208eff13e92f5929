package bucket

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

// Memory returns an empty bucket that lives in memory. It starts no goroutines and never waits, so
// it also serves simulations in virtual time.
func Memory() Bucket {
	return &memory{objects: make(map[string][]byte), written: make(map[string]writing)}
}

type memory struct {
	mu      sync.RWMutex
	objects map[string][]byte
	written map[string]writing // of each object
	count   int64
}

// writing tells a write from every other.
type writing struct {
	at    time.Time
	count int64
}

// set is called with the mutex held.
func (m *memory) set(name string, data []byte) {
	m.count++
	m.objects[name], m.written[name] = bytes.Clone(data), writing{time.Now().UTC(), m.count}
}

func (m *memory) Create(ctx context.Context, name string, data []byte) error {
	if err := ready(ctx, name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.objects[name]; ok {
		return ErrExists
	}
	m.set(name, data)
	return nil
}

func (m *memory) Put(ctx context.Context, name string, data []byte) error {
	if err := ready(ctx, name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set(name, data)
	return nil
}

func (m *memory) Get(ctx context.Context, name string) ([]byte, error) {
	if err := ready(ctx, name); err != nil {
		return nil, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	data, ok := m.objects[name]
	if !ok {
		return nil, ErrNotFound
	}
	return append([]byte{}, data...), nil
}

func (m *memory) List(ctx context.Context, prefix string) ([]string, error) {
	if err := readyList(ctx, prefix); err != nil {
		return nil, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	var names []string
	for name := range m.objects {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (m *memory) Delete(ctx context.Context, name string) error {
	if err := ready(ctx, name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, name)
	delete(m.written, name)
	return nil
}

func (m *memory) URL() string  { return "mem:" }
func (m *memory) Close() error { return nil }
