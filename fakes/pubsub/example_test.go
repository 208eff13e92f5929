package pubsub_test

import (
	"context"
	"fmt"
	"log"

	gcp "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/millstream/millstream/fakes/pubsub"
)

// A test of a subscriber: its first acknowledgement is forgotten, and the message comes again.
func Example() {
	server := pubsub.New(pubsub.Options{})
	defer server.Close()
	if err := server.CreateTopic("projects/p/topics/orders"); err != nil {
		log.Fatal(err)
	}
	subscription := "projects/p/subscriptions/orders"
	if err := server.CreateSubscription(&pubsubpb.Subscription{Name: subscription, Topic: "projects/p/topics/orders"}); err != nil {
		log.Fatal(err)
	}
	if _, err := server.Publish("projects/p/topics/orders", pubsub.Message{Data: []byte(`{"total":12}`)}); err != nil {
		log.Fatal(err)
	}
	forgotten := server.Inject(pubsub.Fault{Operation: "Acknowledge", Forget: true})

	ctx, stop := context.WithCancel(context.Background())
	client, err := gcp.NewClient(ctx, "p", server.ClientOptions()...)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	go func() {
		<-forgotten.Done()
		if _, err := server.Expire(subscription); err != nil { // in place of waiting for the deadline
			log.Fatal(err)
		}
	}()
	copies := 0
	err = client.Subscriber("orders").Receive(ctx, func(_ context.Context, m *gcp.Message) {
		m.Ack()
		if copies++; copies == 2 {
			stop()
		}
	})
	if err != nil {
		log.Fatal(err)
	}
	stats, err := server.Stats(subscription)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("forgotten:", forgotten.Hits())
	fmt.Println("copies:", copies, "acknowledged:", stats.Acked)
	// Output:
	// forgotten: 1
	// copies: 2 acknowledged: 1
}
