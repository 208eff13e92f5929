package enrich

import (
	"context"
	"encoding/json"
	"time"
)

// Shelf keeps the hot keys of a cache while no process runs. One goroutine at a time.
type Shelf interface {
	// Load returns what was saved last, nil if nothing was.
	Load(ctx context.Context) ([]byte, error)
	// Save replaces it.
	Save(ctx context.Context, data []byte) error
}

const (
	hotEvery  = 5 * time.Minute
	hotWithin = 10 * time.Second
	hotKeys   = 100_000
	hotBytes  = 8 << 20
)

// keepHot looks up the keys that were hot before the process started, and remembers those that are hot now.
// Keys, not rows: a row of the past could be older than one that a lane of the process before has seen.
func (c *Cache[K, V]) keepHot() {
	defer close(c.saver)
	if c.cfg.Hot == nil {
		return
	}
	c.loadHot()
	every := time.NewTicker(hotEvery)
	defer every.Stop()
	for {
		select {
		case <-every.C:
		case <-c.ctx.Done():
			c.saveHot()
			return
		}
		c.saveHot()
	}
}

func (c *Cache[K, V]) loadHot() {
	ctx, cancel := context.WithTimeout(c.ctx, hotWithin)
	defer cancel()
	data, err := c.cfg.Hot.Load(ctx)
	var keys []K
	if err == nil && len(data) > 0 {
		err = json.Unmarshal(data, &keys)
	}
	if err != nil {
		c.cfg.Logger.Warn("the keys that were hot before cannot be read: the cache starts empty", "enrich", c.cfg.Name, "error", err)
		return
	}
	c.refresh(keys[:min(len(keys), hotKeys)]...)
}

func (c *Cache[K, V]) saveHot() {
	var keys []K
	for e := range c.kept.Hottest() { // the cache waits meanwhile
		if keys = append(keys, e.Key); len(keys) == hotKeys {
			break
		}
	}
	if len(keys) == 0 {
		return
	}
	texts, size := make([]json.RawMessage, 0, len(keys)), 0
	for _, key := range keys {
		text, err := json.Marshal(key)
		if size += len(text) + 1; err != nil || size > hotBytes {
			break
		}
		texts = append(texts, text)
	}
	data, err := json.Marshal(texts)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), hotWithin)
	defer cancel()
	if err == nil {
		err = c.cfg.Hot.Save(ctx, data)
	}
	if err != nil {
		c.cfg.Logger.Warn("the hot keys cannot be saved: the next start is a cold one", "enrich", c.cfg.Name, "error", err)
	}
}
