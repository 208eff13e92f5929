//go:build integration

package kcl

import (
	"os"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	cloud "github.com/millstream/millstream/cloud/aws"
)

// patience is how long a table may take to come or go, poll how often it is asked for.
const patience, poll = time.Minute, 50 * time.Millisecond

// A table on an independent DynamoDB: dynalite, at MILLSTREAM_TEST_DYNALITE.
func TestIntegrationDynalite(t *testing.T) {
	endpoint := os.Getenv("MILLSTREAM_TEST_DYNALITE")
	if endpoint == "" {
		if os.Getenv("MILLSTREAM_INTEGRATION") == "1" {
			t.Fatal("MILLSTREAM_TEST_DYNALITE is not set")
		}
		t.Log("not run: MILLSTREAM_TEST_DYNALITE is not set")
		return
	}
	c, err := cloud.Load(t.Context(), cloud.Options{Endpoint: endpoint})
	if err != nil {
		t.Fatal(err)
	}
	client := dynamodb.NewFromConfig(c)
	for _, table := range []struct {
		name, key string
		items     []item
		want      string
	}{
		{"millstream-kcl", "leaseKey", []item{kclLease("a", "49", 2), kclLease("p", "SHARD_END", 0), kclLease("c", "TRIM_HORIZON", 0, "p", "q"),
			with(kclLease("b", "50", 0), item{"throughputKBps": &types.AttributeValueMemberN{Value: "1.5"}})}, "a 49/3\nb 50/1\nc @ p,q\np done"},
		{"millstream-vmware", "ShardID", []item{vmwareLease("a", "49", ""), vmwareLease("b", "SHARD_END", "a")}, "a 49\nb done a"},
	} {
		_, _ = client.DeleteTable(t.Context(), &dynamodb.DeleteTableInput{TableName: &table.name}) // of an earlier run
		if err := dynamodb.NewTableNotExistsWaiter(client, func(o *dynamodb.TableNotExistsWaiterOptions) { o.MinDelay, o.MaxDelay = poll, poll }).Wait(t.Context(), &dynamodb.DescribeTableInput{TableName: &table.name}, patience); err != nil {
			t.Fatal(err)
		}
		if _, err := client.CreateTable(t.Context(), &dynamodb.CreateTableInput{TableName: &table.name, BillingMode: types.BillingModePayPerRequest,
			AttributeDefinitions: []types.AttributeDefinition{{AttributeName: &table.key, AttributeType: types.ScalarAttributeTypeS}},
			KeySchema:            []types.KeySchemaElement{{AttributeName: &table.key, KeyType: types.KeyTypeHash}}}); err != nil {
			t.Fatal(err)
		}
		if err := dynamodb.NewTableExistsWaiter(client, func(o *dynamodb.TableExistsWaiterOptions) { o.MinDelay, o.MaxDelay = poll, poll }).Wait(t.Context(), &dynamodb.DescribeTableInput{TableName: &table.name}, patience); err != nil {
			t.Fatal(err)
		}
		for _, i := range table.items {
			if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table.name, Item: i}); err != nil {
				t.Fatal(err)
			}
		}
		got, err := Read(t.Context(), Options{Table: table.name, Endpoint: endpoint})
		if err != nil || show(got) != table.want {
			t.Errorf("%s: got\n%s\n%v\nwant\n%s", table.name, show(got), err, table.want)
		}
		if _, err := client.DeleteTable(t.Context(), &dynamodb.DeleteTableInput{TableName: aws.String(table.name)}); err != nil {
			t.Error(err)
		}
	}
	if _, err := Read(t.Context(), Options{Table: "millstream-none", Endpoint: endpoint}); err == nil || err.Error() !=
		"table millstream-none does not exist in us-east-1: the lease table bears the other program's application name" {
		t.Errorf("a table that is not there: %v", err)
	}
}
