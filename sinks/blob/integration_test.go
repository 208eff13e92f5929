//go:build integration

package blob

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
	"github.com/millstream/millstream/sinks/sinktest"
)

// The suite against independent servers on this machine, which integration_test.go of package bucket
// says how to start.

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
func fresh() string { return fmt.Sprintf("millstream-sink-%d", time.Now().UnixNano()) }

// suite gives each case a prefix of its own.
func suite(t *testing.T, raw string) {
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
	n := 0
	sinktest.Run(t, func(t *testing.T) *sinktest.Destination {
		n++
		return destination(t, b, fmt.Sprintf("case %d/out/", n))
	})
}

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
	suite(t, "s3://"+name+"/some/prefix?endpoint="+url.QueryEscape(endpoint))
}

// azuriteKey is the published key of every emulator.
const azuriteKey = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

func TestIntegrationAzurite(t *testing.T) {
	endpoint := server(t, "MILLSTREAM_TEST_AZURITE")
	if endpoint == "" {
		return
	}
	connection := "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=" + azuriteKey +
		";BlobEndpoint=" + endpoint + "/devstoreaccount1"
	t.Setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
	name := fresh()
	client, err := container.NewClientFromConnectionString(connection, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Create(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	suite(t, "azblob://"+name+"/some/prefix")
}
