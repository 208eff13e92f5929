package objects

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"github.com/millstream/millstream/bucket"
)

const (
	// placeBits of a position's Number are the place in an object, the rest the object's index in the scan.
	placeBits = 44
	// givenUp is the place of an object whose rest is not read.
	givenUp = 1<<placeBits - 1
)

type (
	// name is what a position says of an object's name, tag what it says of its Tag: the beginning of their
	// SHA-256. Of 20,000 names two are alike once in 10^20 times, and a change is missed once in 10^14.
	name [12]byte
	tag  [6]byte
)

// known is an object as a position has it: 18 bytes, 24 characters.
type known struct {
	name name
	tag  tag
}

const (
	knownBytes = len(name{}) + len(tag{})
	knownText  = knownBytes / 3 * 4 // each can be decoded alone
)

func digest(object string) name {
	sum := sha256.Sum256([]byte(object))
	return name(sum[:])
}

func tagOf(o bucket.Info) tag {
	sum := sha256.Sum256([]byte(o.Tag))
	return tag(sum[:])
}

// scan is a row of objects that a lane reads, and those that it has read before and that were still there
// when the scan was made.
type scan struct {
	finished []known // sorted by name
	members  []known // in the order in which they are read
}

// encode makes the Token that all positions of the scan share.
func (s *scan) encode() string {
	text := make([]byte, 0, knownText*(len(s.finished)+len(s.members))+1)
	one := make([]byte, 0, knownBytes)
	for i, part := range [][]known{s.finished, s.members} {
		if i > 0 {
			text = append(text, '.')
		}
		for _, k := range part {
			one = append(append(one[:0], k.name[:]...), k.tag[:]...)
			text = base64.RawStdEncoding.AppendEncode(text, one)
		}
	}
	return string(text)
}

var errToken = errors.New("it is none of a source of files")

func decodeScan(token string) (s scan, err error) {
	first, second, found := strings.Cut(token, ".")
	if !found {
		return s, errToken
	}
	if s.finished, err = decodeKnown(first); err != nil {
		return s, err
	}
	s.members, err = decodeKnown(second)
	return s, err
}

func decodeKnown(text string) ([]known, error) {
	data, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil || len(data)%knownBytes != 0 {
		return nil, errToken
	}
	var ks []known
	for one := range slices.Chunk(data, knownBytes) {
		ks = append(ks, known{name(one), tag(one[len(name{}):])})
	}
	return ks, nil
}

// memberOf is one member of a token's scan, found without decoding the others.
func memberOf(token string, index int) (k known, ok bool) {
	_, members, found := strings.Cut(token, ".")
	if !found || index < 0 || (index+1)*knownText > len(members) {
		return k, false
	}
	ks, err := decodeKnown(members[index*knownText : (index+1)*knownText])
	if err != nil {
		return k, false
	}
	return ks[0], true
}

// knows reports whether an object was finished before the scan.
func (s *scan) knows(n name) bool {
	_, found := slices.BinarySearchFunc(s.finished, n, func(k known, n name) int { return compareNames(k.name, n) })
	return found
}

func compareNames(a, b name) int { return slices.Compare(a[:], b[:]) }

func compareKnown(a, b known) int { return compareNames(a.name, b.name) }
