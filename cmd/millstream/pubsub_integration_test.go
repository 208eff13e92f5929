//go:build integration

package main

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/millstream/millstream/fakes/pubsub"
)

// What killed processes held comes again when its leases run out by themselves, up to a minute later,
// and though the end of time was read long before, none of it is late: the watermark waits for it. This
// takes that minute.
func TestIntegrationKilledOverPubSubWithWindows(t *testing.T) {
	t.Parallel()
	const records, kills = 8000, 4
	until := int64(workStart + records*10/workWindow*workWindow)
	var all []string
	for i := range records {
		all = append(all, fmt.Sprintf(`{"k":"k%d","v":%d,"t":%d}`, i%20, i%100, workStart+int64(i)*10))
	}
	all = append(all, fmt.Sprintf(`{"k":"end","v":1,"t":%d}`, until+workBound))
	want := newOracle()
	want.until = until
	want.partition(all, 0)

	s := servePubSub(t, &pubsubpb.Subscription{})
	s.put(0, all...)
	forgotten := s.Inject(pubsub.Fault{Operation: "Acknowledge", Forget: true, Skip: 1, Times: 1})
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	k := &killer{T: t, random: rand.New(rand.NewPCG(3, 13)), kills: kills, made: func() int { return int(s.stats().Acked) }, start: func(n int) *process {
		url := s.url
		if n < kills {
			url += "&outstanding=800"
		}
		return start(t, slices.Concat([]string{"run", "--source", url, "--until", time.UnixMilli(until).UTC().Format(time.RFC3339),
			"--sink", out, "--checkpoint", filepath.Join(dir, "state"), "--checkpoint-every", "200ms", "--lease", "1s"}, workQuery)...)
	}}
	p := k.run()
	if err := want.compare(lines[result](t, out)); err != nil {
		t.Error(err)
	}
	if got := p.ledger(); got != want.ledger {
		t.Errorf("ledger %+v\nwant   %+v", got, want.ledger)
	}
	if st := s.stats(); st.Expired == 0 || forgotten.Hits() == 0 || st.Backlog+st.Outstanding+st.Streams != 0 {
		t.Errorf("in the end: %+v, %d acknowledgements forgotten", st, forgotten.Hits())
	}
}
