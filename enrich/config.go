package enrich

import (
	"fmt"
	"log/slog"
	"time"
)

// OnError says what becomes of an event whose key the backend does not answer for.
type OnError uint8

const (
	// Wait keeps the event, and with it its partition, until there is an answer.
	Wait OnError = iota
	// Stale gives it the row that is known, up to MaxStale beyond its time to live; it waits if there is none.
	Stale
	// Missing treats it as if there were no row.
	Missing
	// DeadLetter sends it to the dead letter.
	DeadLetter
)

// Config says how a Cache behaves. Zero fields have the defaults that are named.
type Config[K comparable, V any] struct {
	Name string // in errors, logs and dead letters' reasons; default "lookup"

	TTL       time.Duration // a row younger than this is served; default 5m
	AbsentTTL time.Duration // the same of the knowledge that there is no row; default 30s
	// Revalidate is how long beyond TTL a row is still served while it is looked up anew; default 0.
	Revalidate time.Duration
	MaxStale   time.Duration // how long beyond TTL a row may be served by OnError Stale; default 1h

	Max int // the most entries; default 100,000. Not used with MaxBytes
	// MaxBytes bounds the sum of Size, which is needed with it.
	MaxBytes int64
	Size     func(K, V) int // of an entry, in bytes, without the cache's own 200 or so

	Limit    int           // keys of one call; default 100
	Calls    int           // calls under way at once; default 8
	Linger   time.Duration // how long a call that is not full waits for keys while another is under way; default 5ms
	Rate     float64       // calls a second; 0: as many as it takes
	Timeout  time.Duration // of one call; default 10s
	OnError  OnError
	Attempts int // calls before OnError decides for a key; default 2. Wait tries for ever

	Hot    Shelf        // remembers the most used keys across restarts; nil: nobody does
	Logger *slog.Logger // default slog.Default()
}

// most is a bound on what an operator can ask for by a slip of the pen.
const most = 1 << 30

func (c *Config[K, V]) fill() error {
	if c.Name == "" {
		c.Name = "lookup"
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	for _, d := range []struct {
		name      string
		value     *time.Duration
		otherwise time.Duration
	}{
		{"TTL", &c.TTL, 5 * time.Minute}, {"AbsentTTL", &c.AbsentTTL, 30 * time.Second}, {"Revalidate", &c.Revalidate, 0},
		{"MaxStale", &c.MaxStale, time.Hour}, {"Linger", &c.Linger, 5 * time.Millisecond}, {"Timeout", &c.Timeout, 10 * time.Second},
	} {
		if *d.value < 0 {
			return fmt.Errorf("%s: %s is %s: less than nothing", c.Name, d.name, *d.value)
		}
		if *d.value == 0 {
			*d.value = d.otherwise
		}
	}
	for _, n := range []struct {
		name      string
		value     *int
		otherwise int
	}{{"Max", &c.Max, 100_000}, {"Limit", &c.Limit, 100}, {"Calls", &c.Calls, 8}, {"Attempts", &c.Attempts, 2}} {
		if *n.value < 0 || *n.value > most {
			return fmt.Errorf("%s: %s is %d: want 1 to %d", c.Name, n.name, *n.value, most)
		}
		if *n.value == 0 {
			*n.value = n.otherwise
		}
	}
	switch {
	case c.MaxBytes < 0, c.Rate < 0:
		return fmt.Errorf("%s: a bound is less than nothing", c.Name)
	case c.MaxBytes > 0 && c.Size == nil:
		return fmt.Errorf("%s: MaxBytes needs Size", c.Name)
	case c.OnError > DeadLetter:
		return fmt.Errorf("%s: OnError %d is not known", c.Name, c.OnError)
	}
	return nil
}
