package checkpoint

import (
	"maps"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/millstream/millstream/stream"
)

// share is the fair target: which of the partitions are self's, given the live members. Everybody who
// sees the same members and partitions computes the same. Each member gets the partitions for which
// it scores highest, up to an equal share, so that few of them move when a member comes or goes.
func share(self string, members, partitions []string) []string {
	if len(members) <= 1 {
		return partitions
	}
	members, partitions = slices.Clone(members), slices.Clone(partitions)
	slices.Sort(members)
	slices.Sort(partitions)
	room, hashes := make([]int, len(members)), make([]uint64, len(members))
	for i, m := range members {
		room[i], hashes[i] = len(partitions)/len(members), xxhash.Sum64String(m)
		if i < len(partitions)%len(members) {
			room[i]++
		}
	}
	var ours []string
	for _, p := range partitions {
		best, top, hash := -1, uint64(0), xxhash.Sum64String(p)
		for i := range members {
			if n := score(hashes[i], hash); room[i] > 0 && (best < 0 || n > top) {
				best, top = i, n
			}
		}
		room[best]--
		if members[best] == self {
			ours = append(ours, p)
		}
	}
	return ours
}

// score mixes two hashes as MurmurHash3 ends (https://github.com/aappleby/smhasher).
func score(member, partition uint64) uint64 {
	x := member ^ partition
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// aim is what distribute aims at, remembered for as long as the roster and the members stay: a large
// fleet's takes many thousand hashes.
type aim struct {
	of      *stream.MergerEntry
	members []string
	rows    map[string]stream.RosterRow // of the partitions that have not ended, and the merger
	ours    []string
	tip     string
}

// take brings the aim up to date. members are the live ones, self included, in any order.
func (a *aim) take(m *stream.MergerEntry, self string, members []string) {
	slices.Sort(members)
	if a.rows == nil || m != a.of {
		a.rows = map[string]stream.RosterRow{stream.MergerPartition: {Partition: stream.Partition{Name: stream.MergerPartition}, Start: stream.Beginning}}
		if a.of, a.members, a.tip = m, nil, ""; m != nil {
			a.tip = m.Tip
			for _, row := range m.Roster {
				if !row.Ended {
					a.rows[row.Name] = row
				}
			}
		}
	}
	if !slices.Equal(a.members, members) {
		a.members, a.ours = members, share(self, members, slices.Collect(maps.Keys(a.rows)))
	}
}
