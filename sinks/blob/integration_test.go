//go:build integration

package blob

import (
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/sinks/sinktest"
	"github.com/millstream/millstream/stream"
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
	t.Run("Large", func(t *testing.T) { large(t, b) })
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

// large delivers a file of many requests, twice, and once with other rows.
func large(t *testing.T, b bucket.Bucket) {
	t.Helper()
	s, err := Open(b, "large/", Options{})
	if err != nil {
		t.Fatal(err)
	}
	rows := make([]stream.Row, 400)
	for i := range rows {
		rows[i].Data = fmt.Appendf(nil, `{"n":%d,"pad":"%060000d"}`, i, i)
	}
	for range 2 {
		if err := s.Write(t.Context(), idOf(7), s.Layout(), partsOf(rows[:200], rows[200:])); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Write(t.Context(), idOf(7), s.Layout(), partsOf(rows[:399])); err == nil || !strings.Contains(err.Error(), "holds bytes that are not") {
		t.Error(err)
	}
	infos, err := b.Objects(t.Context(), "large/")
	if err != nil || len(infos) != 1 || infos[0].Size < 24_000_000 {
		t.Errorf("%+v, %v", infos, err)
	}
}
