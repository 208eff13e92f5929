// Package firehose is an in-process Amazon Data Firehose for tests and demonstrations. It speaks the real
// protocol, which the official SDKs drive, with the service's limits and error types; it fails on demand,
// in whole or entry by entry; it counts what would be billed; and it delivers, to a folder if it is given
// one, what the service would deliver to a bucket: the records of a buffer one behind the other, as they
// are.
//
// What is not there: destinations other than a folder (what a request configures is described again, and no
// more), transformation, format conversion, dynamic
// partitioning, rate limits.
package firehose
