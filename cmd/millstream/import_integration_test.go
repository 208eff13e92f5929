//go:build integration

package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2/checkpoints"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/millstream/millstream/fakes/eventhubs"
)

// The checkpoints of an Event Hubs processor and of an old Functions app, in one container of azurite,
// become pipelines whose state is in the same account.
func TestIntegrationImportEventHubs(t *testing.T) {
	at := azurite(t)
	name, _, _ := strings.Cut(strings.TrimPrefix(at.url(""), "azblob://"), "/")
	client, err := container.NewClientFromConnectionString(os.Getenv("AZURE_STORAGE_CONNECTION_STRING"), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	upload := func(path, body string, meta map[string]*string) {
		t.Helper()
		if _, err := client.NewBlockBlobClient(path).UploadBuffer(t.Context(), []byte(body), &blockblob.UploadBufferOptions{Metadata: meta}); err != nil {
			t.Fatal(err)
		}
	}
	text := func(s string) *string { return &s }
	const sdk, old = "ns.servicebus.windows.net/orders/$default", "ns.servicebus.windows.net/orders/functions"
	upload(sdk+"/checkpoint/0", "", map[string]*string{"offset": text("1200"), "sequencenumber": text("30")})
	upload(sdk+"/checkpoint/1", "", map[string]*string{"offset": text("900"), "sequencenumber": text("22")})
	upload(sdk+"/ownership/2", "", map[string]*string{"ownerid": text("processor")})
	upload(old+"/0", `{"Offset":"700","SequenceNumber":11,"PartitionId":"0","Owner":"host","Token":"1","Epoch":3}`, nil)

	l := launch{env: at.env}
	args := []string{"checkpoints", "import", "--from", "azblob://" + name, "--checkpoint", at.url("state"), "--name", "orders", "--lease", "1s"}
	l.start(t, args...).fails(1, "checkpoints of several consumer groups: add group=NAMESPACE/HUB/CONSUMER-GROUP, one of "+sdk+", "+old)
	args[3] += "?group=" + sdk
	dry := l.start(t, args...).succeeds()
	dry.says(dry.stdout.String(), "0          behind offset 1200, sequence number 30\n1          behind offset 900, sequence number 22\n",
		"without a checkpoint, and so read from where start= of --source says: 2", "Nothing is written")
	l.start(t, append(args, "--apply")...).succeeds()
	shown := l.start(t, "checkpoints", "show", "_merger", "1", "--checkpoint", at.url("state"), "--name", "orders").succeeds()
	shown.says(shown.stdout.String(), `"kind": "import"`, `"token": "1200"`, `"number": 30`)
	said := l.start(t, "explain", "--checkpoint", at.url("state"), "--name", "orders").succeeds()
	said.says(said.stdout.String(), "was imported from azblob://"+name+" and was never run")

	functions := l.start(t, "checkpoints", "import", "--from", "azblob://"+name+"?group="+old, "--checkpoint", at.url("state"), "--name", "functions").succeeds()
	functions.says(functions.stdout.String(), "0          behind offset 700, sequence number 11\n")
}

// A program on the Go SDK's checkpoint store is moved: the pipeline reads every event behind its
// checkpoints, once, and nothing before them.
func TestIntegrationMoveFromEventHubsSDK(t *testing.T) {
	server, err := eventhubs.Start(t.Context(), eventhubs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	if err := server.CreateHub("orders", 3); err != nil {
		t.Fatal(err)
	}
	at := azurite(t)
	name, _, _ := strings.Cut(strings.TrimPrefix(at.url(""), "azblob://"), "/")
	client, err := container.NewClientFromConnectionString(os.Getenv("AZURE_STORAGE_CONNECTION_STRING"), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	store, err := checkpoints.NewBlobStore(client, nil)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for partition, checkpoint := range []int{3, 9, -1} { // the last one has none
		id := strconv.Itoa(partition)
		for i := range 10 {
			line := fmt.Sprintf(`{"p":%d,"i":%d}`, partition, i)
			if err := server.Publish("orders", id, "", []byte(line)); err != nil {
				t.Fatal(err)
			}
			if i > checkpoint {
				want = append(want, line)
			}
		}
		if checkpoint < 0 {
			continue
		}
		events, err := server.Events("orders", id)
		if err != nil {
			t.Fatal(err)
		}
		last := events[checkpoint]
		if err := store.SetCheckpoint(t.Context(), azeventhubs.Checkpoint{FullyQualifiedNamespace: "plant", EventHubName: "orders", ConsumerGroup: "$Default",
			PartitionID: id, Offset: &last.Offset, SequenceNumber: &last.Sequence}, nil); err != nil {
			t.Fatal(err)
		}
	}
	l := launch{dir: t.TempDir(), env: at.env}
	l.start(t, "checkpoints", "import", "--from", "azblob://"+name, "--checkpoint", at.url("state"), "--name", "orders", "--lease", "1s", "--apply").succeeds()
	run := l.start(t, "run", "--source", "eventhubs://plant/orders?endpoint="+server.Endpoint(), "--checkpoint", at.url("state"), "--name", "orders",
		"--sink", "stdout:", "--until-end", "--log-format", "json").succeeds()
	if n := run.ledger(); n.RecordsIn != int64(len(want)) || n.Contributed != int64(len(want)) {
		t.Errorf("ledger %+v instead of %d", n, len(want))
	}
	got := strings.Split(strings.TrimSpace(run.stdout.String()), "\n")
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if strings.Contains(run.stderr.String(), "events behind the saved position are gone") {
		t.Errorf("says that events are missing:\n%s", run.stderr.String())
	}
}
