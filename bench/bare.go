package main

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/millstream/millstream/query/fields"
)

// quoteScan finds ad_id, event_type and event_time in any key order by looking only at quotes. It
// validates nothing and knows no escapes: the fastest honest reading of such a record in plain Go, and
// the measure that the decoder is held against.
func quoteScan(b []byte, ad, kind, at *[]byte) {
	for {
		i := bytes.IndexByte(b, '"')
		if i < 0 {
			return
		}
		b = b[i+1:]
		i = bytes.IndexByte(b, '"')
		if i < 0 {
			return
		}
		key := b[:i]
		b = b[i+1:]
		if i = bytes.IndexByte(b, '"'); i < 0 {
			return
		}
		b = b[i+1:]
		if i = bytes.IndexByte(b, '"'); i < 0 {
			return
		}
		switch string(key) {
		case "ad_id":
			*ad = b[:i]
		case "event_type":
			*kind = b[:i]
		case "event_time":
			*at = b[:i]
		}
		b = b[i+1:]
	}
}

// scannerLoop is the whole query in a bare loop on quoteScan: parse, keep views, look the ad's
// campaign up among the ads, count by campaign and window.
func scannerLoop(e *ysbEvents) int64 {
	campaign := make(map[string]int, len(e.ads))
	for i, ad := range e.ads {
		campaign[ad] = i / 10
	}
	type key struct {
		window   int64
		campaign int
	}
	counts := make(map[key]int64)
	var ad, kind, at []byte
	var total int64
	for _, p := range e.partitions {
		for _, r := range p {
			quoteScan(r, &ad, &kind, &at)
			if string(kind) != "view" {
				continue
			}
			var ms int64
			for _, c := range at {
				ms = ms*10 + int64(c-'0')
			}
			counts[key{ms - ms%ysbWindow, campaign[string(ad)]}]++
			total++
		}
	}
	return total
}

// bareLoop is the engine's query on the engine's decoder, without the engine: one goroutine, one
// concrete map a window.
func bareLoop(e *ysbEvents) (map[ysbKey]int64, error) {
	plan, err := fields.Compile("ad_id", "event_type", "event_time")
	if err != nil {
		return nil, err
	}
	scanner := plan.NewScanner()
	values := make([]fields.Value, 3)
	windows := make(map[int64]map[string]*int64)
	for _, p := range e.partitions {
		var watermark int64
		for _, r := range p {
			if err := scanner.Scan(r, values); err != nil {
				return nil, err
			}
			ms, err := strconv.ParseInt(values[2].Raw, 10, 64)
			if err != nil {
				return nil, err
			}
			before := watermark
			watermark = max(watermark, ms-ysbBound)
			if values[1].Raw != "view" {
				continue
			}
			start := ms - ms%ysbWindow
			if start+ysbWindow <= before {
				continue
			}
			w := windows[start]
			if w == nil {
				w = make(map[string]*int64)
				windows[start] = w
			}
			n := w[values[0].Raw]
			if n == nil {
				n = new(int64)
				w[strings.Clone(values[0].Raw)] = n
			}
			*n++
		}
	}
	counts := make(map[ysbKey]int64)
	for start, w := range windows {
		for ad, n := range w {
			counts[ysbKey{start, ad}] = *n
		}
	}
	return counts, nil
}
