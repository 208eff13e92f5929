// Package eventhubs is Azure Event Hubs for tests, demonstrations and benchmarks: a program in
// JavaScript that speaks AMQP 1.0 with the official clients, and fails on demand, so that a client's
// recovery can be tested.
//
//	server, err := eventhubs.Start(ctx, eventhubs.Options{})
//	defer server.Close()
//	err = server.CreateHub("orders", 4)
//	client, err := azeventhubs.NewConsumerClientFromConnectionString(
//		server.ConnectionString(), "orders", azeventhubs.DefaultConsumerGroup, nil)
//
// It needs node, 18 or later, and the AMQP library rhea, which is looked for in the node_modules folder
// that MILLSTREAM_RHEA names; without that variable npm installs it once into the user's cache folder.
// There is no AMQP 1.0 server in Go to build on, and Microsoft's emulator is a container image.
//
// # The life of an event
//
// A sender opens a link to HUB, or to HUB/Partitions/ID, and sends batches: messages of format
// 0x80013700 whose Data sections are encoded messages. The partition is the link's, or follows from the
// batch's partition key, or takes turns. Each message inside becomes an event: it gets the partition's
// next sequence number (0, 1, 2, …), an offset, which is a string that only the service reads, and the
// time of arrival. These annotations are spliced into the bytes as they came, nothing is encoded again.
//
// A reader opens a link from HUB/ConsumerGroups/GROUP/Partitions/ID with a filter that says where to
// start (behind or at an offset, a sequence number or a time; '-1' is the beginning, '@latest' the end)
// and is sent what it has credit for, settled. With an owner level (com.microsoft:epoch) it puts out
// readers of the same or a lower level, and those without one; a lower level is refused, both with
// amqp:link:stolen. Without a level five readers may share a partition and consumer group.
//
// Tokens go to $cbs, questions about the hub and its partitions to $management; answers come on the link
// whose target is the question's reply-to.
//
// # Faults
//
// [Server.Disconnect] breaks the readers' connections wherever they are in a batch. [Server.Silence]
// makes the readers of the moment silent: their links stay open and nothing comes any more. [Server.Throttle]
// and [Server.Busy] refuse reading and writing with com.microsoft:server-busy. [Server.LoseReplies]
// stores batches and breaks the connection instead of saying so. [Server.RefuseTokens] and
// [Server.HangManagement] do as they say. [Server.Trim] is retention. [Server.Counts] tells what
// happened, so that a test can assert that the fault it meant to cause was met.
//
// # What differs from the service
//
// No TLS, no check of tokens, no quota of throughput, no time-outs of links. Events are kept until
// trimmed, in memory. A partition key leads to one partition for ever, but not to the one that the
// service would choose. Events put directly ([Server.Publish]) are never refused.
package eventhubs
