//go:build integration

package bucket_test

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
	"github.com/millstream/millstream/bucket/buckettest"
)

// The suite against independent servers on this machine:
//
//	ROOT_ACCESS_KEY=test ROOT_SECRET_KEY=testtest versitygw --port 127.0.0.1:7070 posix DIR
//	azurite-blob --blobHost 127.0.0.1 --blobPort 10000 --inMemoryPersistence --skipApiVersionCheck --silent
//	MILLSTREAM_INTEGRATION=1 MILLSTREAM_TEST_S3_ENDPOINT=http://127.0.0.1:7070 \
//	  MILLSTREAM_TEST_AZURITE=http://127.0.0.1:10000 go test -tags integration ./bucket

// server returns the address of a server, "" when there is none and none is demanded.
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

// fresh is a bucket's name that no earlier run has used.
func fresh() string { return fmt.Sprintf("millstream-%d", time.Now().UnixNano()) }

func TestIntegrationVersityGateway(t *testing.T) {
	endpoint := server(t, "MILLSTREAM_TEST_S3_ENDPOINT")
	if endpoint == "" {
		return
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "testtest")
	name := fresh()
	client := s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(endpoint), UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider("test", "testtest", ""),
	})
	if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatal(err)
	}
	buckettest.Run(t, open(t, "s3://"+name+"/some/prefix?endpoint="+url.QueryEscape(endpoint)))
	missing(t, "s3://"+fresh()+"?endpoint="+endpoint, "NoSuchBucket")
}

// azuriteKey is the published key of every emulator.
const azuriteKey = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

func TestIntegrationAzurite(t *testing.T) {
	noAzure(t)
	endpoint := server(t, "MILLSTREAM_TEST_AZURITE")
	if endpoint == "" {
		return
	}
	endpoint += "/devstoreaccount1"
	connection := "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=" + azuriteKey + ";BlobEndpoint=" + endpoint
	name := fresh()
	client, err := container.NewClientFromConnectionString(connection, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Create(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	t.Run("ConnectionString", func(t *testing.T) {
		t.Setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
		buckettest.Run(t, open(t, "azblob://"+name+"/some/prefix"))
		missing(t, "azblob://"+fresh(), "ContainerNotFound")
	})
	t.Run("Key", func(t *testing.T) {
		t.Setenv("AZURE_STORAGE_KEY", azuriteKey)
		if err := bucket.Check(t.Context(), open(t, "azblob://"+name+"?account=devstoreaccount1&endpoint="+endpoint)); err != nil {
			t.Error(err)
		}
	})
}

// missing: a bucket that is not there is no empty one.
func missing(t *testing.T, raw, code string) {
	t.Helper()
	b := open(t, raw)
	_, getErr := b.Get(t.Context(), "a")
	_, listErr := b.List(t.Context(), "a")
	for op, err := range map[string]error{"Get": getErr, "List": listErr, "Create": b.Create(t.Context(), "a", nil)} {
		if want := "a: " + code; err == nil || len(err.Error()) < len(want) || err.Error()[:len(want)] != want {
			t.Errorf("%s of a missing bucket returned %v, want %s", op, err, want)
		}
	}
}
