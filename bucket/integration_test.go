//go:build integration

package bucket_test

import (
	"crypto/rand"
	"os"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/bucket/buckettest"
)

func variable(t *testing.T, name, what string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set: it is the endpoint of %s", name, what)
	}
	return value
}

// independent runs the suite, and races for more names than the suite does, over a server of which
// this project wrote neither side.
func independent(t *testing.T, b bucket.Bucket) {
	buckettest.Run(t, b)
	t.Run("Races", func(t *testing.T) {
		if err := buckettest.Race(t.Context(), b, "races/", 8, 300); err != nil {
			t.Error(err)
		}
	})
}

// TestIntegrationS3 runs over versitygw, started with access key "test" and secret key "testtest".
func TestIntegrationS3(t *testing.T) {
	endpoint := variable(t, "MILLSTREAM_TEST_S3_ENDPOINT", "versitygw")
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "testtest")
	name := "millstream-" + strings.ToLower(rand.Text())
	cfg, err := config.LoadDefaultConfig(t.Context(), config.WithHTTPClient(awshttp.NewBuildableClient()), config.WithRegion("us-east-1"))
	if err != nil {
		t.Fatal(err)
	}
	client := s3.NewFromConfig(cfg, func(o *s3.Options) { o.BaseEndpoint, o.UsePathStyle = aws.String(endpoint), true })
	if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String(name)}); err != nil {
		t.Fatal(err)
	}
	independent(t, open(t, "s3://"+name+"/some/prefix?endpoint="+endpoint))

	missing := bucket.Check(t.Context(), open(t, "s3://"+name+"-x?endpoint="+endpoint))
	if missing == nil || !strings.Contains(missing.Error(), "NoSuchBucket") || strings.Contains(missing.Error(), "\n") {
		t.Errorf("a missing bucket: %v", missing)
	}
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
	denied := bucket.Check(t.Context(), open(t, "s3://"+name+"?endpoint="+endpoint))
	if denied == nil || !strings.Contains(denied.Error(), "SignatureDoesNotMatch") || strings.Contains(denied.Error(), "\n") || strings.Contains(denied.Error(), "hunter2") {
		t.Errorf("a wrong key: %v", denied)
	}
}

// azuriteKey is the key of the emulators' account, the same everywhere
// (https://learn.microsoft.com/azure/storage/common/storage-use-azurite).
const azuriteKey = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

// TestIntegrationAzure runs over azurite with its default account.
func TestIntegrationAzure(t *testing.T) {
	endpoint := strings.TrimSuffix(variable(t, "MILLSTREAM_TEST_AZURITE", "azurite's blob service"), "/") + "/devstoreaccount1"
	noAzure(t)
	text := "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=" + azuriteKey + ";BlobEndpoint=" + endpoint
	t.Setenv("AZURE_STORAGE_CONNECTION_STRING", text)
	name := "millstream-" + strings.ToLower(rand.Text())
	client, err := container.NewClientFromConnectionString(text, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Create(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	independent(t, open(t, "azblob://"+name+"/some/prefix"))

	missing := bucket.Check(t.Context(), open(t, "azblob://"+name+"-x"))
	if missing == nil || !strings.Contains(missing.Error(), "ContainerNotFound (HTTP 404)") || strings.Contains(missing.Error(), "\n") {
		t.Errorf("a missing container: %v", missing)
	}

	// The same account by key, without a connection string.
	noAzure(t)
	t.Setenv("AZURE_STORAGE_KEY", azuriteKey)
	if err := bucket.Check(t.Context(), open(t, "azblob://"+name+"/by-key?account=devstoreaccount1&endpoint="+endpoint)); err != nil {
		t.Error(err)
	}
	t.Setenv("AZURE_STORAGE_KEY", "aHVudGVyMg==")
	denied := bucket.Check(t.Context(), open(t, "azblob://"+name+"?account=devstoreaccount1&endpoint="+endpoint))
	if denied == nil || !strings.Contains(denied.Error(), "HTTP 403") || strings.Contains(denied.Error(), "\n") {
		t.Errorf("a wrong key: %v", denied)
	}
}
