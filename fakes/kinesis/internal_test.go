package kinesis

import (
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// The hand-written decimal digits are those of math/big, and the fields come back.
func FuzzSequence(f *testing.F) {
	f.Add(int64(1_700_000_000), 0, uint64(1))
	f.Add(int64(1<<36-1), 1<<31-1, uint64(endCounter))
	f.Add(int64(0), 15, uint64(1<<48))
	f.Fuzz(func(t *testing.T, second int64, index int, n uint64) {
		second &= createdMask
		index &= 1<<31 - 1
		s := newSequence(second, index).at(n)
		text := s.String()
		want := new(big.Int).SetUint64(s.hi)
		want.Lsh(want, 64).Add(want, new(big.Int).SetUint64(s.mid))
		want.Lsh(want, 64).Add(want, new(big.Int).SetUint64(s.lo))
		if text != want.String() {
			t.Errorf("wrote %s for %s", text, want)
		}
		back, ok := parseSequence(text)
		if !ok || back != s || back.counter() != n || back.shard() != index || back.created() != second {
			t.Errorf("%s read back as %+v, %v", text, back, ok)
		}
	})
}

// Whatever the body, the answer is a reply or an error of the protocol; nothing
// panics, and nothing a client sends is the server's own failure.
func FuzzRequest(f *testing.F) {
	server := New(Options{MaxBytes: 1 << 20, ShardLimit: 20})
	if err := server.CreateStream("s", 2); err != nil {
		f.Fatal(err)
	}
	st, err := server.stream("s")
	if err != nil {
		f.Fatal(err)
	}
	good := string(server.iterator(st.shards[0], 1).append(nil))
	token := nextToken{Stream: st.id, After: 0}.String()
	var names []string
	for name := range operations {
		if name != "SubscribeToShard" { // waits
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for i := range names {
		for _, body := range []string{
			`{"StreamName":"s"}`, `{"StreamARN":"arn:aws:kinesis:r:0:stream/s","ConsumerName":"c"}`, `{"ShardIterator":"` + good + `"}`,
			`{"NextToken":"` + token + `"}`, `{"StreamName":"s","PartitionKey":"k","Data":"eA==","ExplicitHashKey":"7"}`,
			`{"StreamName":"s","Records":[{"PartitionKey":"k","Data":"eA=="},{}]}`,
			`{"StreamName":"s","ShardToSplit":"shardId-000000000000","NewStartingHashKey":"99"}`,
			`{"StreamName":"s","ShardToMerge":"0","AdjacentShardToMerge":"1"}`,
			`{"StreamName":"s","ShardId":"0","ShardIteratorType":"AT_SEQUENCE_NUMBER","StartingSequenceNumber":"49"}`,
			`{"StreamName":"s","ShardFilter":{"Type":"AT_TIMESTAMP","Timestamp":1e9}}`, `{"StreamName":"s","TargetShardCount":3,"ScalingType":"UNIFORM_SCALING"}`,
		} {
			f.Add(uint(i), body)
		}
	}
	f.Fuzz(func(t *testing.T, operation uint, body string) {
		name := names[operation%uint(len(names))]
		r := httptest.NewRequest("POST", "/", strings.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		r.Header.Set("X-Amz-Target", target+name)
		w := httptest.NewRecorder()
		server.ServeHTTP(w, r)
		if w.Code != http.StatusOK && w.Code != http.StatusBadRequest {
			t.Errorf("%s of %q: %d %s", name, body, w.Code, w.Body)
		}
		if _, err := server.stream("s"); err != nil { // deleted by this call
			if err := server.CreateStream("s", 2); err != nil {
				t.Fatal(err)
			}
		}
		for _, st := range server.streams {
			if err := st.covered(); err != nil {
				t.Fatalf("after %s of %q: %v", name, body, err)
			}
			if st.bytes.Load() > 1<<20 {
				t.Fatalf("%d bytes held", st.bytes.Load())
			}
		}
	})
}

// Iterators are opaque: any change makes one invalid.
func TestIteratorIsChecked(t *testing.T) {
	it := iterator{stream: 7, shard: 3, epoch: 1, issued: 99, next: 1 << 40}
	text := it.append(nil)
	if back, ok := parseIterator(string(text)); !ok || back != it {
		t.Fatalf("%+v read back as %+v, %v", it, back, ok)
	}
	for i := range text {
		changed := append([]byte(nil), text...)
		changed[i] ^= 1
		if _, ok := parseIterator(string(changed)); ok {
			t.Errorf("byte %d may be changed", i)
		}
	}
}

// Scaling to any count leaves equal ranges that cover every hash key.
func TestRescale(t *testing.T) {
	for from := 1; from <= 9; from++ {
		for to := (from + 1) / 2; to <= 2*from; to++ {
			server := New(Options{})
			if err := server.CreateStream("s", from); err != nil {
				t.Fatal(err)
			}
			st, err := server.stream("s")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := server.rescale(st, to); err != nil {
				t.Fatalf("%d to %d: %v", from, to, err)
			}
			starts := boundaries(to)
			if len(st.open) != to || st.covered() != nil {
				t.Fatalf("%d to %d: %d shards, %v", from, to, len(st.open), st.covered())
			}
			for i, sh := range st.open {
				if sh.lo != starts[i] {
					t.Errorf("%d to %d: shard %d starts at %s, want %s", from, to, i, sh.lo, starts[i])
				}
			}
			for _, sh := range st.shards {
				if !sh.isClosed() == (len(sh.children) > 0) {
					t.Errorf("%d to %d: %s is closed: %v, and has %d children", from, to, sh.id, sh.isClosed(), len(sh.children))
				}
			}
		}
	}
}
