// Package enrich adds to events what is known elsewhere: a user's tier, an airport's city.
//
// # The life of a key
//
// A batch is enriched as a whole. [With] takes a key from each of its events and asks the [Cache] for all of
// them at once. A key that the lane has used lately is found in the lane's own front, a small array that no
// other lane touches; most others in the cache that all lanes of the process share.
//
// A key that is in neither is in flight: the cache knows one flight for each key, and whoever wants the key
// meanwhile waits for that one. Flights are put together into calls of as many keys as the backend takes at
// once; while a call is under way the next one fills. So a thousand lanes whose keys expire in the same moment
// make as many calls as their distinct keys need, and no more. The lane does not stand still: while a batch
// waits, the batches behind it are decoded and their keys are put in flight too.
//
// A call passes a rate limit, a circuit breaker and a time-out on its way to the [Lookup], which is a
// backend's driver (a folder below this one each) or any function. What it finds is kept for the time to live
// since the call began, what it does not find for a time of its own. A row that is asked for shortly before
// its time is up is looked up anew in the background, and served meanwhile.
//
// # When the backend does not answer
//
// A failed call is made again, with back-off, and what becomes of the events meanwhile is the enrichment's
// choice ([OnError]): they wait, and the partition with them, which is the default; they get a row that is
// older than it should be; they are treated as if there were no row; or they go to the dead letter. An error is
// never taken for the absence of a row.
//
// # What a replay sees
//
// The row of now. An event of last year that is read again, after a reset or because a process was killed
// before its checkpoint, gets what the backend says today. Where that is wrong, keep validity intervals in
// the table and choose the row that was valid at the event's time ([AsOf]).
package enrich
