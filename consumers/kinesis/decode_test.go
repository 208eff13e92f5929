package kinesis

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net/http"
	"reflect"
	"strings"
	"testing"

	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/schemas"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/aws/smithy-go/transport/http/protocol/awsjson"
)

var getRecords = smithy.NewOperationSchema(schemas.GetRecords, schemas.GetRecordsInput, schemas.GetRecordsOutput)

// decoded is what a reply of GetRecords says to a reader.
type decoded struct {
	answer
	children []types.ChildShard
}

// decodeWith reads a reply of GetRecords with a protocol.
func decodeWith(p smithyhttp.ClientProtocol, body []byte) (decoded, error) {
	out, own := &awskinesis.GetRecordsOutput{}, &aside{}
	err := p.DeserializeResponse(context.WithValue(context.Background(), asideKey{}, own), getRecords, awskinesis.TypeRegistry, &smithyhttp.Response{Response: &http.Response{
		StatusCode: 200, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}}, out)
	if out.Records != nil {
		own.records = fromSDK(out.Records)
	}
	return decoded{answer{own.records, out.NextShardIterator, out.MillisBehindLatest}, out.ChildShards}, err
}

// sdk is the SDK's protocol, ours the one that reads records itself.
func sdk() protocol  { return protocol{awsjson.New11(schemas.Kinesis_20131202), true} }
func ours() protocol { return protocol{awsjson.New11(schemas.Kinesis_20131202), false} }

// differ compares both decoders over one reply, and says what is wrong with ours.
func differ(body []byte) error {
	theirs, theirErr := decodeWith(sdk(), bytes.Clone(body))
	body = bytes.Clone(body)
	a, ok := decodeAnswer(body, "NextShardIterator")
	clear(body) // nothing may point into it
	if ok {
		if mine := (decoded{answer: a}); theirErr != nil || !reflect.DeepEqual(mine, theirs) {
			return fmt.Errorf("ours %+v, the SDK's %+v, %w", mine, theirs, theirErr)
		}
	}
	return nil
}

func TestDecode(t *testing.T) {
	record := func(members string) string {
		return `{"Records":[{` + members + `}],"NextShardIterator":"AAA","MillisBehindLatest":0}`
	}
	const whole = `"SequenceNumber":"49590338271490256608559692538361571095921575989136588898","ApproximateArrivalTimestamp":1.545084650987E9,"Data":"SGVsbG8=","PartitionKey":"1"`
	for _, c := range []struct {
		body string
		own  bool // it is read without the SDK
	}{
		{record(whole), true},
		{record(whole + `,"EncryptionType":"KMS"`), true},
		{record(whole + `,"EncryptionType":"NONE"`), true},
		{record(whole + `,"EncryptionType":"ROT13"`), true},
		{record(``), true},
		{record(`"Data":"","PartitionKey":"","SequenceNumber":""`), true},
		{`{}`, true},
		{` { } `, true},
		{`{"Records":[]}`, true},
		{`{"Records":[],"NextShardIterator":null,"MillisBehindLatest":12345678901}`, true},
		{`{"Records":[],"ChildShards":[{"ShardId":"a","ParentShards":["b"],"HashKeyRange":{"StartingHashKey":"0","EndingHashKey":"1"}}]}`, false},
		{`{"ChildShards":null,"Records":[]}`, true},
		{`{"ChildShards":nul,"Records":[]}`, false},
		{strings.NewReplacer(":", " :\n ", ",", "\t,\r ", "{", " { ", "]", " ] ").Replace(record(strings.ReplaceAll(whole, "E9", "E9 "))), true},
		{record(`"PartitionKey":"a\"b\\cé😀\u00e9\ud83d\ude00\n"`), true},
		{record(`"PartitionKey":"\ud83d"`), true},
		{record(`"PartitionKey":"\uZZZZ"`), false},
		{record("\"PartitionKey\":\"\xff\xfe\""), true},
		{record("\"PartitionKey\":\"a\tb\""), false},
		{record(`"Data":"SGVsbG8"`), false},
		{record(`"Data":"SGVs\nbG8="`), false},
		{record(`"Data":"SGV\/"`), false},
		{record(`"Data":"SGV!"`), false},
		{record(`"Data":"===="`), false},
		{record(`"Data":"SG=="`), true},
		{record(`"Data":"S==="`), false},
		{record(`"Data":null`), false},
		{record(`"Data":"SGVs","Data":"SGVs"`), false},
		{record(`"data":"SGVs"`), false},
		{record(`"Other":{"a":[1,2,{}]}`), false},
		{`{"Records":null}`, false},
		{`{"Records":[null]}`, false},
		{`{"Records":[{}],"Records":[]}`, false},
		{`{"MillisBehindLatest":-1}`, false},
		{`{"MillisBehindLatest":01}`, false},
		{`{"MillisBehindLatest":1.5}`, false},
		{`{"MillisBehindLatest":99999999999999999999}`, false},
		{`{"Records":[]}x`, false},
		{`{"Records":[],}`, false},
		{`{"Records":[{},]}`, false},
		{`{"Records":[{}{}]}`, false},
		{`{"Records":[`, false},
		{`{"Records":[{"Data":"SGVs`, false},
		{`[]`, false},
		{``, false},
	} {
		if _, ok := decodeAnswer([]byte(c.body), "NextShardIterator"); ok != c.own {
			t.Errorf("%s: %t", c.body, ok)
		}
		if err := differ([]byte(c.body)); err != nil {
			t.Errorf("%s: %v", c.body, err)
		}
		out, err := decodeWith(ours(), []byte(c.body))
		theirs, theirErr := decodeWith(sdk(), []byte(c.body))
		switch {
		case !json.Valid([]byte(c.body)):
			if err == nil {
				t.Errorf("%s: no error", c.body)
			}
		case (err == nil) != (theirErr == nil) || err == nil && !reflect.DeepEqual(out, theirs):
			t.Errorf("%s: %+v, %v; the SDK: %+v, %v", c.body, out, err, theirs, theirErr)
		}
	}
}

