package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/millstream/millstream/fakes/pubsub"
)

// demoPubSub is in this process. Its partitions are subscriptions of one topic, whose filters exclude
// each other. Messages come again in any order when the worker is killed, so none are made that are late
// in one order and not in another; and what was put is remembered here, because a subscription forgets
// what is acknowledged.
func demoPubSub() (*demoSource, error) {
	const topic = "projects/demo/topics/" + demoStream
	server := pubsub.New(pubsub.Options{})
	address, err := server.Start()
	if err == nil {
		err = server.CreateTopic(topic)
	}
	var ids []string
	for i := range demoPartitions {
		ids = append(ids, fmt.Sprint(demoStream, "-", i))
		if err == nil {
			err = server.CreateSubscription(&pubsubpb.Subscription{Name: "projects/demo/subscriptions/" + ids[i], Topic: topic,
				Filter: fmt.Sprintf(`attributes.part = "%d"`, i)})
		}
	}
	if err != nil {
		server.Close()
		return nil, errors.Join(errors.New("embedded Pub/Sub"), err)
	}
	var (
		mu  sync.Mutex
		all = make(map[string][]arrival, demoPartitions)
	)
	return &demoSource{
		name: "An embedded Pub/Sub",
		url:  "pubsub://demo/" + strings.Join(ids, ",") + "?endpoint=" + address,
		rate: 10_000,
		note: "What a killed worker held comes again after a minute, and no window closes before: the demo lasts so much longer.\n",
		any:  true,
		put: func(clicks []click) error {
			batch := make([]pubsub.Message, len(clicks))
			mu.Lock()
			for i, c := range clicks {
				part := c.number % demoPartitions
				batch[i] = pubsub.Message{Data: c.data, Attributes: map[string]string{"part": strconv.Itoa(part)}}
				all[ids[part]] = append(all[ids[part]], arrival{bytes.Clone(c.data), time.Now()})
			}
			mu.Unlock()
			if _, err := server.Publish(topic, batch...); err != nil {
				return fmt.Errorf("embedded Pub/Sub: %w", err)
			}
			return nil
		},
		records: func() (map[string][]arrival, error) {
			mu.Lock()
			defer mu.Unlock()
			out := make(map[string][]arrival, len(all))
			for id, records := range all {
				out[id] = slices.Clone(records)
			}
			return out, nil
		},
		partition: func(name string) string { return "subscription " + name },
		close:     func() error { server.Close(); return nil },
	}, nil
}
