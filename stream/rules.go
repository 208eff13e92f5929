package stream

// rules switches single protocol rules off, so that tests can show that each of them is needed. The
// zero value is the protocol. Only tests set it; rules_test.go says what breaks.
type rules struct {
	freezeLate       bool // M1: an entry leaves out the newest slice that its watermark has passed
	forgetFrozen     bool // M1, M6: a frozen slice is named by one entry, and dropped before the frontier covers it
	frontierBehind   bool // M2: the frontier is not saved with its rows but with the next ones
	childAtBeginning bool // M3: a child starts without its parents' last watermark
	eagerChildren    bool // M3: a child starts before its parents' ends are saved
	ignoreStart      bool // M3: a lane does not start where the roster says
	endedAtOnce      bool // M4: an ended parent counts as +∞ before its children are counted
	ignoreUnread     bool // M4: a partition without a checkpoint does not count
	skipIdle         bool // M5: an idle partition does not count, whatever its own checkpoint says
	raiseThrottled   bool // M5: a throttled partition is idle
	idleWhileWaiting bool // M5: a partition is idle whose next batch waits to be enriched
	unordered        bool // M6: slices are merged as they come
	missingIsEmpty   bool // M6: a missing object is an empty slice
	commitFirst      bool // M7, A5: output is visible before it is saved
	endUnfrozen      bool // M8: a lane ends without freezing what is open
	endUnlisted      bool // M8: the pipeline ends by an old listing of the source
	readAncestors    bool // M3: after an import, shards that the imported ones continue are read
	ackFirst         bool // A5: a batch is durable as soon as it is processed
	forgetIDs        bool // §7: the ids of saved checkpoints are not read again
	dropKnown        bool // §7: no id is known
	countEarly       bool // §7: an id counts as soon as its record is decoded
	hastyWatermark   bool // §7: the watermark moves at once after a claim
	hastyEnriched    bool // §7: and does not wait for what came until then and is still to be enriched
	dropWaiting      bool // files: rows that wait for a file are named only by the entry that staged them
	layoutOfToday    bool // files: a file that is written again takes the sink's present layout
	keepWaiting      bool // files: a partition ends with rows that wait
	noRecommit       bool // A5: a new owner does not commit what its predecessor saved
}
