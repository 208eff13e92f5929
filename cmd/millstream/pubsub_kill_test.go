//go:build unix

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/millstream/millstream/fakes/pubsub"
	"github.com/millstream/millstream/stream"
)

const (
	pubsubTopic        = "projects/p/topics/work"
	pubsubSubscription = "projects/p/subscriptions/work"
)

// pubsubService is a Pub/Sub in the test's own process, of which processes read one subscription.
type pubsubService struct {
	*pubsub.Server
	t   *testing.T
	url string
}

// servePubSub makes a subscription. The test says in config what is special about it.
func servePubSub(t *testing.T, config *pubsubpb.Subscription) *pubsubService {
	t.Helper()
	s := &pubsubService{Server: pubsub.New(pubsub.Options{}), t: t}
	t.Cleanup(s.Close)
	address, err := s.Start()
	s.must(err)
	s.url = "pubsub://p/work?endpoint=" + address
	s.must(s.CreateTopic(pubsubTopic))
	config.Name, config.Topic = pubsubSubscription, pubsubTopic
	s.must(s.CreateSubscription(config))
	return s
}

func (s *pubsubService) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *pubsubService) stats() pubsub.Stats {
	s.t.Helper()
	stats, err := s.Stats(pubsubSubscription)
	s.must(err)
	return stats
}

// put publishes lines; keys says of how many ordering keys, 0 of none.
func (s *pubsubService) put(keys int, lines ...string) {
	s.t.Helper()
	messages := make([]pubsub.Message, len(lines))
	for i, line := range lines {
		messages[i].Data = []byte(line)
		if keys > 0 {
			messages[i].OrderingKey = fmt.Sprint("key ", i%keys)
		}
	}
	_, err := s.Publish(pubsubTopic, messages...)
	s.must(err)
}

// buried waits until the service knows that a killed process hangs up, and lets the leases of what it
// held run out at once: a test has no minute for each kill.
func (s *pubsubService) buried() (held int) {
	s.t.Helper()
	s.await("the streams of a killed process to end", func(st pubsub.Stats) bool { return st.Streams == 0 })
	held, err := s.Expire(pubsubSubscription)
	s.must(err)
	return held
}

func (s *pubsubService) await(what string, until func(pubsub.Stats) bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	if err := s.Wait(ctx, pubsubSubscription, until); err != nil {
		s.t.Fatalf("waiting for %s: %v, %+v", what, err, s.stats())
	}
}

// pubsubWork makes lines, whose rows without a window are the ids that are no multiple of 7. Every
// hundredth is broken.
func pubsubWork(records int) (lines []string, want stream.Ledger) {
	want.RecordsIn = int64(records)
	for id := range records {
		switch {
		case id%100 == 0:
			lines = append(lines, fmt.Sprintf(`{"id":%d`, id))
			want.DeadLettered++
			continue
		case id%7 == 0:
			want.Filtered++
		default:
			want.Contributed++
		}
		lines = append(lines, fmt.Sprintf(`{"id":%d}`, id))
	}
	want.RowsOut = want.Contributed
	return lines, want
}

// pubsubRun says how a subscription is read by processes that are killed while they hold messages.
type pubsubRun struct {
	query   string   // what to add to the source URL
	args    []string // and to the command line
	records int
	keys    int // ordering keys, 0 for none
}

// killed publishes the work, kills its readers, and tells the last of them to stop when the service
// knows that everything is done. It returns what is wrong with the rows and the ledger.
func (r pubsubRun) killed(s *pubsubService, seed uint64) error {
	s.t.Helper()
	work, want := pubsubWork(r.records)
	s.put(r.keys, work...)
	forgotten := s.Inject(pubsub.Fault{Operation: "Acknowledge", Forget: true})
	twice := s.Inject(pubsub.Fault{Operation: pubsub.Deliver, Duplicate: true, Skip: 3, Times: 20})
	dir := s.t.TempDir()
	out, state := filepath.Join(dir, "out"), filepath.Join(dir, "state")
	_, kills := killsFor(s.t)
	held := 0
	k := &killer{T: s.t, random: rand.New(rand.NewPCG(seed, 13)), kills: kills, made: func() int {
		if forgotten.Hits() == 0 {
			return 0
		}
		return filesIn(s.t, out)()
	}}
	k.start = func(n int) *process {
		url := s.url + r.query
		if n > 0 {
			held += s.buried()
		}
		if n < kills { // it reads no more until its next checkpoint
			url += "&outstanding=160"
		} else {
			forgotten.Stop() // or the end would wait a minute for what comes again
		}
		p := start(s.t, slices.Concat([]string{"run", "--source", url, "--sink", out, "--where", "id % 7 != 0", "--log-format", "json",
			"--checkpoint", state, "--checkpoint-every", "200ms", "--lease", "1s"}, r.args)...)
		if n == kills {
			s.await("the last acknowledgement", func(st pubsub.Stats) bool { return st.Backlog+st.Outstanding == 0 })
			p.signal(syscall.SIGTERM)
		}
		return p
	}
	ledger := k.run().ledger()
	if held == 0 || forgotten.Hits() == 0 || twice.Hits() == 0 {
		s.t.Errorf("%d messages were held by the killed, %d acknowledgements forgotten, %d responses sent twice", held, forgotten.Hits(), twice.Hits())
	}
	if st := s.stats(); st.Streams+st.Backlog+st.Outstanding != 0 {
		s.t.Errorf("in the end: %+v", st)
	}
	rows := map[int]int{}
	for _, row := range lines[struct{ ID int }](s.t, out) {
		rows[row.ID]++
	}
	for id, n := range rows {
		if n != 1 || id%7 == 0 || id%100 == 0 {
			return fmt.Errorf("row %d came %d times", id, n)
		}
	}
	if ledger != want || int64(len(rows)) != want.RowsOut {
		return fmt.Errorf("%d rows, ledger %+v\nwant   %+v", len(rows), ledger, want)
	}
	deadOnce(s.t, filepath.Join(state, "main", "dead-letter"), want)
	return nil
}

// Every message is counted once, and acknowledged, though processes die with messages in their hands, and
// the service forgets acknowledgements and sends twice.
func TestKilledOverPubSub(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		config *pubsubpb.Subscription
		run    pubsubRun
	}{
		{"plain", &pubsubpb.Subscription{}, pubsubRun{records: 4000}},
		{"by the SDK", &pubsubpb.Subscription{}, pubsubRun{records: 4000, query: "&client=sdk"}},
		{"ordering keys", &pubsubpb.Subscription{EnableMessageOrdering: true}, pubsubRun{records: 4000, keys: 50}},
		{"exactly-once delivery", &pubsubpb.Subscription{EnableExactlyOnceDelivery: true}, pubsubRun{records: 4000}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if err := c.run.killed(servePubSub(t, c.config), 1); err != nil {
				t.Error(err)
			}
		})
	}
}

// The negative control: with a log that remembers ids for no time, what comes again is counted again.
func TestKilledOverPubSubWithoutIDs(t *testing.T) {
	t.Parallel()
	err := pubsubRun{records: 4000, args: []string{"--dedupe-for", "1ns"}}.killed(servePubSub(t, &pubsubpb.Subscription{}), 2)
	if err == nil {
		t.Fatal("exact, though no id is remembered")
	}
	t.Log(err)
}
