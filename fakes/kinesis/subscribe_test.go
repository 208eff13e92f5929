package kinesis_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/millstream/millstream/fakes/kinesis"
)

func register(t testing.TB, client *sdk.Client) *string {
	t.Helper()
	out, err := client.RegisterStreamConsumer(ctx, &sdk.RegisterStreamConsumerInput{
		StreamARN: aws.String("arn:aws:kinesis:us-east-1:000000000000:stream/" + stream), ConsumerName: aws.String("fan"),
	})
	must(t, err)
	return out.Consumer.ConsumerARN
}

// subscribe uses a client of its own: all event streams of one client share an
// unguarded decoder in smithy-go 1.28.8, so that two at once read each other's
// bytes.
func subscribe(server *kinesis.Server, consumer *string, from types.StartingPosition) (*sdk.SubscribeToShardEventStream, error) {
	client := newClient("http://kinesis.test", func(o *sdk.Options) { o.HTTPClient = server.Client() })
	out, err := client.SubscribeToShard(ctx, &sdk.SubscribeToShardInput{ConsumerARN: consumer, ShardId: aws.String(shardID(0)), StartingPosition: &from})
	if err != nil {
		return nil, err
	}
	return out.GetStream(), nil
}

// event returns the next event, nil at the end of the subscription.
func event(s *sdk.SubscribeToShardEventStream) *types.SubscribeToShardEvent {
	e, ok := <-s.Events()
	if !ok {
		return nil
	}
	return &e.(*types.SubscribeToShardEventStreamMemberSubscribeToShardEvent).Value
}

var fromStart = types.StartingPosition{Type: types.ShardIteratorTypeTrimHorizon}

// What is there comes at once, what follows when it arrives, an empty event when
// nothing does, and the children at the end.
func TestSubscribeToShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := inMemory(kinesis.Options{})
		defer server.Close()
		must(t, server.CreateStream(stream, 1))
		must(t, putText(client, "a"))
		consumer := register(t, client)
		s, err := subscribe(server, consumer, fromStart)
		must(t, err)
		defer s.Close()
		began := time.Now()
		first := event(s)
		if got := texts(first.Records); len(got) != 1 || got[0] != "a" {
			t.Fatalf("first %v", got)
		}
		if *first.ContinuationSequenceNumber != *first.Records[0].SequenceNumber {
			t.Errorf("continue at %s, the last record is %s", *first.ContinuationSequenceNumber, *first.Records[0].SequenceNumber)
		}
		if e := event(s); len(e.Records) != 0 || time.Since(began) != 5*time.Second {
			t.Errorf("a heartbeat of %d records after %v", len(e.Records), time.Since(began))
		}
		must(t, putText(client, "b"))
		if got := texts(event(s).Records); len(got) != 1 || got[0] != "b" || time.Since(began) != 5*time.Second {
			t.Errorf("then %v after %v", got, time.Since(began))
		}
		must(t, server.Split(stream, shardID(0)))
		end := event(s)
		if len(end.ChildShards) != 2 || *end.ChildShards[1].ShardId != shardID(2) {
			t.Errorf("children %v", end.ChildShards)
		}
		if e := event(s); e != nil {
			t.Errorf("an event after the end: %v", e)
		}
		must(t, s.Err())

		// The place to continue from works, a closed shard included.
		s, err = subscribe(server, consumer, types.StartingPosition{Type: types.ShardIteratorTypeAfterSequenceNumber, SequenceNumber: first.ContinuationSequenceNumber})
		must(t, err)
		defer s.Close()
		if got := texts(event(s).Records); len(got) != 1 || got[0] != "b" {
			t.Errorf("continued with %v", got)
		}
	})
}

// A subscription lasts five minutes. A second one is refused for five seconds,
// then takes over.
func TestSubscriptionLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := inMemory(kinesis.Options{})
		defer server.Close()
		must(t, server.CreateStream(stream, 1))
		consumer := register(t, client)
		first, err := subscribe(server, consumer, fromStart)
		must(t, err)
		defer first.Close()
		_, err = subscribe(server, consumer, fromStart)
		wantCode(t, err, "ResourceInUseException")
		event(first) // the heartbeat after five seconds
		began := time.Now()
		second, err := subscribe(server, consumer, fromStart)
		must(t, err)
		defer second.Close()
		for event(first) != nil {
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("the first lived on for %v", took)
		}
		for event(second) != nil {
		}
		if took := time.Since(began); took != 5*time.Minute {
			t.Errorf("the second lived for %v", took)
		}
		must(t, second.Err())
	})
}

// Deregistering ends a consumer's subscriptions; a cut one ends with an error.
func TestSubscriptionEnds(t *testing.T) {
	server, client := start(t, kinesis.Options{})
	must(t, server.CreateStream(stream, 1))
	must(t, putText(client, "a"))
	consumer := register(t, client)
	fault := server.Inject(kinesis.Fault{Operation: "SubscribeToShard", CutReply: true})
	s, err := subscribe(server, consumer, fromStart)
	must(t, err)
	if got := texts(event(s).Records); len(got) != 1 {
		t.Errorf("before the cut %v", got)
	}
	if e := event(s); e != nil {
		t.Errorf("after the cut %v", e)
	}
	hits(t, fault, 1)
	s.Close()

	_, err = client.DeregisterStreamConsumer(ctx, &sdk.DeregisterStreamConsumerInput{ConsumerARN: consumer})
	must(t, err)
	consumer = register(t, client)
	s, err = subscribe(server, consumer, types.StartingPosition{Type: types.ShardIteratorTypeLatest})
	must(t, err)
	defer s.Close()
	_, err = client.DeregisterStreamConsumer(ctx, &sdk.DeregisterStreamConsumerInput{ConsumerARN: consumer})
	must(t, err)
	if e := event(s); e != nil {
		t.Errorf("after deregistering %v", e)
	}
	_, err = subscribe(server, consumer, fromStart)
	wantCode(t, err, kinesis.ResourceNotFound)
}
