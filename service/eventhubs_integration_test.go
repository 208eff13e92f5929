//go:build integration

package service_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2/checkpoints"
	azcontainer "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	fake "github.com/millstream/millstream/fakes/eventhubs"
	"github.com/millstream/millstream/service"
)

// azuriteKey is the published key of every emulator.
const azuriteKey = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

// A run with its state in Azure Blob leaves checkpoints that the SDK's own store reads, whatever the
// prefix of the state.
func TestIntegrationMirror(t *testing.T) {
	endpoint := os.Getenv("MILLSTREAM_TEST_AZURITE")
	if endpoint == "" {
		if os.Getenv("MILLSTREAM_INTEGRATION") == "1" {
			t.Fatal("MILLSTREAM_TEST_AZURITE is not set")
		}
		t.Log("not run: MILLSTREAM_TEST_AZURITE is not set")
		return
	}
	connection := "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=" + azuriteKey + ";BlobEndpoint=" + endpoint + "/devstoreaccount1"
	name := fmt.Sprintf("millstream-mirror-%d", time.Now().UnixNano())
	client, err := azcontainer.NewClientFromConnectionString(connection, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Create(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
	server, err := fake.Start(t.Context(), fake.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	if err := server.CreateHub("pumps", 3); err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		if err := server.Publish("pumps", fmt.Sprint(i%2), "", []byte(`{"timestamp":1}`)); err != nil { // none in the third
			t.Fatal(err)
		}
	}
	s := settings(t, "--source", "eventhubs://plant/pumps?endpoint="+server.Endpoint(), "--until-end", "--name", "pumps",
		"--checkpoint", "azblob://"+name+"/some/prefix", "--dead-letter", t.TempDir())
	var log bytes.Buffer
	if err := service.RunQuery(t.Context(), s, &log); err != nil || !strings.Contains(log.String(), "records_in=30 contributed=30") {
		t.Fatalf("%v\n%s", err, log.String())
	}
	store, err := checkpoints.NewBlobStore(client, nil)
	if err != nil {
		t.Fatal(err)
	}
	found, err := store.ListCheckpoints(t.Context(), "plant", "pumps", "$default", nil)
	if err != nil || len(found) != 2 {
		t.Fatalf("%+v, %v", found, err)
	}
	for i, c := range found {
		events, err := server.Events("pumps", fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		if last := events[len(events)-1]; c.PartitionID != fmt.Sprint(i) || *c.SequenceNumber != last.Sequence || *c.Offset != last.Offset {
			t.Errorf("partition %s: %d at %s instead of %+v", c.PartitionID, *c.SequenceNumber, *c.Offset, last)
		}
	}
}

// A hub's partitions may be raised under a run: the merger lists them anew, and takes the new one into
// the roster.
func TestIntegrationRaised(t *testing.T) {
	server, err := fake.Start(t.Context(), fake.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	if err := server.CreateHub("pumps", 1); err != nil {
		t.Fatal(err)
	}
	if err := server.Publish("pumps", "0", "", []byte(`{"n":1}`)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := settings(t, "--source", "eventhubs://plant/pumps?endpoint="+server.Endpoint(), "--checkpoint", filepath.Join(dir, "state"),
		"--sink", filepath.Join(dir, "rows"), "--dead-letter", filepath.Join(dir, "dead"), "--checkpoint-every", "200ms")
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var log bytes.Buffer // read when the run has ended
	done := make(chan error, 1)
	go func() { done <- service.RunQuery(ctx, s, &log) }()
	arrives := func(row string) {
		t.Helper()
		for tick := time.NewTicker(50 * time.Millisecond); ; {
			names, _ := filepath.Glob(filepath.Join(dir, "rows", "*.ndjson"))
			for _, name := range names {
				if data, err := os.ReadFile(name); err == nil && strings.Contains(string(data), row) {
					return
				}
			}
			select {
			case <-tick.C:
			case err := <-done:
				t.Fatalf("ended before %s: %v\n%s", row, err, log.String())
			}
		}
	}
	arrives(`{"n":1}`)
	if err := server.Grow("pumps", 2); err != nil {
		t.Fatal(err)
	}
	if err := server.Publish("pumps", "1", "", []byte(`{"n":2}`)); err != nil {
		t.Fatal(err)
	}
	arrives(`{"n":2}`)
	stop()
	if err := <-done; err != nil || !strings.Contains(log.String(), "records_in=2 contributed=2") {
		t.Errorf("%v\n%s", err, log.String())
	}
}
