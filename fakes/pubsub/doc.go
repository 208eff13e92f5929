// Package pubsub is an in-process Google Cloud Pub/Sub for tests, demonstrations and benchmarks. It
// speaks the service's wire protocol (gRPC, StreamingPull included), so an unmodified client drives it,
// and it fails on demand, so that a client's recovery can be tested.
//
//	server := pubsub.New(pubsub.Options{})
//	address, err := server.Start() // 127.0.0.1:PORT, for PUBSUB_EMULATOR_HOST
//	defer server.Close()
//	err = server.CreateTopic("projects/p/topics/orders")
//	err = server.CreateSubscription(&pubsubpb.Subscription{
//		Name: "projects/p/subscriptions/orders", Topic: "projects/p/topics/orders",
//	})
//	client, err := gcp.NewClient(ctx, "p", server.ClientOptions()...)
//
// # The life of a message
//
// A message arrives by the Publish call or [Server.Publish]. It gets an id and the time, is encoded
// once, and every subscription of its topic whose filter matches holds it; a topic without
// subscriptions forgets it. A stream, or a Pull, that has room by its flow control takes it: from then
// on it is outstanding, under an ack id of this delivery, until it is acknowledged, given back, or its
// deadline passes. The latter two make it wait again, for any stream, under a new ack id. Deadlines are
// kept to 100 ms, never early. When the last subscription has acknowledged the last message of what
// was published together, its memory is free.
//
// In a subscription with message ordering the messages of a key are sent in order, many at a time and
// to one stream as long as any of them is outstanding. When one of them is sent again, so is everything
// after it, what was acknowledged before it too.
//
// In a subscription with exactly-once delivery an ack id is good until its deadline has passed or
// another delivery has begun; each later use is an error. Calls tell so in the details of an
// INVALID_ARGUMENT, streams in the confirmations of a StreamingPullResponse, which name each ack id.
// Without it a late acknowledgement is good as long as the message waits, and calls tell nothing.
//
// # Faults
//
// [Server.Inject] arms a [Fault]: an error, a delay, a reply lost after the work was done,
// acknowledgements that are forgotten, messages that come twice or out of order. The [Injection] it
// returns counts the operations it hit, so that a test can assert that the fault it meant to cause
// happened. [Server.EndStreams] ends streams that are idle, [Server.DropConnections] resets
// connections, and [Server.Expire] lets deadlines pass.
//
// # Virtual time
//
// The server reads the clock only through package time. In a testing/synctest bubble use
// [Server.ClientOptions] in place of [Server.Start]: connections are then in memory, which lets virtual
// time advance, and still carry the whole conversation. The SDK's Receive needs care there (seen with
// v2.6.2): it holds a mutex while it waits to open a stream again, which stops virtual time for ever when
// another of its goroutines wants that mutex, and one of its goroutines ends up to 10 s after it.
//
// # What differs from Google's pstest
//
// pstest (cloud.google.com/go/pubsub/v2/pstest) looks for messages to send every 10 ms and sends one a
// response, which bounds it to some hundred messages a second and stream; it sends one message of an
// ordering key at a time; it ignores retry policies and flow control, knows no exactly-once errors
// (acknowledgements always succeed), sends nothing in the order of publishing, forgets messages after
// ten minutes, keeps those that are acknowledged, and has none of the faults above but errors in place
// of calls. When a message comes again it writes the ack id that it may be sending still, which the race
// detector reports. It has what is absent here: schemas, snapshots and Seek, dead-letter topics, message
// transforms.
//
// # What differs from the service
//
// Nothing is authenticated and no quota applies, but what subscriptions hold is bounded: beyond
// [Options].MaxBytes Publish answers RESOURCE_EXHAUSTED. Messages are kept until they are acknowledged,
// not for a retention period. Retry policies do not apply to messages with an ordering key. Ack ids are
// short. A subscription can change its deadline, its retry policy and exactly-once delivery. Push,
// BigQuery and Cloud Storage subscriptions, dead-letter policies, schemas, snapshots, Seek and access
// control are absent (UNIMPLEMENTED). Limits, error codes and the semantics of redelivery follow the
// service's documentation.
package pubsub
