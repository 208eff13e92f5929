package kinesis

import (
	"fmt"
	"strings"
	"testing"
	"time"

	fake "github.com/millstream/millstream/fakes/kinesis"
	"github.com/millstream/millstream/stream"
)

// The client library's checkpoint of any user record is followed by exactly what that library would
// deliver next, whether the record is an aggregate or plain.
func TestBehind(t *testing.T) {
	t.Parallel()
	inBubble(t, fake.Options{}, func(b *bed) {
		var all []string
		all = append(all, b.puts(0, 3)...)
		all = append(all, b.aggregate(3, 4)...)
		all = append(all, b.puts(7, 2)...)
		s := b.source(Options{})
		records := b.read(b.open(s, shardName(0), stream.Position{}, ""), len(all))
		sub, last := int64(0), ""
		for i, r := range records {
			if r.Position.Token == last {
				sub++
			} else {
				sub, last = 0, r.Position.Token
			}
			rest := all[i+1:]
			if len(rest) == 0 {
				rest = b.puts(9, 1)
			}
			b.want(b.read(b.open(s, shardName(0), Behind(last, sub), ""), len(rest)), rest...)
		}
	})
}

func TestPlaces(t *testing.T) {
	t.Parallel()
	inBubble(t, fake.Options{}, func(b *bed) {
		old := b.puts(0, 2)
		<-time.After(time.Minute)
		mark := Since(time.Now())
		fresh := b.puts(2, 2)
		for _, start := range []string{"earliest", "latest"} {
			s := b.source(Options{Start: start})
			tip, err := s.Tip(b.Context())
			b.do(err)
			b.want(b.read(b.open(s, shardName(0), Oldest(), tip), 4), append(old, fresh...)...)
			r := b.open(s, shardName(0), mark, tip)
			records := b.read(r, 2)
			b.want(records, fresh...)
			b.want(b.read(b.open(s, shardName(0), records[0].Position, tip), 1), fresh[1])
		}
	})
}

func TestBadPlace(t *testing.T) {
	t.Parallel()
	inBubble(t, fake.Options{}, func(b *bed) {
		_, err := b.source(Options{}).Open(b.Context(), shardName(0), stream.Position{Token: "@yesterday"}, "")
		if err == nil || !strings.Contains(fmt.Sprint(err), "yesterday") {
			b.Errorf("says %v", err)
		}
	})
}
