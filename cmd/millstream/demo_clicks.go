package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"time"
)

const (
	demoWindow = 2 * time.Second
	demoBound  = time.Second // --out-of-order
)

var demoPages = []string{"/", "/pricing", "/docs", "/docs/install", "/blog", "/login", "/cart", "/checkout", "/search", "/über-uns"}

// demoUsers have clicks; all but every tenth are in a table.
const demoUsers = 5000

// demoTier is the tier of a user, "guest" if the table does not have it.
func demoTier(user int) string {
	switch {
	case user%10 == 0:
		return "guest"
	case user%50 == 1:
		return "gold"
	}
	return "free"
}

// writeUsers makes the table that the worker looks users up in.
func writeUsers(path string) error {
	table := []byte("user,tier\n")
	for user := range demoUsers {
		if tier := demoTier(user); tier != "guest" {
			table = fmt.Appendf(table, "u%d,%s\n", user, tier)
		}
	}
	return os.WriteFile(path, table, 0o644)
}

// clicks puts a clickstream on the demo's stream: most events in order, some disordered within
// the bound, some late, some broken.
type clicks struct {
	source *demoSource
	random *rand.Rand
	count  int
	arena  []byte // the bytes of the records of one tick
}

func newClicks(source *demoSource) *clicks {
	return &clicks{source: source, random: rand.New(rand.NewPCG(20, 26))}
}

// feed puts records at the demo's rate until ctx is done.
func (c *clicks) feed(ctx context.Context) error {
	const tick = 20 * time.Millisecond
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	start, sent := time.Now(), 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			want := int(now.Sub(start).Seconds() * float64(c.source.rate))
			batch := make([]click, 0, max(want-sent, 0))
			c.arena = c.arena[:0]
			for ; sent < want; sent++ {
				batch = append(batch, c.record(now))
			}
			if err := c.source.put(batch); err != nil {
				return err
			}
		}
	}
}

// record makes one event as of now.
func (c *clicks) record(now time.Time) click {
	c.count++
	r := c.random
	at := now
	switch n := r.IntN(1000); {
	case n < 100:
		at = at.Add(-time.Duration(r.Int64N(int64(demoBound))))
	case n < 104 && !c.source.any: // too late for its window
		at = at.Add(-20 * time.Second)
	case n == 104: // a clock that is a year ahead
		at = at.AddDate(1, 0, 0)
	}
	kind := "view"
	if r.IntN(10) == 0 {
		kind = "click"
	}
	start := len(c.arena)
	b := append(c.arena, `{"id":`...)
	b = strconv.AppendInt(b, int64(c.count), 10)
	b = append(b, `,"type":"`...)
	b = append(b, kind...)
	b = append(b, `","user":"u`...)
	b = strconv.AppendInt(b, r.Int64N(demoUsers), 10)
	if r.IntN(2000) != 0 { // else without its key
		b = append(b, `","page":"`...)
		b = append(b, demoPages[min(r.IntN(len(demoPages)), r.IntN(len(demoPages)))]...)
	}
	b = append(b, `","ms":`...)
	b = strconv.AppendInt(b, 1+int64(r.ExpFloat64()*80), 10)
	b = append(b, `,"at":"`...)
	b = at.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
	b = append(b, `"}`...)
	if r.IntN(2000) == 0 {
		b = b[:start+(len(b)-start)/2]
	}
	c.arena = b
	return click{c.count, b[start:len(b):len(b)]}
}
