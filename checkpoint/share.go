package checkpoint

import (
	"cmp"
	"slices"

	"github.com/cespare/xxhash/v2"
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
	room := make(map[string]int, len(members))
	for i, m := range members {
		room[m] = len(partitions) / len(members)
		if i < len(partitions)%len(members) {
			room[m]++
		}
	}
	var ours []string
	for _, p := range partitions {
		best := slices.MaxFunc(members, func(a, b string) int {
			if full := room[a] > 0; full != (room[b] > 0) {
				if full {
					return 1
				}
				return -1
			}
			return cmp.Compare(xxhash.Sum64String(a+"\x00"+p), xxhash.Sum64String(b+"\x00"+p))
		})
		room[best]--
		if best == self {
			ours = append(ours, p)
		}
	}
	return ours
}
