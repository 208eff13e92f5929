package objects

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/klauspost/compress/zstd"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/consumers"
	"github.com/millstream/millstream/consumers/consumertest"
)

// shelf puts objects into lanes of a bucket.
type shelf struct {
	bucket.Bucket
	lanes, count int
}

// put writes an object of a lane; names grow.
func (s *shelf) put(ctx context.Context, lane int, suffix string, data []byte) (string, error) {
	for probe := (&Source{o: Options{Lanes: s.lanes}}); ; {
		s.count++
		name := fmt.Sprintf("in/%08d%s", s.count, suffix)
		if probe.laneOf(name) == lane {
			return name, s.Create(ctx, name, data)
		}
	}
}

// kept is a bucket that several sources share.
type kept struct{ bucket.Bucket }

func (kept) Close() error { return nil }

func packed(t testing.TB, suffix string, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	switch {
	case strings.HasSuffix(strings.ToLower(suffix), ".gz"):
		w := gzip.NewWriter(&out)
		if _, err := w.Write(data); err != nil || w.Close() != nil {
			t.Fatal(err)
		}
	case strings.HasSuffix(strings.ToLower(suffix), ".zst"):
		w, err := zstd.NewWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil || w.Close() != nil {
			t.Fatal(err)
		}
	default:
		return data
	}
	return out.Bytes()
}

// lanesOf is a stream of two lanes in a bucket, each Publish a new object of the partition.
func lanesOf(t *testing.T, b bucket.Bucket, suffix string) *consumertest.Stream {
	t.Helper()
	sh := &shelf{Bucket: b, lanes: 2}
	open := func(untilEnd bool) (consumers.Source, error) {
		return New(t.Context(), Options{Bucket: kept{b}, Lanes: 2, Watch: time.Second, UntilEnd: untilEnd})
	}
	s, err := open(false)
	if err != nil {
		t.Fatal(err)
	}
	return &consumertest.Stream{
		Source: s,
		Publish: func(partition string, data ...[]byte) error {
			lane, err := strconv.Atoi(strings.TrimPrefix(partition, "lane-"))
			if err == nil {
				_, err = sh.put(t.Context(), lane, suffix, packed(t, suffix, append(bytes.Join(data, []byte("\n")), '\n')))
			}
			return err
		},
		Again:   func() (consumers.Source, error) { return open(false) },
		Bounded: func() (consumers.Source, error) { return open(true) },
		Missing: "lane-002",
		Largest: MaxRecord,
	}
}

// TestSuite holds the driver to its contract.
func TestSuite(t *testing.T) {
	for _, suffix := range []string{".ndjson", ".jsonl.gz", ".ndjson.zst"} {
		t.Run(suffix, func(t *testing.T) {
			consumertest.RunVirtual(t, func(t *testing.T) *consumertest.Stream { return lanesOf(t, bucket.Memory(), suffix) })
		})
	}
	t.Run("folder", func(t *testing.T) {
		consumertest.Run(t, func(t *testing.T) *consumertest.Stream {
			b, err := bucket.Folder(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			return lanesOf(t, b, ".ndjson")
		})
	})
	t.Run("s3", func(t *testing.T) {
		t.Setenv("AWS_ACCESS_KEY_ID", "test")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "testtest")
		consumertest.Run(t, func(t *testing.T) *consumertest.Stream {
			backend := s3mem.New()
			if err := backend.CreateBucket("files"); err != nil {
				t.Fatal(err)
			}
			server := httptest.NewServer(gofakes3.New(backend).Server())
			t.Cleanup(server.Close)
			b, err := bucket.Open(t.Context(), "s3://files/raw?region=us-east-1&endpoint="+server.URL)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { b.Close() })
			return lanesOf(t, b, ".jsonl.gz")
		})
	})
}
