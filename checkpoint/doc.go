// Package checkpoint keeps a pipeline's state in a bucket: lease, fence and checkpoint in one log.
//
// # The life of an entry
//
// Every partition, and the merger, has a log of numbered objects that never change:
// log/PARTITION/00000000000000000041. A number belongs to whoever creates its object first, and
// that is all the locking there is.
//
// An instance that wants a partition lists its log and appends a claim at the next number (claim.go).
// From then on it is the only one that can append: whoever else still believes to own the partition
// will offer its next entry under a number that is taken, read back somebody else's nonce, and
// stop. What is too large for an entry is written as an object before, and named by it. The owner
// appends checkpoints (log.go); after an error it reads the number back and offers the very same
// bytes again, until it knows whether they are in the log. When it leaves it appends a release;
// when nothing is left to read, an end.
//
// Everybody else follows the log by reading the next number (follow.go). Entries that nobody needs
// any more are deleted behind the owner's back, claims never (retain.go).
//
// Whether an owner lives is a question of liveness only, never of safety: its heartbeat file,
// members/ID, changes all the time (member.go), and one that did not change for a whole lease is
// dead. An owner that could not write its heartbeat for half a lease stops by itself.
//
// Group ties it together: it heartbeats, watches the other members, claims what is its share of the
// merger's roster, and serves each assignment on a goroutine of its own (group.go).
//
// The rules are named A1 to A12 where they are implemented; rules_test.go shows for each of them a
// test that fails without it.
package checkpoint
