//go:build integration

package dynamodb

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	awsdynamodb "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	cloud "github.com/millstream/millstream/cloud/aws"
	"github.com/millstream/millstream/enrich/enrichtest"
)

// dynalite connects to an independent DynamoDB, at MILLSTREAM_TEST_DYNALITE.
func dynalite(t *testing.T) *awsdynamodb.Client {
	t.Helper()
	endpoint := os.Getenv("MILLSTREAM_TEST_DYNALITE")
	if endpoint == "" {
		if os.Getenv("MILLSTREAM_INTEGRATION") == "1" {
			t.Fatal("MILLSTREAM_TEST_DYNALITE is not set")
		}
		t.Log("not run: MILLSTREAM_TEST_DYNALITE is not set")
		return nil
	}
	c, err := cloud.Load(t.Context(), cloud.Options{Endpoint: endpoint})
	if err != nil {
		t.Fatal(err)
	}
	return awsdynamodb.NewFromConfig(c)
}

// made makes a table of attributes and types, the partition key first, and removes it at the end.
func made(t *testing.T, client *awsdynamodb.Client, keys ...string) string {
	t.Helper()
	name := fmt.Sprintf("users-%d", time.Now().UnixNano())
	in := &awsdynamodb.CreateTableInput{TableName: &name, BillingMode: types.BillingModePayPerRequest}
	for i := 0; i < len(keys); i += 2 {
		role := types.KeyTypeHash
		if i > 0 {
			role = types.KeyTypeRange
		}
		in.KeySchema = append(in.KeySchema, types.KeySchemaElement{AttributeName: &keys[i], KeyType: role})
		in.AttributeDefinitions = append(in.AttributeDefinitions, types.AttributeDefinition{AttributeName: &keys[i], AttributeType: types.ScalarAttributeType(keys[i+1])})
	}
	if _, err := client.CreateTable(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = client.DeleteTable(context.WithoutCancel(t.Context()), &awsdynamodb.DeleteTableInput{TableName: &name})
	})
	waiter := awsdynamodb.NewTableExistsWaiter(client, func(o *awsdynamodb.TableExistsWaiterOptions) {
		o.MinDelay, o.MaxDelay = 50*time.Millisecond, 50*time.Millisecond
	})
	if err := waiter.Wait(t.Context(), &awsdynamodb.DescribeTableInput{TableName: &name}, time.Minute); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestIntegrationContract(t *testing.T) {
	client := dynalite(t)
	if client == nil {
		return
	}
	for _, kind := range []string{"S", "N", "B"} {
		t.Run(kind, func(t *testing.T) {
			enrichtest.Run(t, func(t *testing.T) *enrichtest.Harness {
				return harness(t, client, made(t, client, "id", kind), kind)
			})
		})
	}
}

// Items that do not fit into one answer: the server leaves some out, and the driver asks again.
func TestIntegrationLargeItems(t *testing.T) {
	client := dynalite(t)
	if client == nil {
		return
	}
	name := made(t, client, "id", "N", "status", "S")
	payload := &types.AttributeValueMemberB{Value: make([]byte, 390<<10)}
	var keys []string
	for i := range 60 {
		keys = append(keys, fmt.Sprint(i))
		if _, err := client.PutItem(t.Context(), &awsdynamodb.PutItemInput{TableName: &name, Item: item{
			"id": keyValue("N", keys[i]), "status": value("on"), "data": payload, "name": value(map[string]any{"first": "Ada", "last": "L"})}}); err != nil {
			t.Fatal(err)
		}
	}
	table, err := New(t.Context(), Options{Table: name, Client: client, Sort: "status=on"})
	if err != nil {
		t.Fatal(err)
	}
	found, err := table.Lookup(t.Context(), append(keys, "x", "-1", "1e2", "10.0"))
	if err != nil || len(found) != len(keys)+1 {
		t.Fatalf("%d rows, %v", len(found), err)
	}
	// The control: one answer holds fewer.
	c := call{table: table, texts: map[string][]string{}}
	for _, key := range keys {
		c.ask(key)
	}
	out, err := client.BatchGetItem(t.Context(), c.request())
	if err != nil || len(out.UnprocessedKeys[name].Keys) == 0 {
		t.Fatalf("the server left nothing out: %v", err)
	}
	selected, err := New(t.Context(), Options{Table: name, Client: client, Sort: "status=on", Select: []string{"status", "name.first", "name"}})
	if err != nil {
		t.Fatal(err)
	}
	want(t, ask(t, selected, "5", "61"), "5", `{"name":{"first":"Ada","last":"L"},"status":"on"}`)
	selected, err = New(t.Context(), Options{Table: name, Client: client, Sort: "status=on", Select: []string{"name.first", "data.x"}})
	if err != nil {
		t.Fatal(err)
	}
	want(t, ask(t, selected, "5"), "5", `{"name":{"first":"Ada"}}`)
	if _, err := New(t.Context(), Options{Table: name + "x", Client: client}); err == nil {
		t.Error("a table that is not there was opened")
	}
}
