package kinesis_test

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/millstream/millstream/fakes/kinesis"
)

// The same bytes as another implementation makes: npm aws-kinesis-agg 4.2.8 (AWS
// Labs), aggregate() of the same records.
func TestAggregate(t *testing.T) {
	const want = "f3899ac20a01610a01620a04636cc3a91a0708001a036f6e651a0708011a0374776f1a0408001a001a0608021a0200ffac7af98e9bac07e92f4582afca6bd198"
	got := kinesis.Aggregate([]kinesis.UserRecord{
		{PartitionKey: "a", Data: []byte("one")},
		{PartitionKey: "b", Data: []byte("two")},
		{PartitionKey: "a", Data: []byte{}},
		{PartitionKey: "clé", Data: []byte{0, 255}},
	})
	if hex.EncodeToString(got) != want {
		t.Errorf("got  %x\nwant %s", got, want)
	}
}

// Explicit hash keys have a table of their own, and are absent where there is
// none. (The library above numbers them from 1 when a record has none, which
// readers refuse.)
func TestAggregateHashKeys(t *testing.T) {
	blob := kinesis.Aggregate([]kinesis.UserRecord{
		{PartitionKey: "a", Data: []byte("one")},
		{PartitionKey: "b", ExplicitHashKey: "7", Data: []byte("two")},
		{PartitionKey: "b", ExplicitHashKey: "8", Data: []byte("three")},
		{PartitionKey: "c", ExplicitHashKey: "7", Data: []byte("four")},
	})
	body, sum := blob[4:len(blob)-16], blob[len(blob)-16:]
	if want := md5.Sum(body); !bytes.Equal(sum, want[:]) {
		t.Errorf("checksum %x, want %x", sum, want)
	}
	var keys, hashes, records []string
	fields(t, body, func(n protowire.Number, value []byte, _ uint64) {
		switch n {
		case 1:
			keys = append(keys, string(value))
		case 2:
			hashes = append(hashes, string(value))
		case 3:
			key, hash, data := "", "none", ""
			fields(t, value, func(n protowire.Number, value []byte, index uint64) {
				switch n {
				case 1:
					key = keys[index]
				case 2:
					hash = hashes[index]
				case 3:
					data = string(value)
				}
			})
			records = append(records, key+" "+hash+" "+data)
		}
	})
	want := []string{"a none one", "b 7 two", "b 8 three", "c 7 four"}
	if len(records) != len(want) || len(keys) != 3 || len(hashes) != 2 {
		t.Fatalf("keys %v, hash keys %v, records %v", keys, hashes, records)
	}
	for i := range want {
		if records[i] != want[i] {
			t.Errorf("record %d is %q, want %q", i, records[i], want[i])
		}
	}
}

// fields calls f for each field of a message with its bytes or its number.
func fields(t *testing.T, message []byte, f func(protowire.Number, []byte, uint64)) {
	t.Helper()
	for len(message) > 0 {
		n, kind, size := protowire.ConsumeTag(message)
		if size < 0 {
			t.Fatal(protowire.ParseError(size))
		}
		message = message[size:]
		var value []byte
		var number uint64
		if kind == protowire.VarintType {
			number, size = protowire.ConsumeVarint(message)
		} else {
			value, size = protowire.ConsumeBytes(message)
		}
		if size < 0 {
			t.Fatal(protowire.ParseError(size))
		}
		message = message[size:]
		f(n, value, number)
	}
}
