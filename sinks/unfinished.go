package sinks

import (
	"sync"

	"github.com/millstream/millstream/stream"
)

// Unfinished remembers what deliveries that returned an error have stored, so that the same process does
// not send it twice. The zero value is ready. Safe for concurrent use.
type Unfinished struct {
	mu    sync.Mutex
	begun map[stream.CheckpointID][]bool
}

// mostUnfinished bounds what is remembered: most deliveries are repeated at once, those of a lost partition
// never. What is forgotten is sent again, under the same _id.
const mostUnfinished = 1000

// Resume returns, and forgets, which of n rows an earlier delivery of id has stored.
func (u *Unfinished) Resume(id stream.CheckpointID, n int) []bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	stored := u.begun[id]
	delete(u.begun, id)
	if len(stored) != n {
		stored = make([]bool, n)
	}
	return stored
}

// Keep remembers which rows of a delivery that failed are stored.
func (u *Unfinished) Keep(id stream.CheckpointID, stored []bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.begun) >= mostUnfinished || u.begun == nil {
		u.begun = make(map[stream.CheckpointID][]bool)
	}
	u.begun[id] = stored
}
