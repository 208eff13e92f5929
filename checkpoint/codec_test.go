package checkpoint

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/stream"
)

// full is an entry with something in every place.
func full() *stream.Entry {
	return &stream.Entry{
		Kind: stream.KindCheckpoint, Owner: "m", Nonce: "n", Genesis: "g", Plan: plan, Base: 3, Elapsed: time.Second,
		Position: stream.Position{Token: "t", Number: 4}, Watermark: stream.Beginning, Idle: true, State: stream.CaughtUp,
		Snapshot: []stream.Blob{{Inline: []byte("snapshot"), Size: 8, Sum: 1<<64 - 1}, {Object: "objects/a/1", Size: 9, Sum: 2}},
		Frozen:   []stream.Frozen{{Start: 1, End: 2, Count: 3, Data: stream.Blob{Inline: []byte{}, Size: 0}}},
		Rows:     stream.Staged{Parts: []stream.Blob{{Inline: bytes.Repeat([]byte{0}, 1000), Size: 7}}, Count: 2},
		Dead:     stream.Staged{Parts: []stream.Blob{{Inline: []byte("dead"), Size: 7}}, Count: 1},
		Stagers:  []stream.StagedBy{{Sink: "bigquery", Token: []byte{1, 2}}},
		Ledger:   stream.Ledger{RecordsIn: 1, Late: 1}, SinkLosses: 5,
		Children: []stream.Partition{{Name: "b", Parents: []string{"a"}}}, LastWatermark: stream.EndOfTime, Lost: true,
		Merger: &stream.MergerEntry{Frontier: 1, Target: 2, Roster: []stream.RosterRow{{Partition: stream.Partition{Name: "a"}, Start: 3, Ended: true}}, Tip: "t", HeldSince: time.Unix(1, 2).UTC()},
	}
}

func TestEntryRoundTrip(t *testing.T) {
	for _, e := range []*stream.Entry{full(), {Kind: stream.KindClaim, Nonce: "n"}} {
		data, err := encodeEntry(e)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeEntry(data)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, e) {
			a, _ := json.Marshal(e)
			b, _ := json.Marshal(got)
			t.Errorf("in  %s\nout %s", a, b)
		}
	}
}

// TestEntryDamaged flips every byte and cuts the entry at every length.
func TestEntryDamaged(t *testing.T) {
	data, err := encodeEntry(full())
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 0x10
		if _, err := decodeEntry(bad); err == nil {
			t.Fatalf("byte %d of %d is flipped, and nobody notices", i, len(data))
		}
		if _, err := decodeEntry(data[:i]); err == nil {
			t.Fatalf("only %d of %d bytes, and nobody notices", i, len(data))
		}
	}
	if _, err := decodeEntry(append(bytes.Clone(data), 0)); err == nil {
		t.Fatal("a byte too many, and nobody notices")
	}
	data[3] = entryVersion + 1
	if _, err := decodeEntry(data); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Fatalf("an entry of a newer format: %v", err)
	}
}

// sealed adds the checksum that belongs to body, so that a fuzzer gets past it.
func sealed(body []byte) []byte {
	return binary.LittleEndian.AppendUint64(bytes.Clone(body), xxhash.Sum64(body))
}

func FuzzDecodeEntry(f *testing.F) {
	for _, e := range []*stream.Entry{full(), {Kind: stream.KindClaim, Nonce: "n"}} {
		data, err := encodeEntry(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data[:len(data)-entrySum])
	}
	f.Add([]byte("MSE\x01\xff\xff\xff\xff\xff\xff\xff\xff\x7f"))
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := decodeEntry(body); err == nil {
			return // not without its checksum
		}
		data := sealed(body)
		e, err := decodeEntry(data)
		if err != nil {
			return
		}
		again, err := encodeEntry(e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeEntry(again); err != nil {
			t.Fatalf("decoded once, but not twice: %v", err)
		}
	})
}

