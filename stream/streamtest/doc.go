// Package streamtest runs a pipeline in a test: the real engine over a source, a log and sinks in
// memory.
//
// # The life of a test run
//
// [Feed] is enough for most tests: records in, rows and ledger out.
//
//	rows, ledger := streamtest.Feed(pipeline, streamtest.Lines(`{"user":"a","at":"2026-01-01T00:00:00Z"}`)...)
//
// [Do] is the same with several partitions, the size of batches, and the dead letters returned. Both
// copy the pipeline and replace its sinks and its dead letter by a [Sink], read every partition to
// its end, and return when all that was made of them is committed.
//
// [KillEverywhere] kills the process at every step of such a run, in turn, lets another one take
// over, and compares. It is the test that a pipeline with a state of its own, or a sink, should pass.
//
// # Virtual time
//
// All of it works inside a bubble of testing/synctest, where a lease of 15 seconds passes in no time:
//
//	synctest.Test(t, func(t *testing.T) { rows, ledger := streamtest.Feed(pipeline, records...) })
//
// A bubble's clock starts at midnight UTC 2000-01-01, and a record more than a minute in the future
// is dead-lettered. Let virtual time pass first, for instance with <-time.After(time.Until(t)).
// KillEverywhere makes its own bubbles, and does that by itself.
package streamtest
