package main

import (
	"strconv"
	"strings"

	"github.com/millstream/millstream/query/fields"
)

// quoteScan finds ad_id, event_type and event_time in any key order by looking at nothing but quotes.
// It validates nothing and knows no escapes: the fastest plain reading of such a record, and the
// measure that the decoder is held against.
func quoteScan(b []byte, ad, kind, at *[]byte) {
	var quotes [4]int
	n := 0
	for i, c := range b {
		if c != '"' {
			continue
		}
		quotes[n] = i
		if n++; n < 4 {
			continue
		}
		n = 0
		value := b[quotes[2]+1 : quotes[3]]
		switch string(b[quotes[0]+1 : quotes[1]]) {
		case "ad_id":
			*ad = value
		case "event_type":
			*kind = value
		case "event_time":
			*at = value
		}
	}
}

// scannerLoop is the whole query in a bare loop on quoteScan: parse, keep views, look the ad's
// campaign up among the ads, count by campaign and window.
func scannerLoop(e *ysbEvents) map[int64][]int64 {
	campaign := make(map[string]int, len(e.ads))
	for i, ad := range e.ads {
		campaign[ad] = i / 10
	}
	windows := make(map[int64][]int64)
	var ad, kind, at []byte
	for _, p := range e.partitions {
		for i := range p {
			quoteScan(p[i].Data, &ad, &kind, &at)
			if string(kind) != "view" {
				continue
			}
			var ms int64
			for _, c := range at {
				ms = ms*10 + int64(c-'0')
			}
			counts := windows[ms-ms%ysbWindow]
			if counts == nil {
				counts = make([]int64, len(e.ads)/10+1)
				windows[ms-ms%ysbWindow] = counts
			}
			counts[campaign[string(ad)]]++
		}
	}
	return windows
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
		for i := range p {
			if err := scanner.Scan(p[i].Data, values); err != nil {
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
