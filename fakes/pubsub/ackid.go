package pubsub

// ackID names one delivery: the subscription's serial number, its slot and the delivery's number there.
type ackID struct{ subscription, slot, delivery uint32 }

// ackIDLength is shorter than the service's, about 180 bytes.
const ackIDLength = 24

const digits = "0123456789abcdef"

func (a ackID) append(b []byte) []byte {
	for _, v := range [3]uint32{a.subscription, a.slot, a.delivery} {
		for shift := 28; shift >= 0; shift -= 4 {
			b = append(b, digits[v>>shift&15])
		}
	}
	return b
}

func (a ackID) String() string { return string(a.append(nil)) }

func parseAckID(id string) (a ackID, ok bool) {
	if len(id) != ackIDLength {
		return a, false
	}
	var parts [3]uint32
	for i := range ackIDLength {
		c := id[i]
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		default:
			return a, false
		}
		parts[i/8] = parts[i/8]<<4 | uint32(c)
	}
	return ackID{parts[0], parts[1], parts[2]}, true
}
