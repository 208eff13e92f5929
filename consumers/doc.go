// Package consumers turns sources into Watermill subscribers.
//
// # The life of a subscription
//
// A driver ([Source], [Reader]) knows one kind of stream: how to list its partitions and how to read
// one of them in order. A [Subscriber] adds everything else, once for all drivers. Its group leases
// partitions; for each [stream.Assignment] the subscriber opens a reader at the position of the
// claim's base, keeps one fetch ahead, cuts fetches into batches, takes their bytes from the
// assignment's flow, and sends each batch as the context of one Watermill message, without waiting
// for the ones before it. One goroutine an assignment follows those messages.
//
// An assignment ends in one of four ways. It drains: reading stops, an empty last batch makes the
// lane save and release. It ends with its partition, or by itself. It is lost: everything stops at
// once. Or a message fails: the assignment ends with the error, and the next claim resumes from the
// log. Cancelling the context of Subscribe, or Close, drains; message contexts have the values of
// that context but are not cancelled with it, so that nothing under way is failed, dead-lettered or
// published because a process shuts down.
//
// # Ack means durable
//
// In batch mode a message may be acked only after its batch is durable, which is when
// [stream.Pipeline.Handle] returns nil. An ack before that is treated as a nack: it is counted
// ([Stats]), it ends the assignment, and the first one is logged with its likely cause. So no
// middleware can lose data; the wrong ones only stop progress. Of Watermill's own:
//
//	Recoverer, CorrelationID, Throttle   safe
//	Timeout                              safe, without effect: Handle does not give up waiting
//	Retry                                safe, useless: a failed batch fails again at once; it delays the nack
//	CircuitBreaker                       safe; while it is open every assignment fails
//	Duplicator                           safe: the second call finds the batch durable
//	PoisonQueue                          harmful: publishes an empty message and acks a batch that failed
//	IgnoreErrors                         harmful: acks a batch that failed
//	InstantAck                           harmful: acks every batch before it is read
//	Deduplicator                         harmful: batches have no payload, so all look the same and are acked unread
//	RandomFail, RandomPanic              safe: every failure restores from the log
//
// Decorators that copy messages drop the context and the batch with it; Handle refuses such a
// message, and the subscription cannot see what became of the original. Use none.
//
// Stop a router by cancelling the context of its Run: handlers drain, then it closes by itself.
// Router.Close works too, but while it waits for the handlers that run it lets no new message
// through, and so the last batch waits for the checkpoint before it. Then the router's CloseTimeout
// must be at least as long as a drain may take, 100 s.
//
// # Plain mode
//
// The [Subscriber] itself is a message.Subscriber of one record a message, for programs without a
// stream.Pipeline. It keeps Watermill's contract: the next message of a partition comes after the
// ack of the one before (Config.MaxUnacked loosens that), and a nacked one comes again first. Every
// few seconds, and when a partition is released, the end of the acked run is saved as a checkpoint
// of the same log; what was acked behind it comes again after a crash: at least once.
package consumers
