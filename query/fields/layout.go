package fields

// layout is the order of keys a scanner expects at the top level of a record,
// and how far it trusts that order.
type layout struct {
	places []place
	// learn asks for the order of the next good record.
	learn bool
	// score counts up to trust with every record that keeps the order and
	// down with every one that does not. Below zero the order is given up.
	score int
	// pause is the number of records left to scan before learning again.
	pause int
	// broken is set when the record at hand did not keep the order.
	broken bool
}

const (
	trust     = 16   // records that break the order in a row before it is given up
	pause     = 1024 // records after that without an order, so that shuffled keys cost nothing
	maxPlaces = 64   // keys of a record that are remembered
)

// begin returns the places for the next record.
func (l *layout) begin() []place {
	if l.places == nil {
		l.pause--
		l.learn = l.pause < 0
		return nil
	}
	if !l.broken && l.score < trust {
		l.score++
	}
	l.broken = false
	return l.places
}

// next returns the places for what follows the key at i, which was not found
// to be the first of places. If that place could tell, the rest of the record
// is scanned without places.
func (l *layout) next(rec string, i int, places []place) []place {
	if places[0].size == 0 || i+24 > len(rec) {
		return places[1:]
	}
	l.broken = true
	if l.score--; l.score < 0 {
		l.places, l.pause = nil, pause
	}
	return nil
}

// learnLayout remembers the order of keys of a record that has been scanned.
func (s *Scanner) learnLayout(rec string) {
	places := make([]place, 0, 16)
	s.members(rec, space(rec, 0)+1, func(m member) bool {
		places = append(places, s.placeOf(rec, m))
		return len(places) < maxPlaces
	})
	s.layout = layout{places: places, score: trust}
}

// place is what a scanner expects where a key starts: the bytes from the
// opening quote to the colon. Three words, which may overlap, hold them all.
type place struct {
	words [3]uint64
	mask  uint64 // of the bytes that count, when there are fewer than eight
	mid   int    // offset of the second word
	end   int    // offset of the third word
	size  int    // 0 when any key may stand here
	child *node
}

// is reports whether the place's key stands at i.
func (p *place) is(rec string, i int) bool {
	if i+24 > len(rec) {
		return false
	}
	return (load(rec, i)^p.words[0])&p.mask|
		(load(rec, i+p.mid)^p.words[1])&p.mask|
		(load(rec, i+p.end)^p.words[2])&p.mask == 0
}

// placeOf makes the place of a member's key. Nothing is expected of a key
// that is too long, holds an escape, or is not followed by a colon at once.
func (s *Scanner) placeOf(rec string, m member) (p place) {
	text := rec[m.key-1 : m.keyEnd+2]
	size := len(text)
	if size > 24 || m.keyEscaped || text[size-1] != ':' {
		// No key starts with a zero byte.
		return place{mask: ^uint64(0)}
	}
	p = place{mask: 1<<(8*uint(min(size, 8))) - 1, end: max(0, size-8), size: size}
	p.mid = min(8, p.end)
	p.words = [3]uint64{word(text, 0), word(text, p.mid), word(text, p.end)}
	p.child = s.plan.root.next.find(text[1:size-2], s.plan.nothing)
	return p
}
