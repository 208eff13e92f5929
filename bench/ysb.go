package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/millstream/millstream/stream"
)

// ysbEvents are events shaped like the Yahoo Streaming Benchmark's (yahoo/streaming-benchmarks,
// data/src/setup/core.clj): seven string fields in 254 bytes, ads and types shuffled, times skewed by
// up to 50 ms, one in 100,000 late by up to 60 s.
type ysbEvents struct {
	partitions [][]stream.Record
	count      int
	// exact counts of viewed ads by window start (ms) and ad, by the rules of lateness applied to
	// each partition in order, computed while generating.
	exact map[ysbKey]int64
	ads   []string
}

type ysbKey struct {
	window int64
	ad     string
}

const (
	ysbWindow = 10_000 // ms
	ysbBound  = 100    // ms: --out-of-order
	ysbSize   = 254
	ysbRate   = 20 // events a millisecond of event time
)

// generateYSB makes events of which those are late that are more than bound ms behind their partition's newest.
func generateYSB(count, ads, partitions int, bound int64, seed uint64) *ysbEvents {
	r := rand.New(rand.NewPCG(seed, 254))
	uuid := func() string {
		a, b := r.Uint64(), r.Uint64()
		return fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", uint32(a), uint16(a>>32), uint16(a>>48), uint16(b), b>>16)
	}
	e := &ysbEvents{partitions: make([][]stream.Record, partitions), count: count, exact: make(map[ysbKey]int64), ads: make([]string, ads)}
	for i := range e.ads {
		e.ads[i] = uuid()
	}
	users := make([]string, 1000)
	for i := range users {
		users[i] = uuid()
	}
	adTypes := []string{"banner", "modal", "sponsored-search", "mail", "mobile"}
	types := []string{"view", "click", "purchase"}
	watermark := make([]int64, partitions)
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	arena := make([]byte, 0, count*ysbSize)
	for i := range count {
		at := start + int64(i/ysbRate) + r.Int64N(101) - 50
		if r.IntN(100_000) == 0 {
			at -= r.Int64N(60_000)
		}
		ad, kind, p := e.ads[r.IntN(ads)], types[r.IntN(3)], r.IntN(partitions)
		begin := len(arena)
		arena = append(arena, `{"user_id":"`...)
		arena = append(arena, users[r.IntN(len(users))]...)
		arena = append(arena, `","page_id":"`...)
		arena = append(arena, users[r.IntN(len(users))]...)
		arena = append(arena, `","ad_id":"`...)
		arena = append(arena, ad...)
		arena = append(arena, `","ad_type":"`...)
		arena = append(arena, adTypes[r.IntN(5)]...)
		arena = append(arena, `","event_type":"`...)
		arena = append(arena, kind...)
		arena = append(arena, `","event_time":"`...)
		arena = strconv.AppendInt(arena, at, 10)
		arena = append(arena, `","ip_address":"`...)
		const ip = "1.2.3.4"
		pad := ysbSize - (len(arena) - begin) - len(`"}`)
		arena = append(arena, ip...)
		for range pad - len(ip) {
			arena = append(arena, '0')
		}
		arena = append(arena, `"}`...)
		e.partitions[p] = append(e.partitions[p], stream.Record{Data: arena[begin:len(arena):len(arena)],
			Position: stream.Position{Number: int64(len(e.partitions[p]) + 1)}})

		window := at - at%ysbWindow
		if kind == "view" && window+ysbWindow > watermark[p] {
			e.exact[ysbKey{window, ad}]++
		}
		watermark[p] = max(watermark[p], at-bound)
	}
	return e
}
