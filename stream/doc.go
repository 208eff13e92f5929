// Package stream holds the words of Millstream as types, and the engine that moves them.
//
// # The life of a batch
//
// A [Group] leases the partitions of a source and hands each to a subscriber as an [Assignment]:
// the claim that makes it ours, the [Entry] to resume from, and the [Log] to write to. The
// subscriber reads consecutive records of the partition into a [Batch], and sends the batch down a
// Watermill router as the context of one message. The router calls [Pipeline.Handle], which gives
// the batch to the partition's lane and waits.
//
// The lane, one goroutine, puts batches back into order, decodes, enriches, keeps or filters each
// record, and folds it into the operator's state. When a checkpoint is due the lane freezes the
// slices that its watermark has passed, copies its state, and goes on reading while the copy is
// staged, saved to the log and committed to the sinks: stage → save → commit → ack, in commit.go.
// Only then does Handle return, so that an ack means durable.
//
// Partials of one key live in many lanes. The merger, itself a leased partition with a log, reads
// the frozen slices named by saved entries once every partition's watermark has passed them, merges
// them, and stages, saves and commits the rows in the same way.
//
// There is one recovery path. A nack, a lost lease, an error, a crash: the assignment ends, and the
// next owner restores the newest saved entry.
package stream
