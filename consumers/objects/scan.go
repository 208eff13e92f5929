package objects

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
)

// placeBits of a position's Number are the place in an object, the rest the object's index in the scan.
const placeBits = 44

// name is what a position says of an object's name: 16 bytes of its SHA-256.
type name [16]byte

func digest(object string) name {
	sum := sha256.Sum256([]byte(object))
	return name(sum[:16])
}

// scan is a row of objects that a lane reads, and those that it has read before and that were still there
// when the scan was made.
type scan struct {
	finished []name // sorted
	members  []name // in the order in which they are read
}

// encode makes the Token that all positions of the scan share.
func (s *scan) encode() string {
	text := make([]byte, 0, 16*(len(s.finished)+len(s.members)))
	for _, n := range s.finished {
		text = append(text, n[:]...)
	}
	members := make([]byte, 0, 16*len(s.members))
	for _, n := range s.members {
		members = append(members, n[:]...)
	}
	return base64.RawStdEncoding.EncodeToString(text) + "." + base64.RawStdEncoding.EncodeToString(members)
}

var errToken = errors.New("it is none of a source of files")

func decodeScan(token string) (s scan, err error) {
	first, second, found := strings.Cut(token, ".")
	if !found {
		return s, errToken
	}
	for text, to := range map[string]*[]name{first: &s.finished, second: &s.members} {
		data, err := base64.RawStdEncoding.DecodeString(text)
		if err != nil || len(data)%16 != 0 {
			return s, errToken
		}
		for chunk := range slices.Chunk(data, 16) {
			*to = append(*to, name(chunk))
		}
	}
	return s, nil
}

// knows reports whether an object was finished before the scan.
func (s *scan) knows(n name) bool {
	_, found := slices.BinarySearchFunc(s.finished, n, compareNames)
	return found
}

func compareNames(a, b name) int { return slices.Compare(a[:], b[:]) }
