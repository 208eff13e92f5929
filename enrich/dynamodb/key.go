package dynamodb

import (
	"encoding/base64"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// The most bytes of a key's value, and the range and precision of a number, see
// https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html. One key that is beyond
// them makes the service refuse the whole call.
const (
	mostPartition    = 2048
	mostSort         = 1024
	mostDigits       = 38
	least, mostPower = -130, 125 // powers of ten of a number's first digit
)

// keyAttribute is a partition or sort key.
type keyAttribute struct {
	name string
	kind types.ScalarAttributeType
	most int // bytes
}

// probe is the text of some key.
func (a keyAttribute) probe() string {
	if a.kind == types.ScalarAttributeTypeS {
		return "millstream"
	}
	return "1000" // a number, and base64
}

// parse makes a value of a key's text. Its identity is the same for equal keys. Not ok: no item can have
// this key.
func (a keyAttribute) parse(text string) (v types.AttributeValue, id string, ok bool) {
	switch a.kind {
	case types.ScalarAttributeTypeN:
		id, ok = number(text)
		return &types.AttributeValueMemberN{Value: id}, id, ok
	case types.ScalarAttributeTypeB:
		b, err := base64.StdEncoding.Strict().DecodeString(text)
		ok = err == nil && len(b) > 0 && len(b) <= a.most && !strings.ContainsAny(text, "\r\n")
		return &types.AttributeValueMemberB{Value: b}, string(b), ok
	}
	// Text that is not UTF-8 would arrive as another text.
	return &types.AttributeValueMemberS{Value: text}, text, text != "" && len(text) <= a.most && utf8.ValidString(text)
}

// identity is the identity of a key that the service gave. Not ok: it is not of the key's type.
func (a keyAttribute) identity(v types.AttributeValue) (id string, ok bool) {
	switch v := v.(type) {
	case *types.AttributeValueMemberS:
		return v.Value, a.kind == types.ScalarAttributeTypeS
	case *types.AttributeValueMemberB:
		return string(v.Value), a.kind == types.ScalarAttributeTypeB
	case *types.AttributeValueMemberN:
		id, ok = number(v.Value)
		return id, ok && a.kind == types.ScalarAttributeTypeN
	}
	return "", false
}

// number reads a number as JSON writes it and returns its one shortest form, "-12", "1000" or "15E-1". It
// reports false for what is no number, or none that DynamoDB can hold.
func number(text string) (string, bool) {
	rest, negative := strings.CutPrefix(text, "-")
	mantissa, power := rest, 0
	if i := strings.IndexAny(rest, "eE"); i >= 0 {
		p, err := strconv.ParseInt(rest[i+1:], 10, 32)
		if err != nil || strings.Contains(rest[i+1:], "_") {
			return "", false
		}
		mantissa, power = rest[:i], int(p)
	}
	whole, fraction, point := strings.Cut(mantissa, ".")
	if !digits(whole) || point && !digits(fraction) || len(whole) > 1 && whole[0] == '0' {
		return "", false
	}
	significant := strings.TrimLeft(whole+fraction, "0")
	if significant == "" {
		return "0", true
	}
	power -= len(fraction)
	shortest := strings.TrimRight(significant, "0")
	power += len(significant) - len(shortest)
	first := power + len(shortest) - 1
	if len(shortest) > mostDigits || first < least || first > mostPower {
		return "", false
	}
	switch {
	case power > 0 && first < mostDigits:
		shortest += strings.Repeat("0", power)
	case power != 0:
		shortest += "E" + strconv.Itoa(power)
	}
	if negative {
		return "-" + shortest, true
	}
	return shortest, true
}

// digits reports whether s is one or more decimal digits.
func digits(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}
