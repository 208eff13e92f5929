//go:build integration

package azuretables

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"github.com/millstream/millstream/enrich/enrichtest"
)

// azuriteKey is the published key of every emulator.
const azuriteKey = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

// azurite makes a table on an independent Table service, at MILLSTREAM_TEST_AZURITE_TABLE.
func azurite(t *testing.T) (Options, bool) {
	t.Helper()
	endpoint := os.Getenv("MILLSTREAM_TEST_AZURITE_TABLE")
	if endpoint == "" {
		if os.Getenv("MILLSTREAM_INTEGRATION") == "1" {
			t.Fatal("MILLSTREAM_TEST_AZURITE_TABLE is not set")
		}
		t.Log("not run: MILLSTREAM_TEST_AZURITE_TABLE is not set")
		return Options{}, false
	}
	o := Options{Table: fmt.Sprintf("users%d", time.Now().UnixNano()), Account: "devstoreaccount1", Key: azuriteKey,
		Endpoint: endpoint + "/devstoreaccount1"}
	if _, err := sdk(t, o).CreateTable(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return o, true
}

func TestIntegrationContract(t *testing.T) {
	if _, ok := azurite(t); !ok {
		return
	}
	for _, partition := range []string{"", "it's one"} {
		t.Run(partition, func(t *testing.T) {
			enrichtest.Run(t, func(t *testing.T) *enrichtest.Harness {
				o, _ := azurite(t)
				return harness(t, o, partition)
			})
		})
	}
}

// Every type of property as the SDK writes it.
func TestIntegrationTypes(t *testing.T) {
	o, ok := azurite(t)
	if !ok {
		return
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 123456700, time.UTC)
	text, err := json.Marshal(aztables.EDMEntity{Entity: aztables.Entity{PartitionKey: "p", RowKey: "it's"}, Properties: map[string]any{
		"long": aztables.EDMInt64(9223372036854775807), "int": int32(-7), "double": 0.1, "yes": true, "text": "<ä & 💥>\n",
		"guid": aztables.EDMGUID("c9da6455-213d-42c9-9a79-3e9149a57833"), "when": aztables.EDMDateTime(at), "bytes": aztables.EDMBinary{0, 255},
	}})
	if err != nil {
		t.Fatal(err)
	}
	// The SDK doubles quotes in keys of a body too, which the service would keep.
	text = []byte(strings.Replace(string(text), "it''s", "it's", 1))
	if _, err := sdk(t, o).AddEntity(t.Context(), text, nil); err != nil {
		t.Fatal(err)
	}
	o.Partition, o.Select = "p", []string{"RowKey", "long", "int", "double", "yes", "text", "guid", "when", "bytes", "absent"}
	table, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	want(t, ask(t, table, "it's", "its"), "it's", `{"RowKey":"it's","bytes":"AP8=","double":0.1,"guid":"c9da6455-213d-42c9-9a79-3e9149a57833",`+
		`"int":-7,"long":9223372036854775807,"text":"<ä & 💥>\n","when":"2026-01-02T03:04:05.1234567Z","yes":true}`)
	o.Table += "x"
	if _, err := New(t.Context(), o); err == nil || !strings.Contains(err.Error(), "TableNotFound") {
		t.Errorf("%v for a table that is not there", err)
	}
	o.Key = "AAAA"
	if _, err := New(t.Context(), o); err == nil || !strings.Contains(err.Error(), "access denied") {
		t.Errorf("%v for a wrong key", err)
	}
}
