package query

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/millstream/millstream/query/fields"
	"github.com/millstream/millstream/stream"
)

// ysb returns records of the Yahoo Streaming Benchmark, of 1,000 ads, in batches.
func ysb(batches, size int) [][]stream.Record {
	r := rand.New(rand.NewPCG(1, 2))
	uuid := func() string {
		return fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", r.Uint32(), r.Uint32()&0xffff, r.Uint32()&0xffff, r.Uint32()&0xffff, r.Uint64()>>16)
	}
	pick := func(n int) []string {
		out := make([]string, n)
		for i := range out {
			out[i] = uuid()
		}
		return out
	}
	ads, pages, users := pick(1000), pick(100), pick(100)
	adTypes := []string{"banner", "modal", "sponsored-search", "mail", "mobile"}
	eventTypes := []string{"view", "click", "purchase"}
	out := make([][]stream.Record, batches)
	for b := range out {
		out[b] = make([]stream.Record, size)
		for i := range out[b] {
			at := 1_760_000_000_000 + b*size + i - 50 + r.IntN(100)
			out[b][i].Data = fmt.Appendf(nil, `{"user_id":%q,"page_id":%q,"ad_id":%q,"ad_type":%q,"event_type":%q,"event_time":"%d","ip_address":"1.2.3.4"}`,
				users[r.IntN(len(users))], pages[r.IntN(len(pages))], ads[r.IntN(len(ads))], adTypes[r.IntN(len(adTypes))], eventTypes[r.IntN(len(eventTypes))], at)
		}
	}
	return out
}

var ysbQuery = Config{Where: `event_type == "view"`, Key: []string{"ad_id"}, Time: "event_time", Window: "tumbling:10s", Aggregate: "count() as n"}

// drive takes a batch through a lane as the engine does, without the engine.
func drive(p *stream.Pipeline[Event, Result], d stream.Decoder[Event], lane stream.LaneState[Event, Result], events []stream.Event[Event], batch []stream.Record) (kept int, err error) {
	d.Reset()
	for i := range batch {
		if err := d.Decode(&batch[i], &events[i]); err != nil {
			return kept, err
		}
	}
	for i := range batch {
		e := &events[i]
		if !p.Keep(e) {
			continue
		}
		if err := p.Require(e); err != nil {
			return kept, err
		}
		if _, err := lane.Add(e, stream.Beginning); err != nil {
			return kept, err
		}
		kept++
	}
	lane.Rows()
	return kept, nil
}

func BenchmarkYSB(b *testing.B) {
	batches := ysb(64, 1000)
	q := compiled(b, ysbQuery)
	run := func(name string, f func(batch []stream.Record) error) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				for _, batch := range batches[n%len(batches) : n%len(batches)+1] {
					if err := f(batch); err != nil {
						b.Fatal(err)
					}
				}
				n++
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n)/1000, "ns/record")
		})
	}
	plan, err := fields.Compile("event_type", "ad_id", "event_time")
	if err != nil {
		b.Fatal(err)
	}
	scanner, values := plan.NewScanner(), make([]fields.Value, plan.Len())
	run("scanner", func(batch []stream.Record) error {
		for i := range batch {
			if err := scanner.Scan(batch[i].Data, values); err != nil {
				return err
			}
		}
		return nil
	})
	p := q.Pipeline()
	d, events := p.NewDecoder(), make([]stream.Event[Event], 1000)
	run("decode", func(batch []stream.Record) error {
		d.Reset()
		for i := range batch {
			if err := d.Decode(&batch[i], &events[i]); err != nil {
				return err
			}
		}
		return nil
	})
	lane := p.Operator.Lane()
	run("query", func(batch []stream.Record) error {
		_, err := drive(p, d, lane, events, batch)
		return err
	})
	cfg := ysbQuery
	cfg.Aggregate = "count() as n, sum(event_time) as s, min(event_time) as lo, max(user_id) as hi"
	q2 := compiled(b, cfg)
	p2 := q2.Pipeline()
	d2, lane2 := p2.NewDecoder(), p2.Operator.Lane()
	run("four aggregates", func(batch []stream.Record) error {
		_, err := drive(p2, d2, lane2, events, batch)
		return err
	})
	q3 := compiled(b, Config{Where: `event_type == "view" and ad_type + "x" != "mailx"`, Time: "event_time", Key: []string{"ad_id"}, Window: "tumbling:10s", Aggregate: "count()"})
	p3 := q3.Pipeline()
	d3, lane3 := p3.NewDecoder(), p3.Operator.Lane()
	run("machine", func(batch []stream.Record) error {
		_, err := drive(p3, d3, lane3, events, batch)
		return err
	})
	q5 := compiled(b, Config{Where: `event_type == "view"`, Time: "event_time", Key: []string{"ad_id"}, Window: "tumbling:10s", Aggregate: "sum(event_time * 2)"})
	p5 := q5.Pipeline()
	d5, lane5 := p5.NewDecoder(), p5.Operator.Lane()
	run("calculation", func(batch []stream.Record) error {
		_, err := drive(p5, d5, lane5, events, batch)
		return err
	})
	q4 := compiled(b, Config{Where: `event_type == "view"`, Select: "ad_id as ad, event_time, *"})
	p4 := q4.Pipeline()
	d4, lane4 := p4.NewDecoder(), p4.Operator.Lane()
	run("rows", func(batch []stream.Record) error {
		_, err := drive(p4, d4, lane4, events, batch)
		return err
	})
}