// Times in every form that a server could write are the SDK's to the last bit.
func TestDecodeInstant(t *testing.T) {
	texts := []string{"0", "0.0", "0.001", "1e0", "1", "12.5", "1767225600", "1767225600.1", "1767225600.123", "1767225600.123456789", "1.767225600123E9",
		"1.767225600123e9", "1767225600123e-3", "1E+9", "01", "1.", ".5", "-1.5", "1E99", "9007199254740993", "9007199254740991.5", "17672256001234567890.1", `"NaN"`, `"Infinity"`, "1e12", "1e13", "99999999999.999"}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 5_000 {
		ms := rnd.Int64N(4e12)
		texts = append(texts, fmt.Sprintf("%d.%03d", ms/1000, ms%1000), fmt.Sprintf("%d.%012dE9", ms/1e12, ms%1e12), fmt.Sprint(float64(ms)/1000))
	}
	own := 0
	for _, text := range texts {
		body := []byte(`{"Records":[{"ApproximateArrivalTimestamp":` + text + `}]}`)
		if err := differ(body); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if _, ok := decodeAnswer(body, "NextShardIterator"); ok {
			own++
		}
	}
	if own < 14_900 {
		t.Fatalf("%d of %d are read without the SDK", own, len(texts))
	}
}

// replyOf makes a reply of GetRecords as the service writes it.
func replyOf(records int, size int, rnd *rand.Rand) []byte {
	var b bytes.Buffer
	b.WriteString(`{"MillisBehindLatest":0,"NextShardIterator":"AAAAAAAAAAFWLgZNUSOJ","Records":[`)
	data := make([]byte, size)
	for i := range records {
		if i > 0 {
			b.WriteByte(',')
		}
		for j := range data {
			data[j] = byte(rnd.Uint32())
		}
		fmt.Fprintf(&b, `{"ApproximateArrivalTimestamp":1.%012dE9,"Data":"%s","PartitionKey":"key-%d","SequenceNumber":"4959033827149025660855969253836157109592157%013d"}`,
			767_225_600_000+i, base64.StdEncoding.EncodeToString(data[:max(0, size-i%7)]), i%1000, i)
	}
	b.WriteString(`]}`)
	return b.Bytes()
}

