package checkpoint

// rules switches single protocol rules off, so that tests can show that each of them is needed. The
// zero value is the protocol. Only tests set it.
type rules struct {
	freshBytes        bool // A1: a repeated attempt offers new bytes under a new nonce
	noReadBack        bool // A1: an error means "not written", and a taken number "written"
	skipNumber        bool // A1: after an unknown outcome the next state goes to the next number
	noSecondList      bool // A2: a claim stands wherever it was written
	noCrashBackOff    bool // A2
	hastyObserver     bool // A3: one unchanged reading is enough
	deafObserver      bool // A3: a failed reading and a gap count as unchanged
	noSelfStop        bool // A4
	noOrder           bool // A5
	noDedupe          bool // A6: checkpoints are kept by their number alone
	forgetClaims      bool // A6: claims are deleted like checkpoints
	forgetNames       bool // A6: objects are deleted with the entry that first named them
	resetAnyway       bool // A7: a reset while members live
	resetSparesMerger bool // A7
	oldRoster         bool // A7: a claimant does not look at the roster again
	noPlan            bool // A8
	trustLogs         bool // A9: a log is taken for whole, whatever others have seen of it
	skipDamaged       bool // A9: a damaged entry counts as absent
	noStoreCheck      bool // A10
	blindFollower     bool // A11: never lists at a gap
	noGarbage         bool // A12
	noTurnover        bool // nobody is told that partitions are free
}
