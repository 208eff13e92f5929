package kinesis

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"strings"
	"time"

	"github.com/millstream/millstream/stream"
)

const (
	// maxRecords is how many records a reply may hold: GetRecords' own limit. More are read, slower.
	maxRecords = 10_000
	// dataChunk and textChunk are how much is allocated at once for what records point to. A record that
	// is kept keeps its chunks.
	dataChunk = 64 << 10
	textChunk = 32 << 10
)

// decoder reads the JSON of a reply that carries records in one pass: members in any order, white space,
// strings with escapes where a key has them. What it does not know (members of other names, null where a
// record is, a number it could round) it leaves to the SDK, by saying no; so it never has to tell right
// from wrong, only what it is sure of.
type decoder struct {
	in []byte
	at int

	data []byte // room for the data of records
	text strings.Builder
}

// answer is what GetRecords and an event of SubscribeToShard have in common.
type answer struct {
	records []stream.Record // see fromSDK
	next    *string         // the member that says where to go on
	behind  *int64
}

// decodeAnswer reads a reply whose place to go on is the member called next. It reports false when the
// SDK has to read it. Nothing of the answer points into body.
func decodeAnswer(body []byte, next string) (a answer, ok bool) {
	d := decoder{in: body}
	var seen struct{ records, next, behind bool }
	if !d.take('{') {
		return a, false
	}
	for first := true; !d.take('}'); first = false {
		name, ok := d.member(first)
		if !ok {
			return a, false
		}
		switch string(name) {
		case "Records":
			ok = isFirst(&seen.records) && d.records(&a)
		case "MillisBehindLatest":
			var n int64
			ok = isFirst(&seen.behind) && d.integer(&n)
			a.behind = &n
		case next:
			var s string
			if ok = isFirst(&seen.next); ok && !d.null() {
				ok = d.keep(&s)
				a.next = &s
			}
		case "ChildShards": // of a shard that has not ended; a shard ends once
			ok = d.null()
		default:
			ok = false
		}
		if !ok {
			return a, false
		}
	}
	d.space()
	return a, d.at == len(d.in)
}

// isFirst notes that a member is there, and reports whether it is for the first time.
func isFirst(seen *bool) bool {
	again := *seen
	*seen = true
	return !again
}

func (d *decoder) records(a *answer) bool {
	if !d.take('[') {
		return false
	}
	a.records = []stream.Record{}
	for first := true; !d.take(']'); first = false {
		if !first && !d.take(',') {
			return false
		}
		began := d.at
		if len(a.records) == cap(a.records) && len(a.records) < maxRecords {
			a.records = append(make([]stream.Record, 0, max(4, 2*cap(a.records))), a.records...)
		}
		a.records = append(a.records, stream.Record{})
		if !d.record(&a.records[len(a.records)-1]) {
			return false
		}
		if first { // the others are probably as large
			n := min(maxRecords, (len(d.in)-began)/(d.at-began)+1)
			a.records = append(make([]stream.Record, 0, n), a.records...)
		}
	}
	return true
}

func (d *decoder) record(r *stream.Record) bool {
	if !d.take('{') {
		return false
	}
	var seen struct{ data, sequence, key, arrived bool }
	for first := true; !d.take('}'); first = false {
		name, ok := d.member(first)
		if !ok {
			return false
		}
		switch string(name) {
		case "Data":
			ok = isFirst(&seen.data) && d.blob(&r.Data)
		case "SequenceNumber":
			ok = isFirst(&seen.sequence) && d.keep(&r.Position.Token)
		case "PartitionKey":
			ok = isFirst(&seen.key) && d.keep(&r.Key)
		case "ApproximateArrivalTimestamp":
			ok = isFirst(&seen.arrived) && d.instant(&r.Arrived)
		case "EncryptionType":
			_, ok = d.plain()
		default:
			ok = false
		}
		if !ok {
			return false
		}
	}
	return true
}

// space skips white space.
func (d *decoder) space() {
	for d.at < len(d.in) {
		switch d.in[d.at] {
		case ' ', '\n', '\t', '\r':
			d.at++
		default:
			return
		}
	}
}

// take takes c, when it comes next.
func (d *decoder) take(c byte) bool {
	if d.at < len(d.in) && d.in[d.at] == c {
		d.at++
		return true
	}
	d.space()
	if d.at < len(d.in) && d.in[d.at] == c {
		d.at++
		return true
	}
	return false
}

// member takes the name of an object's next member, and the colon.
func (d *decoder) member(first bool) ([]byte, bool) {
	if !first && !d.take(',') {
		return nil, false
	}
	name, ok := d.quoted() // one with escapes is none that we know
	return name, ok && d.take(':')
}

