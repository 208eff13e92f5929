package pubsub

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

// In a subscription with ordering a message is sent only when all before it of its key have been, since
// the last time they went back, and to the stream that has what is outstanding of the key. With the
// order turned off the same run breaks both.
func TestOrderIsKept(t *testing.T) {
	var early, astray int
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			if e, a := disorder(t, true, seed); e+a != 0 {
				t.Errorf("seed %d: %d messages before their time, %d to another stream", seed, e, a)
			}
			e, a := disorder(t, false, seed)
			early, astray = early+e, astray+a
		})
	}
	if early == 0 || astray == 0 {
		t.Errorf("without ordering the runs show nothing: %d and %d", early, astray)
	}
}

// disorder does random things until all is acknowledged, and counts the messages that were sent before
// their time, and those that were sent to another stream than what is outstanding of their key.
func disorder(t *testing.T, ordered bool, seed uint64) (early, astray int) {
	const topic, name = "projects/p/topics/orders", "projects/p/subscriptions/orders"
	dice := rand.New(rand.NewPCG(seed, 3))
	s := New(Options{})
	defer s.Close()
	if err := s.CreateTopic(topic); err != nil {
		t.Fatal(err)
	}
	if err := s.CreateSubscription(&pb.Subscription{Name: name, Topic: topic, EnableMessageOrdering: ordered}); err != nil {
		t.Fatal(err)
	}
	sub, err := s.subscription(name)
	if err != nil {
		t.Fatal(err)
	}
	type delivery struct {
		id     string
		stream *stream
		until  time.Duration
	}
	var (
		streams = []*stream{newStream(10 * time.Second), newStream(20 * time.Second)}
		held    = make(map[string][]delivery) // by key, what is outstanding
		last    = make(map[string]int)        // by key, the newest that was sent
		next    = make(map[string]int)        // by key, what is published next
	)
	for _, st := range streams {
		sub.join(st)
	}
	for step := 0; ; step++ {
		if step < 300 {
			key := fmt.Sprint("key", dice.IntN(4))
			if _, err := s.Publish(topic, Message{Data: []byte(strconv.Itoa(next[key])), OrderingKey: key}); err != nil {
				t.Fatal(err)
			}
			next[key]++
		} else if stats, _ := s.Stats(name); stats.Backlog+stats.Outstanding == 0 {
			break
		} else if step > 20_000 {
			t.Fatalf("it does not end: %+v", stats)
		}
		now := s.now()
		for key := range held { // with ordering, what expires takes what follows with it
			for i, d := range held[key] {
				if d.until <= now {
					if ordered {
						held[key] = held[key][:i]
					} else {
						held[key] = slices.Delete(held[key], i, i+1)
					}
					break
				}
			}
		}
		switch at := dice.IntN(len(streams)); dice.IntN(12) {
		case 0: // a client goes, another comes
			sub.leave(streams[at])
			streams[at] = newStream(10 * time.Second)
			sub.join(streams[at])
		case 1:
			<-time.After(time.Duration(dice.IntN(50)) * tick) // whole ticks: nothing is overdue in between
			synctest.Wait()
		case 2, 3: // one goes back
			key := fmt.Sprint("key", dice.IntN(4))
			if ds := held[key]; len(ds) > 0 {
				i := dice.IntN(len(ds))
				sub.modify([]string{ds[i].id}, 0)
				if ordered {
					held[key] = ds[:i]
				} else {
					held[key] = slices.Delete(ds, i, i+1)
				}
			}
		case 4, 5, 6, 7: // any is acknowledged
			key := fmt.Sprint("key", dice.IntN(4))
			if ds := held[key]; len(ds) > 0 {
				i := 0
				if step < 10_000 {
					i = dice.IntN(len(ds))
				}
				sub.acknowledge([]string{ds[i].id})
				held[key] = slices.Delete(ds, i, i+1)
			}
		default:
			st, f := streams[at], &frame{}
			sub.take(st, f, 1+dice.IntN(6))
			for _, d := range f.delivered {
				var m pb.PubsubMessage
				unmarshal(d.message.encoded, &m)
				n, err := strconv.Atoi(string(m.Data))
				if err != nil {
					t.Fatal(err)
				}
				key := m.OrderingKey
				if prior, seen := last[key]; n > 0 && (!seen || n > prior+1) {
					early++
				}
				last[key] = n
				if slices.ContainsFunc(held[key], func(d delivery) bool { return d.stream != st }) {
					astray++
				}
				held[key] = append(held[key], delivery{d.ack.String(), st, s.now() + st.deadline})
			}
		}
	}
	if s.Bytes() != 0 {
		t.Errorf("seed %d: %d bytes are held for nothing", seed, s.Bytes())
	}
	return early, astray
}
