package fields

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
)

// ysb returns records of the Yahoo Streaming Benchmark: seven strings, 254
// bytes on average, with the keys in one order or each record in its own.
func ysb(n int, shuffleKeys bool) [][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	uuid := func() string {
		return fmt.Sprintf("%08x-%04x-4%03x-a%03x-%012x", r.Uint32(), r.IntN(1<<16), r.IntN(1<<12), r.IntN(1<<12), r.Int64N(1<<48))
	}
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	records := make([][]byte, n)
	for i := range records {
		members := []string{
			`"user_id":"` + uuid() + `"`,
			`"page_id":"` + uuid() + `"`,
			`"ad_id":"` + uuid() + `"`,
			`"ad_type":"` + pick("banner", "modal", "sponsored-search", "mail", "mobile") + `"`,
			`"event_type":"` + pick("view", "click", "purchase") + `"`,
			fmt.Sprintf(`"event_time":"%d"`, 1700000000000+int64(i)*10+r.Int64N(100)-50),
			fmt.Sprintf(`"ip_address":"%d.%d.%d.%d"`, r.IntN(256), r.IntN(256), r.IntN(256), r.IntN(256)),
		}
		if shuffleKeys {
			r.Shuffle(len(members), func(a, b int) { members[a], members[b] = members[b], members[a] })
		}
		var b bytes.Buffer
		b.WriteByte('{')
		for k, m := range members {
			if k > 0 {
				b.WriteByte(',')
			}
			b.WriteString(m)
		}
		b.WriteByte('}')
		records[i] = b.Bytes()
	}
	return records
}

func benchmarkScan(b *testing.B, records [][]byte, paths ...string) {
	plan, err := Compile(paths...)
	if err != nil {
		b.Fatal(err)
	}
	s, out := plan.NewScanner(), make([]Value, plan.Len())
	size := 0
	for _, r := range records {
		size += len(r)
	}
	b.SetBytes(int64(size / len(records)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := s.Scan(records[i%len(records)], out); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScanYSB(b *testing.B) {
	for _, keys := range []string{"fixed", "shuffled"} {
		records := ysb(10_000, keys == "shuffled")
		b.Run(keys, func(b *testing.B) { benchmarkScan(b, records, "ad_id", "event_type", "event_time") })
		b.Run(keys+"/encodingjson", func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				var v struct {
					AdID      string `json:"ad_id"`
					EventType string `json:"event_type"`
					EventTime string `json:"event_time"`
				}
				if err := json.Unmarshal(records[i%len(records)], &v); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(keys+"/encodingjsonmap", func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				d := json.NewDecoder(bytes.NewReader(records[i%len(records)]))
				d.UseNumber()
				var v map[string]any
				if err := d.Decode(&v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Other shapes of records, each against encoding/json into a map.
func BenchmarkScan(b *testing.B) {
	for _, test := range []struct{ name, record string }{
		{"spaced", `{"date": "2001-01-10 18:20", "delay": -5, "distance": 1670, "origin": "ORD", "destination": "MIA", "carrier": {"code": "AA", "alliance": "oneworld"}}`},
		{"numbers", `{"id":1234567,"ts":1700000000000,"lat":51.053822,"lon":3.722270,"speed":0.25,"ok":true,"tags":["a","b","c"],"none":null}`},
		{"escapes", `{"origin":"a \"quoted\" path\\to\/x","message":"line one\nline two\n\u00e9t\u00e9","id":7}`},
		{"unicode", `{"origin":"東京国際空港","message":"Ceci n'est pas une chaîne très ASCII, c'est sûr","id":7}`},
		{"string", `"{\"origin\":\"ORD\",\"delay\":-5,\"distance\":1670,\"destination\":\"MIA\",\"id\":7}"`},
	} {
		b.Run(test.name, func(b *testing.B) {
			benchmarkScan(b, [][]byte{[]byte(test.record)}, "origin", "delay", "carrier.code", "id", "ts")
		})
		b.Run(test.name+"/encodingjsonmap", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := decode([]byte(test.record)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
