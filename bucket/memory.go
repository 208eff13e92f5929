package bucket

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
)

// Memory returns an empty bucket that lives in memory. It starts no goroutines and never waits, so
// it also serves simulations in virtual time.
func Memory() Bucket { return &memory{objects: make(map[string][]byte)} }

type memory struct {
	mu      sync.RWMutex
	objects map[string][]byte
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
	m.objects[name] = bytes.Clone(data)
	return nil
}

func (m *memory) Put(ctx context.Context, name string, data []byte) error {
	if err := ready(ctx, name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.objects[name] = bytes.Clone(data)
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
	return nil
}

func (m *memory) URL() string  { return "mem:" }
func (m *memory) Close() error { return nil }
