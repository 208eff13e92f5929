package bucket_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/fsouza/fake-gcs-server/fakestorage"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/bucket/buckettest"
)

func open(t *testing.T, raw string) bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestMemory(t *testing.T) { buckettest.Run(t, open(t, "mem:")) }

func TestFolder(t *testing.T) { buckettest.Run(t, open(t, "file://"+t.TempDir())) }

// fakeS3 serves a bucket named "b" and returns its endpoint.
func fakeS3(t *testing.T) string {
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	backend := s3mem.New()
	if err := backend.CreateBucket("b"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(gofakes3.New(backend, gofakes3.WithoutVersioning()).Server())
	t.Cleanup(server.Close)
	return server.URL
}

func TestS3(t *testing.T) {
	buckettest.Run(t, open(t, "s3://b/some/prefix?region=eu-west-1&endpoint="+url.QueryEscape(fakeS3(t))))
}

// TestS3Bundle sets what makes the SDK refuse a plain http.Client.
func TestS3Bundle(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	endpoint := fakeS3(t)
	t.Setenv("AWS_CA_BUNDLE", writeFile(t, filepath.Join(t.TempDir(), "ca.pem"), pemOf(server.Certificate())))
	if err := bucket.Check(t.Context(), open(t, "s3://b?endpoint="+endpoint)); err != nil {
		t.Error(err)
	}
}

func fakeGCS(t *testing.T) string {
	server, err := fakestorage.NewServerWithOptions(fakestorage.Options{Scheme: "http", Host: "127.0.0.1", PublicHost: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	server.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: "b"})
	return server.URL()
}

func TestGCS(t *testing.T) {
	buckettest.Run(t, open(t, "gs://b/some/prefix?endpoint="+url.QueryEscape(fakeGCS(t))))
}

func TestGCSEmulatorHost(t *testing.T) {
	endpoint, err := url.Parse(fakeGCS(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("STORAGE_EMULATOR_HOST", endpoint.Host)
	if err := bucket.Check(t.Context(), open(t, "gs://b")); err != nil {
		t.Error(err)
	}
}

// TestPrefix: what a bucket holds elsewhere is neither listed nor reached.
func TestPrefix(t *testing.T) {
	endpoint := fakeS3(t)
	outer, inner := open(t, "s3://b/?endpoint="+endpoint), open(t, "s3://b/in/side/?endpoint="+endpoint)
	for name, b := range map[string]bucket.Bucket{"in/side/a": outer, "b": inner, "in/sideways": outer} {
		if err := b.Create(t.Context(), name, []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	names, err := inner.List(t.Context(), "")
	if err != nil || len(names) != 2 || names[0] != "a" || names[1] != "b" {
		t.Errorf("listed %q, %v", names, err)
	}
	if data, err := outer.Get(t.Context(), "in/side/b"); err != nil || string(data) != "b" {
		t.Errorf("read %q, %v", data, err)
	}
	if inner.URL() != "s3://b/in/side" || outer.URL() != "s3://b" {
		t.Errorf("URLs are %s and %s", inner.URL(), outer.URL())
	}
}