// Replies of any shape are the SDK's.
func TestDecodeRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 60 {
		body := replyOf(rnd.IntN(100), rnd.IntN(300), rnd)
		if _, ok := decodeAnswer(body, "NextShardIterator"); !ok {
			t.Fatal("left to the SDK")
		}
		if err := differ(body); err != nil {
			t.Fatal(err)
		}
		for range 20 { // damaged anywhere
			bad := bytes.Clone(body)
			for range 1 + rnd.IntN(3) {
				bad[rnd.IntN(len(bad))] = `"\{}[],:0eE.=/ x`[rnd.IntN(16)]
			}
			if err := differ(bad[:rnd.IntN(len(bad)+1)]); err != nil {
				t.Fatal(err)
			}
			if err := differ(bad); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := differ(replyOf(maxRecords+10, 3, rnd)); err != nil {
		t.Fatal(err)
	}
}

// Whatever comes is an error or the SDK's answer.
func FuzzDecode(f *testing.F) {
	f.Add(replyOf(3, 40, rand.New(rand.NewPCG(5, 6))))
	f.Add([]byte(`{"Records":[{"ApproximateArrivalTimestamp":1.5E9,"PartitionKey":"\u00e9","EncryptionType":"KMS"}],"NextShardIterator":null,"ChildShards":[]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		_, ok := decodeAnswer(body, "NextShardIterator")
		if !json.Valid(body) {
			if ok {
				t.Fatal("not JSON, and read")
			}
			if _, err := decodeWith(ours(), body); err == nil {
				t.Fatal("not JSON, and no error")
			}
			return
		}
		if err := differ(body); err != nil {
			t.Fatal(err)
		}
		out, err := decodeWith(ours(), body)
		theirs, theirErr := decodeWith(sdk(), body)
		if (err == nil) != (theirErr == nil) || err == nil && !reflect.DeepEqual(out, theirs) {
			t.Fatalf("%+v, %v; the SDK: %+v, %v", out, err, theirs, theirErr)
		}
	})
}

func TestBase64(t *testing.T) {
	check := func(src []byte) {
		t.Helper()
		want, err := base64.StdEncoding.DecodeString(string(src))
		dst := make([]byte, len(src)/4*3)
		n, ok := decodeBase64(dst, src)
		if bytes.ContainsAny(src, "\r\n") {
			if ok {
				t.Fatalf("%q: a line break", src)
			}
		} else if ok != (err == nil) || ok && !bytes.Equal(dst[:n], want) {
			t.Fatalf("%q: %x, %t instead of %x, %v", src, dst[:n], ok, want, err)
		}
	}
	rnd := rand.New(rand.NewPCG(7, 8))
	for size := range 100 {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(rnd.Uint32())
		}
		src := []byte(base64.StdEncoding.EncodeToString(data))
		check(src)
		for i := range src { // every place, every kind of damage
			kept := src[i]
			for _, c := range "=A/+-_ \n\\\x00\xff" {
				src[i] = byte(c)
				check(src)
			}
			src[i] = kept
		}
		for cut := range min(5, len(src)) {
			check(src[:len(src)-cut])
		}
	}
}

// frame makes an event of the AWS event stream encoding.
func frame(payload string, headers ...string) []byte {
	var h []byte
	for i := 0; i < len(headers); i += 2 {
		h = append(h, byte(len(headers[i])))
		h = append(append(h, headers[i]...), 7)
		h = binary.BigEndian.AppendUint16(h, uint16(len(headers[i+1])))
		h = append(h, headers[i+1]...)
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(preludeSize+len(h)+len(payload)+trailerSize))
	b = binary.BigEndian.AppendUint32(b, uint32(len(h)))
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	b = append(append(b, h...), payload...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

func event(payload string) []byte {
	return frame(payload, ":message-type", "event", ":event-type", "SubscribeToShardEvent", ":content-type", "application/json")
}

func readEvent(p smithyhttp.ClientProtocol, r io.Reader) (smithy.Deserializable, error) {
	return p.DeserializeEventMessage(schemas.SubscribeToShardEventStream, awskinesis.TypeRegistry, r)
}

func TestEvents(t *testing.T) {
	const payload = `{"Records":[{"SequenceNumber":"1","Data":"SGVs","PartitionKey":"k"}],"MillisBehindLatest":7,"ContinuationSequenceNumber":"2"}`
	for _, whole := range [][]byte{
		event(payload),
		event(`{"Records":[],"MillisBehindLatest":0,"ContinuationSequenceNumber":"2"}`),
		event(`{"Records":[],"MillisBehindLatest":0,"ChildShards":[{"ShardId":"a","ParentShards":["b"],"HashKeyRange":{"StartingHashKey":"0","EndingHashKey":"1"}}]}`),
		event(`{"Records":[{"Data":"!"}]}`),
		frame(payload, ":event-type", "SubscribeToShardEvent", ":message-type", "event"),
		frame(payload, ":event-type", "SomethingElse", ":message-type", "event"),
		frame(`{"message":"taken"}`, ":message-type", "exception", ":exception-type", "ResourceInUseException"),
		frame("", ":message-type", "error", ":error-code", "Oops", ":error-message", "went wrong"),
		frame(""),
	} {
		mine, err := readEvent(ours(), bytes.NewReader(whole))
		theirs, theirErr := readEvent(sdk(), bytes.NewReader(whole))
		if !reflect.DeepEqual(mine, theirs) || fmt.Sprint(err) != fmt.Sprint(theirErr) {
			t.Errorf("%q: %+v, %v; the SDK: %+v, %v", whole, mine, err, theirs, theirErr)
		}
	}
	whole := event(payload)
	for n := range whole {
		_, err := readEvent(ours(), bytes.NewReader(whole[:n]))
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		if !errors.Is(err, want) {
			t.Fatalf("%d of %d bytes: %v", n, len(whole), err)
		}
		bad := bytes.Clone(whole)
		bad[n] ^= 0x10
		if e, err := readEvent(ours(), bytes.NewReader(bad)); err == nil {
			t.Fatalf("damaged at %d: %+v", n, e)
		}
	}
	huge := binary.BigEndian.AppendUint32(nil, maxReply+1)
	huge = binary.BigEndian.AppendUint32(huge, 0)
	huge = binary.BigEndian.AppendUint32(huge, crc32.ChecksumIEEE(huge))
	if _, err := readEvent(ours(), bytes.NewReader(huge)); err == nil || !strings.Contains(err.Error(), "an event of") {
		t.Fatal(err)
	}
	if _, err := readEvent(ours(), bytes.NewReader(event(`{"Records":[`))); err == nil {
		t.Fatal("not JSON, and no error")
	}
}

func FuzzEvents(f *testing.F) {
	f.Add(event(`{"Records":[],"MillisBehindLatest":0,"ContinuationSequenceNumber":"2"}`))
	f.Add(frame(`{"message":"taken"}`, ":message-type", "exception", ":exception-type", "ResourceInUseException"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := readEvent(ours(), bytes.NewReader(b)); (e == nil) == (err == nil) {
			t.Fatalf("%v, %v", e, err)
		}
	})
}

// A reply that is larger than any can be is refused before it is read.
func TestReplyTooLarge(t *testing.T) {
	for _, size := range []int64{maxReply + 1, -1} {
		r := &endless{}
		err := ours().DeserializeResponse(t.Context(), getRecords, awskinesis.TypeRegistry, &smithyhttp.Response{Response: &http.Response{
			StatusCode: 200, Body: io.NopCloser(r), ContentLength: size,
		}}, &awskinesis.GetRecordsOutput{})
		if !errors.Is(err, errTooLarge) || size > 0 && r.read > 0 || r.read > 2*maxReply+1<<20 {
			t.Fatalf("%v after %d bytes", err, r.read)
		}
	}
}

type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	return len(p), nil
}