// quoted takes a string, and returns what is between the quotes. It does not see an escaped quote:
// whoever allows escapes looks for them.
func (d *decoder) quoted() ([]byte, bool) {
	if !d.take('"') {
		return nil, false
	}
	n := bytes.IndexByte(d.in[d.at:], '"')
	if n < 0 {
		return nil, false
	}
	s := d.in[d.at : d.at+n]
	d.at += n + 1
	return s, true
}

// plain takes a string without escapes and control characters.
func (d *decoder) plain() ([]byte, bool) {
	s, ok := d.quoted()
	rest := s
	for ; len(rest) >= 8; rest = rest[8:] {
		if odd(binary.LittleEndian.Uint64(rest)) {
			return nil, false
		}
	}
	for _, c := range rest {
		if c < ' ' || c == '\\' {
			return nil, false
		}
	}
	return s, ok
}

// odd reports whether one of eight bytes is a control character or a backslash.
func odd(x uint64) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	slashes := x ^ ones*'\\'
	return ((x-ones*' ')&^x|(slashes-ones)&^slashes)&tops != 0
}

// keep takes a string and copies it.
func (d *decoder) keep(to *string) bool {
	began := d.at
	s, ok := d.plain()
	if !ok {
		d.at = began
		return d.unquote(to)
	}
	if d.text.Cap()-d.text.Len() < len(s) {
		d.text = strings.Builder{}
		d.text.Grow(max(len(s), min(textChunk, len(d.in)-began)))
	}
	n := d.text.Len()
	d.text.Write(s)
	*to = d.text.String()[n:]
	return true
}

// unquote takes a string with escapes.
func (d *decoder) unquote(to *string) bool {
	if !d.take('"') {
		return false
	}
	for i := d.at; i < len(d.in); i++ {
		switch d.in[i] {
		case '\\':
			i++
		case '"':
			whole := d.in[d.at-1 : i+1]
			d.at = i + 1
			return json.Unmarshal(whole, to) == nil
		}
	}
	return false
}

// blob takes a base64 string and decodes it. The bytes end at their capacity.
func (d *decoder) blob(to *[]byte) bool {
	s, ok := d.quoted()
	if !ok {
		return false
	}
	size := len(s) / 4 * 3
	if size > len(d.data) || d.data == nil {
		rest := (len(d.in) - d.at) / 4 * 3
		d.data = make([]byte, max(size, min(dataChunk, size+rest)))
	}
	n, ok := decodeBase64(d.data, s)
	if !ok {
		return false
	}
	*to = d.data[:n:n]
	d.data = d.data[n:]
	return true
}

func (d *decoder) null() bool {
	d.space()
	if bytes.HasPrefix(d.in[d.at:], []byte("null")) {
		d.at += 4
		return true
	}
	return false
}

// digits takes decimal digits that make at most most, and returns how many there were.
func (d *decoder) digits(n *int64, most int64) (taken int, ok bool) {
	for ; d.at < len(d.in); d.at++ {
		c := d.in[d.at] - '0'
		if c > 9 {
			break
		}
		if *n > (most-9)/10 {
			return taken, false
		}
		*n = *n*10 + int64(c)
		taken++
	}
	return taken, taken > 0
}

// integer takes a number from 0 on, without a fraction. What follows it is for the caller to see.
func (d *decoder) integer(n *int64) bool {
	d.space()
	began := d.at
	taken, ok := d.digits(n, 1<<62)
	return ok && (taken == 1 || d.in[began] != '0')
}

var powersOfTen = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// instant takes a time in seconds: 1767225600.123, or as the service itself writes it, 1.767225600123E9.
// It is exactly the time that the SDK makes of it: the nearest float64, cut to milliseconds. A mantissa
// below 2^53 and a power of ten up to 22 are exact, and so their quotient or product is the nearest.
func (d *decoder) instant(to *stream.Instant) bool {
	d.space()
	began := d.at
	var mantissa, exponent int64
	taken, ok := d.digits(&mantissa, 1<<53)
	if !ok || taken > 1 && d.in[began] == '0' {
		return false
	}
	power := 0
	if d.at < len(d.in) && d.in[d.at] == '.' {
		d.at++
		taken, ok := d.digits(&mantissa, 1<<53)
		if !ok {
			return false
		}
		power = -taken
	}
	if d.at < len(d.in) && (d.in[d.at] == 'E' || d.in[d.at] == 'e') {
		d.at++
		if d.at < len(d.in) && d.in[d.at] == '+' {
			d.at++
		}
		if taken, ok := d.digits(&exponent, 99); !ok || taken > 2 {
			return false
		}
		power += int(exponent)
	}
	seconds := float64(mantissa)
	switch {
	case power < -22 || power > 22:
		return false
	case power < 0:
		seconds /= powersOfTen[-power]
	default:
		seconds *= powersOfTen[power]
	}
	if seconds > 9e9 { // the year 2255; the SDK's overflow soon after
		return false
	}
	*to = stream.Instant(int64(seconds*1000) * int64(time.Millisecond))
	return true
}
