package pubsub

import (
	"strings"
	"testing"
	"time"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// What is encoded by hand reads as what the library encodes.
func TestEncoding(t *testing.T) {
	at := time.Date(2026, 11, 23, 12, 0, 0, 123456789, time.UTC)
	for _, m := range []Message{
		{Data: []byte("x")},
		{Data: []byte(strings.Repeat("long ", 5000))},
		{Attributes: map[string]string{"": "", "a": "b", "ä": strings.Repeat("y", 1000)}},
		{Data: []byte{0, 1, 255}, Attributes: map[string]string{"k": ""}, OrderingKey: strings.Repeat("k", 200)},
	} {
		want := &pb.PubsubMessage{Data: m.Data, Attributes: m.Attributes, OrderingKey: m.OrderingKey,
			MessageId: "1000000000000042", PublishTime: timestamppb.New(at)}
		encoded := appendMessage(nil, &m, 42, at)
		if len(encoded) > m.size() {
			t.Errorf("%d bytes, and size says %d", len(encoded), m.size())
		}
		var got pb.PubsubMessage
		unmarshal(encoded, &got)
		if !proto.Equal(&got, want) {
			t.Errorf("%v\nwant %v", &got, want)
		}
		ack := ackID{7, 0xffffffff, 9}
		f := &frame{properties: properties{exactlyOnce: true, ordered: m.OrderingKey != ""}, bytes: 2 * len(encoded)}
		for attempt := range int32(2) {
			f.delivered = append(f.delivered, delivered{ack: ack, message: &message{encoded: encoded}, attempt: attempt})
		}
		received := &pb.StreamingPullResponse{
			SubscriptionProperties: &pb.StreamingPullResponse_SubscriptionProperties{ExactlyOnceDeliveryEnabled: true, MessageOrderingEnabled: m.OrderingKey != ""},
			ReceivedMessages: []*pb.ReceivedMessage{
				{AckId: "00000007ffffffff00000009", Message: want}, {AckId: "00000007ffffffff00000009", Message: want, DeliveryAttempt: 1}}}
		response := f.append(nil)
		if len(response) > f.size() {
			t.Errorf("%d bytes, and size says %d", len(response), f.size())
		}
		var back pb.StreamingPullResponse
		unmarshal(response, &back)
		if !proto.Equal(&back, received) {
			t.Errorf("%v\nwant %v", &back, received)
		}
		slices, err := newCodec().Marshal(f)
		if err != nil || string(slices.Materialize()) != string(response) {
			t.Errorf("the codec: %v", err)
		}
	}
}

func FuzzAckID(f *testing.F) {
	f.Add(uint32(0), uint32(1), uint32(1<<31), "0000000000000000000000g0")
	f.Fuzz(func(t *testing.T, a, b, c uint32, text string) {
		id := ackID{a, b, c}
		if back, ok := parseAckID(id.String()); !ok || back != id {
			t.Fatalf("%v: %v", id, back)
		}
		if id, ok := parseAckID(text); ok && id.String() != text {
			t.Fatalf("%q: %v", text, id)
		}
	})
}

func TestQueue(t *testing.T) {
	var q queue[int]
	in, out := 0, 0
	for round := range 200 {
		for range 100 + round%50 {
			q.push(in)
			in++
		}
		for range 90 + round%70 {
			if q.len() == 0 {
				break
			}
			if got := q.pop(); got != out {
				t.Fatalf("%d, want %d", got, out)
			}
			out++
		}
		if q.len() != in-out || len(q.rest()) != in-out {
			t.Fatalf("%d in it, want %d", q.len(), in-out)
		}
	}
}

var filterCases = []map[string]string{
	nil, {"a": "1"}, {"a": "2"}, {"a": "10"}, {"b": "1"}, {"a": "1", "b": "1"}, {"a": "", "b": "x\"y"}, {"x-y": "1"}, {"ü": "1"}, {"iana.org/lang": "en"},
}

func TestFilter(t *testing.T) {
	for text, want := range map[string]string{ // a digit for each of filterCases
		``:                                         "1111111111",
		`attributes:a`:                             "0111011000",
		`attributes:"iana.org/lang"`:               "0000000001",
		`attributes.a = "1"`:                       "0100010000",
		`attributes."a"="1"`:                       "0100010000",
		`attributes.a != "1"`:                      "1011101111",
		`NOT attributes.a = "1"`:                   "1011101111",
		`-attributes:a AND attributes:b`:           "0000100000",
		`hasPrefix(attributes.a, "1")`:             "0101010000",
		`attributes.a = "2" OR attributes.b = "1"`: "0010110000",
		`attributes:a AND (attributes.b="1" OR attributes:c)`: "0000010000",
		`attributes.b = "x\"y"`:                               "0000001000",
		`attributes:x-y OR attributes:ü`:                      "0000000110",
	} {
		f, err := parseFilter(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got := ""
		for _, attributes := range filterCases {
			if f == nil || f(attributes) {
				got += "1"
			} else {
				got += "0"
			}
		}
		if got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	for _, bad := range []string{
		`attributes`, `attributes.a`, `attributes.a = 1`, `attributes.a == "1"`, `attributes:"a`, `a = "1"`, `(attributes:a`, `attributes:a)`,
		`attributes:a AND`, `attributes:a OR attributes:b AND attributes:c`, `hasPrefix(attributes.a)`, `hasPrefix(attributes.a, b)`, `attributes:a attributes:b`,
		`attributes:a and attributes:b`, `data = "x"`, `;`, strings.Repeat(`-`, 256) + `attributes:a`,
	} {
		if f, err := parseFilter(bad); err == nil {
			t.Errorf("%s: accepted, %v", bad, f(nil))
		}
	}
}

// No text crashes the parser, and what it accepts Google's fake accepts too.
func FuzzFilter(f *testing.F) {
	f.Add(`attributes:a AND (attributes.b="1" OR -attributes:c)`)
	f.Add(`hasPrefix(attributes."a", "x\"y")`)
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := parseFilter(text)
		if err != nil || parsed == nil {
			return
		}
		parsed(map[string]string{"a": "1"})
		if strings.IndexFunc(text, func(r rune) bool { return r > 0x7e || r == '\\' || r == '"' }) < 0 {
			if err := pstest.ValidateFilter(text); err != nil {
				t.Fatalf("%s: accepted, and by pstest: %v", text, err)
			}
		}
	})
}