func FuzzUnpack(f *testing.F) {
	var p packer
	for _, from := range []bytesTo{nil, bytesTo("x"), bytes.Repeat([]byte{7}, 100_000), incompressible(1000)} {
		stored, size, err := p.pack(from)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(stored, size)
	}
	f.Fuzz(func(t *testing.T, stored []byte, size int64) {
		size %= 1 << 20
		data, err := p.unpack(stored, size)
		if err == nil && int64(len(data)) != size {
			t.Fatalf("%d bytes instead of %d", len(data), size)
		}
	})
}

// TestBomb makes sure that a few stored bytes cannot become more than their entry says.
func TestBomb(t *testing.T) {
	var p packer
	stored, _, err := p.pack(bytesTo(make([]byte, 64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.unpack(stored, 1000); err == nil { // the first one makes the decoder
		t.Fatal("64 MiB were unpacked as 1,000 bytes")
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := p.unpack(stored, 1000); err == nil {
		t.Fatal("64 MiB were unpacked as 1,000 bytes")
	}
	runtime.ReadMemStats(&after)
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 8<<20 {
		t.Errorf("%d bytes were allocated for a blob of 1,000", allocated)
	}
}

type failing struct{}

func (failing) WriteTo(w io.Writer) (int64, error) {
	n, _ := w.Write([]byte("some"))
	return int64(n), errStore
}

func TestObjects(t *testing.T) {
	b := newIll(bucket.Memory())
	s := open(t, config(b))
	o := mustClaim(t, s, "a/b")
	for _, size := range []int{0, 1, 1000, inlineMax / 2, 100 << 10} {
		want := incompressible(size)
		// A write whose answer is lost is found in its place.
		b.spoil(hide("create", "objects/", 1))
		blob, err := o.WriteObject(t.Context(), "rows", want)
		if err != nil {
			t.Fatal(err)
		}
		if (blob.Object == "") != (size <= inlineMax) {
			t.Errorf("%d bytes: %+v", size, blob.Object)
		}
		b.spoil(fail("get", "objects/", 2))
		for _, reader := range []*Store{s, open(t, config(b))} {
			if got, err := reader.readBlob(t.Context(), blob); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes: %d came back, %v", size, len(got), err)
			}
		}
		if blob.Object == "" {
			continue
		}
		if want := "objects/a%2Fb/00000000000000000001-000001-rows"; blob.Object != want {
			t.Errorf("the object is named %s, not %s", blob.Object, want)
		}
		data, err := b.Get(t.Context(), "p/"+blob.Object)
		if err != nil {
			t.Fatal(err)
		}
		data[50] ^= 1
		if err := b.Put(t.Context(), "p/"+blob.Object, data); err != nil {
			t.Fatal(err)
		}
		var damaged *Damaged
		if _, err := open(t, config(b)).readBlob(t.Context(), blob); !errors.As(err, &damaged) || damaged.Object != "p/"+blob.Object {
			t.Errorf("a damaged object: %v", err)
		}
	}
	if _, err := o.WriteObject(t.Context(), "rows", failing{}); !errors.Is(err, errStore) {
		t.Errorf("a writer that fails: %v", err)
	}
}

// TestSpill makes sure that frozen slices which wait for the frontier do not swell every entry.
func TestSpill(t *testing.T) {
	b := bucket.Memory()
	s := open(t, config(b))
	o := mustClaim(t, s, "a")
	var frozen []stream.Frozen
	for i := range 40 {
		blob, err := o.WriteObject(t.Context(), "slice", incompressible(20<<10+i))
		if err != nil {
			t.Fatal(err)
		}
		frozen = append(frozen, stream.Frozen{End: stream.Instant(i), Data: blob})
		e := checkpointAt(int64(i))
		e.Frozen = frozen
		if err := o.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		frozen = e.Frozen
		data, err := b.Get(t.Context(), "p/"+entryName("a", e.Number))
		if err != nil || len(data) > frozenInlineMax+20<<10 {
			t.Fatalf("entry %d has %d bytes, %v", e.Number, len(data), err)
		}
	}
	e, err := open(t, config(b)).read(t.Context(), "a", o.next-1)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range e.Frozen {
		if got, err := s.readBlob(t.Context(), f.Data); err != nil || !bytes.Equal(got, incompressible(20<<10+i)) {
			t.Errorf("slice %d: %v", i, err)
		}
	}
}
