// Package checkpointtest is what a bucket must pass to keep checkpoints safe: the protocol of package
// checkpoint, run by several processes at once over the bucket, which crash between any two calls,
// are frozen and woken, lose answers, and have writes arrive late. Whatever happens, every log must
// tell one story: each checkpoint follows the one that its claim restored, and nobody's was lost.
//
// Suite runs in virtual time over a bucket that never waits, and in real time over any other.
package checkpointtest
