// Package windows folds events into one result a key and window of event time.
//
// The life of one event's contribution: a lane, which owns one partition, finds the [slice] of time
// that the event belongs to and the event's key in that slice's table, and folds the event into the
// key's accumulators. A slice is what windows are made of: the window itself when windows tumble, the
// greatest common divisor of size and hop when they hop (so that an event is folded once, however many
// windows it counts in), the gap when they are sessions. When the lane's watermark passes the slice's
// end the slice is frozen: it leaves the lane as bytes and never changes again. The merger decodes the
// frozen slices of all partitions, slice by slice, merges the accumulators of each key, and emits one
// result a key and window as soon as every slice of the window is in.
//
// Slices and windows are aligned to the Unix epoch, before it too. An event is late if, and only if,
// its slice's end is at or before its partition's watermark. Results are final and come once.
//
// [Aggregation] does this for accumulators that are Go types of the caller's; [Columns] for the
// built-in functions that [NewFunc] makes, which are held column by column.
package windows
