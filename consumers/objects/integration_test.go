//go:build integration

package objects

import (
	"fmt"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/consumers/consumertest"
	"github.com/millstream/millstream/stream"
)

// server returns the address of a server, "" when there is none and none is demanded. See package bucket's
// for how they are started.
func server(t *testing.T, variable string) string {
	t.Helper()
	address := os.Getenv(variable)
	switch {
	case address != "":
	case os.Getenv("MILLSTREAM_INTEGRATION") == "1":
		t.Fatalf("%s is not set", variable)
	default:
		t.Logf("not run: %s is not set", variable)
	}
	return address
}

// azuriteKey is the published key of every emulator.
const azuriteKey = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

func TestIntegrationVersityGateway(t *testing.T) {
	endpoint := server(t, "MILLSTREAM_TEST_S3_ENDPOINT")
	if endpoint == "" {
		return
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "testtest")
	client := s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(endpoint), UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider("test", "testtest", ""),
	})
	overServer(t, func(name string) (string, error) {
		_, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name})
		return "s3://" + name + "/raw?region=us-east-1&endpoint=" + url.QueryEscape(endpoint), err
	})
}

func TestIntegrationAzurite(t *testing.T) {
	endpoint := server(t, "MILLSTREAM_TEST_AZURITE")
	if endpoint == "" {
		return
	}
	connection := "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=" + azuriteKey + ";BlobEndpoint=" + endpoint + "/devstoreaccount1"
	t.Setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
	overServer(t, func(name string) (string, error) {
		client, err := container.NewClientFromConnectionString(connection, name, nil)
		if err == nil {
			_, err = client.Create(t.Context(), nil)
		}
		return "azblob://" + name + "/raw", err
	})
}

// overServer runs the suite, and reads and resumes every kind of content, in buckets that make makes.
func overServer(t *testing.T, make func(name string) (string, error)) {
	fresh := func(t *testing.T) bucket.Bucket {
		at, err := make(fmt.Sprintf("millstream-%d", time.Now().UnixNano()))
		if err != nil {
			t.Fatal(err)
		}
		b, err := bucket.Open(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		return b
	}
	for _, suffix := range []string{".ndjson", ".ndjson.zst"} {
		t.Run(suffix, func(t *testing.T) {
			consumertest.Run(t, func(t *testing.T) *consumertest.Stream { return lanesOf(t, fresh(t), suffix) })
		})
	}
	t.Run("contents", func(t *testing.T) { resumesEverywhere(t, fresh(t)) })
	t.Run("changed", func(t *testing.T) {
		b := fresh(t)
		create(t, b, "in/a.ndjson", "1\n2\n")
		create(t, b, "in/b.ndjson", "3\n4\n")
		_, at := read(t, open(t, b, Options{}), stream.Position{})
		put(t, b, "in/a.ndjson", "5\n6\n") // as long as before
		put(t, b, "in/b.ndjson", "7\n8\n")
		s := open(t, b, Options{})
		if got, _ := read(t, s, at[2]); len(got) != 1 || got[0] != "!"+ReasonChanged+":" || s.Changed() != 2 {
			t.Errorf("%q, %d changed", got, s.Changed())
		}
	})
}
