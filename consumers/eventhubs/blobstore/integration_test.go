//go:build integration

package blobstore

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	azcontainer "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/millstream/millstream/bucket"
)

// azuriteKey is the published key of every emulator.
const azuriteKey = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

// Checkpoints on an independent Azure Blob server, written by the requests that the SDK's checkpoint
// store sends: an upload of nothing with metadata.
func TestIntegrationAzurite(t *testing.T) {
	endpoint := os.Getenv("MILLSTREAM_TEST_AZURITE")
	if endpoint == "" {
		if os.Getenv("MILLSTREAM_INTEGRATION") == "1" {
			t.Fatal("MILLSTREAM_TEST_AZURITE is not set")
		}
		t.Log("not run: MILLSTREAM_TEST_AZURITE is not set")
		return
	}
	connection := "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=" + azuriteKey + ";BlobEndpoint=" + endpoint + "/devstoreaccount1"
	name := fmt.Sprintf("millstream-%d", time.Now().UnixNano())
	client, err := azcontainer.NewClientFromConnectionString(connection, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Create(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	upload := func(path string, b blob) {
		t.Helper()
		meta := make(map[string]*string, len(b.meta))
		for k, v := range b.meta {
			meta[k] = &v
		}
		if _, err := client.NewBlockBlobClient(path).UploadBuffer(t.Context(), []byte(b.body), &blockblob.UploadBufferOptions{Metadata: meta}); err != nil {
			t.Fatal(err)
		}
	}
	upload(group+"/checkpoint/0", sdk("100", 7))
	upload(group+"/checkpoint/1", sdk("1:2:0", 8))
	upload(group+"/ownership/0", owned("me"))
	upload(group+"/2", functions("2", `"300"`, 9))
	t.Setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
	b, err := bucket.Open(t.Context(), "azblob://"+name)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	g, err := Read(t.Context(), b.(Store), "")
	if err != nil {
		t.Fatal(err)
	}
	if want := "0 100/7, 1 1:2:0/8, 2 300/9"; show(g) != want || g.Name != group {
		t.Errorf("got %s %s, want %s", g.Name, show(g), want)
	}
	upload(group+"/ownership/0", owned("me"))
	again, err := Read(t.Context(), b.(Store), "")
	if err != nil || again.State == g.State {
		t.Errorf("a renewed ownership is not seen (%v)", err)
	}
}
