package stream

// Hold is what a frontier waits for.
type Hold struct {
	Partition string  // the smallest watermark's; empty: the roster is empty
	Watermark Instant // what it counts with: EndOfTime when everything has ended
}

// HeldBy computes from a saved roster and the newest restorable entries (nil for none) whose watermark
// is the smallest (M4), as the merger does.
func HeldBy(m *MergerEntry, newest func(partition string) *Entry) Hold {
	r := roster{rows: m.Roster, frontier: m.Frontier}
	low, who := r.lowest(ofDone(m, newest))
	return Hold{who, low}
}

// CountsWith is the watermark with which a row of a saved roster counts (M4).
func CountsWith(row *RosterRow, newest *Entry) Instant {
	if row.Done {
		return EndOfTime
	}
	return (&roster{}).watermark(row, newest)
}

// ofDone answers for what had ended before an import, and has no log.
func ofDone(m *MergerEntry, newest func(string) *Entry) func(string) *Entry {
	r := roster{rows: m.Roster}
	return func(partition string) *Entry {
		if row := r.find(partition); row != nil && row.Done {
			return row.done()
		}
		return newest(partition)
	}
}
